# SPDX-License-Identifier: Apache-2.0
"""ends.py - cases: each way in which a VM may end is told apart, and leaves no process, no record and no lock."""
import os
import signal
import subprocess

import images
import lib
from case import case
from lib import equal, ok


def waiting(home, *options):
    running = home.start("run", "--quiet", *options, home.have(images.busybox(), "busybox"), "sh", "-c",
                         "echo ready; exec sleep 1000")
    running.wait_for(b"ready\n")
    return running


def nothing_left(home):
    equal(home.vms(), [], "no record is left")
    lib.none_left()


@case(150)
def timeout(home):
    image = home.have(images.busybox(), "busybox")
    done = home.run("--timeout", "8", image, "sh", "-c", "trap '' TERM INT; echo begun; while :; do :; done")
    equal((done.status, done.out), (124, b"begun\n"), "--timeout: 124, also of a workload that spins", done)
    nothing_left(home)


@case(120)
def power_button(home):
    lib.press_button(home, home.have(images.busybox(), "busybox"))
    nothing_left(home)


def killed(home, role, word):
    running = waiting(home)
    processes = running.processes()
    equal(sorted(processes), ["supervisor", "worker"], "a VM is two processes, and no QEMU")
    os.kill(processes[role], signal.SIGKILL)
    done = running.finish(40)
    ok(done.status == 125 and word in done.error.lower(), f"kill -9 of the {role}: 125, and it is named", done)
    equal(lib.wait_gone(processes.values(), 20), [], "the other ends with it")


@case(120)
def worker_killed(home):
    killed(home, "worker", "worker")
    nothing_left(home)


@case(120, everyday=False)
def supervisor_killed(home):
    killed(home, "supervisor", "supervisor")
    lib.none_left()


@case(200)
def caller_killed(home):
    running = waiting(home, "--name", "taken")
    processes = running.processes()
    running.process.kill()
    running.finish()
    equal(lib.wait_gone(processes.values(), 30), [], "kill -9 of the CLI ends the VM")
    done = home.run("--name", "taken", "busybox", "true")
    equal(done.status, 0, "the next run works, with the same name: no lock is left", done)
    nothing_left(home)


# How a guest ends itself: (what it does, words of the cause, options).
OWN_ENDS = {
    "panic": ("echo c > /proc/sysrq-trigger; sleep 100", ("panic",), ()),
    "reboot": ("echo b > /proc/sysrq-trigger; sleep 100", ("reset", "reboot"), ()),
    "power-off": ("echo o > /proc/sysrq-trigger; sleep 100", ("power",), ()),
    "triple fault": ("echo b > /proc/sysrq-trigger; sleep 100", ("triple", "reset", "reboot"), ("--cmdline", "reboot=triple")),
}


def own_end(home, name):
    command, words, options = OWN_ENDS[name]
    # Its line has come before the guest ends, which then has nothing on its way.
    running = home.start("run", "--quiet", "-i", *options, home.have(images.busybox(), "busybox"), "sh", "-c",
                         "echo 1 > /proc/sys/kernel/sysrq; echo ready; read x; " + command, stdin=subprocess.PIPE)
    running.wait_for(b"ready\n")
    running.stdin.write(b"\n")
    running.stdin.flush()
    done = running.finish(60)
    running.stdin.close()
    ok(done.status == 125 and any(word in done.error.lower() for word in words), f"{name}: 125, and the cause is named", done)
    nothing_left(home)


@case(120)
def guest_panics(home):
    own_end(home, "panic")


@case(400, everyday=False)
def guest_ends_otherwise(home):
    own_end(home, "reboot")
    own_end(home, "power-off")
    own_end(home, "triple fault")


@case(60)
def not_a_kernel(home):
    """Refused before anything runs, with the reason."""
    image = home.have(images.busybox(), "busybox")
    whole = next((home.path / "home" / "kernels").glob("*/image")).read_bytes()
    for name, content in (("empty", b""), ("text", b"not a kernel\n" * 1000), ("cut", whole[:len(whole) // 2])):
        path = home.path / name
        path.write_bytes(content)
        done = home.run("--kernel", path, image, "true", limit=50)
        ok(done.status == 125 and "kernel" in done.error.lower() and done.seconds < 45, f"a kernel that is {name} is refused", done)
    nothing_left(home)
