# SPDX-License-Identifier: Apache-2.0
"""inside.py - the lab's end of the control channel: runs the commands that the host sends (wire.py).

One thread. Each command is in a session of its own; what is left of it when it has ended is killed, so that no case finds
the rest of the one before.
"""
import fcntl
import json
import os
import pathlib
import select
import signal
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import wire


KVM_CREATE_VM, KVM_CREATE_VCPU, KVM_CREATE_IRQCHIP = 0xae01, 0xae41, 0xae60


def hold_a_vm():
    """A VM that never runs; descriptors that keep it, or nothing without a /dev/kvm.

    With its first VM and after its last one KVM switches static keys, that is, it patches __schedule() under the feet of all
    CPUs (preempt_notifier_inc(), Linux, kernel/sched/core.c; with vCPUs, those of their APICs). Emulating several CPUs QEMU 7.2
    may keep an old translation of such an instruction for ever, here that of the breakpoint which stands there meanwhile: it
    reads code before it watches the page for writes, where later versions lock the page first (tb_lock_page0() in accel/tcg).
    All CPUs then trap in __schedule() without end, and the lab hangs; a loop that makes and closes VMs gets there in seconds.
    With this VM the keys stay as they are."""
    if not os.path.exists("/dev/kvm"):
        return ()
    kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    vm = fcntl.ioctl(kvm, KVM_CREATE_VM, 0)
    fcntl.ioctl(vm, KVM_CREATE_IRQCHIP, 0)
    held = kvm, vm, fcntl.ioctl(vm, KVM_CREATE_VCPU, 0)
    for fd in held:
        os.set_inheritable(fd, False)
    return held


def port():
    """Device node of the control port: there is no udev here that would name it."""
    for entry in pathlib.Path("/sys/class/virtio-ports").iterdir():
        if (entry / "name").read_text().strip() == "lab.control":
            return "/dev/" + entry.name
    raise SystemExit("lab: there is no port lab.control")


class Command:
    def __init__(self, number, request):
        self.number = number
        self.process = subprocess.Popen(request["argv"], cwd=request["cwd"], env={**os.environ, **request["env"]},
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        start_new_session=True, bufsize=0)
        os.set_blocking(self.process.stdin.fileno(), False)
        self.ended = os.pidfd_open(self.process.pid)
        self.input, self.input_over = bytearray(), False
        self.outputs = {self.process.stdout.fileno(): wire.STDOUT, self.process.stderr.fileno(): wire.STDERR}
        self.status = None

    def close_input(self):
        if not self.process.stdin.closed:
            self.process.stdin.close()

    def write_input(self):
        try:
            del self.input[:os.write(self.process.stdin.fileno(), self.input[:wire.CHUNK])]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.input.clear()
            self.input_over = True
        if self.input_over and not self.input:
            self.close_input()


class Lab:
    def __init__(self):
        self.fd = os.open(port(), os.O_RDWR | os.O_CLOEXEC)
        self.reader, self.commands = wire.Reader(), {}
        self.held = hold_a_vm()

    def send(self, kind, number=0, payload=b""):
        data = memoryview(wire.frame(kind, number, payload))
        while data:
            data = data[os.write(self.fd, data):]

    def take(self, kind, number, payload):
        command = self.commands.get(number)
        if kind == wire.RUN:
            try:
                self.commands[number] = Command(number, json.loads(payload))
            except OSError as error:
                self.send(wire.STDERR, number, f"lab: {error}\n".encode())
                self.send(wire.EXIT, number, b"%d" % (127 << 8))
        elif not command:
            return  # it has ended meanwhile
        elif kind == wire.STDIN and payload:
            command.input += payload
        elif kind == wire.STDIN:
            command.input_over = True
            if not command.input:
                command.close_input()
        elif kind == wire.SIGNAL:
            try:
                os.killpg(command.process.pid, int(payload))
            except ProcessLookupError:
                pass

    def read_output(self, command, fd):
        data = os.read(fd, wire.CHUNK)
        if data:
            self.send(command.outputs[fd], command.number, data)
        else:
            del command.outputs[fd]
        return len(data)

    def end(self, command):
        """It has ended: pass on what its pipes still hold, then how it ended."""
        _, status = os.waitpid(command.process.pid, 0)
        command.process.returncode = 0
        try:
            os.killpg(command.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        for fd in list(command.outputs):
            os.set_blocking(fd, False)
            try:
                while self.read_output(command, fd):
                    pass
            except BlockingIOError:  # a child of it, elsewhere, has the pipe
                pass
        os.close(command.ended)
        command.close_input()
        command.process.stdout.close()
        command.process.stderr.close()
        del self.commands[command.number]
        self.send(wire.EXIT, command.number, b"%d" % status)

    def round(self):
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        owners = {}
        for command in self.commands.values():
            for fd in (command.ended, *command.outputs):
                owners[fd] = command
                poll.register(fd, select.POLLIN)
            if command.input and not command.process.stdin.closed:
                owners[command.process.stdin.fileno()] = command
                poll.register(command.process.stdin.fileno(), select.POLLOUT)
        ready = [fd for fd, _ in poll.poll()]
        if self.fd in ready:
            for kind, number, payload in self.reader.feed(os.read(self.fd, wire.CHUNK)):
                self.take(kind, number, payload)
            return  # what is ready may have changed
        for fd in ready:
            command = owners[fd]
            if command.number not in self.commands:
                continue
            if fd in command.outputs:
                self.read_output(command, fd)
            elif fd == command.ended:
                self.end(command)
            elif not command.process.stdin.closed and fd == command.process.stdin.fileno():
                command.write_input()

    def run(self):
        uptime = pathlib.Path("/proc/uptime").read_text().split()[0]
        self.send(wire.HELLO, 0, json.dumps({"uptime": float(uptime), "kvm": os.path.exists("/dev/kvm")}).encode())
        while True:
            self.round()


Lab().run()
