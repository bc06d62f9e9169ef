#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 300
"""cli_test.py - the command line without a VM: help, strict values, what is missing is named, exit 125."""
import os
import json
import pathlib
import re
import shutil
import subprocess
import tempfile
import time

import images
import lib
from lib import equal, ok

VERBS = ("run", "pull", "images", "rmi", "import", "image inspect", "login", "logout", "kernel fetch", "doctor", "version")


def test_help(home):
    top = home.husk("--help")
    ok(top.status == 0 and not top.err and all(re.search(rf"\b{v}\b", top.text) for v in VERBS), "help names every verb", top)
    for verb in VERBS:
        done = home.husk(*verb.split(), "--help")
        ok(done.status == 0 and verb in done.text and not done.err, f"{verb} --help", done)
    for group in ("image", "kernel"):
        done = home.husk(group, "--help")
        ok(done.status == 0 and f"husk {group} " in done.text and not done.err, f"{group} --help lists its verbs", done)
        done = home.husk(group)
        ok(done.status == 1 and not done.text and f"husk {group} " in done.error, f"{group} alone is refused with them", done)
    version = home.husk("version")
    ok(version.status == 0 and re.search(r"\d+\.\d+\.\d+", version.text), "version", version)
    run = home.husk("run", "--help")
    options = ("--env ", "--env-file", "--workdir", "--user", "--entrypoint", "--hostname", "--interactive", "--tty", "--init",
               "--rm", "--name", "--memory", "--cpus", "--timeout", "--start-timeout", "--scratch", "--read-only", "--pull",
               "--platform", "--machine", "--require-hardware", "--quiet", "--kernel", "--initramfs", "--cmdline")
    missing = [o for o in options if o.strip() not in run.text]
    equal(missing, [], "run --help names every option", run)


def test_completions(home):
    for shell in ("bash", "zsh"):
        done = home.husk("completion", shell)
        ok(done.status == 0 and "start-timeout" in done.text, f"{shell} completion names the options", done)


def test_wrong_usage(home):
    cases = (
        ([], "no verb"), (["frobnicate"], "an unknown verb"), (["--frobnicate"], "an unknown option"),
        (["run"], "run without an image"), (["run", "--frobnicate", "x"], "an unknown option of run"),
        (["run", "--name"], "an option without its value"), (["pull"], "pull without an image"),
        (["images", "--frobnicate"], "an unknown option of images"),
    )
    for arguments, what in cases:
        done = home.husk(*arguments)
        status = 125 if arguments[:1] == ["run"] else 1
        ok(done.status == status and done.err and not done.out, f"{what}: {status} and a message", done)


def test_values(home):
    image = home.have(images.busybox(), "busybox")
    bad = (
        ("--memory", "0"), ("--memory", "1"), ("--memory", "-5M"), ("--memory", "1.5G"), ("--memory", "64X"),
        ("--memory", ""), ("--memory", " 512M"), ("--memory", "99999999999999999999"), ("--memory", "16E"),
        ("--memory", "8000000G"), ("--memory", "0x40000000"),
        ("--cpus", "0"), ("--cpus", "1.5"), ("--cpus", "-1"), ("--cpus", "1000"), ("--cpus", "two"), ("--cpus", "+1"),
        ("--timeout", "-1"), ("--timeout", "soon"), ("--start-timeout", "x"), ("--start-timeout", ""),
        ("--scratch", "1"), ("--scratch", "lots"), ("--pull", "sometimes"), ("--machine", "vmware"),
        ("--platform", "plan9"), ("--platform", "linux/"), ("--name", ""), ("--name", "a/b"), ("--name", "-x"),
        ("--name", "a b"), ("--name", "../x"), ("--workdir", "relative"), ("--hostname", "a b"),
        ("--hostname", "x" * 65), ("--env", "=x"), ("--env-file", "/no/such/file"), ("--kernel", "/no/such/file"),
        ("--user", ""), ("--memory", "--cpus"),
    )
    for option, value in bad:
        done = home.run(option, value, image, "true")
        ok(done.status == 125 and len(done.error.strip().splitlines()) >= 1 and "assert" not in done.error and not done.out,
           f"{option} {value[:24]!r} is refused", done)
    named = home.run("--memory", "1.5G", image, "true")
    ok("memory" in named.error and "1.5G" in named.error, "the message names the option and the value", named)
    equal(home.vms(), [], "no record is left of what was refused")


def test_combinations(home):
    image = home.have(images.busybox(), "busybox")
    no_tty = home.husk("run", "-it", image, "true", input=b"")
    ok(no_tty.status == 125 and re.search("terminal|tty", no_tty.error, re.I), "-it without a terminal is refused, said why", no_tty)
    initramfs = home.run("--initramfs", "/etc/hostname", image, "true")
    ok(initramfs.status == 125 and initramfs.err, "a foreign initramfs and a command are refused", initramfs)
    hardware = home.run("--require-hardware", "--machine", "qemu", image, "true")
    ok(hardware.status == 125 and "hardware" in hardware.error, "--require-hardware and qemu are refused", hardware)
    kvm = home.run("--machine", "kvm", image, "true")
    ok(kvm.status == 125 and "kvm" in kvm.error.lower(), "a machine that is not there yet is refused", kvm)
    ids = home.husk("images", "--quiet", "--format", "json")
    ok(ids.status == 1 and "--quiet" in ids.error and not ids.out, "images: ids only and JSON exclude each other", ids)
    relative = home.husk("images", extra={"HUSK_LIBEXEC": "build/libexec"})
    ok(relative.status == 1 and "HUSK_LIBEXEC" in relative.error, "a relative HUSK_LIBEXEC is refused, not ignored", relative)


def test_unknown_things(home):
    for name, why in (("localhost:1/none", "an image nobody serves"), ("docker.io/x/UPPER", "a name that is none"),
                      ("oci:/no/such/layout", "a layout that is not there"), ("tar:/no/such.tar", "a tar that is not there"),
                      ("", "an empty name"), ("oci-archive:/etc/passwd", "an archive that is none")):
        done = home.run("--offline", name, "true") if name.startswith("localhost") else home.run(name, "true")
        ok(done.status == 125 and done.err and not done.out, f"{why}: 125", done)
    image = home.have(images.busybox(), "busybox")
    done = home.run("--platform", "linux/s390x", "--pull", "never", image, "true")
    ok(done.status == 125 and "s390x" in done.error, "a platform that is not there: 125 and named", done)
    with tempfile.TemporaryDirectory() as root:
        for platform in ("linux/arm64", "plan9"):
            done = home.run("--platform", platform, f"rootfs:{root}", "true")
            ok(done.status == 125 and platform in done.error, f"a root file system said to be for {platform}: 125", done)
    never = home.run("--pull", "never", "not-here:1", "true")
    ok(never.status == 125 and "not-here" in never.error, "--pull never does not pull", never)


def test_missing_kernel(home):
    with lib.Home(kernel=False) as bare:
        image = bare.have(images.busybox(), "busybox")
        done = bare.run(image, "true")
        ok(done.status == 125 and "kernel fetch" in done.error, "no kernel: 125, and the command that cures it", done)
        equal(bare.vms(), [], "and no record is left")
        done = bare.run("localhost:1/none", "true")
        ok(done.status == 125 and "kernel fetch" in done.error, "and it is said before an image is pulled", done)


def test_agentless(home):
    """A foreign initramfs has no agent: its end is a power-off, and signals end the VM."""
    image = home.have(images.busybox(), "busybox")

    def write(initramfs, script):
        """A newc archive with the busybox of the images and @script as /init."""
        for name, mode, data in (("busybox", 0o100755, pathlib.Path(shutil.which("busybox")).read_bytes()),
                                 ("init", 0o100755, script), ("TRAILER!!!", 0, b"")):
            fields = (1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
            header = b"070701" + b"".join(b"%08X" % f for f in fields) + name.encode() + b"\0"
            initramfs.write(header + bytes(-len(header) % 4) + data + bytes(-len(data) % 4))
        initramfs.flush()

    with tempfile.NamedTemporaryFile() as initramfs:
        write(initramfs, b"#!/busybox sh\n/busybox poweroff -f\n")
        done = home.run("--initramfs", initramfs.name, image)
        equal(done.status, 0, "a foreign guest that powers off has ended well", done)
    with tempfile.NamedTemporaryFile() as initramfs:
        write(initramfs, b"#!/busybox sh\nwhile :; do /busybox sleep 1; done\n")
        running = home.start("run", "--quiet", "--initramfs", initramfs.name, image)
        deadline = time.monotonic() + lib.LIMIT
        while "qemu" not in running.processes() and time.monotonic() < deadline:
            time.sleep(0.1)
        running.process.terminate()
        done = running.finish()
    equal(done.status, 137, "SIGTERM ends a VM without agent", done)
    lib.none_left()


def test_missing_qemu(home):
    """husk looks in /usr/bin whatever PATH says, so QEMU is hidden in a mount namespace."""
    image = home.have(images.busybox(), "busybox")
    qemu = shutil.which("qemu-system-x86_64")
    hide = ["unshare", "-m", "sh", "-c", 'mount --bind /dev/null "$0" && exec "$@"', qemu]
    if os.geteuid() != 0 or subprocess.run([*hide, "true"], stderr=subprocess.DEVNULL, check=False).returncode:
        raise lib.Skip("cannot hide QEMU here")

    def hidden(*arguments):
        done = subprocess.run([*hide, lib.HUSK, *arguments], env=home.environment(), stdin=subprocess.DEVNULL, timeout=lib.LIMIT,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        return lib.Done(arguments, done.returncode, done.stdout, done.stderr, 0)

    done = hidden("run", image, "true")
    ok(done.status == 125 and "qemu" in done.error.lower(), "no QEMU: 125 and named", done)
    doctor = hidden("doctor")
    ok(doctor.status != 0 and "qemu" in doctor.text.lower() + doctor.error.lower(), "doctor finds it, too", doctor)


def test_doctor(home):
    done = home.husk("doctor")
    ok(done.status == 0 and "qemu" in done.text.lower() and "kvm" in done.text.lower(), "doctor on this machine", done)


def test_selftest(home):
    done = home.husk("doctor", "--selftest", "--format", "json")
    found = json.loads(done.text)
    tried = {f["message"].split("'")[1]: f for f in found if f["topic"] == "selftest"}
    ok(done.status == 0 and set(tried) == {"kvm", "qemu"}, "each machine is tried", done)
    ok(tried["qemu"]["status"] == "ok" and "software" in tried["qemu"]["message"],
       "the qemu machine boots, runs and stops a guest", done)
    ok(tried["kvm"]["status"] in ("ok", "note"), "so does kvm, or it is said why not", done)
    ok("selftest" not in home.husk("images").text, "the image that this took is gone again")


def test_home_unusable(home):
    blocked = home.path / "a-file"
    blocked.write_text("")
    done = home.husk("images", extra={"HUSK_HOME": str(blocked)})
    ok(done.status == 1 and str(blocked) in done.error, "a HUSK_HOME that is a file is refused and named", done)


def test_man_pages(home):
    pages = list(pathlib.Path(lib.TOP / "build").rglob("husk*.1"))
    ok(any(p.name == "husk.1" for p in pages) and any("run" in p.name for p in pages), "man pages are built", pages)


lib.main(globals())
