# SPDX-License-Identifier: Apache-2.0
"""basics.py - cases: the machine is chosen, boots, and carries a workload: CPUs, memory, streams, exit status."""
import hashlib
import json
import subprocess
import threading
import time

import images
import lib
from case import case
from lib import equal, ok


def stock_kernel(home):
    """Id of Debian's kernel in the store."""
    for line in home.husk("kernel", "list").text.splitlines():
        if "linux-image" in line:
            return next(word for word in line.split() if word.startswith("linux-image"))
    raise lib.Skip("there is no Debian kernel in the store")


@case(60)
def doctor(home):
    """The probe times a guest loop, and says that it runs on the CPU."""
    done = home.husk("doctor")
    lines = {line.split()[1]: line for line in done.text.splitlines() if len(line.split()) > 1}
    ok(lines.get("kvm", "").startswith("ok"), "doctor finds a KVM that runs guests", done)
    ok("'kvm'" in lines.get("wall", "") and "hardware" in lines.get("wall", ""), "and says that machine and wall", done)


@case(150)
def auto(home):
    """--machine auto is kvm here; then one run carries status, both streams and a mebibyte each way."""
    image = home.have(images.busybox(), "busybox")
    data = hashlib.sha256(b"lab").digest() * 32768
    running = home.start("run", "--machine", "auto", "--require-hardware", "--name", "chosen", "-i", image, "sh", "-c",
                         "echo apart >&2; echo ready; cat; exit 42", stdin=subprocess.PIPE)
    running.wait_for(b"ready\n")
    told = home.husk("inspect", "chosen")
    vm = json.loads(told.text)
    vm = vm[0] if isinstance(vm, list) else vm
    equal((vm["machine"], vm["wall"]), ("kvm", "hardware"), "auto chooses kvm, whose wall is hardware", told)
    equal(sorted(running.processes()), ["supervisor", "worker"], "a VM is two processes, and no QEMU")
    writer = threading.Thread(target=lambda: (running.stdin.write(data), running.stdin.close()))
    writer.start()
    done = running.finish()
    writer.join()
    equal(done.status, 42, "a run ends with its command's status", done.error)
    ok(done.out == b"ready\n" + data, "1 MiB of binary data goes in and comes out", f"{len(done.out)} bytes")
    ok("apart" in done.error.splitlines() and "software" not in done.error, "stderr is apart from stdout", done.error)
    equal(home.vms(), [], "the VM is removed with its run")
    lib.none_left()


@case(400, everyday=False)
def selftest(home):
    done = home.husk("doctor", "--selftest", limit=390)
    ok("kvm" in done.text and not any(line.startswith("error") and "kvm" in line for line in done.text.splitlines()),
       "the self-test boots, runs and stops a guest on kvm", done)


# What a guest says of its machine.
FACTS = ("echo cpus $(nproc) $(grep -c ^processor /proc/cpuinfo); grep MemTotal /proc/meminfo; "
         "echo sources $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource); "
         "echo high $(grep -c '^ *1[0-9a-f]\\{8\\}.*System RAM' /proc/iomem); "
         "echo online $(cat /sys/devices/system/cpu/online); dmesg | grep -iE 'BUG|WARNING:|Oops|call trace' | head; ")


def machine_facts(home, cpus, memory, *options, more="", limit=170):
    """Boot with @cpus and @memory MiB and check that the guest has them."""
    image = home.have(images.busybox(), "busybox")
    done = home.run("--cpus", cpus, "-m", f"{memory}m", *options, image, "sh", "-c", FACTS + more, limit=limit)
    text = done.text
    if not equal(done.status, 0, f"{cpus} CPUs and {memory} MiB: a run", done):
        return done
    ok(f"cpus {cpus} {cpus}\n" in text, f"the guest has {cpus} CPUs", done)
    kib = int(text.split("MemTotal:")[1].split()[0])
    ok(memory * 1024 * 0.6 < kib <= memory * 1024, f"the guest has {memory} MiB, less what its kernel takes", done)
    if memory > 3072:
        ok("high 1\n" in text, "memory goes on above 4 GiB", done)
    ok("Trace" not in text and "WARNING" not in text, "its kernel has nothing to complain of", done)
    return done


@case(180)
def four_cpus_five_gib(home):
    """Memory on both sides of the hole below 4 GiB, and CPUs that have to be woken."""
    machine_facts(home, 4, 5120)
    lib.none_left()


@case(150)
def small(home):
    """128 MiB, in which the clock, the randomness and the devices are looked at, too."""
    before = time.time()
    done = machine_facts(home, 1, 128, more="date +%s; head -c 32 /dev/random | wc -c; ls /sys/bus/virtio/devices | wc -l; "
                         "sleep 1; date +%s")
    words = done.text.split()[-4:]
    if len(words) == 4:
        ok(before - 2 <= int(words[0]) <= time.time() + 2, "the guest's date is the host's", done)
        equal(words[1], "32", "it has randomness", done)
        ok(int(words[2]) >= 4, "its devices sit on virtio", done)
        ok(1 <= int(words[3]) - int(words[0]) <= 60, "its clock goes on", done)
    lib.none_left()


@case(600, everyday=False)
def sizes(home):
    """The edges of the hole, and numbers of CPUs that are no power of two."""
    for cpus, memory in ((2, 256), (3, 3071), (1, 3072), (2, 3073), (4, 4096)):
        machine_facts(home, cpus, memory)
    lib.none_left()


@case(120)
def tuned(home):
    """The tuned kernel, where it is built."""
    machine_facts(home, 2, 512, "--kernel", home.take_tuned())


@case(300, everyday=False)
def tuned_cpus(home):
    kernel = home.take_tuned()
    for cpus in (1, 4):
        machine_facts(home, cpus, 512, "--kernel", kernel)


@case(400, everyday=False)
def stock(home):
    kernel = stock_kernel(home)
    for cpus in (1, 2, 4):
        machine_facts(home, cpus, 512, "--kernel", kernel)
