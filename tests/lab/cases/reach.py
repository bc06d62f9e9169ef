# SPDX-License-Identifier: Apache-2.0
"""reach.py - cases: into the guest through its doors, and its disks' bytes."""
import pathlib
import socket
import urllib.request

import images
import lib
from case import case
from lib import equal, ok


@case(180)
def doors(home):
    """A TCP door, one that is exposed later, and the exec door."""
    image = home.have(images.busybox(), "busybox")
    door = home.path / "exec"
    running = home.start("run", "--quiet", "--name", "web", "-p", "0:80", "--exec-door", door, image, "sh", "-c",
                         "mkdir /w; head -c 300000 /dev/urandom > /w/f; sha256sum /w/f | cut -c1-64; echo ready; exec httpd -f -h /w")
    said = running.wait_for(b"ready\n").decode().split()
    published = home.husk("port", "web")
    address = published.text.split()[-1]
    port = int(address.rpartition(":")[2])
    import hashlib
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/f", timeout=60) as answer:
        equal(hashlib.sha256(answer.read()).hexdigest(), said[0], "a file comes through the TCP door", published)
    done = home.husk("expose", "web", "--publish", "0:80")
    ok(done.status == 0, "a door is added while the VM runs", done)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(door))
        got = lib.agent_exec(client, ["sh", "-c", "cat; echo apart >&2; exit 7"], b"through the door\n")
    equal((got["status"], got["out"], got["err"]), (7, b"through the door\n", b"apart\n"), "the exec door runs a command", got)
    running.process.kill()
    running.finish()
    lib.none_left()


@case(150)
def disk(home):
    """The scratch disk: what is written is read again past the cache, flushed, and its blocks are given back."""
    image = home.have(images.busybox(), "busybox")
    running = home.start("run", "--quiet", "-i", image, "sh", "-c", r"""
dd if=/dev/urandom of=/data bs=1M count=24 conv=fsync 2>/dev/null
sha256sum /data | cut -c1-64; sync; echo 3 > /proc/sys/vm/drop_caches; sha256sum /data | cut -c1-64; echo ready; read x
for d in /sys/block/vd*; do [ $(cat $d/ro) = 1 ] || mknod /dev/scratch b $(tr : ' ' < $d/dev); done
rm /data; sync; mkdir /m; mount -t ext4 /dev/scratch /m && fstrim /m; echo trimmed; read x
""", stdin=lib.subprocess.PIPE)
    sums = running.wait_for(b"ready\n").decode().split()
    equal(sums[0], sums[1], "24 MiB are the same after a flush and an empty cache")
    scratch = max(home.path.rglob("scratch*"), key=lambda path: path.stat().st_blocks)
    full = scratch.stat().st_blocks * 512
    ok(full >= 24 << 20, "they are in the scratch disk's file", full)
    running.stdin.write(b"\n")
    running.stdin.flush()
    running.wait_for(b"trimmed\n")
    after = scratch.stat().st_blocks * 512
    ok(after <= full - (20 << 20), "discarded blocks are given back to the host", f"{scratch}: {full} then {after}")
    running.stdin.close()
    running.finish()
    lib.none_left()
