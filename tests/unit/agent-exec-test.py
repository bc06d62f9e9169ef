#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""EXEC does what docs/agent-protocol.md says of time limits, chains, files, detached programs and what joined programs inherit:
agent-exec-test.py AGENT_NATIVE (as root; busybox makes the root)."""
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from agent_rig import *  # noqa: E402


def test_malformed(a):
    for what, flags, more in (
            ("a time limit of the main workload", MAIN, {"timeout": 5}), ("files of the main workload", MAIN, {"files": [("x", b"")]}),
            ("a second main workload behind the first", MAIN, {"then": [["true"]]}), ("a detached main workload", MAIN | DETACH, {}),
            ("a sync behind a joined program", SYNCED, {}), ("a detached program with input", DETACH | WITH_STDIN, {}),
            ("a detached terminal", DETACH | TTY, {}), ("a detached program with a time limit", DETACH, {"timeout": 5}),
            ("detached commands", DETACH, {"then": [["true"]]}), ("two commands on a terminal", TTY, {"then": [["true"]]}),
            ("a time limit of nothing", 0, {"timeout": 0}), ("a command of no words", 0, {"then": [[]]}),
            ("too many commands", 0, {"then": [["true"]] * 64}), ("a file without a path", 0, {"files": [("", b"")]}),
            ("a file's mode beyond 07777", 0, {"files": [("x", b"", 0o10000)]}),
            ("a NUL in a file's path", 0, {"files": [("x\0y", b"")]})):
        same(a.refusal(["true"], flags, **more), 1, f"{what}: malformed")
    same(a.refusal(["true"], then=[["true"]] * 63), 3, "64 commands are not too many")


def test_inherits(tool):
    """What a joined program does not say is as the workload has it."""
    a = Agent(tool)
    w = a.exec(["sh", "-c", "id; pwd; echo $A $B $HOME; cat"], MAIN | WITH_STDIN, env=["A=a", "B=b"], cwd="/tmp/w", user="sam", groups=["77"])
    w.until(b"home/sam\n")
    same(a.exec(["sh", "-c", "id; pwd; echo $A $B $HOME"]).run()[1], bytes(w.out[1]), "user, groups, directory and environment")
    same(a.exec(["sh", "-c", "echo ${A-gone} $B"], env=["A"]).run()[1], b"gone b\n", "a bare name takes a variable away")
    same(a.exec(["sh", "-c", "id; pwd; echo $A $B $HOME"], user="0", cwd="/", env=["B=c"]).run()[1],
         b"uid=0(root) gid=0(root) groups=0(root),77\n/\na c /root\n", "but for what it says; further groups are added")
    w.feed(b"")
    same(w.run()[0], (1, 0), "a workload with a user of its own ends")
    power_off(a)


def test_timeout(a):
    script = "trap '' TERM; sleep 301 & echo up; wait; sleep 302"
    p = a.exec(["sh", "-c", script], timeout=400)
    start = time.monotonic()
    same(p.run(), ((2, 9), b"up\n", b""), "a program whose time is up is killed")
    check(0.3 < time.monotonic() - start < 5 and p.exit[4] == TIMED_OUT, "when it is up, and EXIT says so", p.exit)
    same([n for n in (b"301", b"302") if n in a.exec(["ps"]).run()[1]], [], "with its whole process group")
    p = a.exec(["true"], timeout=60000)
    same((p.run()[0], p.exit[4]), ((1, 0), 0), "one that ends in time is not")
    p = a.exec(["true"], timeout=(1 << 64) - 1)
    same((p.run()[0], p.exit[4]), ((1, 0), 0), "nor one with the longest time there is")
    p = a.exec(["sleep", "0"], timeout=700, then=[["sleep", "0.1"], ["sleep", "303"], ["echo", "never"]])
    same((p.run(), p.exit[4:]), (((2, 9), b"", b""), (TIMED_OUT, 2)), "the time is that of all commands together")


def test_chain(a):
    p = a.exec(["sh", "-c", "read x; echo 1 $x"], WITH_STDIN, then=[["sh", "-c", "read x; echo 2 $x >&2"], ["cat"]])
    same((p.run(b"a\nb\nc\nd\n"), p.exit[5]), (((1, 0), b"1 a\nc\nd\n", b"2 b\n"), 2), "commands run one behind the other on the same streams")
    p = a.exec(["true"], then=[["sh", "-c", "exit 9"], ["echo", "no"]])
    same((p.run(), p.exit[5]), (((1, 9), b"", b""), 1), "the first that fails is the last, and EXIT says which")
    p = a.exec(["true"], then=[["sh", "-c", "kill -9 $$"], ["echo", "no"]])
    same((p.run()[0], p.exit[5]), ((2, 9), 1), "so is one that a signal kills")
    p = a.exec(["true"], then=[["nope"], ["echo", "no"]])
    same((p.run(), p.exit[5]), (((1, 127), b"", b"husk: exec nope: executable file not found in $PATH\n"), 1),
         "a later command that is not found ends as in a shell")
    p = a.exec(["true"], then=[["/etc/plain"]])
    same((p.run(), p.exit[5]), (((1, 126), b"", b"husk: exec /etc/plain: Permission denied\n"), 1), "and one that is not executable")
    same(a.refusal(["nope"], then=[["true"]]), 5, "the first one is refused as ever")
    p = a.exec(["sh", "-c", "sleep 0.2; echo x"], then=[["sh", "-c", "echo $$ $PPID; cat /proc/self/cmdline"]] * 63)
    same(p.run()[1].count(b"cmdline"), 63, "64 commands")
    p = a.exec(["sh", "-c", "echo on"], then=[["sleep", "304"], ["echo", "no"]])
    p.until(b"on")
    while b"304" not in a.exec(["ps"]).run()[1]:
        pass
    p.signal(15)
    same((p.run()[0], p.exit[5]), ((2, 15), 1), "a signal goes to the command that runs")
    p = a.exec(["true"], then=[["sleep", "305"], ["sleep", "306"]])
    while b"305" not in a.exec(["ps"]).run()[1]:
        pass
    p.close()
    check(settle(lambda: b" 30" not in a.exec(["ps"]).run()[1]), "a client that goes ends the chain")


def test_files(a):
    root = f"{a.directory}/root"
    files = [("/data/x", b"one"), ("y", b"#!/bin/sh\nread l; echo $l $(cat x)\n", 0o755), ("/tmp/sam", b"z" * 200000, 0o4750)]
    os.chmod(f"{root}/data", 0o777)
    p = a.exec(["./y"], WITH_STDIN, user="sam", cwd="/data", files=files, then=[["rm", "x"]])
    same(p.run(b"in\n")[1], b"in one\n", "files are there before the first command")
    st = os.stat(f"{root}/tmp/sam")
    same((st.st_uid, st.st_mode, st.st_size), (1000, 0o104750, 200000), "of the user, with their mode")
    with open(f"{root}/data/own", "w") as f:
        f.write("longer than what comes")
    same(a.exec(["cat", "own"], cwd="/data", files=[("own", b"new", 0o600)]).run()[1], b"new", "a file that is there is cut")
    for path, code, text in (("/none/x", 64 + 2, "write /none/x: No such file or directory"), ("/data", 64 + 21, "write /data: Is a directory"),
                             ("/etc/x", 64 + 13, "write /etc/x: Permission denied")):
        try:
            a.exec(["true"], user="sam", files=[(path, b"x")]).run()
            check(False, f"{path} cannot be written")
        except Refused as refused:
            same((refused.code, refused.text), (code, text), f"{path} cannot be written")
    os.mkfifo(f"{root}/tmp/fifo")
    same(a.refusal(["true"], files=[("/tmp/fifo", b"x")]), 64 + 6, "a fifo that nobody reads holds nobody up")


def test_detach(a):
    p = a.exec(["sh", "-c", "for f in 0 1 2; do l=\"$l $(readlink /proc/$$/fd/$f)\"; done; echo $l >/data/fds; sleep 0.3; echo done >/data/done; sleep 307"],
               DETACH)
    same(p.receive(), None, "the connection ends behind STARTED")
    p.close()
    done = f"{a.directory}/root/data/done"
    check(settle(lambda: os.path.exists(done)), "the program lives on")
    check(b"307" in a.exec(["ps"]).run()[1], "still")
    with open(f"{a.directory}/root/data/fds") as f:
        same(f.read().split(), ["/dev/null"] * 3, "its streams are /dev/null")
    same(a.refusal(["nope"], DETACH), 5, "one that cannot be started is refused")
    a.exec(["kill", "-9", str(pid_of(a, b"307"))]).run()
    ends = [a.exec(["true"], DETACH) for _ in range(50)]
    check(all(e.receive() is None for e in ends), "50 that end at once")
    check(settle(lambda: not children(a)), "are all reaped", children(a))


def children(a):
    """The agent's, but for the workload."""
    with open(f"/proc/{a.process.pid}/task/{a.process.pid}/children") as f:
        return f.read().split()[1:]


def pid_of(a, word):
    return next(line.split()[0] for line in a.exec(["ps"]).run()[1].splitlines() if word in line and b"sh -c" not in line).decode()


def test_many(a):
    before = files(a.process)
    programs = [a.exec(["sh", "-c", "read x; echo $x; echo e >&2"], WITH_STDIN) for _ in range(120)]
    for i, p in enumerate(programs):
        p.feed(b"%d\n" % i)
    same([p.run() for p in programs], [((1, 0), b"%d\n" % i, b"e\n") for i in range(120)], "120 programs at once")
    for p in programs:
        p.close()
    check(settle(lambda: files(a.process) <= before), "and no descriptor is left of them")


def test_sync(tool):
    a = Agent(tool)
    p = a.exec(["sh", "-c", "echo x >/data/x; exit 3"], MAIN | SYNCED)
    same(p.run(), ((1, 3), b"", b""), "a workload that is synced ends as any other")
    power_off(a)


def main():
    ready()
    tool = sys.argv[1]
    a = Agent(tool)
    test_malformed(a)
    workload = a.exec(["cat"], MAIN | WITH_STDIN)
    for test in (test_timeout, test_chain, test_files, test_detach, test_many):
        test(a)
    workload.feed(b"")
    same(workload.run()[0], (1, 0), "the workload has seen nothing of it")
    power_off(a)
    test_inherits(tool)
    test_sync(tool)
    return done()


sys.exit(main())
