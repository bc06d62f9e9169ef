#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 480
"""serial_test.py - where the guest's console goes: serial sinks, with husk's agent and with a foreign initramfs."""
import json
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile

import images
import lib
from lib import equal, ok

BYTES = bytes(range(256)) * 64 + b"\r\n\n\x03\x04\x13"


def connect(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(lib.LIMIT)
    folder = os.open(os.path.dirname(path), os.O_PATH)
    try:
        sock.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    finally:
        os.close(folder)
    return sock


def foreign(home, script):
    """A newc archive with busybox, the modules of the home's kernel, and @script as /init behind what loads them."""
    kernel = next(p for p in (home.path / "home" / "kernels").iterdir() if p.name.startswith("linux"))
    names = (kernel / "load").read_text().split()
    wanted = [n for n in names if not any(word in n for word in ("balloon", "vsock", "evdev", "button"))]
    begin = "#!/busybox sh\n/busybox mkdir /dev\n/busybox mount -t devtmpfs dev /dev\n" + "".join(
        f"/busybox insmod /{n}\n" for n in wanted)
    files = [("busybox", 0o100755, pathlib.Path(shutil.which("busybox")).read_bytes())]
    files += [(n, 0o100644, (kernel / "modules" / n).read_bytes()) for n in wanted]
    files += [("init", 0o100755, (begin + script).encode()), ("TRAILER!!!", 0, b"")]
    path = home.path / "foreign.cpio"
    with open(path, "wb") as archive:
        for name, mode, data in files:
            fields = (1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
            header = b"070701" + b"".join(b"%08X" % f for f in fields) + name.encode() + b"\0"
            archive.write(header + bytes(-len(header) % 4) + data + bytes(-len(data) % 4))
    return path


def test_capture(home):
    """Every byte value through hvc0, and nothing of kernel or init among them."""
    image = home.have(images.busybox(), "busybox")
    with tempfile.NamedTemporaryFile() as taken, open(home.path / "bytes", "wb") as file:
        file.write(BYTES)
        file.truncate(1 << 20)
        file.flush()
        done = subprocess.run([lib.HUSK, "run", "--quiet", "--serial", "capture", "--disk", f"{file.name}:ro", "--cmdline", "debug ignore_loglevel",
                               image, "sh", "-c", f"head -c {len(BYTES)} /dev/vdb > /dev/console; head -c 3 /dev/vdb >/dev/hvc0; echo err >&2"],
                              env=home.environment(), stdin=subprocess.DEVNULL, stdout=taken, stderr=subprocess.PIPE, timeout=lib.LIMIT, check=False)
        got = pathlib.Path(taken.name).read_bytes()
    ok(done.returncode == 0 and got == BYTES + BYTES[:3], "hvc0 arrives clean, whatever the kernel says", f"{len(got)} {got[:80]!r} {done}")
    equal(done.stderr, b"err\n", "and the command's own streams are what they were")
    done = home.run("--serial", "capture", image, "sh", "-c", "dd if=/dev/zero bs=1k count=3000 2>/dev/null > /dev/hvc0")
    equal((done.status, len(done.out)), (0, 3000 << 10), "3 MB are whole when the VM has ended", done)
    lib.none_left()


def test_inherit(home):
    image = home.have(images.busybox(), "busybox")
    running = home.start("run", "--serial", "inherit", "-i", image, "sh", "-c", "echo on the console > /dev/console; echo out; read end", stdin=-1)
    running.wait_for(b"out\n")
    log = b"".join(p.read_bytes() for p in (home.path / "home" / "vms").glob("*/log"))
    running.stdin.close()
    done = running.finish()
    ok(done.text == "out\n" and "on the console" in done.error, "the console comes to stderr, beside the command's stdout", done)
    ok(b"on the console" in log, "and is in the VM's log", log[-500:])


def test_foreign(home):
    """Without our agent the console is all there is: both ways."""
    image = home.have(images.busybox(), "busybox")
    initramfs = foreign(home, "exec < /dev/hvc0 > /dev/hvc0\n/busybox stty raw -echo\necho ready\nread line\n"
                              "echo \"got $line\"\n/busybox poweroff -f\n")
    running = home.start("run", "--quiet", "--serial", "capture", "-i", "--initramfs", initramfs, image, stdin=-1)
    running.wait_for(b"ready\n")
    with connect(home.socket("exec.sock")) as sock:
        result = lib.agent_exec(sock, ["/bin/true"])
    ok(result["error"] and result["error"][0] == 10 and "without husk's agent" in result["error"][1] and lib.EXIT not in result["kinds"],
       "exec.sock says why it cannot be", result)
    seen = json.loads(home.husk("inspect", home.vms()[0].name).text)[0]
    ok(seen["config"]["serial"] == "capture" and seen["config"]["initramfs"] == str(initramfs), "inspect tells", seen)
    running.stdin.write(b"a line\n")
    running.stdin.flush()
    done = running.finish()
    ok(done.status == 0 and done.text == "ready\ngot a line\n", "hvc0 of a foreign guest, both ways, to its last byte", done)
    initramfs = foreign(home, "exec < /dev/console > /dev/console\necho hello\nread line\necho \"heard $line\"\n/busybox poweroff -f\n")
    running = home.start("run", "--quiet", "--serial", "inherit", "-i", "--initramfs", initramfs, image, stdin=-1)
    running.wait_for(b"hello")
    running.stdin.write(b"words\n")
    running.stdin.flush()
    done = running.finish()
    ok(done.status == 0 and "heard words" in done.text, "inherit: the kernel's console, both ways", done)
    lib.none_left()


def test_vsock_policy(home):
    """Which host ports a guest reaches: the socket of each is there, the policy decides."""
    image = home.have(images.busybox(), "busybox")
    script = ("echo port=$HUSK_VSOCK_PORT; read go; for port in $go; do vs connect 2 $port </dev/null >/tmp/out 2>&1; echo \"$port: $(cat /tmp/out)\"; done")

    def reach(policy, pick):
        running = home.start("run", "--quiet", "-i", "--vsock-port", policy, image, "sh", "-c", script, stdin=-1)
        told = running.wait_for(b"\n").decode().strip().partition("=")[2]
        seen = json.loads(home.husk("inspect", home.vms()[0].name).text)[0]
        ports, servers = pick(seen["vsock_port"]), []
        for port in ports:
            path = str(home.socket("vsock.sock")) + f"_{port}"
            server = socket.socket(socket.AF_UNIX)
            folder = os.open(os.path.dirname(path), os.O_PATH)
            server.bind(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
            os.close(folder)
            server.listen(1)
            servers.append(server)
        running.stdin.write(" ".join(map(str, ports)).encode() + b"\n")
        running.stdin.flush()
        arrived = []
        running.wait_for(f"{ports[0]}: ".encode()) if policy == "none" else None
        for port, server in zip(ports, servers):
            server.settimeout(lib.LIMIT if policy == "any" or port == seen["vsock_port"] else 0.1)
            try:
                server.accept()[0].close()
                arrived.append(port)
            except TimeoutError:
                pass
        done = running.finish()
        for server in servers:
            server.close()
        return told, seen, arrived, done

    told, seen, arrived, done = reach("none", lambda port: [7000, 50001])
    ok(told == "" and seen["vsock_port"] is None and arrived == [] and done.text.count("refused") == 2, "none: no port is reached", (arrived, done))
    told, seen, arrived, done = reach("7001", lambda port: [7001, 7002])
    ok(told == "7001" and seen["vsock_port"] == 7001 and arrived == [7001] and done.text.count("refused") == 1,
       "a fixed port is reached, and no other", (told, arrived, done))
    told, seen, arrived, done = reach("auto", lambda port: [port, 7003])
    ok(50000 <= seen["vsock_port"] <= 59999 and told == str(seen["vsock_port"]) and arrived == [seen["vsock_port"]]
       and done.text.count("refused") == 1, "auto: the guest and inspect know the same port", (told, seen, arrived, done))
    for value in ("1028", "0", "4294967295", "some"):
        done = home.run("--vsock-port", value, image, "true")
        ok(done.status == 125 and "vsock" in done.error and value in done.error, f"--vsock-port {value} is refused", done)
    lib.none_left()


lib.main(globals())
