#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 480
"""doors_cli_test.py - doors as users open them: run, expose, unexpose, port, inspect, stats; what is refused; what stays."""
import contextlib
import json
import os
import pathlib
import signal
import socket
import stat
import subprocess
import time

import images
import lib
from lib import equal, ok

SERVE = "trap 'exit 0' TERM; mkdir /www; echo hello > /www/index.html; httpd -p 80 -h /www; echo ready; sleep 1000 & wait"


def connect(endpoint):
    if endpoint.startswith("/"):
        sock = socket.socket(socket.AF_UNIX)
        address = endpoint
    else:
        host, _, port = endpoint.rpartition(":")
        sock = socket.socket(socket.AF_INET6 if host.startswith("[") else socket.AF_INET)
        address = (host.strip("[]"), int(port))
    sock.settimeout(lib.LIMIT)
    sock.connect(address)
    return sock


def get(endpoint):
    """The body of an HTTP answer; None when nobody is there."""
    try:
        with connect(endpoint) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while chunk := sock.recv(65536):
                answer += chunk
    except (ConnectionRefusedError, FileNotFoundError):
        return None
    return answer.partition(b"\r\n\r\n")[2]


def start(home, *options, command=SERVE):
    running = home.start("run", "--quiet", *options, home.have(images.busybox(), "busybox"), "sh", "-c", command)
    running.wait_for(b"ready\n")
    return running


def errors(running):
    running.errors.flush()
    return os.pread(running.errors.fileno(), 1 << 16, 0).decode()


def inspect(home, name):
    return json.loads(home.husk("inspect", name).out)[0]


def doors(home, name, kind):
    return [door for door in inspect(home, name)["doors"] if door["kind"] == kind and door["id"] > 2]


def leftovers(home):
    """What doors have left in the suite's directory."""
    return sorted(p.name for p in home.path.iterdir() if p.name not in ("home", "docker", "keep"))


@contextlib.contextmanager
def listening(family, address):
    with socket.socket(family) as sock:
        sock.bind(address)
        sock.listen(1)
        yield sock


def test_doors(home):
    """One VM with every kind of door, from the start and later."""
    mux, agent, router = (str(home.path / name) for name in ("mux.sock", "agent.sock", "router.sock"))
    with listening(socket.AF_UNIX, mux):
        pass
    old = os.stat(mux).st_ino
    running = start(home, "--name", "web", "-p", "0:80", "--http-port", "127.0.0.1:0", "--vsock-mux", f"{mux}:80",
                    "--exec-door", agent, "--handoff", router)
    from_start(home, running, mux, agent, router, old)
    later(home)
    references(home)
    counters(home)
    limits(home, mux)
    running.process.send_signal(signal.SIGTERM)
    running.finish()
    equal(leftovers(home), [], "with the VM the paths of its doors are gone")
    done = home.husk("expose", "web", "-p", "80")
    ok(done.status == 1 and "no VM 'web'" in done.error, "a VM that has ended is exposed no more", done)
    lib.none_left()


def from_start(home, running, mux, agent, router, old):
    ok(os.stat(mux).st_ino != old, "a stale socket is replaced")
    for path in (mux, agent, router):
        mode = os.stat(path).st_mode
        ok(stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o600, f"{os.path.basename(path)} is a socket of mode 0600")
    equal(leftovers(home), ["agent.sock", "mux.sock", "router.sock"], "nothing else lies beside them")
    done = home.husk("port", "web")
    lines = done.text.splitlines()
    ok(len(lines) == 2 and lines[0].startswith("80/tcp -> 127.0.0.1:") and lines[1].startswith("first/tcp -> 127.0.0.1:"),
       "husk port: a line for each", done)
    published, first = (line.split(" -> ")[1] for line in lines)
    equal(home.husk("port", "web", "80").text, published + "\n", "husk port VM 80")
    equal(home.husk("port", "web", "80/tcp").text, published + "\n", "husk port VM 80/tcp")
    equal(home.husk("port", "web", "81").status, 1, "husk port VM 81: there is none")
    said = errors(running)
    ok(f"{published} leads to port 80" in said and f"{first} leads to the guest's first listener" in said,
       "ports that the kernel chose are said on stderr, --quiet or not", said)
    for endpoint, what in ((published, "a published port"), (first, "the first listener"), (mux, "a unix door")):
        equal(get(endpoint), b"hello\n", f"{what} answers")
    with connect(agent) as sock:
        equal(lib.agent_exec(sock, ["echo", "from the agent"], entries=lib.tlv(lib.EXEC_ENV, f"PATH={images.PATH}"))["out"],
              b"from the agent\n", "an exec door leads to the agent")
    vm = inspect(home, "web")
    ok(vm["name"] == "web" and vm["state"] == "running" and vm["pids"]["worker"] == running.processes()["worker"],
       "husk inspect: name, state, pids", vm)
    equal([(d["kind"], d.get("guest_port"), d["endpoint"]) for d in vm["doors"]][2:],
          [("tcp", 80, published), ("tcp", 0, first), ("unix", 80, mux), ("exec", None, agent), ("handoff", 0, router)],
          "and its doors, in the order of the command line")
    ok(vm["doors"][0]["endpoint"].endswith("/exec.sock") and os.path.exists(vm["doors"][1]["endpoint"]),
       "with the two that every VM has", vm)


def later(home):
    extra = str(home.path / "later.sock")
    done = home.husk("expose", "web", "-p", "80", "--vsock-mux", extra, "-p", "[::1]:0:80")
    lines = done.text.splitlines()
    ok(done.status == 0 and len(lines) == 3 and lines[1] == extra and lines[2].startswith("[::1]:"),
       "husk expose prints where the doors are", done)
    for endpoint in lines:
        equal(get(endpoint), b"hello\n", f"{endpoint.rpartition('/')[2]} answers")
    ok(home.husk("port", "web").text.count("80/tcp") == 3, "husk port knows them")
    done = home.husk("expose", "web", "--vsock-mux", extra)
    ok(done.status == 1 and "in use" in done.error and extra in done.error, "the same path once more is refused", done)
    equal(get(extra), b"hello\n", "and hurts nothing")
    done = home.husk("unexpose", "web", lines[0], os.path.relpath(extra), lines[2])
    ok(done.status == 0 and not done.err, "husk unexpose closes them, by any way to write a path", done)
    equal([get(endpoint) for endpoint in lines], [None] * 3, "nobody is there any more")
    ok(not os.path.exists(extra), "nor the path")
    done = home.husk("unexpose", "web", extra)
    ok(done.status == 1 and "no door" in done.error, "there is nothing to close now", done)
    done = home.husk("unexpose", "web", inspect(home, "web")["doors"][0]["endpoint"])
    ok(done.status == 1 and "cannot be closed" in done.error, "exec.sock stays", done)
    done = home.husk("expose", "web")
    ok(done.status == 1 and "--help" in done.error, "expose without a door says so", done)


def references(home):
    whole = inspect(home, "web")["id"]
    for reference in (whole, whole[:3], whole[:8]):
        equal(json.loads(home.husk("inspect", reference).out)[0]["id"], whole, f"a VM is found by {len(reference)} digits")
    for reference in (whole[:2], "other", whole[:11] + ("0" if whole[11] != "0" else "1"), "../" + whole, ""):
        done = home.husk("inspect", reference)
        ok(done.status == 1 and json.loads(done.out) == [] and "no VM" in done.error, f"but not by {reference!r}", done)


def counters(home):
    endpoint = home.husk("port", "web", "80").text.strip()

    def stats():
        return next(d for d in json.loads(home.husk("stats", "--format", "json", "web").out)[0]["doors"]
                    if d["endpoint"] == endpoint)

    before = stats()
    for _ in range(3):
        get(endpoint)
    after = stats()
    equal(after["connections"] - before["connections"], 3, "husk stats counts connections")
    ok(after["bytes_in"] - before["bytes_in"] == 3 * 18 and after["bytes_out"] > before["bytes_out"], "and bytes", after)
    ok(after["stages"]["first_byte"]["count"] - before["stages"]["first_byte"]["count"] == 3
       and after["stages"]["first_byte"]["p99_us"] >= after["stages"]["first_byte"]["p50_us"] > 0, "and times", after)
    done = home.husk("stats", "--doors", "web")
    ok(done.status == 0 and endpoint in done.text and "ACCEPTED" in done.text, "as a table, too", done)


def limits(home, mux):
    """What a running VM refuses hurts no door that is open."""
    for arguments, word in ((["-p", "80/udp"], "udp"), (["-p", "localhost:1:80"], "localhost"),
                            (["--vsock-mux", "/etc/passwd"], "not a socket"), (["--vsock-mux", mux], "in use"),
                            (["--exec-door", "/tmp/" + "x" * 103], "107"), (["--tls-port", "1"], "--tls"),
                            (["--exec-door", "/nonexistent/x"], "No such file")):
        done = home.husk("expose", "web", *arguments)
        ok(done.status == 1 and word in done.error and not done.out, f"{arguments[0]} {arguments[1][:20]} is refused", done)
    equal(get(mux), b"hello\n", "the doors go on")


def test_refused(home):
    """A door that cannot open fails the start, and those that were open already are taken down."""
    image = home.have(images.busybox(), "busybox")
    first, live = str(home.path / "first.sock"), str(home.path / "live.sock")
    plain = home.path / "keep"
    plain.write_text("text\n")
    with listening(socket.AF_INET, ("127.0.0.1", 0)) as taken, listening(socket.AF_UNIX, live):
        port = taken.getsockname()[1]
        for arguments, words in (
                (["-p", f"{port}:80"], ("tcp door", f"127.0.0.1:{port}", "Address already in use")),
                (["--vsock-mux", live], ("unix door", live, "in use")),
                (["--handoff", str(plain)], ("handoff door", str(plain), "not a socket")),
                (["--exec-door", str(home.path / ("x" * 100))], ("exec door", "107")),
                (["-p", "192.0.2.1:0:80"], ("tcp door", "192.0.2.1:0", "Cannot assign")),
                (["-p", "53:53/udp"], ("udp",)),
                (["--tls", f"{plain}:{plain}", "--tls-port", "0"], ("tls door", "certificate")),
                (["--tls", "/nonexistent:/nonexistent", "--tls-port", "0"], ("tls door", "No such file")),
                (["--listen-wait", "2d"], ("--listen-wait",))):
            done = home.run("--vsock-mux", first, *arguments, image, "true")
            ok(done.status == 125 and all(word in done.error for word in words), f"{' '.join(arguments)[:30]}: refused", done)
            ok(not os.path.exists(first) and not home.vms(), "and nothing is left")
    done = home.run("--initramfs", plain, "--kernel", plain, "--vsock-mux", first, image)
    ok(done.status == 125 and "agent" in done.error, "doors need the agent: a foreign initramfs has none", done)
    os.unlink(live)
    equal(leftovers(home), [], "no refusal leaves anything beside its path")
    lib.none_left()


def test_killed(home):
    """The supervisor is killed: husk run, or else the next command, removes what it had to remove."""
    path, later_path = home.path / "a.sock", home.path / "b.sock"
    running = start(home, "--vsock-mux", str(path), "--name", "killed")
    os.kill(running.processes()["supervisor"], signal.SIGKILL)
    equal(running.finish().status, 125, "the supervisor dies: husk run ends")
    equal(leftovers(home), [], "and removes the path of the door")
    running = start(home, "--vsock-mux", str(path), "--name", "killed")
    equal(home.husk("expose", "killed", "--vsock-mux", later_path).status, 0, "a VM with one door more")
    processes = running.processes()
    running.process.send_signal(signal.SIGSTOP)
    os.kill(processes["supervisor"], signal.SIGKILL)
    running.process.kill()
    running.finish()
    ok(path.exists() and later_path.exists(), "supervisor and husk run die: the paths stay")
    later_path.unlink()
    later_path.write_text("somebody else's\n")
    done = home.husk("images")
    ok(done.status == 0 and "killed" in done.error, "the next command finds the VM", done)
    ok(not path.exists(), "and removes the path of its door")
    ok(later_path.exists(), "but not what has taken a door's place")
    later_path.unlink()
    equal(home.vms(), [], "nor is a record left")
    lib.none_left()


def test_caller_killed(home):
    """husk run is killed: its supervisor ends the VM and takes the doors down."""
    path = home.path / "c.sock"
    running = start(home, "--vsock-mux", str(path))
    supervisor = running.processes()["supervisor"]
    running.process.kill()
    running.finish()
    ok(not lib.wait_gone([supervisor]), "the supervisor ends")
    ok(not path.exists(), "and the path is gone")
    lib.none_left()


def test_start_killed(home):
    """husk run is killed the moment that its door appears, before there is a supervisor or just after."""
    image, path = home.have(images.busybox(), "busybox"), home.path / "d.sock"
    for _ in range(5):
        running = home.start("run", "--quiet", "--vsock-mux", path, "--exec-door", home.path / "e.sock", image, "true")
        while not path.exists() and running.process.poll() is None:
            pass
        running.process.kill()
        running.finish()
        lib.wait_gone(lib.descendants())
        home.husk("images")
        ok(not leftovers(home) and not home.vms(), "the next command leaves nothing of it", leftovers(home))
    lib.none_left()


def test_library(home):
    """A program with libhusk opens a door of the VM that it has started; others see it by its id."""
    image = home.have(images.busybox(), "busybox")
    libexec = os.environ.get("HUSK_LIBEXEC") or str(lib.TOP / "build" / "libexec")
    program = subprocess.Popen([lib.TOP / "build" / "examples" / "door", "80", image, "sh", "-c", SERVE], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, env={**home.environment(), "HUSK_LIBEXEC": libexec})
    endpoint = program.stdout.readline().decode().strip()
    equal(get(endpoint), b"hello\n", "a door that a program has opened answers, before anybody listened")
    name = home.vms()[0].name
    ok(endpoint in home.husk("port", name, "80").text, "the command sees it")
    out, _ = program.communicate(timeout=lib.LIMIT)
    stats = json.loads(out)
    equal((program.returncode, stats["doors"][2]["connections"], stats["total"]["connections"]), (0, 1, 1),
          "its counters are told, and it is closed")
    lib.none_left()


def test_tls(home):
    """TLS is ended in a process of its own, whose death closes the door and not the VM."""
    made = subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                           "-subj", "/CN=localhost", "-keyout", home.path / "keep", "-out", home.path / "docker/cert.pem"],
                          capture_output=True)
    if made.returncode:
        raise lib.Skip("openssl makes no certificate")
    pair = f"{home.path / 'docker/cert.pem'}:{home.path / 'keep'}"
    running = start(home, "--name", "tls", "--tls", pair, "--tls-port", "0:80")
    endpoint = home.husk("port", "tls", "80/tls").text.strip()
    curl = ["curl", "-sk", "-m", str(lib.LIMIT), f"https://{endpoint}/"]
    equal(subprocess.run(curl, capture_output=True).stdout, b"hello\n", "a tls door answers")
    ok(f"{endpoint} leads to port 80" in errors(running), "its port is said, too")
    served = [pid for pid, line in lib.descendants().items() if "husk-tls serve" in line]
    second = home.husk("expose", "tls", "--tls", pair, "--tls-port", "0").text.strip()
    helpers = [pid for pid, line in lib.descendants().items() if "husk-tls serve" in line]
    equal(len(helpers), 2, "each tls door has its husk-tls")
    if os.geteuid() == 0:  # whose /proc/PID/root may be looked into; the second may still be on its way into its walls
        equal(os.listdir(f"/proc/{served[0]}/root"), ["door.sock"], "which sees its door's inner socket and no file else")
    equal(home.husk("unexpose", "tls", second).status, 0, "unexpose closes one")
    left = [pid for pid, line in lib.descendants().items() if "husk-tls serve" in line]
    equal(len(left), 1, "with its husk-tls")
    equal(len(list(pathlib.Path(home.socket("exec.sock")).parent.glob("tls-*"))), 1, "and its directory")
    os.kill(left[0], signal.SIGKILL)
    lib.wait_gone(left)
    deadline = time.monotonic() + lib.LIMIT
    while doors(home, "tls", "tls") and time.monotonic() < deadline:  # until the supervisor has seen it as well
        pass
    ok(not doors(home, "tls", "tls") and running.process.poll() is None, "the other one's death closes its door, not the VM")
    log = next(p for p in home.vms()).joinpath("log").read_text(errors="replace")
    ok(f"tls door {endpoint} is closed" in log, "which the log says")
    running.process.send_signal(signal.SIGTERM)
    running.finish()
    lib.none_left()


lib.main(globals())
