# SPDX-License-Identifier: Apache-2.0
"""case.py - the table of the lab's cases, and what runs one of them.

A case is a function of cases/*.py that gets a Home (tests/e2e/lib.py) and makes checks; it runs in the lab, in a process of
its own: `python3 tests/lab/case.py NAME`. It says how long it may take; an everyday one is part of `make test`, the others of
`make test-full`. Cases that are whole suites or programs are listed in cases/suites.py and need no function.
"""
import importlib
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
for folder in (HERE, HERE.parent / "e2e", HERE / "cases"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
MODULES = ("basics", "ends", "reach", "footprint", "vms", "suites")

TABLE = {}


class Case:
    """One line of the table. @argv: what is run, in the folder @cwd of the checkout, and says in TAP what it checked."""

    def __init__(self, name, seconds, everyday, argv, function=None, cwd="."):
        self.name, self.seconds, self.everyday, self.argv = name, seconds, everyday, argv
        self.function, self.cwd = function, cwd


def add(name, seconds, everyday, argv, **more):
    assert name not in TABLE, name
    TABLE[name] = Case(name, seconds, everyday, argv, **more)


def case(seconds, everyday=True):
    """Decorator: the function is a case, named as it is."""
    def note(function):
        name = function.__name__.replace("_", "-")
        add(name, seconds, everyday, ["python3", "tests/lab/case.py", name], function=function)
        return function
    return note


def load():
    """The table, in the order of the modules."""
    for module in MODULES:
        importlib.import_module(module)
    return TABLE


if __name__ == "__main__":
    import case  # the modules know it by this name
    import lib
    chosen = case.load()[sys.argv.pop(1)]
    lib.main({"test_" + chosen.function.__name__: chosen.function})
