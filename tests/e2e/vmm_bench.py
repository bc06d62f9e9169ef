# SPDX-License-Identifier: Apache-2.0
"""What suites that start husk-vmm by hand (vmm_launch.py) start it with: a layer with busybox and the guest's initramfs."""
import os
import subprocess
import threading

import images
import lib
from vmm_launch import VM, initramfs

HUSK_VMM = str(lib.TOP / "build" / "vmm" / "husk-vmm")
HUSK_INIT = str(lib.TOP / "build" / "guest" / "husk-init")


class Bench:
    """A layer with busybox and the guest's initramfs, in the suite's home."""

    def __init__(self, home):
        self.work = str(home.path / "bench")
        os.mkdir(self.work)
        kernel = next((home.path / "home" / "kernels").glob("linux-*"))
        self.kernel = str(kernel / "image")
        self.initrd = self.work + "/initramfs"
        initramfs(self.initrd, HUSK_INIT, [kernel / "modules" / name for name in (kernel / "load").read_text().split()])
        home.have(images.busybox(), "busybox")
        self.layer = str(next((home.path / "home" / "layers").glob("*.img")))
        self.n = 0

    def directory(self):
        self.n += 1
        directory = "%s/vm%d" % (self.work, self.n)
        os.mkdir(directory)
        return directory

    def vm(self, *argv, directory=None, **options):
        directory = directory or self.directory()
        scratch = directory + "/scratch"
        with open(scratch, "wb") as f:
            f.truncate(1 << 30)
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-E", "assume_storage_prezeroed=1", scratch], check=True)
        return VM(HUSK_VMM, directory, self.kernel, self.initrd, [self.layer], scratch, argv=argv or None, **options)

    def run(self, *argv, heard=None, **options):
        """Run to the end with both outputs read: (outcome, stdout, stderr, vm). @heard is called at each piece of them."""
        ends, collected, threads = [], [bytearray(), bytearray()], []
        for i in range(2):
            r, w = os.pipe()
            os.set_blocking(w, False)
            ends.append(w)

            def reader(fd=r, to=collected[i]):
                while data := os.read(fd, 1 << 20):
                    to += data
                    if heard:
                        heard()
                os.close(fd)

            threads.append(threading.Thread(target=reader, daemon=True))
            threads[-1].start()
        stdin = options.pop("stdin", None)
        vm = self.vm(*argv, stdio=(stdin, *ends), flags=1 | (4 if stdin is not None else 0), **options)
        for fd in ends:
            os.close(fd)
        outcome = vm.end()
        for thread in threads:
            thread.join()
        return outcome, bytes(collected[0]), bytes(collected[1]), vm


def bench_of(home):
    if not hasattr(home, "bench"):
        home.bench = Bench(home)
    return home.bench
