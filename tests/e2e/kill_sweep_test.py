#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 560
"""kill_sweep_test.py - fifteen deaths in the life of a VM (kill_sweep.py); tests/full/ has two hundred."""
import kill_sweep
import lib


def test_deaths(home):
    kill_sweep.sweep(home, 15, ["cli", "supervisor", "worker", *(["qemu"] if "qemu" in lib.ROLES else []), "remove"])


lib.main(globals())
