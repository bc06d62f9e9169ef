#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""lab.py - run things where /dev/kvm really runs guests: in a lab (machine.py), on any machine.

Cases (case.py) run one after the other in one lab; each is one TAP result with its duration, its own checks indented below
it, and has a time limit. Where this machine's KVM runs guests itself, cases run on it directly, without a lab.
"""
import argparse
import contextlib
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import case
import lib
import machine

HELP = """
A command in a lab, live:

    tests/lab/lab.py shell -- build/cli/husk doctor
    tests/lab/lab.py shell -- sh -c 'build/cli/husk run busybox echo hello; dmesg | tail'
    tests/lab/lab.py shell --smp 1 --console -- strace -f build/cli/husk run --machine kvm busybox true

boots a lab (seconds) and runs one command in a copy of the checkout (build tree, tests, scripts, bench) as it is now; stdin,
stdout, stderr and the exit status are the command's. HUSK_HOME is ready, with guest kernels and the image `busybox`. What
the command leaves in files is gone with the lab. --console shows the lab kernel's console at the end.

Cases:

    tests/lab/lab.py list
    tests/lab/lab.py run auto doors         # by name, in one lab
    tests/lab/lab.py run                    # those of every day
    tests/lab/lab.py run --full             # all
"""
ENVIRONMENT = {"HUSK_TEST_MACHINE": "kvm", "PYTHONUNBUFFERED": "1"}


def writer(fd):
    def write(data):
        while data:
            data = data[os.write(fd, data):]
    return write


def shell(args):
    with lab_of(args) as lab:
        machine.say(f"disk made in {lab.staged:.1f} s, up after {lab.booted:.1f} s")
        status = lab.run(args.command, args.timeout, writer(1), writer(2), 0, {"HUSK_HOME": "/lab/home"})
        if status is None:
            machine.say(f"ended after {args.timeout} s")
            status = 124
        if args.console:
            machine.say("console:\n" + lab.console(1000))
        return status


def lab_of(args):
    kind = "bench" if args.bench else "everyday"
    return machine.Lab(kind, args.smp, args.memory, args.icount, args.build)


# ---- cases ----

class Here:
    """This machine instead of a lab: its KVM runs guests on the CPU."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def console(self, _=0):
        return ""

    def cpu_seconds(self):
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    def run(self, argv, seconds=None, out=None, err=None, env=None, cwd="."):
        process = subprocess.Popen(argv, cwd=lib.TOP / cwd, env={**os.environ, **env}, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            said, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            said, _ = process.communicate()
            process.returncode = None
        out(said)
        return process.returncode


def hardware_here():
    """Does this machine's KVM run guests on the CPU? As husk itself finds."""
    found = subprocess.run([lib.HUSK, "doctor"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    return re.search(rb"^ok +kvm ", found.stdout, re.M) is not None


def verdict(status, said):
    """Why a case failed, or ''."""
    if status is None:
        return "still running at its time limit"
    if bad := re.findall(r"^not ok \d+ - (.*)$", said, re.M):
        return f"{len(bad)} checks failed: {bad[0]}"
    if not re.search(r"^1\.\.\d+", said, re.M):
        return f"ended before its plan was kept (exit status {status})"
    return f"exit status {status}" if status not in (0, 77) else ""


class Hung(machine.Broken):
    """The emulated host stands still, as two levels of emulation may (hold_a_vm() of inside.py tells of one cause)."""


def run_case(lab, number, chosen, patience, repeated):
    """Run one case and report it; True when it passed. A host that hangs under a case is Hung once, and a failure when it does
    so under the repeated case as well."""
    collected = bytearray()
    begun, used, broken = time.monotonic(), lab.cpu_seconds(), ""
    try:
        status = lab.run(chosen.argv, chosen.seconds * patience, collected.extend, collected.extend, env=ENVIRONMENT,
                         cwd=chosen.cwd)
    except machine.Broken as error:
        status, broken = 125, str(error)
    said = collected.decode(errors="replace")
    if "does not answer" in broken and not repeated and not re.search(r"^not ok ", said, re.M):
        print(f"# lab: the emulated host hung under {chosen.name}, which is repeated in a fresh one")
        for line in broken.splitlines()[:1 + lab.smp]:
            print(f"# lab: {line}", flush=True)
        raise Hung(broken)
    why = broken.splitlines()[0] if broken else verdict(status, said)
    for line in said.splitlines():
        line = line[:400]
        print(f"    {line}" if re.match(r"(not )?ok |1\.\.", line) else f"    # {line.lstrip('# ')}")
    for line in broken.splitlines() + (lab.console(15).splitlines() if why and not broken and lab.console() else []):
        print(f"    # console: {line}")
    took = f"{time.monotonic() - begun:.1f} s" + ("" if broken else f", {lab.cpu_seconds() - used:.1f} s of CPU")
    print(f"{'not ok' if why else 'ok'} {number} - {chosen.name} ({took}){': ' + why if why else ''}", flush=True)
    if broken:
        raise machine.Broken(why)
    return not why


def choose(args):
    table = case.load()
    unknown = set(args.cases) - set(table)
    if unknown:
        sys.exit(f"lab.py: there is no case {', '.join(sorted(unknown))}; `lab.py list` shows them")
    if args.cases:
        return [table[name] for name in args.cases]
    return [one for one in table.values() if one.everyday or args.full]


def run(args):
    chosen = choose(args)
    deadline = None  # from when the lab is up
    failed = number = 0
    repeated = set()
    print(f"1..{len(chosen)}", flush=True)
    while number < len(chosen):
        # A lab that died under a case is replaced for the rest.
        try:
            with Here() if hardware_here() and not args.lab else lab_of(args) as lab:
                if not isinstance(lab, Here):
                    print(f"# lab: disk made in {lab.staged:.1f} s, up after {lab.booted:.1f} s", flush=True)
                deadline = deadline or time.monotonic() + args.limit
                while number < len(chosen):
                    number += 1
                    if time.monotonic() > deadline:
                        print(f"not ok {number} - {chosen[number - 1].name}: not begun, the lab's {args.limit:.0f} s are over")
                        failed += 1
                    elif not run_case(lab, number, chosen[number - 1], args.patience, number in repeated):
                        failed += 1
        except Hung:
            repeated.add(number)
            number -= 1
        except machine.Broken as broken:
            failed += 1
            if not number:
                print(f"Bail out! {broken}")
                return 1
    return 1 if failed else 0


def show(args):
    for one in case.load().values():
        print(f"{one.name:<24} {'everyday' if one.everyday else 'full':<9} at most {one.seconds} s")
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, epilog=HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--smp", type=int, default=4, help="CPUs of the lab (4)")
    common.add_argument("--memory", type=int, default=6144, help="MiB of the lab (6144)")
    common.add_argument("--icount", action="store_true", help="guest time follows instructions; for measuring, with --smp 1")
    common.add_argument("--bench", action="store_true", help="the lab that has QEMU in it, to compare with")
    common.add_argument("--build", help="build tree to bring in (build)")
    one = verbs.add_parser("shell", parents=[common], help="run one command in a fresh lab", epilog=HELP,
                           formatter_class=argparse.RawDescriptionHelpFormatter)
    one.add_argument("--timeout", type=float, help="seconds the command may take")
    one.add_argument("--console", action="store_true", help="show the lab's console at the end")
    one.add_argument("command", nargs="+")
    many = verbs.add_parser("run", parents=[common], help="run cases in one lab")
    many.add_argument("--full", action="store_true", help="all cases, not only those of every day")
    many.add_argument("--lab", action="store_true", help="in a lab also where this machine's own KVM would do")
    many.add_argument("--limit", type=float, default=3600 * 3, help="seconds after which no further case is begun")
    many.add_argument("--patience", type=float, default=1, help="factor on the cases' time limits, for a busy machine")
    many.add_argument("cases", nargs="*")
    verbs.add_parser("list", help="name the cases")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return {"shell": shell, "run": run, "list": show}[args.verb](args)
    except machine.Broken as broken:
        machine.say(broken)
        return 125


if __name__ == "__main__":
    sys.exit(main())
