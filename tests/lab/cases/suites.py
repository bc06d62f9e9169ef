# SPDX-License-Identifier: Apache-2.0
"""suites.py - cases that exist already: the suites of tests/e2e again, on the machine kvm, and the unit tests that want a
real /dev/kvm."""
import json
import pathlib

import lib
from case import add

# Suites and seconds for all of each; what holds on qemu only is skipped there.
for name, seconds in (("run", 1500), ("lifecycle", 1500), ("stream", 1500), ("vsock", 900), ("doors_cli", 1500),
                      ("disk", 1500), ("serial", 1500)):
    add(f"suite-{name.replace('_', '-')}", seconds, False, ["python3", f"tests/e2e/{name}_test.py"])
# Pauses, balloon, counters and logs of the machine itself: every day.
add("suite-vmm-live", 300, True, ["python3", "tests/e2e/vmm_live_test.py"])


def kvm_units(build):
    """The Meson tests of the suite `kvm`, which run in the build tree, as (name, argv, seconds)."""
    tests = build / "meson-info" / "intro-tests.json"
    for test in json.loads(tests.read_text()) if tests.exists() else []:
        if any(suite.endswith(":kvm") for suite in test["suite"]):
            words = [str(word).replace(f"{build}/", "./").replace(f"{build.parent}/", "../") for word in test["cmd"]]
            yield test["name"], words, test["timeout"]


for name, words, seconds in kvm_units(pathlib.Path(lib.HUSK).parent.parent):
    add(f"unit-{name}", seconds, True, words, cwd="build")
