#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 5400
"""kernel_test.py - the tuned guest kernel is built, and runs what real workloads ask of a kernel: containers with overlay,
seccomp and limits, bridges and pairs, nftables and iptables with NAT, IPv6, BPF, FUSE, file systems (guest/workloads.sh)."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
import images  # noqa: E402
import lib  # noqa: E402
from lib import equal, ok  # noqa: E402

WORKLOADS = ("networks server overlay user_namespace container cgroup_limits nftables_nat iptables_rules ipv6 bpf_programs "
             "tunnels fuse file_systems binaries").split()


def test_build(home):
    """Once per recipe; the second time nothing is done."""
    tuned = home.take_tuned(build=True)
    again = home.husk("kernel", "build")
    equal((again.status, again.text.strip()), (0, tuned), "the same recipe is the same kernel", again)
    ok("there already" in again.error, "and is not built again", again)
    folder = home.path / "home" / "kernels" / tuned
    config = (folder / "config").read_text()
    ok("CONFIG_VMGENID=y" in config and "# CONFIG_MODULES is not set" in config, "it has VMGenID and no modules")
    print(f"# bzImage {(folder / 'bzimage').stat().st_size >> 10} KiB, ELF {(folder / 'image').stat().st_size >> 10} KiB")


def test_refusals(home):
    """What cannot be built is refused before anything is compiled, and leaves nothing behind."""
    bad = home.path / "bad.config"
    bad.write_text("CONFIG_NO_SUCH_OPTION=y\n")
    done = home.husk("kernel", "build", "--fragment", bad, limit=600)
    equal(done.status, 1, "a fragment with an unknown option is refused", done)
    ok("CONFIG_NO_SUCH_OPTION=y" in done.error, "by its name", done)
    left = sorted(p.name for p in (home.path / "home" / "kernels").iterdir() if not p.name.endswith(".lock"))
    ok(all(name.startswith(("husk-", "linux-", "build.log")) for name in left), "nothing half-made is left", left)


def test_workloads(home):
    home.take_tuned()
    image = home.have(images.workloads(), "workloads")
    done = home.run("-m", "1G", "--cpus", "2", "--start-timeout", "3m", image, limit=1200)
    equal(done.status, 0, "the workloads run to their end", done)
    lines = done.text.splitlines()
    for name in WORKLOADS:
        at = next((i for i, line in enumerate(lines) if line in (f"ok {name}", f"not ok {name}")), None)
        trace = [] if at is None else [line for line in lines[at + 1:at + 20] if line.startswith("# ")]
        ok(at is not None and lines[at] == f"ok {name}", name.replace("_", " "), "\n".join(trace) if at is not None else done)


lib.main(globals())
