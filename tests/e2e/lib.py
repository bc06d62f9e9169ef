# SPDX-License-Identifier: Apache-2.0
"""lib.py - what the end-to-end suites share: TAP, a home per suite, husk runs, processes, agent frames.

A suite is a script NAME_test.py whose functions test_* each get a Home; `main(globals())` at its end runs them in order.
An exception in one is one failed check with its traceback, and the next one runs. Nothing sleeps: suites wait for lines,
for descriptors and for processes, each with a limit.

The suite makes itself the reaper of its descendants, so "no process is left" means just that: it has none.
"""
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import pathlib
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "husk-test"
HUSK = os.environ.get("HUSK_TEST_HUSK") or str(TOP / "build" / "cli" / "husk")
LIMIT = 90  # seconds that one husk run may take: a boot under emulation on a busy machine, several times over
MACHINE = os.environ.get("HUSK_TEST_MACHINE") or "qemu"  # what every run gets as --machine, unless it names one
ROLES = ["qemu", "supervisor", "worker"] if MACHINE == "qemu" else ["supervisor", "worker"]  # a VM's processes
WALL = "software" if MACHINE == "qemu" else "hardware"
SLOW = bool(os.environ.get("HUSK_IN_LAB"))  # guests of a guest: boots take several times as long
if SLOW:
    LIMIT *= 2

PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

_count = 0
_failed = 0


class Skip(Exception):
    """What a test needs is not to be had on this machine; the text says what."""


def ok(fact, what, detail=""):
    """One check. @detail is shown when it failed: a string, or a finished run."""
    global _count, _failed
    _count += 1
    print(f"{'ok' if fact else 'not ok'} {_count} - {what}")
    if not fact:
        _failed += 1
        for line in str(detail).splitlines()[-40:]:
            print(f"# {line}")
    sys.stdout.flush()
    return bool(fact)


def equal(got, want, what, detail=""):
    return ok(got == want, what, f"got:  {got!r}\nwant: {want!r}\n{detail}")


def skip(what, why):
    global _count
    _count += 1
    print(f"ok {_count} - {what} # skip {why}", flush=True)


def default_signals():
    """Programs start with no signal ignored, also under nohup or a shell's `&`: husk leaves those alone that are ignored when it
    starts, as nohup asks. A signal that this process catches is the default again after exec(2), and still does nothing here."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def main(names, kernel=True):
    """Run the test_* functions of a suite (those named on the command line, or all)."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    default_signals()
    wanted = sys.argv[1:]
    try:
        with Home(kernel) as home:
            run_all(names, wanted, home)
    except Exception:  # without a home there is nothing to test
        ok(False, "a home for the suite", traceback.format_exc())
    print(f"1..{_count}", flush=True)
    sys.exit(1 if _failed else 0)


def run_all(names, wanted, home):
    for name, function in [(n, f) for n, f in names.items() if n.startswith("test_") and callable(f)]:
        if wanted and name.removeprefix("test_") not in wanted:
            continue
        begun = time.monotonic()
        try:
            function(home)
        except Skip as why:
            skip(name.removeprefix("test_").replace("_", " "), why)
        except Exception:  # the rest still runs
            ok(False, name.removeprefix("test_").replace("_", " "), traceback.format_exc())
        home.end_all()
        print(f"# {name}: {time.monotonic() - begun:.1f} s", flush=True)


# ---- processes ----

def _stat(pid):
    """(parent, state) of a process, or None."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), fields[0]


def descendants(root=None):
    """Living descendants of @root (this process) as {pid: command line}; the dead ones that fell to us are reaped."""
    root = root or os.getpid()
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (stat := _stat(int(entry))):
            parents[int(entry)] = stat
    found, frontier = {}, {root}
    while frontier:
        frontier = {pid for pid, (parent, _) in parents.items() if parent in frontier and pid not in found}
        for pid in frontier:
            found[pid] = parents[pid][1]
    result = {}
    for pid, state in found.items():
        if state in "ZX":
            continue
        with contextlib.suppress(OSError):
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            result[pid] = " ".join(w.decode(errors="replace") for w in words).strip()
    return result


def resident(pid):
    """(own, guest) KiB of a worker: guest memory is its huge mappings, the rest is its own."""
    own = guest = 0
    memory = False
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"^[0-9a-f]+-[0-9a-f]+ ", line):
            first, last = (int(word, 16) for word in line.split()[0].split("-"))
            memory = last - first >= 64 << 20
        elif line.startswith("Rss:"):
            kib = int(line.split()[1])
            own, guest = (own, guest + kib) if memory else (own + kib, guest)
    return own, guest


def wait_gone(pids, seconds=LIMIT):
    """Wait until all of @pids have ended; the ones that have not."""
    waiting, deadline = {}, time.monotonic() + seconds
    for pid in pids:
        try:
            waiting[os.pidfd_open(pid)] = pid
        except OSError as error:
            if error.errno not in (errno.ESRCH, errno.EINVAL):  # EINVAL: dead, and not reaped yet
                raise
    try:
        while waiting:
            ready, _, _ = select.select(list(waiting), [], [], max(0, deadline - time.monotonic()))
            if not ready:
                break
            for fd in ready:
                del waiting[fd]
                os.close(fd)
        return sorted(waiting.values())
    finally:
        for fd in waiting:
            os.close(fd)


def none_left(what="no process is left"):
    """One check: everything this suite started, directly or not, has ended (a moment is given)."""
    left = descendants()
    stuck = wait_gone(left)
    return ok(not stuck, what, "\n".join(f"{pid} {left[pid]}" for pid in stuck))


# ---- husk ----

def press_button(home, image):
    """A VM whose power button is pressed once its workload runs, which ends with 7 when it is asked to end."""
    script = "trap 'echo asked >&2; exit 7' TERM; echo ready; while :; do sleep 0.2; done"
    libexec = os.environ.get("HUSK_LIBEXEC") or str(TOP / "build" / "libexec")
    done = subprocess.run([TOP / "build" / "examples" / "button", image, "sh", "-c", script], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=3 * LIMIT,
                          env={**home.environment(), "HUSK_MACHINE": MACHINE, "HUSK_LIBEXEC": libexec})
    ok(done.returncode == 7 and b"asked" in done.stderr, "the power button asks the workload to end",
       f"{done.returncode} {done.stderr.decode()}")


def on_machine(arguments):
    """@arguments of husk, with the machine that is tested in those that make a VM."""
    if not arguments or arguments[0] not in ("run", "create"):
        return arguments
    added = [] if "--machine" in arguments else ["--machine", MACHINE]
    if SLOW and "--start-timeout" not in arguments:
        added += ["--start-timeout", "150"]
    return (arguments[0], *added, *arguments[1:])


class Done:
    """A finished run: status, out and err as bytes, seconds."""

    def __init__(self, arguments, status, out, err, seconds):
        self.arguments, self.status, self.out, self.err, self.seconds = arguments, status, out, err, seconds

    @property
    def text(self):
        return self.out.decode(errors="replace")

    @property
    def error(self):
        return self.err.decode(errors="replace")

    def __str__(self):
        return (f"husk {' '.join(map(str, self.arguments))}\nstatus {self.status} after {self.seconds:.1f} s\n"
                f"stdout: {self.out[-2000:]!r}\nstderr:\n{self.error[-3000:]}")


class Running:
    """A husk that runs. Lines of its stdout are waited for; stderr is kept in a file."""

    def __init__(self, home, arguments, **popen):
        self.home, self.arguments = home, on_machine(arguments)
        self.errors = tempfile.TemporaryFile()
        popen.setdefault("stdin", subprocess.DEVNULL)
        popen.setdefault("stdout", subprocess.PIPE)
        popen.setdefault("stderr", self.errors)
        self.begun = time.monotonic()
        self.process = subprocess.Popen([HUSK, *map(str, self.arguments)], env=home.environment(), **popen)
        self.pid, self.stdin = self.process.pid, self.process.stdin
        self.seen = b""

    def wait_for(self, text, seconds=LIMIT):
        """Read stdout until it contains @text; all that was read so far."""
        deadline, fd = time.monotonic() + seconds, self.process.stdout.fileno()
        while text not in self.seen:
            ready, _, _ = select.select([fd], [], [], max(0, deadline - time.monotonic()))
            chunk = os.read(fd, 65536) if ready else b""
            if not chunk:
                raise AssertionError(f"{text!r} did not come: {self.finish(0)}")
            self.seen += chunk
        return self.seen

    def finish(self, seconds=LIMIT):
        """Wait for its end (ended by force after @seconds: status None)."""
        deadline, status = time.monotonic() + seconds, None
        fd = self.process.stdout.fileno() if self.process.stdout else -1
        while fd >= 0:
            ready, _, _ = select.select([fd], [], [], max(0, deadline - time.monotonic()))
            chunk = os.read(fd, 65536) if ready else b""
            if not chunk:
                break
            self.seen += chunk
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = self.process.wait(max(0.1, deadline - time.monotonic()))
        if status is None:
            self.process.kill()
            self.process.wait()
        self.errors.seek(0)
        return Done(self.arguments, status, self.seen, self.errors.read(), time.monotonic() - self.begun)

    def processes(self):
        """Its processes by role: {"supervisor": pid, "worker": pid, "qemu": pid} as far as they live."""
        roles = {}
        for pid, line in descendants().items():
            for role, mark in (("supervisor", "husk-vmm supervisor"), ("worker", "husk-vmm worker"), ("qemu", "qemu-system")):
                if mark in line:
                    roles[role] = pid
        return roles


class Home:
    """A HUSK_HOME of its own, with the guest kernel in it; removed at the end."""

    def __init__(self, kernel=True, base=None):
        self.with_kernel, self.base = kernel, base or str(CACHE / "homes")
        self.extra, self.running = {}, []

    def __enter__(self):
        os.makedirs(self.base, exist_ok=True)
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="h", dir=self.base))
        self.config = self.path / "docker"
        self.config.mkdir()
        if self.with_kernel:
            self.take_kernel()
        return self

    def __exit__(self, *_):
        self.end_all()
        shutil.rmtree(self.path, ignore_errors=True)

    def environment(self):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HUSK_", "DOCKER_")) or k == "HUSK_LIBEXEC"}
        return {**kept, "HUSK_HOME": str(self.path / "home"), "DOCKER_CONFIG": str(self.config), **self.extra}

    def take_kernel(self):
        """Fetch the guest kernel once per machine, and link it in here."""
        shared = CACHE / "kernel"
        shared.mkdir(parents=True, exist_ok=True)
        with open(CACHE / "kernel.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # The lab, which has no network, was given them.
            if not (SLOW and (shared / "kernels").is_dir()):
                subprocess.run([HUSK, "kernel", "fetch"], check=True, stdout=sys.stderr,
                               env={**self.environment(), "HUSK_HOME": str(shared)}, stdin=subprocess.DEVNULL)
        (self.path / "home").mkdir(mode=0o700, exist_ok=True)
        # Hard links, so that a suite costs no room; a copy where the home lies on another file system or is another user's.
        link = "-al" if self.base == str(CACHE / "homes") else "-a"
        subprocess.run(["cp", link, str(shared / "kernels"), str(self.path / "home")], check=True)

    def take_tuned(self, build=False):
        """Link the tuned kernel in beside the distribution's: the one of the cache, built there with @build, or what the user's
        own home has. VMs boot it from then on, unless --kernel says otherwise. Its id, or Skip."""
        shared = CACHE / "tuned"
        shared.mkdir(parents=True, exist_ok=True)
        if build:
            subprocess.run([HUSK, "kernel", "build"], check=True, stdout=sys.stderr, stdin=subprocess.DEVNULL,
                           env={**self.environment(), "HUSK_HOME": str(shared)})
        clean = {k: v for k, v in self.environment().items() if k != "HUSK_HOME"}
        own = {"HUSK_HOME": os.environ["HUSK_HOME"]} if "HUSK_HOME" in os.environ else {}
        for where in ({"HUSK_HOME": str(shared)}, own):
            told = subprocess.run([HUSK, "kernel", "list", "--format", "json"], env={**clean, **where}, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, check=True).stdout
            for kernel in json.loads(told):
                if kernel["flavor"] == "tuned":
                    kernels = self.path / "home" / "kernels"
                    kernels.mkdir(mode=0o700, parents=True, exist_ok=True)
                    subprocess.run(["cp", "-a", kernel["path"], str(kernels)], check=True)
                    return kernel["id"]
        raise Skip("tuned kernel not built: run husk kernel build")

    def start(self, *arguments, **popen):
        running = Running(self, arguments, **popen)
        self.running.append(running)
        return running

    def husk(self, *arguments, input=None, limit=LIMIT, extra=None):
        """Run husk to its end. @input: bytes for its stdin."""
        arguments = on_machine(arguments)
        before = dict(self.extra)
        self.extra.update(extra or {})
        begun = time.monotonic()
        try:
            process = subprocess.Popen([HUSK, *map(str, arguments)], env=self.environment(),
                                       stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        finally:
            self.extra = before
        try:
            out, err = process.communicate(input, limit)
            status = process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            status = None
        return Done(arguments, status, out, err, time.monotonic() - begun)

    def run(self, *arguments, **keywords):
        """husk run --quiet …"""
        return self.husk("run", "--quiet", *arguments, **keywords)

    def have(self, source, name):
        """Import an image of images.py under @name."""
        done = self.husk("import", source, name)
        if done.status:
            raise AssertionError(f"cannot import: {done}")
        return name

    def vms(self):
        """Directories of the VMs on record."""
        folder = self.path / "home" / "vms"
        return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")) if folder.is_dir() else []

    def socket(self, name):
        """Path of a socket in the runtime directory of the one VM that runs."""
        found = list((self.path / "home").glob(f"run/*/{name}")) + list((self.path / "home").glob(f"run/vms/*/{name}"))
        if len(found) != 1:
            raise AssertionError(f"{name}: found {found}")
        return found[0]

    def end_all(self):
        """End what a failed test left running."""
        for running in self.running:
            if running.process.poll() is None:
                running.process.kill()
                running.process.wait()
        self.running = []
        left = descendants()
        for pid in wait_gone(left, 5):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in left:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


# ---- agent frames, from docs/agent-protocol.md ----

AGENT_VERSION = 2
HELLO, READY, EXEC, PUT, GET, SYNC, LISTENERS, FORWARD, POWER = 0x01, 0x02, 0x10, 0x11, 0x12, 0x13, 0x15, 0x16, 0x17
STDIN, STDOUT, STDERR, EOF, RESIZE, SIGNAL, STARTED, EXIT, ERROR, OK, WINDOW, LISTENING = range(0x30, 0x3c)
EXEC_FLAGS, EXEC_ARG, EXEC_ENV, EXEC_CWD, EXEC_USER, EXEC_GROUP, EXEC_WINDOW, EXEC_TIMEOUT, EXEC_FILE, EXEC_NEXT = range(1, 11)
FLAG_MAIN, FLAG_TTY, FLAG_STDIN, FLAG_INIT, FLAG_SYNC, FLAG_DETACH = 1, 2, 4, 8, 16, 32


def frame(kind, payload=b"", stream=0):
    return struct.pack("<IBBH", len(payload), kind, stream, 0) + payload


HELLO_FRAME = frame(HELLO, struct.pack("<I", AGENT_VERSION))  # how each end begins


def tlv(tag, value):
    if isinstance(value, int):
        value = struct.pack("<I", value)
    if isinstance(value, str):
        value = value.encode()
    return struct.pack("<HHI", tag, 0, len(value)) + value


def read_exactly(sock, n):
    got = b""
    while len(got) < n:
        chunk = sock.recv(n - len(got))
        if not chunk:
            return got
        got += chunk
    return got


def read_frame(sock):
    """(kind, stream, payload), or None at the end."""
    header = read_exactly(sock, 8)
    if len(header) < 8:
        return None
    size, kind, stream, zero = struct.unpack("<IBBH", header)
    assert zero == 0 and size <= 1 << 20, header
    return kind, stream, read_exactly(sock, size)


def agent_exec(sock, arguments, stdin=None, flags=0, entries=b""):
    """One EXEC over a connected socket: {status, signal, out, err, error}."""
    flags |= FLAG_STDIN if stdin is not None else 0
    request = tlv(EXEC_FLAGS, flags) + b"".join(tlv(EXEC_ARG, a) for a in arguments) + entries
    sock.sendall(HELLO_FRAME + frame(EXEC, request))
    if stdin is not None:  # small enough for the window
        sock.sendall((frame(STDIN, stdin) if stdin else b"") + frame(EOF, stream=0))
    result = {"out": b"", "err": b"", "status": None, "signal": None, "error": None, "kinds": []}
    while got := read_frame(sock):
        kind, stream, payload = got
        result["kinds"].append(kind)
        if kind in (STDOUT, STDERR):
            result["out" if kind == STDOUT else "err"] += payload
            sock.sendall(frame(WINDOW, struct.pack("<I", len(payload)), 1 if kind == STDOUT else 2))
        elif kind == EXIT:
            how, value = struct.unpack_from("<II", payload)
            result["status" if how == 1 else "signal"] = value
            break
        elif kind == ERROR:
            result["error"] = (struct.unpack_from("<I", payload)[0], payload[4:].decode(errors="replace"))
            break
    return result
