#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 300
"""forward_test.py - the agent's FORWARD and LISTENERS in a real guest, spoken over exec.sock as a door speaks them."""
import hashlib
import ipaddress
import os
import select
import socket
import struct
import threading
import time

import images
import lib
from lib import equal, ok

MEG = 1 << 20
PATTERN = bytes(i % 251 for i in range(65536))  # what tests/e2e/guest/tcp.c sends
RESET = struct.pack("ii", 1, 0)  # SO_LINGER


class Guest:
    """A VM whose workload is a shell that does what it is told."""

    def __init__(self, home, *options):
        self.home = home
        image = home.have(images.busybox(), "busybox")
        self.running = home.start("run", "--quiet", "-i", *options, image, "sh", stdin=-1)
        self.do("echo ready", "ready")

    def do(self, command, then):
        """Have @command run, and wait for a line @then that was not there before."""
        before = self.count(then)
        self.running.stdin.write(command.encode() + b"\n")
        self.running.stdin.flush()
        self.wait(then, before + 1)

    def count(self, line):
        return self.running.seen.count(line.encode() + b"\n")

    def wait(self, line, times=1):
        while self.count(line) < times:
            self.more()
        return True

    def more(self):
        fd = self.running.process.stdout.fileno()
        ready, _, _ = select.select([fd], [], [], lib.LIMIT)
        chunk = os.read(fd, 65536) if ready else b""
        assert chunk, f"no more came: {self.running.seen[-500:]!r}"
        self.running.seen += chunk

    def is_quiet(self):
        """Does a half second come in which the guest's CPU has nothing to do? An agent that spins does so in all of them; a
        host that is busy makes some of an emulated guest's work long."""
        return any(self.idle_share() > 0.8 for _ in range(20))

    def idle_share(self):
        """Share of half a second in which the guest's CPU had nothing to do."""
        at = len(self.running.seen)
        self.do("read a </proc/stat; sleep 0.5; read b </proc/stat; echo \"$a\"; echo \"$b\"; echo idle", "idle")
        before, after = ([int(n) for n in line.split()[1:]] for line in self.running.seen[at:].splitlines()[-3:-1])
        spent = [b - a for a, b in zip(before, after)]
        return (spent[3] + spent[4]) / max(1, sum(spent))

    def listen(self, mode, address, port, *more):
        self.do(f"tcp {mode} {address} {port} {' '.join(map(str, more))} & last=$!", f"listening {port}")

    def end(self):
        self.running.stdin.close()
        return self.running.finish()

    def agent(self):
        """A connection to the agent, HELLO exchanged."""
        path = self.home.socket("exec.sock")
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(lib.LIMIT)
        folder = os.open(os.path.dirname(path), os.O_PATH)  # the path may be longer than sockaddr_un
        try:
            sock.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
        finally:
            os.close(folder)
        sock.sendall(lib.HELLO_FRAME)
        return sock

    def ask(self, port, behind=b""):
        """Ask for a forward, without waiting for the answer."""
        sock = self.agent()
        sock.sendall(lib.frame(lib.FORWARD, struct.pack("<HH", port, 0)) + behind)
        return sock

    def forward(self, port, behind=b""):
        """A socket to a port in the guest, or the code of the ERROR."""
        sock = self.ask(port, behind)
        return sock if (code := answer(sock)) == 0 else code


def answer(sock):
    """0 for OK, otherwise the code of the ERROR."""
    assert lib.read_frame(sock)[0] == lib.HELLO
    kind, _, payload = lib.read_frame(sock)
    return 0 if kind == lib.OK else struct.unpack_from("<I", payload)[0]


def listening(sock):
    """The next state of LISTENERS: [(port, address)], the oldest first."""
    kind, _, payload = lib.read_frame(sock)
    while kind == lib.HELLO:
        kind, _, payload = lib.read_frame(sock)
    assert kind == lib.LISTENING and len(payload) % 20 == 0, (kind, payload)
    state = []
    for at in range(0, len(payload), 20):
        port, family = struct.unpack_from("<HB", payload, at)
        address = payload[at + 4:at + (8 if family == 4 else 20)]
        state.append((port, str(ipaddress.ip_address(address))))
    return state


def read_all(sock):
    """(bytes, "end" or "reset")"""
    chunks = []
    try:
        while chunk := sock.recv(1 << 18):
            chunks.append(chunk)
    except ConnectionResetError:
        return b"".join(chunks), "reset"
    return b"".join(chunks), "end"


def send_and_shut(sock, data):
    thread = threading.Thread(target=lambda: (sock.sendall(data), sock.shutdown(socket.SHUT_WR)))
    thread.start()
    return thread


def fnv(data):
    total = 2166136261
    for byte in data:
        total = (total ^ byte) * 16777619 & 0xffffffff
    return f"{total:08x}"


def same(got, want, what):
    return equal((len(got), hashlib.sha256(got).hexdigest()), (len(want), hashlib.sha256(want).hexdigest()), what)


def test_listeners(home):
    """Listeners come, are reached, and go."""
    guest = Guest(home)
    watch = guest.agent()
    watch.sendall(lib.frame(lib.LISTENERS))
    equal(listening(watch), [], "nothing listens in the beginning, the agent's own doors do not count")
    state = []
    for port, address in ((7001, "127.0.0.1"), (7002, "::1"), (7004, "0.0.0.0"), (7003, "::")):
        guest.listen("echo", address, port)
        state.append((port, address))
        equal(listening(watch), state, f"a listener on {address} is announced, behind the older ones")
    for port, address in state:
        with guest.forward(port, b"hello") as sock:
            equal(lib.read_exactly(sock, 5), b"hello", f"a listener on {address} is reached, bytes behind the request too")
    guest.do("kill $last; wait $last; echo killed", "killed")
    state.pop()
    equal(listening(watch), state, "one that is killed goes")
    late = guest.agent()
    late.sendall(lib.frame(lib.LISTENERS))
    equal(listening(late), state, "a client that comes later gets the state at once")
    equal(guest.forward(7003), 9, "its port is refused: ERROR 9")
    guest.do("echo nice and policy $(cut -d' ' -f19,41 /proc/self/stat)", "nice and policy 0 0")
    ok(guest.running.process.poll() is None, "programs have an ordinary schedule, whatever the agent's is")
    equal(guest.end().status, 0, "and ends as it should")


def test_bytes(home):
    """Half-closes, resets, a reader that sleeps, many at once, a full backlog."""
    guest = Guest(home)
    for mode, port, *more in (("later", 7011), ("first", 7012, MEG), ("report", 7013), ("reset", 7014), ("flood", 7015),
                              ("echo", 7016), ("full", 7017), ("report", 7018, 10)):
        guest.listen(mode, "127.0.0.1", port, *more)
    data = os.urandom(MEG)

    with guest.forward(7011) as sock:
        sender = send_and_shut(sock, data)
        got, how = read_all(sock)
        sender.join()
    same(got, data, "1 MiB to the service and, after a half-close, back")
    equal(how, "end", "with an orderly end")
    with guest.forward(7012) as sock:
        got, how = read_all(sock)
        same(got, PATTERN * (MEG // 65536), "the service sends 1 MiB and half-closes")
        sender = send_and_shut(sock, data)
        sender.join()
        ok(guest.wait(f"took {MEG} {fnv(data)} end"), "and takes 1 MiB after that")

    backlog = guest.ask(7017)
    resets(guest)
    sleeper(guest)
    many(guest)
    equal(answer(backlog), 9, "a port whose backlog is full is refused in the end, and has held up nobody")
    with guest.agent() as sock:
        sock.sendall(lib.frame(lib.FORWARD, struct.pack("<HH", 0, 0)))
        equal(answer(sock), 1, "port 0 is malformed")
    equal(guest.end().status, 0, "the VM has lived through all of it")
    lib.none_left()


def resets(guest):
    with guest.forward(7014) as sock:
        sock.sendall(b"1")
        equal(lib.read_exactly(sock, 3), b"bye", "a service that will reset")
        sock.sendall(b"2")
        read_all(sock)  # a reset, once the door asks the muxer for it (close_is_reset)
    sock = guest.forward(7013)
    sock.sendall(b"x" * 1000)
    sock.shutdown(socket.SHUT_WR)
    ok(guest.wait(f"took 1000 {fnv(b'x' * 1000)} end"), "an orderly end of the host is one in the guest")
    sock.close()
    sock = guest.forward(7018)
    sock.sendall(b"x" * 1000)
    sock.recv(1)
    sock.close()  # bytes that it did not read make a close a reset, of a unix socket too
    ok(guest.wait(f"took 1000 {fnv(b'x' * 1000)} reset"), "a reset of the host is one in the guest, behind all its bytes")
    sock = guest.forward(7015)
    sock.recv(1)
    sock.close()
    ok(guest.wait("flood ended"), "a host that goes ends a service that sends")


def sleeper(guest):
    """A host that does not read, while others go on."""
    sleepers = [guest.forward(7015) for _ in range(4)]
    with guest.forward(7016) as sock:
        data = os.urandom(MEG)
        sender = send_and_shut(sock, data)
        got, _ = read_all(sock)
        sender.join()
        same(got, data, "one connection goes on while the readers of four others sleep")
    halves = [guest.forward(port) for port in (7011, 7013, 7018)]
    for sock in halves[1:]:
        sock.shutdown(socket.SHUT_WR)
    lib.read_exactly(halves[2], 10)
    ok(guest.is_quiet(), "and nobody spins meanwhile, whatever has ended")
    for sock in sleepers + halves:
        sock.close()


def many(guest, n=300):
    begun = time.monotonic()
    sockets = [guest.ask(7016, b"%d" % i) for i in range(n)]
    equal([answer(sock) for sock in sockets], [0] * n, f"{n} connections at once are made")
    want = [b"%d" % i for i in range(n)]
    equal([lib.read_exactly(s, len(w)) for s, w in zip(sockets, want)], want, "and each gets its own bytes")
    print(f"# {n} connections: {time.monotonic() - begun:.2f} s")
    for sock in sockets:
        sock.close()


lib.main(globals())
