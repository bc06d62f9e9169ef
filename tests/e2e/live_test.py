#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 400
"""live_test.py - VMs that belong to nobody: examples/live.c, processes that hang or are killed, starts that fail, are cancelled or
race. Afterwards the record tells the truth, and nothing is left that should not be."""
import json
import os
import signal
import subprocess
import time

import images
import lib
from lib import equal, ok

LIBEXEC = os.environ.get("HUSK_LIBEXEC") or str(lib.TOP / "build" / "libexec")
# Each start adds a line to a file on the VM's own disk; asked to end, it ends with 40 and the number of lines.
COUNTING = ["sh", "-c", "trap 'exit $((40 + $(wc -l < /starts)))' TERM; echo start >> /starts; sync; "
            "echo number $(wc -l < /starts); while :; do sleep 0.1; done"]


def processes():
    """The processes of the one VM that lives, by role."""
    roles = {}
    for pid, line in lib.descendants().items():
        for role, mark in (("supervisor", "husk-vmm supervisor"), ("worker", "husk-vmm worker"), ("qemu", "qemu-system")):
            if mark in line:
                roles[role] = pid
    return roles


def seen(home, vm):
    """(state, reason) of a VM, as inspect has it."""
    done = home.husk("inspect", vm)
    if done.status:
        return None, done.error
    found = json.loads(done.out)
    found = found[0] if isinstance(found, list) else found
    return found["state"], found["reason"]


def create(home, *options, command=None):
    extra = ["--start-timeout", "150"] if lib.SLOW and "--start-timeout" not in options else []
    done = home.husk("create", "--quiet", "--machine", lib.MACHINE, *extra, *options, home.have(images.busybox(), "busybox"),
                     *(command or COUNTING))
    ok(done.status == 0, "a VM is created", done)
    return done.text.strip()


def runtimes(home):
    folder = home.path / "home" / "run"
    return sorted(p.name for p in folder.iterdir() if len(p.name) == 12) if folder.is_dir() else []


def test_example(home):
    """Made, started, stopped, started again with its disk, removed: a program with the library."""
    done = subprocess.run([lib.TOP / "build" / "examples" / "live", home.have(images.busybox(), "busybox")],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=2 * lib.LIMIT,
                          text=True, env={**home.environment(), "HUSK_MACHINE": lib.MACHINE, "HUSK_LIBEXEC": LIBEXEC})
    equal(done.returncode, 0, "the example runs", f"{done.stdout}\n{done.stderr}")
    ok("ended: 41" in done.stdout and "ended: 42" in done.stdout, "the second start finds what the first has written", done.stdout)
    equal(home.vms(), [], "nothing is left of the VM", done.stderr)
    lib.none_left()


def start(home, vm, number):
    """Start it for the @number-th time, until its workload says so."""
    done = home.husk("start", vm)
    ok(done.status == 0, f"start number {number}", done)
    following = home.start("logs", "-f", vm)
    following.wait_for(b"number %d\n" % number)
    return following


def timed(home, *arguments):
    begun = time.monotonic()
    done = home.husk(*arguments)
    return done, time.monotonic() - begun


def test_hung(home):
    """Processes that stand still hold nobody, and a VM that lost its supervisor starts again."""
    vm = create(home)
    start(home, vm, 1)
    os.kill(processes()["worker"], signal.SIGSTOP)
    done, seconds = timed(home, "stop", "-t", "2", vm)
    ok(done.status == 0 and seconds < 9, f"stop with a worker that hangs ({seconds:.1f} s)", done)
    equal(seen(home, vm)[0], "stopped", "it is stopped")
    lib.none_left("and no process of it is left")

    start(home, vm, 2)
    os.kill(processes()["supervisor"], signal.SIGSTOP)
    done, seconds = timed(home, "stop", "-t", "1", vm)
    ok(done.status == 0 and seconds < 12, f"stop with a supervisor that hangs ({seconds:.1f} s)", done)
    equal(seen(home, vm), ("stopped", "its supervisor died"), "how it ended is known")
    lib.none_left("and no process of it is left")

    start(home, vm, 3)
    os.kill(processes()["supervisor"], signal.SIGKILL)
    lib.none_left("a supervisor that is killed takes the others with it")
    equal(seen(home, vm), ("stopped", "its supervisor died"), "the record is read so")
    following = start(home, vm, 4)
    done, seconds = timed(home, "stop", "-t", "60", vm)
    ok(done.status == 0 and seconds < 20, f"asked to end, it does ({seconds:.1f} s)", done)
    equal(home.husk("wait", vm).text.strip(), "44", "its disk has seen four starts")
    equal(following.finish().out, b"number 1\nnumber 2\nnumber 3\nnumber 4\n", "its log has all of them, and ends")
    equal(home.husk("rm", vm).status, 0, "it is removed")
    equal((home.vms(), runtimes(home)), ([], []), "record and runtime directory are gone")


def test_failures(home):
    """A start that fails leaves nothing; one of a VM that exists leaves it in error, and it can be started."""
    image = home.have(images.busybox(), "busybox")
    done = home.husk("run", "-d", "--quiet", "--start-timeout", "400ms", image, "true")
    ok(done.status == 125 and "400" in done.error or "0.4" in done.error, "a start that is not done in time fails", done)
    equal((home.vms(), runtimes(home)), ([], []), "and leaves nothing")
    vm = create(home, "--start-timeout", "400ms")
    done = home.husk("start", vm)
    state, reason = seen(home, vm)
    ok(done.status != 0 and state == "error" and "0.4" in reason, "that of a VM that exists leaves it in error, with the reason",
       f"{done}\n{state} {reason}")
    lib.none_left()
    equal(home.husk("rm", vm).status, 0, "which is removed")

    starting = home.start("run", "-d", "--quiet", image, "sleep", "1000")
    while len(processes()) < len(lib.ROLES):
        if starting.process.poll() is not None:
            raise AssertionError(starting.finish())
    starting.process.send_signal(signal.SIGINT)
    done = starting.finish()
    ok(done.status not in (0, None), "a start that is cancelled fails", done)
    lib.none_left("it ends the VM")
    equal((home.vms(), runtimes(home)), ([], []), "and leaves nothing")


def test_races(home):
    """Two who start, two who remove; and one that removes itself."""
    vm = create(home, "--name", "raced")
    both = [home.start("start", "raced"), home.start("start", "raced")]
    done = [one.finish() for one in both]
    ok(any(d.status == 0 for d in done) and all(d.status is not None for d in done), "of two who start it one does",
       "\n".join(map(str, done)))
    equal(sorted(processes()), sorted(lib.ROLES), "it runs once")
    both = [home.start("rm", "-f", "raced"), home.start("rm", "-f", vm)]
    done = [one.finish() for one in both]
    ok(any(d.status == 0 for d in done), "of two who remove it by force one does", "\n".join(map(str, done)))
    lib.none_left()
    equal((home.vms(), runtimes(home)), ([], []), "it is gone")

    done = home.husk("run", "-d", "--rm", "--quiet", home.have(images.busybox(), "busybox"), "true")
    ok(done.status == 0, "one that removes itself", done)
    lib.none_left("ends")
    equal((home.vms(), runtimes(home)), ([], []), "and is gone")


if __name__ == "__main__":
    lib.main(globals())
