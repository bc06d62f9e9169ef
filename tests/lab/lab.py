#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""lab.py - run things where /dev/kvm really runs guests: in a lab (machine.py), on any machine."""
import argparse
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import machine

HELP = """
tests/lab/lab.py shell -- build/cli/husk doctor
tests/lab/lab.py shell --smp 1 -- sh -c 'build/tests/unit/kvm-test; dmesg | tail'
    boots a lab (seconds) and runs one command in it, in a copy of the checkout with the build tree as it is now
    (build/, or what --build says); stdin, stdout, stderr and the exit status are the command's. HUSK_HOME is ready:
    the guest kernels are in it. What the command leaves in files is gone with the lab.
"""


def writer(fd):
    def write(data):
        while data:
            data = data[os.write(fd, data):]
    return write


def shell(args):
    with lab_of(args) as lab:
        machine.say(f"disk made in {lab.staged:.1f} s, up after {lab.booted:.1f} s")
        status = lab.run(args.command, args.timeout, writer(1), writer(2), 0, {"HUSK_HOME": "/lab/cache/husk-test/kernel"})
        if status is None:
            machine.say(f"ended after {args.timeout} s")
            status = 124
        if args.console:
            machine.say("console:\n" + lab.console(1000))
        return status


def lab_of(args):
    kind = "bench" if args.bench else "everyday"
    return machine.Lab(kind, args.smp, args.memory, args.icount, args.build)


def main():
    parser = argparse.ArgumentParser(description=__doc__, epilog=HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--smp", type=int, default=2, help="CPUs of the lab (2)")
    common.add_argument("--memory", type=int, default=3072, help="MiB of the lab (3072)")
    common.add_argument("--icount", action="store_true", help="guest time follows instructions; for measuring")
    common.add_argument("--bench", action="store_true", help="the lab that has QEMU in it, to compare with")
    common.add_argument("--build", help="build tree to bring in (build)")
    one = verbs.add_parser("shell", parents=[common], help="run one command in a fresh lab", epilog=HELP,
                           formatter_class=argparse.RawDescriptionHelpFormatter)
    one.add_argument("--timeout", type=float, help="seconds the command may take")
    one.add_argument("--console", action="store_true", help="show the lab's console at the end")
    one.add_argument("command", nargs="+")
    args = parser.parse_args()
    try:
        return {"shell": shell}[args.verb](args)
    except machine.Broken as broken:
        machine.say(broken)
        return 125


if __name__ == "__main__":
    sys.exit(main())
