#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""views_test.py - what looks at VMs and cleans up: ps, logs, events, inspect, stats, prune, gc; on records that are made up, and on
one VM that runs."""
import json
import os
import re
import signal
import struct
import time
import zlib

import images
from lib import Home, equal, main, none_left, ok

CREATING, STARTING, RUNNING, PAUSED, STOPPED, ERROR, CREATED = range(1, 8)
END_EXITED, END_WORKER, END_SUPERVISOR = 1, 8, 9
BOOT = open("/proc/sys/kernel/random/boot_id").read().strip()
GONE = (0x7ffffff0, 5)  # a process that does not live


def start_time(pid):
    return int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[19])


def state_bytes(state, generation=1, end=0, value=0, boot=BOOT, supervisor=(0, 0), started=0, ended=0, reason=b"", doors=()):
    """A state record as base/state.c has it."""
    body = struct.pack("<QIIIQ40s", generation, state, end, value, time.time_ns(), boot.encode())
    body += struct.pack("<iQ", *supervisor) + struct.pack("<iQiQ", 0, 0, 0, 0)
    body += struct.pack("<QQQQII64s512s", 0, 0, started, ended, 1, 0, b"", reason)
    for i, (kind, port, endpoint) in enumerate(doors):
        body += struct.pack("<IIIIQQ112s32s32s", i + 1, kind, port, 0, 0, 0, endpoint, b"", b"")
    slot = struct.pack("<IHHII", 0x54534b48, 3, 0, len(body), zlib.crc32(body)) + body
    return (b"\0" * 16384 if generation % 2 else b"") + slot


class Records:
    """VMs that never were, in a home of their own."""

    def __init__(self, home):
        self.home, self.folder, self.n = home, home.path / "home", 0

    def add(self, state, name=None, image="debian:12", created=None, lifetime="detached", config=None, **more):
        vm = "%012x" % (0xabc000000000 + self.n * 7919)
        created = created or "2026-01-01T00:00:00.%09dZ" % self.n
        self.n += 1
        path = self.folder / "vms" / vm
        path.mkdir(parents=True)
        text = {"image": image, "image_id": "sha256:" + "%064x" % 0xfeed, "lifetime": lifetime, "wall": "software",
                "config": config or {"image": image, "env": ["A=\"}{\\"]}, "command": ["sh", "-c", "sleep 1000"], "schema": 1, "id": vm,
                "name": name, "created": created}
        (path / "vm.json").write_text(json.dumps(text, indent=2))
        (path / "state").write_bytes(state_bytes(state, **more) if isinstance(state, int) else state)
        for file in ("lock", "log"):
            (path / file).touch()
        if name:
            (self.folder / "vm-names").mkdir(exist_ok=True)
            (self.folder / "vm-names" / name).write_text(vm)
        return vm

    def path(self, vm):
        return self.folder / "vms" / vm


def table(home, *arguments):
    """Rows of ps by id: {heading: cell}."""
    lines = home.husk("ps", *arguments).text.splitlines()
    at = [(m.group(), m.start()) for m in re.finditer(r"\S+", lines[0])]
    ends = [start for _, start in at[1:]] + [None]
    return {line.split()[0]: {name: line[start:end].strip() for (name, start), end in zip(at, ends)} for line in lines[1:]}


def test_ps(_):
    with Home(kernel=False) as home:
        records = Records(home)
        now = time.time_ns()
        me = (os.getpid(), start_time(os.getpid()))
        ids = {
            "created": records.add(CREATED, "one"),
            "running": records.add(RUNNING, "two", supervisor=me, started=now - 190 * 10**9,
                                   doors=((2, 80, b"127.0.0.1:8080"), (3, 0, b"/x/exec.sock"), (2, 0, b"[::1]:81"))),
            "paused": records.add(PAUSED, "three", supervisor=me, started=now - 7300 * 10**9, image="busybox"),
            "exited": records.add(STOPPED, "four", end=END_EXITED, value=3, ended=now - 65 * 10**9, supervisor=GONE),
            "worker": records.add(STOPPED, "five", end=END_WORKER, ended=now - 10**9, reason=b"its worker died"),
            "lost": records.add(RUNNING, "six", supervisor=GONE, started=now),
            "rebooted": records.add(RUNNING, "seven", supervisor=me, boot="another boot", started=now),
            "error": records.add(ERROR, "eight", end=12, reason=b"husk failed: no room"),
            "torn": records.add(RUNNING, "nine", supervisor=me),
            "newer": records.add(RUNNING, "ten", supervisor=me),
            "damaged": records.add(b"\xff" * 500, "eleven"),
            "future": records.add(STOPPED, "twelve", end=END_EXITED),
        }
        torn = records.path(ids["torn"]) / "vm.json"
        torn.write_text(torn.read_text()[:200])
        newer = records.path(ids["newer"]) / "state"
        newer.write_bytes(newer.read_bytes().replace(struct.pack("<IH", 0x54534b48, 3), struct.pack("<IH", 0x54534b48, 4)))
        future = records.path(ids["future"]) / "vm.json"
        future.write_text(future.read_text().replace('"schema": 1', '"schema": 2'))
        rows = table(home, "-a")
        got = {key: rows[vm]["STATUS"] for key, vm in ids.items()}
        for key, want in {"created": "created", "running": "up 3 minutes", "paused": "up 2 hours (paused)",
                          "exited": "stopped (3) 1 minute ago", "error": "error: husk failed: no room"}.items():
            equal(got[key], want, f"the status of one that is {key}")
        for key, want in {"worker": "stopped (worker lost)", "lost": "stopped (supervisor lost)",
                          "rebooted": "stopped (host restarted)", "torn": "error: its vm.json is damaged",
                          "newer": "error: it was written by another version", "damaged": "error: its state record is damaged",
                          "future": "error: it was written by another version"}.items():
            ok(got[key].startswith(want), f"the status of one that is {key}", got[key])
        equal(rows[ids["running"]]["PORTS"], "127.0.0.1:8080->80/tcp, [::1]:81->first/tcp", "its ports")
        equal(rows[ids["running"]]["COMMAND"], '"sh -c sleep 1000"', "its command")
        equal([rows[ids["running"]][k] for k in ("IMAGE", "NAMES")], ["debian:12", "two"], "its image and name")
        ok(rows[ids["running"]]["CREATED"].endswith(" ago"), "its age")
        shown = set(table(home))
        ok({ids["running"], ids["paused"]} <= shown and not shown & {ids["created"], ids["exited"], ids["lost"]},
           "without -a those that run, and none that does not", shown)

        def listed(*arguments):
            return home.husk("ps", "-q", *arguments).text.split()

        equal(listed("-l"), [ids["damaged"]], "-l: the last one whose time can be read")
        equal(listed("-n", "2"), [ids["damaged"], ids["newer"]], "-n 2: the last two")
        equal(listed("-f", "status=exited", "-f", "exited=3"), [ids["exited"]], "filters of two keys narrow down")
        equal(listed("-f", "name=one", "-f", "name=two"), [ids["running"]], "of one key add up, among those that run")
        equal(sorted(listed("-a", "-f", "name=one", "-f", "name=two")), sorted([ids["created"], ids["running"]]), "with -a among all")
        equal(listed("-f", "ancestor=busybox"), [ids["paused"]], "by image")
        equal(len(listed("-a", "-f", "ancestor=" + "%064x" % 0xfeed)), 10, "and by its id, as far as records can be read")
        equal(listed("-a", "-f", "id=" + ids["error"][:9]), [ids["error"]], "by id")
        for wrong in ("x=1", "status=odd", "exited=x", "name="):
            done = home.husk("ps", "-f", wrong)
            ok(done.status == 1 and "--filter" in done.error, f"--filter {wrong} is refused", done)
        vms = json.loads(home.husk("ps", "-a", "--format", "json").out)
        equal(len(vms), len(ids), "as JSON, all of them")
        one = next(vm for vm in vms if vm["id"] == ids["exited"])
        ok(one["exit_code"] == 3 and one["command"] == ["sh", "-c", "sleep 1000"] and one["state"] == "stopped"
           and one["name"] == "four" and one["ports"] == [], "with what there is to say", one)
        inspected = json.loads(home.husk("inspect", "four", "two", "no-such").out)
        ok(len(inspected) == 2 and inspected[0]["exit_code"] == 3 and inspected[0]["ended"] and inspected[0]["logs"]
           and inspected[1]["state"] == "running" and inspected[1]["doors"][0]["guest_port"] == 80,
           "inspect tells of those that have ended and of those that run", inspected)


def test_thousand(_):
    with Home(kernel=False) as home:
        records = Records(home)
        for i in range(1000):
            records.add(STOPPED, f"vm-{i}", end=END_EXITED, ended=time.time_ns(), supervisor=GONE)
        before = os.times()
        done = home.husk("ps", "-a")
        after = os.times()
        spent = (after.children_user + after.children_system) - (before.children_user + before.children_system)
        lines = done.text.splitlines()
        ok(done.status == 0 and len(lines) == 1001 and "vm-999" in lines[1] and "vm-0" in lines[1000].split()[-1],
           "a thousand records are listed, the newest first", done)
        ok(spent < 0.5, "in a moment", f"{spent:.3f} s of CPU")
        print(f"# ps -a of 1000 records: {done.seconds * 1000:.0f} ms, {spent * 1000:.0f} ms of CPU")
        equal(len(json.loads(home.husk("ps", "-a", "--format", "json").out)), 1000, "as JSON, too")


def test_gc(_):
    with Home(kernel=False) as home:
        records = Records(home)
        me = (os.getpid(), start_time(os.getpid()))
        live, idle = records.add(RUNNING, "live", supervisor=me), records.add(STOPPED, "idle", end=END_EXITED)
        folder = records.folder
        left = ["vms.new/aaaaaaaaaaaa", "vms/cccccccccccc", "run/bbbbbbbbbbbb"]
        for name in left:
            (folder / name).mkdir(parents=True)
        (folder / "run").chmod(0o700)
        (folder / "run" / live).mkdir()
        (folder / "vms/cccccccccccc/scratch.img").write_text("x")
        files = {"vm-names/gone": "dddddddddddd", "vm-names/torn": "x", "vm-names/was": idle, f"vms/{idle}/vm.json.AbCdEf": "{"}
        for name, text in files.items():
            (folder / name).write_text(text)
        before = {p: p.stat().st_mtime_ns for p in (folder / "vms" / live).iterdir()}
        done = home.husk("gc", "--dry-run")
        lines = done.text.splitlines()
        for name in [*left, *files]:
            ok(any(line.startswith("would remove") and name in line and ": " in line for line in lines), f"gc --dry-run names {name}", done)
        ok(all((folder / name).exists() for name in [*left, *files]), "and removes nothing")
        both = [home.start("gc") for _ in range(2)]
        text = b"".join(run.finish().out for run in both).decode()
        for name in [*left, *files]:
            ok(text.count(name) == 1 and not (folder / name).exists(), f"two at once remove {name}, one of them says so", text)
        ok(all((folder / name).exists() for name in (f"vms/{live}/vm.json", f"vms/{idle}/vm.json", f"run/{live}", "vm-names/live", "vm-names/idle"))
           and before == {p: p.stat().st_mtime_ns for p in (folder / "vms" / live).iterdir()}, "nothing of a VM is touched")
        equal(home.husk("gc").text, "", "then there is nothing to collect")
        one = home.husk("import", images.busybox(), "unused").text.strip()
        torn = folder / "vms" / idle / "vm.json"
        text = torn.read_text()
        torn.write_text(text[:100])
        done = home.husk("gc", "--images")
        ok("kept all images" in done.text and idle in done.text and home.husk("image", "inspect", "unused").status == 0,
           "with a record that cannot be read all images are kept", done)
        torn.write_text(text.replace("sha256:" + "%064x" % 0xfeed, one))
        home.husk("gc", "--images")
        equal(home.husk("image", "inspect", "unused").status, 0, "and so is one that a VM uses")
        torn.write_text(text)
        ok("no VM uses it" in home.husk("gc", "--images", "--dry-run").text and home.husk("image", "inspect", "unused").status == 0,
           "one that no VM uses is named")
        home.husk("gc", "--images")
        equal(json.loads(home.husk("images", "--format", "json").out), [], "and removed")
        done = home.husk("prune")
        ok(done.status == 1 and "--force" in done.error and (folder / "vms" / idle).exists(), "prune without a terminal wants --force", done)
        done = home.husk("prune", "-f")
        ok(done.text.splitlines()[0] == idle and "reclaimed" in done.text and not (folder / "vms" / idle).exists()
           and (folder / "vms" / live).exists(), "prune removes what does not run", done)


def samples(text):
    """The text format of Prometheus, strictly: {metric: [(labels, value)]}."""
    found, typed, last = {}, {}, None
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in typed and kind in ("counter", "gauge"), line
            typed[name] = kind
        elif not line.startswith("# HELP "):
            match = re.fullmatch(r'([a-z_]+)\{((?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)*)\} ([0-9.e+-]+)', line)
            assert match and match.group(1) in typed and (last == match.group(1) or match.group(1) not in found), line
            last = match.group(1)
            labels = dict(re.findall(r'([a-z]+)="((?:[^"\\]|\\.)*)"', match.group(2)))
            found.setdefault(last, []).append((labels, float(match.group(3))))
    assert all(name.endswith("_total") == (kind == "counter") for name, kind in typed.items()), typed
    return found


def stats(home):
    one = json.loads(home.husk("stats", "--format", "json", "web").out)[0]
    ok(one["name"] == "web" and one["cpu_ns"] > 0 and one["memory"]["limit"] == 128 << 20 and 0 < one["memory"]["used"] <= 128 << 20
       and one["block"]["read_bytes"] > 0 and one["pids"] >= 2, "stats tells what a VM uses", one)
    found = samples(home.husk("stats", "--prometheus").text)
    ok(found["husk_vm_cpu_seconds_total"][0][0]["name"] == "web" and found["husk_vm_cpu_seconds_total"][0][1] > 0
       and found["husk_vm_memory_bytes"][0][1] > 0, "as Prometheus reads it", found)
    lines = home.husk("stats").text.splitlines()
    ok(len(lines) == 2 and lines[0].startswith("ID ") and "web" in lines[1] and re.search(r"[0-9.]+%", lines[1]), "and as a table", lines)


def test_running(home):
    home.have(images.busybox(), "bb")
    events = home.start("events")
    script = "echo out; echo err >&2; read x; echo got $x; trap 'exit 7' TERM; while :; do sleep 0.1; done"
    begun = time.time()
    done = home.husk("run", "-q", "-d", "-i", "-m", "128M", "--name", "web", "bb", "sh", "-c", script)
    vm = done.text.strip()
    ok(done.status == 0, "a VM that lives on", done)
    events.wait_for(b'"ready"')
    follow = home.start("logs", "-f", "web")
    follow.wait_for(b"out\n")
    ok(table(home)[vm]["STATUS"].startswith("up "), "ps shows it")
    stats(home)
    boot = home.husk("logs", "--boot", "-t", "-n", "20", "web")
    ok(boot.status == 0 and len(boot.text.splitlines()) >= 1 and all(re.match(r"2\d{3}-\d\d-\d\dT", line) for line in boot.text.splitlines()),
       "logs --boot has its console, with times", boot)
    equal(home.husk("logs", "-n", "1", "--since", str(int(begun) - 1), "web").status, 0, "logs by time")
    gone = home.start("logs", "-f", "web")
    gone.wait_for(b"out\n")
    gone.process.send_signal(signal.SIGINT)
    equal(gone.finish().status, 130, "Ctrl-C ends logs -f with 130")
    home.husk("stop", "-t", "2", "web")
    done = follow.finish()
    ok(done.status == 0 and done.out == b"out\n" and done.err == b"err\n", "logs -f ends with the VM, its streams apart", done)
    one = json.loads(home.husk("inspect", "web").out)[0]
    ok(one["state"] == "stopped" and one["exit_code"] in (7, 143, 137) and one["started"] < one["ended"] and one["starts"] == 1, "inspect tells how it ended", one)
    done = home.husk("prune", "-f")
    ok(vm in done.text, "prune removes it", done)
    events.wait_for(b'"removed"')
    events.process.send_signal(signal.SIGTERM)
    told = [json.loads(line) for line in events.finish().out.splitlines()]
    names = [event["event"] for event in told]
    equal([n for n in names if n in ("created", "started", "ready", "stopped", "removed")],
          ["created", "started", "ready", "stopped", "removed"], "events told all of it, in order")
    past = home.husk("events", "--since", "1h", "--until", "0s", "--filter", "vm=web", "--filter", "event=removed", "--format", "table")
    ok(past.status == 0 and len(past.text.splitlines()) == 1 and vm in past.text, "and can be asked for later", past)
    none_left()


if __name__ == "__main__":
    main(globals())
