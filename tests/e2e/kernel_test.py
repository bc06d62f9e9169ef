#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 400
"""kernel_test.py - the tuned guest kernel, where it is built, and the choice between it and the distribution's."""
import json
import re

import doors
import images
import lib
from lib import equal, ok


def kernels(home):
    return {k["flavor"]: k for k in json.loads(home.husk("kernel", "list", "--format", "json").out)}


def test_choice_without_a_tuned_one(home):
    """The list, and what names no kernel."""
    told = kernels(home)
    equal(sorted(told), ["distribution"], "a home with a fetched kernel lists it", told)
    ok(told["distribution"]["used"] and told["distribution"]["reason"], "as used, with the reason", told)
    equal(home.husk("kernel", "list", "--quiet").text.strip(), told["distribution"]["id"], "its id alone with --quiet")
    done = home.run("--kernel", "husk", home.have(images.busybox(), "busybox"), "true")
    equal(done.status, 125, "a kernel that is not there is refused", done)
    ok("no guest kernel husk" in done.error and "husk kernel list" in done.error, "with what to do", done)


def test_tuned(home):
    """It is chosen, boots, and has what husk's agent and an image need; the distribution's stays in reach."""
    tuned = home.take_tuned()
    told = kernels(home)
    ok(told["tuned"]["used"] and not told["distribution"]["used"], "a tuned kernel is used where it is built", told)
    equal(home.husk("kernel", "list", "--quiet").text.strip(), tuned, "and named by --quiet")
    table = home.husk("kernel", "list").text.splitlines()
    ok(len(table) == 3 and re.search(rf"^{re.escape(tuned)} +tuned +yes  ", "\n".join(table), re.M), "and in the table", table)
    image = home.have(images.stacked(), "layers")
    done = home.run("--cpus", "2", image, "sh", "-c",
                    "uname -r; nproc; ls /proc/modules; grep -c squashfs /proc/filesystems; grep ' / ' /proc/mounts; "
                    "echo written > /root/file && cat /root/file; cat /sys/fs/cgroup/cgroup.controllers")
    lines = done.text.splitlines()
    equal(done.status, 0, "an image runs on it", done)
    if not ok(len(lines) == 6, "and finds its way about", done):
        return
    ok(lines[0].endswith("-husk") and lines[0].split("-")[0] in tuned, "the kernel says whose it is", lines[0])
    equal(lines[1], "2", "both processors are there")
    ok("/proc/modules" not in done.text, "it has no modules", done)
    ok("overlay" in lines[3], "the layers are stacked", lines[3])
    equal(lines[4], "written", "and written over")
    ok({"memory", "pids", "cpu", "io"} <= set(lines[5].split()), "the workload's cgroup has its controllers", lines[5])


def test_readiness(home):
    """The agent hears listen() through sock_ops: a connection that comes early is passed on when the service listens."""
    home.take_tuned()
    image = home.have(images.busybox(), "busybox")
    vm = doors.Vm(home, "-p", "0:7001", image, "sh", "-c", "sleep 2; peer serve echo:7001")
    vm.wait_for_doors()
    with doors.connect(vm.door("tcp", 7001), 60) as sock:
        ok(doors.echo(sock), "a connection waits for its listener and is served")
    with doors.connect(vm.door("tcp", 7001), 60) as sock:
        ok(doors.echo(sock), "and the next one at once")
    vm.end()


def test_distribution(home):
    """By the beginning of an id."""
    home.take_tuned()
    image = home.have(images.busybox(), "busybox")
    done = home.run("--kernel", "linux", image, "uname", "-r")
    ok(done.status == 0 and "-husk" not in done.text and "amd64" in done.text, "--kernel linux boots the distribution's", done)


lib.main(globals())
