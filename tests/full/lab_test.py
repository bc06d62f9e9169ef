#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 14400
# runs alone: an emulated host wants this machine's cores for itself
"""lab_test.py - the whole matrix of the KVM lab."""
import os
import pathlib
import sys

LAB = pathlib.Path(__file__).resolve().parent.parent / "lab" / "lab.py"
os.execv(sys.executable, [sys.executable, str(LAB), "run", "--full"])
