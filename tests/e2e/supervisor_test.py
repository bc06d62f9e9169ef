#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The supervisor of a VM that lives on: requests on its socket, also with a worker that hangs and a workload that does not
listen, its states, its events, and the program that it becomes at the end. husk-vmm alone, started by hand (vmm_launch.py)."""
# timeout: 300
import errno
import json
import os
import re
import signal
import socket
import time

import lib
from lib import ok
from vmm_bench import bench_of
from vmm_launch import (BEGUN, EVENTS_PATH, HOME, KILL, NAME, PAUSE, PTY, PTY_PATH, READY, REMOVER_PATH, RESUME, RUNTIME_PATH,
                        SERVICE, SIGNAL, STARTED, STATS, STOP, STOP_SIGNAL, gone, u32)

REMOVER = """#!/usr/bin/env python3
import json, os, sys
open_fds = []
for name in os.listdir("/proc/self/fd"):
    try:
        os.fstat(int(name))
        open_fds.append(int(name))
    except OSError:
        pass
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
state = open(os.path.dirname(sys.argv[0]) + "/state", "rb").read()
with open(os.path.dirname(sys.argv[0]) + "/removed", "w") as f:
    json.dump({"argv": sys.argv[1:], "fds": open_fds, "cwd": os.getcwd(), "blocked": int(status["SigBlk"], 16),
               "ignored": int(status["SigIgn"], 16), "pid": os.getpid(), "state": state.hex()}, f)
"""


def launch(bench, *argv, directory=None, more=(), more_fds=(), **options):
    """A detached VM that is served, with the home's file of events beside it."""
    directory = directory or bench.directory()
    os.makedirs(directory + "/run", mode=0o700, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as service:
        service.bind(directory + "/run/supervisor.sock")
        service.listen(64)
        service.setblocking(False)
        return bench.vm(*argv, directory=directory, detached=True,
                        more=[(NAME, b"web"), (EVENTS_PATH, (directory + "/events").encode()), *more],
                        more_fds=[(SERVICE, service.fileno()), *more_fds], **options)


def events(vm):
    with open(vm.directory + "/events") as f:
        return [json.loads(line) for line in f]


def until(vm, **wanted):
    """Wait until the record says so."""
    limit = time.monotonic() + lib.LIMIT
    while time.monotonic() < limit:
        state = vm.state()
        if all(state.get(key) == value for key, value in wanted.items()):
            return True
        assert not gone(vm.pid), (state, vm.log())
        time.sleep(0.02)
    return False


def finish(vm):
    """Wait until it is gone: (its last state, how long that took)."""
    begun = time.monotonic()
    os.waitpid(vm.pid, 0)
    return vm.state(), time.monotonic() - begun


def test_ends_without_a_boot(home):
    bench = bench_of(home)
    vm = launch(bench, "true")
    message = vm.message()
    state = vm.state()
    ok(message.kind == BEGUN and state["state"] == "starting" and state["supervisor"] == str(vm.pid),
       "the first word is that the record names the supervisor", (message, state))
    ok(state["starts"] == "1" and int(state["started_ns"]) > 0 and state["ended_ns"] == "0", "which has started it once",
       state)
    ok(vm.ask(PAUSE)[0] == errno.EAGAIN, "a VM that starts cannot be paused")
    ok(vm.ask(KILL) == (0, ""), "but killed")
    state, _ = finish(vm)
    ok(state["state"] == "stopped" and state["end"] == "11" and state["reason"] == "killed on request" and
       state["ended_ns"] >= state["started_ns"], "which is no error", state)
    generation = int(state["generation"])
    vm = launch(bench, "true", directory=vm.directory, qemu="/nonexistent/qemu")
    state, _ = finish(vm)
    ok(state["state"] == "error" and state["end"] == "12" and "/nonexistent/qemu" in state["reason"],
       "a start that fails is one", state)
    ok(state["starts"] == "2" and int(state["generation"]) == generation + 2,
       "the next start goes on from the record before", state)
    vm = launch(bench, "true", directory=vm.directory, start_timeout_ms=200)
    state, _ = finish(vm)
    ok(state["state"] == "error" and state["end"] == "5" and state["starts"] == "3", "and so is one that takes too long", state)
    told = [(e["event"], e.get("end"), e.get("exit_code")) for e in events(vm)]
    ok(told == [("started", None, None), ("stopped", "killed", 137), ("stopped", "failed", 125), ("started", None, None),
                ("stopped", "start_timeout", 125)], "events tell it all", told)


def pause_in_vain(vm, worker):
    """PAUSE with a worker that hangs."""
    os.kill(worker, signal.SIGSTOP)
    begun = time.monotonic()
    got = vm.ask(PAUSE)
    ok(got[0] == errno.ETIMEDOUT and 4 < time.monotonic() - begun < 10, "PAUSE with a worker that hangs times out", got)
    ok(vm.state()["state"] == "running" and vm.ask(SIGNAL, 1)[0] == 0, "others are served meanwhile")
    os.kill(worker, signal.SIGCONT)
    ok(until(vm, state="paused"), "when the worker goes on the VM is paused, and its record says so")
    ok(vm.ask(RESUME) == (0, "") and vm.state()["state"] == "running", "RESUME lets it go on")


def test_live(home):
    bench = bench_of(home)
    directory = bench.directory()
    with open(directory + "/remover", "w") as f:
        f.write(REMOVER)
    os.chmod(directory + "/remover", 0o700)
    master, slave = os.openpty()
    r, w = os.pipe()
    vm = launch(bench, "sh", "-c", "trap 'echo hup' HUP; trap '' TERM; echo up; while :; do sleep 0.1; done",
                directory=directory, stdio=(None, w, None),
                more=[(STOP_SIGNAL, u32(signal.SIGTERM)), (PTY_PATH, os.ttyname(slave).encode()), (HOME, b"/the/home"),
                      (RUNTIME_PATH, b"/the/runtime"), (REMOVER_PATH, (directory + "/remover").encode())],
                more_fds=[(PTY, slave)])
    os.close(w)
    console = os.ttyname(slave)
    os.close(slave)
    vm.wait_for(STARTED)
    vm.caller.close()
    os.kill(vm.pid, signal.SIGHUP)
    out = os.fdopen(r)
    ok(out.readline() == "up\n" and vm.ask(SIGNAL, signal.SIGHUP) == (0, "") and out.readline() == "hup\n",
       "a detached VM lives on without its caller and takes signals")
    state = vm.state()
    ok(state["state"] == "running" and state["console"] == console, "its record has its console", state)
    generation = int(state["generation"])
    ok(vm.ask(PAUSE) == (0, "") and vm.state()["state"] == "paused", "PAUSE is answered when it is paused")
    ok(vm.ask(PAUSE)[0] == errno.EALREADY and vm.ask(STATS)[0] == 0, "once more is told so; STATS are had all the same")
    ok(vm.ask(RESUME) == (0, "") and int(vm.state()["generation"]) == generation + 2, "each state is a new generation")
    pause_in_vain(vm, vm.pids()["worker"])
    ok(vm.ask(PAUSE) == (0, ""), "it is paused once more")
    begun = time.monotonic()
    ok(vm.ask(STOP, 2500) == (0, "") and time.monotonic() - begun < 1, "STOP is answered at once")
    state, _ = finish(vm)
    took = time.monotonic() - begun
    ok(state["state"] == "stopped" and state["reason"] == "killed: it did not stop within 2.5 s" and 2.5 <= took < 5.5,
       "a workload that does not listen is killed when its time is over (%.2f s)" % took, state)
    ok(int(state["duration_ns"]) > 7e9, "the record says how long it ran", state)
    ok("console" not in state and state["ended_ns"] > state["started_ns"], "the last state has no console", state)
    out.close()
    os.set_blocking(master, False)
    try:
        hung_up = os.read(master, 1) == b""
    except OSError as e:
        hung_up = e.errno == errno.EIO
    ok(hung_up, "whose other end was open until then")
    os.close(master)
    removed = json.load(open(directory + "/removed"))
    ok(removed["argv"] == ["/the/home", "/the/runtime", "0123456789ab"] and removed["pid"] == vm.pid,
       "the supervisor has become the remover", removed)
    ok(removed["cwd"] == "/" and max(removed["fds"]) <= 3 and removed["blocked"] == 0 and not removed["ignored"] & 1,
       "with nothing of its own left but its standard streams", removed)
    ok(bytes.fromhex(removed["state"]) == open(directory + "/state", "rb").read(), "after its last record")
    told = [e["event"] for e in events(vm)]
    ok(told == ["started", "ready", "paused", "resumed", "paused", "resumed", "paused", "resumed", "stopped"],
       "events tell it all", told)
    ready, stopped = events(vm)[1], events(vm)[-1]
    ok(ready["boot_ms"] > 0 and ready["name"] == "web" and stopped["exit_code"] == 137 and stopped["end"] == "killed",
       "with what belongs to them", (ready, stopped))


def test_hung_worker(home):
    bench = bench_of(home)
    vm = launch(bench, "sleep", "100")
    vm.wait_for(READY)
    pids = vm.pids()
    os.kill(pids["worker"], signal.SIGSTOP)
    begun = time.monotonic()
    ok(vm.ask(STOP, 60000) == (0, "") and vm.ask(STOP, 600) == (0, ""), "STOP with a worker that hangs, then with less time")
    state, _ = finish(vm)
    took = time.monotonic() - begun
    ok(state["reason"] == "killed: it did not stop within 0.6 s" and 0.6 <= took < 5, "the VM ends soon after (%.2f s)" % took,
       state)
    ok(all(gone(pid) for pid in pids.values()), "with all its processes", pids)
    line = re.search(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z husk-vmm supervisor: stopped: killed: .*\n", vm.log())
    ok(line, "lines of the log have their time", vm.log())


lib.main(globals())
