#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 600
"""doors_test.py - how doors behave: who waits and how long, how connections end, what bad peers cost, and many of them.

The other end in the guest is guest/peer.c, which does what its client's first line says.
"""
import os
import pathlib
import re
import select
import signal
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
import traceback

import doors
import handoff_router
import images
import lib
from doors import ask, connect, read_all, read_count, tcp_pair
from lib import equal, ok

MIB = 1 << 20
USUAL_WAIT = 10  # seconds that a connection waits for its listener without --listen-wait (docs/doors.md)
SERVE = "peer serve tcp:7000 local:7002 six:7003 echo:7001 vsock:7001 & trap 'exit 0' TERM; wait"


def run_checks(checks, *arguments):
    for check in checks:
        begun = time.monotonic()
        try:
            check(*arguments)
        except Exception:  # the others still tell
            ok(False, check.__name__, traceback.format_exc())
        print(f"# {check.__name__}: {time.monotonic() - begun:.1f} s", flush=True)


class Served:
    """A VM in which peer serves, with a door of each kind to each of its ports."""

    def __init__(self, home, folder, script=SERVE, more=()):
        self.home, self.folder = home, folder
        folder.mkdir(exist_ok=True)
        self.unix, self.first, self.router = (str(folder / name) for name in ("unix.sock", "first.sock", "router.sock"))
        image = home.have(images.busybox(), "busybox")
        if "--listen-wait" not in more:
            more = ["--listen-wait", f"{lib.LIMIT}s", *more]
        self.vm = doors.Vm(home, "-m", "256M", "-p", "0:7000", "-p", "0:7001", "-p", "0:7002", "-p", "0:7003",
                           "--vsock-mux", f"{self.unix}:7000", "--vsock-mux", self.first, "--handoff", f"{self.router}:7000",
                           *more, image, "sh", "-c", script)
        self.vm.wait_for_doors()
        self.tcp, self.echo = self.vm.door("tcp", 7000), self.vm.door("tcp", 7001)

    def listens(self):
        """Does peer serve? Where --listen-wait is short, those who come before it does are turned away."""
        try:
            return "open" in doors.ends(self.tcp)
        except ConnectionError:
            return False


# ---- readiness ----

def check_waits(s):
    """Clients that come before the guest has booted, let alone listens."""
    socks = [ask(where, "source 1000") for where in [s.tcp, s.unix, s.first] * 10]
    ok(not select.select(socks, [], [], 0.2)[0], "nobody is turned away while the guest boots")
    left, right = tcp_pair()
    router = handoff_router.connect_unix(s.router)
    handoff_router.hand_over(router, right.fileno(), b"source 1000\n", "length")
    right.close()
    late = doors.readable(socks + [left])
    counts = [read_count(sock) for sock in socks + [left] if sock not in late]
    equal(counts, [(1000, True)] * 31, "connections made before the guest listens wait for it, and are served")
    for sock in socks + [left, router]:
        sock.close()
    for port in (7002, 7003):
        with ask(s.vm.door("tcp", port), "source 7") as sock:
            equal(read_count(sock), (7, True), f"a listener on {'127.0.0.1' if port == 7002 else '::1'} alone is reached")
    equal([d for d in s.vm.stats()["doors"] if d["waiting"]], [], "nobody is left waiting")


def check_nobody_listens(s):
    """--listen-wait 1, in the VM that has it."""
    begun = time.monotonic()
    with connect(s.vm.door("tcp", 7009)) as sock:
        try:
            got = sock.recv(1)
        except ConnectionResetError:
            got = b""
        waited = time.monotonic() - begun
    ok(got == b"" and 0.9 < waited < USUAL_WAIT, f"nobody listens there: closed after {waited:.2f} s", got)
    ok(doors.until(lambda: re.search(r"7009.*listen|listen.*7009", s.vm.log())), "and the log says why", s.vm.log()[-2000:])
    left, right = tcp_pair()
    with handoff_router.connect_unix(s.router_nowhere) as router:
        begun = time.monotonic()
        handoff_router.hand_over(router, right.fileno(), b"x", "one")
        right.close()
        how = doors.how_it_ended(left)
        waited = time.monotonic() - begun
        ok(how in ("eof", "reset") and 0.9 < waited < USUAL_WAIT, f"nor there for a hand-off: its client is closed after {waited:.2f} s", how)
        left.close()
        ok(not select.select([router], [], [], 0.3)[0], "and the router's connection is not")
        left, right = tcp_pair()
        handoff_router.hand_over(router, right.fileno(), b"x", "one")
        right.close()
        ok(doors.how_it_ended(left) in ("eof", "reset"), "the next hand-off on it is heard")
        left.close()


def check_flapping(s):
    """A listener that comes and goes, every 100 ms: each client is served or closed, and none hangs."""
    with connect(str(s.home_exec)) as agent:
        agent.sendall(lib.HELLO_FRAME + lib.frame(lib.EXEC, b"".join(
            lib.tlv(lib.EXEC_ARG, a) for a in ("/bin/peer", "relisten", "7100", "100"))))
        while lib.read_frame(agent)[0] != lib.STDOUT:
            pass
        begun, served = time.monotonic(), 0
        for _ in range(20):
            with connect(s.vm.door("tcp", 7100)) as sock:
                how = doors.how_it_ended(sock)
                served += how in ("reset", "eof")
        ok(served == 20, f"20 connections to a listener that flaps: none hangs ({time.monotonic() - begun:.1f} s)")
    ok(not [d for d in s.vm.stats()["doors"] if d["waiting"]], "and nobody waits")


# ---- how connections end ----

def check_half_close(s):
    for name, where in (("TCP", s.tcp), ("unix", s.unix)):
        with ask(where, "sink") as sock:
            sock.sendall(doors.CYCLE)
            sock.shutdown(socket.SHUT_WR)
            equal(read_all(sock), b"%d\n" % len(doors.CYCLE), f"{name}: the client ends first, and gets its answer")
        with ask(where, "late") as sock:
            sock.shutdown(socket.SHUT_WR)
            equal(read_count(sock), (MIB, True), f"{name}: a mebibyte after the client has ended")
        with ask(where, "source 100000") as sock:
            equal(read_count(sock), (100000, True), f"{name}: the guest ends first")
            for _ in range(8):
                sock.sendall(doors.CYCLE)
        with ask(where, "echo") as sock:
            data, got = os.urandom(4 * MIB), []
            reader = threading.Thread(target=lambda: got.append(read_all(sock)))
            reader.start()
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            reader.join()
            ok(got[0] == data, f"{name}: 4 MiB there and back, nothing is lost at the end", len(got[0]))
    for _ in range(30):
        with ask(s.tcp, "source 300000") as sock:
            if read_count(sock) != (300000, True):
                ok(False, "30 times: the last byte arrives before the end")
                return
    ok(True, "30 times: the last byte arrives before the end")


def watched(where):
    """A connection that the guest has, and counts the end of."""
    sock = ask(where, "watch")
    lib.read_exactly(sock, 9)
    return sock


def check_reset(s):
    ok(doors.until(lambda: doors.ends(s.tcp)["open"] == 1), "all is closed inside", doors.ends(s.tcp))
    before = doors.ends(s.tcp)
    for _ in range(5):
        sock = watched(s.tcp)
        sock.sendall(b"x")
        doors.reset(sock)
    ok(doors.until(lambda: doors.ends(s.tcp)["reset"] == before["reset"] + 5), "a client's reset arrives as a reset", doors.ends(s.tcp))
    for where in (s.tcp, s.unix):
        watched(where).close()
    ok(doors.until(lambda: doors.ends(s.tcp)["eof"] == before["eof"] + 2), "and its end as an end", doors.ends(s.tcp))
    with ask(s.tcp, "reset 100000") as sock:
        got = lib.read_exactly(sock, 100000)
        sock.sendall(b"x")
        how = doors.how_it_ended(sock)
    equal((len(got), how), (100000, "reset"), "the guest's reset arrives as a reset, what it sent before is there")
    with ask(s.unix, "reset 10") as sock:
        lib.read_exactly(sock, 10)
        sock.sendall(b"x")
        ok(doors.how_it_ended(sock) in ("reset", "eof"), "through a unix door it is an end")
    # Half-closed twice over, closed at once, never used
    for _ in range(20):
        sock = connect(s.tcp)
        sock.shutdown(socket.SHUT_WR)
        sock.close()
        connect(s.unix).close()
        doors.reset(connect(s.tcp))
    ok(doors.until(lambda: doors.ends(s.tcp)["open"] == 1), "clients that come and go leave nothing inside", doors.ends(s.tcp))


# ---- many, and bad ones ----

def check_never_reads(s):
    """A client that asks for 200 MB and reads none of them, one that is never read from, next to one that behaves."""
    worker, before = s.vm.worker(), doors.resident(s.vm.worker())
    lazy = [ask(s.tcp, "source 200000000"), ask(s.unix, "source 200000000")]
    flood = ask(s.tcp, "hold")
    flood.setblocking(False)
    sent = 0
    doors.readable(lazy)
    begun = time.monotonic()
    while select.select([], [flood], [], 0.5)[1]:
        sent += flood.send(doors.CYCLE)
        if sent > 100 * MIB:
            break
    ok(sent < 30 * MIB, f"a guest that never reads holds its client up (after {sent >> 10} KiB)")
    begun = time.monotonic()
    with ask(s.tcp, "source 10000000") as sock:
        equal(read_count(sock), (10000000, True), "10 MB next to peers that do not read")
    print(f"# in {time.monotonic() - begun:.2f} s")
    grown = doors.resident(worker) - before
    ok(grown < 8 * MIB, f"the worker grew by {grown >> 10} KiB")
    for sock in lazy + [flood]:
        sock.close()
    with ask(s.tcp, "drop") as sock:  # the end of the flood lies behind bytes that are never read
        read_all(sock)
    ok(doors.until(lambda: doors.ends(s.tcp)["open"] == 1), "and all of it is gone once they are", doors.ends(s.tcp))


def check_fair(s):
    """Eight that read as fast as they can, for two seconds."""
    socks = [ask(where, "source 100000000000") for where in [s.tcp, s.unix] * 4]
    counts = dict.fromkeys(socks, 0)
    doors.readable(socks)
    until = time.monotonic() + 2
    while (left := until - time.monotonic()) > 0:
        for sock in select.select(socks, [], [], left)[0]:
            counts[sock] += len(sock.recv(PIECE))
    for sock in socks:
        sock.close()
    least, most = min(counts.values()), max(counts.values())
    ok(least * 8 > most, f"eight streams at once: {least >> 10} to {most >> 10} KiB each", [n >> 10 for n in counts.values()])


PIECE = 1 << 16


def check_many(s):
    """A thousand one after the other, then 300 at once: descriptors and memory are what they were."""
    for _ in range(50):
        with connect(s.echo) as sock:
            doors.echo(sock)
    ok(doors.until(lambda: doors.ends(s.tcp)["open"] == 1), "quiet", doors.ends(s.tcp))
    worker = s.vm.worker()
    fds, memory = doors.descriptors(worker), doors.resident(worker)
    begun, wrong = time.monotonic(), 0
    for _ in range(1000):
        with connect(s.echo) as sock:
            wrong += not doors.echo(sock, b"a line\n")
    equal(wrong, 0, f"1,000 connections, one after the other, in {time.monotonic() - begun:.1f} s")
    ok(doors.until(lambda: doors.descriptors(worker) <= fds), "the worker's descriptors are as before",
       f"{fds} -> {doors.descriptors(worker)}")
    grown = doors.resident(worker) - memory
    ok(grown < 2 * MIB, f"its memory grew by {grown >> 10} KiB")
    begun = time.monotonic()
    socks = [connect(s.echo) for _ in range(300)]
    for sock in socks:
        sock.sendall(b"one byte and more")
    equal([lib.read_exactly(sock, 17) for sock in socks], [b"one byte and more"] * 300,
          f"300 connections at the same time, in {time.monotonic() - begun:.1f} s")
    ok(all(doors.echo(sock) for sock in reversed(socks)), "each of them alive")
    for sock in socks:
        sock.close()
    ok(doors.until(lambda: doors.descriptors(worker) <= fds), "the worker's descriptors are as before",
       f"{fds} -> {doors.descriptors(worker)}")


def check_bad_routers(s):
    """Framing errors: each ends the router's connection and what it handed over, and nobody else's."""
    def attempt(what, act, closed=True):
        left, right = tcp_pair()
        router = handoff_router.connect_unix(s.router)
        try:
            act(router, right)
        except (BrokenPipeError, ConnectionResetError):
            pass
        right.close()
        how = doors.how_it_ended(router)
        if closed:
            ok(how != "open", f"{what}: the router's connection is closed", how)
        client = doors.how_it_ended(left)
        ok(client != "open", f"{what}: so is what it handed over", client)
        router.close(), left.close()

    def length(n):
        return struct.pack(">I", n)

    pipe = os.pipe()
    udp, fresh = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
    attempt("a length of zero", lambda r, c: handoff_router.send(r, length(0), [c.fileno()]))
    attempt("a length of 1 MiB and 1", lambda r, c: handoff_router.send(r, length(MIB + 1), [c.fileno()]))
    attempt("a length of 4 GiB", lambda r, c: handoff_router.send(r, length(0xffffffff), [c.fileno()]))
    attempt("no descriptor", lambda r, c: handoff_router.send(r, length(3) + b"abc" + length(1) + b"x", []))
    attempt("two in one message", lambda r, c: handoff_router.send(r, length(3) + b"abc", [c.fileno(), c.fileno()]))
    attempt("one on the length and one on the prefix", lambda r, c: (handoff_router.send(r, length(3), [c.fileno()]),
                                                                      handoff_router.send(r, b"abc", [c.fileno()])))
    attempt("a pipe", lambda r, c: handoff_router.send(r, length(3) + b"abc", [pipe[0]]))
    attempt("a UDP socket", lambda r, c: handoff_router.send(r, length(3) + b"abc", [udp.fileno()]))
    attempt("a socket that is not connected", lambda r, c: handoff_router.send(r, length(3) + b"abc", [fresh.fileno()]))
    attempt("a prefix cut short", lambda r, c: (handoff_router.send(r, length(100) + b"abc", [c.fileno()]), r.shutdown(socket.SHUT_WR)))
    attempt("a length cut short", lambda r, c: (handoff_router.send(r, b"\0\0", [c.fileno()]), r.shutdown(socket.SHUT_WR)))
    for fd in pipe:
        os.close(fd)
    udp.close(), fresh.close()
    left, right = tcp_pair()
    with handoff_router.connect_unix(s.router) as router:
        handoff_router.hand_over(router, right.fileno(), b"echo\n", "prefix")
        right.close()
    ok(doors.echo(left, b"still here"), "a router that goes away between messages leaves its clients be")
    left.close()
    ok(doors.until(lambda: doors.ends(s.tcp)["open"] == 1), "nothing of it is left inside", doors.ends(s.tcp))


def check_vm_ends(s):
    """The VM ends while clients are connected, stream and wait: all of them see the end."""
    idle = [connect(where) for where in [s.echo, s.first] * 20]
    busy = [ask(s.tcp, "source 100000000000") for _ in range(4)]
    doors.readable(busy)
    begun = time.monotonic()
    s.vm.running.process.send_signal(signal.SIGKILL)
    late = [sock for sock in idle + busy if doors.how_it_ended(sock) == "open"]
    ok(not late, f"44 clients saw the VM's end after {time.monotonic() - begun:.2f} s", f"{len(late)} did not")
    for sock in idle + busy:
        sock.close()
    s.vm.running.finish()
    lib.wait_gone([pid for pid, line in lib.descendants().items() if "husk-vmm" in line and s.vm.name in line])


class Ending:
    """A VM whose workload is peer itself, and a client with so little room that what it does not read stays behind."""

    def __init__(self, home, folder):
        folder.mkdir()
        self.router = str(folder / "router.sock")
        image = home.have(images.busybox(), "busybox")
        self.vm = doors.Vm(home, "-m", "256M", "--listen-wait", f"{lib.LIMIT}s", "-p", "0:7000", "--handoff",
                           f"{self.router}:7000", image, "peer", "serve", "tcp:7000")
        self.vm.wait_for_doors()
        self.tcp = self.vm.door("tcp", 7000)

    def ask(self, command):
        """Handed over, since only its owner can choose how much the kernel takes for a client that does not read."""
        left, right = tcp_pair()
        left.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        right.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        with handoff_router.connect_unix(self.router) as router:
            handoff_router.hand_over(router, right.fileno(), command.encode() + b"\n", "one")
            right.close()
        return left


def check_last_words(s):
    idle = [watched(s.tcp) for _ in range(20)]
    with s.ask("last 3000000") as sock:
        total, right = 0, True
        while chunk := sock.recv(PIECE):
            right = right and chunk == doors.CYCLE[total % 251:total % 251 + len(chunk)]
            total += len(chunk)
            time.sleep(len(chunk) / (2 << 20))  # a client of 2 MiB/s
    equal((total, right), (3000000, True), "a service that answers and is gone: its slow client gets every byte and an end")
    equal([doors.how_it_ended(sock) for sock in idle], ["eof"] * 20, "those that had nothing to come see the end as well")
    equal(s.vm.running.finish().status, 7, "and the workload's status is told")
    for sock in idle:
        sock.close()


def check_never_taken(s):
    with s.ask("last 1200000") as sock:
        doors.readable([sock])
        begun = time.monotonic()
        equal(s.vm.running.finish().status, 7, "a client that never reads does not keep the VM")
        print(f"# for longer than {time.monotonic() - begun:.2f} s")
        equal(doors.how_it_ended(sock), "reset", "it sees that its answer was cut: a reset")


def check_cut(s):
    idle, busy = watched(s.tcp), s.ask("source 100000000000")
    doors.readable([busy])
    found = [pid for pid, line in lib.descendants(s.vm.running.pid).items() if "qemu-system" in line]
    equal(len(found), 1, "one QEMU")
    os.kill(found[0], signal.SIGKILL)
    equal([doors.how_it_ended(sock) for sock in (busy, idle)], ["reset"] * 2, "QEMU dies in mid-answer: a reset, no end")
    s.vm.running.finish()


def check_tls_ends(s):
    """A TLS client that says goodbye, one that just closes, one that resets: all have sent something before."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    where = s.vm.door("tls", 7000)

    def client():
        sock = context.wrap_socket(connect(where), server_hostname="localhost", suppress_ragged_eofs=False)
        sock.sendall(b"watch\n")
        lib.read_exactly(sock, 9)
        sock.sendall(b"some bytes")
        return sock

    def count():
        told = doors.ends(s.tcp)
        return told["eof"], told["reset"]
    sock = client()
    sock.unwrap().close()
    ok(doors.until(lambda: count() == (1, 0)), "close_notify is an end", count())
    client().close()
    ok(doors.until(lambda: count() == (1, 1)), "a TLS stream that was cut is a reset", count())
    doors.reset(client())
    ok(doors.until(lambda: count() == (1, 2)), "and a reset is one", count())


def test_tls_ends(home):
    files = home.path / "tls.pem", home.path / "tls.key"
    made = subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                           "-subj", "/CN=localhost", "-keyout", files[1], "-out", files[0]], capture_output=True)
    if made.returncode:
        raise lib.Skip("openssl makes no certificate")
    with tempfile.TemporaryDirectory(prefix="husk-doors-") as folder:
        s = Served(home, pathlib.Path(folder) / "a", SERVE, ["--tls", f"{files[0]}:{files[1]}", "--tls-port", "0:7000"])
        run_checks([check_tls_ends], s)
        s.vm.end()
    lib.none_left()


def test_the_end_of_the_workload(home):
    """What a service says last reaches its clients, or they see that it does not."""
    with tempfile.TemporaryDirectory(prefix="husk-doors-") as folder:
        checks = check_last_words, check_never_taken, check_cut
        for check, s in [(c, Ending(home, pathlib.Path(folder) / c.__name__)) for c in checks]:
            run_checks([check], s)
            s.vm.end()
    lib.none_left()


def test_behaviour(home):
    """Three VMs at the same time, each with doors of its own."""
    with tempfile.TemporaryDirectory(prefix="husk-doors-") as folder:
        folder = pathlib.Path(folder)
        s = Served(home, folder / "a", f"sleep 2; {SERVE}", ["-p", "0:7100", "--exec-door", folder / "exec.sock"])
        s.home_exec = folder / "exec.sock"
        run_checks([check_waits], s)
        router = str(folder / "nowhere.sock")
        other = Served(home, folder / "b", SERVE, ["-p", "0:7009", "--listen-wait", "1s", "--handoff", f"{router}:7009"])
        other.router_nowhere = router
        third = Served(home, folder / "c")
        doors.until(other.listens)
        ok(len({x.tcp for x in (s, other, third)}) == 3, "three VMs, three ports")
        before = [doors.ends(x.tcp)["eof"] for x in (s, other, third)]
        for x, times in ((other, 2), (third, 3)):
            for _ in range(times):
                watched(x.tcp).close()
        ok(doors.until(lambda: [doors.ends(x.tcp)["eof"] - b for x, b in zip((s, other, third), before)] == [0, 2, 3]),
           "each door leads into its own VM")
        run_checks([check_nobody_listens], other)
        other.vm.end()
        run_checks([check_vm_ends], third)
        run_checks([check_half_close, check_reset, check_flapping, check_never_reads, check_fair, check_many, check_bad_routers], s)
        ok(s.vm.running.process.poll() is None, "the VM has lived through all of it", s.vm.errors())
        paths = [s.unix, s.first, s.router, str(s.home_exec)]
        s.vm.running.process.terminate()
        equal(s.vm.running.finish().status, 0, "it ends as it is told")
        equal([p for p in paths if os.path.exists(p)], [], "and its doors' paths are gone")
        lib.none_left()


def test_a_door_that_cannot_open(home):
    """A taken port, a live socket, a path too long: the start fails and says so; a stale socket is no hindrance."""
    image = home.have(images.busybox(), "busybox")
    with tempfile.TemporaryDirectory(prefix="husk-doors-") as folder, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        live, stale, first = (f"{folder}/{name}" for name in ("live", "stale", "first"))
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as gone:
            server.bind(live)
            server.listen()
            gone.bind(stale)
            gone.close()
            for arguments, words in ((["-p", f"{port}:80"], ["tcp", str(port), "in use"]), (["--vsock-mux", live], [live, "in use"]),
                                     (["--vsock-mux", f"{folder}/{'x' * 120}"], ["x" * 40, "107 bytes"]),
                                     (["-p", "8080:80/udp"], ["udp"]), (["--handoff", f"{folder}/no/such"], ["no/such", "No such"])):
                done = home.run("--vsock-mux", first, *arguments, image, "true")
                ok(done.status == 125 and all(w.lower() in done.error.lower() for w in words), f"{arguments[1][-30:]}: refused, and why", done)
                ok(not os.path.exists(first), "the door that was open already is gone")
            ok(os.path.exists(live), "a live socket is not touched")
            running = home.start("run", "--quiet", "--vsock-mux", stale, image, "sh", "-c", "trap 'exit 0' TERM; echo up; sleep 1000 & wait")
            running.wait_for(b"up\n")
            mode = os.stat(stale)
            equal(mode.st_mode & 0o777, 0o600, "a stale socket is replaced, by one of mode 0600")
            subprocess.run(["rm", stale], check=True)
            pathlib.Path(stale).write_text("somebody else's")
            running.process.terminate()
            running.finish()
            ok(os.path.exists(stale), "what lies at its path at the end, and is not the door, stays")
    lib.none_left()


lib.main(globals())
