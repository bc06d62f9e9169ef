# SPDX-License-Identifier: Apache-2.0
"""Start `husk-vmm supervisor` by hand, as the engine does: the envelope of vmm/config.h, the descriptors it names, and the
messages that come back. For tests of husk-vmm alone; nothing here is part of husk."""

import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import time
import zlib

import lib

VMM_MAGIC, VMM_VERSION = 0x434D5648, 1
(ID, MACHINE, MEMORY, CPUS, QEMU_PATH, CMDLINE, KERNEL, INITRD, LAYER, SCRATCH, RUNTIME, STATE, LOG, CALLER, CONTROL, STDIN,
 STDOUT, STDERR, EXEC, START_TIMEOUT_MS, TIMEOUT_MS, LIFETIME) = range(1, 23)
KVM = 38
MACHINES = {"qemu": 1, "kvm": 2}
SERVICE, STOP_SIGNAL, NAME, EVENTS_PATH, PTY, PTY_PATH, REMOVER_PATH, HOME, RUNTIME_PATH = 26, 54, 56, 57, 58, 59, 60, 61, 62
READY, STARTED, OUTCOME, ANSWER, BEGUN = 1, 2, 3, 6, 8
SIGNAL, RESIZE, KILL, POWER_BUTTON, STOP, PAUSE, RESUME, BALLOON, STATS, ATTACH = 16, 17, 18, 21, 22, 23, 24, 25, 26, 27
ENDS = {1: "exited", 2: "signaled", 3: "timeout", 4: "not started", 5: "start timeout", 6: "guest", 7: "machine",
        8: "worker", 9: "supervisor", 10: "caller", 11: "killed", 12: "failed"}
MESSAGE = struct.Struct("=IIIIQQQQ512s 208x")  # and no door
CMDLINES = {"qemu": "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check tsc=reliable nokaslr i8042.noaux "
                    "i8042.nomux i8042.nopnp i8042.dumbkbd 8250.nr_uarts=1 cryptomgr.notests",
            "kvm": "quiet panic=-1 8250.nr_uarts=1 cryptomgr.notests earlycon=uart8250,io,0x3f8 console=hvc1 reboot=a"}
CMDLINE_DEFAULT = CMDLINES[lib.MACHINE]


def tlv(tag, value):
    return struct.pack("<HHI", tag, 0, len(value)) + value


def envelope(magic, version, entries):
    body = b"".join(tlv(tag, value) for tag, value in entries)
    return struct.pack("<IHHII", magic, version, 0, len(body), zlib.crc32(body)) + body


def u32(value):
    return struct.pack("<I", value)


def u64(value):
    return struct.pack("<Q", value)


def exec_payload(argv, flags=1, env=()):
    entries = [(1, u32(flags))] + [(2, a.encode()) for a in argv] + [(3, e.encode()) for e in env]
    return b"".join(tlv(tag, value) for tag, value in entries)


class Message:
    def __init__(self, data):
        self.kind, self.end, self.value, _, self.boot_ns, self.duration_ns, self.peak_rss, self.number, text = \
            MESSAGE.unpack(data)
        self.text = text.split(b"\0")[0].decode()
        self.at = time.monotonic()

    def __repr__(self):
        return "<%s %s %d %r>" % ({1: "READY", 2: "STARTED", 3: "OUTCOME", 6: "ANSWER", 8: "BEGUN"}[self.kind], ENDS.get(self.end), self.value,
                                  self.text)


class VM:
    """One VM. kernel, initrd, layers, scratch: paths. stdio: three descriptors or None each. more: further entries, as
    (tag, bytes); more_fds: further ones that are descriptors."""

    def __init__(self, husk_vmm, directory, kernel, initrd, layers, scratch=None, argv=None, stdio=(None, None, None),
                 memory=512, cpus=1, cmdline=CMDLINE_DEFAULT, timeout_ms=0, start_timeout_ms=60000, detached=False,
                 qemu="/usr/bin/qemu-system-x86_64", flags=1, more=(), more_fds=()):
        self.directory = directory
        self.husk_vmm = husk_vmm
        os.makedirs(directory + "/run", mode=0o700, exist_ok=True)
        self.state_path, self.log_path = directory + "/state", directory + "/log"
        self.caller, caller = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        opened = []

        def opening(path, flags=os.O_RDONLY):
            opened.append(os.open(path, flags | os.O_CLOEXEC, 0o600))
            return opened[-1]

        fds = [(KERNEL, opening(kernel)), (INITRD, opening(initrd))]
        fds += [(LAYER, opening(path)) for path in layers]
        if scratch:
            fds.append((SCRATCH, opening(scratch, os.O_RDWR)))
        fds += [(RUNTIME, opening(directory + "/run", os.O_DIRECTORY)),
                (STATE, opening(self.state_path, os.O_RDWR | os.O_CREAT)),
                (LOG, opening(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)),
                (CALLER, caller.fileno()), (CONTROL, control.fileno())]
        fds += [(STDIN + i, fd) for i, fd in enumerate(stdio) if fd is not None] + list(more_fds)
        if lib.MACHINE == "kvm":
            fds.append((KVM, opening("/dev/kvm", os.O_RDWR)))
        entries = [(ID, b"0123456789ab"), (MACHINE, u32(MACHINES[lib.MACHINE])), (MEMORY, u64(memory << 20)), (CPUS, u32(cpus)),
                   (QEMU_PATH, qemu.encode()), (CMDLINE, cmdline.encode()), (START_TIMEOUT_MS, u64(start_timeout_ms)),
                   (TIMEOUT_MS, u64(timeout_ms)), (LIFETIME, u32(detached)), *more]
        if argv:
            entries.append((EXEC, exec_payload(argv, flags)))
        # Numbers in the child begin at 3; the sources are first lifted out of that range.
        lifted = [os.dup(fd) for _, fd in fds]
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100) for fd in lifted]
        for fd in lifted:
            os.close(fd)
        entries += [(tag, u32(4 + i)) for i, (tag, _) in enumerate(fds)]
        memfd = os.memfd_create("envelope")
        os.write(memfd, envelope(VMM_MAGIC, VMM_VERSION, entries))
        top = fcntl.fcntl(memfd, fcntl.F_DUPFD_CLOEXEC, 100)
        actions = [(os.POSIX_SPAWN_DUP2, top, 3)]
        actions += [(os.POSIX_SPAWN_DUP2, fd, 4 + i) for i, fd in enumerate(high)]
        self.begun = time.monotonic()
        self.pid = os.posix_spawn(husk_vmm, ["husk-vmm", "supervisor"], os.environ, file_actions=actions, setsid=True)
        for fd in opened + high + [memfd, top]:
            os.close(fd)
        caller.close()
        control.close()
        self.outcome = None

    def message(self, timeout=90):
        """The next message, or None when the supervisor has closed its end."""
        ready, _, _ = select.select([self.caller], [], [], timeout)
        assert ready, "no message within %d s" % timeout
        data = self.caller.recv(4096)
        if not data:
            return None
        message = Message(data)
        if message.kind == OUTCOME:
            self.outcome = message
        return message

    def wait_for(self, kind, timeout=90):
        while True:
            message = self.message(timeout)
            assert message, "the supervisor ended first"
            if message.kind == kind:
                return message
            assert message.kind != OUTCOME, message

    def end(self, timeout=90):
        """Wait for the outcome and for the supervisor's exit."""
        while self.message(timeout):
            pass
        os.waitpid(self.pid, 0)
        return self.outcome

    def tell(self, kind, value=0, on_caller=False):
        data = MESSAGE.pack(kind, 0, value, 0, 0, 0, 0, 0, b"")
        (self.caller if on_caller else self.control).send(data)

    def ask(self, kind, value=0, timeout=30):
        """Ask over supervisor.sock: (errno, text), or None when the supervisor hangs up."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(self.directory + "/run/supervisor.sock")
            client.settimeout(timeout)
            client.send(MESSAGE.pack(kind, 0, value, 0, 0, 0, 0, 0, b""))
            data = client.recv(4096)
        if not data:
            return None
        answer = Message(data)
        assert answer.kind == ANSWER, answer
        return answer.value, answer.text

    def state(self):
        text = subprocess.run([self.husk_vmm, "state", self.state_path], capture_output=True, text=True).stdout
        return dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)

    def pids(self):
        state = self.state()
        return {name: int(state[name].split()[0]) for name in ("supervisor", "worker", "machine") if name in state}

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()


def gone(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


# ---- an initramfs for husk-init ----

BOOT_MAGIC, BOOT_VERSION = 0x544F4248, 1

def cpio(files):
    """A newc archive of {path: (mode, bytes)}."""
    out = bytearray()
    entries = list(files.items()) + [("TRAILER!!!", (0, b""))]
    for i, (path, (mode, data)) in enumerate(entries):
        name = path.encode() + b"\0"
        fields = (i + 1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
        out += b"070701" + b"".join(b"%08X" % f for f in fields) + name
        out += b"\0" * (-len(out) % 4) + data
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


# What the engine (engine/kernel_modules.c) leaves out on the `qemu` machine, and what it leaves for later.
OTHER_MODULES = ("virtio_mmio.ko", "virtio_console.ko") if lib.MACHINE == "qemu" else ()
LATE_MODULES = ("virtio-rng.ko", "virtio_balloon.ko", "evdev.ko", "button.ko")


def initramfs(path, husk_init, modules, layers=1, scratch=True, flags=0):
    """husk-init with its boot envelope and those of the files @modules, in load order, that the `qemu` machine needs."""
    files = {"init": (0o100755, open(husk_init, "rb").read()), "husk": (0o40755, b""), "husk/modules": (0o40755, b""),
             "dev": (0o40755, b"")}
    entries = []
    for module in modules:
        name = os.path.basename(module)
        if name in OTHER_MODULES:
            continue
        files["husk/modules/" + name] = (0o100644, open(module, "rb").read())
        entries.append((14 if name in LATE_MODULES else 1, name.encode()))
    entries += [(2, b"vda"), (3, u32(layers))] + ([(4, b"vdb")] if scratch else [])
    entries += [(5, u32(flags)), (6, b"husk"), (12, u64(time.time_ns())), (13, os.urandom(64))]
    files["husk/boot"] = (0o100600, envelope(BOOT_MAGIC, BOOT_VERSION, entries))
    with open(path, "wb") as f:
        f.write(cpio(files))
