#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""bench.py - husk's figures on this machine, one table from one run. usage: bench/bench.py [BUILDDIR] [start|layer|worker|stdout|blk|muxer|doors|load|ps|exec|doors-vm|kernel|sandbox|lab…]

start   cold `husk run IMAGE true` (1 and 8 layers) against the bare QEMU with husk's own machine options, kernel and
        command line and an initramfs that only powers off; interleaved, so that both see the same machine
kernel  kernel to init on the qemu machine, bare QEMU as above and whole `husk run`: the tuned kernel against the distribution's,
        interleaved; by the guest's clock, from the kernel's first look at it to init, and by the host's, the whole process
layer   a Debian root (one gzip layer) from an OCI layout into the store, against `umoci unpack` of the same image
worker  resident memory of the worker without the guest's RAM, and its CPU time until its doors are open
stdout  bytes per second that a workload's stdout delivers to a pipe of the caller
blk     4 KiB random reads of a cached file through the block device without a guest, against a bare preadv loop, in CPU time
muxer   the vsock muxer without a guest, against a bare unix socketpair (bench-muxer has more to say)
doors   from a connection to its first byte through the doors, without a guest (bench-doors)
load    kernel and initramfs into the `kvm` machine's memory, against read() of the same bytes (bench-load)
ps      `husk ps -a` with 1,000 records: wall time, and CPU time; against `husk version`, which only starts
exec    an exec of `true` in a VM that runs, less the guest's own fork, exec and wait, against a bare vsock echo; a GiB of output; 100 at
        once (exec_bench.py)
doors-vm  what goes through the doors of a VM, against its own sockets, and what idle connections cost (doors_vm.py)
sandbox  calls, starts and restores of function sandboxes, against bare KVM: here where /dev/kvm opens, else in the lab
lab     the kvm machine against QEMU's microvm on the same KVM, in an emulated host (lab_bench.py)

Every figure is given with p50, p99, n and what it is held against. HUSK_BENCH_PAIRS sets how many pairs (10).
"""
import contextlib
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
BUILD = TOP / (sys.argv[1] if len(sys.argv) > 1 else "build")
os.environ["HUSK_TEST_HUSK"] = str(BUILD / "cli" / "husk")
sys.path.insert(0, str(TOP / "tests" / "e2e"))
import images  # noqa: E402
import lib  # noqa: E402
import doors_vm  # noqa: E402
import exec_bench  # noqa: E402
import lab_bench  # noqa: E402
import sandbox_bench  # noqa: E402
import views_test  # noqa: E402

PAIRS = int(os.environ.get("HUSK_BENCH_PAIRS", "10"))
ROWS = []


def quantile(values, q):
    return sorted(values)[min(len(values) - 1, round(q * (len(values) - 1)))]


def row(name, values, unit, against="", wanted="", met=None):
    ROWS.append((name, f"{quantile(values, .5):.2f} {unit}", f"{quantile(values, .99):.2f} {unit}", str(len(values)), against,
                 wanted, "" if met is None else "yes" if met else "NO"))


def say(text):
    print(f"... {text}", file=sys.stderr, flush=True)


def timed(command, **more):
    begun = time.monotonic()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)
    return time.monotonic() - begun


def cpio(name, data, mode=0o100755):
    """A newc archive with one file and /dev/console."""
    def entry(path, content, kind, rdev=(0, 0)):
        fields = [0, kind, 0, 0, 1, 0, len(content), 0, 0, *rdev, len(path) + 1, 0]
        head = ("070701" + "".join(f"{f:08x}" for f in fields)).encode() + path.encode() + b"\0"
        return head + b"\0" * (-len(head) % 4) + content + b"\0" * (-len(content) % 4)
    return (entry("dev", b"", 0o40755) + entry("dev/console", b"", 0o20600, (5, 1)) + entry(name, data, mode)
            + entry("TRAILER!!!", b"", 0))


def bare_qemu(home, image, folder):
    """The command line of husk's own QEMU, taken from a live one, without devices, descriptors and kernel; its init powers off."""
    running = home.start("run", "--quiet", image, "sh", "-c", "echo ready; exec sleep 1000")
    running.wait_for(b"ready\n")
    pid = running.processes()["qemu"]
    words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
    running.process.send_signal(signal.SIGKILL)
    running.finish()
    given = {}
    for option, value in zip(words, words[1:]):
        if option in ("-machine", "-M", "-accel", "-cpu", "-smp", "-append"):
            given[option] = value
    machine = given.pop("-M", None) or given.pop("-machine", "q35")
    machine = ",".join(part for part in machine.split(",") if not part.startswith("memory-backend"))
    subprocess.run(["musl-gcc", "-static", "-Os", "-o", folder / "init", TOP / "bench" / "poweroff.c"], check=True)
    (folder / "initrd").write_bytes(cpio("init", (folder / "init").read_bytes()))
    command = [words[0], "-M", machine, "-m", "512M", "-nodefaults", "-no-user-config", "-display", "none", "-nic", "none",
               "-no-reboot", "-initrd", str(folder / "initrd")]
    for option, value in given.items():
        command += [option, value]
    return command


def kernel_path(home, kind):
    return next((home.path / "home" / "kernels").glob(f"{kind}-*"))


def eight_layers(folder):
    layers = [images.busybox_layer()] + [images.Layer().add(f"layer-{i}", f"{i}").done() for i in range(7)]
    images.write_layout(folder / "eight", layers)
    return f"oci:{folder}/eight:latest"


def start(home, folder):
    home.have(images.busybox(), "one")
    home.have(eight_layers(folder), "eight")
    # With the package's bzImage, and with the ELF that husk unpacks from it once and boots.
    base, distribution = bare_qemu(home, "one", folder), kernel_path(home, "linux")
    bare, bare_elf = (base + ["-kernel", str(distribution / name)] for name in ("bzimage", "image"))
    times = {"bare QEMU, bzImage": [], "bare QEMU, unpacked": [], "husk run, 1 layer": [], "husk run, 8 layers": []}
    commands = (bare, bare_elf, [lib.HUSK, "run", "--quiet", "--machine", "qemu", "one", "true"],
                [lib.HUSK, "run", "--quiet", "--machine", "qemu", "eight", "true"])
    for i in range(PAIRS + 1):
        say(f"cold starts, round {i} of {PAIRS}")
        for name, command in zip(times, commands):
            seconds = timed(command, env=home.environment())
            if i:  # the first round fills the page cache
                times[name].append(seconds)
    first = times["bare QEMU, bzImage"]
    for name in list(times)[:2]:
        row(name, times[name], "s")
    for name in list(times)[2:]:
        ratio = statistics.median(a / b for a, b in zip(times[name], first))
        same = statistics.median(a / b for a, b in zip(times[name], times["bare QEMU, unpacked"]))
        row(name, times[name], "s", f"{ratio:.2f} x bzImage", "<= 1.25 x", ratio <= 1.25)
        row("  against the unpacked kernel", times[name], "s", f"{same:.2f} x unpacked", "<= 1.25 x", same <= 1.25)


def kernel(home, folder):
    home.have(images.busybox(), "one")
    try:
        tuned = home.take_tuned()
    except lib.Skip as why:
        say(f"kernel: {why}")
        return
    base = bare_qemu(home, "one", folder) + ["-serial", "stdio", "-kernel"]
    kinds = {"distribution": kernel_path(home, "linux"), "tuned": kernel_path(home, "husk")}
    inside, whole, runs = ({kind: [] for kind in kinds} for _ in range(3))
    for i in range(PAIRS + 1):
        say(f"kernels, round {i} of {PAIRS} ({tuned})")
        for kind, path in kinds.items():
            begun = time.monotonic()
            told = subprocess.run(base + [str(path / "image")], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE).stdout
            seconds = time.monotonic() - begun
            run = timed([lib.HUSK, "run", "--quiet", "--machine", "qemu", "--kernel", path.name, "one", "true"],
                        env=home.environment())
            if i:  # the first round fills the page cache
                inside[kind].append(float(re.search(rb"init at ([0-9.]+)", told)[1]))
                whole[kind].append(seconds), runs[kind].append(run)
    for what, times in (("kernel to init, the guest's clock", inside), ("bare QEMU until init powers off", whole),
                        ("husk run, true", runs)):
        for kind in kinds:
            ratio = statistics.median(a / b for a, b in zip(times[kind], times["distribution"]))
            row(f"{what}, {kind} kernel", times[kind], "s", "" if kind == "distribution" else f"{ratio:.2f} x distribution")


PEAK = """import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"""


def layer(home, folder):
    tar = images.debian().removeprefix("tar:")
    say("writing the Debian image as an OCI layout")
    layout = folder / "debian"
    images.write_layout(layout, [pathlib.Path(tar).read_bytes()])
    ours, theirs, peaks = [], [], []
    for i in range(max(5, PAIRS // 2) + 1):
        say(f"layer conversions, round {i}")
        home.husk("rmi", "-f", "bench:1")
        begun = time.monotonic()
        # A small process in between: a child's peak begins with the size of the process that forked it, and this one is big.
        done = subprocess.run([sys.executable, "-c", PEAK, lib.HUSK, "import", f"oci:{layout}:latest", "bench:1"],
                              env=home.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
        seconds = time.monotonic() - begun
        bundle = folder / "bundle"
        shutil.rmtree(bundle, ignore_errors=True)
        rootless = [] if os.geteuid() == 0 else ["--rootless"]
        other = timed(["umoci", "unpack", *rootless, "--image", f"{layout}:latest", str(bundle)])
        shutil.rmtree(bundle, ignore_errors=True)
        if i:
            ours.append(seconds), theirs.append(other), peaks.append(int(done.stdout) / 1024)
    ratio = statistics.median(a / b for a, b in zip(ours, theirs))
    row("umoci unpack, Debian root", theirs, "s")
    row("husk import, Debian root", ours, "s", f"{ratio:.2f} x umoci", "<= 0.5 x", ratio <= 0.5)
    row("  its peak memory", peaks, "MiB", "", "<= 66 MiB", max(peaks) <= 66)


def worker(home, folder):
    home.have(images.busybox(), "one")
    cpu, memory = [], []
    for i in range(5):
        say(f"workers, round {i}")
        running = home.start("run", "--quiet", "one", "sh", "-c", "echo ready; exec sleep 1000")
        pid, doors = None, home.path / "home" / "run"
        while running.process.poll() is None:
            if pid is None:
                pid = running.processes().get("worker")
            elif any(doors.rglob("exec.sock")):
                break
        if pid:
            with contextlib.suppress(OSError):
                cpu.append(int(pathlib.Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6)
        running.wait_for(b"ready\n")
        memory.append(resident(running.processes()["worker"]))
        running.process.kill()
        running.finish()
    row("worker, resident without guest RAM", memory, "MiB", "", "<= 5 MiB", quantile(memory, .5) <= 5)
    if cpu:
        row("worker, CPU until its doors are open", cpu, "ms", "", "< 5 ms", quantile(cpu, .5) < 5)


def resident(pid):
    """MiB of a process in smaps, without mappings of a memfd (the guest's RAM)."""
    total, counted = 0, True
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"^[0-9a-f]+-[0-9a-f]+ ", line):
            counted = "memfd:" not in line
        elif line.startswith("Rss:") and counted:
            total += int(line.split()[1])
    return total / 1024


def stdout(home, folder):
    home.have(images.busybox(), "one")
    size, rounds = 128 << 20, 6
    say(f"stdout, {rounds} times {size >> 20} MiB")
    running = home.start("run", "--quiet", "-i", "one", "sh", "-c",
                         f"while read go; do dd if=/dev/zero bs=64k count={size >> 16} 2>/dev/null; done", stdin=subprocess.PIPE)
    rates, pipe = [], running.process.stdout.fileno()
    for i in range(rounds + 1):
        running.stdin.write(b"go\n")
        running.stdin.flush()
        got = len(os.read(pipe, 1))
        begun = time.monotonic()
        while got < size:
            chunk = os.read(pipe, 1 << 20)
            if not chunk:
                raise RuntimeError(str(running.finish()))
            got += len(chunk)
        if i:
            rates.append(size / (time.monotonic() - begun) / 1e6)
    running.stdin.close()
    running.finish()
    row("stdout of the workload", rates, "MB/s", "", ">= 60 MB/s", quantile(rates, .5) >= 60)


def ratios_of(command, name, other):
    """A row for each line of a bench that prints a case, what is wanted (0: nothing) and the ratio of each round."""
    for line in subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout.splitlines():
        case, wanted, *ratios = line.split("\t")
        ratios = [float(r) for r in ratios]
        median = quantile(ratios, .5)
        # Of a ratio the slow end is the small one: p99 is what 99 of 100 rounds reach.
        ROWS.append((f"{name}, {case}", f"{median:.2f}", f"{quantile(ratios, .01):.2f}", str(len(ratios)), f"{median:.2f} x {other}",
                     *((f">= {wanted} x", "yes" if median >= float(wanted) else "NO") if float(wanted) else ("", ""))))


def blk(home, folder):
    say("the block device against preadv")
    ratios_of([BUILD / "bench" / "bench-blk", "--raw", folder], "blk, 4 KiB reads", "preadv")


def muxer(home, folder):
    say("the muxer against a socketpair")
    ratios_of([BUILD / "bench" / "bench-muxer", "--raw"], "muxer", "socketpair")


def doors(home, folder):
    say("connections through the doors")
    raw = subprocess.run([BUILD / "bench" / "bench-doors", "--raw"], check=True, text=True, stdout=subprocess.PIPE).stdout
    ways = {name: [float(us) for us in values.split()] for name, values in (line.split(":") for line in raw.splitlines())}
    for name, values in ways.items():
        over = statistics.median(a - b for a, b in zip(values, ways["TCP door"]))
        held = {"handoff": (f"TCP door {over:+.1f} us", "<= +50 us", over <= 50)}
        row(f"{name}, first byte without a guest", values, "us", *held.get(name, ()))


def load(home, folder):
    initrd = folder / "load-initrd"
    initrd.write_bytes(cpio("init", os.urandom(8 << 20)))
    kernel = next((home.path / "home" / "kernels").glob("linux-*"))
    for name, what in (("bzimage", "bzImage"), ("image", "unpacked kernel")):
        say(f"the boot loader, {what}")
        raw = subprocess.run([BUILD / "bench" / "bench-load", "--raw", kernel / name, initrd], check=True, text=True,
                             stdout=subprocess.PIPE).stdout
        loader, bare = ([float(ms) for ms in line.split()] for line in raw.splitlines())
        ratio = statistics.median(b / a for a, b in zip(loader, bare))
        row(f"load {what} and initramfs", loader, "ms", f"{ratio:.2f} x as fast as read()", ">= 0.8 x", ratio >= .8)
        row("  read() of as many bytes", bare, "ms")


def table():
    head = ("what", "p50", "p99", "n", "ratio (median of pairs)", "wanted", "met")
    widths = [max(len(r[i]) for r in [head, *ROWS]) for i in range(len(head))]
    for r in [head, tuple("-" * w for w in widths), *ROWS]:
        print("  ".join(cell.ljust(width) for cell, width in zip(r, widths)).rstrip())


def ps(home, folder):
    """A thousand records in a home of their own; the whole process, interleaved with one that does nothing."""
    with lib.Home(kernel=False) as own:
        records = views_test.Records(own)
        for i in range(1000):
            records.add(views_test.STOPPED, f"vm-{i}", end=views_test.END_EXITED, ended=time.time_ns(), supervisor=views_test.GONE)
        wall, spent, nothing = [], [], []
        for i in range(max(PAIRS, 20) + 1):
            before = os.times()
            seconds = timed([lib.HUSK, "ps", "-a"], env=own.environment())
            after = os.times()
            bare = timed([lib.HUSK, "version"], env=own.environment())
            if i:  # the first one reads the files from the disk
                wall.append(seconds * 1000)
                spent.append((after.children_user + after.children_system - before.children_user - before.children_system) * 1000)
                nothing.append(bare * 1000)
    row("husk ps -a, 1,000 records", wall, "ms", f"husk version {quantile(nothing, .5):.1f} ms", "< 50 ms", quantile(wall, .5) < 50)
    row("  its CPU time (ticks of 10 ms)", spent, "ms")


def main():
    parts = {"start": start, "layer": layer, "worker": worker, "stdout": stdout, "blk": blk, "muxer": muxer, "doors": doors,
             "load": load, "ps": ps, "exec": lambda home, folder: exec_bench.run(ROWS, say, BUILD, home, folder),
             "doors-vm": lambda home, folder: doors_vm.run(home, folder, row, say),
             "sandbox": lambda home, folder: sandbox_bench.run(ROWS, say, BUILD),
             "lab": lambda home, folder: lab_bench.run(row, say, PAIRS),
             "kernel": kernel}  # last: it brings a kernel into the home that the others would boot, too
    wanted = sys.argv[2:] or list(parts)
    with lib.Home() as home, tempfile.TemporaryDirectory(prefix="husk-bench-") as folder:
        for name in wanted:
            parts[name](home, pathlib.Path(folder))
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    print(f"\n{os.cpu_count()} CPUs ({cpu[1] if cpu else '?'}), kernel {os.uname().release}, load {os.getloadavg()[0]:.1f}, "
          f"{time.strftime('%Y-%m-%d')}")
    table()


main()
