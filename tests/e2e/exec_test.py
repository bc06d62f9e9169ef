#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
"""exec_test.py - husk exec in one VM: what is asked for, its streams, its end, and a hundred at once."""
import os
import pty
import select
import signal
import subprocess

import images
import lib
from lib import equal, ok


def test_exec(home):
    image = home.have(images.busybox(), "busybox")
    vm = home.start("run", "--quiet", "--name", "v", "-e", "BASE=1", "-w", "/tmp", image, "sh", "-c",
                    "echo ready; while :; do sleep 1; done")
    vm.wait_for(b"ready")

    def run(*arguments, **keywords):
        return home.husk("exec", *arguments, **keywords)

    done = run("v", "sh", "-c", "echo out; echo err >&2; echo $BASE $HOME; pwd; id -u; exit 7")
    equal((done.status, done.out, done.err), (7, b"out\n1 /root\n/tmp\n0\n", b"err\n"),
          "streams, status, and the workload's environment, directory and user", done)
    done = run("-u", "1000:1001", "--group-add", "7", "-e", "A=b c", "-e", "BASE=2", "-w", "/", "v", "sh", "-c",
               "id -u; id -G; echo \"$A $BASE\"; pwd")
    equal(done.out, b"1000\n1001 7\nb c 2\n/\n", "user, groups, environment and directory as asked for", done)
    done = run("-i", "v", "sha256sum", input=bytes(range(256)) * 4096)
    ok(done.status == 0 and len(done.out) > 64, "stdin goes in", done)
    done = run("v", "cat")
    equal((done.status, done.out), (0, b""), "without -i stdin is empty", done)
    equal(run("v", "nosuch").status, 127, "a command that is not there: 127")
    equal(run("v", "/tmp").status, 126, "one that cannot be executed: 126")
    equal(run("-w", "/nonexistent", "v", "true").status, 125, "a directory that is not there: 125")
    equal(run("nosuchvm", "true").status, 125, "a VM that is not there: 125")
    equal(run("v", "sh", "-c", "kill -9 $$").status, 137, "a signal: 128 + n")
    done = run("--timeout", "500ms", "v", "sh", "-c", "sleep 1000 & sleep 1000")
    equal(done.status, 124, "a time that is over: 124", done)
    ok(run("v", "sh", "-c", "ps | grep 'sleep 100[0]'").status == 1, "and the whole process group is gone")
    long = "x" * 131071
    equal(run("v", "sh", "-c", "echo ${#0}", long).out, b"131071\n", "an argument of 131071 bytes arrives whole")
    # The host's own kernel has the same limit, so the library is asked for one byte more: tests/unit/exec-client-test.c
    staged = home.path / "staged"
    staged.write_bytes(b"staged\0\xff")
    staged.chmod(0o750)
    done = run("--file", f"{staged}:/tmp/in", "--file", f"{staged}:rel", "v", "sh", "-c", "cat in rel; stat -c %a in")
    equal(done.out, b"staged\0\xffstaged\0\xff750\n", "files are written before, with their mode", done)
    equal(run("--file", f"{staged}:/no/where", "v", "true").status, 125, "a file that cannot be written: 125")
    equal(run("-d", "v", "sh", "-c", "echo $PPID; sleep 1; echo here > /tmp/alone").status, 0, "a detached command starts")
    done = run("v", "sh", "-c", "while ! [ -s /tmp/alone ]; do sleep 0.1; done; cat /tmp/alone")
    equal(done.out, b"here\n", "and lives on")
    running = home.start("exec", "v", "sh", "-c", "trap 'echo got; exit 3' TERM; echo up; while :; do sleep 0.1; done")
    running.wait_for(b"up")
    running.process.send_signal(signal.SIGTERM)
    done = running.finish()
    equal((done.status, done.out), (3, b"up\ngot\n"), "signals are passed on", done)
    big = home.start("exec", "v", "sh", "-c", "dd if=/dev/zero bs=65536 count=1024 2>/dev/null", stdout=subprocess.PIPE)
    total = 0
    while chunk := os.read(big.process.stdout.fileno(), 1 << 20):
        total += len(chunk)
    equal((total, big.process.wait()), (64 << 20, 0), "64 MiB come through stdout")
    many = [home.start("exec", "v", "sh", "-c", f"echo {i}; exit {i}") for i in range(30)]
    results = [one.finish() for one in many]
    ok(all(r.status == i and r.out == b"%d\n" % i for i, r in enumerate(results)), "thirty at once",
       "\n".join(str(r) for i, r in enumerate(results) if r.status != i)[:2000])
    terminal(home)
    events = home.husk("events", "--since", "1h", "--until", "0s").text
    ok('"event":"exec"' in events and '"command":"sh"' in events, "execs are events", events[-500:])
    files_example(home)
    vm.process.send_signal(signal.SIGKILL)
    vm.finish()


def files_example(home):
    """The library's own words for it."""
    libexec = os.environ.get("HUSK_LIBEXEC") or str(lib.TOP / "build" / "libexec")
    environment = {**home.environment(), "HUSK_LIBEXEC": libexec}
    directory = lib.TOP / "build" / "examples"
    done = subprocess.run([directory / "files", "v", "/tmp/greeting", home.path], env=environment, capture_output=True,
                          timeout=lib.LIMIT)
    equal((done.returncode, done.stdout, (home.path / "greeting").read_bytes()), (0, b"hello\n", b"hello\n"),
          "examples/files writes, reads and copies", done)


def until(fd, text):
    seen = b""
    while text not in seen:
        ready, _, _ = select.select([fd], [], [], lib.LIMIT)
        if not ready:
            raise AssertionError(f"{text!r} did not come: {seen!r}")
        seen += os.read(fd, 4096)
    return seen


def terminal(home):
    """A terminal session: size, keys, and leaving it."""
    master, slave = pty.openpty()
    subprocess.run(["stty", "rows", "33", "cols", "99"], stdin=slave, check=True)
    session = subprocess.Popen([lib.HUSK, "exec", "-it", "v", "sh", "-c",
                                "stty size; read x; echo got-$x; (sleep 1; echo on > /tmp/left); sleep 1000"],
                               env=home.environment(), stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    ok(b"33 99" in until(master, b"33 99"), "the terminal has our size")
    os.write(master, b"line\r")
    until(master, b"got-line")
    os.write(master, b"\x10\x11")
    until(master, b"left by the detach keys")
    equal(session.wait(lib.LIMIT), 0, "the detach keys leave the session")
    os.close(master)
    done = home.husk("exec", "v", "sh", "-c", "while ! [ -s /tmp/left ]; do sleep 0.1; done; ps | grep -c 'sleep 100[0]'")
    equal(done.out, b"1\n", "and the command runs on", done)


lib.main(globals())
