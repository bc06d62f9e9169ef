#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
"""cp_test.py - husk cp in one VM, both ways: trees, links, holes, times, odd names, tar, and what is refused."""
import io
import os
import signal
import tarfile

import images
import lib
from lib import equal, ok


def make_tree(top):
    (top / "d" / "e").mkdir(parents=True)
    (top / "d" / "e" / "f").write_bytes(bytes(range(256)) * 1000)
    (top / "d" / "new\nline \xff").write_text("odd")
    os.link(top / "d" / "e" / "f", top / "hard")
    (top / "soft").symlink_to("d/e/f")
    (top / "dangling").symlink_to("/nowhere")
    with open(top / "sparse", "wb") as sparse:
        sparse.write(b"begin")
        sparse.truncate(64 << 20)
    (top / "run").write_text("#!/bin/sh\n")
    (top / "run").chmod(0o751)
    os.mkfifo(top / "fifo")
    for path in (top / "run", top / "d"):
        os.utime(path, ns=(1, 1234567890123456789))


def listing(top):
    """What matters of a tree: kind, mode, size, time and contents by name."""
    found = {}
    for folder, folders, files in os.walk(top):
        for name in folders + files:
            path = os.path.join(folder, name)
            st = os.lstat(path)
            contents = os.readlink(path) if os.path.islink(path) else open(path, "rb").read() if os.path.isfile(path) else b""
            found[os.path.relpath(path, top)] = (oct(st.st_mode), st.st_mtime_ns, contents)
    return found


def test_cp(home):
    image = home.have(images.busybox(), "busybox")
    vm = home.start("run", "--quiet", "--name", "v", image, "sh", "-c", "echo ready; while :; do sleep 1; done")
    vm.wait_for(b"ready")
    source, back = home.path / "tree", home.path / "back"
    source.mkdir()
    back.mkdir()
    make_tree(source)

    def cp(*arguments, **keywords):
        return home.husk("cp", *arguments, **keywords)

    def guest(script):
        return home.husk("exec", "v", "sh", "-c", script).out

    equal(cp(source, "v:/tmp").status, 0, "a tree goes in")
    equal(cp("v:/tmp/tree", back).status, 0, "and comes out")
    equal(listing(back / "tree"), listing(source), "with names, modes, times, links and contents")
    ok(os.stat(back / "tree" / "sparse").st_blocks * 512 < 1 << 20, "a hole stays a hole")
    ok(os.path.samefile(back / "tree" / "hard", back / "tree" / "d" / "e" / "f"), "a hard link stays one")
    ok(int(guest("du -k /tmp/tree/sparse").split()[0]) < 1024, "in the guest, too")
    equal(guest("stat -c %u:%g /tmp/tree/run"), b"0:0\n", "what comes in is root's")
    equal(cp(source / "run", "v:/tmp/other").status, 0, "a file under another name")
    equal(cp(source / "run", "v:/tmp/tree/").status, 0, "into a directory")
    equal(guest("cat /tmp/other"), b"#!/bin/sh\n", "it is there")
    equal(cp(f"{source}/.", "v:/tmp/contents").status, 0, "what is in a directory")
    equal(guest("cat /tmp/contents/run"), b"#!/bin/sh\n", "goes into one that is made")
    equal(cp("-u", "1000:1000", source / "run", "v:/tmp/theirs").status, 0, "as another user")
    equal(guest("stat -c %u:%g /tmp/theirs"), b"1000:1000\n", "whose the file is")
    ok(cp("-u", "1000", source / "run", "v:/etc/no").status == 1, "who may not write everywhere")
    equal(cp("v:/tmp/tree/soft", back / "link").status, 0, "a link comes out as one")
    ok(os.path.islink(back / "link"), "it is one")
    equal(cp("-L", "v:/tmp/tree/soft", back / "followed").status, 0, "unless it is followed")
    ok((back / "followed").read_bytes() == (source / "d" / "e" / "f").read_bytes(), "then its file comes")
    refusals(cp, source, back)
    tar(cp, guest, source)
    vm.process.send_signal(signal.SIGKILL)
    vm.finish()


def refusals(cp, source, back):
    (back / "other").mkdir()
    for what, arguments in {
            "a source that is not there": ("v:/nowhere", back),
            "a target whose directory is not there": ("v:/etc/passwd", back / "no" / "where"),
            "a directory over a file": (source / "d", "v:/etc/passwd"),
            "a file over a directory": ("v:/tmp/other", back),
            "two places of the host": (source, back),
            "two places of guests": ("v:/a", "v:/b"),
            "a VM that is not there": ("nosuch:/a", back)}.items():
        done = cp(*arguments)
        ok(done.status == 1 and done.error.startswith("husk: "), f"refused: {what}", done)


def tar(cp, guest, source):
    done = cp("v:/tmp/tree", "-")
    with tarfile.open(fileobj=io.BytesIO(done.out)) as archive:
        names = {m.name: m for m in archive.getmembers()}
        ok({"tree", "tree/d/e/f", "tree/soft", "tree/hard"} <= set(names), "a tree comes out as tar", sorted(names))
        ok(names["tree/hard"].islnk() or names["tree/d/e/f"].islnk(), "with its hard links")
    guest("mkdir /tmp/untar")
    equal(cp("-", "v:/tmp/untar", input=done.out).status, 0, "and goes in again")
    equal(guest("cmp /tmp/tree/d/e/f /tmp/untar/tree/d/e/f && readlink /tmp/untar/tree/soft"), b"d/e/f\n", "whole")
    evil = io.BytesIO()
    with tarfile.open(fileobj=evil, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../../etc/evil"))
    done = cp("-", "v:/tmp/untar", input=evil.getvalue())
    ok(done.status == 1 and ".." in done.error, "an archive that climbs is refused", done)
    done = cp("-", "v:/tmp/untar", input=b"this is no archive" * 1000)
    equal(done.status, 1, "and so is what is none", done)


lib.main(globals())
