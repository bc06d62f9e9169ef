#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 3600
"""doors_test.py - doors in full numbers: 10,000 idle connections, 1,000 busy ones, 10,000 one by one, 100,000 that come and go."""
import os
import pathlib
import re
import resource
import select
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
import doors  # noqa: E402
import images  # noqa: E402
import lib  # noqa: E402
from lib import equal, ok  # noqa: E402

MIB = 1 << 20
SCALE = float(os.environ.get("HUSK_TEST_SCALE", "1"))  # below 1: for trying the test itself


class Served:
    def __init__(self, home, folder):
        image = home.have(images.busybox(), "busybox")
        self.exec, self.unix = str(folder / "exec.sock"), str(folder / "unix.sock")
        self.vm = doors.Vm(home, "-m", "1536M", "--listen-wait", "60s", "-p", "0:7000", "-p", "0:7001", "--exec-door", self.exec,
                           "--vsock-mux", f"{self.unix}:7000", image, "sh", "-c",
                           "ulimit -n 30000; peer serve tcp:7000 echo:7001 & trap 'exit 0' TERM; wait")
        self.vm.wait_for_doors()
        self.tcp, self.echo = self.vm.door("tcp", 7000), self.vm.door("tcp", 7001)
        with doors.connect(self.echo, 90) as sock:
            doors.echo(sock)
        self.worker = self.vm.worker()

    def quiet(self):
        """All connections are closed inside as well."""
        return doors.until(lambda: doors.ends(self.tcp)["open"] == 1, 60)

    def guest_memory(self):
        """Bytes the guest has available."""
        with doors.connect(self.exec) as sock:
            out = lib.agent_exec(sock, ["/bin/cat", "/proc/meminfo"])["out"].decode()
        return int(re.search(r"MemAvailable:\s+(\d+)", out)[1]) << 10


def idle(s):
    count = int(10000 * SCALE)
    memory, guest, fds = doors.resident(s.worker), s.guest_memory(), doors.descriptors(s.worker)
    begun = time.monotonic()
    socks = []
    for i in range(count):
        socks.append(doors.connect(s.echo if i % 2 else s.tcp))
    for sock in socks[1::2]:
        sock.sendall(b"x")
    equal(sum(sock.recv(1) == b"x" for sock in socks[1::2]), count // 2, f"{count} connections, in {time.monotonic() - begun:.1f} s")
    ok(doors.until(lambda: doors.ends(s.tcp)["open"] == count + 1, 60), "all of them reach the guest", doors.ends(s.tcp))
    grown, inside = doors.resident(s.worker) - memory, guest - s.guest_memory()
    ok(grown < 100 * MIB * SCALE + MIB, f"idle, they cost the worker {grown / MIB:.1f} MiB ({grown // count} bytes each) and the guest "
       f"{inside / MIB:.1f} MiB ({inside // count} bytes each)")
    begun = time.monotonic()
    with doors.connect(s.echo) as sock:
        for _ in range(100):
            doors.echo(sock)
    ok(time.monotonic() - begun < 5, f"next to them 100 exchanges take {time.monotonic() - begun:.2f} s")
    for sock in socks:
        sock.close()
    ok(s.quiet(), "they end", doors.ends(s.tcp))
    ok(doors.until(lambda: doors.descriptors(s.worker) <= fds), "the worker's descriptors are as before", doors.descriptors(s.worker))


def busy(s):
    count = int(1000 * SCALE)
    socks = [doors.ask(where, "source 100000000000", 120) for where in [s.tcp, s.unix] * (count // 2)]
    equal(len(doors.readable(socks, 120)), 0, f"{count} busy connections: all begin")
    poll, counts = select.epoll(), dict.fromkeys((sock.fileno() for sock in socks), 0)
    by_fd = {sock.fileno(): sock for sock in socks}
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    until = time.monotonic() + 30
    while time.monotonic() < until:
        for fd, _ in poll.poll(1):
            counts[fd] += len(by_fd[fd].recv(1 << 16))
    least, most, total = min(counts.values()), max(counts.values()), sum(counts.values())
    ok(least and least * 20 > most, f"30 s: {total / 30e6:.0f} MB/s in all, {least >> 10} to {most >> 10} KiB each")
    for sock in socks:
        sock.close()
    ok(s.quiet(), "they end", doors.ends(s.tcp))


def one_by_one(s, count, endpoint, what, exchange=True):
    for _ in range(100):
        with doors.connect(endpoint) as sock:
            doors.echo(sock)
    s.quiet()
    fds, memory, wrong = doors.descriptors(s.worker), doors.resident(s.worker), 0
    begun = time.monotonic()
    for i in range(count):
        with doors.connect(endpoint) as sock:
            if exchange or i % 10 == 0:
                wrong += not doors.echo(sock, b"some bytes")
    seconds = time.monotonic() - begun
    equal(wrong, 0, f"{count} {what} in {seconds:.0f} s")
    ok(s.quiet(), "none is left in the guest", doors.ends(s.tcp))
    ok(doors.until(lambda: doors.descriptors(s.worker) <= fds), "descriptors are flat", f"{fds} -> {doors.descriptors(s.worker)}")
    grown = doors.resident(s.worker) - memory
    ok(grown < 2 * MIB, f"memory is flat ({grown >> 10} KiB)")


def test_full(home):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < 11000:
        raise lib.Skip(f"{hard} descriptors are the most here")
    with tempfile.TemporaryDirectory(prefix="husk-doors-") as folder:
        s = Served(home, pathlib.Path(folder))
        for part in (idle, busy, lambda s: one_by_one(s, int(10000 * SCALE), s.echo, "connections, one after the other"),
                     lambda s: one_by_one(s, int(100000 * SCALE), s.echo, "connects and disconnects", False)):
            part(s)
        ok(s.vm.running.process.poll() is None, "the VM has lived through all of it", s.vm.errors())
        s.vm.running.process.terminate()
        equal(s.vm.running.finish(60).status, 0, "and ends as it is told")
        lib.none_left()


lib.main(globals())
