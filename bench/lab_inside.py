# SPDX-License-Identifier: Apache-2.0
"""lab_inside.py - the half of the lab's bench that runs in the lab; one JSON object per line. usage: lab_inside.py ROUNDS

boots   the whole process, from its start until a guest whose init restarts at once has ended it: `husk run --machine kvm`, and
        QEMU's microvm, with the same kernel, initramfs and number of CPUs, in turn
exits   of the same, how often the CPU left the guest: events of the tracepoint kvm:kvm_exit
memory  the worker's own resident memory, sampled every 10 ms from its start through a load of streams, disk and memory
setup   system calls of the worker until its first KVM_RUN (the time of that is for real hardware to say)
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP / "tests" / "e2e"))
sys.path.insert(0, str(TOP / "tests" / "lab"))
sys.path.insert(0, str(TOP / "tests" / "lab" / "cases"))
import images  # noqa: E402
import lib  # noqa: E402

TRACING = pathlib.Path("/sys/kernel/tracing")
CMDLINE = "quiet panic=-1 reboot=t no_timer_check"

RESTARTED = {"qemu": "Restarting system", "husk": "rese?t|restart|reboot"}  # what a guest that came to init leaves behind


def tell(**what):
    print(json.dumps(what), flush=True)


def quiet_run(command, home):
    begun = time.monotonic()
    done = subprocess.run(command, env=home.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    return time.monotonic() - begun, done


def contenders(home, folder):
    """{name: command}: each boots the same kernel and initramfs and ends when init does."""
    kernels = sorted((home.path / "home" / "kernels").glob("*/image"), key=lambda path: "tuned" not in path.parent.name)
    kernel, initramfs = kernels[0], TOP.parent / "bench-initramfs"
    tell(kernel=kernel.parent.name)
    return {
        "husk": [lib.HUSK, "run", "--quiet", "--machine", "kvm", "--start-timeout", "200", "--cpus", "1", "-m", "256m", "--kernel",
                 str(kernel), "--initramfs", str(initramfs), "--cmdline", CMDLINE, "busybox"],
        "qemu": ["qemu-system-x86_64", "-M", "microvm,rtc=on", "-accel", "kvm", "-cpu", "host", "-smp", "1", "-m", "256M",
                 "-nodefaults", "-no-user-config", "-display", "none", "-nic", "none", "-no-reboot", "-serial", "stdio",
                 "-kernel", str(kernel), "-initrd", str(initramfs), "-append", "console=ttyS0 " + CMDLINE],
    }


def boots(home, folder, rounds):
    commands = contenders(home, folder)
    for i in range(rounds + 1):
        for name, command in commands.items():
            seconds, done = quiet_run(command, home)
            if i:  # the first round fills caches
                tell(boot=name, seconds=seconds)
                continue
            said = done.stdout.decode(errors="replace")
            tell(first=name, status=done.returncode, said=said[-600:])
            if not re.search(RESTARTED[name], said):
                raise SystemExit(f"{name}'s guest did not come to its end: {said}")


def traced(action):
    """Events of kvm:kvm_exit while @action runs."""
    (TRACING / "trace").write_text("")
    enable = TRACING / "events" / "kvm" / "kvm_exit" / "enable"
    enable.write_text("1")
    action()
    enable.write_text("0")
    stats = "".join(path.read_text() for path in TRACING.glob("per_cpu/cpu*/stats"))
    return sum(int(n) for n in re.findall(r"^(?:entries|overrun|dropped events): (\d+)", stats, re.M))


def exits(home, folder, rounds):
    if not (TRACING / "events").is_dir():
        subprocess.run(["busybox", "mount", "-t", "tracefs", "tracefs", TRACING], check=True)
    for _ in range(min(rounds, 3)):
        for name, command in contenders(home, folder).items():
            tell(exits=name, count=traced(lambda: quiet_run(command, home)))


def memory(home, folder, rounds):
    running = home.start("run", "--quiet", "-i", "busybox", "sh", "-c",
                         "echo ready; head -c 30000000 /dev/zero | tee /data | cat; sync; sha256sum /data; echo; exec cat",
                         stdin=subprocess.PIPE)
    samples, worker, seen = [], None, 0
    out = running.process.stdout.fileno()
    os.set_blocking(out, False)
    while seen < 30000000 + 6 and running.process.poll() is None:
        begun = time.monotonic()
        worker = worker or running.processes().get("worker")
        if worker:
            try:
                samples.append(lib.resident(worker)[0])
            except OSError:
                break
        try:
            while chunk := os.read(out, 1 << 20):
                seen += len(chunk)
        except BlockingIOError:
            pass
        time.sleep(max(0, 0.010 - (time.monotonic() - begun)))
    running.stdin.close()
    running.process.kill()
    running.finish()
    tell(memory=samples, whole=seen >= 30000000 + 6)


def setup(home, folder, rounds):
    log = folder / "strace"
    command = ["strace", "-f", "-qq", "-o", str(log), *contenders(home, folder)["husk"]]
    quiet_run(command, home)
    worker, threads, calls = None, set(), []
    for line in log.read_text(errors="replace").splitlines():
        pid, _, call = line.partition(" ")
        call = call.strip()
        if "execve(" in call and '"worker"' in call:
            worker, threads = pid, {pid}
        if pid not in threads:
            continue
        if made := re.match(r"clone3?\(.* = (\d+)$", call):
            threads.add(made[1])
        if "KVM_RUN" in call:
            break
        if "resumed>" not in call:
            calls.append(re.match(r"\w*", call)[0])
    tell(setup=len(calls), kvm=calls.count("ioctl"))


def main():
    rounds = int(sys.argv[1])
    parts = sys.argv[2:] or ["boots", "exits", "memory", "setup"]
    with lib.Home() as home:
        home.have(images.busybox(), "busybox")
        for name in parts:
            globals()[name](home, home.path, rounds)


main()
