#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 14400
# runs alone: an emulated host wants this machine's cores for itself
"""sandbox_test.py - what the everyday suite has no time for of function sandboxes: the tests of running ones under ASan and UBSan,
and a hundred thousand sandboxes made and destroyed. In the lab, or on this machine where its KVM runs guests."""
import pathlib
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
LAB = [sys.executable, str(TOP / "tests/lab/lab.py")]
SANITIZED = [f"unit-sandbox-{name}" for name in ("calls", "faults", "kicks", "restore", "rights", "saved", "shared", "inject-kvm")]
MADE = "100000"


def main():
    failed = 0
    print("1..2", flush=True)
    done = subprocess.run([*LAB, "run", "--build", str(TOP / "build-asan"), "--patience", "6", *SANITIZED], stdout=subprocess.PIPE,
                          text=True)
    for line in done.stdout.splitlines():
        print(f"    {line}")
    print(f"{'not ok' if done.returncode else 'ok'} 1 - running sandboxes under sanitizers", flush=True)
    failed += done.returncode != 0
    done = subprocess.run([*LAB, "shell", "--", "env", f"HUSK_TEST_SANDBOXES={MADE}", "build/tests/sandbox/running/sandbox-many-test",
                           "build/tests/sandbox/guests"], stdout=subprocess.PIPE, text=True)
    for line in done.stdout.splitlines():
        print(f"    {line}")
    print(f"{'not ok' if done.returncode else 'ok'} 2 - {MADE} sandboxes made and destroyed leave nothing behind", flush=True)
    failed += done.returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
