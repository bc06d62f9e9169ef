#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 560
"""lifecycle_test.py - signals, timeouts, names, and the death of each process of a VM: it ends, is named, leaves nothing."""
import os
import signal

import images
import lib
from lib import equal, ok

READY = b"ready\n"
WAITING = ["sh", "-c", "echo ready; exec sleep 1000"]


def start(home, *options, command=None):
    running = home.start("run", "--quiet", *options, home.have(images.busybox(), "busybox"), *(command or WAITING))
    running.wait_for(READY)
    return running


NAMING = ["sh", "-c", "".join(f"trap 'echo got {name}' {name}\n" for name in ("HUP", "INT", "QUIT", "USR1", "USR2", "WINCH", "CONT"))
          + "trap 'echo got TERM; exit 33' TERM\necho ready\nwhile :; do sleep 0.05; done"]


def test_signals(home):
    """One VM takes every signal that is forwarded and says its name."""
    running = start(home, command=NAMING)
    for name in ("HUP", "INT", "QUIT", "USR1", "USR2"):
        running.process.send_signal(getattr(signal, "SIG" + name))
        ok(running.wait_for(f"got {name}\n".encode()), f"SIG{name} is forwarded")
    running.process.send_signal(signal.SIGTERM)
    done = running.finish()
    equal(done.status, 33, "SIGTERM is forwarded, and the status is what the handler chose", done)
    lib.none_left()


def test_ignored_signals(home):
    """What husk was started with ignored, it leaves alone."""
    running = home.start("run", "--quiet", home.have(images.busybox(), "busybox"), *NAMING,
                         preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    running.wait_for(READY)
    for number in (signal.SIGHUP, signal.SIGUSR1):
        running.process.send_signal(number)
    running.wait_for(b"got USR1\n")
    running.process.send_signal(signal.SIGTERM)
    done = running.finish()
    ok(done.status == 33 and b"got HUP" not in done.out, "under nohup SIGHUP is not forwarded, and others are", done)


def test_signal_before_ready(home):
    """Ctrl-C while the guest boots ends the run at once."""
    image = home.have(images.busybox(), "busybox")
    running = home.start("run", "--quiet", image, *WAITING)
    seen = 0
    for _ in range(100000):
        if len(running.processes()) == len(lib.ROLES):
            seen = 1
            break
        if running.process.poll() is not None:
            break
    running.process.send_signal(signal.SIGINT)
    done = running.finish()
    ok(seen and done.status in (125, 130), "SIGINT during the boot ends the run", done)
    equal(home.vms(), [], "and leaves no record")
    lib.none_left()


def test_stop_signal(home):
    image = home.have(images.stopped_by_usr1(), "stop-usr1")
    running = home.start("run", "--quiet", image, "sh", "-c", "trap 'echo stopped as asked; exit 21' USR1; echo ready; "
                         "while :; do sleep 0.05; done")
    running.wait_for(READY)
    running.process.send_signal(signal.SIGTERM)
    done = running.finish()
    ok(done.status == 21 and b"stopped as asked" in done.out, "SIGTERM becomes the image's StopSignal", done)


def test_timeout(home):
    image = home.have(images.busybox(), "busybox")
    done = home.run("--timeout", "1", image, "sh", "-c", "trap '' TERM INT; echo begun; while :; do sleep 100; done")
    equal((done.status, done.out), (124, b"begun\n"), "--timeout: 124, whatever the workload ignores", done)
    done = home.run("--timeout", "30", image, "sh", "-c", "exit 3")
    equal(done.status, 3, "a timeout that was not reached changes nothing", done)
    done = home.run("--start-timeout", "0.3", image, "true")
    ok(done.status == 125 and "start" in done.error.lower(), "--start-timeout: 125 and the reason", done)
    equal(home.vms(), [], "and leaves no record")
    lib.none_left()


def test_names(home):
    running = start(home, "--name", "only-one")
    image = "busybox"
    done = home.run("--name", "only-one", image, "true")
    ok(done.status == 125 and "only-one" in done.error, "a name that is taken is refused and named", done)
    equal(len(home.vms()), 1, "the first one lives on")
    running.process.send_signal(signal.SIGKILL)
    running.finish()
    lib.none_left()
    done = home.run("--name", "only-one", image, "true")
    equal(done.status, 0, "the name is free again after its VM", done)


def test_guest_panic(home):
    """A crash of the guest's kernel is husk's 125 with a reason, not the workload's status."""
    image = home.have(images.busybox(), "busybox")
    done = home.run(image, "sh", "-c", "echo before; echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger; sleep 100")
    ok(done.status == 125 and ("panic" in done.error.lower() or "guest" in done.error.lower()),
       "a guest's panic: 125 and the reason", done)
    done = home.run(image, "sh", "-c", "kill -9 -1; echo o > /proc/sysrq-trigger; sleep 100")
    ok(done.status == 125 and "guest" in done.error.lower(), "a guest that powers off: 125 and the reason", done)
    equal(home.vms(), [], "and leaves no record")
    lib.none_left()


def test_death_of_qemu(home):
    if "qemu" not in lib.ROLES:
        raise lib.Skip("this machine has no QEMU")
    death(home, "qemu", ("qemu", "machine"))


def test_death_of_the_worker(home):
    death(home, "worker", ("worker",))


def death(home, role, words):
    running = start(home)
    processes = running.processes()
    equal(sorted(processes), lib.ROLES, "the processes of a VM")
    others = [pid for who, pid in processes.items() if who != role]
    os.kill(processes[role], signal.SIGKILL)
    done = running.finish()
    ok(done.status == 125 and any(w in done.error.lower() for w in words), f"kill -9 of {role}: 125, and it is named", done)
    equal(lib.wait_gone(others), [], "the others end with it")
    equal(home.vms(), [], "the record is removed")
    lib.none_left()


def test_death_of_the_supervisor(home):
    running = start(home)
    processes = running.processes()
    os.kill(processes["supervisor"], signal.SIGKILL)
    done = running.finish()
    ok(done.status == 125 and "supervisor" in done.error.lower(), "kill -9 of the supervisor: 125, and it is named", done)
    equal(lib.wait_gone(processes.values()), [], "its children die with it")
    lib.none_left()


def test_death_of_the_cli(home):
    running = start(home)
    processes = running.processes()
    running.process.kill()
    running.finish()
    equal(lib.wait_gone(processes.values()), [], "kill -9 of the CLI ends the VM")
    done = home.run("busybox", "true")
    equal(done.status, 0, "and the next command works", done)
    equal(home.vms(), [], "and cleans up")
    lib.none_left()


def test_death_of_all(home):
    """Everything at once: the next command finds the record, names what happened and cleans up."""
    running = start(home, "--name", "lost")
    processes = running.processes()
    running.process.kill()
    for pid in processes.values():
        os.kill(pid, signal.SIGKILL)
    running.finish()
    lib.wait_gone(processes.values())
    left = home.vms()
    done = home.husk("run", "--name", "lost", "busybox", "true")
    equal(done.status, 0, "the next run works, with the same name", done)
    ok(not left or "supervisor" in done.error or "lost" in done.error, "and says what it cleaned up", done)
    equal(home.vms(), [], "nothing is left on record")


def test_side_by_side(home):
    """Two VMs of one image do not know of each other."""
    one, two = start(home), start(home)
    equal(len(home.vms()), 2, "two VMs on record")
    one.process.send_signal(signal.SIGKILL)
    one.finish()
    ok(two.process.poll() is None and len(two.processes()) >= len(lib.ROLES), "the end of one leaves the other")
    two.process.send_signal(signal.SIGKILL)
    two.finish()
    lib.none_left()


def test_power_button(home):
    lib.press_button(home, home.have(images.busybox(), "busybox"))


lib.main(globals())
