# SPDX-License-Identifier: Apache-2.0
"""vms.py - cases: a VM that lives on, on husk's own machine: what its verbs do to vCPUs, balloon, console and logs."""
import json
import select

import images
import lib
from case import case
from lib import equal, ok

SCRIPT = "trap 'echo asked; exit 7' TERM; echo ready; while :; do sleep 0.2; done"


def good(home, *arguments):
    done = home.husk(*arguments)
    ok(done.status == 0, "husk " + " ".join(arguments), done)
    return done


def used(home):
    return json.loads(home.husk("stats", "--no-stream", "--format", "json", "live").text)[0]


@case(240)
def live_verbs(home):
    """One VM, from run -d to rm: the verbs that reach the machine."""
    good(home, "run", "--quiet", "--detach", "--name", "live", home.have(images.busybox(), "busybox"), "sh", "-c", SCRIPT)
    done = good(home, "exec", "live", "sh", "-c", "echo out; echo err >&2; exit 0")
    equal((done.text, done.error), ("out\n", "err\n"), "exec: stdout and stderr apart", done)
    paused(home)
    before = used(home)
    good(home, "update", "--memory", "200M", "live")
    good(home, "exec", "live", "true")
    after = used(home)
    ok(after["exits"] > before["exits"] > 0, "stats: exits, which grow", f"{before}\n{after}")
    ok(after["memory"]["limit"] == 512 << 20 and after["memory"]["target"] == 312 << 20, "stats: what the balloon is asked for", after)
    console(home)
    waiting = home.start("wait", "live")
    good(home, "stop", "--time", "40", "live")
    equal(waiting.finish().out, b"7\n", "stop asks the workload, which chooses its exit status")
    equal(home.husk("logs", "live").out, b"ready\nasked\n", "logs: what it has printed")
    ok(b"spoken" in home.husk("logs", "--boot", "live").out, "logs --boot: what its console said")
    good(home, "rm", "live")
    equal(home.vms(), [], "no record is left")
    lib.none_left()


def paused(home):
    good(home, "pause", "live")
    first, second = used(home)["exits"], used(home)["exits"]
    equal(first, second, "paused, no vCPU exits")
    ok(home.husk("exec", "live", "true").status != 0, "and exec is refused")
    good(home, "unpause", "live")
    good(home, "exec", "live", "true")


def console(home):
    attached = home.start("console", "live")
    for _ in range(40):  # nothing tells when it is attached
        home.husk("exec", "live", "sh", "-c", "echo spoken > /dev/console")
        if select.select([attached.process.stdout], [], [], 1)[0]:
            break
    ok(attached.wait_for(b"spoken"), "console: what the guest says there")
    attached.process.terminate()
    attached.finish()
