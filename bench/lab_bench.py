# SPDX-License-Identifier: Apache-2.0
"""lab_bench.py - the kvm machine against QEMU's on the same KVM, in a lab whose time follows instructions (tests/lab).

With -icount a lab's clock counts instructions, so that the same boot takes the same time in every run, whatever else this
machine does. What a CPU's own VM exits cost is not modelled; hence their number is a row of its own.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

TOP = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP / "tests" / "lab"))
import machine  # noqa: E402

SECONDS = 3600


def cpio_with(init):
    """A newc archive whose one program is /init."""
    def entry(path, content, mode, rdev=(0, 0)):
        fields = [0, mode, 0, 0, 1, 0, len(content), 0, 0, *rdev, len(path) + 1, 0]
        head = ("070701" + "".join(f"{field:08x}" for field in fields)).encode() + path.encode() + b"\0"
        return head + b"\0" * (-len(head) % 4) + content + b"\0" * (-len(content) % 4)
    return (entry("dev", b"", 0o40755) + entry("dev/console", b"", 0o20600, (5, 1)) + entry("init", init, 0o100755)
            + entry("TRAILER!!!", b"", 0))


class Lab(machine.Lab):
    """With the initramfs that both boot."""

    def stage(self, staged):
        super().stage(staged)
        with tempfile.TemporaryDirectory() as folder:
            init = pathlib.Path(folder) / "init"
            subprocess.run(["musl-gcc", "-static", "-Os", "-o", init, TOP / "bench" / "end.c"], check=True)
            (staged / "bench-initramfs").write_bytes(cpio_with(init.read_bytes()))


def measure(rounds, parts, say):
    """What lab_inside.py told, as a list."""
    said, errors = bytearray(), bytearray()

    def heard(data):
        said.extend(data)
        for line in data.decode(errors="replace").splitlines():
            say(line[:150])
    with Lab("bench", smp=1, icount=True) as lab:
        status = lab.run(["python3", "bench/lab_inside.py", str(rounds), *parts], SECONDS, heard, errors.extend,
                         env={"HUSK_TEST_MACHINE": "kvm"})
        if status != 0:
            raise machine.Broken(f"the lab's bench ended with {status}: {errors.decode(errors='replace')[-2000:]}\n{lab.console()}")
    return [json.loads(line) for line in said.decode().splitlines()]


def median(values):
    return sorted(values)[len(values) // 2]


def run(row, say, rounds, parts=()):
    """Measure and add rows: @row(name, values, unit, against, wanted, met)."""
    told = measure(rounds, parts, say)
    kernel = next((t["kernel"] for t in told if "kernel" in t), "?")
    boots = {who: [t["seconds"] for t in told if t.get("boot") == who] for who in ("qemu", "husk")}
    if boots["husk"] and boots["qemu"]:
        ratio = median([a / b for a, b in zip(boots["husk"], boots["qemu"])])
        row(f"lab: qemu -M microvm -accel kvm, boot to init ({kernel})", boots["qemu"], "s")
        row("lab: husk run --machine kvm, the same", boots["husk"], "s", f"{ratio:.2f} x microvm", "<= 0.8 x", ratio <= 0.8)
    exits = {who: [t["count"] for t in told if t.get("exits") == who] for who in ("qemu", "husk")}
    if exits["husk"] and exits["qemu"]:
        ratio = median(exits["husk"]) / median(exits["qemu"])
        row("lab: VM exits of microvm's boot", exits["qemu"], "")
        row("lab: VM exits of husk's", exits["husk"], "", f"{ratio:.2f} x microvm", "<= 0.5 x", ratio <= 0.5)
    for t in told:
        if "memory" in t:
            own = [kib / 1024 for kib in t["memory"]]
            row("lab: worker's own memory, every 10 ms", own, "MiB", f"peak {max(own):.2f} MiB", "<= 5 MiB",
                max(own) <= 5 and t["whole"])
        if "setup" in t:
            row("lab: system calls, worker start to first KVM_RUN", [t["setup"]], "", f"{t['kvm']} of them ioctl")
