#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 14400
# runs alone: an emulated host wants this machine's cores for itself
"""sandbox_test.py - what the everyday suite has no time for of function sandboxes: the tests of running ones under ASan and UBSan,
and counts of a hundred thousand and more. In the lab."""
import pathlib
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
LAB = [sys.executable, str(TOP / "tests/lab/lab.py")]
SANITIZED = [f"unit-sandbox-{name}" for name in ("calls", "faults", "kicks", "restore", "rights", "saved", "shared", "inject-kvm")]
# What else: an environment, a test, and what it proves then.
LONG = (("HUSK_TEST_SANDBOXES=100000", "many", "a hundred thousand sandboxes made and destroyed leave nothing behind"),
        ("HUSK_TEST_UPDATES=100000000", "shared", "of a hundred million updates a polling guest sees none that is torn"))


def report(number, what, command):
    """Run it, indent what it says, and say how it ended."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    for line in done.stdout.splitlines():
        print(f"    {line}")
    print(f"{'not ok' if done.returncode else 'ok'} {number} - {what}", flush=True)
    return done.returncode != 0


def main():
    print(f"1..{1 + len(LONG)}", flush=True)
    failed = report(1, "running sandboxes under sanitizers",
                    [*LAB, "run", "--build", str(TOP / "build-asan"), "--patience", "6", *SANITIZED])
    for number, (setting, name, what) in enumerate(LONG, 2):
        failed += report(number, what, [*LAB, "shell", "--", "env", setting, f"build/tests/sandbox/running/sandbox-{name}-test",
                                        "build/tests/sandbox/guests"])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
