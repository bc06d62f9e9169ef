# SPDX-License-Identifier: Apache-2.0
"""machine.py - the lab host: an emulated computer with AMD SVM, whose Linux has a /dev/kvm that really runs guests.

Theory of operation: QEMU emulates the processor, and with it SVM and nested paging; Debian's cloud kernel loads kvm-amd;
husk runs inside. The root disk is made once per machine (root.sh) and every lab writes to a throw-away overlay of it.
A second disk, /lab, is made anew for each lab from hard links (stage): the build tree, the tests, the guest kernels
and the images. The host talks to it over one virtio-serial port (wire.py); the console goes into a file, whose tail is shown
when something went wrong. A lab that panics ends its QEMU, which is the end of the channel.

Two things of the emulated processor are taken away (CPU): `rep movsb` is emulated byte by byte, hence -erms; and XSETBV of a
guest's guest is not intercepted, so that KVM does not know its XCR0 and sets it back at each entry: without XSAVE there is
no XCR0. The clocks of two emulated CPUs agree, which tsc=reliable says. The lab's memory is not backed until it is touched.
"""
import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent / "e2e"))
import images
import lib
import wire

TREE = "/lab/tree"  # where the checkout lies inside
CPU = "max,+svm,-erms,-xsave,-xsaveopt,-xsavec,-xsaves,-xgetbv1,-avx,-avx2,-f16c,-fma,-mpx,-pku,-vaes,-vpclmulqdq"
BOOT_SECONDS = 120  # for the lab host, on a busy machine
UNWANTED = (".p", ".a", ".o", ".ninja", "-logs", "-private", "-info")  # of a build tree


PR_SET_PDEATHSIG = 1


class Broken(Exception):
    """The lab is gone, or did not come up; the text says how, with the console's tail."""


def say(text):
    print(f"lab: {text}", file=sys.stderr, flush=True)


def die_with_parent():
    """In the child that becomes QEMU: a lab does not outlive who started it, however that one ended."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def folder_of_its_own():
    """A directory for one lab, and the lock that says that it lives. Those of labs that were killed are removed."""
    lib.CACHE.mkdir(parents=True, exist_ok=True)
    with open(lib.CACHE / "lab-run.lock", "w") as all_of_them:
        fcntl.flock(all_of_them, fcntl.LOCK_EX)
        for old in lib.CACHE.glob("lab-run.*/alive"):
            with contextlib.suppress(OSError), open(old) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(old.parent, ignore_errors=True)
        folder = pathlib.Path(tempfile.mkdtemp(prefix="lab-run.", dir=lib.CACHE))
        lock = open(folder / "alive", "w")
        fcntl.flock(lock, fcntl.LOCK_EX)
    return folder, lock


# ---- the disk that is made for each lab ----

def link_tree(source, target, skip=lambda path: False):
    """A tree of hard links (copies across file systems)."""
    for folder, names, files in os.walk(source):
        inside = pathlib.Path(target) / pathlib.Path(folder).relative_to(source)
        inside.mkdir(parents=True, exist_ok=True)
        names[:] = [name for name in names if not skip(pathlib.Path(folder) / name)]
        for name in [n for n in names if os.path.islink(os.path.join(folder, n))]:
            names.remove(name)
            files.append(name)
        for name in files:
            path = pathlib.Path(folder) / name
            if skip(path):
                continue
            try:
                os.link(path, inside / name, follow_symlinks=False)
            except OSError:
                shutil.copy2(path, inside / name, follow_symlinks=False)


def stage(folder, build):
    """Lay out what becomes /lab below @folder."""
    tree = folder / "tree"
    tree.mkdir()
    link_tree(build, tree / "build", lambda path: path.name.endswith(UNWANTED) or path.suffix == ".1")
    for name in ("tests", "scripts", "bench"):
        link_tree(lib.TOP / name, tree / name)
    shutil.copy2(HERE / "init", folder / "init")
    (folder / "bin").mkdir()
    # The images' recipe names its busybox: the lab takes this machine's.
    if shutil.which("busybox"):
        shutil.copy2(shutil.which("busybox"), folder / "bin" / "busybox")
    cache = folder / "cache" / "husk-test"
    cache.mkdir(parents=True)
    stage_images(cache)
    # A home for commands: kernels and an image, imported here, where it takes no time.
    home = folder / "home"
    home.mkdir(mode=0o700)
    link_tree(cache / "kernel" / "kernels", home / "kernels")
    done = subprocess.run([lib.HUSK, "import", images.busybox(), "busybox"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={**os.environ, "HUSK_HOME": str(home)}, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Broken(f"cannot import busybox: {done.stdout.decode(errors='replace')}")


def stage_images(cache):
    """Guest kernels and the images of the suites, from this machine's cache."""
    if not any((lib.CACHE / "kernel" / "kernels").glob("*/image")):
        with lib.Home():  # fetches one
            pass
    link_tree(lib.CACHE / "kernel" / "kernels", cache / "kernel" / "kernels")
    if (lib.CACHE / "tuned" / "kernels").is_dir():
        link_tree(lib.CACHE / "tuned" / "kernels", cache / "tuned" / "kernels")
    for make in (images.busybox, images.stopped_by_usr1, images.configured, images.pid_one):
        make()
    link_tree(images.folder(), cache / images.folder().name, lambda path: path.suffix == ".lock" or ".part" in path.name)


# ---- the machine ----

class Lab:
    """A lab host that runs. Use it with `with`; run() runs one command in it."""

    def __init__(self, kind="everyday", smp=4, memory=6144, icount=False, build=None):
        self.kind, self.smp, self.memory, self.icount = kind, smp, memory, icount
        self.build = pathlib.Path(build or pathlib.Path(lib.HUSK).parent.parent)
        self.reader, self.frames, self.commands = wire.Reader(), [], 0
        self.process, self.channel, self.monitor, self.folder, self.alive = None, None, None, None, None

    def __enter__(self):
        made = subprocess.run([HERE / "root.sh", self.kind], check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        root = pathlib.Path(made.stdout.decode().strip())
        self.folder, self.alive = folder_of_its_own()
        try:
            begun = time.monotonic()
            self.make_disk()
            self.staged = time.monotonic() - begun
            self.boot(root)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            self.process.kill()
        if self.process:
            self.process.wait()
        for end in (self.channel, self.monitor):
            if end:
                end.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.alive.close()

    def stage(self, staged):
        """What becomes /lab; a lab that wants more there adds it."""
        stage(staged, self.build)

    def make_disk(self):
        staged = self.folder / "staged"
        staged.mkdir()
        self.stage(staged)
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-E",
                        "assume_storage_prezeroed=1,root_owner=0:0", "-N", "65536", "-d", staged, self.folder / "lab.img", "8G"],
                       check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(staged)

    def arguments(self, root, channel, monitor):
        accel = "tcg,thread=single" if self.icount else "tcg,thread=multi"
        kernel = ('console=ttyS0 quiet panic=-1 mitigations=off nokaslr tsc=reliable no_timer_check root=/dev/nvme0n1 rootwait rw '
                  'init=/bin/sh -- -c "busybox mount -t devtmpfs dev /dev && busybox mount -t ext4 /dev/nvme0n2 /lab && exec /lab/init"')
        disk = "if=none,format=raw,cache=unsafe,discard=unmap"
        return ["qemu-system-x86_64", "-M", "q35", "-accel", accel, "-cpu", CPU, "-smp", str(self.smp),
                "-m", str(self.memory), *(["-icount", "shift=0,sleep=off"] if self.icount else []),
                "-nic", "none", "-nodefaults", "-display", "none", "-no-reboot",
                "-serial", f"file:{self.folder}/console", "-kernel", str(root / "vmlinuz"), "-append", kernel,
                "-device", "nvme,serial=lab",
                "-drive", f"file={root}/root.img,id=root,snapshot=on,{disk}", "-device", "nvme-ns,drive=root,nsid=1",
                "-drive", f"file={self.folder}/lab.img,id=lab,{disk}", "-device", "nvme-ns,drive=lab,nsid=2",
                "-device", "virtio-serial-pci", "-chardev", f"socket,id=control,fd={channel}",
                "-device", "virtserialport,chardev=control,name=lab.control",
                "-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=readline"]

    def boot(self, root):
        begun = time.monotonic()
        self.channel, theirs = socket.socketpair()
        self.monitor, end = socket.socketpair()
        with theirs, end, open(self.folder / "qemu", "wb") as errors:
            self.process = subprocess.Popen(self.arguments(root, theirs.fileno(), end.fileno()), stdin=subprocess.DEVNULL, stdout=errors,
                                            stderr=errors, pass_fds=[theirs.fileno(), end.fileno()], start_new_session=True,
                                            preexec_fn=die_with_parent, env={**os.environ, "TMPDIR": str(self.folder)})
        while True:
            kind, _, payload = self.next(begun + BOOT_SECONDS)
            if kind == wire.HELLO:
                break
        self.booted = time.monotonic() - begun
        if not json.loads(payload)["kvm"]:
            raise Broken(f"the lab has no /dev/kvm\n{self.console()}")

    def cpu_seconds(self):
        """CPU time that the lab has taken of this machine: what it costs, however busy that is."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def console(self, lines=60):
        """The tail of what the lab's kernel, and QEMU, said."""
        said = b""
        for name in ("console", "qemu"):
            if (self.folder / name).exists():
                said += (self.folder / name).read_bytes()[-16384:]
        return "\n".join(said.decode(errors="replace").replace("\r", "").splitlines()[-lines:])

    def where(self):
        """Where the lab's CPUs are, as QEMU's monitor tells: a line for each. What a lab that hangs leaves to look at."""
        said, deadline = b"", time.monotonic() + 10
        self.monitor.sendall(b"info registers -a\nquestion\n")
        while b"unknown command: 'question'" not in said:
            ready, _, _ = select.select([self.monitor], [], [], max(0, deadline - time.monotonic()))
            data = self.monitor.recv(65536) if ready else b""
            if not data:
                return "QEMU's monitor does not answer, either"
            said += data
        found = re.findall(r"(CPU#\d+)\r?\n.*?(RIP=\w+ RFL=\w+).*?(CPL=\d).*?(HLT=\d).*?(CS =\w+).*?(GDT=\s*\w+).*?(CR0=\w+).*?(CR3=\w+)",
                           said.decode(errors="replace"), re.S)
        return "\n".join(" ".join(one) for one in found)

    def next(self, deadline, also=()):
        """The next frame; None when one of the descriptors @also is ready first, or when @deadline is over."""
        while not self.frames:
            left = None if deadline is None else max(0, deadline - time.monotonic())
            ready, _, _ = select.select([self.channel, *also], [], [], left)
            if self.channel in ready:
                data = self.channel.recv(65536)
                if not data:
                    raise Broken(f"the lab has ended (QEMU: {self.process.wait()}); its console:\n{self.console()}")
                self.frames += self.reader.feed(data)
            elif ready or also:
                return None
            else:
                raise Broken(f"the lab does not answer; its CPUs and its console:\n{self.where()}\n{self.console()}")
        return self.frames.pop(0)

    def send(self, kind, number, payload=b""):
        self.channel.sendall(wire.frame(kind, number, payload))

    def run(self, argv, seconds=None, out=None, err=None, stdin=None, env=None, cwd="."):
        """Run @argv in the lab; its exit status (128 + n for a signal), or None when it was ended after @seconds. Output goes to
        the callables @out and @err as it comes; @stdin: a descriptor to read from."""
        self.commands += 1
        number = self.commands
        request = {"argv": [str(a) for a in argv], "cwd": f"{TREE}/{cwd}", "env": env or {}}
        self.send(wire.RUN, number, json.dumps(request).encode())
        if stdin is None:
            self.send(wire.STDIN, number)
        deadline = None if seconds is None else time.monotonic() + seconds
        late = 0
        while True:
            got = self.next(deadline, [stdin] if stdin is not None else []) if deadline is None or not late else \
                self.next(deadline)
            if got is None and deadline is not None and time.monotonic() >= deadline:
                late += 1
                deadline = time.monotonic() + 15
                self.send(wire.SIGNAL, number, b"%d" % (signal.SIGTERM if late == 1 else signal.SIGKILL))
            elif got is None:
                data = os.read(stdin, wire.CHUNK)
                self.send(wire.STDIN, number, data)
                stdin = stdin if data else None
            elif got[1] != number:
                continue  # of a command that was given up
            elif got[0] == wire.STDOUT and out:
                out(got[2])
            elif got[0] == wire.STDERR and err:
                err(got[2])
            elif got[0] == wire.EXIT:
                return None if late else _status(int(got[2]))


def _status(waited):
    return 128 + os.WTERMSIG(waited) if os.WIFSIGNALED(waited) else os.WEXITSTATUS(waited)
