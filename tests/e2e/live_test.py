#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
"""live_test.py - VMs that belong to nobody, by way of the library: examples/live.c, and what is left when processes are killed."""
import os
import subprocess

import images
import lib
from lib import equal, ok

LIBEXEC = os.environ.get("HUSK_LIBEXEC") or str(lib.TOP / "build" / "libexec")


def example(home, *arguments, **keywords):
    return subprocess.run([lib.TOP / "build" / "examples" / "live", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=2 * lib.LIMIT, text=True,
                          env={**home.environment(), "HUSK_MACHINE": lib.MACHINE, "HUSK_LIBEXEC": LIBEXEC}, **keywords)


def test_example(home):
    """Made, started, stopped, started again with its disk, removed."""
    done = example(home, home.have(images.busybox(), "busybox"))
    equal(done.returncode, 0, "the example runs", f"{done.stdout}\n{done.stderr}")
    ok("ended: 41" in done.stdout and "ended: 42" in done.stdout, "the second start finds what the first has written", done.stdout)
    equal(home.vms(), [], "nothing is left of the VM", done.stderr)
    lib.none_left()


if __name__ == "__main__":
    lib.main(globals())
