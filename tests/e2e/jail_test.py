#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 400
"""jail_test.py - the shell around a live VM's worker and QEMU, seen from the host through /proc, and what it leaves working."""
import os
import re
import signal
import subprocess

import images
import lib
from lib import equal, ok

READY = b"ready\n"
WAITING = ["sh", "-c", "echo ready; exec sleep 1000"]
NAMESPACES = ("mnt", "pid", "net", "ipc", "uts")
FIRST, LAST = 0x70000000, 0x77ffffff  # vmm/jail/jail.h


def status(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return dict(re.match(r"(\w+):\s*(.*)", line).groups() for line in file if ":" in line)


def listing(pid, *parts):
    """The entries of a directory as the process sees them, if we may look."""
    return sorted(os.listdir("/".join((f"/proc/{pid}/root", *parts))))


def descriptors(pid):
    folder = f"/proc/{pid}/fd"
    return [os.path.realpath(f"{folder}/{fd}") for fd in os.listdir(folder)]


def check_process(role, pid):
    s = status(pid)
    ids = {int(i) for i in s["Uid"].split() + s["Gid"].split()}
    if os.geteuid() == 0:
        ok(len(ids) == 1 and FIRST <= min(ids) <= LAST, f"{role}: one id of its own, of the documented range", ids)
        equal(s["Groups"].strip(), "", f"{role}: no groups")
    equal({s[k] for k in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}, {"0" * 16}, f"{role}: no capabilities at all")
    equal((s["NoNewPrivs"], s["Seccomp"]), ("1", "2"), f"{role}: no new privileges, and a filter of system calls")
    equal(s["NSpid"].split()[-1], "1", f"{role}: the first process of a PID namespace")
    same = [n for n in NAMESPACES if os.readlink(f"/proc/{pid}/ns/{n}") == os.readlink(f"/proc/self/ns/{n}")]
    equal(same, [], f"{role}: namespaces of its own")
    with open(f"/proc/{pid}/limits", encoding="ascii") as file:
        core = next(line for line in file if line.startswith("Max core"))
    equal(core.split()[4:6], ["0", "0"], f"{role}: no core file")
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as file:
        mounts = [line.split() for line in file]
    writable = [m[4] for m in mounts if "rw" in m[5].split(",") and m[4] != "/proc" and not m[4].startswith("/dev/")]
    equal(writable, [], f"{role}: nothing is mounted writable")
    outside = [d for d in descriptors(pid) if os.path.isdir(d)]
    equal(outside, [], f"{role}: no descriptor of a directory")
    return ids, mounts


def test_walls(home):
    """A VM that runs, its processes looked at from outside."""
    running = home.start("run", "--quiet", home.have(images.busybox(), "busybox"), *WAITING)
    running.wait_for(READY)
    roles = running.processes()
    ours = sorted(os.listdir(os.path.dirname(home.socket("exec.sock"))))
    worker, mounts = check_process("worker", roles["worker"])
    equal(len(mounts), 1, "worker: one mount, its root", mounts)
    equal(listing(roles["worker"]), ours, "worker: its root is the VM's runtime directory and nothing else")
    ok({"nosuid", "nodev", "noexec", "ro"} <= set(mounts[0][5].split(",")), "worker: read-only, nosuid, nodev, noexec")
    if "qemu" in roles:
        check_qemu(roles["qemu"], worker)
    running.process.send_signal(signal.SIGKILL)
    running.finish()
    lib.none_left()


def check_qemu(pid, workers_ids):
    qemu, _ = check_process("QEMU", pid)
    if os.geteuid() == 0:
        ok(not workers_ids & qemu, "the two have different ids", (workers_ids, qemu))
    found = set(listing(pid))
    ok({"proc", "usr"} <= found <= {"proc", "usr", "lib", "lib64", "etc", "dev"}, "QEMU: a root of what it needs", found)
    equal((listing(pid, "etc"), listing(pid, "dev")), (["ld.so.cache"], ["null", "urandom"]),
          "QEMU: of /etc and /dev next to nothing")
    equal([p for p in listing(pid, "proc") if p.isdigit()], ["1"], "QEMU: its proc shows itself alone")


def test_kills(home):
    """kill -9 of each process: the VM ends, is named, and leaves nothing."""
    for role, name in (("worker", "worker"), ("qemu", "QEMU"), ("supervisor", "supervisor")):
        running = home.start("run", "--quiet", home.have(images.busybox(), "busybox"), *WAITING)
        running.wait_for(READY)
        if role not in running.processes():
            running.process.kill()
            running.finish()
            continue
        os.kill(running.processes()[role], signal.SIGKILL)
        done = running.finish()
        ok(done.status == 125 and name in done.error, f"kill -9 of the {role} is named", done)
        lib.none_left()


def test_memory(home):
    """5 GiB reach over the hole below 4 GiB."""
    with open("/proc/meminfo", encoding="ascii") as file:
        total = int(re.search(r"MemTotal:\s*(\d+)", file.read()).group(1))
    if total < 5 << 20:
        ok(True, "5 GiB of memory # SKIP this host has less")
        return
    done = home.run("-m", "5G", home.have(images.busybox(), "busybox"), "sh", "-c", "grep MemTotal /proc/meminfo")
    seen = int(re.search(rb"(\d+) kB", done.out).group(1)) if done.status == 0 else 0
    ok(seen > 4.5 * (1 << 20), "a VM with 5 GiB of memory runs in the shell", done)


def poor(home, arguments):
    """Run husk as a root without CAP_SYS_ADMIN."""
    arguments = lib.on_machine(tuple(arguments))
    done = subprocess.run(["setpriv", "--bounding-set=-sys_admin", lib.HUSK, *arguments], env=home.environment(),
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=lib.LIMIT, check=False)
    return lib.Done(arguments, done.returncode, done.stdout, done.stderr, 0)


def test_degraded(home):
    """Without CAP_SYS_ADMIN, as in a container, namespaces are forbidden."""
    if os.geteuid() != 0:
        ok(True, "a root without CAP_SYS_ADMIN # SKIP we are not root")
        return
    image = home.have(images.busybox(), "busybox")
    done = poor(home, ["run", "--quiet", image, "true"])
    ok(done.status == 125 and "--shell=degraded" in done.error and "not permitted" in done.error,
       "where namespaces are forbidden a start is refused, with what to do", done)
    equal(home.vms(), [], "and leaves no record")
    done = poor(home, ["run", "--quiet", "--shell=degraded", image, "echo", "here"])
    ok(done.status == 0 and done.out == b"here\n", "with --shell=degraded it runs", done)
    ok("network namespace" in done.error and "degraded" in done.error, "and says what is missing", done)
    done = poor(home, ["doctor"])
    ok("shell" in done.text and "PID namespace" in done.text, "husk doctor says it, too", done)
    done = home.run("--shell", "none", image, "true")
    equal(done.status, 125, "another kind of shell is refused", done)


lib.main(globals())
