#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 3600
"""soak_test.py - the long sweeps of `make test-full`: sizes, layer counts, a gigabyte through stdout, deaths at any moment."""
import hashlib
import os
import pathlib
import random
import select
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
import images  # noqa: E402
import lib  # noqa: E402
from lib import equal, ok  # noqa: E402


def test_sizes(home):
    image = home.have(images.busybox(), "busybox")
    for memory, cpus in (("96M", 1), ("1G", 2), ("2G", os.cpu_count()), ("3000M", 1)):
        done = home.run("-m", memory, "--cpus", cpus, image, "sh", "-c", "grep -c ^processor /proc/cpuinfo; grep MemTotal /proc/meminfo")
        equal((done.status, done.text.split()[:1]), (0, [str(cpus)]), f"{memory} and {cpus} CPUs", done)


def test_layer_counts(home):
    """Each count of layers up to the one that is merged: the same files."""
    for count in (1, 2, 8, 20, 39, 40, 41, 100):
        layers = [images.busybox_layer()] + [
            images.Layer().directory("layers").add(f"layers/{i}", str(i)).add("last", str(i)).done() for i in range(1, count)]
        path = home.path / f"layers-{count}"
        images.write_layout(path, layers)
        image = home.have(f"oci:{path}:latest", f"layers:{count}")
        done = home.run(image, "sh", "-c", "ls /layers 2>/dev/null | wc -l; cat /last 2>/dev/null; true")
        want = f"{count - 1}\n" + (str(count - 1) if count > 1 else "")
        equal((done.status, done.text), (0, want), f"{count} layers", done)


def test_a_gigabyte(home):
    image = home.have(images.busybox(), "busybox")
    running = home.start("run", "--quiet", image, "sh", "-c", "dd if=/dev/zero bs=64k count=16384 2>/dev/null; echo done >&2")
    digest, total = hashlib.sha256(), 0
    while True:
        ready, _, _ = select.select([running.process.stdout], [], [], 120)
        chunk = os.read(running.process.stdout.fileno(), 1 << 20) if ready else b""
        if not chunk:
            break
        digest.update(chunk)
        total += len(chunk)
    done = running.finish()
    equal((done.status, total), (0, 1 << 30), "a gigabyte through stdout", done)
    equal(digest.hexdigest(), hashlib.sha256(b"\0" * (1 << 30)).hexdigest(), "is what was written")


def test_twenty_in_a_row(home):
    image = home.have(images.busybox(), "busybox")
    runs = [(i, home.run(image, "sh", "-c", f"exit {i}")) for i in range(20)]
    failed = [str(done) for i, done in runs if done.status != i]
    ok(not failed, "twenty runs, each with its own status", "\n".join(failed))
    equal(home.vms(), [], "no record is left")
    lib.none_left()


def test_death_at_any_moment(home):
    """kill -9 of one process of the VM after a random part of its life: it ends as 125, and nothing is left."""
    image = home.have(images.busybox(), "busybox")
    chance = random.Random(int(os.environ.get("HUSK_TEST_SEED", "1")))
    for i in range(24):
        role = ("qemu", "worker", "supervisor")[i % 3]
        running = home.start("run", "--quiet", image, "sh", "-c", "echo ready; exec sleep 1000", stdout=subprocess.PIPE)
        until = time.monotonic() + chance.uniform(0.02, 6)
        victim = None
        while running.process.poll() is None and (victim is None or time.monotonic() < until):
            victim = running.processes().get(role, victim)
        if victim:
            os.kill(victim, signal.SIGKILL)
        done = running.finish(30)
        ok(done.status == 125 and role.replace("qemu", "") in done.error.lower(), f"{i}: death of {role}: 125 and named", done)
        lib.none_left()
    done = home.run(image, "true")
    equal(done.status, 0, "the next run works", done)
    equal(home.vms(), [], "no record is left")


def test_interrupted_imports(home):
    """kill -9 of an import and all its helpers at random moments: the store works on."""
    chance = random.Random(2)
    source = images.debian()
    for i in range(15):
        running = home.start("import", source, f"cut:{i}")
        until = time.monotonic() + chance.uniform(0, 0.9)
        victims = {running.pid}
        while running.process.poll() is None and time.monotonic() < until:
            victims |= set(lib.descendants())
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        running.finish(10)
        listed = home.husk("images")
        equal(listed.status, 0, f"{i}: the store can be listed", listed)
    done = home.husk("import", source, "whole:1")
    equal(done.status, 0, "and the next import works", done)


lib.main(globals())
