# SPDX-License-Identifier: Apache-2.0
"""sandbox_bench.py - function sandboxes against bare KVM (bench-sandbox): here where /dev/kvm opens, and else in a lab whose time
follows instructions (tests/lab), where one run is like the next."""
import os
import pathlib
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent


def measure(build):
    """{name: (p50, p99, n)}, times in microseconds, and where."""
    words = ["bench/bench-sandbox", "--raw", "tests/sandbox/guests/basic.elf"]
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        where, command = "here", [words[0], words[1], words[2], "2000"]
        said = subprocess.run([f"{build}/{command[0]}", command[1], f"{build}/{command[2]}", command[3]], check=True,
                              stdout=subprocess.PIPE, text=True).stdout
    else:
        where = "lab, by instructions"
        lab = [sys.executable, str(TOP / "tests/lab/lab.py"), "shell", "--icount", "--smp", "1", "--build", str(build), "--"]
        said = subprocess.run([*lab, f"build/{words[0]}", words[1], f"build/{words[2]}", "200"], check=True,
                              stdout=subprocess.PIPE, text=True).stdout
    found = {}
    for line in said.splitlines():
        name, p50, p99, n = line.split()
        found[name] = float(p50), float(p99), int(n)
    return found, where


def run(rows, say, build):
    say("function sandboxes")
    found, where = measure(build)

    def row(name, what, unit, against, wanted, met):
        p50, p99, n = found[what]
        rows.append((f"{name} ({where})", f"{p50:.2f} {unit}", f"{p99:.2f} {unit}", str(n), against, wanted, "yes" if met else "NO"))

    def times(what, bare):
        return found[what][0] / found[bare][0]

    exits, instructions = found["exits-of-an-empty-call"][0], found["instructions-of-an-empty-call"][0]
    row("sandbox: call of an empty function", "call-nothing", "us", f"{times('call-nothing', 'bare-exit'):.2f} x a bare exit",
        "<= 2 x", times("call-nothing", "bare-exit") <= 2)
    row("sandbox: exits of it", "exits-of-an-empty-call", "", "", "1", exits == 1)
    row("sandbox: guest instructions of it", "instructions-of-an-empty-call", "", "", "<= 200", instructions <= 200)
    row("sandbox: from image to ready", "create-to-ready", "us", f"{times('create-to-ready', 'bare-set-up'):.2f} x a bare set-up",
        "<= 3 x", times("create-to-ready", "bare-set-up") <= 3)
    own = found["restore-10-pages"][0] - found["restore-kernel-part"][0]
    row("sandbox: restore after 10 pages", "restore-10-pages", "us", f"{own:.1f} us more than its ioctls", "<= 100 us more", own <= 100)
    for name, what in (("private memory", "thousand-private-kib-each"), ("with the kernel's", "thousand-with-kernel-kib-each")):
        row(f"sandbox: {name}, of 1,000", what, "KiB", "", "< 1024", found[what][0] < 1024)
