#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A worker that nobody waits for: logs, terminal, stdin that comes later, pauses, balloon and counters, with real boots.

As in vmm_test.py the supervisor is started by hand, so that what is tested is husk-vmm.
"""
# timeout: 240
import errno
import fcntl
import os
import re
import select
import socket
import struct
import threading
import time
import tty

import lib
from lib import ok
from vmm_bench import bench_of
from vmm_launch import CMDLINE_DEFAULT, MESSAGE, STARTED, u32, u64

SERVICE, STATS, SERIAL, SERIAL_OUT, SERIAL_IN = 26, 25, 31, 32, 33
LOG_SIZE, CONSOLE_LOG, WORKLOAD_LOG, CONSOLE_LOG_2, WORKLOAD_LOG_2, OPEN_STDIN, BALLOON = 50, 51, 52, 43, 44, 53, 55
PTY, PTY_PATH = 58, 59
PAUSE, RESUME, SET_BALLOON, SAMPLE, ATTACH = 23, 24, 25, 26, 27
STDOUT, STDERR, CONSOLE, GAP, BOOT = 1, 2, 3, 4, 5
MEMORY = 256
WAIT_S = 60 if lib.SLOW else 20


def records(paths):
    """All records of a log: (stream, bytes)."""
    files = [open(path, "rb").read() for path in paths]
    found = []
    for data in sorted((f for f in files if f[:4] == b"HKLG"), key=lambda f: struct.unpack_from("<Q", f, 8)):
        at = 24
        while at + 16 <= len(data):
            size, stream = struct.unpack_from("<IB", data, at)
            if at + 16 + size > len(data):
                break
            found.append((stream, data[at + 16:at + 16 + size]))
            at += 16 + size
    return found


def until(what, seconds=WAIT_S):
    """Wait for what() to be true: nobody tells of a file that has grown but a look at it."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


class Live:
    """A detached VM with all that a live one has. @files: a directory, whose logs are gone on with."""

    def __init__(self, home, files, *argv, **options):
        os.makedirs(files, exist_ok=True)
        self.console, self.workload = ([f"{files}/{name}-{i}" for i in (1, 2)] for name in ("console", "workload"))
        self.stats_path, self.socket_path = files + "/stats", files + "/supervisor.sock"
        with open(self.stats_path, "wb") as f:
            f.truncate(1 << 19)
        if os.path.exists(self.socket_path):
            os.unlink(self.socket_path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(self.socket_path)
        listener.listen(8)
        master, self.terminal = os.openpty()
        tty.setraw(self.terminal)
        os.set_blocking(master, False)
        opened = [os.open(path, os.O_RDWR | os.O_CREAT, 0o600) for path in
                  (*self.console, *self.workload, self.stats_path)]
        tags = (CONSOLE_LOG, CONSOLE_LOG_2, WORKLOAD_LOG, WORKLOAD_LOG_2, STATS)
        fds = [*zip(tags, opened), (SERVICE, listener.fileno()), (SERIAL_OUT, master), (SERIAL_IN, master),
               (PTY, self.terminal)]
        more = [(LOG_SIZE, u64(1 << 20)), (SERIAL, u32(3)), (PTY_PATH, os.ttyname(self.terminal).encode()),
                *options.pop("more", ())]
        self.vm = bench_of(home).vm(*argv, detached=True, memory=MEMORY, more=more, more_fds=fds, **options)
        for fd in (*opened, master):
            os.close(fd)
        listener.close()
        self.seen = bytearray()
        self.reader = threading.Thread(target=self.read_terminal, daemon=True)
        self.reader.start()

    def read_terminal(self):
        try:
            while data := os.read(self.terminal, 4096):
                self.seen += data
        except OSError:  # the master has gone
            pass

    def ask(self, kind, value=0, number=0, fd=None):
        """The answer's errno, 0 for none, and its text."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.connect(self.socket_path)
            s.settimeout(WAIT_S)
            data = MESSAGE.pack(kind, 0, value, 0, 0, 0, 0, number, b"")
            if fd is None:
                s.send(data)
            else:
                socket.send_fds(s, [data], [fd])
            fields = MESSAGE.unpack(s.recv(4096))
            return fields[2], fields[8].split(b"\0")[0].decode()

    def attach(self, to_end, text=b""):
        """(errno, writing end) of a pipe with @text in it that was attached."""
        r, w = os.pipe()
        os.write(w, text)
        code, _ = self.ask(ATTACH, int(to_end), fd=r)
        os.close(r)
        return code, w

    def attach_next(self, to_end, text=b""):
        """The same behind one that was closed, whose end may not have been read yet."""
        end = time.monotonic() + WAIT_S
        while True:
            code, w = self.attach(to_end, text)
            if code != errno.EBUSY or time.monotonic() > end:
                return code, w
            os.close(w)

    def stats(self):
        """The counters, freshly sampled."""
        code, text = self.ask(SAMPLE)
        assert code == 0, text
        with open(self.stats_path, "rb") as f:
            fields = struct.unpack("=IIQ5Q7Q2QQ", f.read(136))
        names = ("magic size sampled limit used given_back target actual reads writes flushes discards read_bytes write_bytes "
                 "errors in_bytes out_bytes exits").split()
        return dict(zip(names, fields))

    def said(self, stream=STDOUT):
        return b"".join(data for which, data in records(self.workload) if which == stream)


def cpu(pid):
    """Ticks that a process has used."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def check_input_and_pause(live):
    """Stdin from one pipe after another, the second over a pause."""
    code, second = live.attach_next(False, b"two\n")
    ok(code == 0 and until(lambda: b"got two\n" in live.said()), "stdin is attached to a workload that runs", live.said())
    ok(live.attach(True)[0] == errno.EBUSY, "and not twice at a time")
    ok(live.ask(RESUME)[0] == errno.EALREADY, "what runs cannot be resumed")
    ok(live.ask(PAUSE)[0] == 0 and live.vm.state()["state"].startswith("paused"), "it is paused", live.vm.state())
    ok(live.ask(PAUSE)[0] == errno.EALREADY, "once")
    os.write(second, b"three\n")
    runner = live.vm.pids()["machine" if lib.MACHINE == "qemu" else "worker"]
    before = cpu(runner)
    time.sleep(1)  # nothing happens, and nobody tells of that
    ok(cpu(runner) - before <= 5 and b"three" not in live.said(), "no vCPU runs meanwhile", cpu(runner) - before)
    ok(live.ask(SAMPLE)[0] == 0, "its counters can be had all the same")
    ok(live.ask(RESUME)[0] == 0 and until(lambda: b"got three\n" in live.said()), "resumed, it reads what came meanwhile",
       live.said())
    os.close(second)


def check_counters(live):
    s = live.stats()
    mib = MEMORY << 20
    ok(s["limit"] == mib and 16 << 20 < s["used"] <= mib, "the memory that it has and uses is known", s)
    ok(s["reads"] > 10 and s["read_bytes"] > 1 << 20 and s["errors"] == 0 and s["writes"] > 0, "and what its disks did", s)
    ok(s["in_bytes"] > 100 and s["out_bytes"] > 100, "and what its streams carried", s)
    ok((s["exits"] > 100) == (lib.MACHINE == "kvm"), "and how often it came out of the guest, on kvm", s)
    return s


def check_balloon(live, before):
    wanted = 64 << 20
    ok(live.ask(SET_BALLOON, number=MEMORY << 20)[0] == errno.ERANGE, "a guest cannot give back all it has")
    ok(live.ask(SET_BALLOON, number=wanted)[0] == 0, "it is asked to give memory back")
    ok(until(lambda: live.stats()["actual"] == wanted), "and does", live.stats())
    after = live.stats()
    ok(after["target"] == wanted and after["given_back"] >= wanted, "which is counted", after)
    ok(after["used"] <= (MEMORY << 20) - wanted + (4 << 20), "and the host has it", (before["used"], after["used"]))
    ok(live.ask(SET_BALLOON, number=0)[0] == 0 and until(lambda: live.stats()["actual"] == 0), "and gives it again",
       live.stats())


def test_live(home):
    files = str(home.path / "live")
    script = "echo out; echo err >&2; while read x; do echo got $x; done; echo end; exit 3"
    live = Live(home, files, "sh", "-c", script, flags=1 | 4, more=[(OPEN_STDIN, u32(1))])
    code, first = live.attach(False, b"one\n")
    live.vm.wait_for(STARTED, 90)
    ok(code == 0, "stdin is attached before the guest is there")
    ok(until(lambda: live.said() == b"out\ngot one\n" and live.said(STDERR) == b"err\n"),
       "and read when it is; output is in the log, by its stream", records(live.workload))
    ok(records(live.workload)[0] == (BOOT, b""), "behind the start")
    os.close(first)
    check_input_and_pause(live)
    check_balloon(live, check_counters(live))
    code, last = live.attach_next(True, b"four\n")
    os.close(last)
    outcome = live.vm.end()
    ok(code == 0 and outcome and (outcome.end, outcome.value) == (1, 3), "the end of stdin ends it", outcome)
    ok(live.said() == b"out\n%send\n" % b"".join(b"got %s\n" % word for word in (b"one", b"two", b"three", b"four")),
       "all it said is in the log", live.said())
    live.reader.join(5)
    console = b"".join(data for stream, data in records(live.console) if stream == CONSOLE)
    ok(len(console) > 20 and records(live.console)[0] == (BOOT, b""), "the console has a log as well", console[:200])
    ok(live.seen and live.seen in console, "and what the terminal took is a part of it", (live.seen[-200:], console[-200:]))


def test_time_stands_still(home):
    """The second start in the same logs, with a timeout that a pause is no part of."""
    files = str(home.path / "live")
    before = len(records([f"{files}/workload-{i}" for i in (1, 2)]))
    live = Live(home, files, "sh", "-c", "echo again; sleep 1000", timeout_ms=2500, more=[(BALLOON, u64(32 << 20))])
    live.vm.wait_for(STARTED, 90)
    begun = time.monotonic()
    ok(live.ask(PAUSE)[0] == 0, "a workload that has little time is paused")
    ready, _, _ = select.select([live.vm.caller], [], [], 4)
    ok(not ready, "and its time stands still", ready and live.vm.message())
    ok(live.ask(ATTACH, fd=0)[0] == errno.ENOTSUP, "stdin that was not to be attached cannot be")
    ok(live.ask(RESUME)[0] == 0, "it goes on")
    outcome = live.vm.end()
    took = time.monotonic() - begun
    ok(outcome and outcome.end == 3 and took >= 4 + 2.4, "until it is over", (outcome, took))
    found = records(live.workload)
    ok(found[before] == (BOOT, b"") and (STDOUT, b"again\n") in found[before:], "a second start goes on in the same log",
       found[before:])
    with open(live.stats_path, "rb") as f:
        f.seek(40)
        ok(struct.unpack("=Q", f.read(8))[0] == 32 << 20, "and began with the balloon it was given")
    ok(not re.search("refused|not set", live.vm.log()), "without a complaint", live.vm.log())


def test_early_console(home):
    """On kvm a vCPU's thread writes what the kernel says first, also to one who does not take it, or has gone."""
    if lib.MACHINE != "kvm":
        return  # QEMU's console is another process's; the lab runs this
    words = {}
    for gone in (False, True):
        r, w = os.pipe()
        fcntl.fcntl(w, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(w, False)
        if gone:
            os.close(r)
        vm = bench_of(home).vm("true", cmdline=CMDLINE_DEFAULT.replace("quiet", "loglevel=8"), memory=MEMORY,
                               more=[(SERIAL, u32(1))], more_fds=[(SERIAL_OUT, w)])
        os.close(w)
        vm.wait_for(STARTED, 90)
        heard = b""
        while not gone and (data := os.read(r, 65536)):
            heard += data
        outcome = vm.end()
        words[gone] = vm.log()
        ok(outcome and (outcome.end, outcome.value) == (1, 0), "the guest runs to its end" +
           (" without a reader" if gone else " with a slow one"), outcome)
        if not gone:
            os.close(r)
            ok(len(heard) > 8192 and b"Linux version" in heard, "who gets all it said", len(heard))
    ok("Linux version" in words[True] and "Linux version" in words[False], "and the log has it")


lib.main(globals())
