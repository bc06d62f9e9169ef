#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 1800
# runs alone: an emulated host wants this machine's cores for itself
"""everyday_test.py - the lab's cases of every day, as one suite of `make test` (`make test-kvm` runs them alone)."""
import os
import pathlib
import sys

LAB = pathlib.Path(__file__).resolve().parent / "lab.py"
# 8 minutes is what the lab may take of `make test`; the first time its root is made before, which takes minutes more.
os.execv(sys.executable, [sys.executable, str(LAB), "run", "--limit", "900"])
