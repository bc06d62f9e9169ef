# SPDX-License-Identifier: Apache-2.0
"""A client of the agent protocol, written from docs/agent-protocol.md alone: the tests' second opinion."""
import ipaddress
import socket
import struct

HELLO, READY, EXEC, PUT, GET, SYNC, LISTENERS, FORWARD, POWER, RESCAN = 1, 2, 0x10, 0x11, 0x12, 0x13, 0x15, 0x16, 0x17, 0x18
STDIN, STDOUT, STDERR, EOF, RESIZE, SIGNAL, STARTED, EXIT, ERROR, OK, WINDOW, LISTENING, RESCANNED = range(0x30, 0x3D)
MAIN, TTY, WITH_STDIN, INIT, SYNCED, DETACH = 1, 2, 4, 8, 16, 32
VERSION = struct.pack("<I", 2)
WINDOW_SIZE = 512 << 10


def frame(kind, payload=b"", stream=0):
    return struct.pack("<IBBH", len(payload), kind, stream, 0) + payload


HELLO_FRAME = frame(HELLO, VERSION)


def entry(tag, value):
    if isinstance(value, int):
        value = struct.pack("<I", value)
    elif isinstance(value, str):
        value = value.encode()
    return struct.pack("<HHI", tag, 0, len(value)) + value


class Refused(Exception):
    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")
        self.code, self.text = code, text


class Connection:
    """One connection, HELLO exchanged."""

    def __init__(self, path, hello=True):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)
        self.sock.settimeout(15)
        self.pending = b""
        if hello:
            self.send(HELLO_FRAME)
            kind, _, payload = self.receive()
            assert kind == HELLO and payload == VERSION, (kind, payload)

    def send(self, data):
        self.sock.sendall(data)

    def receive(self):
        """(type, stream, payload), or None at the end."""
        while True:
            if len(self.pending) >= 8:
                size, kind, stream, zero = struct.unpack_from("<IBBH", self.pending)
                assert size <= 1 << 20 and zero == 0
                if len(self.pending) >= 8 + size:
                    payload = self.pending[8:8 + size]
                    self.pending = self.pending[8 + size:]
                    return kind, stream, payload
            try:
                more = self.sock.recv(1 << 18)
            except ConnectionResetError:
                more = b""
            if not more:
                assert not self.pending, self.pending[:100]
                return None
            self.pending += more

    def answer(self):
        """The next frame; an ERROR is raised."""
        got = self.receive()
        if got and got[0] == ERROR:
            raise Refused(struct.unpack_from("<I", got[2])[0], got[2][4:].decode())
        return got

    def close(self):
        self.sock.close()


TIMED_OUT, OOM = 1, 2


def staged(path, contents, mode=0o644):
    return entry(9, struct.pack("<IH", mode, len(path.encode())) + path.encode() + contents)


def exec_payload(args, flags=0, env=(), cwd=None, user=None, groups=(), window=None, timeout=None, files=(), then=()):
    """@files: (path, contents, mode); @then: further commands."""
    data = entry(1, flags) + b"".join(entry(2, a) for a in args) + b"".join(entry(3, e) for e in env)
    if cwd is not None:
        data += entry(4, cwd)
    if user is not None:
        data += entry(5, user)
    data += b"".join(entry(6, g) for g in groups)
    if window is not None:
        data += entry(7, window[0] << 16 | window[1])
    if timeout is not None:
        data += entry(8, struct.pack("<Q", timeout))
    data += b"".join(staged(*f) for f in files)
    for command in then:
        data += entry(10, b"") + b"".join(entry(2, a) for a in command)
    return data


class Exec(Connection):
    """A running program. run() feeds it and collects what it says."""

    def __init__(self, path, args, flags=0, wait=True, **more):
        super().__init__(path)
        self.out = {1: bytearray(), 2: bytearray()}
        self.ended = set()
        self.exit = None
        self.window = WINDOW_SIZE
        self.grant = True
        self.flags = flags
        self.send(frame(EXEC, exec_payload(args, flags, **more)))
        if wait:
            got = self.answer()
            assert got and got[0] == STARTED, got
            self.pid = struct.unpack("<I", got[2])[0]

    def step(self):
        """Take one frame; False after EXIT or the end of the connection."""
        got = self.answer()
        if got is None:
            return False
        kind, stream, payload = got
        if kind in (STDOUT, STDERR):
            assert stream == kind - STDIN and payload and stream not in self.ended
            self.out[stream] += payload
            if self.grant:
                self.send(frame(WINDOW, struct.pack("<I", len(payload)), stream))
        elif kind == EOF:
            self.ended.add(stream)
        elif kind == WINDOW:
            assert stream == 0
            self.window += struct.unpack("<I", payload)[0]
        elif kind == EXIT:
            self.exit = struct.unpack("<IIQQII", payload)
            return False
        else:
            raise AssertionError(f"frame {kind:#x}")
        return True

    def feed(self, data, end=True):
        while data:
            while not self.window:
                if not self.step():
                    return
            piece = data[:min(self.window, 1 << 16)]
            self.send(frame(STDIN, piece))
            self.window -= len(piece)
            data = data[len(piece):]
        if end:
            self.send(frame(EOF))

    def signal(self, number):
        self.send(frame(SIGNAL, struct.pack("<I", number)))

    def until(self, text, stream=1):
        while text not in self.out[stream]:
            assert self.step(), bytes(self.out[stream])

    def run(self, stdin=None):
        if stdin is not None:
            self.feed(stdin)
        while self.step():
            pass
        return self.exit[:2] if self.exit else None, bytes(self.out[1]), bytes(self.out[2])


class Listeners(Connection):
    """The workload's listeners: next() is the next state, a list of (port, address) with the oldest first."""

    def __init__(self, path):
        super().__init__(path)
        self.send(frame(LISTENERS))

    def next(self):
        kind, _, payload = self.answer()
        assert kind == LISTENING and len(payload) % 20 == 0, (kind, payload)
        state = []
        for at in range(0, len(payload), 20):
            port, family, zero = struct.unpack_from("<HBB", payload, at)
            address = payload[at + 4:at + 20]
            assert port and family in (4, 6) and zero == 0 and (family == 6 or not any(address[4:]))
            state.append((port, str(ipaddress.ip_address(address[:4] if family == 4 else address))))
        return state

    def until(self, want):
        """Take states until one is @want."""
        while (got := self.next()) != want:
            pass
        return got


def forward(path, port, behind=b""):
    """A socket that is one to the guest's TCP @port. @behind: bytes sent right behind the request."""
    c = Connection(path, hello=False)
    c.send(HELLO_FRAME + frame(FORWARD, struct.pack("<HH", port, 0)) + behind)
    kind, _, payload = c.receive()
    assert kind == HELLO and payload == VERSION, (kind, payload)
    try:
        got = c.answer()
    except Refused:
        c.close()
        raise
    assert got == (OK, 0, b""), got
    return c.sock, c.pending
