# SPDX-License-Identifier: Apache-2.0
"""doors.py - a VM with doors, for suites and benches: what is open, what the worker holds, and a client of guest/peer.c."""
import contextlib
import itertools
import json
import os
import pathlib
import select
import socket
import struct
import time

import lib
from handoff_router import connect_unix

PIECE = 1 << 16
CYCLE = bytes(i % 251 for i in range(251 * 1024 + PIECE))  # what peer sends: byte i is i mod 251
_names = itertools.count()


class Vm:
    """A husk that runs in the foreground under a name of its own."""

    def __init__(self, home, *arguments, name=None, **popen):
        self.home, self.name = home, name or f"vm{next(_names)}"
        self.running = home.start("run", "--quiet", "--name", self.name, *arguments, **popen)

    def inspect(self):
        done = self.home.husk("inspect", self.name)
        if done.status:
            raise AssertionError(f"{done}\n{self.errors()}")
        return json.loads(done.out)[0]

    def stats(self):
        done = self.home.husk("stats", "--format", "json", self.name)
        if done.status:
            raise AssertionError(str(done))
        return json.loads(done.out)[0]

    def doors(self):
        return self.inspect()["doors"]

    def door(self, kind, port=None):
        """Endpoint of the one door of @kind to @port of the guest (0: its first listener; None: any)."""
        doors = self.doors()
        found = [d["endpoint"] for d in doors if d["kind"] == kind and port in (None, d.get("guest_port") or 0)]
        if len(found) != 1:
            raise AssertionError(f"{kind} door to {port}: {found} of {doors}")
        return found[0]

    def wait_for_doors(self, seconds=lib.LIMIT):
        """They are open before the VM is up, and `inspect` tells them as soon as there is a record."""
        deadline = time.monotonic() + seconds
        while True:
            done = self.home.husk("inspect", self.name)
            if done.status == 0 and (told := json.loads(done.out)[0].get("doors")):
                return told
            if self.running.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"no doors: {done}\n{self.running.finish(1)}")

    def errors(self):
        """What it has said on stderr so far."""
        self.running.errors.seek(0)
        return self.running.errors.read().decode(errors="replace")

    def log(self):
        """stderr, and the VM's log where there is one."""
        text = self.errors()
        for folder in self.home.vms():
            for file in folder.glob("*log*"):
                with contextlib.suppress(OSError):
                    text += file.read_text(errors="replace")
        return text

    def worker(self):
        """Its worker's pid: the child of its supervisor, which is the child of its husk."""
        mine = lib.descendants(self.running.pid)
        found = [pid for pid, line in mine.items() if "husk-vmm worker" in line]
        if len(found) != 1:
            raise AssertionError(f"worker: {mine}")
        return found[0]

    def end(self, limit=lib.LIMIT):
        self.running.process.kill()
        return self.running.finish(limit)


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident(pid):
    """Bytes of a process in RAM, without mappings of a memfd (the guest's own)."""
    total, counted = 0, True
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if line.endswith("kB"):
            if line.startswith("Rss:") and counted:
                total += int(line.split()[1]) << 10
        elif "-" in line.split(" ", 1)[0]:
            counted = "memfd:" not in line
    return total


def connect(endpoint, timeout=lib.LIMIT):
    """A connected socket: a path, or "ADDRESS:PORT"."""
    if str(endpoint).startswith("/"):
        return connect_unix(endpoint, timeout)
    address, _, port = endpoint.rpartition(":")
    sock = socket.create_connection((address.strip("[]"), int(port)), timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def hybrid(path, port, timeout=lib.LIMIT):
    sock = connect_unix(path, timeout)
    sock.sendall(f"CONNECT {port}\n".encode())
    line = b""
    while not line.endswith(b"\n"):
        byte = sock.recv(1)
        if not byte:
            raise ConnectionError(f"no OK: {line!r}")
        line += byte
    return sock


def ask(endpoint, command, timeout=lib.LIMIT):
    """A connection that has said a command to guest/peer.c."""
    sock = connect(endpoint, timeout)
    sock.sendall(command.encode() + b"\n")
    return sock


def read_all(sock):
    chunks = []
    while chunk := sock.recv(1 << 18):
        chunks.append(chunk)
    return b"".join(chunks)


def read_count(sock):
    """Read to the end; how many bytes came, and whether they were peer's."""
    total, right = 0, True
    while chunk := sock.recv(PIECE):
        at = total % 251
        right = right and chunk == CYCLE[at:at + len(chunk)]
        total += len(chunk)
    return total, right


def echo(sock, data=b"x"):
    """One exchange with an echo."""
    sock.sendall(data)
    return lib.read_exactly(sock, len(data)) == data


def reset(sock):
    """Close with a reset (of TCP)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def how_it_ended(sock, timeout=lib.LIMIT):
    """"eof", "reset" or "open", after reading what is there."""
    sock.settimeout(timeout)
    try:
        while sock.recv(PIECE):
            pass
        return "eof"
    except ConnectionResetError:
        return "reset"
    except TimeoutError:
        return "open"


def ends(endpoint):
    """Counts of the guest's peer: connections on watch that ended by eof and by reset, and those open now."""
    with ask(endpoint, "ends") as sock:
        words = read_all(sock).split()
    return {words[i].decode(): int(words[i + 1]) for i in range(0, len(words) - 1, 2)}


def readable(socks, seconds=lib.LIMIT):
    """Wait until each of @socks has something to read or has ended; those that have not."""
    waiting, deadline = {s.fileno(): s for s in socks}, time.monotonic() + seconds
    poll = select.poll()
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    while waiting and (left := deadline - time.monotonic()) > 0:
        for fd, _ in poll.poll(left * 1000):
            poll.unregister(fd)
            waiting.pop(fd, None)
    return list(waiting.values())


def until(fact, seconds=lib.LIMIT):
    """Wait for something that nothing announces to us (a counter of the guest's); True when it came."""
    deadline = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def tcp_pair():
    """Two ends of one TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        left = socket.create_connection(server.getsockname(), lib.LIMIT)
        right, _ = server.accept()
    left.settimeout(lib.LIMIT)
    return left, right
