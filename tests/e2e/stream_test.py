#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 480
"""stream_test.py - stdin, stdout and stderr: separate, whole, binary, ending when the workload's do; with pipes, files and
a terminal."""
import errno
import fcntl
import hashlib
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import threading
import time

import images
import lib
from lib import equal, ok

BIG = 64 << 20


def pattern(n):
    """@n bytes with every value in them, that do not repeat with a power of two."""
    unit = bytes(range(256)) * 251 + b"husk"
    return (unit * (n // len(unit) + 1))[:n]


def test_separate(home):
    image = home.have(images.busybox(), "busybox")
    done = home.run(image, "sh", "-c", r"printf 'a\0b\xff\n'; printf 'e\0\xfe\r\n' >&2; exec 2>&-; printf 'more'")
    equal((done.status, done.out, done.err), (0, b"a\0b\xff\nmore", b"e\0\xfe\r\n"),
          "stdout and stderr are told apart, byte for byte", done)


def test_big_both_ways(home):
    """64 MiB in, digest inside, and back out again through stdout, while stderr talks, too."""
    image = home.have(images.busybox(), "busybox")
    data = pattern(BIG)
    done = home.run("-i", image, "sh", "-c", "echo begin >&2; tee /dev/stderr | cat; echo end >&2", input=b"short\n")
    equal((done.out, done.err), (b"short\n", b"begin\nshort\nend\n"), "/dev/stderr can be opened", done)
    done = home.run("-i", image, "sh", "-c", "tee /tmp/copy | sha256sum >&2; cat /tmp/copy", input=data, limit=150)
    equal(done.status, 0, "64 MiB go in and come out", done.error)
    digest = hashlib.sha256(data).hexdigest()
    ok(digest in done.error, "stdin arrives whole", done.error)
    equal(hashlib.sha256(done.out).hexdigest(), digest, f"stdout comes back whole ({len(done.out)} bytes)")


def test_files(home):
    """Redirected to files; the descriptor stays the caller's, its offset counts."""
    image = home.have(images.busybox(), "busybox")
    source, target = home.path / "in", home.path / "out"
    source.write_bytes(b"skipped" + pattern(1 << 20))
    target.write_bytes(b"kept\n")
    with open(source, "rb") as stdin, open(target, "ab") as stdout:
        stdin.seek(7)
        running = home.start("run", "--quiet", "-i", image, "cat", stdin=stdin, stdout=stdout)
        done = running.finish()
    equal(done.status, 0, "stdin and stdout may be files", done)
    ok(target.read_bytes() == b"kept\n" + pattern(1 << 20), "an offset and O_APPEND are honoured")


def test_ends(home):
    """A reader that goes away, a stdin that stays open, a stdin that ends first."""
    image = home.have(images.busybox(), "busybox")
    running = home.start("run", "--quiet", "-i", image, "sh", "-c", "echo one; read x; echo got $x; exit 3",
                         stdin=subprocess.PIPE)
    running.wait_for(b"one\n")
    running.stdin.write(b"line\n")
    running.stdin.flush()
    done = running.finish()
    equal((done.status, done.out), (3, b"one\ngot line\n"), "the run ends with its command although stdin stays open", done)

    running = home.start("run", "--quiet", image, "sh", "-c", "trap '' PIPE; echo first; while echo x; do :; done; exit 9")
    running.wait_for(b"first\n")
    running.process.stdout.close()
    running.process.stdout = None
    done = running.finish()
    equal(done.status, 9, "a closed stdout reaches the workload as a write error", done)

    done = home.run("-i", image, "sh", "-c", "cat; echo after end of file", input=b"")
    equal(done.out, b"after end of file\n", "an empty stdin is an end of file", done)
    lib.none_left()


class Terminal:
    """husk on a pseudo-terminal of ours."""

    def __init__(self, home, *arguments, rows=31, columns=97):
        self.master, slave = pty.openpty()
        self.resize(rows, columns, None)
        self.saved = termios.tcgetattr(slave)
        self.slave = slave
        self.process = subprocess.Popen([lib.HUSK, *arguments], env={**home.environment(), "TERM": "xterm-test"},
                                        stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        self.seen = b""

    def resize(self, rows, columns, process):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read_until(self, wanted, seconds=lib.LIMIT):
        deadline = time.monotonic() + seconds
        while not re.search(wanted, self.seen):
            ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
            try:
                chunk = os.read(self.master, 65536) if ready else b""
            except OSError as e:
                if e.errno != errno.EIO:
                    raise
                chunk = b""
            if not chunk:
                raise AssertionError(f"{wanted!r} did not come: {self.seen!r}")
            self.seen += chunk
        found = re.search(wanted, self.seen)
        self.seen = self.seen[found.end():]
        return found

    def write(self, data):
        os.write(self.master, data)

    def finish(self):
        drain = threading.Thread(target=self.drain, daemon=True)
        drain.start()
        try:
            return self.process.wait(lib.LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None
        finally:
            self.after = termios.tcgetattr(self.slave)
            os.close(self.slave)

    def drain(self):
        try:
            while chunk := os.read(self.master, 65536):
                self.seen += chunk
        except OSError:
            pass


def test_terminal(home):
    image = home.have(images.busybox(), "busybox")
    term = Terminal(home, "run", "--quiet", "-it", image, "sh", "-c",
                    "stty size; tty; echo TERM=$TERM; trap 'stty size' WINCH; trap 'echo interrupted' INT; "
                    "echo ready; while :; do read line || continue; echo \"<$line>\"; [ \"$line\" = done ] && exit 6; done")
    ok(term.read_until(rb"31 97\r\n"), "-t: the terminal has the caller's size")
    ok(term.read_until(rb"/dev/(pts/\d+|console)\r\n"), "tty names it")
    ok(term.read_until(rb"TERM=(\S+)\r\n"), "TERM is set")
    term.read_until(rb"ready\r\n")
    term.write(b"one\n")
    ok(term.read_until(rb"one\r\n<one>\r\n"), "a line is echoed by the guest's terminal, once, and read")
    term.resize(40, 120, None)
    ok(term.read_until(rb"40 120\r\n"), "a resize arrives")
    term.write(b"\x03")
    ok(term.read_until(rb"interrupted\r\n"), "Ctrl-C goes to the guest's terminal")
    ok(term.process.poll() is None, "and not to husk")
    term.write(b"done\n")
    equal(term.finish(), 6, "the exit status")
    equal(term.after[:4], term.saved[:4], "the caller's terminal is as it was")

    term = Terminal(home, "run", "--quiet", "-t", image, "sh", "-c", "test -t 0 && test -t 1 && test -t 2 && echo all three; "
                    "exit 4")
    ok(term.read_until(rb"all three\r+\n"), "stdin, stdout and stderr are a terminal")
    equal(term.finish(), 4, "-t without -i")
    lib.none_left()


def test_terminal_killed(home):
    """husk dies of SIGTERM on a terminal: the terminal is whole again."""
    image = home.have(images.busybox(), "busybox")
    term = Terminal(home, "run", "--quiet", "-it", image, "sh", "-c", "trap 'echo term; exit 8' TERM; echo ready; "
                    "while :; do read x; done")
    term.read_until(rb"ready\r\n")
    term.process.send_signal(signal.SIGTERM)
    term.write(b"\n")
    equal(term.finish(), 8, "SIGTERM is forwarded from a terminal run, too")
    equal(term.after[:4], term.saved[:4], "and the terminal is as it was")
    lib.none_left()


lib.main(globals())
