#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The agent does what docs/agent-protocol.md says: agent-test.py AGENT_NATIVE (as root; busybox makes the root)."""
import contextlib
import ctypes
import fcntl
import hashlib
import os
import resource
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from agent_rig import *  # noqa: E402

def test_refusals(a):
    same(a.refusal(["true"]), 3, "a joined program without a workload is refused")
    same(a.refusal(["nope"], MAIN), 5, "a program that is not in PATH is not found")
    same(a.refusal(["/bin/none"], MAIN), 5, "nor one whose path does not exist")
    same(a.refusal(["/etc/plain"], MAIN), 4, "a file without x bits is not executable")
    same(a.refusal(["/etc"], MAIN), 4, "nor is a directory")
    same(a.refusal(["/bin/bad"], MAIN), 4, "nor a file of no known format")
    same(a.refusal(["true"], MAIN, user="bob"), 6, "an unknown user is refused")
    same(a.refusal(["true"], MAIN, user="sam:none"), 6, "an unknown group is refused")
    same(a.refusal(["true"], MAIN, cwd="/etc/plain"), 7, "a file is no working directory")
    same(a.refusal([], MAIN), 1, "no arguments are malformed")
    same(a.refusal(["true"], MAIN, env=["=x"]), 1, "an environment entry without a name is malformed")
    same(a.refusal(["true"], MAIN, cwd="x"), 1, "a relative working directory is malformed")
    same(a.refusal(["true"], INIT), 1, "a reaper without a main workload is malformed")
    same(a.refusal(["true"], 1 << 9), 1, "unknown flags are malformed")


def test_protocol(a):
    def answer(*frames, hello=True):
        c = Connection(a.path, hello)
        for f in frames:
            c.send(f)
        try:
            if not hello:  # the agent's comes first, whatever the client said
                assert c.receive()[0] == HELLO
            return c.answer()
        except Refused as refused:
            return refused.code if c.receive() is None else "goes on"
        finally:
            c.close()

    same(answer(frame(0x77)), 1, "an unknown request is refused and the connection ends")
    same(answer(frame(STDIN, b"x")), 1, "a stream without a request is refused")
    same(answer(HELLO_FRAME), 1, "a second HELLO is refused")
    same(answer(frame(HELLO, struct.pack("<I", 9)), hello=False), 2, "another version is refused")
    same(answer(frame(SYNC), hello=False), 1, "a request without HELLO is refused")
    same(answer(struct.pack("<IBBH", 1 << 24, EXEC, 0, 0)), 1, "a frame over the limit is refused")
    same(answer(struct.pack("<IBBH", 0, 0, 0, 0)), 1, "type 0 is refused")
    same(answer(struct.pack("<IBBH", 0, SYNC, 0, 1)), 1, "reserved bytes are refused")
    same(answer(frame(SYNC, stream=1)), 1, "a stream where none is meant is refused")
    same(answer(frame(SYNC, b"x")), 1, "SYNC with a payload is refused")
    same(answer(frame(EXEC, b"\x01\x00\x00\x00\xff\xff\xff\xff")), 1, "an entry longer than its frame is refused")
    same(answer(frame(EXEC, entry(99, 1))), 1, "an unknown entry is refused")
    same(answer(frame(EXEC, entry(2, b"a\0b"))), 1, "a NUL in a string is refused")
    same(answer(frame(POWER, struct.pack("<I", 5))), 1, "POWER of an unknown kind is refused")
    same(answer(frame(SYNC)), (OK, 0, b""), "SYNC is answered")


def test_joined(a):
    same(a.refusal(["true"], MAIN), 3, "a second main workload is refused")
    got, out, err = a.exec(["sh", "-c", "id -u; pwd; echo e >&2; exit 7"]).run()
    same((got, out, err), ((1, 7), b"0\n/new/dir\n", b"e\n"), "status and streams of a program arrive apart")
    same(a.exec(["sh", "-c", "id; echo $HOME"], user="sam").run()[1],
         b"uid=1000(sam) gid=1000(sam) groups=4(adm),1000(sam)\n/home/sam\n", "a user has its groups and home")
    same(a.exec(["id"], user="1000:4").run()[1], b"uid=1000(sam) gid=4(adm) groups=4(adm)\n",
         "a group given stands alone")
    same(a.exec(["sh", "-c", "id; echo $HOME"], user="4242", groups=["adm", "77"]).run()[1],
         b"uid=4242 gid=0(root) groups=0(root),4(adm),77\n/\n", "a number needs no line in passwd")
    same(a.exec(["sh", "-c", "echo x >/dev/stdout; echo y >/dev/stderr"], user="sam").run()[1:], (b"x\n", b"y\n"),
         "a user may open its streams again")
    same(a.exec(["env"], env=["A=1", "TERM=me", "A=2"]).run()[1].split(b"\n")[:-1],
         [b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", b"HOSTNAME=native", b"A=2", b"TERM=me",
          b"HOME=/root"], "the environment is Docker's, and the later of two entries wins")
    start = time.monotonic()
    same(a.exec(["sh", "-c", "sleep 300 & echo bg"]).run(), ((1, 0), b"bg\n", b""), "background holders")
    check(time.monotonic() - start < 5, "do not hold up EXIT")
    got, out, _ = a.exec(["cat"], WITH_STDIN).run(b"z" * 3000000)
    same((got, len(out)), ((1, 0), 3000000), "three megabytes go through cat")
    same(a.exec(["true"], WITH_STDIN).run(b"z" * 3000000)[0], (1, 0), "input that nobody reads is dropped")
    program = a.exec(["sleep", "100"])
    program.signal(15)
    same(program.run()[0], (2, 15), "a signal kills, and EXIT says which")
    program = a.exec(["sleep", "1234"])
    program.close()
    for _ in range(50):
        gone = b"1234" not in a.exec(["ps"]).run()[1]
        if gone:
            break
        time.sleep(0.05)
    check(gone, "a program whose client goes away is killed")


def test_windows(a):
    program = a.exec(["sh", "-c", "dd if=/dev/zero bs=64k count=32 2>/dev/null & sleep 0.3; echo err >&2; wait"])
    program.grant = False
    program.until(b"err", 2)
    same(len(program.out[1]), WINDOW_SIZE, "a stream whose reader sleeps stops at its window, the other goes on")
    program.grant = True
    program.send(frame(WINDOW, struct.pack("<I", WINDOW_SIZE), 1))
    same(len(program.run()[1]), 32 * 65536, "and it goes on when the window opens")
    program = a.exec(["sleep", "100"], WITH_STDIN)
    program.send(frame(WINDOW, struct.pack("<I", 1), 1))
    try:
        program.run()
        check(False, "a window beyond its limit is refused")
    except Refused as refused:
        same(refused.code, 1, "a window beyond its limit is refused")
    program = a.exec(["sleep", "100"], WITH_STDIN)
    try:
        for _ in range(16):
            program.send(frame(STDIN, b"x" * 65536))
        program.run()
        check(False, "input beyond the window is refused")
    except Refused as refused:
        same(refused.code, 1, "input beyond the window is refused")


def test_terminal(a):
    same(a.exec(["tty"], TTY).run()[1], b"/dev/pts/0\r\n", "the terminal is the first of the workload's own devpts")
    program = a.exec(["sh", "-c", "stty size; echo $TERM; read a; echo =$a=; stty size; sleep 100"], TTY | WITH_STDIN,
                     window=(33, 77), user="sam")
    program.until(b"xterm")
    check(program.out[1].startswith(b"33 77\r\n"), "it has its size")
    program.send(frame(RESIZE, struct.pack("<HH", 50, 132)))
    program.feed(b"hello\n", end=False)
    program.until(b"=hello=\r\n50 132")
    check(True, "input and a new size arrive")
    program.feed(b"\x03", end=False)
    same(program.run()[0], (2, 2), "Ctrl-C interrupts")
    same(a.exec(["cat"], TTY | WITH_STDIN).run(b"x\n"), ((1, 0), b"x\r\nx\r\n", b""), "EOF is typed")


# ---- FORWARD ----

DATA = (bytes(range(256)) * 257 + b"tail") * 32  # 2 MiB that do not align


def listen(address="127.0.0.1", backlog=64):
    server = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    server.bind((address, 0))
    server.listen(backlog)
    server.settimeout(15)
    return server, server.getsockname()[1]


def bridge(a, server, port, behind=b""):
    """Both ends of a forward: the host's socket and the service's."""
    host, pending = forward(a.path, port, behind)
    assert not pending, pending
    service = server.accept()[0]
    service.settimeout(15)
    return host, service


def read_all(sock):
    """(bytes, how it ended)"""
    data = b""
    while True:
        try:
            more = sock.recv(1 << 16)
        except ConnectionResetError:
            return data, "reset"
        if not more:
            return data, "end"
        data += more


def in_thread(function, *arguments):
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    return thread


def send_what_goes(sock, data):
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        sock.sendall(data)


def send_until_full(sock):
    """Send until the other end has taken none for a while; how many bytes."""
    sent = 0
    sock.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        while True:
            sent += sock.send(DATA)
    return sent


def send_and_shut(sock, data):
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def memory(process):
    with open(f"/proc/{process.pid}/statm") as f:
        return int(f.read().split()[1]) * 4096


def test_forward(a):
    server, port = listen()
    for payload in (b"", b"\0\0\0\0", b"\1\0\1\0", b"\1\0"):
        c = Connection(a.path)
        c.send(frame(FORWARD, payload))
        try:
            c.answer()
            check(False, "a malformed FORWARD is refused")
        except Refused as refused:
            check(refused.code == 1 and c.receive() is None, "a malformed FORWARD is refused", payload)
        c.close()
    unused, closed_port = listen()
    unused.close()
    try:
        forward(a.path, closed_port, b"lost")
        check(False, "a port that nobody listens on is refused")
    except Refused as refused:
        same(refused.code, 9, "a port that nobody listens on is refused")

    host, service = bridge(a, server, port, b"early ")
    host.sendall(b"bird")
    same(read_some(service, 10), b"early bird",
         "bytes right behind FORWARD come first")
    sender = in_thread(send_and_shut, host, DATA)
    got, how = read_all(service)
    same((hashlib.sha256(got).digest(), how), (hashlib.sha256(DATA).digest(), "end"), "2 MiB to the service, then its end")
    sender.join()
    sender = in_thread(send_and_shut, service, DATA)
    got, how = read_all(host)
    same((hashlib.sha256(got).digest(), how), (hashlib.sha256(DATA).digest(), "end"),
         "the other direction goes on after a half-close")
    sender.join()
    host, service = bridge(a, server, port)
    send_and_shut(service, b"first")
    same(read_all(host), (b"first", "end"), "the service ends first")
    sender = in_thread(send_and_shut, host, DATA)
    same(len(read_all(service)[0]), len(DATA), "and still gets all of the host's")
    sender.join()
    v6, v6_port = listen("::1")
    host, service = bridge(a, v6, v6_port)
    service.sendall(b"six")
    same(read_some(host, 3), b"six", "a listener on ::1 is reached")
    host, service = bridge(a, server, port)
    host.close()
    same(read_all(service)[0], b"", "a host that goes ends the service's connection")
    host, service = bridge(a, server, port)
    service.sendall(b"not read")
    host.sendall(b"sent")
    wait_readable(host)
    host.close()
    same(read_all(service), (b"sent", "reset"), "a reset of the host is passed on, behind its bytes")
    host, service = bridge(a, server, port)
    sender = in_thread(send_what_goes, host, DATA * 4)
    wait_readable(service)
    service.sendall(b"too large")
    service.close()  # unread bytes make it a reset
    sender.join()
    same(read_all(host)[0], b"too large", "a service that resets is heard, though the host sends before it reads")
    before = files(a.process)
    host.close()
    check(files(a.process) <= before, "and its forward is gone")
    host, service = bridge(a, server, port)
    sent = send_until_full(host)
    before = files(a.process)
    service.sendall(b"not read")
    wait_readable(host)
    host.close()
    service.sendall(b"nobody hears")  # and it does not read either: the forward ends
    while files(a.process) >= before:
        time.sleep(0.01)
    got, how = read_all(service)
    check(len(got) == sent or how == "reset", "what arrives in part of a host that has gone does not look whole",
          (sent, len(got), how))


def listen_narrowly():
    """A listener whose connections take a few KiB as long as nobody reads them."""
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    server.bind(("127.0.0.1", 0))
    server.listen()
    server.settimeout(15)
    return server, server.getsockname()[1]


def test_forward_farewell(a):
    """A host resets before the service has read."""
    server, port = listen_narrowly()
    before = files(a.process)
    pairs = [bridge(a, server, port) for _ in range(2)]
    begun = time.monotonic()
    for host, service in pairs:
        service.sendall(b"not read")
        host.sendall(DATA[:100000])
        settle(lambda: unread_by_peer(host) == 0)  # the agent has them all
        wait_readable(host)
        host.close()
    settle(lambda: files(a.process) <= before + 2 + 4)  # the hosts' sockets are gone; pipes may have come
    (_, reader), (_, sleeper) = pairs
    got, how = read_all(reader)
    same((got == DATA[:100000], how), (True, "reset"), "a service that is behind gets all bytes before the reset")
    settle(lambda: closing(sleeper))
    check(closing(sleeper) and time.monotonic() - begun > 4.9, "one that does not read is waited for, but not for ever",
          time.monotonic() - begun)
    got, how = read_all(sleeper)
    check(len(got) < 100000 and how == "reset", "and is reset", (len(got), how))


def unread_by_peer(sock):
    """Bytes in a unix socket that the other end has not read."""
    return struct.unpack("I", fcntl.ioctl(sock, 0x5411, bytes(4)))[0]  # SIOCOUTQ


def closing(sock):
    poll = select.poll()
    poll.register(sock, 0)
    return bool(poll.poll(0))


def enter_narrow_network():
    """A network with one port that connections may come from."""
    assert enter_network()
    with open("/proc/sys/net/ipv4/ip_local_port_range", "w") as f:
        f.write("40000 40000")


def test_forward_itself(tool):
    a = Agent(tool, prepare=enter_narrow_network)
    for _ in range(2):
        try:
            forward(a.path, 40000)
            check(False, "a connection that could only meet itself is refused")
        except Refused as refused:
            same(refused.code, 9, "a connection that could only meet itself is refused")
    power_off(a)


def read_some(sock, n):
    data = b""
    while len(data) < n:
        more = sock.recv(n - len(data))
        if not more:
            break
        data += more
    return data


def test_forward_fairness(a):
    """A reader that sleeps holds a bounded number of bytes and nobody else up."""
    server, port = listen()
    host, service = bridge(a, server, port)
    before = memory(a.process)
    service.setblocking(False)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        for _ in range(100000):
            if not (n := wait_writable(service) and service.send(b"x" * 65536)):
                break
            sent += n
    check(sent < 32 << 20, "a host that does not read stops the service", sent)
    check(memory(a.process) - before < 2 << 20, "and costs the agent little memory", memory(a.process) - before)
    other_host, other_service = bridge(a, server, port)
    sender = in_thread(send_and_shut, other_service, DATA)
    same(len(read_all(other_host)[0]), len(DATA), "another connection goes on")
    sender.join()
    spent = cpu_seconds(a.process)
    time.sleep(0.5)  # of doing nothing
    check(cpu_seconds(a.process) - spent < 0.1, "nobody spins", cpu_seconds(a.process) - spent)
    service.shutdown(socket.SHUT_WR)
    host.shutdown(socket.SHUT_WR)
    same(service.recv(1) if wait_readable(service) else None, b"", "the other direction has ended meanwhile")
    time.sleep(0.5)
    check(cpu_seconds(a.process) - spent < 0.2, "nobody spins on what has ended both ways and is not yet read")
    same(len(read_all(host)[0]), sent, "and nothing is lost")


def wait_writable(sock, seconds=0.5):
    return bool(select.select([], [sock], [], seconds)[1])


def wait_readable(sock, seconds=10):
    return bool(select.select([sock], [], [], seconds)[0])


def cpu_seconds(process):
    with open(f"/proc/{process.pid}/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_forward_backlog(a):
    """A connect that hangs holds up nobody and ends."""
    server, port = listen(backlog=0)
    queued = [socket.create_connection(("127.0.0.1", port))]
    begun = time.monotonic()
    results = []

    def attempt():
        try:
            results.append(forward(a.path, port))
        except Refused as refused:
            results.append(refused.code)

    threads = [in_thread(attempt) for _ in range(3)]
    other, other_port = listen()
    host, service = bridge(a, other, other_port)
    service.sendall(b"x")
    check(read_some(host, 1) == b"x" and time.monotonic() - begun < 3, "a connect that hangs holds up nobody")
    c = Connection(a.path, hello=False)
    c.send(HELLO_FRAME + frame(FORWARD, struct.pack("<HH", port, 0)))
    c.close()  # gives up while it hangs
    for thread in threads:
        thread.join()
    check(9 in results and time.monotonic() - begun < 8, "and is refused in the end", results)
    for sock in queued:
        sock.close()


def test_forward_many(a):
    server, port = listen(backlog=1024)
    before = files(a.process)
    pairs = [bridge(a, server, port) for _ in range(400)]
    for number, (host, service) in enumerate(pairs):
        host.sendall(b"%d" % number)
    check(all(read_some(s, len(b"%d" % n)) == b"%d" % n for n, (_, s) in enumerate(pairs)), "400 forwards at once")
    check(files(a.process) <= before + 2 * 400 + 32, "cost two descriptors each, and a few pipes", files(a.process) - before)
    for host, service in pairs:
        host.close()
        service.close()
    settle(lambda: files(a.process) <= before + 34)
    check(files(a.process) <= before + 34, "which are given back", files(a.process) - before)


def test_out_of_files(tool):
    """Without descriptors connections are dropped; nobody spins, and it works again."""
    a = Agent(tool, prepare=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40)))
    server, port = listen()
    host, service = bridge(a, server, port)
    idle = [socket.socket(socket.AF_UNIX) for _ in range(60)]
    for sock in idle:
        sock.connect(a.path)
    dropped = sum(read_ends(sock) for sock in idle)
    check(0 < dropped < 60, "connections without a descriptor are closed", dropped)
    spent = cpu_seconds(a.process)
    time.sleep(0.3)
    check(cpu_seconds(a.process) - spent < 0.1, "and nobody spins")
    sender = in_thread(send_and_shut, service, DATA)
    got, how = read_all(host)
    same((got == DATA, how), (True, "end"), "a forward that gets no pipe hands on all bytes")
    sender.join()
    for sock in idle:
        sock.close()
    c = Connection(a.path)
    c.send(frame(SYNC))
    same(c.answer(), (OK, 0, b""), "with descriptors it answers again")
    c.close()
    power_off(a)


def read_ends(sock):
    """Has the agent closed without a word?"""
    sock.settimeout(10)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        sock.sendall(HELLO_FRAME)
        return sock.recv(100) == b""
    return True


# ---- LISTENERS ----

PROGRAM = """
import ctypes, os, socket, sys
sockets = {}
for line in sys.stdin:
    verb, name, *rest = line.split()
    if verb == "listen":
        s = sockets.get(name) or socket.socket(socket.AF_INET6 if ":" in rest[0] else socket.AF_INET)
        if name not in sockets:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if len(rest) > 2:
                s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            s.bind((rest[0], int(rest[1])))
        s.listen(5)
        sockets[name] = s
    elif verb == "close":
        sockets.pop(name).close()
    elif verb == "shutdown":
        sockets[name].shutdown(socket.SHUT_RDWR)
    elif verb == "accept":
        sockets[name + ".peer"] = sockets[name].accept()[0]
    elif verb == "child":
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    elif verb == "end":
        os.close(writing)
    elif verb == "flap":
        for _ in range(int(rest[0])):
            with socket.socket() as s:
                s.bind(("127.0.0.1", 20099))
                s.listen()
    elif verb == "unshare":
        assert ctypes.CDLL(None).unshare(0x40000000) == 0  # CLONE_NEWNET
    elif verb == "congestion":
        with socket.create_connection((rest[0], int(rest[1]))) as s:
            options = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[5]  # tcpi_options
        print("explicit" if options & 8 else "implicit", end=" ")  # TCPI_OPT_ECN
    print("done", flush=True)
"""


class Workload:
    """A program in a cgroup that listens as it is told."""

    def __init__(self, cgroup):
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            preexec_fn=lambda: open(f"{cgroup}/cgroup.procs", "w").write("0"))

    def do(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        *said, end = self.process.stdout.readline().split()
        assert end == "done", words
        return said

    def kill(self):
        self.process.kill()
        self.process.wait()


def bpf(command, attributes):
    number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
    return ctypes.CDLL(None, use_errno=True).syscall(number, command, attributes, len(attributes))


def reply_needs_ecn(cgroup):
    """Attach a sock_ops program to @cgroup that has its connections ask for explicit congestion notification."""
    program = b"".join(struct.pack("<BBhi", *instruction) for instruction in (
        (0x61, 0x12, 0, 0),  # r2 = op
        (0x55, 0x02, 2, 6),  # unless it is BPF_SOCK_OPS_NEEDS_ECN
        (0xb7, 0x03, 0, 1),
        (0x63, 0x31, 4, 0),  # reply = 1
        (0xb7, 0x00, 0, 1),
        (0x95, 0x00, 0, 0)))
    held = ctypes.create_string_buffer(program), ctypes.create_string_buffer(b"GPL")
    load = struct.pack("<IIQQ", 13, len(program) // 8, *map(ctypes.addressof, held))  # BPF_PROG_TYPE_SOCK_OPS
    if (fd := bpf(5, load)) < 0:
        return False
    folder = os.open(cgroup, os.O_DIRECTORY)
    attached = bpf(8, struct.pack("<IIII", folder, fd, 3, 2))  # BPF_CGROUP_SOCK_OPS, BPF_F_ALLOW_MULTI
    os.close(folder)
    os.close(fd)
    return attached == 0


def make_cgroup():
    """A directory of a cgroup2 file system where programs may be linked, or None."""
    with open("/proc/mounts") as f:
        mounted = [line.split()[1] for line in f if line.split()[2] == "cgroup2"]
    for path in mounted:
        with contextlib.suppress(OSError):
            return tempfile.mkdtemp(prefix="husk-test-", dir=path)
    return None


def test_listeners(tool):
    a = Agent(tool)
    c = Connection(a.path)
    c.send(frame(LISTENERS))
    try:
        c.answer()
        check(False, "without a cgroup LISTENERS is UNSUPPORTED")
    except Refused as refused:
        check(refused.code == 10 and c.receive() is None, "without a cgroup LISTENERS is UNSUPPORTED", refused)
    c.close()
    power_off(a)
    cgroup = make_cgroup()
    if not cgroup:
        print("# no cgroup2 here: LISTENERS is left to the end-to-end tests", flush=True)
        return
    nested = f"{cgroup}/nested"
    os.mkdir(nested)
    a = Agent(tool, cgroup=cgroup)
    workloads = [Workload(cgroup), Workload(nested)]
    replies = reply_needs_ecn(nested)
    try:
        if replies:
            test_reply(*workloads)
        watch_workload(a, *workloads)
    finally:
        power_off(a)
        for workload in workloads:
            workload.kill()
        for path in (nested, cgroup):
            settle(lambda: removed(path))


def test_reply(w, inner):
    inner.do("listen", "ecn", "127.0.0.1", 20000)
    same(w.do("congestion", "-", "127.0.0.1", 20000), ["implicit"], "a connection of a workload that has said nothing to it")
    same(inner.do("congestion", "-", "127.0.0.1", 20000), ["explicit"], "what a program of the workload's replies is not changed")
    inner.do("close", "ecn")


def removed(path):
    with contextlib.suppress(OSError):
        os.rmdir(path)
        return True


def watch_workload(a, w, inner):
    l = Listeners(a.path)
    try:
        same(l.next(), [], "in the beginning nothing listens")
    except Refused as refused:
        print(f"# this kernel cannot tell listeners: {refused}", flush=True)
        return
    w.do("listen", "a", "127.0.0.1", 20001)
    same(l.next(), [(20001, "127.0.0.1")], "a listener is announced")
    w.do("listen", "b", "0.0.0.0", 20002)
    w.do("listen", "c", "::1", 20003)
    w.do("listen", "d", "::", 20004)
    w.do("listen", "e", "::", 20005, "v6only")
    w.do("listen", "f", "::ffff:127.0.0.1", 20000)
    state = [(20001, "127.0.0.1"), (20002, "0.0.0.0"), (20003, "::1"), (20004, "::"), (20005, "::"), (20000, "127.0.0.1")]
    same(l.until(state), state, "wildcards, IPv6, dual-stack and mapped ones too, the oldest first")
    again = Listeners(a.path)
    same(again.next(), state, "a second client gets the same at once")
    for name, port in (("a", 20001), ("b", 20002), ("c", 20003), ("d", 20004), ("e", 20005), ("f", 20000)):
        sock, _ = forward(a.path, port)
        w.do("accept", name)
        sock.close()
    check(True, "each of them is reached by FORWARD")
    w.do("listen", "a", "127.0.0.1", 20001)  # listen(2) anew changes the backlog only
    w.do("close", "b")
    state.remove((20002, "0.0.0.0"))
    same(l.next(), state, "connections that are accepted, and a second listen(2), change nothing; a close does")
    w.do("shutdown", "c")
    state.remove((20003, "::1"))
    same(l.next(), state, "so does shutdown(2)")
    w.do("listen", "c", "::1", 20003)
    state.append((20003, "::1"))
    same(l.next(), state, "a socket that listens again is the youngest")
    w.do("listen", "g", "127.0.0.1", 20006)
    w.do("listen", "h", "127.0.0.1", 20006)
    both = state + [(20006, "127.0.0.1")] * 2
    same(l.until(both), both, "two sockets on one port are two listeners")
    w.do("close", "g")
    state.append((20006, "127.0.0.1"))
    same(l.next(), state, "the end of one leaves the other")
    inner.do("listen", "a", "127.0.0.2", 20007)
    same(l.next(), state + [(20007, "127.0.0.2")], "a cgroup below counts")
    sock, _ = forward(a.path, 20007)
    sock.close()
    inner.do("unshare", "-")
    inner.do("listen", "z", "0.0.0.0", 20008)
    inner.do("child", "-")
    inner.do("close", "a")
    inner.do("listen", "y", "0.0.0.0", 20009)
    w.do("listen", "i", "127.0.0.1", 20010)
    state += [(20007, "127.0.0.2"), (20010, "127.0.0.1")]
    same(l.next(), state, "another network namespace's do not count, and a child holds what its parent has closed")
    inner.do("end", "-")
    state.remove((20007, "127.0.0.2"))
    same(l.until(state), state, "until it ends as well")
    before = memory(a.process)
    w.do("flap", "-", 20000)
    w.do("listen", "j", "127.0.0.1", 20011)
    state.append((20011, "127.0.0.1"))
    same(again.until(state), state, "a listener that flaps 20,000 times")
    same(l.until(state), state, "ends in the true state for each client")
    check(memory(a.process) - before < 1 << 20, "and costs no memory", memory(a.process) - before)
    l.send(frame(SYNC))
    try:
        l.answer()
        check(False, "a frame after LISTENERS is refused")
    except Refused as refused:
        same(refused.code, 1, "a frame after LISTENERS is refused")
    w.kill()
    same(again.until([]), [], "a killed process leaves none")


def test_rescan(tool):
    """What the agent writes where, in a directory that stands for sysfs; the kernel's part is not here."""
    def rescan():
        c = Connection(a.path)
        c.send(frame(RESCAN))
        try:
            kind, _, payload = c.answer()
            return struct.unpack("<I", payload)[0] if kind == RESCANNED else kind
        except Refused as refused:
            return f"refused {refused.code}"
        finally:
            c.close()

    def told(name):
        with open(f"{driver}/{name}") as f:
            return f.read().split()

    with tempfile.TemporaryDirectory(prefix="husk-sysfs-") as sysfs:
        devices, driver = f"{sysfs}/bus/platform/devices", f"{sysfs}/bus/platform/drivers/virtio-mmio"
        a = Agent(tool, sysfs=sysfs)
        same(rescan(), "refused 8", "RESCAN without a sysfs is an error")
        os.makedirs(f"{devices}/PNP0C0C:00")
        same(rescan(), 0, "a machine without slots has no new devices, and needs no driver")
        for name in ("LNRO0005:01", "LNRO0005:0a", "LNRO0005:02", "LNRO0005:00/virtio0", "LNRO0005:03/driver"):
            os.makedirs(f"{devices}/{name}")
        same(rescan(), "refused 8", "slots without a driver are an error")
        os.makedirs(driver)
        for name in ("bind", "unbind"):
            open(f"{driver}/{name}", "w").close()
        same(rescan(), 4, "the empty slots are probed")
        same(told("bind"), ["LNRO0005:01", "LNRO0005:02", "LNRO0005:03", "LNRO0005:0a"],
             "in slot order, without the one that has a device")
        same(told("unbind"), ["LNRO0005:03"], "one that has the driver but no device is unbound first")
        os.remove(f"{driver}/bind")
        os.symlink("/dev/full", f"{driver}/bind")
        same(rescan(), 0, "a slot whose probe fails does not count")
        c = Connection(a.path)
        c.send(frame(RESCAN, b"x"))
        try:
            same(c.answer(), None, "RESCAN with a payload is refused")
        except Refused as refused:
            same(refused.code, 1, "RESCAN with a payload is refused")
        c.close()
        c = Connection(a.path)
        c.send(frame(POWER, struct.pack("<I", 0)))
        c.answer()
        c.close()
        a.end()


def main():
    ready()
    tool = sys.argv[1]
    a = Agent(tool)
    test_refusals(a)
    test_protocol(a)
    script = 'trap "echo term" TERM; echo $$ $(pwd); while read l; do echo got $l; done; while :; do sleep 0.1; done'
    workload = a.exec(["sh", "-c", script], MAIN | WITH_STDIN, cwd="/new/dir")
    workload.until(b"\n")
    same(bytes(workload.out[1]), b"1 /new/dir\n", "the workload is PID 1, its working directory was made")
    test_joined(a)
    test_windows(a)
    test_terminal(a)
    test_forward(a)
    test_forward_farewell(a)
    test_forward_fairness(a)
    test_forward_backlog(a)
    test_forward_many(a)
    workload.signal(10)
    workload.feed(b"line\n", end=False)
    workload.until(b"got line")
    check(True, "PID 1 ignores a signal that it has no handler for")
    workload.feed(b"more\n")
    workload.until(b"got more")
    workload.signal(15)  # after the line: a signal may end the shell's read
    workload.until(b"term")
    check(True, "and takes one that it has a handler for")
    sleeper = a.exec(["sleep", "100"])
    workload.signal(9)
    same(workload.run()[0], (2, 9), "SIGKILL ends the workload")
    same(sleeper.run()[0], (2, 9), "and every program with it")
    c = Connection(a.path)
    c.send(frame(POWER, struct.pack("<I", 0)))
    same(c.answer()[0], OK, "POWER is answered")
    c.close()
    same(a.end(), "the host asked for it", "and ends the agent")

    test_out_of_files(tool)
    test_forward_itself(tool)
    test_listeners(tool)
    test_rescan(tool)

    a = Agent(tool, "read-only", "/data")
    got = a.exec(["sh", "-c", "touch /x; touch /data/x && touch /tmp/x && touch /dev/shm/x; (exit 5)"], MAIN | INIT).run()
    same(got[0], (1, 5), "a reaper ends as its child does")
    check(b"touch: /x: Read-only" in got[2] and got[2].count(b"touch") == 1, "read-only but for volumes, /tmp, /dev/shm",
          got[2])
    same(a.exec(["sh", "-c", "kill -9 $$"], MAIN | INIT).run()[0], (1, 137), "a reaper says 128 + n")
    workload = a.exec(["sleep", "100"], MAIN)
    workload.close()
    same(a.end(), "the connection of the workload was lost", "a workload that loses its client ends the VM")
    return done()


sys.exit(main())
