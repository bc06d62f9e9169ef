#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 400
"""vsock_test.py - the doors of a running VM: vsock.sock both ways, exec.sock, and the agent that answers the host only."""
import hashlib
import os
import signal
import socket
import stat
import struct
import threading

import images
import lib
from lib import equal, ok

DATA = (bytes(range(256)) * 257 + b"tail") * 61  # 4 MiB that do not align


def connect(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(lib.LIMIT)
    # A runtime path may be longer than sockaddr_un: go through a descriptor of its directory.
    folder = os.open(os.path.dirname(path), os.O_PATH)
    try:
        sock.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    finally:
        os.close(folder)
    return sock


def read_line(sock):
    line = b""
    while not line.endswith(b"\n"):
        byte = sock.recv(1)
        if not byte:
            break
        line += byte
    return line


def read_all(sock):
    chunks = []
    try:
        while chunk := sock.recv(1 << 16):
            chunks.append(chunk)
    except ConnectionResetError:
        pass
    return b"".join(chunks)


def exchange(sock, data):
    """Send @data and half-close, in a thread, while reading all that comes back."""
    sender = threading.Thread(target=lambda: (sock.sendall(data), sock.shutdown(socket.SHUT_WR)))
    sender.start()
    got = read_all(sock)
    sender.join()
    return got


def vsock(home, port):
    sock = connect(home.socket("vsock.sock"))
    sock.sendall(f"CONNECT {port}\n".encode())
    return sock, read_line(sock)


def test_doors(home):
    """One VM: every door is tried on it."""
    image = home.have(images.busybox(), "busybox")
    running = home.start("run", "--quiet", image, "sh", "-c",
                         "vs echo 7000 & vs sink 7001 & echo ready; trap 'exit 0' TERM; while :; do sleep 0.1; done")
    # The lines of three programs, in any order
    for line in (b"ready\n", b"listening\nlistening\n"):
        running.wait_for(line) if line == b"ready\n" else None
    while running.seen.count(b"listening\n") < 2:
        running.wait_for(running.seen + b"l")

    path = home.socket("vsock.sock")
    ok(stat.S_IMODE(os.stat(path.parent).st_mode) == 0o700, "the runtime directory is its user's alone")

    sock, line = vsock(home, 7000)
    ok(line.startswith(b"OK "), "CONNECT is answered with OK n", line)
    got = exchange(sock, DATA)
    equal(hashlib.sha256(got).hexdigest(), hashlib.sha256(DATA).hexdigest(), "4 MiB there and back, with a half-close")

    sock, line = vsock(home, 7001)
    exchange(sock, DATA)
    ok(running.wait_for(f"{len(DATA)}\n".encode()), "a sink gets all of it")

    sock, line = vsock(home, 7999)
    equal(line, b"", "nobody listens there: the connection ends without OK")
    for request in (b"CONNECT 70000000000\n", b"CONNECT x\n", b"GET / HTTP/1.1\n", b"CONNECT " + b"1" * 5000, b"\n"):
        sock = connect(path)
        sock.sendall(request)
        sock.shutdown(socket.SHUT_WR)
        ok(not read_all(sock).startswith(b"OK"), f"{request[:20]!r} is refused")

    exec_door(home)
    ok(running.process.poll() is None, "the VM has lived through all of it")
    running.process.send_signal(signal.SIGTERM)
    equal(running.finish().status, 0, "and ends as it was told")
    lib.none_left()


def exec_door(home):
    """exec.sock with a client written from docs/agent-protocol.md."""
    path = home.socket("exec.sock")
    with connect(path) as sock:
        result = lib.agent_exec(sock, ["sh", "-c", "cat; echo err >&2; id -u; echo $$ ; exit 5"], stdin=b"input\n")
    ok(result["out"].startswith(b"input\n0\n") and result["err"] == b"err\n" and result["status"] == 5,
       "an exec: streams and status", result)
    ok(lib.HELLO in result["kinds"] and lib.STARTED in result["kinds"], "HELLO, STARTED, …, EXIT", result)
    ok(result["out"].split(b"\n")[2] != b"1", "it joins the workload's PID namespace and is not its PID 1", result)
    with connect(path) as sock:
        result = lib.agent_exec(sock, ["sh", "-c", "id; pwd; echo $X $HOME; tty"],
                                entries=lib.tlv(lib.EXEC_USER, "alice:audio") + lib.tlv(lib.EXEC_CWD, "/home/alice")
                                + lib.tlv(lib.EXEC_ENV, "X=1") + lib.tlv(lib.EXEC_ENV, f"PATH={images.PATH}"))
    ok(b"uid=1000(alice) gid=29(audio)" in result["out"] and b"\n/home/alice\n1 /home/alice\n" in result["out"],
       "user, directory and environment", result)
    for arguments, code in ((["/no/such"], 5), (["not-executable"], 4)):
        with connect(path) as sock:
            result = lib.agent_exec(sock, arguments, entries=lib.tlv(lib.EXEC_ENV, f"PATH={images.PATH}"))
        ok(result["error"] and result["error"][0] == code, f"{arguments[0]}: ERROR {code}", result)
    with connect(path) as sock:
        result = lib.agent_exec(sock, ["x"], entries=lib.tlv(lib.EXEC_USER, "who-is-this"))
    ok(result["error"] and result["error"][0] == 6, "an unknown user: ERROR 6", result)
    with connect(path) as sock:
        sock.sendall(lib.HELLO_FRAME + lib.frame(lib.SYNC))
        kinds = []
        while got := lib.read_frame(sock):
            kinds.append(got[0])
            if got[0] == lib.OK:
                break
    ok(lib.OK in kinds, "SYNC is answered", kinds)
    with connect(path) as sock:
        sock.sendall(lib.HELLO_FRAME + lib.frame(lib.EXEC, lib.tlv(lib.EXEC_FLAGS, lib.FLAG_TTY)
                     + lib.tlv(lib.EXEC_WINDOW, 50 << 16 | 132) + lib.tlv(lib.EXEC_ARG, "/bin/stty") + lib.tlv(lib.EXEC_ARG, "size")))
        out = b""
        while got := lib.read_frame(sock):
            out += got[2] if got[0] == lib.STDOUT else b""
            if got[0] in (lib.EXIT, lib.ERROR):
                break
    equal(out, b"50 132\r\n", "an exec with a terminal")
    # Hostile bytes: each ends its own connection and nothing else.
    hello = lib.HELLO_FRAME
    for data, what in ((b"\xff" * 64, "garbage"), (struct.pack("<IBBH", 1 << 30, 0x10, 0, 0), "a frame of 1 GiB"),
                       (lib.frame(lib.HELLO, struct.pack("<I", 99)), "another version"), (hello + lib.frame(0x7f), "an unknown type"),
                       (hello + lib.frame(lib.EXEC, b"\x01\x02"), "a broken EXEC"), (hello + lib.frame(lib.STDIN, b"x"), "STDIN first"),
                       (hello + lib.frame(lib.EXEC, lib.tlv(999, "x")), "an unknown tag"),
                       (hello + lib.frame(lib.EXEC, lib.tlv(lib.EXEC_FLAGS, lib.FLAG_MAIN) + lib.tlv(lib.EXEC_ARG, "id")),
                        "a second main workload")):
        with connect(path) as sock:
            sock.sendall(data)
            kinds = []
            try:
                while got := lib.read_frame(sock):
                    kinds.append(got[0])
            except (ConnectionResetError, AssertionError):
                pass
        ok(lib.STARTED not in kinds and lib.EXIT not in kinds, f"{what} is refused", kinds)
    with connect(path) as sock:
        equal(lib.agent_exec(sock, ["/bin/true"])["status"], 0, "and the agent answers on")
    with connect(path) as sock:  # a client that goes away takes its program with it
        script = "echo $$; exec /bin/sleep 4321"
        sock.sendall(hello + lib.frame(lib.EXEC, b"".join(lib.tlv(lib.EXEC_ARG, a) for a in ("/bin/sh", "-c", script))))
        while (got := lib.read_frame(sock))[0] != lib.STDOUT:
            pass
    program = f"/proc/{int(got[2])}"
    with connect(path) as sock:
        result = lib.agent_exec(sock, ["/bin/sh", "-c", f"while [ -e {program} ]; do /bin/sleep 0.1; done; echo gone"])
    ok(b"gone" in result["out"], "a program ends when its client goes away", result)


def test_agent_refuses_the_inside(home):
    """A program in the guest, an ordinary user's, knocks at the agent through vsock loopback and its own CID."""
    image = home.have(images.busybox(), "busybox")
    done = home.run("-u", "alice", image, "sh", "-c", "for cid in 1 3; do echo \"$cid: $(vs knock $cid 1028)\"; done; id -u")
    lines = done.text.splitlines()
    ok(done.status == 0 and lines[-1] == "1000", "it runs as an ordinary user", done)
    for line in lines[:-1]:
        answer = line.split(": ", 1)[1] if ": " in line else line.split(":")[1]
        # 0x36 STARTED or 0x31 STDOUT would be an answer; an ERROR frame is a refusal as well.
        refused = "refused" in answer or answer == "" or (len(answer) >= 16 and "00360000" not in answer and "uid" not in
                                                          bytes.fromhex(answer).decode(errors="replace"))
        ok(refused and "7569643d" not in answer, f"CID {line.split(':')[0]}: the agent refuses", done)


def test_guest_to_host(home):
    """A guest connects to host ports: the one that somebody serves, one that nobody does, and the agent's."""
    image = home.have(images.busybox(), "busybox")
    running = home.start("run", "--quiet", "-i", image, "sh", "-c",
                         "echo ready; read go; vs connect 2 9000 < /bin/busybox | sha256sum; sha256sum < /bin/busybox; "
                         "vs connect 2 9001 </dev/null; vs connect 2 1028 </dev/null; echo end", stdin=-1)
    running.wait_for(b"ready\n")
    path = str(home.socket("vsock.sock")) + "_9000"
    server = socket.socket(socket.AF_UNIX)
    folder = os.open(os.path.dirname(path), os.O_PATH)
    server.bind(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    server.listen(1)
    server.settimeout(lib.LIMIT)
    running.stdin.write(b"go\n")
    running.stdin.flush()
    peer, _ = server.accept()
    got = read_all(peer)
    peer.sendall(got)
    peer.close()
    done = running.finish()
    lines = done.text.splitlines()
    ok(len(lines) > 2 and lines[1] == lines[2], "a guest's connection arrives at vsock.sock_PORT, whole in both directions", done)
    equal(done.text.count("refused"), 2, "ports that nobody serves, and the agent's own, are refused", done)
    server.close()
    lib.none_left()


lib.main(globals())
