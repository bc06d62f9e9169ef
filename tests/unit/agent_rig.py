# SPDX-License-Identifier: Apache-2.0
"""What the agent's tests share: an agent over a root of busybox's, and what they print."""
import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time

from agent_client import *  # noqa: F401,F403

count = failed = 0


def check(ok, what, detail=None):
    global count, failed
    count += 1
    failed += not ok
    print(f"{'ok' if ok else 'not ok'} {count} - {what}", flush=True)
    if not ok and detail is not None:
        print(f"# {detail!r}", flush=True)


def same(got, want, what):
    check(got == want, what, got)


def skip(why):
    print(f"1..0 # SKIP {why}")
    sys.exit(0)


def enter_network():
    """Enter a network of this process's own: ports are numbers that others use, too, a second run of this test for one."""
    if ctypes.CDLL(None).unshare(0x40000000) != 0:  # CLONE_NEWNET
        return False
    with socket.socket() as s:
        fcntl.ioctl(s, 0x8914, struct.pack("16sh22x", b"lo", 0x1))  # SIOCSIFFLAGS, IFF_UP
    return True


def make_root(directory):
    busybox = shutil.which("busybox")
    for name in ("bin", "etc", "tmp", "data"):
        os.makedirs(f"{directory}/{name}", exist_ok=True)
    os.chmod(f"{directory}/tmp", 0o1777)
    shutil.copy(busybox, f"{directory}/bin/busybox")
    for name in "sh cat dd echo env id kill ls mount ps pwd readlink rm sleep stty touch true tty wc".split():
        os.symlink("busybox", f"{directory}/bin/{name}")
    files = {
        "etc/passwd": "root:x:0:0::/root:/bin/sh\nsam:x:1000:1000::/home/sam:/bin/sh\n",
        "etc/group": "root:x:0:\nsam:x:1000:\nadm:x:4:sam,x\n",
        "etc/plain": "not a program\n",
        "bin/bad": "no format at all",
    }
    for name, text in files.items():
        with open(f"{directory}/{name}", "w") as f:
            f.write(text)
    os.chmod(f"{directory}/bin/bad", 0o755)


class Agent:
    def __init__(self, tool, *options, cgroup=None, prepare=None, sysfs=None):
        self.directory = tempfile.mkdtemp(prefix="husk-agent-")
        os.mkdir(f"{self.directory}/root", 0o755)
        make_root(f"{self.directory}/root")
        self.path = f"{self.directory}/agent.sock"
        environment = {**os.environ, **({"HUSK_TEST_CGROUP": cgroup} if cgroup else {}),
                       **({"HUSK_TEST_SYSFS": sysfs} if sysfs else {})}
        self.process = subprocess.Popen(
            [tool, f"{self.directory}/root", self.path, *options], stdout=subprocess.PIPE, text=True, env=environment,
            preexec_fn=prepare)
        for _ in range(500):
            with socket.socket(socket.AF_UNIX) as probe:  # its path is there before it listens
                if probe.connect_ex(self.path) == 0:
                    return
            if self.process.poll() is not None:
                self.end()
                skip("no namespaces here")
            time.sleep(0.01)

    def end(self):
        """Wait for it, remove its files; what it said."""
        try:
            said = self.process.communicate(timeout=20)[0]
        except subprocess.TimeoutExpired:
            self.process.kill()
            said = "hangs\n"
        shutil.rmtree(self.directory)
        return said.strip()

    def exec(self, args, flags=0, **more):
        return Exec(self.path, args, flags, **more)

    def refusal(self, args, flags=0, **more):
        try:
            return self.exec(args, flags, **more).run()
        except Refused as refused:
            return refused.code


def settle(condition, seconds=10):
    """Wait until it is true; whether it is."""
    deadline = time.monotonic() + seconds
    while not (true := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return true


def files(process):
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def power_off(a):
    c = Connection(a.path)
    c.send(frame(POWER, struct.pack("<I", 0)))
    c.answer()
    c.close()
    return a.end()


def done():
    print(f"1..{count}")
    return 1 if failed else 0


def ready():
    """Skip the test where it cannot be."""
    if os.geteuid() != 0 or not shutil.which("busybox"):
        skip("needs root and busybox")
    if not enter_network():
        skip("no namespaces here")
