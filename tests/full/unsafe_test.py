#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 900
"""unsafe_test.py - tests/sandbox/unsafe.sh with both settings of unsafe_raw_memory: the other one's libhusk is built for it."""
import json
import os
import pathlib
import subprocess

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = TOP / "build"

options = json.loads(subprocess.check_output(["meson", "introspect", "--buildoptions", str(BUILD)]))
here = next(option["value"] for option in options if option["name"] == "unsafe_raw_memory")
libraries = [str((BUILD / "lib/libhusk.so").resolve()), str(BUILD / "lib/libhusk.a")]
script = str(TOP / "tests/sandbox/unsafe.sh")
os.execv(script, [script, *libraries, str(here).lower(), str(TOP)])
