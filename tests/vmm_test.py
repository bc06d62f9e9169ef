#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""husk-vmm alone, with real boots: outcomes, streams, doors, and what is left when a process of the VM is killed.

usage: vmm_test.py HUSK_VMM HUSK_INIT [KERNEL_ROOT]   (KERNEL_ROOT: an unpacked linux-image package with a modules.dep;
default $HUSK_TEST_KERNEL_ROOT; without one the test is skipped)"""

import glob
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from vmm_launch import *  # noqa: E402,F403

count = failed = 0


def check(ok, what, note=""):
    global count, failed
    count += 1
    failed += not ok
    print("%s %d - %s" % ("ok" if ok else "not ok", count, what), flush=True)
    if not ok and note:
        print("# " + str(note).replace("\n", "\n# "), flush=True)


class Bench:
    def __init__(self, husk_vmm, husk_init, kernel_root):
        self.husk_vmm = husk_vmm
        self.work = tempfile.mkdtemp(prefix="husk-vmm-test.")
        self.kernel = glob.glob(kernel_root + "/boot/vmlinuz-*")[0]
        modules = glob.glob(kernel_root + "/lib/modules/*")[0]
        self.initrd = self.work + "/initramfs"
        initramfs(self.initrd, husk_init, modules)
        root = self.work + "/root"
        os.makedirs(root + "/bin")
        os.makedirs(root + "/etc")
        shutil.copy(shutil.which("busybox"), root + "/bin/busybox")
        for applet in "sh true cat dd sleep yes head kill sync reboot".split():
            os.symlink("busybox", root + "/bin/" + applet)
        self.layer = self.work + "/layer"
        subprocess.run(["mksquashfs", root, self.layer, "-comp", "lz4", "-quiet", "-no-progress"], check=True,
                       stdout=subprocess.DEVNULL)
        self.n = 0

    def vm(self, *argv, **options):
        self.n += 1
        directory = "%s/vm%d" % (self.work, self.n)
        os.mkdir(directory)
        scratch = directory + "/scratch"
        with open(scratch, "wb") as f:
            f.truncate(1 << 30)
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-E", "assume_storage_prezeroed=1", scratch], check=True)
        return VM(self.husk_vmm, directory, self.kernel, self.initrd, [self.layer], scratch, argv=argv or None, **options)

    def run(self, *argv, **options):
        """Run to the end with both outputs read: (outcome, stdout, stderr, vm)."""
        ends, collected, threads = [], [bytearray(), bytearray()], []
        for i in range(2):
            r, w = os.pipe()
            os.set_blocking(w, False)
            ends.append(w)

            def reader(fd=r, to=collected[i]):
                while data := os.read(fd, 1 << 20):
                    to += data
                os.close(fd)

            threads.append(threading.Thread(target=reader))
            threads[-1].start()
        stdin = options.pop("stdin", None)
        vm = self.vm(*argv, stdio=(stdin, *ends), flags=1 | (4 if stdin is not None else 0), **options)
        for fd in ends:
            os.close(fd)
        outcome = vm.end()
        for thread in threads:
            thread.join()
        return outcome, bytes(collected[0]), bytes(collected[1]), vm


def test_outcomes(bench):
    o, out, err, vm = bench.run("sh", "-c", "echo out; echo err >&2; exit 42")
    check(o and o.end == 1 and o.value == 42, "the workload's exit status is the outcome", o)
    check((out, err) == (b"out\n", b"err\n"), "stdout and stderr arrive apart", (out, err))
    state = vm.state()
    check(state.get("state") == "stopped" and state.get("end") == "1" and state.get("value") == "42",
          "the record says the same", state)
    check(not os.listdir(vm.directory + "/run"), "no door is left", os.listdir(vm.directory + "/run"))
    o, *_ = bench.run("no-such-command")
    check(o and o.end == 4 and o.value == 5, "an unknown command is told from a failing one", o)
    o, *_ = bench.run("sh", "-c", "sleep 60", timeout_ms=700)
    check(o and o.end == 3, "a workload that takes too long is a timeout", o)
    o, out, _, vm = bench.run("sleep", "60", start_timeout_ms=300)
    check(o and o.end == 5, "a guest that does not answer in time is a start timeout", o)


def test_streams(bench):
    r, w = os.pipe()
    os.set_blocking(r, False)
    data = os.urandom(3 << 20)

    def feed():
        at = 0
        while at < len(data):
            at += os.write(w, data[at:at + 65536])
        os.close(w)

    thread = threading.Thread(target=feed)
    thread.start()
    o, out, _, vm = bench.run("cat", stdin=r)
    os.close(r)
    thread.join()
    check(o and o.end == 1 and out == data, "3 MiB through stdin and stdout come back unchanged", (o, len(out)))
    begin = time.monotonic()
    o, out, _, vm = bench.run("dd", "if=/dev/zero", "bs=1M", "count=400")
    check(o and len(out) == 400 << 20, "400 MiB of output arrive whole", (o, len(out)))
    print("# 400 MiB in %.2f s of the workload, %.0f MB/s" % (o.duration_ns / 1e9, len(out) / 1e6 / (o.duration_ns / 1e9)))


def test_doors(bench):
    vm = bench.vm()
    ready = vm.wait_for(READY)
    print("# READY after %.0f ms" % (ready.boot_ns / 1e6))
    os.chdir(vm.directory + "/run")
    s = socket.socket(socket.AF_UNIX)
    s.connect("vsock.sock")
    s.sendall(b"CONN")
    time.sleep(0.05)
    s.sendall(b"ECT 1028\n" + struct.pack("<IBBHI", 4, 1, 0, 0, 1))
    s.settimeout(10)
    answer = b""
    while len(answer) < 15:
        more = s.recv(100)
        if not more:
            break
        answer += more
    check(answer.startswith(b"OK ") and b"\n\x04\0\0\0\x01" in answer, "CONNECT leads to the agent's HELLO", answer)
    for line in (b"CONNECT 99999999999\n", b"HELLO\n", b"CONNECT " + b"1" * 40, b"CONNECT 5\n", b"\0\0\0\n"):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(10)
        s.connect("vsock.sock")
        s.sendall(line)
        try:
            got = s.recv(100)
        except ConnectionResetError:
            got = b""
        check(got == b"", "the door is closed on %r" % line[:20], got)
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(10)
    s.connect("exec.sock")
    payload = exec_payload(["true"])
    s.sendall(struct.pack("<IBBHI", 4, 1, 0, 0, 1) + struct.pack("<IBBH", len(payload), 0x10, 0, 0) + payload)
    got = b""
    while b"\x37" not in got[8:] and (more := s.recv(4096)):
        got += more
    check(b"\x36\0\0\0" in got, "exec.sock runs a program", got)
    os.chdir("/")
    vm.tell(KILL, on_caller=True)
    o = vm.end()
    check(o and o.end == 11, "KILL on the caller's socket ends the VM", o)


def wait_gone(pids, seconds=2):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if all(gone(pid) for pid in pids):
            return True
        time.sleep(0.01)
    return False


def test_kills(bench):
    for victim, end, words in (("worker", 8, "the worker was killed by signal 9"),
                               ("machine", 7, "QEMU was killed by signal 9")):
        vm = bench.vm("sleep", "100")
        vm.wait_for(STARTED)
        pids = vm.pids()
        begin = time.monotonic()
        os.kill(pids[victim], signal.SIGKILL)
        o = vm.end(10)
        took = time.monotonic() - begin
        check(o and o.end == end and o.text == words, "kill -9 of the %s is named" % victim, (o, vm.log()[-500:]))
        check(wait_gone(pids.values(), 0.1) and took < 2, "and leaves no process (%.0f ms)" % (took * 1000), pids)
        check(vm.state().get("reason") == words, "and the record says so", vm.state())
    vm = bench.vm("sleep", "100")
    vm.wait_for(STARTED)
    pids = vm.pids()
    os.kill(vm.pid, signal.SIGKILL)
    begin = time.monotonic()
    os.waitpid(vm.pid, 0)
    check(wait_gone(pids.values()), "kill -9 of the supervisor leaves no process (%.0f ms)" %
          ((time.monotonic() - begin) * 1000), pids)
    check(vm.state().get("state") == "running" and "(gone)" in vm.state()["supervisor"],
          "and a record that shows it as gone", vm.state())
    vm = bench.vm("sleep", "100")
    vm.wait_for(STARTED)
    pids = vm.pids()
    begin = time.monotonic()
    vm.caller.close()
    os.waitpid(vm.pid, 0)
    check(wait_gone(pids.values(), 0.1) and time.monotonic() - begin < 2, "the caller's end leaves no process (%.0f ms)" %
          ((time.monotonic() - begin) * 1000))
    check(vm.state().get("end") == "10", "and is named", vm.state())
    vm = bench.vm("sleep", "100", detached=True)
    vm.wait_for(STARTED)
    vm.caller.close()
    time.sleep(0.3)
    check(not gone(vm.pid), "a detached VM outlives its caller")
    os.kill(vm.pid, signal.SIGTERM)
    os.waitpid(vm.pid, 0)
    check(vm.state().get("end") == "11", "SIGTERM ends it", vm.state())


def test_machine(bench):
    o, *_, vm = bench.run("true", qemu="/nonexistent/qemu")
    check(o and o.end == 12 and "/nonexistent/qemu" in o.text, "no QEMU is said so", o)
    o, *_, vm = bench.run("true", qemu="/bin/false")
    check(o and o.end == 7 and "status 1" in o.text, "a QEMU that fails is named", o)
    o, *_, vm = bench.run("true", cpus=300)
    check(o is None, "a configuration out of range starts nothing", o)
    vm = bench.vm("sleep", "100")
    vm.wait_for(STARTED)
    vm.tell(SIGNAL, 9)
    o = vm.end()
    check(o and o.end == 2 and o.value == 9, "a signal over the control socket reaches the workload", o)


def main():
    kernel_root = sys.argv[3] if len(sys.argv) > 3 else os.environ.get("HUSK_TEST_KERNEL_ROOT", "")
    if not kernel_root or not glob.glob(kernel_root + "/boot/vmlinuz-*") or not shutil.which("mksquashfs"):
        print("1..0 # SKIP no kernel to boot, or no mksquashfs")
        return 0
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    bench = Bench(os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), kernel_root)
    try:
        for test in (test_outcomes, test_streams, test_doors, test_kills, test_machine):
            test(bench)
    finally:
        shutil.rmtree(bench.work, ignore_errors=True)
    print("1..%d" % count)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
