#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 600
"""services_test.py - real services in a guest, and their everyday clients on the host, through doors of every kind.

nginx, Python's http.server, redis and PostgreSQL of Debian run in one VM; curl, wrk, redis-benchmark, pgbench, psql and
openssl come from outside. Each is on an address of its own: wildcard, 127.0.0.1 only, ::1 only.
"""
import hashlib
import os
import pathlib
import re
import socket
import subprocess
import tempfile
import threading
import traceback

import doors
import handoff_router
import images
import lib
from lib import equal, ok

MIB = 1 << 20


def tool(*command, limit=lib.LIMIT, env=None, **more):
    """Run a program of the host; its output must be looked at with its status."""
    done = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=limit, env={**os.environ, **(env or {})}, **more)
    done.text = done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")
    return done


def curl(*arguments, limit=lib.LIMIT):
    return tool("curl", "--silent", "--show-error", "--fail", "--max-time", str(limit - 5), *arguments, limit=limit)


def make_certificate(folder):
    """A certificate for husk.test by an authority of its own: (authority, chain, key)."""
    authority, chain, key = folder / "ca.pem", folder / "chain.pem", folder / "key.pem"
    subject = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for command in (
            ["req", "-x509", *subject, "-keyout", folder / "ca.key", "-out", authority, "-days", "2", "-subj", "/CN=test authority"],
            ["req", *subject, "-keyout", key, "-out", folder / "request.pem", "-subj", "/CN=husk.test",
             "-addext", "subjectAltName=DNS:husk.test"],
            ["x509", "-req", "-in", folder / "request.pem", "-CA", authority, "-CAkey", folder / "ca.key", "-CAcreateserial",
             "-copy_extensions", "copy", "-days", "2", "-out", chain]):
        done = tool("openssl", *command)
        if done.returncode:
            raise AssertionError(done.text)
    return authority, chain, key


class Services:
    """The VM with all four, and its doors."""

    def __init__(self, home, folder):
        self.home, self.folder = home, folder
        self.authority, chain, key = make_certificate(folder)
        self.postgres = folder / "pg"
        self.postgres.mkdir()
        self.unix, self.exec, self.handoff = folder / "http.sock", folder / "agent.sock", folder / "router.sock"
        image = home.have(images.services(), "services")
        self.vm = doors.Vm(
            home, "-m", "1G", "--cpus", "2", "--listen-wait", f"{lib.LIMIT}s",
            "-p", "0:8080", "-p", "0:8000", "-p", "[::1]:0:8081", "-p", "0:6379", "-p", "0:5432", "-p", "0:7000/tcp",
            "--http-port", "0", "--vsock-mux", f"{self.postgres}/.s.PGSQL.5432:5432", "--vsock-mux", self.unix,
            "--exec-door", self.exec, "--handoff", f"{self.handoff}:8080",
            "--tls", f"{chain}:{key}", "--tls-port", "0", image)
        self.vm.wait_for_doors()

    def url(self, kind, port, path="/"):
        return f"http://{self.vm.door(kind, port)}{path}"


def check_curl(s):
    """HTTP as everyday clients speak it. The first exchange waits for nginx to listen."""
    nginx, python = s.url("tcp", 8080, ""), s.url("tcp", 8000, "")
    done = curl(f"{nginx}/")
    equal(done.text, "<h1>husk</h1>\n", "curl, nginx: a page; the connection waited until it listened", done.text)
    first = s.vm.door("tcp", 0)
    done = curl(f"http://{first}/")
    equal(done.text, "<h1>husk</h1>\n", "--http-port leads to the first listener", done.text)
    done = curl("--unix-socket", s.unix, "http://husk/")
    equal(done.text, "<h1>husk</h1>\n", "a unix door leads there as well", done.text)
    done = curl(s.url("tcp", 8081))
    equal(done.text, "six\n", "nginx on ::1 alone, by way of a door on ::1", done.text)
    done = curl(f"{python}/")
    equal(done.text, "<h1>husk</h1>\n", "http.server on 127.0.0.1 alone", done.text)

    done = curl("-w", "%{num_connects} ", *[f"{nginx}/"] * 20)
    equal(done.text.count("<h1>husk</h1>\n"), 20, "twenty requests", done.text)
    equal(re.findall(r"(\d+) ", done.text), ["1"] + ["0"] * 19, "over one connection", done.text)

    data = os.urandom(5 * MIB)
    file = s.folder / "upload"
    file.write_bytes(data)
    done = curl("-T", file, f"{nginx}/up/five")
    equal(done.returncode, 0, "PUT of 5 MiB", done.text)
    done = curl(f"{nginx}/up/five")
    ok(done.stdout == data, "and it is what was sent", f"{len(done.stdout)} bytes {done.stderr!r}")
    done = curl("-H", "Expect:", "--data-binary", f"@{file}", f"{python}/")
    ok(done.stdout == data, "POST of 5 MiB, answered with the same in chunks", f"{len(done.stdout)} bytes {done.stderr!r}")
    done = curl("-H", "Transfer-Encoding: chunked", "-T", file, f"{nginx}/up/chunked")
    equal(done.returncode, 0, "an upload in chunks", done.text)
    done = curl("-r", "5242870-5242890", f"{nginx}/up/chunked")
    ok(done.stdout == data[5242870:5242891], "a range at its end", done.text)

    for name, arguments in (("a TCP door", [f"{nginx}/big"]), ("a unix door", ["--unix-socket", s.unix, "http://husk/big"])):
        done = curl(*arguments)
        equal(hashlib.sha256(done.stdout).hexdigest(), images.BIG_SHA256, f"20 MiB through {name}", done.stderr)
    many = [subprocess.Popen(["curl", "-sSf", "--max-time", str(lib.LIMIT), f"{nginx}/big"], stdout=subprocess.PIPE) for _ in range(4)]
    digests = [hashlib.sha256(p.communicate()[0]).hexdigest() for p in many]
    equal(digests, [images.BIG_SHA256] * 4, "four downloads at once")


def check_wrk(s):
    for kind, port in (("tcp", 8080), ("tcp", 8000)):
        done = tool("wrk", "-t", "1", "-c", "20", "-d", "2s", "--timeout", "20s", s.url(kind, port))
        requests = re.search(r"(\d+) requests in", done.text)
        # http.server sheds nothing, but has a backlog of 5: wrk's first connections may find it full
        ok(done.returncode == 0 and requests and int(requests[1]) > 0 and "Non-2xx" not in done.text
           and (port == 8000 or "Socket errors" not in done.text), f"wrk, 20 connections for 2 s to port {port}: "
           f"{requests and requests[1]} requests", done.text)


def check_redis(s):
    host, _, port = s.vm.door("tcp", 6379).rpartition(":")
    done = tool("redis-cli", "-h", host, "-p", port, "ping")
    equal(done.text, "PONG\n", "redis-cli: ping", done.text)
    for arguments, what in ((["-n", "2000", "-c", "20"], "20 clients"), (["-n", "20000", "-c", "10", "-P", "16"], "pipelined"),
                            (["-n", "200", "-c", "4", "-d", "100000"], "values of 100 kB")):
        done = tool("redis-benchmark", "-h", host, "-p", port, "--csv", "-t", "set,get", *arguments)
        rates = re.findall(r'^"(?:SET|GET)","([\d.]+)"', done.text, re.M)
        ok(done.returncode == 0 and len(rates) == 2 and "rror" not in done.text,
           f"redis-benchmark, {what}: {' and '.join(rates)} requests/s", done.text)


def check_postgres(s):
    host, _, port = s.vm.door("tcp", 5432).rpartition(":")
    unix, tcp = {"PGHOST": str(s.postgres), "PGUSER": "postgres"}, {"PGHOST": host, "PGPORT": port, "PGUSER": "postgres"}
    # A socket that listens is not a server that is ready: PostgreSQL itself says "starting up" for a moment.
    ok(doors.until(lambda: tool("psql", "-c", "select 1", env=unix).returncode == 0), "psql -h DIR, the socket being a door")
    pgbench = images.service_program("pgbench")
    done = tool(pgbench, "-i", "-s", "1", "-q", env=unix, limit=2 * lib.LIMIT)
    equal(done.returncode, 0, "pgbench -i: 100,000 rows through a unix door", done.text)
    for where, env in (("a unix door", unix), ("a TCP door", tcp)):
        done = tool(pgbench, "-c", "4", "-T", "2", "-n", env=env)
        rate = re.search(r"tps = ([\d.]+)", done.text)
        ok(done.returncode == 0 and rate and "number of failed transactions: 0" in done.text,
           f"pgbench, 4 clients through {where}: {rate and rate[1]} transactions/s", done.text)
    done = tool("psql", "-At", "-c", "select count(*), sum(aid) from pgbench_accounts", env=tcp)
    equal(done.text, "100000|5000050000\n", "and the rows are whole", done.text)


def check_tls(s):
    host, _, port = s.vm.door("tls").rpartition(":")
    known = ["--cacert", s.authority, "--resolve", f"husk.test:{port}:{host}"]
    done = curl(*known, f"https://husk.test:{port}/")
    equal(done.text, "<h1>husk</h1>\n", "curl --cacert: a page over TLS", done.text)
    done = curl(*known, f"https://husk.test:{port}/big")
    equal(hashlib.sha256(done.stdout).hexdigest(), images.BIG_SHA256, "20 MiB over TLS", done.stderr)
    done = curl("--resolve", f"husk.test:{port}:{host}", f"https://husk.test:{port}/")
    ok(done.returncode == 60, "without the authority curl does not trust it", done.text)
    done = curl(*known, "-w", "%{num_connects} ", *[f"https://husk.test:{port}/"] * 10)
    equal(re.findall(r"(\d+) ", done.text), ["1"] + ["0"] * 9, "ten requests over one connection", done.text)
    for version in ("-tls1_2", "-tls1_3"):
        done = subprocess.run(["openssl", "s_client", "-quiet", "-verify_return_error", "-verify_hostname", "husk.test", "-CAfile",
                               str(s.authority), "-servername", "husk.test", version, "-alpn", "h2,http/1.1",
                               "-connect", f"{host}:{port}"], input=b"GET / HTTP/1.0\r\n\r\n", stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=lib.LIMIT)
        ok(b"<h1>husk</h1>" in done.stdout, f"openssl s_client {version}: verified, and a page", done.stdout + done.stderr)
    done = tool("openssl", "s_client", "-CAfile", s.authority, "-alpn", "h2,http/1.1", "-connect", f"{host}:{port}")
    ok("ALPN protocol: http/1.1" in done.text, "ALPN agrees to http/1.1", done.text)
    done = tool("openssl", "s_client", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0", "-connect", f"{host}:{port}")
    ok("Cipher is (NONE)" in done.text, "TLS 1.1 is refused", done.text)
    with doors.connect(f"{host}:{port}") as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        ok(b"<h1>" not in doors.read_all(sock), "plain HTTP gets nothing out of it")


def check_handoff(s):
    """A router in front of nginx: 200 connections over one of its own, each a whole exchange of HTTP."""
    router = handoff_router.Router(str(s.handoff))
    failed, page = [], b"<h1>husk</h1>\n"

    def client(count):
        for _ in range(count):
            try:
                with doors.connect(f"127.0.0.1:{router.port}") as sock:
                    sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                    got = b""
                    while page not in got and (chunk := sock.recv(PIECE)):
                        got += chunk
                    sock.sendall(b"GET / HTTP/1.0\r\n\r\n")  # the connection is the guest's: a second request, then its end
                    got += doors.read_all(sock)
                    if got.count(page) != 2:
                        failed.append(got)
            except OSError as e:
                failed.append(e)

    threads = [threading.Thread(target=client, args=(50,)) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    ok(not failed and not router.failed, f"200 hand-offs on one connection of a router ({router.count})", (failed + router.failed)[:3])
    equal(router.count, 200, "each a connection of its own, the descriptor on the length, on the prefix, in one or two messages")
    router.close()
    # What the router read first may be long: a POST of which it has half a mebibyte already
    data = os.urandom(MIB - 1000)
    request = b"PUT /up/routed HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(data)
    left, right = doors.tcp_pair()
    with handoff_router.connect_unix(str(s.handoff)) as door, left:
        handoff_router.hand_over(door, right.fileno(), request + data[:MIB // 2], "prefix")
        right.close()
        left.sendall(data[MIB // 2:])
        ok(doors.read_all(left).startswith(b"HTTP/1.1 201"), "a prefix of half a mebibyte, the rest from the client")
    done = curl(s.url("tcp", 8080, "/up/routed"))
    ok(done.stdout == data, "arrives whole", f"{len(done.stdout)} bytes")


PIECE = 1 << 16


def check_agent_and_vsock(s):
    with doors.connect(str(s.exec)) as sock:
        result = lib.agent_exec(sock, ["/bin/sh", "-c", "cat; echo done"], stdin=b"in\n")
    equal(result["out"], b"in\ndone\n", "--exec-door leads to the agent", result)
    with doors.hybrid(s.home.socket("vsock.sock"), 7001) as sock:
        ok(doors.echo(sock, bytes(range(256))), "vsock.sock leads to a program that speaks AF_VSOCK")


def check_later(s):
    """A door that is opened later, and closed."""
    path = s.folder / "later.sock"
    done = s.home.husk("expose", s.vm.name, "--vsock-mux", f"{path}:8080")
    ok(done.status == 0 and path.exists(), "husk expose", done)
    equal(curl("--unix-socket", path, "http://husk/").text, "<h1>husk</h1>\n", "and curl gets through")
    with doors.connect(str(path)) as kept:
        kept.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        kept.recv(1)
        done = s.home.husk("unexpose", s.vm.name, path)
        ok(done.status == 0 and not path.exists(), "husk unexpose takes its path away", done)
        kept.sendall(b"GET / HTTP/1.0\r\n\r\n")
        ok(doors.read_all(kept).endswith(b"<h1>husk</h1>\n"), "a connection that is inside lives on")
    done = s.home.husk("port", s.vm.name)
    for kind, port in (("tcp", 8080), ("tcp", 5432)):
        ok(s.vm.door(kind, port) in done.text, f"husk port says where {port} is", done)
    stats = s.vm.stats()
    mine = [d for d in stats["doors"] if d["endpoint"] == s.vm.door("tcp", 8080)][0]
    ok(mine["connections"] > 20 and mine["bytes_out"] > 100 * MIB > mine["bytes_in"] > 10 * MIB and mine["active"] < 5
       and mine["waiting"] == 0, "husk stats has counted", stats)
    for stage in ("accept", "connect", "first_byte", "read", "write"):
        ok(mine["stages"][stage]["count"] > 0 and mine["stages"][stage]["p50_us"] >= 0, f"and timed: {stage}", mine["stages"])


def test_services(home):
    with tempfile.TemporaryDirectory(prefix="husk-doors-") as folder:
        s = Services(home, pathlib.Path(folder))
        for check in (check_curl, check_wrk, check_redis, check_postgres, check_tls, check_handoff, check_agent_and_vsock, check_later):
            begun = lib.time.monotonic()
            try:
                check(s)
            except Exception:  # the others still tell
                ok(False, check.__name__, traceback.format_exc() + s.vm.errors()[-2000:])
            print(f"# {check.__name__}: {lib.time.monotonic() - begun:.1f} s", flush=True)
        ok(s.vm.running.process.poll() is None, "the VM has lived through all of it", s.vm.errors())
        paths = [s.unix, s.exec, s.handoff, s.postgres / ".s.PGSQL.5432"]
        s.vm.running.process.terminate()
        done = s.vm.running.finish()
        equal(done.status, 0, "it ends as it is told", done)
        equal([p for p in paths if p.exists()], [], "and its doors' paths are gone")
        lib.none_left()


lib.main(globals())
