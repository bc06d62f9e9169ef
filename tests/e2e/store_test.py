#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 480
"""store_test.py - sources into the store and what hostile, broken and unlucky ones leave behind: no VM is started."""
import contextlib
import gzip
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tarfile

import images
import lib
from images import Layer
from lib import equal, ok


def block_images(home):
    folder = home.path / "home" / "layers"
    return sorted(folder.glob("*.img")) if folder.is_dir() else []


def leftovers(home):
    """Files below partial/ but for its locks."""
    folder = home.path / "home" / "partial"
    return [p for p in folder.rglob("*") if p.is_file() and p.parent.name != "locks"] if folder.is_dir() else []


def forget(home, source):
    """Remove the image that came from @source with all its names, so that the next import does the work."""
    home.husk("rmi", "-f", source)
    home.husk("gc")


def listing(image):
    """{path: (mode and kind, owner/group, size, link)} of a squashfs image, from unsquashfs."""
    text = subprocess.run(["unsquashfs", "-lln", str(image)], stdout=subprocess.PIPE, check=True).stdout.decode()
    found = {}
    for line in text.splitlines():
        if "squashfs-root" not in line:
            continue
        head, _, name = line.partition(" squashfs-root")
        words = head.split()
        name, _, link = name.partition(" -> ")
        found[name or "/"] = (words[0], words[1], words[2] if words[0][0] == "-" else "", link)
    return found


def tar_listing(path):
    found = {}
    letters = {tarfile.DIRTYPE: "d", tarfile.SYMTYPE: "l", tarfile.CHRTYPE: "c", tarfile.BLKTYPE: "b", tarfile.FIFOTYPE: "p"}
    with tarfile.open(path) as tar:
        for info in tar:
            name = "/" + info.name.removeprefix("./").strip("/.") if info.name in (".", "./") else "/" + info.name.removeprefix("./").rstrip("/")
            if info.islnk():
                found[name] = found["/" + info.linkname.removeprefix("./")]
                continue
            kind = letters.get(info.type, "-")
            mode = kind + (stat.filemode(info.mode | stat.S_IFREG)[1:] if not info.issym() else "rwxrwxrwx")
            found[name] = (mode, f"{info.uid}/{info.gid}", str(info.size) if kind == "-" else "",
                           info.linkname if info.issym() else "")
    return found


def write_image(home, name, layers, **how):
    path = home.path / "layouts" / name
    shutil.rmtree(path, ignore_errors=True)
    images.write_layout(path, layers, **how)
    return f"oci:{path}:latest"


def test_debian_exact(home):
    """The block image of a real root file system holds what the tar holds, entry by entry."""
    source = images.debian()
    done = home.husk("import", source, "debian:12")
    equal(done.status, 0, "a Debian tar is imported", done)
    made = block_images(home)
    equal(len(made), 1, "as one block image")
    want, got = tar_listing(source.removeprefix("tar:")), listing(made[0])
    want.pop("/", None), got.pop("/", None)
    wrong = [f"{n}: tar {want.get(n)} image {got.get(n)}" for n in sorted(want.keys() | got.keys()) if want.get(n) != got.get(n)]
    ok(not wrong and len(want) > 3000, f"{len(want)} entries: type, mode, owner, size and link are the tar's",
       "\n".join(wrong[:20]))
    again = home.husk("import", source, "debian:again")
    ok(again.status == 0 and block_images(home) == made, "the same layer again makes no second block image", again)
    show = home.husk("images")
    ok("debian" in show.text and "again" in show.text and "12" in show.text, "husk images lists both names", show)
    inspect = json.loads(home.husk("image", "inspect", "debian:12").text)
    inspect = inspect[0] if isinstance(inspect, list) else inspect
    ok(inspect["os"] == "linux" and inspect["architecture"] == "amd64" and len(inspect["layers"]) == 1, "image inspect", inspect)
    for name in ("debian:again", "debian:12"):
        done = home.husk("rmi", name)
        equal(done.status, 0, f"rmi {name.split(':')[0]}", done)
    equal(block_images(home), [], "with its last name the image's layer goes")
    done = home.husk("rmi", "debian:12")
    ok(done.status != 0 and "debian:12" in done.error, "rmi of what is not there", done)


def test_sources(home):
    """One image by every way in."""
    layout = images.busybox()
    folder = layout.removeprefix("oci:").rsplit(":", 1)[0]
    archive, docker, tree = home.path / "a.tar", home.path / "d.tar", home.path / "tree"
    subprocess.run(["tar", "-C", folder, "-cf", archive, "."], check=True)
    subprocess.run(["skopeo", "copy", "-q", "--insecure-policy", layout, f"docker-archive:{docker}:busybox:docker"], check=True)
    tree.mkdir()
    flags = [] if os.geteuid() == 0 else ["--no-same-owner"]
    subprocess.run(["tar", "-C", tree, *flags, "-xf", "-"], input=images.busybox_layer(), check=True)
    ids = {}
    for name, source in (("oci", layout), ("oci-archive", f"oci-archive:{archive}"), ("docker-archive", f"docker-archive:{docker}"),
                         ("rootfs", f"rootfs:{tree}")):
        done = home.husk("import", source, f"from/{name}:1")
        equal(done.status, 0, f"import {name}", done)
        shown = home.husk("image", "inspect", f"from/{name}:1")
        shown = json.loads(shown.text or "{}")
        shown = shown[0] if isinstance(shown, list) else shown
        ids[name] = [str(layer) for layer in shown.get("layers", [])]
    equal(ids["oci"], ids["oci-archive"], "the layout and its archive are one image")
    ok(json.dumps(ids["oci"]) == json.dumps(ids["docker-archive"]), "and skopeo's docker-archive shares its layers", ids)
    done = home.husk("import", "-", "from/stdin:1", input=images.busybox_layer())
    ok(done.status == 0, "a tar on stdin", done)
    for compress in ("zstd", ""):
        source = write_image(home, "c", [Layer().add("x", "1").done()], compress=compress)
        done = home.husk("import", source, "compressed:1")
        equal(done.status, 0, f"layers with compression {compress or 'none'}", done)


def check_refused(home, source, what, word=None):
    before = block_images(home)
    done = home.husk("import", source, "bad:1")
    ok(done.status not in (0, None) and done.status < 128 and done.err and (not word or word in done.error),
       f"{what}: refused with a message", done)
    equal((block_images(home), leftovers(home)), (before, []), f"{what}: nothing is left behind")
    ok(home.husk("image", "inspect", "bad:1").status != 0, f"{what}: no image is there")


def test_broken_images(home):
    """What does not match its digest, or ends too soon."""
    good = Layer().add("file", b"x" * 100000).done()
    write_image(home, "good", [good])

    def spoil(kind, change):
        return lambda k, data: change(data) if k == kind else None

    flipped = spoil("layer", lambda d: d[:50] + bytes([d[50] ^ 1]) + d[51:])
    for what, change in (("a layer with one bit flipped", flipped), ("a truncated gzip", spoil("layer", lambda d: d[:-20])),
                         ("an empty layer file", spoil("layer", lambda d: b"")),
                         ("a layer of another content", spoil("layer", lambda d: gzip.compress(good + b"\0" * 512))),
                         ("a config of another content", spoil("config", lambda d: d.replace(b"linux", b"linuX"))),
                         ("a manifest that is no JSON", spoil("manifest", lambda d: b"<html>")),
                         ("a manifest of another content", spoil("manifest", lambda d: d + b" "))):
        check_refused(home, write_image(home, "bad", [good], spoil=change), what)

    # Right digests of wrong content: the diff ID does not match, the gzip or the tar itself is broken.
    def layout(layer_data, diff_id=None, config_change=lambda c: c, manifest_change=lambda m: m):
        path = home.path / "layouts" / "crafted"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["x"]},
                  "rootfs": {"type": "layers", "diff_ids": [diff_id or images.sha256(good)]}}
        config_blob = {"mediaType": images.CONFIG, **images.write_blob(path, json.dumps(config_change(config)).encode())}
        manifest = {"schemaVersion": 2, "mediaType": images.MANIFEST, "config": config_blob,
                    "layers": [{"mediaType": images.LAYER_GZIP, **images.write_blob(path, layer_data)}]}
        entry = {"mediaType": images.MANIFEST, **images.write_blob(path, json.dumps(manifest_change(manifest)).encode()),
                 "annotations": {"org.opencontainers.image.ref.name": "latest"}}
        (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        return f"oci:{path}:latest"

    packed = gzip.compress(good)
    check_refused(home, layout(packed, images.sha256(b"other")), "a diff ID that is not the layer's")
    check_refused(home, layout(packed[:-9]), "a gzip without its end")
    check_refused(home, layout(gzip.compress(good[:20000])), "a tar that ends within a file")
    noise = random.Random(1).randbytes(50000)
    check_refused(home, layout(gzip.compress(noise), images.sha256(noise)), "noise for a tar")
    check_refused(home, layout(noise), "noise for a gzip")
    check_refused(home, layout(packed, config_change=lambda c: {**c, "rootfs": {"type": "layers", "diff_ids": []}}),
                  "a config with fewer diff IDs than layers")
    check_refused(home, layout(packed, config_change=lambda c: {**c, "os": "windows"}), "another operating system")
    check_refused(home, layout(packed, config_change=lambda c: {**c, "architecture": "s390x"}), "another architecture")
    check_refused(home, layout(packed, config_change=lambda c: {**c, "config": {"Env": "PATH=/bin"}}), "an Env that is no list")
    check_refused(home, layout(packed, config_change=lambda c: [c]), "a config that is a list")
    check_refused(home, layout(packed, manifest_change=lambda m: {**m, "layers": []}), "a manifest without layers")
    check_refused(home, layout(packed, manifest_change=lambda m: {
        **m, "config": {**m["config"], "digest": "sha256:../../../../etc/passwd"}}), "a digest that is a path")
    check_refused(home, layout(packed, manifest_change=lambda m: {
        **m, "layers": [{**m["layers"][0], "size": m["layers"][0]["size"] + 1}]}), "a layer of another size")


def test_hostile_tars(home):
    """Names that want out, links that lead away, whiteouts of nothing: inside the image or refused, never on the host."""
    victim = home.path / "victim"
    victim.write_text("untouched")
    climb = "../" * 12 + str(victim).lstrip("/")
    layer = Layer()
    layer.add("/absolute", "inside").symlink("link", "/").add(".wh.nothing-there").directory("wh").add("wh/.wh..wh..opq")
    layer.symlink("etc", str(victim.parent)).hardlink("same", "absolute").add("twice", "first").add("twice", "second")
    layer.directory("was-dir").add("was-dir/child", "1").add("was-dir", "a file now")
    layer.add("overlay", "x", xattrs={"trusted.overlay.opaque": "y", "trusted.overlay.redirect": "/etc", "user.kept": "1"})
    done = home.husk("import", write_image(home, "odd", [layer.done()]), "odd:1")
    ok(done.status == 0, "absolute names, links to /, whiteouts of nothing, duplicate names are taken", done)
    if done.status == 0:
        made = max(block_images(home), key=lambda p: p.stat().st_mtime)
        names = listing(made)
        ok("/absolute" in names and "/twice" in names and names["/was-dir"][0][0] == "-" and "/was-dir/child" not in names,
           "as Docker takes them: the last one wins", sorted(names))
        out = subprocess.run(["unsquashfs", "-q", "-cat", str(made), "twice"], stdout=subprocess.PIPE, check=False).stdout
        equal(out, b"second", "a name twice: the second content")
        if os.geteuid() == 0:
            tree = home.path / "unsquashed"
            subprocess.run(["unsquashfs", "-q", "-n", "-d", tree, made], check=True, stdout=subprocess.DEVNULL)
            equal(sorted(os.listxattr(tree / "overlay", follow_symlinks=False)), ["user.kept"], "trusted.overlay.* is stripped")
            ok("trusted.overlay.opaque" in os.listxattr(tree / "wh"), "an opaque marker is overlayfs's")
            shutil.rmtree(tree)
    for name, what in ((climb, "a name with .."), ("a/" + climb, "a name with .. further in"), ("..", "the name ..")):
        done = home.husk("import", write_image(home, "climb", [Layer().add(name, "owned").done()]), "climb:1")
        ok(done.status in (0, 1, 125) and victim.read_text() == "untouched", f"{what} does not get out", done)
    done = home.husk("import", write_image(home, "climb", [Layer().symlink("up", "../../../../" + str(home.path).lstrip("/"))
                                                         .add("up/victim", "owned").done()]), "climb:2")
    ok(victim.read_text() == "untouched" and not (home.path / "owned").exists(), "a file through a symlink does not get out", done)
    for target, what in ((climb, "a hard link to .."), ("/etc/passwd", "a hard link to nothing"), ("me", "a hard link to itself")):
        done = home.husk("import", write_image(home, "hard", [Layer().hardlink("me", target).done()]), "hard:1")
        ok(done.status is not None and done.status < 128, f"{what}: no crash", done)


def test_large(home):
    """A sparse file of 2 GiB, ten thousand files in one directory, very long names and deep trees."""
    layer = Layer()
    layer.directory("many")
    for i in range(10000):
        layer.add(f"many/{i:05}-{'x' * 20}", str(i))
    deep = "/".join(["deep"] * 60)
    layer.add(deep + "/" + "n" * 255, "x")
    tar = home.path / "sparse.tar"
    hole = home.path / "hole"
    with open(hole, "wb") as file:
        file.truncate(2 << 30)
        file.seek(1 << 30)
        file.write(b"in the middle")
    subprocess.run(["tar", "-C", home.path, "--sparse", "--owner=0", "--group=0", "-cf", tar, "hole"], check=True)
    hole.unlink()
    done = home.husk("import", f"tar:{tar}", "sparse:1", limit=120)
    ok(done.status == 0, "a sparse file of 2 GiB", done)
    made = max(block_images(home), key=lambda p: p.stat().st_mtime)
    ok(made.stat().st_size < 4 << 20 and listing(made)["/hole"][2] == str(2 << 30), "takes no room and keeps its size", made.stat())
    done = home.husk("import", write_image(home, "many", [layer.done()]), "many:1")
    equal(done.status, 0, "ten thousand files in one directory, a deep tree, a long name", done)
    made = max(block_images(home), key=lambda p: p.stat().st_mtime)
    names = listing(made)
    ok(sum(n.startswith("/many/") for n in names) == 10000 and f"/{deep}/{'n' * 255}" in names, "all of them are there")


def test_forty_five(home):
    done = home.husk("import", images.forty_five(), "forty-five:1")
    shown = json.loads(home.husk("image", "inspect", "forty-five:1").text)
    shown = shown[0] if isinstance(shown, list) else shown
    ok(done.status == 0 and len(shown["layers"]) == 1, "more than 40 layers are merged into one", shown["layers"])


def test_acls(home):
    acl = b"\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x04\x00\x04\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff"
    layer = Layer()
    for name in ("a", "b"):
        layer.add(name, "x", xattrs={"system.posix_acl_access": acl.decode("latin-1")})
    done = home.husk("import", write_image(home, "acl", [layer.done()]), "acl:1")
    said = [line for line in done.error.splitlines() + done.text.splitlines() if "ACL" in line]
    ok(done.status == 0 and len(said) <= 1, "POSIX ACLs: at most one line per image", done)


def test_interrupted(home):
    """Killed in the middle, at several points: the next command finds a store that works."""
    source = images.debian()
    entries = len(set(tar_listing(source.removeprefix("tar:"))) | {"/"})
    for attempt in range(3):
        forget(home, source)
        running = home.start("import", source, f"killed:{attempt}")
        # Wait for the helper to have begun to write, which is an event of the file system: its block image grows.
        partial, wanted = home.path / "home" / "partial", attempt * (8 << 20)
        while running.process.poll() is None:
            with contextlib.suppress(OSError):
                if sum(p.stat().st_size for p in partial.rglob("*") if p.is_file()) > wanted:
                    break
        victims = lib.descendants()
        sign = signal.SIGKILL if attempt else signal.SIGINT
        for pid in victims if attempt == 2 else [running.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
        done = running.finish()
        ok(done.status != 0, f"an import ends by {sign.name}", done)
        lib.none_left("its helper has ended with it")
        there = home.husk("image", "inspect", f"killed:{attempt}").status == 0
        made = max(block_images(home), key=lambda p: p.stat().st_size) if there else None
        ok(not there or len(listing(made)) == entries, "the image is whole, if it is there at all")
    done = home.husk("import", source, "after:1")
    equal(done.status, 0, "the next import works", done)
    for file in leftovers(home):  # gc leaves alone what may be somebody's who is about to lock it
        os.utime(file, (1, 1))
    home.husk("gc")
    equal(leftovers(home), [], "and gc removes what was left half-done")


def test_concurrent(home):
    """Two imports of one image at once do the work once."""
    source = images.debian()
    forget(home, source)
    runs = [home.start("import", source, f"both:{i}") for i in range(3)]
    done = [run.finish() for run in runs]
    equal([d.status for d in done], [0, 0, 0], "three imports at once", "\n".join(map(str, done)))
    equal(len({p.name for p in block_images(home) if p.stat().st_size > 30 << 20}), 1, "make one block image")


def test_full_disk(home):
    """A store on a file system that is too small: said so, and it works again with room."""
    mount = home.path / "small"
    mount.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "husk-test", mount],
                                           stderr=subprocess.DEVNULL, check=False).returncode:
        raise lib.Skip("cannot mount a small file system here")
    try:
        where = {"HUSK_HOME": str(mount / "home")}
        done = home.husk("import", images.debian(), "big:1", extra=where)
        ok(done.status not in (0, None) and "space" in done.error.lower(), "a full disk is named", done)
        left = [p for p in (mount / "home").rglob("*") if p.is_file() and p.stat().st_size > 65536]
        equal(left, [], "and nothing large is left")
        done = home.husk("import", images.busybox(), "small:1", extra=where)
        equal(done.status, 0, "a smaller image fits", done)
    finally:
        subprocess.run(["umount", "-l", mount], check=False)


def test_memory(home):
    """husk-image stays within 64 MiB and 300 bytes per entry, however large the layer."""
    source = images.debian()
    forget(home, source)
    program = ("import os,resource,subprocess,sys\n"
               "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
               "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n")
    done = subprocess.run([sys.executable, "-c", program, lib.HUSK, "import", source, "mem:1"], env=home.environment(),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    peak = int(done.stdout or 0)
    ok(done.returncode == 0 and 0 < peak < 64 * 1024 + 6000 * 300 // 1024 + 8192, f"peak memory of the import: {peak} KiB",
       done.stderr.decode())


lib.main(globals(), kernel=False)
