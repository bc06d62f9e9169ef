#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 560
"""run_test.py - what an image's config and the options of `husk run` do inside, and the exit status outside."""
import os
import pathlib
import re
import subprocess
import time

import images
import lib
from lib import equal, ok


def sections(done):
    """A script's output that says `== NAME` before each part, as a dict."""
    parts = re.split(r"^== (\S+)\n", done.text, flags=re.M)
    return dict(zip(parts[1::2], (p.strip() for p in parts[2::2])))


def test_a_plain_run(home):
    """One VM, many facts: what a container's init finds."""
    image = home.have(images.busybox(), "busybox")
    script = r"""
echo "== id"; id -u; id -g; echo "== pid"; echo $$; echo "== hostname"; hostname; cat /etc/hostname
echo "== hosts"; cat /etc/hosts; echo "== resolv"; ls -l /etc/resolv.conf
echo "== env"; env | sort; echo "== cwd"; pwd; echo "== nofile"; ulimit -n
echo "== mounts"; cat /proc/mounts
echo "== links"; for l in fd stdin stdout stderr; do readlink /dev/$l; done
echo "== dev"; for d in null zero full random urandom tty; do stat -c %A /dev/$d; done; echo x > /dev/full; [ -c /dev/ptmx ] && [ -d /dev/pts ] && echo pts
echo "== tmp"; ls -ld /tmp | cut -c1-10; echo "== shm"; echo x > /dev/shm/x && cat /dev/shm/x
echo "== lo"; ip addr show lo | grep -c 'UP,LOWER_UP\|127.0.0.1/8'; echo "== links-up"; ls /sys/class/net
echo "== write"; echo written > /root/file; cat /root/file; echo "== processes"; ps -o pid,comm | grep -cv PID
echo "== stdin"; readlink /proc/self/fd/0; echo "== cgroup"; cat /proc/self/cgroup; ls /sys/fs/cgroup | head -3
echo "== memory"; grep MemTotal /proc/meminfo; echo "== cpus"; grep -c ^processor /proc/cpuinfo
echo "== agent"; ls /husk /init 2>&1; echo "== fds"; ls /proc/self/fd | wc -l; echo "== umask"; umask
echo "== date"; date +%s; echo "== owner"; ls -ln /bin/busybox /home | tail -2; echo "== df"; df -m / | tail -1
echo "== signals"; grep -E 'Sig(Blk|Ign)' /proc/self/status
"""
    import time
    before = time.time()
    done = home.run(image, "sh", "-c", script)
    after = time.time()
    if not equal(done.status, 0, "a run ends with its command's status", done):
        return
    got = sections(done)
    equal(done.err, b"sh: write error: No space left on device\n", "nothing on stderr but the workload's", done)
    equal(got["id"], "0\n0", "root by default")
    equal(got["pid"], "1", "the workload is PID 1 of its namespace")
    name = got["hostname"].split()
    ok(len(name) == 2 and name[0] == name[1] and re.fullmatch(r"[0-9a-f]{12}", name[0]), "hostname is the VM's id", name)
    ok("127.0.0.1" in got["hosts"] and "localhost" in got["hosts"] and name[0] in got["hosts"], "/etc/hosts", got["hosts"])
    ok("/etc/resolv.conf" in got["resolv"], "/etc/resolv.conf is there", got["resolv"])
    env = dict(line.split("=", 1) for line in got["env"].splitlines() if "=" in line)
    equal(env.get("PATH"), images.PATH, "PATH is the image's")
    equal(env.get("HOME"), "/root", "HOME comes from passwd")
    equal(env.get("HOSTNAME"), name[0], "HOSTNAME is set")
    ok("TERM" not in env, "no TERM without a terminal", env)
    equal(set(env) - {"PATH", "HOME", "HOSTNAME", "PWD", "SHLVL", "_", "OLDPWD"}, set(), "no other variable leaks in")
    equal(got["cwd"], "/", "the working directory is / by default")
    equal(got["nofile"], "1048576", "RLIMIT_NOFILE is Docker's")
    mounts = {line.split()[1]: line.split() for line in got["mounts"].splitlines()}
    for point, kind in (("/", "overlay"), ("/proc", "proc"), ("/sys", "sysfs"), ("/dev", "tmpfs"), ("/dev/pts", "devpts"),
                        ("/dev/shm", "tmpfs"), ("/sys/fs/cgroup", "cgroup2")):
        mounted = mounts.get(point, ["", "", "none", ""])
        ok(mounted[2] == kind or (point == "/dev" and mounted[2] == "devtmpfs"), f"{point} is {kind}", mounted)
    equal(got["links"].splitlines(), ["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"],
          "/dev/fd and /dev/std* are links")
    devices = got["dev"].splitlines()
    ok(devices == ["crw-rw-rw-"] * 6 + ["pts"], "device nodes are everybody's", devices)
    ok(got["tmp"] == "drwxrwxrwt", "/tmp is sticky", got["tmp"])
    equal(got["shm"], "x", "/dev/shm is writable")
    equal(got["lo"], "2", "lo is up")
    equal(got["links-up"], "lo", "there is no other interface")
    equal(got["write"], "written", "the root is writable")
    ok(int(got["processes"]) <= 4, "only the workload's processes are seen", got["processes"])
    equal(got["stdin"], "/dev/null", "without -i stdin is /dev/null")
    equal(got["cgroup"].splitlines()[0], "0::/", "a cgroup namespace of its own", got["cgroup"])
    kib = int(got["memory"].split()[1])
    ok(400 * 1024 < kib <= 512 * 1024, "512 MiB by default", kib)
    equal(got["cpus"], "1", "one CPU by default")
    ok("No such file" in got["agent"], "the agent's files are not in the workload's root", got["agent"])
    equal(got["umask"], "0022", "umask")
    ok(before - 2 <= int(got["date"]) <= after + 2, "the clock is the host's", f"{before} {got['date']} {after}")
    ok(7000 < int(got["df"].split()[1]) < 8300, "8 GiB of scratch by default", got["df"])
    ok(re.findall(r"Sig\w+:\s*(\w+)", got["signals"]) == ["0" * 16] * 2, "no signal is blocked or ignored", got["signals"])
    equal(home.vms(), [], "the VM is removed with its run")
    lib.none_left()


def test_the_image_config(home):
    """Env, Entrypoint, Cmd, WorkingDir, User; then each overridden."""
    image = home.have(images.configured(), "configured")
    done = home.run("-i", image, input=b"to the workload\n")
    text = done.text
    equal(done.status, 0, "the image's own command runs", done)
    ok("args=fixed default two words\n" in text, "Entrypoint and Cmd, word for word", done)
    ok("cwd=/work/dir\n" in text, "WorkingDir, made when missing", done)
    ok("uid=1000(alice) gid=1000(alice)" in text and "29(audio)" in text and "44(video)" in text,
       "User by name with the supplementary groups of the image's /etc/group", done)
    ok("\nCOLOUR=blue\n" in text and "\nEMPTY=\n" in text and "\nSPACES=a  b\n" in text, "Env", done)
    ok("\nHOME=/home/alice\n" in text, "HOME of the user", done)
    ok(text.endswith("to the workload\n"), "-i gives it the caller's stdin", done)

    env_file = home.path / "env"
    env_file.write_text("# a comment\n\nFROM_FILE=file value\nCOLOUR=file\nFROM_CALLER\n")
    done = home.run("-e", "COLOUR=red", "-e", "PASSED", "-e", "UNSET_HERE", "--env-file", env_file, "-w", "/made/here",
                    "-u", "bob:video", "--hostname", "box.example", "--entrypoint", "/bin/sh", image, "-c",
                    'id; env | sort; pwd; hostname; echo $HOSTNAME; ls -ld . | cut -c1-10; mount | grep " on /data\\| on /fresh/volume"; '
                    'cat /data/kept; echo v > /data/v; ls -ldn /data',
                    extra={"PASSED": "by name", "FROM_CALLER": "too"})
    text = done.text
    ok(done.status in (0, 1), "with everything overridden", done)
    ok("uid=1001(bob) gid=44(video)" in text and "29" not in text.splitlines()[0], "-u user:group", done)
    ok("\nCOLOUR=red\n" in text and "\nPASSED=by name\n" in text and "\nFROM_FILE=file value\n" in text
       and "\nFROM_CALLER=too\n" in text and "UNSET_HERE" not in text, "-e, -e NAME and --env-file; -e wins", done)
    ok("\n/made/here\nbox.example\nbox.example\n" in text, "-w is made when missing, --hostname", done)
    ok("from the image\n" in text, "a volume keeps what the image has there", done)

    numbers = home.run("-u", "4321:8765", "--entrypoint", "", image, "sh", "-c", "id; echo HOME=$HOME")
    ok("uid=4321 gid=8765" in numbers.text and "HOME=/\n" in numbers.text,
       "-u with numbers that no file knows; HOME is /", numbers)
    equal(numbers.status, 0, '--entrypoint "" removes the image\'s', numbers)


def test_read_only(home):
    image = home.have(images.configured(), "configured")
    done = home.run("--read-only", "-u", "0", "--entrypoint", "/bin/sh", image, "-c",
                    "touch /x 2>&1; touch /etc/x 2>&1; mount -o remount,rw / 2>&1; touch /y 2>&1; echo ok > /dev/shm/f && "
                    "echo ok > /tmp/f && echo ok > /data/f && echo ok > /fresh/volume/f && cat /tmp/f /data/f /fresh/volume/f; "
                    "cat /data/kept; cat /etc/hostname")
    ok(done.status == 0 and done.text.count("Read-only file system") >= 2, "--read-only: the root refuses writes", done)
    ok(done.text.count("ok\n") == 3 and "from the image\n" in done.text, "but /tmp, /dev/shm and volumes take them", done)


def test_status(home):
    """Exit status as Docker's. Each is a VM: these are the ones that matter."""
    image = home.have(images.busybox(), "busybox")
    for command, status, what in (
            (["sh", "-c", "exit 42"], 42, "the command's own status"),
            (["sh", "-c", "kill -9 $$; sleep 1000 & kill -9 $!; wait $!"], 137, "a child's signal, as the shell tells it"),
            (["/no/such/command"], 127, "a command that is not there"),
            (["not-executable"], 126, "a command that is not executable"),
            (["/bin/bad-format"], 126, "a file that is no program"),
    ):
        done = home.run(image, *command)
        equal(done.status, status, f"{what}: {status}", done)
        if status in (126, 127):
            ok(command[0].split("/")[-1] in done.error, "and it is named", done)
    # PID 1 ignores what it does not handle, so the program that dies of a signal stands below an init here.
    done = home.run("--init", image, "sh", "-c", "kill -SEGV $$")
    equal(done.status, 139, "128 + signal", done)
    done = home.run("-u", "nobody-knows", image, "true")
    ok(done.status == 125 and "nobody-knows" in done.error, "an unknown user: 125 and named", done)
    done = home.run("-w", "/etc/passwd", image, "true")
    ok(done.status in (125, 126) and "/etc/passwd" in done.error, "a working directory that is a file", done)
    lib.none_left()


def test_flag_looking_values(home):
    image = home.have(images.busybox(), "busybox")
    done = home.run("--env=--help=x", "--entrypoint", "echo", image, "--name", "-t", "--", "-", "--memory=1", "")
    equal(done.text, "--name -t -- - --memory=1 \n", "what follows the image is the command's, whatever it looks like", done)
    long_argument = "x" * 100000
    done = home.run("--rm", image, "sh", "-c", 'echo "$#" "${#1}" "$2"', "sh", long_argument, "zwei\nZeilen \u00e4 $HOME '\"")
    equal(done.text, f"2 100000 zwei\nZeilen \u00e4 $HOME '\"\n", "arguments arrive byte for byte", done)


def test_cpus_and_memory(home):
    image = home.have(images.busybox(), "busybox")
    done = home.run("--cpus", "2", "-m", "256m", "--scratch", "1G", image, "sh", "-c",
                    "grep -c ^processor /proc/cpuinfo; grep MemTotal /proc/meminfo; df -m / | tail -1")
    words = done.text.split()
    ok(done.status == 0 and words[0] == "2", "--cpus 2", done)
    ok(180 * 1024 < int(words[2]) <= 256 * 1024, "--memory 256m", done)
    ok(700 < int(words[5]) < 1030, "--scratch 1G", done)


def guest_memory(worker):
    """Bytes of the host's that the guest's RAM takes: a memfd where QEMU has to see it, else the worker's own."""
    for fd in pathlib.Path(f"/proc/{worker}/fd").iterdir():
        if "memfd:guest-ram" in os.readlink(fd):
            return os.stat(fd).st_blocks * 512
    return lib.resident(worker)[1] << 10


def test_memory_goes_back(home):
    image = home.have(images.busybox(), "busybox")
    # dd holds its 192 MiB for as long as its reader does not read on, so the full measure is taken before anything is free.
    running = home.start("run", "--quiet", "-m", "384m", "-i", image, "sh", "-c",
                         "exec 3<&0; dd if=/dev/zero bs=192M count=1 2>/dev/null | "
                         "{ head -c 1 >/dev/null; echo used; read x <&3; cat >/dev/null; }; read x <&3", stdin=subprocess.PIPE)
    running.wait_for(b"used\n")
    worker = running.processes()["worker"]
    full = least = guest_memory(worker)
    running.stdin.write(b"go on\n")
    running.stdin.flush()
    # The guest's kernel reports free blocks two seconds or so after they became free, and nothing tells this side.
    deadline = time.monotonic() + lib.LIMIT
    while least > full - (64 << 20) and time.monotonic() < deadline:
        time.sleep(0.25)
        least = min(least, guest_memory(worker))
    ok(least <= full - (64 << 20), "pages that the guest does not need go back to the host",
       f"{full >> 20} MiB, then {least >> 20} MiB")
    running.stdin.close()
    running.finish()


def test_pid_one(home):
    done = home.run(home.have(images.pid_one(), "s6"))
    ok(done.status == 0 and "as PID 1\n" in done.text and "service runs" in done.text, "s6 runs as PID 1 and ends", done)


def test_init(home):
    image = home.have(images.busybox(), "busybox")
    done = home.run("--init", image, "sh", "-c",
                    "echo $$; sh -c 'sh -c \"echo \\$\\$ >/tmp/orphan; sleep 0.1; echo orphan\" & exit'; "
                    "until [ -s /tmp/orphan ]; do sleep 0.1; done; while [ -e /proc/$(cat /tmp/orphan) ]; do sleep 0.1; done; "
                    "ps -o pid,stat,comm; exit 7")
    ok(done.status == 7, "--init passes the status on", done)
    ok(done.text.splitlines()[0] != "1", "the command is not PID 1 under --init", done)
    ok("orphan" in done.text and not re.search(r"^\s*\d+\s+Z", done.text, re.M), "orphans are reaped", done)


def test_says_which_wall(home):
    image = home.have(images.busybox(), "busybox")
    done = home.husk("run", image, "true")
    if lib.WALL == "software":
        ok(done.status == 0 and len(done.error.splitlines()) == 1 and lib.WALL in done.error,
           "without --quiet one line says that the wall is software", done)
    else:
        equal((done.status, done.error), (0, ""), "a hardware wall needs no word", done)


lib.main(globals())
