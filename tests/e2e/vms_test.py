#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 560
"""vms_test.py - the verbs of VMs that live on, on real VMs: a life from create to rm, a terminal, deaths, races."""
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import time
import zlib

import images
import lib
from lib import equal, ok

# Writes, listens to signals, and counts its starts on its disk.
SCRIPT = """echo x >> /starts; echo "start $(wc -l < /starts)"; echo to-stderr >&2
trap 'echo got USR1' USR1; trap 'echo asked; exit 7' TERM; echo ready; while :; do sleep 0.05; done"""


def good(home, *arguments, what=None, out=None, **keywords):
    """One husk that has to succeed, with this output if it is given."""
    done = home.husk(*arguments, **keywords)
    ok(done.status == 0 and (out is None or done.text == out), what or "husk " + " ".join(map(str, arguments)), done)
    return done


def bad(home, words, *arguments, status=1, what=None, **keywords):
    """One husk that has to fail, with all of @words in what it says."""
    done = home.husk(*arguments, **keywords)
    ok(done.status == status and all(word in done.error for word in words),
       what or f"husk {' '.join(map(str, arguments))}: {status}, {words}", done)
    return done


def vm(home, name):
    """What ps says of it, {} when there is none."""
    done = home.husk("ps", "-a", "--format", "json")
    return next((v for v in json.loads(done.text) if name in (v["id"], v["name"])), {})


def state(home, name):
    return vm(home, name).get("state")


def detached(home, name, *options, command=("sh", "-c", SCRIPT)):
    """A VM that lives on; its id."""
    done = home.husk("run", "--quiet", "--detach", "--name", name, *options, home.have(images.busybox(), "busybox"), *command)
    if done.status:
        raise AssertionError(str(done))
    return done.text.strip()


def processes():
    return {role: pid for pid, line in lib.descendants().items()
            for role, mark in (("supervisor", "husk-vmm supervisor"), ("worker", "husk-vmm worker"), ("qemu", "qemu-system"))
            if mark in line}


def nothing_left(home):
    """Nothing of any VM is on disk, and no process lives."""
    base = home.path / "home"
    left = [str(path) for folder in ("vms", "vms.new", "vm-names", "run") if (base / folder).is_dir()
            for path in (base / folder).iterdir() if not path.name.startswith(".")]
    equal(left, [], "nothing of a VM is left on disk")
    lib.none_left()


# ---- a life ----

def test_life(home):
    image = home.have(images.busybox(), "busybox")
    id_file = home.path / "id"
    done = good(home, "create", "--name", "life", "--memory", "160M", "--cidfile", id_file, image, "sh", "-c", SCRIPT)
    name = done.text.strip()
    ok(re.fullmatch("[0-9a-f]{12}\n", done.text) and id_file.read_text() == name, "create prints the id, and writes it where it is asked to",
       done)
    bad(home, ["--cidfile", "exists"], "create", "--cidfile", id_file, image)
    equal((state(home, "life"), vm(home, "life").get("status")), ("created", "created"), "it is created")
    equal(home.husk("ps").text.count("\n"), 1, "and does not run")
    for verb in ("pause", "unpause", "kill", "attach", "console"):
        bad(home, ["run"], verb, "life", what=f"{verb} of a VM that never ran")
    waiting = home.start("wait", "life")
    begun = time.monotonic()
    good(home, "start", "--quiet", name[:6], out=name[:6] + "\n", what="start by a prefix, which is what it prints")
    boot = time.monotonic() - begun
    equal(state(home, "life"), "running", "it runs")
    good(home, "start", "--quiet", "life", out="life\n", what="start of a VM that runs changes nothing")
    follower = home.start("logs", "-f", "life")
    follower.wait_for(b"ready\n")
    live(home, follower)
    good(home, "stop", "--time", "20", "life", out="life\n")
    equal(waiting.finish().out, b"7\n", "wait has waited since before the start, and prints the exit status")
    equal(follower.finish().status, 0, "logs -f ends with the VM")
    one = vm(home, "life")
    ok(one["state"] == "stopped" and one["status"].startswith("stopped (7)") and one["exit_code"] == 7, "it is stopped, with its exit status", one)
    good(home, "stop", "life", what="stop of a VM that is stopped changes nothing")
    again(home, boot)
    good(home, "rm", "life", out="life\n")
    nothing_left(home)


def live(home, follower):
    """What can be done with it while it runs."""
    console(home)
    example(home)
    good(home, "kill", "-s", "sigusr1", "life", out="life\n")
    follower.wait_for(b"got USR1\n")
    ok(True, "kill -s sends a signal, and it arrives")
    bad(home, ["TRM", "no signal"], "kill", "-s", "TRM", "life")
    bad(home, ["run"], "rm", "life", what="rm of a VM that runs is refused")
    good(home, "pause", "life", out="life\n")
    equal(state(home, "life"), "paused", "it is paused")
    bad(home, ["paused"], "attach", "life")
    bad(home, ["paused"], "exec", "life", "true", status=125)
    bad(home, ["paused"], "pause", "life", what="pausing twice is refused")
    good(home, "unpause", "life", out="life\n")
    equal(state(home, "life"), "running", "it goes on")
    good(home, "update", "--memory", "100M", "life", out="life\n")
    bad(home, ["made with"], "update", "--memory", "1G", "life", what="more memory than it was made with is refused")
    bad(home, ["--memory"], "update", "life")
    good(home, "rename", "life", "other")
    bad(home, ["life"], "rename", "life", "third", what="the old name is nobody's")
    good(home, "rename", "other", "life")


def again(home, boot):
    """Its disk is kept over starts; start -a shows all of a start and passes signals on."""
    running = home.start("start", "--quiet", "--attach", "life")
    running.wait_for(b"ready\n")
    running.process.send_signal(signal.SIGTERM)
    done = running.finish()
    ok(done.status == 7 and done.out == b"start 2\nready\nasked\n" and done.error.endswith("to-stderr\n"),
       "start -a: all that this start prints, SIGTERM passed on, and the exit status", done)
    good(home, "restart", "--quiet", "life", what="restart of a VM that is stopped starts it")
    follower = home.start("logs", "-f", "life")
    seen = follower.wait_for(b"start 3\nready\n")
    ok(seen.startswith(b"start 1\n") and b"start 2\n" in seen, "logs of all its starts", seen)
    running = home.start("attach", "--no-stdin", "--sig-proxy=false", "life")
    while not select.select([running.process.stdout], [], [], 1)[0]:  # until it follows the log, which nothing tells
        home.husk("kill", "--signal", "USR1", "life")
    ok(running.wait_for(b"got USR1\n") and b"start" not in running.seen, "attach shows what comes, and nothing from before")
    running.process.send_signal(signal.SIGTERM)
    done = running.finish()
    ok(done.status == 143 and state(home, "life") == "running", "without --sig-proxy a signal ends attach, and not the VM", done)
    good(home, "kill", "life")
    one = vm(home, "life")
    ok(one["state"] == "stopped" and one["exit_code"] == 137, "kill ends it at once: 137", one)
    equal(home.husk("wait", "life", "nobody").out, b"137\n", "wait tells it afterwards, too")


def test_remove_at_the_end(home):
    """run -d --rm: nobody's child, and gone when it ends, with an exit status for who has waited."""
    image = home.have(images.busybox(), "busybox")
    name = detached(home, "short", "--rm", "-i", command=("sh", "-c", "read x; echo $x; exit 5"))
    stat = {role: lib._stat(pid)[0] for role, pid in processes().items()}
    equal(stat["supervisor"], os.getpid(), "its supervisor is no child of a husk (it fell to this test, the reaper)")
    waiting = home.start("wait", name)
    bad(home, ["short", "taken"], "create", "--name", "short", image, what="its name is taken")
    done = home.husk("attach", "short", input=b"typed\n")
    ok(done.status == 5 and done.out == b"typed\n", "attach feeds stdin, shows the output, and ends with the exit status", done)
    equal(waiting.finish().out, b"5\n", "wait tells the exit status of a VM that is removed at its end")
    lib.none_left()
    nothing_left(home)


# ---- terminals ----

class Terminal:
    """A husk on a pseudo-terminal of ours."""

    def __init__(self, home, *arguments):
        self.master, slave = pty.openpty()
        self.running = home.start(*arguments, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        self.seen = b""

    def type(self, text):
        os.write(self.master, text)

    def wait_for(self, text):
        deadline = time.monotonic() + lib.LIMIT
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
            try:
                chunk = os.read(self.master, 4096) if ready else b""
            except OSError:
                chunk = b""
            if not chunk:
                raise AssertionError(f"{text!r} did not come: {self.seen!r}")
            self.seen += chunk

    def finish(self):
        try:
            return self.running.process.wait(lib.LIMIT)
        finally:
            while select.select([self.master], [], [], 0)[0]:
                try:
                    self.seen += os.read(self.master, 65536)
                except OSError:  # EIO: nobody has the other end
                    break
            os.close(self.master)


def test_terminal(home):
    """A shell on a terminal, left and found again; then the worker dies, and later the supervisor."""
    detached(home, "shell", "-it", command=("sh",))
    bad(home, ["TTY"], "attach", "shell", what="a terminal's VM wants a terminal, or no stdin")
    one = Terminal(home, "attach", "shell")
    one.type(b"echo a$((1+1))b\n")
    one.wait_for(b"a2b")
    one.type(b"\x10\x11")
    equal(one.finish(), 0, "ctrl-p,ctrl-q leaves")
    ok(b"lives on" in one.seen and state(home, "shell") == "running", "and the VM lives on", one.seen)
    one = Terminal(home, "attach", "--detach-keys", "x,y", "shell")
    one.type(b"echo c$((1+2))xd\n")
    one.wait_for(b"c3xd")
    one.type(b"xy")
    equal(one.finish(), 0, "other detach keys, which may begin in what is typed")
    deaths(home)
    good(home, "rm", "-f", "shell")
    nothing_left(home)


def example(home):
    """examples/exec.c: a chain, a limit of time, files."""
    libexec = os.environ.get("HUSK_LIBEXEC") or str(lib.TOP / "build" / "libexec")
    done = subprocess.run([lib.TOP / "build" / "examples" / "exec", "life"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env={**home.environment(), "HUSK_LIBEXEC": libexec}, timeout=lib.LIMIT)
    equal(done.stdout, b"exit status 0 after command 3:\n3 /tmp/names\nbarley\noats\nrye\n"
          b"6 bytes; timed out: yes, exit status 124\n24 bytes back, the same\n", "a program runs more in it", done.stderr.decode())


def console(home):
    path = json.loads(home.husk("inspect", "life").text)[0].get("console") or ""
    ok(path.startswith("/dev/pts/"), "inspect tells the console's path", path)
    one = Terminal(home, "console", "life")
    talker = home.start("exec", "life", "sh", "-c", "echo spoken-$((4+1)) > /dev/console; read line < /dev/console; echo heard $line")
    one.wait_for(b"spoken-5")
    one.type(b"hello\n")
    done = talker.finish()
    ok(done.out == b"heard hello\n", "the console: what the guest says there is seen, and what is typed arrives", done)
    one.type(b"\x10\x11")
    equal(one.finish(), 0, "the detach keys leave it")


def host_restarted(path):
    """Have the record say that it was written in an earlier boot of the host."""
    data = bytearray(path.read_bytes())
    for at in range(0, len(data), 16384):
        size = struct.unpack_from("<I", data, at + 8)[0]
        data[at + 16 + 28:at + 16 + 28 + 36] = b"00000000-0000-0000-0000-000000000000"
        struct.pack_into("<I", data, at + 12, zlib.crc32(bytes(data[at + 16:at + 16 + size])))
    path.write_bytes(data)


def deaths(home):
    found = processes()
    os.kill(found["worker"], signal.SIGKILL)
    equal(home.husk("wait", "shell").out, b"125\n", "the worker dies: 125")
    one = vm(home, "shell")
    ok(one["state"] == "stopped" and "worker lost" in one["status"] and "signal 9" in one["reason"],
       "ps: stopped (worker lost), with the cause", one)
    lib.none_left()
    good(home, "start", "--quiet", "shell", what="it can be started again")
    folder = home.vms()[0]
    record = (folder / "state").read_bytes()
    found = processes()
    os.kill(found["supervisor"], signal.SIGKILL)
    equal(lib.wait_gone(found.values()), [], "the supervisor dies, and all of the VM with it")
    one = vm(home, "shell")
    ok(one["state"] == "stopped" and "supervisor lost" in one["status"], "ps: stopped (supervisor lost)", one)
    (folder / "state").write_bytes(record)
    host_restarted(folder / "state")
    one = vm(home, "shell")
    ok(one["state"] == "stopped" and "host restarted" in one["status"], "after a restart of the host: stopped (host restarted)", one)


# ---- many, and at once ----

def run_all(home, *lines):
    """Several husk at once, to their ends."""
    running = [home.start(*line) for line in lines]
    return [one.finish() for one in running]


def test_races(home):
    image = home.have(images.busybox(), "busybox")
    good(home, "create", "--name", "raced", image, "sh", "-c", SCRIPT)
    done = run_all(home, *[("start", "--quiet", "raced")] * 3)
    ok(any(one.status == 0 for one in done) and all(one.status == 0 or "start" in one.error for one in done),
       "three starts at once: one starts it", "\n".join(map(str, done)))
    equal(sum("husk-vmm supervisor" in line for line in lib.descendants().values()), 1, "it runs once")
    done = run_all(home, *[("rm", "-f", "raced")] * 3)
    ok(all(one.status == 0 for one in done) and sum(one.out == b"raced\n" for one in done) >= 1,
       "three rm -f at once: it is gone for all of them", "\n".join(map(str, done)))
    nothing_left(home)
    done = run_all(home, *[("create", "--name", "one-name", image)] * 4)
    equal(sorted(one.status for one in done), [0, 1, 1, 1], "four creates of one name: one has it", "\n".join(map(str, done)))
    ok(all("one-name" in one.error for one in done if one.status), "and the others say so")
    done = run_all(home, *[("rm", "one-name")] * 3)
    equal(sorted(one.status for one in done), [0, 1, 1], "three rm at once: one has removed it", "\n".join(map(str, done)))
    nothing_left(home)


def seconds_of(home, *arguments):
    """CPU time of a husk with its children."""
    before = os.times()
    done = home.husk(*arguments)
    after = os.times()
    if done.status:
        raise AssertionError(str(done))
    return after.children_user + after.children_system - before.children_user - before.children_system


def test_many(home):
    """Fifty VMs made, listed and removed; the last ones cost what the first ones did."""
    image = home.have(images.busybox(), "busybox")
    create = ("create", "--quiet", image, "true")
    first = min(seconds_of(home, *create) for _ in range(5))
    done = run_all(home, *[create] * 40)
    equal([one.status for one in done if one.status], [], "forty creates at once")
    last = min(seconds_of(home, *create) for _ in range(5))
    ok(last < 1.5 * first + 0.02, f"the 50th create costs what the first does ({first * 1000:.0f} and {last * 1000:.0f} ms of CPU)")
    ids = home.husk("ps", "-a", "-q").text.split()
    equal((len(ids), len(set(ids))), (50, 50), "all are listed")
    done = good(home, "rm", *ids, what="rm of fifty at once")
    equal(done.text.split(), ids, "which names each, in order")
    nothing_left(home)


# ---- wrong input, and records that are not as they should be ----

def copy_of(home, original, new):
    """A record with another id, as if it had been made."""
    folder = home.path / "home" / "vms"
    subprocess.run(["cp", "-a", folder / original, folder / new], check=True)
    record = json.loads((folder / new / "vm.json").read_text())
    record["id"] = new
    (folder / new / "vm.json").write_text(json.dumps(record))
    return folder / new


def test_references(home):
    image = home.have(images.busybox(), "busybox")
    name = good(home, "create", image, "true").text.strip()
    twin = name[:8] + ("0000" if name[8:] != "0000" else "1111")
    copy_of(home, name, twin)
    bad(home, [name[:5]], "rm", name[:5], what="a prefix that fits two is refused")
    bad(home, ["ab"], "rm", "ab", what="a prefix of two digits is none")
    done = home.husk("rm", "nobody", name, "no-one")
    ok(done.status == 1 and done.text == name + "\n" and "nobody" in done.error and "no-one" in done.error,
       "of several, each is tried: the one that is there is removed, the others are named", done)
    good(home, "rm", "-f", "nobody", twin, out=twin + "\n", what="rm -f of what is not there is no failure")
    bad(home, ["taken"], "create", "--name", "taken/no", image, what="a name that is none")
    for words, line in (
            (["-d", "--serial"], ("run", "-d", "--serial", "inherit", image)),
            (["--log-size"], ("run", "--log-size", "1M", image)),
    ):
        bad(home, words[1:], *line, status=125)
    bad(home, ["one VM"], "start", "-a", "x", "y")
    bad(home, ["unknown option"], "rm", "-v", "x")
    nothing_left(home)


def test_damaged_records(home):
    image = home.have(images.busybox(), "busybox")
    ids = [good(home, "create", image, "true").text.strip() for _ in range(4)]
    folder = home.path / "home" / "vms"
    newer, torn, stateless, fine = ids
    record = json.loads((folder / newer / "vm.json").read_text())
    record["schema"] = 99
    (folder / newer / "vm.json").write_text(json.dumps(record))
    (folder / torn / "vm.json").write_bytes((folder / torn / "vm.json").read_bytes()[:70])
    (folder / stateless / "state").write_bytes(b"\xff" * 100)
    (folder / fine / "lock").write_text("999999 a process of long ago")
    listed = {one["id"]: one for one in json.loads(home.husk("ps", "-a", "--format", "json").text)}
    equal(sorted(listed), sorted(ids), "records that cannot be read are listed, too")
    ok(all(listed[one]["state"] == "error" and listed[one]["reason"] for one in (newer, torn)), "as errors, with the reason",
       json.dumps(listed, indent=1))
    equal(listed[fine]["state"], "created", "and the others as they are")
    bad(home, [newer], "start", newer, what="a record of a newer husk is not started")
    bad(home, [torn], "start", torn, what="nor a torn one")
    good(home, "gc")
    ok((folder / newer / "vm.json").exists(), "gc leaves what it cannot read")
    good(home, "rm", fine, what="a lock that a dead process has left is in nobody's way")
    bad(home, [newer], "rm", newer, what="rm leaves a newer husk's VM to that")
    good(home, "rm", "-f", torn, stateless, what="rm -f removes what is damaged")
    subprocess.run(["rm", "-rf", folder / newer], check=True)
    nothing_left(home)


# A home on a file system with so many KiB free, in a mount namespace of its own; images and kernels are the home's.
SMALL_HOME = r"""set -e
mkdir -p "$1"; mount -t tmpfs -o size=16m,mode=700 none "$1"
for folder in "$2"/*/; do
	case $(basename "$folder") in vms|vms.new|vm-names|run) continue;; esac
	mkdir "$1/$(basename "$folder")"; mount --bind "$folder" "$1/$(basename "$folder")"
done
export HUSK_HOME="$1"
husk=$3 image=$4; shift 4
for free in $*; do
	head -c $((16384 * 1024)) /dev/zero > "$HUSK_HOME/ballast" 2>/dev/null || :
	truncate -s $(( $(stat -c %s "$HUSK_HOME/ballast") - free * 1024 )) "$HUSK_HOME/ballast"
	if "$husk" create --quiet "$image" true > "$HUSK_HOME/../out" 2> "$HUSK_HOME/../err"; then
		rm "$HUSK_HOME/ballast"; "$husk" rm $(cat "$HUSK_HOME/../out") > /dev/null; echo "$free made"
	else
		rm "$HUSK_HOME/ballast"; echo "$free $(tr '\n' ' ' < "$HUSK_HOME/../err")"
	fi
	find "$HUSK_HOME/vms" "$HUSK_HOME/vms.new" "$HUSK_HOME/vm-names" -mindepth 1 2>/dev/null | sed 's/^/left /'
done
"""


def test_full_disk(home):
    """create with 0, 4, 8 … KiB free: it works or says why, and leaves nothing."""
    image = home.have(images.busybox(), "busybox")
    small = home.path / "small" / "home"
    done = subprocess.run(["unshare", "-m", "sh", "-c", SMALL_HOME, "sh", small, home.path / "home", lib.HUSK, image,
                           *map(str, range(0, 64, 4)), "8192"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=home.environment(), timeout=lib.LIMIT)
    if b"unshare" in done.stderr or b"mount" in done.stderr:
        raise lib.Skip("no mount namespace to be had")
    lines = done.stdout.decode().splitlines()
    ok(done.returncode == 0 and lines and lines[-1] == "8192 made", "with room it is made", f"{lines} {done.stderr}")
    refused = [line for line in lines if not line.endswith(" made")]
    ok(refused and all("space" in line.lower() for line in refused), "without room that is said, and nothing is left", "\n".join(lines))


lib.main(globals())
