#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""husk sandbox cc and what husk sandbox run does without KVM. usage: cc_test.py HUSK PKG_CONFIG_DIR SOURCE"""

import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile

HUSK, PKG_CONFIG_DIR, SOURCE = map(os.path.abspath, sys.argv[1:4])
count = failed = 0

PROGRAM = r"""
#include <husk/sandbox.h>

HUSK_IMPORT(i32, ask, string);
HUSK_IMPORT(i32, never_called, i32);

static const char *const words[] = {"zero", "one", "two"};
static int64_t state[1000];

static int32_t add(int32_t a, int32_t b)
{
	return a + b;
}
HUSK_EXPORT(i32, add, i32, i32);

static const char *word(uint32_t i)
{
	char number[16];
	husk_snprintf(number, sizeof(number), "%u", i);
	state[i % 1000]++;
	return ask(number) < 0 ? number[0] == '9' ? words[0] : "" : words[i % 3];
}
HUSK_EXPORT(string, word, u32);
"""
LISTING = """functions:
  i32 add(i32, i32)
  string word(u32)
needs from the host:
  i32 ask(string)
"""


def check(ok, what, detail=""):
    global count, failed
    count += 1
    failed += not ok
    print("%s %d - %s" % ("ok" if ok else "not ok", count, what))
    if not ok:
        print("# %r" % (detail,))


def run(*command, env=None):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60,
                          env=dict(os.environ, **(env or {})))
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def segments(path):
    """(type, flags, vaddr, memsz, align) of each program header."""
    with open(path, "rb") as file:
        data = file.read()
    kind, = struct.unpack_from("<H", data, 16)
    offset, = struct.unpack_from("<Q", data, 32)
    size, n = struct.unpack_from("<HH", data, 54)
    assert kind == 3, "not position-independent"
    rows = []
    for i in range(n):
        type_, flags, _, vaddr, _, _, memsz, align = struct.unpack_from("<IIQQQQQQ", data, offset + i * size)
        rows.append((type_, flags, vaddr, memsz, align))
    return rows


VECTOR = re.compile(r"%[xyz]mm|%mm|%st|\\bf(ld|st|in|div|mul|add|sub)")


def vector_instructions(path):
    """Instructions that use vector or x87 registers, but the saving of arguments behind a test of al: (function, instruction)."""
    found, function, guarded = [], "", False
    for line in run("objdump", "-d", "--no-show-raw-insn", path)[1].splitlines():
        if line.endswith(">:"):
            function, guarded = line.split("<")[1][:-2], False
        parts = line.split("\t")
        if len(parts) < 2 or not VECTOR.search(parts[1]):
            guarded = guarded or (len(parts) > 1 and parts[1].startswith("test") and "%al,%al" in parts[1])
        elif not (guarded and parts[1].startswith("movaps %xmm")):
            found.append((function, parts[1]))
    return found


def check_program(what, path):
    rows = segments(path)
    loads = [row for row in rows if row[0] == 1]
    check([row[1] for row in loads] == [4, 5, 6], what + ": constants, code and data, in this order", loads)
    check(loads[0][2] == 0 and all(row[2] % 4096 == 0 for row in loads), what + ": from 0, each in pages of its own", loads)
    check(not any(row[0] in (3, 7) for row in rows), what + ": no interpreter, no thread-local storage", rows)
    check([row[1] for row in rows if row[0] == 0x6474e551] == [6], what + ": no executable stack", rows)
    check(run(HUSK, "sandbox", "run", path) == (0, LISTING, ""), what + ": husk reads it",
          run(HUSK, "sandbox", "run", path))


with tempfile.TemporaryDirectory(prefix="husk-cc-") as where:
    os.chdir(where)
    with open("program.c", "w") as file:
        file.write(PROGRAM)
    with open("wrong.c", "w") as file:
        file.write('#include <husk/sandbox.h>\nstatic int32_t f(int64_t a)\n{\n\treturn (int32_t)a;\n}\nHUSK_EXPORT(i32, f, i32);\n')
    with open("thread.c", "w") as file:
        file.write('#include <husk/sandbox.h>\n_Thread_local int x;\nstatic int32_t f(void)\n{\n\treturn x;\n}\nHUSK_EXPORT(i32, f);\n')

    compilers = [name for name in ("gcc", "clang") if shutil.which(name)]
    linkers = ["bfd"] + (["lld"] if shutil.which("ld.lld") else [])
    print("# compilers: %s; linkers: %s" % (" ".join(compilers), " ".join(linkers)))
    for compiler in compilers:
        for linker in linkers:
            for flags in ([], ["-g", "-O0"], ["-mgeneral-regs-only", "-Os"])[:3 if linker == "bfd" else 1]:
                what = " ".join([compiler, linker] + flags)
                done = run(HUSK, "sandbox", "cc", "-Wall", "-Wextra", "-Werror", "-fuse-ld=" + linker, *flags, "program.c", "-o", "p.elf",
                           env={"CC": compiler})
                check(done == (0, "", ""), what + ": compiles without a word", done)
                check_program(what, "p.elf")
                if "-mgeneral-regs-only" in flags:
                    check(vector_instructions("p.elf") == [], what + ": no vector register is touched", vector_instructions("p.elf"))
        run("strip", "p.elf")
        check_program(compiler + ", stripped", "p.elf")
        done = run(HUSK, "sandbox", "cc", "-c", "program.c", env={"CC": compiler})
        check(done == (0, "", "") and os.path.exists("program.o"), compiler + ": -c links nothing", done)
        done = run(HUSK, "sandbox", "cc", "program.o", "-o", "q.elf", env={"CC": compiler})
        check(done == (0, "", ""), compiler + ": objects are linked", done)
        check_program(compiler + ", in two steps", "q.elf")
        code, _, err = run(HUSK, "sandbox", "cc", "wrong.c", env={"CC": compiler})
        check(code != 0 and "is not a function of these types" in err, compiler + ": a wrong signature does not compile", err)
        code, _, err = run(HUSK, "sandbox", "cc", "thread.c", env={"CC": compiler})
        check(code != 0 and "no thread-local variables" in err, compiler + ": nor do thread-local variables", err)

    with open("float.c", "w") as file:
        file.write("#include <husk/sandbox.h>\nstatic double f(double a)\n{\n\treturn a * 2;\n}\nHUSK_EXPORT(f64, f, f64);\n")
    run(HUSK, "sandbox", "cc", "float.c", "-o", "f.elf")
    check(any("mulsd" in row[1] or "addsd" in row[1] for row in vector_instructions("f.elf")), "(which this test would see)",
          vector_instructions("f.elf"))
    for compiler in compilers:
        done = run(HUSK, "sandbox", "cc", "-x", "c", "program.c", "-o", "x.elf", env={"CC": compiler})
        check(done == (0, "", ""), compiler + ": -x is for the user's files alone", (done[0], done[2][:300]))
    done = run(HUSK, "sandbox", "cc", "program.c", env={"CC": ""})
    check(done == (0, "", "") and os.path.exists("a.out"), "without CC there is a compiler; without -o it makes a.out", done)
    done = run(HUSK, "sandbox", "cc", "-DEMPTY", "program.c", "-o", "r.elf", env={"CC": "  env X=1 gcc "})
    check(done == (0, "", ""), "CC may be several words", done)
    code, _, err = run(HUSK, "sandbox", "cc", "program.c", env={"CC": "no-such-compiler"})
    check(code == 1 and "no-such-compiler" in err, "a compiler that is not there is said so", err)
    code, _, err = run(HUSK, "sandbox", "cc", "program.c", env={"CC": "", "PATH": where})
    check(code == 1 and "there is no C compiler" in err, "and so is that there is none", err)
    code, _, err = run(HUSK, "sandbox", "cc", "program.c", env={"HUSK_LIBEXEC": where})
    check(code == 1 and "the runtime of sandbox programs is not there" in err, "or no runtime", err)

    flags = run("pkg-config", "--cflags", "--libs", "husk-sandbox-uninstalled", env={"PKG_CONFIG_PATH": PKG_CONFIG_DIR})[1].split()
    at = next((i for i, flag in enumerate(flags) if flag == "-static-pie"), 0)
    done = run("gcc", *flags[:at], "program.c", "-o", "s.elf", *flags[at:])
    check(at and done == (0, "", ""), "pkg-config has the same flags", (flags, done))
    check_program("pkg-config", "s.elf")

    # What the manual shows compiles: a program, and what calls it.
    with open(SOURCE + "/docs/sandbox.md") as file:
        guest, host = [part.split("```")[0] for part in file.read().split("```c\n")[1:3]]
    with open("hello.c", "w") as file:
        file.write(guest)
    with open("call.c", "w") as file:
        file.write(host)
    done = run(HUSK, "sandbox", "cc", "-Wall", "-Wextra", "-Werror", "hello.c", "-o", "hello.elf")
    check(done == (0, "", ""), "the manual's program compiles", done)
    check(run(HUSK, "sandbox", "run", "hello.elf")[1] == "functions:\n  i32 add(i32, i32)\n  string greet(string)\n", "and has two functions")
    done = run("gcc", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", SOURCE + "/include", "call.c")
    check(done == (0, "", ""), "so does what calls it", done)

    # A runtime that was moved is complete.
    moved = os.path.join(where, "moved, here")
    shutil.copytree(os.path.join(os.path.dirname(HUSK), "../libexec/sandbox"), os.path.join(moved, "sandbox"),
                    ignore=shutil.ignore_patterns("*.p", "*.o"))
    done = run(HUSK, "sandbox", "cc", "program.c", "-o", "t.elf", env={"HUSK_LIBEXEC": moved})
    check(done == (0, "", ""), "the runtime can lie anywhere", done)
    check_program("a moved runtime", "t.elf")

    def refused(args, text, status=125):
        code, out, err = run(HUSK, "sandbox", "run", *args)
        check(code == status and text in err and out == "", "%s: %s" % (" ".join(args), text), (code, out, err))

    refused([], "something is missing")
    refused(["none.elf"], "No such file")
    refused(["program.c"], "it is no ELF file")
    refused(["t.elf", "mul", "1"], "no function 'mul'")
    refused(["t.elf", "add", "1"], "add takes 2 arguments, not 1")
    refused(["t.elf", "add", "1", "x"], "argument 2 of add: 'x' is not a whole number")
    refused(["t.elf", "add", "1", "-3000000000"], "out of range for i32")
    refused(["--deadline", "0", "t.elf", "add", "1", "2"], "leaves none")
    refused(["--deadline", "soon", "t.elf", "add", "1", "2"], "--deadline")
    refused(["--heap", "lots", "t.elf", "add", "1", "2"], "--heap")
    refused(["--heap", "5G", "t.elf", "add", "1", "2"], "heap")
    refused(["--stack", "1", "t.elf", "add", "1", "2"], "stack")
    refused(["t.elf", "add", "1", "2"], "ask(string)")

print("1..%d" % count)
sys.exit(1 if failed else 0)
