#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""husk sandbox run with programs that run, and examples/sandbox.c. usage: command.py HUSK GUESTS EXAMPLE ITS_GUEST"""

import os
import subprocess
import sys
import tempfile

HUSK, GUESTS, EXAMPLE, EXAMPLE_GUEST = sys.argv[1:5]
count = failed = 0

# Options, program, function and arguments; exit status, stdout, and what stderr has to have (None: nothing).
CALLS = [
    (["basic", "nothing"], 0, b"", None),
    (["basic", "add", "-2", "5"], 0, b"3\n", None),
    (["basic", "echo_i32", "-0x80000000"], 0, b"-2147483648\n", None),
    (["basic", "hello", "seed"], 0, b"hello, seed\n", None),
    (["basic", "reverse", "abc"], 0, b"cba", None),
    (["basic", "reverse", "@FILE"], 0, bytes(range(255, -1, -1)) * 9000, None),
    (["basic", "one_of_each", "-1", "2", "-3", "4", "true", "12345", "123"], 0, b"11\n", None),
    (["basic", "print", "words"], 0, b"", "words\n"),
    (["basic", "fail", "7", "no luck"], 1, b"", "no luck (7)"),
    (["basic", "abort_with", "7", "enough"], 134, b"", "enough (7)"),
    (["basic", "poke", "0", "1"], 139, b"", "page fault"),
    (["basic", "recurse", "1"], 139, b"", "the guard below the stack"),
    (["basic", "ud2"], 132, b"", "invalid opcode"),
    (["basic", "divide", "1", "0"], 136, b"", "division error"),
    (["--deadline", "100ms", "basic", "spin"], 124, b"", "longer"),
    (["--heap", "40M", "--output", "20M", "basic", "is_ramp", "\1"], 0, b"false\n", None),
    (["--stack", "4K", "basic", "add", "1", "1"], 0, b"2\n", None),
    (["--heap", "0", "basic", "ramp", "1"], 1, b"", "(12)"),
    (["--output", "4K", "basic", "ramp", "4065"], 1, b"", "larger than the output buffer"),
    (["hostile", "lie", "4"], 125, b"", "protocol"),
    (["host", "call_i32", "1"], 125, b"", "host_"),
    (["early-fail", "nothing"], 134, b"", "not today (33)"),
]

EXAMPLE_SAYS = """add: 42
describe: the capital of Peru is Lima
describe: describe failed: nothing is known of Atlantis: it is not in the atlas (-2)
the guest says: call number 1
count: 1
the guest says: call number 2
count: 2
"""


def check(ok, what, detail=""):
    global count, failed
    count += 1
    failed += not ok
    print("%s %d - %s" % ("ok" if ok else "not ok", count, what))
    if not ok:
        print("# %r" % (detail,))
    sys.stdout.flush()


def run(*command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    return done.returncode, done.stdout, done.stderr.decode(errors="replace")


if not os.access("/dev/kvm", os.W_OK):
    print("1..0 # skip no /dev/kvm here; the KVM lab runs this")
    sys.exit(0)

with tempfile.TemporaryDirectory(prefix="husk-run-") as where:
    with open(where + "/file", "wb") as file:
        file.write(bytes(range(256)) * 9000) # more than the input buffer has by itself
    programs = {name[:-4] for name in os.listdir(GUESTS) if name.endswith(".elf")}
    for words, status, output, error in CALLS:
        args = ["%s/%s.elf" % (GUESTS, word) if word in programs else word.replace("@FILE", "@%s/file" % where) for word in words]
        options = ["--heap", "8M", "--output", "4M"] if "@FILE" in words else []
        code, out, err = run(HUSK, "sandbox", "run", *options, *args)
        fits = (err == "") if error is None else (error in err)
        check(code == status and out == output and fits, " ".join(words) + " -> %d" % status, (code, out[:100], err))

    core = where + "/core"
    run(HUSK, "sandbox", "run", "--core", core, GUESTS + "/basic.elf", "add", "1", "2")
    check(not os.path.exists(core), "a program that ends well leaves no core file")
    code, out, err = run(HUSK, "sandbox", "run", "--core", core, GUESTS + "/basic.elf", "ud2")
    with open(core, "rb") as file:
        check(code == 132 and core in err and file.read(4) == b"\x7fELF", "one that faults does", (code, err))

    code, out, err = run(EXAMPLE, EXAMPLE_GUEST)
    out = out.decode()
    check(code == 0 and err == "" and out.startswith(EXAMPLE_SAYS), "the example calls, is asked, and sees errors", (code, out, err))
    rest = out[len(EXAMPLE_SAYS):].splitlines()
    check(len(rest) == 4 and "page fault" in rest[0] and rest[2:] == ["the guest says: call number 1", "count: 1"],
          "and goes on from its snapshot after a crash", rest)

print("1..%d" % count)
sys.exit(1 if failed else 0)
