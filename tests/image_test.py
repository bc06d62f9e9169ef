#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""husk-image with real images, made by umoci, buildah and skopeo, and with broken ones; prints TAP.

usage: image_test.py [PATH/OF/husk-image] [NAME...]   names select tests; $HUSK_IMAGE wins over the path

Theory of operation: each test is a function that gets an empty home and calls husk-image as libhusk does. What the store
holds is read back with unsquashfs, layer by layer, stacked here as overlayfs would, and held against the tree that
`umoci unpack` makes of the same image. Images that no tool would write are put together with tarfile.
"""
import glob
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
import time

GIVEN = sys.argv.pop(1) if len(sys.argv) > 1 and "/" in sys.argv[1] else "build/image/husk-image"
TOOL = os.path.abspath(os.environ.get("HUSK_IMAGE") or GIVEN)
WORK = tempfile.mkdtemp(prefix="husk-image-test.")
ROOT = os.geteuid() == 0
count = failed = 0
HOME = ""


class Skip(Exception):
    pass


def check(ok, what, detail=""):
    global count, failed
    count += 1
    failed += not ok
    print(f"{'ok' if ok else 'not ok'} {count} - {what}", flush=True)
    if not ok and detail:
        for line in str(detail).splitlines()[:30]:
            print(f"# {line}", flush=True)
    return ok


def need(*tools):
    for tool in tools:
        if not shutil.which(tool):
            raise Skip(f"no {tool}")


def need_root():
    if not ROOT:
        raise Skip("not root")


def sh(*args, **kw):
    done = subprocess.run(args, capture_output=True, **kw)
    if done.returncode:
        raise RuntimeError(f"{args}: {done.returncode}: {done.stderr.decode(errors='replace')}")
    return done.stdout


def husk(*args, home=None, **kw):
    env = dict(os.environ, HUSK_ERROR_FD="")
    return subprocess.run([TOOL, "--home", home or HOME, *args], capture_output=True, env=env, **kw)


def pull(source, *args, **kw):
    done = husk("pull", *args, source, **kw)
    if done.returncode:
        raise RuntimeError(f"pull {source}: {done.stderr.decode(errors='replace')}")
    return done.stdout.decode().strip()


def inspect(ref, home=None):
    done = husk("inspect", ref, home=home)
    return json.loads(done.stdout) if done.returncode == 0 else None


def refused(source, words, what, *args, home=None):
    done = husk("pull", *args, source, home=home)
    text = done.stderr.decode(errors="replace")
    last = text.strip().splitlines()[-1] if text.strip() else ""
    check(done.returncode == 1 and last.startswith("husk-image: ") and words in last and not done.stdout, what,
          f"status {done.returncode}: {text}")
    left = leftovers(home or HOME)
    check(not left, what + ": nothing half-done stays", left)


def leftovers(home):
    """What a failed pull must not leave: anything but locks and the resumable beginnings of downloads."""
    left = [f for f in os.listdir(f"{home}/partial") if f != "locks" and not f.endswith(".blob")]
    return left + os.listdir(f"{home}/images")


# ---- trees ----

def entry_of(path, st):
    kind = stat.S_IFMT(st.st_mode)
    item = {"kind": kind, "mode": stat.S_IMODE(st.st_mode), "owner": (st.st_uid, st.st_gid)}
    if kind == stat.S_IFREG:
        item["data"] = hashlib.sha256(open(path, "rb").read()).hexdigest()
        item["mtime"] = int(st.st_mtime)
    if kind == stat.S_IFLNK:
        item["link"] = os.readlink(path)
        item["mode"] = 0
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        item["device"] = (os.major(st.st_rdev), os.minor(st.st_rdev))
    xattrs = {n: os.getxattr(path, n, follow_symlinks=False) for n in os.listxattr(path, follow_symlinks=False)}
    xattrs = {n: v for n, v in xattrs.items() if not n.startswith("user.rootlesscontainers")}
    if xattrs:
        item["xattrs"] = xattrs
    return item


def tree_of(top):
    tree = {}
    for base, dirs, files in os.walk(top):
        for name in dirs + files:
            path = os.path.join(base, name)
            tree[os.path.relpath(path, top)] = entry_of(path, os.lstat(path))
    tree["."] = entry_of(top, os.lstat(top))
    return tree


def stack(lower, upper):
    """What overlayfs shows of two layers."""
    out = dict(lower)

    def drop(path, itself):
        for p in [p for p in out if p.startswith(path + "/") or (itself and p == path)]:
            del out[p]
    for path, item in upper.items():
        if item["kind"] == stat.S_IFCHR and item.get("device") == (0, 0):
            drop(path, True)
            continue
        item = dict(item)
        opaque = item.get("xattrs", {}).get("trusted.overlay.opaque") == b"y"
        if opaque:
            rest = {n: v for n, v in item["xattrs"].items() if n != "trusted.overlay.opaque"}
            item.pop("xattrs")
            if rest:
                item["xattrs"] = rest
        if path != "." and (opaque or item["kind"] != stat.S_IFDIR or out.get(path, item)["kind"] != stat.S_IFDIR):
            for p in [p for p in out if (p.startswith(path + "/") and p not in upper) or p == path]:
                del out[p]
            for p in [p for p in lower if p.startswith(path + "/")]:
                if p in out and p not in upper:
                    del out[p]
        out[path] = item
    return {p: i for p, i in out.items() if not (i["kind"] == stat.S_IFCHR and i.get("device") == (0, 0))}


def stored_tree(ref):
    image = inspect(ref)
    tree = {}
    for i, layer in enumerate(image["layers"]):
        out = tempfile.mkdtemp(dir=WORK) + "/t"
        sh("unsquashfs", "-q", "-n", "-d", out, layer["path"])
        tree = stack(tree, tree_of(out))
        sh("rm", "-rf", out)
    return tree


def compare(ref, layout, tag, what):
    bundle = tempfile.mkdtemp(dir=WORK) + "/b"
    sh("umoci", "unpack", "--image", f"{layout}:{tag}", bundle)
    want, have = tree_of(bundle + "/rootfs"), stored_tree(ref)
    differ = [f"{p}: want {want.get(p)}\n  have {have.get(p)}" for p in sorted(set(want) | set(have))
              if p != "." and want.get(p) != have.get(p)]
    check(not differ, what, "\n".join(differ[:8]))
    sh("rm", "-rf", bundle)


# ---- images by hand ----

def member(name, data=b"", kind=tarfile.REGTYPE, mode=0o644, link="", pax=None, uid=0, gid=0):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname, info.size = kind, mode, link, len(data) if kind == tarfile.REGTYPE else 0
    info.uid, info.gid, info.mtime = uid, gid, 1600000000
    info.pax_headers = pax or {}
    return info, data


def tar_of(members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data) if data else None)
    return out.getvalue()


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Layout:
    def __init__(self, path=None):
        self.path = path or tempfile.mkdtemp(dir=WORK)
        os.makedirs(self.path + "/blobs/sha256", exist_ok=True)
        open(self.path + "/oci-layout", "w").write('{"imageLayoutVersion":"1.0.0"}')
        self.entries = []

    def blob(self, data):
        open(f"{self.path}/blobs/sha256/{digest(data)[7:]}", "wb").write(data)
        return {"digest": digest(data), "size": len(data)}

    def image(self, tars, tag="latest", arch="amd64", packer=None, change=None, config=None, media="gzip", plat=False):
        packer = packer or (lambda b: gzip.compress(b, 1, mtime=0))
        layers = [dict(self.blob(packer(t)), mediaType=f"application/vnd.oci.image.layer.v1.tar+{media}") for t in tars]
        conf = {"architecture": arch, "os": "linux", "config": config or {"Cmd": ["/bin/sh"], "Env": ["A=b"]},
                "rootfs": {"type": "layers", "diff_ids": [digest(t) for t in tars]}}
        manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": layers}
        if change:
            change(manifest, conf)
        manifest["config"] = dict(self.blob(json.dumps(conf).encode()), mediaType="application/vnd.oci.image.config.v1+json")
        entry = dict(self.blob(json.dumps(manifest).encode()), mediaType=manifest["mediaType"])
        if tag:
            entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
        if plat:
            entry["platform"] = {"os": "linux", "architecture": arch}
        self.entries.append(entry)
        self.write()
        return manifest

    def write(self):
        json.dump({"schemaVersion": 2, "manifests": self.entries}, open(self.path + "/index.json", "w"))


def directory(name, mode=0o755):
    return member(name, kind=tarfile.DIRTYPE, mode=mode)


def base_members():
    return [directory("bin"), directory("etc"), directory("a"), directory("a/b"), member("bin/busybox", os.urandom(5000), mode=0o4755),
            member("etc/passwd", b"root:x:0:0::/:/bin/sh\n"), member("a/b/x", b"x"), member("a/y", b"y")]


def many_layers(n):
    layout = Layout()
    tars = [tar_of(base_members())]
    tars += [tar_of([directory("n"), member(f"n/f{i}", b"%d" % i), member("n/last", b"%d" % i)]) for i in range(1, n)]
    layout.image(tars)
    return layout


def umoci_image(layout, tag, steps):
    """An image of as many layers as there are steps; each is a function that changes the root file system."""
    if not os.path.exists(layout):
        sh("umoci", "init", "--layout", layout)
    sh("umoci", "new", "--image", f"{layout}:{tag}")
    bundle = tempfile.mkdtemp(dir=WORK) + "/b"
    sh("umoci", "unpack", "--image", f"{layout}:{tag}", bundle)
    for step in steps:
        step(bundle + "/rootfs")
        sh("umoci", "repack", "--refresh-bundle", "--image", f"{layout}:{tag}", bundle)
    sh("rm", "-rf", bundle)


def step_base(root):
    os.makedirs(root + "/bin")
    shutil.copy("/bin/busybox" if os.path.exists("/bin/busybox") else "/bin/sh", root + "/bin/busybox")
    os.chmod(root + "/bin/busybox", 0o4755)
    os.symlink("busybox", root + "/bin/sh")
    for d in ["d/e/f", "op/old", "gone", "own"]:
        os.makedirs(f"{root}/{d}")
    for f in ["d/one", "d/e/two", "op/old/x", "op/y", "gone/z", "own/file"]:
        open(f"{root}/{f}", "w").write(f)
    os.link(root + "/d/one", root + "/d/hard")
    os.chown(root + "/own/file", 1000, 70000)
    os.chmod(root + "/own", 0o1777)
    os.setxattr(root + "/own/file", "user.colour", b"green\0\xff")
    os.setxattr(root + "/bin/busybox", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    os.mknod(root + "/dev-null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mkfifo(root + "/fifo")
    with open(root + "/sparse", "wb") as f:
        f.truncate(64 << 20)
        f.seek(32 << 20)
        f.write(b"middle")


def step_change(root):
    shutil.rmtree(root + "/gone")
    os.unlink(root + "/d/e/two")
    shutil.rmtree(root + "/op")
    os.makedirs(root + "/op")
    open(root + "/op/new", "w").write("new")
    os.link(root + "/d/one", root + "/d/e/f/again")
    os.chmod(root + "/d/e", 0o700)
    open(root + "/" + "n" * 200, "w").write("long")


def step_more(root):
    open(root + "/d/e/f/deep", "w").write("deep")
    os.unlink(root + "/own/file")
    os.makedirs(root + "/own/file")


# ---- tests ----

def test_umoci():
    need("umoci", "unsquashfs")
    need_root()
    layout = WORK + "/umoci"
    umoci_image(layout, "one", [step_base])
    umoci_image(layout, "three", [step_base, step_change, step_more])
    pull(f"oci:{layout}:one")
    compare(f"oci:{layout}:one", layout, "one", "one layer: content, modes, owners, xattrs, devices as umoci unpacks them")
    pull(f"oci:{layout}:three")
    compare(f"oci:{layout}:three", layout, "three", "three layers with whiteouts, hard links and new types")
    done = husk("pull", f"oci:{layout}")
    check(done.returncode == 1 and b"several images" in done.stderr, "a layout of several images needs a tag", done.stderr)


def test_by_hand():
    need("umoci", "unsquashfs")
    need_root()
    layout = Layout()
    second = tar_of([directory("a"), directory("a/b"), member("a/b/.wh..wh..opq"), member("a/b/new", b"new"),
                     member("a/.wh.y"), member("a/h", kind=tarfile.LNKTYPE, link="etc/passwd")])
    layout.image([tar_of(base_members()), second])
    pull(f"oci:{layout.path}")
    compare(f"oci:{layout.path}", layout.path, "latest", "opaque directory, whiteout, hard link across layers")
    check(len(inspect(f"oci:{layout.path}")["layers"]) == 1, "a hard link to a lower layer makes one merged block image")
    plain = Layout()
    plain.image([tar_of(base_members()), tar_of([directory("a"), directory("a/b"), member("a/b/.wh..wh..opq"), member("a/.wh.y")])])
    pull(f"oci:{plain.path}")
    compare(f"oci:{plain.path}", plain.path, "latest", "opaque directory and whiteout in a layer of its own")
    check(len(inspect(f"oci:{plain.path}")["layers"]) == 2, "layers that say all stay apart")


def test_45_layers():
    need("umoci", "unsquashfs")
    need_root()
    layout = many_layers(45)
    pull(f"oci:{layout.path}")
    image = inspect(f"oci:{layout.path}")
    check(len(image["layers"]) == 1 and len(image["source_layers"]) == 45, "45 layers become one block image")
    compare(f"oci:{layout.path}", layout.path, "latest", "45 layers: the union is right")
    check(len(os.listdir(HOME + "/layers")) == 1, "no block image of a single layer stays beside the merged one")
    layout = many_layers(40)
    pull(f"oci:{layout.path}")
    check(len(inspect(f"oci:{layout.path}")["layers"]) == 40, "40 layers stay 40")


def test_archives():
    need("skopeo")
    layout = Layout()
    layout.image([tar_of(base_members()), tar_of([directory("a"), member("a/n", b"n")])])
    want = pull(f"oci:{layout.path}")
    sh("skopeo", "copy", "-q", f"oci:{layout.path}:latest", f"docker-archive:{WORK}/d.tar:foo/bar:1")
    sh("skopeo", "copy", "-q", f"oci:{layout.path}:latest", f"oci-archive:{WORK}/o.tar:t")
    open(WORK + "/d.tar.gz", "wb").write(gzip.compress(open(WORK + "/d.tar", "rb").read(), 1))
    other = HOME + "-other"
    check(pull(f"docker-archive:{WORK}/d.tar", home=other) == want, "docker-archive gives the same image")
    husk("rmi", "-f", want, home=other)
    check(pull(f"docker-archive:{WORK}/d.tar.gz", home=other) == want, "docker-archive, gzip'ed as a whole")
    husk("rmi", "-f", want, home=other)
    check(pull(f"docker-archive:{WORK}/d.tar:foo/bar:1", home=other) == want, "docker-archive, by reference")
    husk("rmi", "-f", want, home=other)
    check(pull(f"oci-archive:{WORK}/o.tar", home=other) == want, "oci-archive gives the same image")
    check(not os.path.exists(other + "/partial") or os.listdir(other + "/partial") == ["locks"], "unpacked members are gone")
    refused(f"docker-archive:{WORK}/d.tar:foo/bar:2", "no such image", "an unknown reference of an archive", home=HOME + "-none")
    refused(f"oci-archive:{layout.path}/index.json", "tar", "an archive that is none", home=HOME + "-none")


def test_old_docker_save():
    """docker save before version 25: layers in directories, a symbolic link for one that comes twice."""
    t1, t2 = tar_of(base_members()), tar_of([directory("a"), member("a/n", b"n")])
    conf = json.dumps({"architecture": "amd64", "os": "linux", "config": {},
                       "rootfs": {"type": "layers", "diff_ids": [digest(t1), digest(t2), digest(t2)]}}).encode()
    manifest = json.dumps([{"Config": "c.json", "RepoTags": ["foo:1"], "Layers": ["1/layer.tar", "2/layer.tar", "3/layer.tar"]}])
    with open(WORK + "/old.tar", "wb") as f:
        f.write(tar_of([member("1/layer.tar", t1), member("2/layer.tar", t2), member("c.json", conf),
                        member("3/layer.tar", kind=tarfile.SYMTYPE, link="../2/layer.tar"),
                        member("manifest.json", manifest.encode())]))
    check(pull(f"docker-archive:{WORK}/old.tar") == digest(conf), "an old docker save with a link between layers")
    check(len(inspect(f"docker-archive:{WORK}/old.tar")["layers"]) == 3, "a layer may come twice")


def test_zstd():
    need("zstd")
    layout = Layout()
    layout.image([tar_of(base_members())], media="zstd", packer=lambda b: sh("zstd", "-q", input=b))
    check(pull(f"oci:{layout.path}").startswith("sha256:"), "zstd layers")
    layout = Layout()
    layout.image([tar_of(base_members())], packer=lambda b: b)
    check(pull(f"oci:{layout.path}").startswith("sha256:"), "uncompressed layers")


def test_platforms():
    layout = Layout()
    layout.image([tar_of(base_members())], tag=None, arch="arm64", plat=True)
    layout.image([tar_of(base_members())], tag=None, arch="amd64", plat=True)
    index = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": layout.entries}).encode()
    layout.entries = [dict(layout.blob(index), mediaType="application/vnd.oci.image.index.v1+json",
                           annotations={"org.opencontainers.image.ref.name": "multi"})]
    layout.write()
    source = f"oci:{layout.path}:multi"
    arm = pull(source, "--platform", "linux/arm64/v8")
    check(inspect(arm)["architecture"] == "arm64", "--platform picks from an index")
    amd = pull(source, "--platform", "linux/amd64")
    check(inspect(amd)["platform"] == "linux/amd64" and amd != arm, "another platform of the same name")
    done = husk("pull", "--platform", "linux/s390x", source)
    check(done.returncode == 1 and b"linux/arm64, linux/amd64" in done.stderr, "an unknown platform: says what there is", done.stderr)
    done = husk("pull", "--platform", "linux/../x", source)
    check(done.returncode == 1 and b"platform" in done.stderr, "a platform that is none")


def test_hostile():
    def broken(words, what, **kw):
        layout = Layout()
        tars = kw.pop("tars", [tar_of(base_members())])
        after = kw.pop("after", None)
        manifest = layout.image(tars, **kw)
        if after:
            after(layout, manifest)
        refused(f"oci:{layout.path}", words, what)

    def wrong_bytes(layout, manifest):
        path = f"{layout.path}/blobs/sha256/{manifest['layers'][0]['digest'][7:]}"
        data = bytearray(open(path, "rb").read())
        data[-1] ^= 1
        open(path, "wb").write(data)

    def cut(layout, manifest):
        path = f"{layout.path}/blobs/sha256/{manifest['layers'][0]['digest'][7:]}"
        os.truncate(path, os.path.getsize(path) // 2)

    def no_blob(layout, manifest):
        os.unlink(f"{layout.path}/blobs/sha256/{manifest['layers'][0]['digest'][7:]}")

    def bad_manifest(layout, manifest):
        path = f"{layout.path}/blobs/sha256/{layout.entries[0]['digest'][7:]}"
        data = open(path, "rb").read()
        open(path, "wb").write(data.replace(b"2", b"3", 1))
    broken("", "a layer with a wrong digest", after=wrong_bytes)
    broken("", "a truncated layer", after=cut)
    broken("", "a missing layer", after=no_blob)
    broken("digest", "a manifest with a wrong digest", after=bad_manifest)
    broken("", "a truncated gzip with a right digest", packer=lambda b: gzip.compress(b)[:-200])
    broken("", "a tar with ..", tars=[tar_of([member("../evil", b"x")])])
    broken("diff", "a diff ID that does not match",
           change=lambda m, c: c["rootfs"].update(diff_ids=["sha256:" + "0" * 64]))
    broken("diff IDs", "fewer diff IDs than layers", change=lambda m, c: c["rootfs"].update(diff_ids=[]))
    broken("digest", "a digest that leads elsewhere", change=lambda m, c: m["layers"][0].update(digest="sha256:../../etc/passwd"))
    broken("size", "a negative size", change=lambda m, c: m["layers"][0].update(size=-1))
    broken("config", "no image: no rootfs", change=lambda m, c: c.pop("rootfs"))
    broken("Env", "an Env of numbers", config={"Env": [1, 2]})
    broken("schema", "schema 1", change=lambda m, c: m.update(schemaVersion=1))
    layout = Layout()
    layout.image([tar_of(base_members())])
    for text, what in [(b"[" * 100000, "deep JSON"), (b"{", "cut JSON"), (b"", "an empty index"), (b'{"a":1,"a":2}', "duplicate keys"),
                       (b"[" + b"1," * 300000 + b"1]", "too many values"), (b"null", "null"), (b"{}", "no manifests")]:
        open(layout.path + "/index.json", "wb").write(text)
        refused(f"oci:{layout.path}", "", what)
    os.unlink(layout.path + "/index.json")
    os.symlink("/etc/passwd", layout.path + "/index.json")
    refused(f"oci:{layout.path}", "", "an index.json that leads out of the layout")
    refused(f"oci:{WORK}/nothing", "nothing", "a layout that is not there")
    refused(f"tar:{layout.path}/oci-layout", "", "a tar that is none")
    for bad in ["foo/UPPER", "--flag", "", "a b", "oci:"]:
        done = husk("pull", "--", bad)
        check(done.returncode == 1 and len(done.stderr.splitlines()) == 1, f"refused: '{bad}'", done.stderr)


def test_roots():
    root = WORK + "/root"
    os.makedirs(root + "/bin")
    open(root + "/bin/x", "w").write("x")
    first = pull(f"rootfs:{root}")
    check(pull(f"rootfs:{root}") == first, "an unchanged tree gives the same image")
    open(root + "/bin/x", "w").write("changed")
    check(pull(f"rootfs:{root}", "--policy", "never") == first, "--policy never takes what is there")
    second = pull(f"rootfs:{root}")
    check(second != first, "a changed tree gives another image")
    tar = WORK + "/root.tar"
    open(tar, "wb").write(tar_of([member("deep/er/file", b"1")]))
    one = pull(f"tar:{tar}")
    check(one == pull(f"tar:{tar}"), "a tar that does not list its directories")
    time.sleep(0.02)
    open(tar, "wb").write(tar_of([member("deep/er/file", b"2")]))
    check(pull(f"tar:{tar}") != one, "a changed tar is noticed")
    done = husk("import", "-", "mine:2", input=open(tar, "rb").read())
    check(done.returncode == 0 and inspect("mine:2")["names"].count("docker.io/library/mine:2") == 1, "import from standard input", done.stderr)
    layout = Layout()
    layout.image([tar_of(base_members())])
    one = pull(f"oci:{layout.path}")
    layout.entries = []
    layout.image([tar_of(base_members())])
    check(pull(f"oci:{layout.path}") != one, "a changed OCI layout is noticed")


def test_confined():
    need("strace")
    layout = Layout()
    layout.image([tar_of(base_members())])
    done = subprocess.run(["strace", "-f", "-e", "trace=landlock_restrict_self,clone3,clone,openat", "-o", WORK + "/strace", TOOL,
                           "--home", HOME, "pull", f"oci:{layout.path}"], capture_output=True,
                          env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})  # LeakSanitizer cannot run while traced
    lines = open(WORK + "/strace").read().splitlines()
    locked = [i for i, line in enumerate(lines) if "landlock_restrict_self" in line and line.endswith("= 0")]
    read = [i for i, line in enumerate(lines) if "index.json" in line or "clone" in line]
    if done.returncode or any("landlock_restrict_self" in line for line in lines) != bool(locked) or not locked:
        raise Skip("no strace or no Landlock here")
    check(locked and read and locked[0] < min(read), "confined before the first thread and the first hostile byte", "\n".join(lines[:20]))


def test_remove():
    layout = Layout()
    shared = tar_of(base_members())
    layout.image([shared, tar_of([member("1", b"1")])], tag="one")
    layout.image([shared, tar_of([member("2", b"2")])], tag="two")
    one, two = pull(f"oci:{layout.path}:one"), pull(f"oci:{layout.path}:two")
    check(len(os.listdir(HOME + "/layers")) == 3, "the common layer is there once")
    husk("import", f"oci:{layout.path}:one", "extra:1")
    husk("import", f"oci:{layout.path}:one", "extra:3")
    done = husk("rmi", one[7:19])
    check(done.returncode == 1 and b"names" in done.stderr, "an id with two names is not removed without -f", done.stderr)
    husk("rmi", "extra")
    check(inspect(one) is not None, "a wrong tag removes nothing")
    husk("rmi", "extra:1")
    check(inspect(one) is not None and inspect("extra:1") is None, "a name of several is only untagged")
    husk("rmi", "extra:3")
    check(inspect(one) is None, "the last name takes the image along; where it came from does not keep it")
    pull(f"oci:{layout.path}:one")
    os.makedirs(HOME + "/vms/abc")
    json.dump({"image_id": one}, open(HOME + "/vms/abc/vm.json", "w"))
    done = husk("rmi", f"oci:{layout.path}:one")
    check(done.returncode == 1 and b"in use" in done.stderr, "an image that a VM uses stays", done.stderr)
    os.truncate(HOME + "/vms/abc/vm.json", 3)
    check(husk("rmi", f"oci:{layout.path}:one").returncode == 1, "a VM record that cannot be read counts as use")
    check(husk("rmi", "-f", f"oci:{layout.path}:one").returncode == 0 and inspect(one) is None, "-f removes it")
    check(len(os.listdir(HOME + "/layers")) == 2 and inspect(two) is not None, "the common layer stays with the other image")
    record = f"{HOME}/images/{two[7:]}.json"
    text = open(record).read()
    open(record, "w").write("{")
    open(HOME + "/layers/" + "0" * 64 + ".img", "w").write("")
    done = husk("gc")
    check(done.returncode == 1 and len(os.listdir(HOME + "/layers")) == 3, "gc that cannot read a record removes nothing", done.stderr)
    open(record, "w").write(text)
    old = HOME + "/partial/" + "1" * 64 + ".blob"
    young = HOME + "/partial/" + "2" * 64 + ".blob"
    for path in (old, young):
        open(path, "w").write("x")
    os.utime(old, (1, 1))
    done = husk("gc")
    check(done.returncode == 0 and len(os.listdir(HOME + "/layers")) == 2, "gc removes a layer without image", done.stderr)
    check(not os.path.exists(old) and os.path.exists(young), "gc removes an old download, not a young one")
    check(husk("rmi", two).returncode == 1, "the VM record that cannot be read still counts")
    shutil.rmtree(HOME + "/vms")
    husk("rmi", two)
    check(not os.listdir(HOME + "/layers") and not os.listdir(HOME + "/blobs/sha256"), "the last image takes all with it",
          os.listdir(HOME + "/layers") + os.listdir(HOME + "/blobs/sha256"))
    check(husk("rmi", "nothing").returncode == 1, "rmi of an unknown image")
    os.unlink(f"{layout.path}/index.json")


def test_find():
    layout = Layout()
    layout.image([tar_of(base_members())])
    image = pull(f"oci:{layout.path}")
    husk("import", f"oci:{layout.path}", "debian:12")
    for text in ["debian:12", "docker.io/library/debian:12", image, image[7:], image[7:10]]:
        check((inspect(text) or {}).get("id") == image, f"found as {text[:30]}")
    check(pull("debian:12", "--offline") == image, "--offline finds what is there")
    done = husk("pull", "--offline", "debian:13")
    check(done.returncode == 1 and b"offline" in done.stderr, "--offline says why not", done.stderr)
    check(husk("pull", "--offline", "--policy", "always", "debian:12").returncode == 1, "--offline and always are refused")
    listed = json.loads(husk("images", "--format", "json").stdout)
    check(len(listed) == 1 and sorted(listed[0]["names"]) == sorted([f"oci:{layout.path}", "docker.io/library/debian:12"]), "images lists names")
    r, w = os.pipe()
    done = subprocess.run([TOOL, "--home", HOME, "inspect", "nope"], pass_fds=[w], env=dict(os.environ, HUSK_ERROR_FD=str(w)),
                          capture_output=True)
    os.close(w)
    line = os.read(r, 1000).decode()
    check(line.startswith("-2 ") and line.endswith("\n") and not done.stderr, "errors go to HUSK_ERROR_FD with their code", line)
    shutil.rmtree(HOME + "/layers")
    check(pull(f"oci:{layout.path}") == image and os.listdir(HOME + "/layers"), "a lost layer is pulled again")


def big_layout(mb=24, n=4):
    layout = Layout()
    tars = [tar_of(base_members())]
    for i in range(n):
        block = random.Random(i).randbytes(1 << 20)
        tars.append(tar_of([directory("big"), member(f"big/{i}", block * (mb // n))]))
    layout.image(tars)
    return layout


def test_concurrent():
    layout = big_layout()
    runs = [subprocess.Popen([TOOL, "--home", HOME, "pull", f"oci:{layout.path}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for _ in range(3)]
    ends = [(p.communicate(), p.returncode) for p in runs]
    check(all(rc == 0 for _, rc in ends) and len({out for (out, _), _ in ends}) == 1, "three pulls at once all succeed", ends)
    worked = sum(b": done" in err for (_, err), _ in ends)
    check(worked == 1, "and one of them did the work", ends)
    check(any(b"waiting for husk" in err for (_, err), _ in ends), "the others said that they wait", ends)


def whole(layout):
    done = husk("pull", f"oci:{layout.path}")
    if done.returncode:
        return done.stderr
    for layer in inspect(f"oci:{layout.path}")["layers"]:
        if subprocess.run(["unsquashfs", "-q", "-n", "-l", layer["path"]], capture_output=True).returncode:
            return layer
    return None


def test_killed():
    need("unsquashfs")
    layout = big_layout()
    begun = time.monotonic()
    pull(f"oci:{layout.path}")
    span = time.monotonic() - begun
    bad = []
    for i in range(20):
        sh("rm", "-rf", HOME)
        for _ in range(2):
            p = subprocess.Popen([TOOL, "--home", HOME, "pull", f"oci:{layout.path}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(random.random() * span)
            p.kill()
            p.wait()
        fault = whole(layout)
        if fault:
            bad.append(fault)
    check(not bad, "killed at 20 random points, the next pull works", bad)


def test_interrupted():
    layout = big_layout()
    for number in (signal.SIGINT, signal.SIGTERM):
        sh("rm", "-rf", HOME)
        p = subprocess.Popen([TOOL, "--home", HOME, "pull", f"oci:{layout.path}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while p.poll() is None and not glob.glob(HOME + "/partial/*.img"):
            time.sleep(0.005)
        p.send_signal(number)
        out, err = p.communicate()
        if p.returncode == 0:
            check(True, "it was too fast to interrupt # SKIP")
            continue
        check(p.returncode == 130 and not out, f"signal {number}: exit status 130", (p.returncode, err))
        check(not leftovers(HOME), f"signal {number}: no temporary files", leftovers(HOME))
        check(whole(layout) is None, f"signal {number}: the next pull works")


def test_full_disk():
    need_root()
    small = WORK + "/small"
    os.makedirs(small)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", small], capture_output=True).returncode:
        raise Skip("no mount")
    try:
        layout = Layout()
        layout.image([tar_of([member("big", random.Random(1).randbytes(6 << 20))])])
        refused(f"oci:{layout.path}", "No space left", "a full disk", home=small + "/home")
        open(WORK + "/big.tar", "wb").write(tar_of([member("big", random.Random(1).randbytes(6 << 20))]))
        refused(f"tar:{WORK}/big.tar", "No space left", "a full disk for a tar", home=small + "/home")
        used = os.statvfs(small)
        check(used.f_blocks - used.f_bfree < 64, "a full disk: the space is given back")
        tiny = Layout()
        tiny.image([tar_of([member("x", b"x")])])
        check(pull(f"oci:{tiny.path}", home=small + "/home").startswith("sha256:"), "a small image fits then")
    finally:
        sh("umount", small)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_registry():
    need("docker-registry", "skopeo", "umoci", "unsquashfs")
    port = free_port()
    config = WORK + "/registry.yml"
    open(config, "w").write(f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {WORK}/registry\n"
                            f"http:\n  addr: 127.0.0.1:{port}\n")
    log = open(WORK + "/registry.log", "wb")
    server = subprocess.Popen(["docker-registry", "serve", config], stdout=log, stderr=log)
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        layout = many_layers(8)
        name = f"localhost:{port}/some/image"
        sh("skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout.path}:latest", f"docker://{name}:v1")
        image = pull(f"{name}:v1")
        check(image == pull(f"{name}:v1", "--policy", "always"), "pulled from a registry, and again")
        check(inspect(f"{name}:v1")["names"] == [f"{name}:v1"], "under its name")
        if ROOT:
            compare(f"{name}:v1", layout.path, "latest", "from the registry: the tree is right")
        check(os.listdir(HOME + "/partial") == ["locks"], "no blob stays under partial")
        check(inspect(image)["digest"] == json.loads(sh("skopeo", "inspect", "--tls-verify=false", f"docker://{name}:v1"))["Digest"],
              "the digest is the registry's")
        husk("rmi", f"{name}:v1")
        check(pull(f"{name}@{json.loads(sh('skopeo', 'inspect', '--tls-verify=false', f'docker://{name}:v1'))['Digest']}") == image, "by digest")
        refused(f"{name}:v2", "", "an unknown tag", home=HOME + "-none")
        big = big_layout(40, 3)
        sh("skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{big.path}:latest", f"docker://{name}:big")
        sizes = []
        for _ in range(3):
            p = subprocess.Popen([TOOL, "--home", HOME, "pull", f"{name}:big"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(0.05)
            p.kill()
            p.wait()
            sizes.append(sum(os.path.getsize(f"{HOME}/partial/{f}") for f in os.listdir(HOME + "/partial") if f.endswith(".blob")))
        check(pull(f"{name}:big").startswith("sha256:"), f"killed three times (at {sizes} bytes), then resumed")
        layout45 = many_layers(45)
        sh("skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout45.path}:latest", f"docker://{name}:45")
        pull(f"{name}:45")
        check(len(inspect(f"{name}:45")["layers"]) == 1, "45 layers from the registry, merged")
        check(os.listdir(HOME + "/partial") == ["locks"], "no blob stays after a merge")
    finally:
        server.terminate()
        server.wait()
    check(husk("pull", f"{name}:v3").returncode == 1, "a registry that is gone")


def test_buildah():
    need("buildah", "umoci", "unsquashfs")
    need_root()
    env = dict(os.environ, STORAGE_DRIVER="vfs", BUILDAH_ISOLATION="chroot")
    store = ["--root", WORK + "/buildah", "--runroot", WORK + "/buildah-run"]

    def b(*args):
        return sh("buildah", *store, *args, env=env).decode().strip()
    src = WORK + "/buildah-src"
    os.makedirs(src)
    open(src + "/file", "w").write("file")
    os.chmod(src + "/file", 0o2755)
    try:
        first = b("from", "scratch")
        b("copy", "--chown", "7:8", first, src, "/data/dir")
        b("config", "--user", "7:8", "--entrypoint", '["/data/dir/file"]', "--volume", "/vol", "--stop-signal", "SIGUSR1", "--workingdir", "/data", first)
        b("commit", "-q", first, "one")
        second = b("from", "one")
        open(src + "/file", "w").write("second")
        b("copy", second, src, "/data/dir")
        b("commit", "-q", second, f"oci:{WORK}/buildah-oci:x")
    except RuntimeError as fault:
        raise Skip(f"buildah does not work here: {str(fault)[-200:]}")
    pull(f"oci:{WORK}/buildah-oci:x")
    compare(f"oci:{WORK}/buildah-oci:x", WORK + "/buildah-oci", "x", "an image by buildah: the tree is right")
    config = inspect(f"oci:{WORK}/buildah-oci:x")["config"]
    check(config["User"] == "7:8" and config["Entrypoint"] == ["/data/dir/file"] and "/vol" in config["Volumes"], "and its config", config)


def main():
    global HOME
    tests = [(n[5:], f) for n, f in globals().items() if n.startswith("test_") and (len(sys.argv) < 2 or n[5:] in sys.argv[1:])]
    for name, test in tests:
        HOME = f"{WORK}/home-{name}"
        begun = time.monotonic()
        print(f"# {name}", flush=True)
        try:
            test()
        except Skip as why:
            global count
            count += 1
            print(f"ok {count} - {name} # SKIP {why}", flush=True)
        except Exception as fault:  # pylint: disable=broad-except
            check(False, f"{name} runs to its end", repr(fault))
        print(f"# {name}: {time.monotonic() - begun:.1f} s", flush=True)
    print(f"1..{count}")
    sh("rm", "-rf", WORK)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
