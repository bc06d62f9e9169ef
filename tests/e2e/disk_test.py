#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 400
"""disk_test.py - disks of the user's: order, names, serial numbers, read-only enforced outside, persistence, locks."""
import json
import os
import re

import images
import lib
from lib import equal, ok

MIB = 1 << 20


def disk(home, name, size=4 * MIB, head=b""):
    path = home.path / name
    with open(path, "wb") as file:
        file.write(head)
        file.truncate(size)
    return path


def test_two_disks(home):
    """One run reads and writes, the next finds what was written; a read-only disk keeps its bytes."""
    image = home.have(images.busybox(), "busybox")
    data, fixed = disk(home, "data.img", head=b"first disk"), disk(home, "fixed.img", 8 * MIB, b"second disk")
    before = fixed.read_bytes()
    script = ("head -c 10 /dev/vdb; echo; head -c 11 /dev/vdc; echo; cat /sys/class/block/vdb/size /sys/class/block/vdc/size;"
              "cat /sys/class/block/vdb/serial; echo; cat /sys/class/block/vdc/serial; echo; cat /sys/class/block/vdc/ro;"
              "readlink /dev/disk/by-id/virtio-mine; readlink /dev/disk/by-id/virtio-disk1;"
              "echo written | dd of=/dev/vdb bs=512 seek=100 conv=sync,fsync 2>/dev/null && echo wrote;"
              "echo bad | dd of=/dev/vdc conv=sync,fsync 2>/dev/null || echo refused; ls -d /dev/vda /dev/vdd 2>&1")
    done = home.run("--disk", f"{data},serial=mine", "--disk", f"{fixed}:ro", image, "sh", "-c", script)
    lines = done.text.splitlines()
    ok(lines[:2] == ["first disk", "second disk"], "disks come in the order in which they were given", done)
    equal(lines[2:4], ["8192", "16384"], "with their sizes", done)
    equal(lines[4:7], ["mine", "disk1", "1"], "their serial numbers and the read-only flag", done)
    equal(lines[7:9], ["../../vdb", "../../vdc"], "and names by serial number", done)
    equal(lines[9:11], ["wrote", "refused"], "a write is refused where it has to be", done)
    ok(len(lines) == 13 and all("No such file" in line for line in lines[11:]),
       "root and scratch are not in the workload's /dev", done)
    equal(fixed.read_bytes(), before, "the read-only disk is what it was")
    ok(data.read_bytes()[51200:51208] == b"written\n", "what was written is in the file")
    done = home.run("--disk", f"{data}:ro", image, "sh", "-c", "dd if=/dev/vdb bs=512 skip=100 count=1 2>/dev/null | head -c 7")
    equal(done.text, "written", "and there in the next VM", done)
    lib.none_left()


def test_file_system(home):
    """A disk with a partition table: the workload makes a file system, and the root still comes up over scratch."""
    image = home.have(images.busybox(), "busybox")
    table = bytearray(512)  # an MBR with one partition from sector 2048 on
    table[446:462] = bytes([0, 0, 0, 0, 0x83, 0, 0, 0]) + (2048).to_bytes(4, "little") + (16384).to_bytes(4, "little")
    table[510:512] = b"\x55\xaa"
    data = disk(home, "parted.img", 16 * MIB, bytes(table))
    done = home.run("--disk", f"{data},serial=p", image, "sh", "-c",
                    "/bin/busybox mke2fs /dev/disk/by-id/virtio-p-part1 >/dev/null 2>&1; mkdir -p /mnt; "
                    "mount -t ext4 /dev/vdb1 /mnt && echo kept > /mnt/file && umount /mnt && echo done; touch /scratch-works && echo ok")
    ok(done.text.splitlines()[-2:] == ["done", "ok"], "a partition of a disk is made a file system and mounted", done)
    done = home.run("--disk", str(data), image, "sh", "-c", "mkdir -p /mnt; mount -t ext4 /dev/vdb1 /mnt && cat /mnt/file")
    equal(done.text, "kept\n", "which the next VM finds", done)


def test_locks(home):
    image = home.have(images.busybox(), "busybox")
    data = disk(home, "shared.img")
    running = home.start("run", "--quiet", "-i", "--disk", str(data), image, "sh", "-c", "echo ready; read end", stdin=-1)
    running.wait_for(b"ready\n")
    for given in (str(data), f"{data}:ro"):
        done = home.run("--disk", given, image, "true")
        ok(done.status == 125 and f"disks[0].path: '{data}'" in done.error and "another VM" in done.error,
           f"--disk {given[-10:]}: a disk that is being written has one VM", done)
    os.kill(running.processes()["supervisor"], 9)
    running.finish()
    lib.wait_gone(lib.descendants())
    done = home.run("--disk", f"{data}:ro", "--disk", f"{data}:ro,serial=again", image, "true")
    equal(done.status, 0, "a lock ends with its VM, even a killed one; readers share", done)
    done = home.run("--disk", str(data), "--disk", f"{data}:ro", image, "true")
    ok(done.status == 125 and "disks[1].path" in done.error and "disks[0] as well" in done.error,
       "one disk twice in a VM, once writable", done)


def test_refusals(home):
    image = home.have(images.busybox(), "busybox")
    odd = disk(home, "odd.img", 1000)
    cases = [(["/x/y"], "disks[0].path: '/x/y': no such file"), ([str(home.path)], "neither a file nor a block device"),
             ([str(odd)], "multiple of 512"), ([f"{odd},serial=a b"], "disks[0].serial: 'a b'"),
             ([f"{odd},serial={'x' * 21}"], "1 to 20"), ([f"{odd},serial=a", f"{odd},serial=a"], "disks[1].serial: 'a' is disks[0]'s"),
             ([f"{odd},serial=husk-root"], "husk's own"), ([":ro"], "no path"), ([str(odd)] * 19, "at most 18")]
    for disks, words in cases:
        arguments = [word for given in disks for word in ("--disk", given)]
        done = home.run(*arguments, image, "true")
        ok(done.status == 125 and words in done.error and not done.out, f"{disks[-1][-24:]} is refused: {words}", done)
    equal(home.vms(), [], "nothing is left of what was refused")


def test_round_trip(home):
    """What inspect shows as `config` starts the same VM again."""
    image = home.have(images.busybox(), "busybox")
    data = disk(home, "config.img")
    config = {"image": image, "command": ["sh", "-c", "echo $A $B; cat /sys/class/block/vdb/serial; echo; hostname; read end"],
              "env": ["A=1", "B=file"], "memory": "256M", "hostname": "here", "name": "first", "scratch": "1G", "cpus": 1,
              "disks": [{"path": str(data), "serial": "s-1", "read_only": True}], "timeout_ms": "1m", "net": None,
              "doors": [{"kind": "tcp", "guest_port": 80}], "vsock": {"policy": "disabled"}}
    file = home.path / "vm.json"
    file.write_text(json.dumps(config))

    def start(*arguments):
        running = home.start("run", "-i", "--quiet", "--config", file, *arguments, stdin=-1)
        running.wait_for(b"here\n")
        seen = json.loads(home.husk("inspect", "first").text)[0]["config"]
        running.stdin.write(b"\n")
        running.stdin.flush()
        return running.finish(), seen

    done, first = start("--env", "B=line")
    equal(done.text, "1 line\ns-1\nhere\n", "a file is a VM, and an option counts more", done)
    ok(first["memory"] == 256 * MIB and first["machine"] in ("qemu", "kvm") and first["env"] == ["A=1", "B=file", "B=line"]
       and first["timeout_ms"] == 60000 and first["kernel"] and first["disks"][0]["format"] == "raw",
       "inspect shows the configuration in effect", first)
    file.write_text(json.dumps(first))
    done, second = start()
    equal(done.text, "1 line\ns-1\nhere\n", "which starts the same VM again", done)
    equal(second, first, "with the same configuration in effect")
    done = home.husk("run", "--quiet", "--config", "-", input=json.dumps(
        {"image": image, "command": ["echo", "from stdin"], "read_only": True}).encode())
    equal(done.text, "from stdin\n", "--config - reads stdin", done)
    lib.none_left()


def test_config_refusals(home):
    cases = [('{"image": "x",\n "cpus": }', "line 2"), ('{"image": "x", "colour": 1}', "colour: there is no such field"),
             ('{"image": "x", "disks": [{"path": "a"}, {"path": "b", "ro": true}]}', "disks[1].ro: there is no such field"),
             ('{"image": "x", "disks": [{"path": "/no/disk"}]}', "disks[0].path: '/no/disk': no such file"),
             ('{"image": "x", "disks": [{"path": "/etc/passwd", "format": "qcow2"}]}', "disks[0].format: 'qcow2'"),
             ('{"image": "x", "cpus": "two"}', 'cpus: "two": not a whole number'), ('{"image": "x", "memory": 1}', "memory: 1 is out of range"),
             ('{"image": "x", "memory": "1.5G"}', 'memory: "1.5G": not a size'), ('{"image": "x", "serial": "com1"}', 'serial: "com1": none of log, inherit, capture'),
             ('{"image": "x", "shares": [{"path": "/srv", "target": "/srv"}]}', "shares[0].path: '/srv': no machine can serve"),
             ('{"image": "x", "net": "tap"}', "net: 'tap' cannot be had"), ('{"image": "x", "cpus": 1, "cpus": 1}', "duplicate"),
             ('{"image": "x", "vsock": {"policy": "fixed", "port": 1028}}', "vsock.port: 1028 is the port of husk's own agent"),
             ('{"image": "x", "vsock": {"policy": "auto", "port": 7}}', "vsock.port: 7 is out of range"),
             ('{"image": "x", "doors": [{"kind": "door"}]}', 'doors[0].kind: "door": none of unix, tcp, exec, handoff, tls'),
             ('{"image": "x", "doors": [{"kind": "unix"}]}', "doors[0]: a door of kind unix needs a path"),
             ('{"image": "x", "initramfs": "/etc/hostname", "user": "me"}', "user: a user needs husk's agent"),
             ('{"image": "x", "kernel": "/no/kernel"}', "kernel: '/no/kernel'"), ("[]", "an object"), ("", "line 1"), ("{}", "something is missing")]
    for text, words in cases:
        done = home.husk("run", "--config", "-", input=text.encode())
        ok(done.status == 125 and words in done.error and not done.out, f"{text[:60]!r}: {words}", done)
    equal(home.vms(), [], "nothing is left of what was refused")


lib.main(globals())
