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
TIMEOUT = 15  # of each wait, in seconds; a test may set another


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
        self.sock.settimeout(TIMEOUT)
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


# ---- trees ----

ENTRY, DATA, END = 0x40, 0x41, 0x42
FILE, DIRECTORY, SYMLINK, HARDLINK, FIFO, CHARACTER, BLOCK, SOCKET = range(1, 9)
OWNER, FOLLOW = 1, 2


class Entry:
    """One thing of a tree; @data: [(offset, bytes)]."""

    def __init__(self, name, kind, mode=0, uid=0, gid=0, mtime=0, size=None, link=None, device=None, data=()):
        self.name, self.kind, self.mode, self.uid, self.gid, self.mtime = name, kind, mode, uid, gid, mtime
        self.size, self.link, self.device, self.data = size, link, device, list(data)

    def frames(self):
        payload = entry(1, self.name) + entry(2, self.kind) + entry(3, self.mode) + entry(4, self.uid) + entry(5, self.gid)
        payload += entry(6, struct.pack("<q", self.mtime))
        if self.kind == FILE:
            payload += entry(7, struct.pack("<Q", self.size))
        if self.link is not None:
            payload += entry(8, self.link)
        if self.device is not None:
            payload += entry(9, struct.pack("<Q", self.device[0] << 32 | self.device[1]))
        return frame(ENTRY, payload) + b"".join(frame(DATA, struct.pack("<Q", at) + bytes_) for at, bytes_ in self.data)

    def content(self):
        whole = bytearray(self.size)
        for at, bytes_ in self.data:
            whole[at:at + len(bytes_)] = bytes_
        return bytes(whole)


def file_entry(name, content=b"", mode=0o644, **more):
    return Entry(name, FILE, mode, size=len(content), data=[(0, content)] if content else [], **more)


def read_entries(payload):
    found, at = {}, 0
    while at < len(payload):
        tag, zero, size = struct.unpack_from("<HHI", payload, at)
        assert zero == 0 and tag not in found and at + 8 + size <= len(payload)
        found[tag] = payload[at + 8:at + 8 + size]
        at += 8 + size
    return found


def tree_payload(path, user=None, flags=None, name=None):
    data = entry(1, path)
    if user is not None:
        data += entry(2, user)
    if flags is not None:
        data += entry(3, flags)
    if name is not None:
        data += entry(4, name)
    return data


def get(path, root, **more):
    """The tree at @root: [Entry]; Refused."""
    c = Connection(path)
    c.sock.settimeout(60)
    try:
        c.send(frame(GET, tree_payload(root, **more)))
        tree = []
        while (got := c.answer())[0] != END:
            kind, stream, payload = got
            assert stream == 0
            if kind == DATA:
                at, = struct.unpack_from("<Q", payload)
                e = tree[-1]
                assert e.kind == FILE and len(payload) > 8 and at + len(payload) - 8 <= e.size
                assert not e.data or e.data[-1][0] + len(e.data[-1][1]) <= at
                e.data.append((at, payload[8:]))
                continue
            assert kind == ENTRY, kind
            f = read_entries(payload)
            e = Entry(f[1].decode(), *struct.unpack("<IIII", f[2] + f[3] + f[4] + f[5]), *struct.unpack("<q", f[6]))
            e.size = struct.unpack("<Q", f[7])[0] if 7 in f else None
            e.link = f[8].decode() if 8 in f else None
            e.device = divmod(struct.unpack("<Q", f[9])[0], 1 << 32) if 9 in f else None
            tree.append(e)
        assert c.receive() is None
        return tree
    finally:
        c.close()


def put(path, target, tree, end=True, **more):
    """Write a tree; Refused."""
    c = Connection(path)
    c.sock.settimeout(60)
    try:
        c.send(frame(PUT, tree_payload(target, **more)) + b"".join(e.frames() for e in tree) + (frame(END) if end else b""))
        got = c.answer()
        assert got == (OK, 0, b"") and c.receive() is None, got
    finally:
        c.close()
