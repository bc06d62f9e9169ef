# SPDX-License-Identifier: Apache-2.0
"""suites.py - cases that exist already: the suites of tests/e2e again, on the machine kvm, and the unit tests that want a
real /dev/kvm."""
import json
import pathlib

import lib
from case import add

# Suites whose every case holds on kvm: name, seconds for all of it, and which cases are for every day.
SUITES = (
    ("run", 1500, ("status",)),
    ("lifecycle", 1500, ()),
    ("stream", 1500, ()),
    ("vsock", 900, ()),
    ("doors_cli", 1500, ()),
)
for name, seconds, everyday in SUITES:
    label = name.replace("_", "-")
    script = f"tests/e2e/{name}_test.py"
    add(f"suite-{label}", seconds, False, ["python3", script])


def kvm_units(build):
    """The Meson tests of the suite `kvm`, as (name, words below the build tree, seconds)."""
    tests = pathlib.Path(build) / "meson-info" / "intro-tests.json"
    for test in json.loads(tests.read_text()) if tests.exists() else []:
        if any(suite.endswith("kvm") for suite in test.get("suite", [])):
            words = [str(word).replace(str(pathlib.Path(build)), "build") for word in test["cmd"]]
            yield test["name"], words, max(60, test.get("timeout", 30) * 4)


for name, words, seconds in kvm_units(pathlib.Path(lib.HUSK).parent.parent):
    add(f"unit-{name}", seconds, True, words)
