#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The command line without any VM: help of every verb, completions, usage errors, refusals. usage: cli_test.py HUSK"""

import os
import shutil
import subprocess
import sys
import tempfile

HUSK = sys.argv[1]
count = failed = 0


def check(ok, what, detail=""):
    global count, failed
    count += 1
    failed += not ok
    print("%s %d - %s" % ("ok" if ok else "not ok", count, what))
    if not ok:
        print("# %r" % (detail,))


def husk(*args, env=None, stdin=subprocess.DEVNULL):
    done = subprocess.run([HUSK, *args], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, timeout=60)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def refused(args, status, text):
    code, out, err = husk(*args, env=ENV)
    check(code == status and text in err and out == "", "husk %s: %d, '%s'" % (" ".join(args), status, text), (code, out, err))


HOME = tempfile.TemporaryDirectory(prefix="husk-cli-")
ENV = dict(os.environ, HUSK_HOME=HOME.name + "/home")

code, out, err = husk("--help")
verbs = [line[2:18].strip() for line in out.split("Commands:\n")[1].split("\n\n")[0].splitlines()]
check(code == 0 and "run" in verbs and "image inspect" in verbs, "--help lists the commands", out)
for verb in verbs:
    code, out, err = husk(*verb.split(), "--help")
    check(code == 0 and out.startswith("Usage: husk " + verb) and "--help" in out and err == "", verb + " --help", (out, err))
    check(husk("help", *verb.split())[1] == out, "help %s says the same" % verb)
    code, page, err = husk("man", *verb.split())
    check(code == 0 and ".SH SYNOPSIS" in page, "%s has a manual page" % verb, page[:200])
    code, out, err = husk(*verb.split(), "--no-such-option", env=ENV)
    if verb == "sandbox cc":
        check(code != 0 and "no-such-option" in err, "sandbox cc leaves that to the compiler", (code, err))
        continue
    check(code == (125 if verb in ("run", "exec", "sandbox run") else 1) and "unknown option '--no-such-option'" in err, verb + " refuses what it does not know",
          (code, err))

for shell, checker in (("bash", ["bash", "-n"]), ("zsh", None)):
    code, out, err = husk("completion", shell)
    check(code == 0 and "--require-hardware" in out, "completion %s knows the options of run" % shell, err)
    if checker:
        check(subprocess.run(checker, input=out.encode()).returncode == 0, "%s takes it" % shell)
script = husk("completion", "bash")[1] + """
COMP_WORDS=(husk run --pull ""); COMP_CWORD=3; _husk; echo "${COMPREPLY[*]}"
COMP_WORDS=(husk kernel ""); COMP_CWORD=2; _husk; echo "${COMPREPLY[*]}"
COMP_WORDS=(husk im); COMP_CWORD=1; _husk; echo "${COMPREPLY[*]}"
"""
out = subprocess.run(["bash", "-c", script], stdout=subprocess.PIPE).stdout.decode().splitlines()
check(out == ["missing always never", "fetch build list", "images import image"], "bash completes choices, second words and verbs", out)

check(husk("version")[1] == "husk 0.1.0\n" and husk("--version")[1] == "husk 0.1.0\n", "the version")
refused(["imags"], 1, "did you mean 'husk images'")
refused(["kernel"], 1, "husk kernel fetch")
refused(["sandbox", "rnu"], 1, "unknown command 'sandbox rnu'; did you mean 'husk sandbox run'")
for group in "kernel", "sandbox":
    code, out, err = husk("help", group)
    check(code == 0 and err == "" and "husk %s " % group in out and out == husk(group, "--help")[1], "help %s lists its commands" % group,
          (code, out, err))
refused(["help", "sandbox", "rnu"], 1, "no such command")
refused(["completion", "fish"], 1, "bash or zsh")
for verb in "start", "attach", "stop", "kill", "pause", "unpause", "restart", "rm", "wait", "rename", "console":
    refused([verb], 1, "something is missing: husk %s VM" % verb)
refused(["create"], 1, "something is missing: husk create IMAGE")
refused(["stop", "nobody"], 1, "there is no VM 'nobody'")
refused(["stop", "-t", "soon", "x"], 1, "--time: 'soon' is not a duration")
refused(["kill", "-s", "TRM", "x"], 1, "--signal: 'TRM' is no signal")
refused(["update", "x"], 1, "nothing to change")
refused(["rm", "-v", "x"], 1, "unknown option '-v'")
refused(["start", "-a", "x", "y"], 1, "one VM at a time")
refused(["attach", "--detach-keys", "ctrl-?", "x"], 1, "there is no VM")
refused(["run", "-d", "--serial", "inherit", "x"], 125, "husk console")
refused(["create", "--serial", "capture", "x"], 1, "husk console")
refused(["run", "--log-size", "1M", "x"], 125, "--log-size")
refused(["run"], 125, "something is missing")
refused(["run", "--memory", "x"], 125, "something is missing")
refused(["run", "-m", "-5", "x"], 125, "looks like an option")
refused(["run", "-m", "5x", "x"], 125, "--memory: '5x' is not a size")
refused(["run", "-m", "63M", "x"], 125, "out of range")
refused(["run", "-m", "4000T", "x"], 125, "out of range")
refused(["run", "--cpus", "1.5", "x"], 125, "not a whole number")
refused(["run", "--cpus", "0", "x"], 125, "out of range")
refused(["run", "--cpus", "33", "x"], 125, "out of range")
refused(["run", "--scratch", "1M", "x"], 125, "out of range")
refused(["run", "--timeout", "soon", "x"], 125, "not a duration")
refused(["run", "--timeout", "0", "x"], 125, "leaves none")
refused(["run", "--name", "a/b", "x"], 125, "not a name")
refused(["run", "--hostname", "a b", "x"], 125, "not a host name")
if not os.path.exists("/dev/kvm"):
    refused(["run", "--machine", "kvm", "x"], 125, "cannot be had")
refused(["run", "--machine", "vbox", "x"], 125, "none of auto|qemu|kvm")
refused(["run", "--require-hardware", "x"], 125, "hardware isolation is required")
refused(["run", "--pull", "always", "--offline", "x"], 125, "exclude each other")
refused(["run", "-it", "x"], 125, "the input device is not a TTY")
refused(["run", "-e", "=x", "x"], 125, "not an environment variable")
refused(["run", "--env-file", "/nonexistent", "x"], 125, "No such file")
refused(["run", "--initramfs", "/f", "x", "sh"], 125, "a command needs husk's agent")
refused(["run", "--initramfs", "/f", "-u", "me", "x"], 125, "a user needs husk's agent")
refused(["run", "--offline", "no-such-image"], 125, "no-such-image")
refused(["run", "--pull=never", "no-such-image"], 125, "no-such-image")
refused(["run", "UPPER/Case"], 125, "UPPER")
refused(["rmi", "no-such-image"], 1, "no-such-image")
refused(["image", "inspect", "-x"], 1, "unknown option")
refused(["login", "--password-stdin"], 1, "needs --username")
check(not os.path.exists(ENV["HUSK_HOME"] + "/vms") or os.listdir(ENV["HUSK_HOME"] + "/vms") == [], "nothing was left behind")

code, out, err = husk("run", "x", env=dict(ENV, HUSK_HOME="/proc/nonexistent"))
check(code == 125 and "/proc/nonexistent" in err, "a home that cannot be made is an error", err)
with open("/dev/full", "w") as full:
    code = subprocess.run([HUSK, "--help"], stdout=full, stderr=subprocess.DEVNULL).returncode
check(code == 1, "output that cannot be written is an error")
code, out, err = husk("images", "--format", "json", env=ENV)
check(code == 0 and out.strip() == "[]", "an empty store lists nothing", (out, err))
code, out, err = husk("doctor", env=ENV)
check("qemu" in out and ("husk kernel fetch" in out or "guest kernel" in out), "doctor names what is missing and the cure", out)
kinds = {line.split()[1]: line for line in out.splitlines() if len(line.split()) > 2}
if os.path.exists("/dev/kvm"):
    check("function sandboxes" in kinds.get("sandbox", ""), "doctor says whether function sandboxes run", out)
else:
    check(kinds.get("sandbox", "").startswith("note") and "cannot run here" in kinds["sandbox"], "without KVM doctor says that sandboxes cannot run",
          out)
libexec = ENV["HUSK_HOME"] + "-libexec"
os.mkdir(libexec)
for name in ("husk-vmm", "husk-image", "husk-init"):
    with open(f"{libexec}/{name}", "w") as program:
        os.chmod(program.fileno(), 0o755)
code, out, err = husk("doctor", env=dict(ENV, HUSK_LIBEXEC=libexec))
said = [line for line in out.splitlines() if "husk-tls" in line]
check(len(said) == 1 and said[0].startswith("warning") and "TLS are refused" in said[0], "doctor names a helper that only some doors need",
      out)
shutil.rmtree(libexec)
print("1..%d" % count)
sys.exit(failed > 0)
