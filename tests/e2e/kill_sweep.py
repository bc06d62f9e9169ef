# SPDX-License-Identifier: Apache-2.0
"""kill_sweep.py - kill -9 of any process at any moment of a VM's life: afterwards nothing lies and nothing lingers.

Theory of operation: a loop of husk commands makes a VM, starts it, runs something in it, stops it and removes it, while another VM,
the bystander, just runs. In each loop one process of it dies: either a random one at a moment drawn from the length of an
undisturbed loop, or one of a chosen role as soon as it is seen, which is when it has done nothing yet. The loop ends with the
command under way. Then `husk ps` has to tell what /proc tells, `husk gc` and `husk rm -f` have to leave nothing but the bystander,
and that one must not have been touched. All chance comes from one seed, which is printed.
"""
import hashlib
import json
import os
import random
import signal
import subprocess
import time

import images
import lib
from lib import equal, ok

NAME, BYSTANDER = "sweep", "bystander"
MARKS = (("supervisor", "husk-vmm supervisor"), ("worker", "husk-vmm worker"), ("qemu", "qemu-system"),
         ("remove", "husk-remove"), ("image", "husk-image"))
LIVING = ("starting", "running", "paused")
SETTLE = 2  # seconds in which a supervisor has to have noted a death
COMMAND_LIMIT = 60  # seconds that a command may take whose counterpart was killed
WORKLOAD = ("busybox", "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")


def role_of(line):
    return next((role for role, mark in MARKS if mark in line), "cli" if line.startswith(lib.HUSK) else "tool")


def steps(removes):
    """The loop: (what it is called, arguments)."""
    kept = ("--rm",) if removes else ()
    return (("create", ("create", "--quiet", "--name", NAME, *kept, *WORKLOAD)), ("start", ("start", "--quiet", NAME)),
            ("exec", ("exec", NAME, "true")), ("stop", ("stop", "-t", "4", NAME)), ("rm", ("rm", "-f", NAME)))


class Sweep:
    def __init__(self, home, seed):
        self.home, self.random, self.seed = home, random.Random(seed), seed
        self.bystanders = {}

    def begin(self):
        self.home.have(images.busybox(), "busybox")
        done = self.home.husk("run", "--quiet", "--detach", "--name", BYSTANDER, *WORKLOAD)
        if done.status:
            raise AssertionError(f"no bystander: {done}")
        self.id = done.text.strip()
        self.bystanders = lib.descendants()
        self.before = self.fingerprint()
        begun = time.monotonic()
        for what, arguments in steps(False):
            done = self.home.husk(*arguments)
            if done.status:
                raise AssertionError(f"an undisturbed loop: {done}")
        self.length = time.monotonic() - begun
        print(f"# seed {self.seed}; an undisturbed loop takes {self.length:.1f} s", flush=True)

    def end(self):
        done = self.home.husk("rm", "-f", BYSTANDER)
        equal(done.status, 0, "the bystander can be removed", done)
        lib.none_left()

    # ---- what there is ----

    def fingerprint(self):
        """What must not change of the bystander: its files, and what is in those that nobody has a reason to write."""
        folder = self.home.path / "home" / "vms" / self.id
        files = {path.name: path.stat().st_ino for path in folder.iterdir()}
        return files, [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("vm.json", "lock")]

    def processes(self):
        """The loop's own, {pid: role}."""
        return {pid: role_of(line) for pid, line in lib.descendants().items() if pid not in self.bystanders}

    def left(self):
        """Names beneath the folders of VMs that are not the bystander's."""
        base, found = self.home.path / "home", []
        for folder in ("vms", "vms.new", "vm-names", "run"):
            for path in sorted((base / folder).iterdir()) if (base / folder).is_dir() else ():
                if path.name not in (self.id, BYSTANDER) and not path.name.startswith("."):
                    found.append(str(path.relative_to(base)))
        return found

    def listed(self):
        done = self.home.husk("ps", "-a", "--format", "json")
        if done.status:
            raise AssertionError(str(done))
        return {vm["id"]: vm for vm in json.loads(done.text)}

    # ---- a death ----

    def victim(self, role):
        """A process of the loop that has this role (None: any), or None."""
        found = sorted(pid for pid, has in self.processes().items() if role in (None, has))
        return self.random.choice(found) if found else None

    def kill(self, role):
        """(what was killed) or None."""
        pid = self.victim(role)
        if not pid:
            return None
        line = lib.descendants().get(pid, "")
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return None
        return f"{role_of(line)} {pid}"

    def loop(self, role, moment, removes):
        """One loop with one death in it: of @role at its birth, or of anybody at @moment. (what died, in which command); None: @role
        was never seen."""
        begun = time.monotonic()
        for what, arguments in steps(removes):
            process = subprocess.Popen([lib.HUSK, *map(str, lib.on_machine(arguments))], env=self.home.environment(),
                                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            died = None
            while not died:
                if role or time.monotonic() - begun >= moment:
                    died = self.kill(role)
                if process.poll() is not None and not died:
                    break
                if not died and not role:
                    try:
                        process.wait(max(0.001, begun + moment - time.monotonic()))
                    except subprocess.TimeoutExpired:
                        pass
            try:
                process.wait(COMMAND_LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                ok(False, f"husk {what} ends though {died} was killed")
            if died:
                return died, what
        if role:
            return None, None
        self.length = time.monotonic() - begun  # the machine has become quicker: it was over before its moment
        return self.loop(role, self.random.uniform(0, self.length), removes)

    # ---- the truth ----

    def point(self, role=None):
        moment = 0 if role else self.random.uniform(0, self.length)
        removes = role == "remove" or self.random.random() < 0.3
        died, what = self.loop(role, moment, removes)
        if not died:
            return ok(False, f"a {role} is seen, to be killed")
        where = f"{died} killed in {what}" + (" at its birth" if role else "") + (" (--rm)" if removes else "")
        problems = self.look()
        return ok(not problems, where, "\n".join(problems))

    def look(self):
        """What is not as it has to be."""
        problems, listed = [], self.listed()
        if listed.pop(self.id, {}).get("state") != "running":
            problems.append("the bystander is not listed as running")
        living = self.settle()
        if living and (missing := {"supervisor", "worker"} - set(self.processes().values())):
            problems.append(f"ps says {living}, and there is no {missing}")
        if not living and (stuck := lib.wait_gone(self.processes(), 20)):
            problems.append(f"ps says {list(listed.values())}, and {[lib.descendants().get(pid) for pid in stuck]} live")
        return problems + self.clean(listed) + self.untouched()

    def settle(self):
        """What ps says lives. A supervisor ends QEMU before it writes down that the worker has died: it is given a moment."""
        deadline = time.monotonic() + SETTLE
        while True:
            living = [vm for vm in self.listed().values() if vm["state"] in LIVING and vm["id"] != self.id]
            if not living or {"supervisor", "worker"} <= set(self.processes().values()) or time.monotonic() > deadline:
                return living

    def clean(self, listed):
        problems = []
        done = self.home.husk("gc")
        if done.status:
            problems.append(f"gc: {done}")
        listed = self.listed()
        listed.pop(self.id, None)
        if listed:
            done = self.home.husk("rm", "-f", *listed)
            if done.status:
                problems.append(f"rm -f: {done}")
        stuck = lib.wait_gone(self.processes(), 20)
        if stuck:
            problems.append(f"processes are left: {[lib.descendants().get(pid) for pid in stuck]}")
        if self.left():
            problems.append(f"files are left: {self.left()}")
        return problems

    def untouched(self):
        problems = []
        if self.fingerprint() != self.before:
            problems.append(f"files of the bystander have changed: {self.before} {self.fingerprint()}")
        done = self.home.husk("exec", BYSTANDER, "echo", "here")
        if (done.status, done.out) != (0, b"here\n"):
            problems.append(f"the bystander does not answer: {done}")
        return problems


def sweep(home, points, births):
    """@points deaths, of which those of @births at a birth."""
    one = Sweep(home, int(os.environ.get("HUSK_TEST_SEED") or random.randrange(1 << 32)))
    one.begin()
    for role in births:
        one.point(role)
    for _ in range(points - len(births)):
        one.point()
    one.end()
