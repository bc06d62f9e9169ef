#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""husk-vmm alone, with real boots: outcomes, streams, doors, and what is left when a process of the VM is killed.

The supervisor is started by hand (vmm_launch.py), so that what is tested is husk-vmm and not what the engine makes of it.
"""
# timeout: 720
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

import lib
from lib import ok
from vmm_bench import HUSK_INIT, HUSK_VMM, bench_of
from vmm_launch import (CMDLINE_DEFAULT, KILL, POWER_BUTTON, READY, SIGNAL, STARTED, VM, exec_payload, gone,
                        initramfs)

HELLO = lib.HELLO_FRAME


def test_outcomes(home):
    bench = bench_of(home)
    o, out, err, vm = bench.run("sh", "-c", "echo out; echo err >&2; exit 42")
    ok(o and o.end == 1 and o.value == 42, "the workload's exit status is the outcome", o)
    ok((out, err) == (b"out\n", b"err\n"), "stdout and stderr arrive apart", (out, err))
    state = vm.state()
    ok(state.get("state") == "stopped" and state.get("end") == "1" and state.get("value") == "42",
          "the record says the same", state)
    ok(not os.listdir(vm.directory + "/run"), "no door is left", os.listdir(vm.directory + "/run"))
    o, *_ = bench.run("no-such-command")
    ok(o and o.end == 4 and o.value == 5, "an unknown command is told from a failing one", o)
    o, *_ = bench.run("sh", "-c", "sleep 60", timeout_ms=700)
    ok(o and o.end == 3, "a workload that takes too long is a timeout", o)
    o, out, _, vm = bench.run("sleep", "60", start_timeout_ms=300)
    ok(o and o.end == 5, "a guest that does not answer in time is a start timeout", o)


def test_streams(home):
    bench = bench_of(home)
    r, w = os.pipe()
    os.set_blocking(r, False)
    data = os.urandom(3 << 20)

    def feed():
        at = 0
        while at < len(data):
            at += os.write(w, data[at:at + 65536])
        os.close(w)

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    o, out, _, vm = bench.run("cat", stdin=r)
    os.close(r)
    thread.join()
    ok(o and o.end == 1 and out == data, "3 MiB through stdin and stdout come back unchanged", (o, len(out)))
    o, out, _, vm = bench.run("dd", "if=/dev/zero", "bs=1M", "count=400")
    ok(o and len(out) == 400 << 20, "400 MiB of output arrive whole", (o, len(out)))
    print("# 400 MiB in %.2f s of the workload, %.0f MB/s" % (o.duration_ns / 1e9, len(out) / 1e6 / (o.duration_ns / 1e9)))


def test_doors(home):
    bench = bench_of(home)
    vm = bench.vm()
    ready = vm.wait_for(READY)
    print("# READY after %.0f ms" % (ready.boot_ns / 1e6))
    os.chdir(vm.directory + "/run")
    s = socket.socket(socket.AF_UNIX)
    s.connect("vsock.sock")
    s.sendall(b"CONN")
    time.sleep(0.05)
    s.sendall(b"ECT 1028\n" + HELLO)
    s.settimeout(lib.LIMIT)
    answer = b""
    while len(answer) < 15:
        more = s.recv(100)
        if not more:
            break
        answer += more
    ok(answer.startswith(b"OK ") and b"\n\x04\0\0\0\x01" in answer, "CONNECT leads to the agent's HELLO", answer)
    for line in (b"CONNECT 99999999999\n", b"HELLO\n", b"CONNECT " + b"1" * 40, b"CONNECT 5\n", b"\0\0\0\n"):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(lib.LIMIT)
        s.connect("vsock.sock")
        s.sendall(line)
        try:
            got = s.recv(100)
        except ConnectionResetError:
            got = b""
        ok(got == b"", "the door is closed on %r" % line[:20], got)
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(lib.LIMIT)
    s.connect("exec.sock")
    payload = exec_payload(["true"])
    s.sendall(HELLO + struct.pack("<IBBH", len(payload), 0x10, 0, 0) + payload)
    got = b""
    while b"\x37" not in got[8:] and (more := s.recv(4096)):
        got += more
    ok(b"\x36\0\0\0" in got, "exec.sock runs a program", got)
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(lib.LIMIT)
    s.connect("exec.sock")
    s.sendall(HELLO + struct.pack("<IBBH", 0, 0x18, 0, 0))
    got = b""
    while len(got) < len(HELLO) + 12 and (more := s.recv(4096)):
        got += more
    ok(got[len(HELLO):] == struct.pack("<IBBHI", 4, 0x3c, 0, 0, 0), "RESCAN finds no slots on a machine without any", got)
    os.chdir("/")
    vm.tell(KILL, on_caller=True)
    o = vm.end()
    ok(o and o.end == 11, "KILL on the caller's socket ends the VM", o)


def wait_gone(pids, seconds=lib.LIMIT):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if all(gone(pid) for pid in pids):
            return True
        time.sleep(0.01)
    return False


def test_kills(home):
    bench = bench_of(home)
    for victim, end, words in (("worker", 8, "the worker was killed by signal 9"),
                               ("machine", 7, "QEMU was killed by signal 9")):
        vm = bench.vm("sleep", "100")
        vm.wait_for(STARTED)
        pids = vm.pids()
        begin = time.monotonic()
        os.kill(pids[victim], signal.SIGKILL)
        o = vm.end()
        took = time.monotonic() - begin
        ok(o and o.end == end and o.text == words, "kill -9 of the %s is named" % victim, (o, vm.log()[-500:]))
        ok(wait_gone(pids.values()), "and leaves no process (%.0f ms)" % (took * 1000), pids)
        lost = "worker lost: " if victim == "worker" else ""
        ok(vm.state().get("reason") == lost + words, "and the record says so", vm.state())
    vm = bench.vm("sleep", "100")
    vm.wait_for(STARTED)
    pids = vm.pids()
    os.kill(vm.pid, signal.SIGKILL)
    begin = time.monotonic()
    os.waitpid(vm.pid, 0)
    ok(wait_gone(pids.values()), "kill -9 of the supervisor leaves no process (%.0f ms)" %
          ((time.monotonic() - begin) * 1000), pids)
    ok(vm.state().get("state") == "running" and "(gone)" in vm.state()["supervisor"],
          "and a record that shows it as gone", vm.state())
    vm = bench.vm("sleep", "100")
    vm.wait_for(STARTED)
    pids = vm.pids()
    begin = time.monotonic()
    vm.caller.close()
    os.waitpid(vm.pid, 0)
    ok(wait_gone(pids.values()), "the caller's end leaves no process (%.0f ms)" %
          ((time.monotonic() - begin) * 1000))
    ok(vm.state().get("end") == "10", "and is named", vm.state())
    vm = bench.vm("sleep", "100", detached=True)
    vm.wait_for(STARTED)
    vm.caller.close()
    time.sleep(0.3)
    ok(not gone(vm.pid), "a detached VM outlives its caller")
    os.kill(vm.pid, signal.SIGTERM)
    os.waitpid(vm.pid, 0)
    ok(vm.state().get("end") == "11", "SIGTERM ends it", vm.state())


def test_guest_ends(home):
    bench = bench_of(home)
    o, *_ = bench.run("true", cmdline=CMDLINE_DEFAULT + " rdinit=/nothing")
    ok(o and o.end == 6 and "before its agent answered: Kernel panic - not syncing" in o.text,
       "a kernel that panics while booting is quoted", o)
    # What still lies in a pipe of the guest dies with it: the panic waits until the line has come.
    stdin, panic = os.pipe()
    os.set_blocking(stdin, False)
    o, out, *_ = bench.run("sh", "-c", "echo before; read go; echo c >/proc/sysrq-trigger; sleep 100", stdin=stdin,
                           heard=lambda: os.write(panic, b"go\n"))
    os.close(stdin)
    os.close(panic)
    ok(o and o.end == 6 and "before its workload did: Kernel panic" in o.text and out == b"before\n",
       "and so is one that panics later; what was written before arrives", (o, out))
    r, w = os.pipe()
    os.set_blocking(w, False)
    vm = bench.vm("yes", stdio=(None, w, None), timeout_ms=500)
    os.close(w)
    o = vm.end()
    os.close(r)
    ok(o and o.end == 3, "a timeout holds with output that nobody reads", o)


def test_machine(home):
    bench = bench_of(home)
    o, *_, vm = bench.run("true", qemu="/nonexistent/qemu")
    ok(o and o.end == 12 and "/nonexistent/qemu" in o.text, "no QEMU is said so", o)
    o, *_, vm = bench.run("true", qemu="/bin/false")
    ok(o and o.end == 7 and "status 1" in o.text, "a QEMU that fails is named", o)
    o, *_, vm = bench.run("true", cpus=300)
    ok(o is None, "a configuration out of range starts nothing", o)
    vm = bench.vm("sleep", "100")
    vm.wait_for(STARTED)
    vm.tell(SIGNAL, 9)
    o = vm.end()
    ok(o and o.end == 2 and o.value == 9, "a signal over the control socket reaches the workload", o)


def press(vm):
    """Press the power button until the VM ends: the guest's driver for it comes some time after READY."""
    while not vm.outcome:
        vm.tell(POWER_BUTTON)
        readable, _, _ = select.select([vm.caller], [], [], 0.3)
        assert time.monotonic() - vm.begun < lib.LIMIT, vm.log()
        if readable and not vm.message():
            break
    return vm.end()


def test_power_button(home):
    bench = bench_of(home)
    r, w = os.pipe()
    vm = bench.vm("sh", "-c", "trap 'echo asked; exit 7' TERM; echo up; while :; do sleep 0.1; done", stdio=(None, w, None))
    os.close(w)
    vm.wait_for(STARTED)
    ok(os.read(r, 10) == b"up\n", "a workload that knows SIGTERM runs")
    o = press(vm)
    ok(o and o.end == 1 and o.value == 7 and os.read(r, 100) == b"asked\n", "the power button asks it to end", o)
    os.close(r)
    vm = bench.vm("sleep", "100")
    vm.wait_for(STARTED)
    o = press(vm)
    ok(o and o.end == 2 and o.value == 9, "one that does not know SIGTERM is killed once it had its time", o)
    ok(o.duration_ns > 10e9, "which is ten seconds", o.duration_ns)
    vm = bench.vm()
    vm.wait_for(READY)
    o = press(vm)
    ok(o and o.end == 1 and o.value == 0, "without a workload the guest powers off", o)


lib.main(globals())
