#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 300
"""agent_test.py - what of the agent only a VM shows: its vsock, its memory, its disks. tests/unit/agent-*test.py have the rest."""
import os
import select
import signal
import sys
import threading
import time

import lib
from lib import equal, ok
from vmm_bench import HUSK_INIT, HUSK_VMM, bench_of
from vmm_launch import POWER_BUTTON, READY, STARTED, VM, initramfs

sys.path.insert(0, str(lib.TOP / "tests" / "unit"))
import agent_client as agent  # noqa: E402

agent.TIMEOUT = lib.LIMIT
KEPT = 1 << 2  # BOOT_FLAG_KEPT
MEMORY = 192


def kept_vm(bench, scratch, *argv, flags=1):
    """A VM whose scratch disk is kept, on the disk @scratch."""
    initrd = bench.work + "/initramfs-kept"
    if not os.path.exists(initrd):
        kernel = os.path.dirname(bench.kernel)
        with open(kernel + "/load") as f:
            modules = [f"{kernel}/modules/{name}" for name in f.read().split()]
        initramfs(initrd, HUSK_INIT, modules, flags=KEPT)
    return VM(HUSK_VMM, bench.directory(), bench.kernel, initrd, [bench.layer], scratch, argv=argv, memory=MEMORY, flags=flags)


def path_of(vm):
    """Of its door to the agent, however long the directory's name is."""
    return f"/proc/self/fd/{os.open(vm.directory + '/run', os.O_PATH)}/exec.sock"


def run(path, *argv, **more):
    """((kind, value), stdout, stderr, exec) of a program."""
    program = agent.Exec(path, argv, **more)
    return (*program.run(), program)


def check_exec(path):
    got, out, _, program = run(path, "sh", "-c", "cat in; pwd", cwd="/tmp", files=[("in", b"staged\n", 0o600)], then=[["rm", "/tmp/in"]])
    equal((got, out, program.exit[5]), ((1, 0), b"staged\n/tmp\n", 1), "files, a chain and its step")
    got, _, _, program = run(path, "sleep", "100", timeout=300)
    equal((got, program.exit[4]), ((2, 9), agent.TIMED_OUT), "a time limit")
    began, ends = time.monotonic(), []

    def one(i):
        ends.append((run(path, "echo", str(i))[:2]) == ((1, 0), b"%d\n" % i))
    threads = [threading.Thread(target=one, args=(i,)) for i in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal((len(ends), all(ends)), (100, True), f"100 programs at once ({time.monotonic() - began:.1f} s)")


def check_memory(path):
    limit = "/sys/fs/cgroup/memory.max"  # of the workload's cgroup: one of the whole VM takes long to be missed
    got, _, _, program = run(path, "sh", "-c", f"echo 32M >{limit}; dd if=/dev/zero of=/dev/null bs=64M count=1; echo max >{limit}; exit 5")
    equal((got, program.exit[4]), ((1, 5), agent.OOM), "a program that took all memory was killed, and EXIT says so")
    equal(run(path, "true")[3].exit[4], 0, "of the next one it does not")


def check_tree(path):
    data = os.urandom(5 << 20)
    hole = agent.Entry("hole", agent.FILE, 0o600, size=1 << 32, data=[(1 << 31, b"x")])
    tree = [agent.Entry("", agent.DIRECTORY, 0o755, mtime=10**18), agent.file_entry("big", data, 0o4755, uid=7, gid=8, mtime=10**18),
            agent.Entry("big2", agent.HARDLINK, link="big"), hole, agent.Entry("sym", agent.SYMLINK, 0o777, link="/etc"),
            agent.Entry("null", agent.CHARACTER, 0o666, device=(1, 3))]
    tree[1].data = [(i, data[i:i + 65536]) for i in range(0, len(data), 65536)]
    began = time.monotonic()
    agent.put(path, "/root", tree, name="t", flags=agent.OWNER)
    got = {e.name: e for e in agent.get(path, "/root/t")}
    print(f"# 5 MiB there and back in {time.monotonic() - began:.2f} s")
    equal(sorted(got), ["", "big", "big2", "hole", "null", "sym"], "a tree there and back: all is there")
    big = got["big"]
    equal((big.content() == data, big.mode, big.uid, big.gid, big.mtime), (True, 0o4755, 7, 8, 10**18), "five megabytes as they were")
    equal((got["big2"].link, got["sym"].link, got["null"].device, got[""].mtime), ("big", "/etc", (1, 3), 10**18), "links, a device, times")
    equal((got["hole"].size, sum(len(d) for _, d in got["hole"].data) <= 65536), (1 << 32, True), "a hole stays one")
    equal(sorted(e.name for e in agent.get(path, "/bin/vs")), [""], "a file of the image's")


def test_kept(home):
    """One scratch disk and three boots: the first is killed, the second ends by itself."""
    bench = bench_of(home)
    scratch = bench.directory() + "/scratch"
    with open(scratch, "wb") as f:
        f.truncate(1 << 30)
    lib.subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-E", "assume_storage_prezeroed=1,nodiscard", scratch], check=True)

    vm = kept_vm(bench, scratch, "sleep", "1000")
    vm.wait_for(READY)
    vm.wait_for(STARTED)
    path = path_of(vm)
    check_exec(path)
    check_memory(path)
    check_tree(path)
    equal(run(path, "sh", "-c", "echo replaced >/etc/group; rm /bin/su-id; dd if=/bin/busybox of=/copy conv=fsync 2>/dev/null; sync")[0],
          (1, 0), "a file is synced")
    dirty = "n=0; while [ $(awk '/^Dirty/ {print $2}' /proc/meminfo) -gt 40 ] && [ $n -lt 150 ]; do sleep 0.1; n=$((n+1)); done; [ $n -lt 150 ]"
    equal(run(path, "sh", "-c", f"dd if=/dev/zero of=/soon bs=1M count=2 2>/dev/null; {dirty}")[0], (1, 0), "what is written is soon on the disk")
    run(path, "sh", "-c", "for f in expire writeback; do echo 100000 >/proc/sys/vm/dirty_${f}_centisecs; done; dd if=/dev/zero of=/pressed bs=1M count=2")
    vm.tell(POWER_BUTTON)
    equal(run(path, "sh", "-c", dirty)[0], (1, 0), "at once when the power button is pressed")
    run(path, "sh", "-c", "while :; do echo more >>/growing; done", flags=agent.DETACH, wait=True)
    pids = vm.pids()
    ends = [os.pidfd_open(pid) for pid in pids.values()]
    for name in ("machine", "worker", "supervisor"):
        if name in pids:
            os.kill(pids[name], signal.SIGKILL)
    os.waitpid(vm.pid, 0)
    ok(all(select.select([end], [], [], lib.LIMIT)[0] for end in ends), "the VM is killed in the midst of writing", pids)
    for end in ends:
        os.close(end)

    script = "cmp /bin/busybox /copy && ! ls /bin/su-id 2>/dev/null && [ $(cat /etc/group) = replaced ] && ls /root/t/big2 >/dev/null && echo late >/late"
    outcome = kept_vm(bench, scratch, "sh", "-c", script, flags=1 | agent.SYNCED).end()
    ok(outcome and outcome.end == 1 and outcome.value == 0, "the next boot finds what was synced, and what was removed is not back", outcome)
    outcome = kept_vm(bench, scratch, "sh", "-c", "[ $(cat /late) = late ]").end()
    ok(outcome and outcome.end == 1 and outcome.value == 0, "and the one after that what the workload wrote last", outcome)


lib.main(globals())
