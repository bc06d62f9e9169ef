#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The agent does what docs/agent-protocol.md says: agent-test.py AGENT_NATIVE (as root; busybox makes the root)."""
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from agent_client import *  # noqa: E402

count = failed = 0


def check(ok, what, detail=None):
    global count, failed
    count += 1
    failed += not ok
    print(f"{'ok' if ok else 'not ok'} {count} - {what}", flush=True)
    if not ok and detail is not None:
        print(f"# {detail!r}", flush=True)


def same(got, want, what):
    check(got == want, what, got)


def skip(why):
    print(f"1..0 # SKIP {why}")
    sys.exit(0)


def make_root(directory):
    busybox = shutil.which("busybox")
    for name in ("bin", "etc", "tmp", "data"):
        os.makedirs(f"{directory}/{name}", exist_ok=True)
    shutil.copy(busybox, f"{directory}/bin/busybox")
    for name in "sh cat dd echo env id ls ps pwd sleep stty touch true tty wc mount".split():
        os.symlink("busybox", f"{directory}/bin/{name}")
    files = {
        "etc/passwd": "root:x:0:0::/root:/bin/sh\nsam:x:1000:1000::/home/sam:/bin/sh\n",
        "etc/group": "root:x:0:\nsam:x:1000:\nadm:x:4:sam,x\n",
        "etc/plain": "not a program\n",
        "bin/bad": "no format at all",
    }
    for name, text in files.items():
        with open(f"{directory}/{name}", "w") as f:
            f.write(text)
    os.chmod(f"{directory}/bin/bad", 0o755)


class Agent:
    def __init__(self, tool, *options):
        self.directory = tempfile.mkdtemp(prefix="husk-agent-")
        os.mkdir(f"{self.directory}/root", 0o755)
        make_root(f"{self.directory}/root")
        self.path = f"{self.directory}/agent.sock"
        self.process = subprocess.Popen(
            [tool, f"{self.directory}/root", self.path, *options], stdout=subprocess.PIPE, text=True)
        for _ in range(500):
            if os.path.exists(self.path):
                return
            if self.process.poll() is not None:
                self.end()
                skip("no namespaces here")
            time.sleep(0.01)

    def end(self):
        """Wait for it, remove its files; what it said."""
        try:
            said = self.process.communicate(timeout=20)[0]
        except subprocess.TimeoutExpired:
            self.process.kill()
            said = "hangs\n"
        shutil.rmtree(self.directory)
        return said.strip()

    def exec(self, args, flags=0, **more):
        return Exec(self.path, args, flags, **more)

    def refusal(self, args, flags=0, **more):
        try:
            return self.exec(args, flags, **more).run()
        except Refused as refused:
            return refused.code


def test_refusals(a):
    same(a.refusal(["true"]), 3, "a joined program without a workload is refused")
    same(a.refusal(["nope"], MAIN), 5, "a program that is not in PATH is not found")
    same(a.refusal(["/bin/none"], MAIN), 5, "nor one whose path does not exist")
    same(a.refusal(["/etc/plain"], MAIN), 4, "a file without x bits is not executable")
    same(a.refusal(["/etc"], MAIN), 4, "nor is a directory")
    same(a.refusal(["/bin/bad"], MAIN), 4, "nor a file of no known format")
    same(a.refusal(["true"], MAIN, user="bob"), 6, "an unknown user is refused")
    same(a.refusal(["true"], MAIN, user="sam:none"), 6, "an unknown group is refused")
    same(a.refusal(["true"], MAIN, cwd="/etc/plain"), 7, "a file is no working directory")
    same(a.refusal([], MAIN), 1, "no arguments are malformed")
    same(a.refusal(["true"], MAIN, env=["X"]), 1, "an environment entry without = is malformed")
    same(a.refusal(["true"], MAIN, cwd="x"), 1, "a relative working directory is malformed")
    same(a.refusal(["true"], INIT), 1, "a reaper without a main workload is malformed")
    same(a.refusal(["true"], 1 << 9), 1, "unknown flags are malformed")


def test_protocol(a):
    def answer(*frames, hello=True):
        c = Connection(a.path, hello)
        if not hello:
            c.receive()
        for f in frames:
            c.send(f)
        try:
            return c.answer()
        except Refused as refused:
            return refused.code if c.receive() is None else "goes on"
        finally:
            c.close()

    same(answer(frame(0x77)), 1, "an unknown request is refused and the connection ends")
    same(answer(frame(STDIN, b"x")), 1, "a stream without a request is refused")
    same(answer(frame(HELLO, struct.pack("<I", 1))), 1, "a second HELLO is refused")
    same(answer(frame(HELLO, struct.pack("<I", 9)), hello=False), 2, "another version is refused")
    same(answer(frame(SYNC), hello=False), 1, "a request without HELLO is refused")
    same(answer(struct.pack("<IBBH", 1 << 24, EXEC, 0, 0)), 1, "a frame over the limit is refused")
    same(answer(struct.pack("<IBBH", 0, 0, 0, 0)), 1, "type 0 is refused")
    same(answer(struct.pack("<IBBH", 0, SYNC, 0, 1)), 1, "reserved bytes are refused")
    same(answer(frame(SYNC, b"x")), 1, "SYNC with a payload is refused")
    same(answer(frame(EXEC, b"\x01\x00\x00\x00\xff\xff\xff\xff")), 1, "an entry longer than its frame is refused")
    same(answer(frame(EXEC, entry(99, 1))), 1, "an unknown entry is refused")
    same(answer(frame(EXEC, entry(2, b"a\0b"))), 1, "a NUL in a string is refused")
    same(answer(frame(POWER, struct.pack("<I", 5))), 1, "POWER of an unknown kind is refused")
    same(answer(frame(SYNC)), (OK, 0, b""), "SYNC is answered")


def test_joined(a):
    same(a.refusal(["true"], MAIN), 3, "a second main workload is refused")
    got, out, err = a.exec(["sh", "-c", "id -u; pwd; echo e >&2; exit 7"]).run()
    same((got, out, err), ((1, 7), b"0\n/\n", b"e\n"), "status and streams of a program arrive apart")
    same(a.exec(["sh", "-c", "id; echo $HOME"], user="sam").run()[1],
         b"uid=1000(sam) gid=1000(sam) groups=4(adm),1000(sam)\n/home/sam\n", "a user has its groups and home")
    same(a.exec(["id"], user="1000:4").run()[1], b"uid=1000(sam) gid=4(adm) groups=4(adm)\n",
         "a group given stands alone")
    same(a.exec(["sh", "-c", "id; echo $HOME"], user="4242", groups=["adm", "77"]).run()[1],
         b"uid=4242 gid=0(root) groups=0(root),4(adm),77\n/\n", "a number needs no line in passwd")
    same(a.exec(["sh", "-c", "echo x >/dev/stdout; echo y >/dev/stderr"], user="sam").run()[1:], (b"x\n", b"y\n"),
         "a user may open its streams again")
    same(a.exec(["env"], env=["A=1", "TERM=me", "A=2"]).run()[1].split(b"\n")[:-1],
         [b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", b"HOSTNAME=native", b"A=2", b"TERM=me",
          b"HOME=/root"], "the environment is Docker's, and the later of two entries wins")
    start = time.monotonic()
    same(a.exec(["sh", "-c", "sleep 300 & echo bg"]).run(), ((1, 0), b"bg\n", b""), "background holders")
    check(time.monotonic() - start < 5, "do not hold up EXIT")
    got, out, _ = a.exec(["cat"], WITH_STDIN).run(b"z" * 3000000)
    same((got, len(out)), ((1, 0), 3000000), "three megabytes go through cat")
    same(a.exec(["true"], WITH_STDIN).run(b"z" * 3000000)[0], (1, 0), "input that nobody reads is dropped")
    program = a.exec(["sleep", "100"])
    program.signal(15)
    same(program.run()[0], (2, 15), "a signal kills, and EXIT says which")
    program = a.exec(["sleep", "1234"])
    program.close()
    for _ in range(50):
        gone = b"1234" not in a.exec(["ps"]).run()[1]
        if gone:
            break
        time.sleep(0.05)
    check(gone, "a program whose client goes away is killed")


def test_windows(a):
    program = a.exec(["sh", "-c", "dd if=/dev/zero bs=64k count=32 2>/dev/null & sleep 0.3; echo err >&2; wait"])
    program.grant = False
    program.until(b"err", 2)
    same(len(program.out[1]), WINDOW_SIZE, "a stream whose reader sleeps stops at its window, the other goes on")
    program.grant = True
    program.send(frame(WINDOW, struct.pack("<I", WINDOW_SIZE), 1))
    same(len(program.run()[1]), 32 * 65536, "and it goes on when the window opens")
    program = a.exec(["sleep", "100"], WITH_STDIN)
    program.send(frame(WINDOW, struct.pack("<I", 1), 1))
    try:
        program.run()
        check(False, "a window beyond its limit is refused")
    except Refused as refused:
        same(refused.code, 1, "a window beyond its limit is refused")
    program = a.exec(["sleep", "100"], WITH_STDIN)
    try:
        for _ in range(16):
            program.send(frame(STDIN, b"x" * 65536))
        program.run()
        check(False, "input beyond the window is refused")
    except Refused as refused:
        same(refused.code, 1, "input beyond the window is refused")


def test_terminal(a):
    same(a.exec(["tty"], TTY).run()[1], b"/dev/pts/0\r\n", "the terminal is the first of the workload's own devpts")
    program = a.exec(["sh", "-c", "stty size; echo $TERM; read a; echo =$a=; stty size; sleep 100"], TTY | WITH_STDIN,
                     window=(33, 77), user="sam")
    program.until(b"xterm")
    check(program.out[1].startswith(b"33 77\r\n"), "it has its size")
    program.send(frame(RESIZE, struct.pack("<HH", 50, 132)))
    program.feed(b"hello\n", end=False)
    program.until(b"=hello=\r\n50 132")
    check(True, "input and a new size arrive")
    program.feed(b"\x03", end=False)
    same(program.run()[0], (2, 2), "Ctrl-C interrupts")
    same(a.exec(["cat"], TTY | WITH_STDIN).run(b"x\n"), ((1, 0), b"x\r\nx\r\n", b""), "EOF is typed")


def main():
    if os.geteuid() != 0 or not shutil.which("busybox"):
        skip("needs root and busybox")
    tool = sys.argv[1]
    a = Agent(tool)
    test_refusals(a)
    test_protocol(a)
    script = 'trap "echo term" TERM; echo $$ $(pwd); while read l; do echo got $l; done; while :; do sleep 0.1; done'
    workload = a.exec(["sh", "-c", script], MAIN | WITH_STDIN, cwd="/new/dir")
    workload.until(b"\n")
    same(bytes(workload.out[1]), b"1 /new/dir\n", "the workload is PID 1, its working directory was made")
    test_joined(a)
    test_windows(a)
    test_terminal(a)
    workload.signal(10)
    workload.feed(b"line\n", end=False)
    workload.until(b"got line")
    check(True, "PID 1 ignores a signal that it has no handler for")
    workload.feed(b"more\n")
    workload.until(b"got more")
    workload.signal(15)  # after the line: a signal may end the shell's read
    workload.until(b"term")
    check(True, "and takes one that it has a handler for")
    sleeper = a.exec(["sleep", "100"])
    workload.signal(9)
    same(workload.run()[0], (2, 9), "SIGKILL ends the workload")
    same(sleeper.run()[0], (2, 9), "and every program with it")
    c = Connection(a.path)
    c.send(frame(POWER, struct.pack("<I", 0)))
    same(c.answer()[0], OK, "POWER is answered")
    c.close()
    same(a.end(), "the host asked for it", "and ends the agent")

    a = Agent(tool, "read-only", "/data")
    got = a.exec(["sh", "-c", "touch /x; touch /data/x && touch /tmp/x && touch /dev/shm/x; (exit 5)"], MAIN | INIT).run()
    same(got[0], (1, 5), "a reaper ends as its child does")
    check(b"touch: /x: Read-only" in got[2] and got[2].count(b"touch") == 1, "read-only but for volumes, /tmp, /dev/shm",
          got[2])
    same(a.exec(["sh", "-c", "kill -9 $$"], MAIN | INIT).run()[0], (1, 137), "a reaper says 128 + n")
    workload = a.exec(["sleep", "100"], MAIN)
    workload.close()
    same(a.end(), "the connection of the workload was lost", "a workload that loses its client ends the VM")
    print(f"1..{count}")
    return 1 if failed else 0


sys.exit(main())
