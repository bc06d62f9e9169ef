# SPDX-License-Identifier: Apache-2.0
"""doors_vm.py - what a door costs, against the guest's own sockets in the same VM; called by bench.py

Both ends are tests/e2e/guest/peer.c, which writes and reads 64 KiB at a time. Rounds are interleaved, so that all see the
same machine: a ratio is the median of the rounds' own ratios.

throughput  the guest's TCP loopback (sender and receiver inside), against the same bytes to and from the host through a TCP
            and a unix door
latency     connect, one byte there and back, close, 5 ms of rest: through a TCP and a unix door, against an AF_VSOCK echo in the guest,
            reached from the host through vsock.sock and inside over vsock loopback
idle        10,000 connections that do nothing: memory of the worker and of the guest
"""
import os
import pathlib
import re
import resource
import statistics
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "e2e"))
import doors  # noqa: E402
import images  # noqa: E402
import lib  # noqa: E402

BYTES = 256 << 20
ROUNDS = int(os.environ.get("HUSK_BENCH_ROUNDS", "6"))
PINGS = 40  # per round


class Guest:
    """A VM in which peer serves, with a TCP and a unix door to it."""

    def __init__(self, home, folder, cpus):
        home.have(images.busybox(), "bench-doors")
        self.peer = str(images.compiled("peer"))
        names = ("put", "ping", "exec")
        self.unix, self.unix_echo, self.exec = (str(folder / f"{name}{cpus}.sock") for name in names)
        self.vm = doors.Vm(home, "-m", "1536M", "--cpus", str(cpus), "--listen-wait", "60s", "-p", "0:7000", "-p", "0:7001",
                           "--vsock-mux", f"{self.unix}:7000", "--vsock-mux", f"{self.unix_echo}:7001", "--exec-door", self.exec,
                           "bench-doors", "sh", "-c", "ulimit -n 30000; exec peer serve tcp:7000 echo:7001 vsock:7001")
        self.vm.wait_for_doors()
        self.tcp, self.echo = self.vm.door("tcp", 7000), self.vm.door("tcp", 7001)
        with doors.connect(self.echo, 90) as sock:
            doors.echo(sock)
        self.hybrid = f"hybrid:{home.socket('vsock.sock')}:7001"
        self.worker = self.vm.worker()

    def inside(self, *arguments):
        """peer, run in the guest: its numbers."""
        with doors.connect(self.exec, 300) as sock:
            result = lib.agent_exec(sock, ["/bin/peer", *map(str, arguments)])
        if result["status"] != 0:
            raise RuntimeError(str(result))
        return [float(n) for n in result["out"].split()]

    def outside(self, *arguments):
        done = subprocess.run([self.peer, *map(str, arguments)], stdout=subprocess.PIPE, check=True, stdin=subprocess.DEVNULL)
        return [float(n) for n in done.stdout.split()]

    def available(self):
        with doors.connect(self.exec) as sock:
            out = lib.agent_exec(sock, ["/bin/cat", "/proc/meminfo"])["out"].decode()
        return int(re.search(r"MemAvailable:\s+(\d+)", out)[1]) / 1024


def port(endpoint):
    return endpoint.rpartition(":")[2]


def throughput(guest, cpus, row, say):
    rates = {"guest loopback": [], "TCP door, guest to host": [], "unix door, guest to host": [], "TCP door, host to guest": [],
             "unix door, host to guest": []}
    takes = (lambda: guest.inside("get", 7000, BYTES), lambda: guest.outside("get", port(guest.tcp), BYTES),
             lambda: guest.outside("get", guest.unix, BYTES), lambda: guest.outside("put", port(guest.tcp), BYTES),
             lambda: guest.outside("put", guest.unix, BYTES))
    for i in range(ROUNDS + 1):
        for name, take in zip(rates, takes):
            rate = BYTES / take()[0] / 1e6
            say(f"doors, {cpus} CPUs, round {i} of {ROUNDS}: {name} {rate:.0f} MB/s")
            if i:
                rates[name].append(rate)
    base = rates.pop("guest loopback")
    row(f"guest's TCP loopback, {cpus} CPUs", base, "MB/s")
    for name, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(values, base))
        wanted = (">= 0.8 x", ratio >= 0.8) if "guest to host" in name else ("", None)
        row(f"  {name}", values, "MB/s", f"{ratio:.2f} x loopback", *wanted)


def latency(guest, cpus, row, say):
    times = {"vsock echo, from the host": [], "vsock echo, inside": [], "TCP echo, inside": [], "TCP door": [], "unix door": []}
    takes = (lambda: guest.outside("ping", guest.hybrid, PINGS, 5), lambda: guest.inside("ping", "vsock:1:7001", PINGS, 5),
             lambda: guest.inside("ping", 7001, PINGS, 5), lambda: guest.outside("ping", port(guest.echo), PINGS, 5),
             lambda: guest.outside("ping", guest.unix_echo, PINGS, 5))
    for i in range(max(ROUNDS, 6) + 1):
        say(f"doors, {cpus} CPUs, latency, round {i}")
        for name, take in zip(times, takes):
            values = take()
            if i:
                times[name] += [v / 1000 for v in values]
    host, inside = (statistics.median(times[name]) for name in ("vsock echo, from the host", "vsock echo, inside"))
    for name in ("vsock echo, from the host", "vsock echo, inside", "TCP echo, inside"):
        row(f"connect and one byte: {name}, {cpus} CPUs", times[name], "ms")
    for name in ("TCP door", "unix door"):
        p50 = statistics.median(times[name])
        row(f"  {name}", times[name], "ms", f"{p50 / host:.2f} x from the host, {p50 / inside:.2f} x inside",
            "<= 2.5 x", p50 <= 2.5 * host)


def idle(guest, row, say):
    count, hard = 10000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    before, available = doors.resident(guest.worker), guest.available()
    say(f"doors, {count} idle connections")
    socks = [doors.connect(guest.echo) for _ in range(count)]
    for sock in socks:
        sock.sendall(b"x")
    if sum(sock.recv(1) == b"x" for sock in socks) != count:
        raise RuntimeError("not all connections work")
    grown = (doors.resident(guest.worker) - before) / (1 << 20)
    row(f"{count} idle connections, the worker", [grown], "MiB", "", "<= 100 MiB", grown <= 100)
    row("  the guest", [available - guest.available()], "MiB")
    for sock in socks:
        sock.close()


def run(home, folder, row, say):
    for cpus in (1, 2):
        say(f"load average {os.getloadavg()[0]:.1f} before")
        guest = Guest(home, folder, cpus)
        throughput(guest, cpus, row, say)
        latency(guest, cpus, row, say)
        if cpus == 1:
            idle(guest, row, say)
        guest.vm.end()
