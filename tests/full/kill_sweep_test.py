#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 3600
"""kill_sweep_test.py - two hundred deaths in the life of a VM (tests/e2e/kill_sweep.py)."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
import kill_sweep  # noqa: E402
import lib  # noqa: E402


def test_deaths(home):
    kill_sweep.sweep(home, 200, ["cli", "supervisor", "worker", "qemu", "remove", "tool"] * 4)


lib.main(globals())
