#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""PUT and GET do what docs/agent-protocol.md says: agent-tree-test.py AGENT_NATIVE (as root; busybox makes the root)."""
import contextlib
import ctypes
import os
import shutil
import socket
import stat
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from agent_rig import *  # noqa: E402

MIB = 1 << 20
EXIST, NOTDIR, ISDIR, INVAL, NOSPC, ACCES, PERM, LOOP, NAMETOOLONG = (
    64 + n for n in (17, 20, 21, 22, 28, 13, 1, 40, 36))
NOT_FOUND = 5


def refused(function, *arguments, **more):
    """(code, text) of the ERROR, or None."""
    try:
        function(*arguments, **more)
    except Refused as e:
        return e.code, e.text
    return None


def code(*arguments, **more):
    got = refused(*arguments, **more)
    return got and got[0]


def write(path, content=b"", mode=0o644):
    with open(path, "wb") as f:
        f.write(content)
    os.chmod(path, mode)


def read(path):
    with open(path, "rb") as f:
        return f.read()


def names(tree):
    return [e.name for e in tree]


def what(path):
    """Type and mode, owner, group."""
    st = os.lstat(path)
    return st.st_mode, st.st_uid, st.st_gid


@contextlib.contextmanager
def meanwhile(function):
    """A process that does it until the block ends."""
    if (pid := os.fork()) == 0:
        try:
            function()
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


# ---- GET ----

def make_tree(top):
    """One of everything."""
    os.makedirs(f"{top}/b/deep")
    write(f"{top}/a", b"alpha", 0o4755)
    write(f"{top}/b/empty", mode=0)
    write(f"{top}/b.c", b"x")
    os.link(f"{top}/a", f"{top}/b/hard")
    os.symlink("../../etc//passwd", f"{top}/b/sym")
    os.link(f"{top}/b/sym", f"{top}/b/sym2", follow_symlinks=False)
    os.mkfifo(f"{top}/fifo", 0o640)
    os.mknod(f"{top}/null", stat.S_IFCHR | 0o644, os.makedev(1, 3))
    os.mknod(f"{top}/disk", stat.S_IFBLK | 0o600, os.makedev(259, 0x12345))
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(f"{top}/sock")
    os.chown(f"{top}/b", 1000, 4)
    os.chmod(f"{top}/b", 0o2750)
    os.utime(f"{top}/a", ns=(0, 1234567890123456789))
    os.utime(f"{top}/b.c", ns=(0, -1500000000))
    os.utime(f"{top}/b", ns=(0, 1000000001))


def test_get(a, root):
    make_tree(f"{root}/data/t")
    tree = get(a.path, "/data/t")
    same(names(tree), ["", "a", "b", "b/deep", "b/empty", "b/hard", "b/sym", "b/sym2", "b.c", "disk", "fifo", "null", "sock"],
         "all there is, a directory before what is in it, by the order of bytes")
    e = {x.name: x for x in tree}
    same((e["a"].kind, e["a"].mode, e["a"].mtime, e["a"].content()), (FILE, 0o4755, 1234567890123456789, b"alpha"),
         "a file with its mode, time and bytes")
    same((e["b"].kind, e["b"].mode, e["b"].uid, e["b"].gid, e["b"].mtime), (DIRECTORY, 0o2750, 1000, 4, 1000000001),
         "a directory with its owner")
    same(e["b.c"].mtime, -1500000000, "a time before 1970")
    same((e["b/empty"].kind, e["b/empty"].mode, e["b/empty"].size, e["b/empty"].data), (FILE, 0, 0, []), "an empty file")
    same((e["b/sym"].kind, e["b/sym"].link), (SYMLINK, "../../etc//passwd"), "a link says what it says")
    same([(e[n].kind, e[n].link) for n in ("b/hard", "b/sym2")], [(HARDLINK, "a"), (HARDLINK, "b/sym")], "a second name is a hard link")
    same([(e[n].kind, e[n].mode, e[n].device) for n in ("fifo", "null", "disk", "sock")],
         [(FIFO, 0o640, None), (CHARACTER, 0o644, (1, 3)), (BLOCK, 0o600, (259, 0x12345)), (SOCKET, 0o755, None)], "and the rest")


def test_get_files(a, root):
    big = os.urandom(3 * MIB + 17)
    write(f"{root}/data/big", big)
    tree = get(a.path, "/data/big")
    check(len(tree) == 1 and tree[0].name == "" and tree[0].content() == big, "a file alone is the root, three megabytes whole")
    with open(f"{root}/data/holes", "wb") as f:
        f.truncate(1 << 32)
        f.seek(1 << 31)
        f.write(b"middle")
    holes = get(a.path, "/data/holes")[0]
    sent = sum(len(d) for _, d in holes.data)
    check(holes.size == 1 << 32 and 6 <= sent <= MIB and any(at <= 1 << 31 < at + len(d) and b"middle" in d for at, d in holes.data),
          "of four gigabytes of hole only what is not one comes", sent)
    os.symlink("big", f"{root}/data/link")
    same((get(a.path, "/data/link")[0].kind, get(a.path, "/data/link", flags=FOLLOW)[0].size), (SYMLINK, len(big)),
         "a root that is a link is followed when that is asked for")
    os.symlink("/data", f"{root}/data/up")
    check(get(a.path, "/data/up/big")[0].size == len(big), "links on the way to the root are")
    same(code(get, a.path, "/none"), NOT_FOUND, "nothing there")
    same(refused(get, a.path, "/data/big/x"), (NOTDIR, "/data/big/x: Not a directory"), "below a file there is nothing")
    os.symlink("loop", f"{root}/data/loop")
    same(code(get, a.path, "/data/loop", flags=FOLLOW), LOOP, "a loop")
    check(b"cpu" in get(a.path, "/proc/cpuinfo")[0].content(), "a file of the kernel's has its content, whatever its size says")
    proc = get(a.path, "/", user="0")
    check(["proc"] == [n for n in names(proc) if n.split("/")[0] == "proc"], "the kernel's file systems are not entered on the way")
    os.chmod(f"{root}/data/big", 0o600)
    same(refused(get, a.path, "/data/big", user="sam"), (ACCES, "/data/big: Permission denied"), "a user reads what is its own to read")
    same(code(get, a.path, "/data/big", user="bob"), 6, "an unknown user")
    deep = os.open(f"{root}/data", os.O_DIRECTORY)
    os.mkdir("deep", dir_fd=deep)
    for _ in range(25):
        below = os.open("deep" if _ == 0 else "d" * 200, os.O_DIRECTORY, dir_fd=deep)
        os.close(deep)
        deep = below
        os.mkdir("d" * 200, dir_fd=deep)
    os.close(deep)
    same(code(get, a.path, "/data/deep"), NAMETOOLONG, "a name that is too long is said")
    shutil.rmtree(f"{root}/data/deep")


def test_get_changing(a, root):
    """A tree that changes while it is read: what comes is well-formed, and every entry was there at some time."""
    top = f"{root}/data/live"
    os.mkdir(top)

    def change():
        n = 0
        while True:
            n += 1
            for name in ("x", "y", "z"):
                path = f"{top}/{name}"
                if os.path.lexists(path):
                    shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
                if n % 4 == 0:
                    os.mkdir(path)
                    write(f"{path}/in", b"i" * 1000)
                elif n % 4 == 1:
                    write(path, b"f" * (n % 3 * 300000))
                elif n % 4 == 2:
                    os.symlink("/etc/passwd", path)
                else:
                    os.mkfifo(path)
            with open(f"{top}/size", "ab") as f:
                f.truncate(n % 7 * 200000)

    bad, seen = [], set()
    with meanwhile(change):
        for _ in range(60):
            for e in get(a.path, "/data/live"):
                seen.add(e.kind)
                if e.name not in ("", "x", "y", "z", "size", "x/in", "y/in", "z/in") or (e.kind == FILE and b"root:" in e.content()):
                    bad.append(e.name)
    same(bad, [], "a tree that changes is read 60 times, no link is followed")
    check({FILE, DIRECTORY} <= seen, "and much of it was seen", seen)
    shutil.rmtree(top)


# ---- PUT ----

def test_put(a, root):
    source = get(a.path, "/data/t")
    put(a.path, "/data", source, name="copy", flags=OWNER)
    again = get(a.path, "/data/copy")

    def facts(tree, timeless=(HARDLINK,)):
        return [(e.name, e.kind, e.mode, e.uid, e.gid, e.mtime if e.kind not in timeless else 0, e.size, e.link, e.device, e.data) for e in tree]
    same(facts(again), facts(source), "a tree that was read is written: every name, mode, owner, time, link and device")
    same(os.lstat(f"{root}/data/copy/a").st_ino, os.lstat(f"{root}/data/copy/b/hard").st_ino, "hard links are")
    put(a.path, "/data", source, name="copy", flags=OWNER)
    merged = HARDLINK, DIRECTORY
    same(facts(get(a.path, "/data/copy"), merged), facts(source, merged), "and once more over itself")
    put(a.path, "/data/plain", source)
    same(what(f"{root}/data/plain/b"), (stat.S_IFDIR | 0o2750, 0, 0), "without OWNER all is the user's, here root's")
    same(what(f"{root}/data/plain/a")[0] & 0o7777, 0o4755, "with the set-id bits")


def one(content=b"x", **more):
    return [file_entry("", content, **more)]


def folder(*entries):
    return [Entry("", DIRECTORY, 0o755), *entries]


def test_put_places(a, root):
    d = f"{root}/data/p"
    os.makedirs(f"{d}/dir/old")
    write(f"{d}/file", b"old", 0o600)
    put(a.path, "/data/p/dir", one(b"1"), name="n")
    same(read(f"{d}/dir/n"), b"1", "a directory takes the root under its name")
    put(a.path, "/data/p/new", one(b"2"), name="n")
    same(read(f"{d}/new"), b"2", "where nothing is the tree becomes that")
    put(a.path, "/data/p/file", one(b"3", mode=0o640), name="n")
    same((read(f"{d}/file"), what(f"{d}/file")[0] & 0o777), (b"3", 0o640), "a file is replaced by one")
    os.symlink("dir", f"{d}/to-dir")
    os.symlink("/data/p/dir/linked", f"{d}/to-file")
    os.symlink("to-file", f"{d}/to-link")
    put(a.path, "/data/p/to-dir", one(b"4"), name="m")
    put(a.path, "/data/p/to-link", one(b"5"), name="m")
    same((read(f"{d}/dir/m"), read(f"{d}/dir/linked"), os.path.islink(f"{d}/to-link")), (b"4", b"5", True),
         "links in the path are followed, also one that leads to nothing yet")
    put(a.path, "/data/p/made/", folder(file_entry("x", b"6")), name="n")
    same(read(f"{d}/made/x"), b"6", "a directory may be made where the path says that it is one")
    before = what(f"{d}/dir")
    put(a.path, "/data/p/dir", [Entry("", DIRECTORY, 0o700), Entry("old", DIRECTORY, 0o711), file_entry("old/y", b"7")])
    same((read(f"{d}/dir/old/y"), what(f"{d}/dir"), what(f"{d}/dir/old")[0] & 0o777), (b"7", before, 0o755),
         "directories are merged and stay as they are")
    put(a.path, "/", one(b"8"), name="top")
    same(read(f"{root}/top"), b"8", "the root of all is a directory like others")
    for target, tree, more, want in (
            ("/data/none/x", one(), {"name": "n"}, (NOT_FOUND, "/data/none/x: No such file or directory")),
            ("/data/p/none/", one(), {"name": "n"}, (NOT_FOUND, "/data/p/none/: No such file or directory")),
            ("/data/p/file/", one(), {"name": "n"}, (NOTDIR, "/data/p/file/: Not a directory")),
            ("/data/p/file", folder(), {"name": "n"}, (NOTDIR, "/data/p/file: is not a directory, and is not replaced by one")),
            ("/data/p/file", folder(), {}, (NOTDIR, "/data/p/file: Not a directory")),
            ("/data/p", one(), {"name": "dir"}, (ISDIR, "/data/p/dir: is a directory, and is not replaced")),
            ("/data/p", folder(), {"name": "file"}, (NOTDIR, "/data/p/file: is not a directory, and is not replaced by one")),
            ("/data/p", folder(), {"name": "to-dir"}, (NOTDIR, "/data/p/to-dir: is not a directory, and is not replaced by one")),
            ("/data/p", folder(file_entry("dir")), {}, (ISDIR, "/data/p/dir: is a directory, and is not replaced")),
            ("/data/p", folder(Entry("file", DIRECTORY)), {}, (NOTDIR, "/data/p/file: is not a directory, and is not replaced by one")),
            ("/data/p", folder(Entry("h", HARDLINK, link="none")), {}, (NOT_FOUND, "/data/p/h: No such file or directory")),
            ("/data/p", folder(file_entry("q/x")), {}, (NOT_FOUND, "/data/p/q: No such file or directory"))):
        same(refused(put, a.path, target, tree, **more), want, f"refused: {want[1]}")
    same((os.listdir(f"{d}/dir/old"), read(f"{d}/file")), (["y"], b"3"), "and what was there is as it was")


def test_put_users(a, root):
    os.mkdir(f"{root}/data/sam")
    os.chown(f"{root}/data/sam", 1000, 1000)
    put(a.path, "/data/sam", folder(Entry("d", DIRECTORY, 0o500, uid=5), file_entry("d/f", b"x", 0o4711, uid=5), Entry("l", SYMLINK, link="d")),
        user="sam")
    same([what(f"{root}/data/sam/{n}") for n in ("d", "d/f", "l")],
         [(stat.S_IFDIR | 0o500, 1000, 1000), (stat.S_IFREG | 0o4711, 1000, 1000), (stat.S_IFLNK | 0o777, 1000, 1000)],
         "what a user writes is the user's, into a directory that then forbids it")
    same(code(put, a.path, "/data/sam", folder(file_entry("o", uid=5)), user="sam", flags=OWNER), PERM, "a user gives nothing away")
    same(code(put, a.path, "/data", folder(file_entry("no")), user="sam"), ACCES, "and writes where it may")
    same(code(put, a.path, "/data/sam", folder(Entry("null", CHARACTER, device=(1, 3))), user="sam"), PERM, "and makes no devices")
    same(code(put, a.path, "/data", folder(), user="bob"), 6, "an unknown user")


def test_put_sparse(a, root):
    e = Entry("", FILE, 0o600, size=1 << 33, data=[(4096, b"a" * 4096), (1 << 32, b"b")])
    put(a.path, "/data/sparse", [e], name="n")
    st = os.stat(f"{root}/data/sparse")
    with open(f"{root}/data/sparse", "rb") as f:
        f.seek(1 << 32)
        same((st.st_size, st.st_blocks < 64, f.read(2)), (1 << 33, True, b"b\0"), "what is left out is a hole, also at the end")


def test_put_escapes(a, root):
    """A link in the tree, and one that the workload puts there, lead nowhere."""
    os.makedirs(f"{root}/data/jail")
    os.makedirs(f"{root}/data/out")
    tree = folder(Entry("l", SYMLINK, link="/data/out"), file_entry("l/x", b"escaped"))
    check(refused(put, a.path, "/data/jail", tree) is not None, "what comes below a link that came before is refused")
    tree = folder(Entry("l", SYMLINK, link="../out/f"), file_entry("l", b"replaced"))
    put(a.path, "/data/jail", tree)
    same((read(f"{root}/data/jail/l"), os.listdir(f"{root}/data/out")), (b"replaced", []), "a link is replaced, not followed")

    def swap():
        """d is a directory and a link to another one, in turns."""
        one, other = (f"{root}/data/jail/{name}".encode() for name in ("d", "d1"))
        while True:
            ctypes.CDLL(None).renameat2(-100, one, -100, other, 2)  # AT_FDCWD, RENAME_EXCHANGE

    os.mkdir(f"{root}/data/jail/d")
    os.symlink("/data/out", f"{root}/data/jail/d1")
    through = 0
    with meanwhile(swap):
        for _ in range(150):
            tree = folder(Entry("d", DIRECTORY, 0o755), *(file_entry(f"d/{n}", b"x") for n in range(5)),
                          Entry("d/sub", DIRECTORY, 0o755), Entry("e", HARDLINK, link="d/0"))
            through += refused(put, a.path, "/data/jail", tree) is None
    same(os.listdir(f"{root}/data/out"), [], "150 trees against a workload that swaps a directory for a link")
    check(through > 0, "and some of them go through", through)


def test_put_malformed(a, root):
    c = Connection(a.path)

    def raw(*frames, payload=None):
        c = Connection(a.path)
        c.send(frame(PUT, payload if payload is not None else tree_payload("/data/raw")) + b"".join(frames))
        try:
            return c.answer()
        except Refused as e:
            return e.code
        finally:
            c.close()

    head = Entry("", DIRECTORY, 0o755).frames()
    f = Entry("f", FILE, size=10).frames()

    def data(at, what=b"x"):
        return frame(DATA, struct.pack("<Q", at) + what)

    for said, frames in (
            ("END without a root", [frame(END)]), ("no root first", [f]), ("a second root", [head, head]),
            ("a file as root without a name", [Entry("", FILE, size=0).frames()]),
            ("DATA of no file", [head, data(0)]), ("DATA behind a directory", [head, f, Entry("d", DIRECTORY).frames(), data(0)]),
            ("DATA beyond the size", [head, f, data(10)]), ("DATA that goes back", [head, f, data(5), data(4)]),
            ("DATA at the end of numbers", [head, f, data((1 << 64) - 1)]), ("END with a payload", [head, frame(END, b"x")]),
            ("a name that leads out", [head, Entry("../x", FILE, size=0).frames()]),
            ("an absolute name", [head, Entry("/etc/x", FILE, size=0).frames()]),
            ("a hard link that leads out", [head, Entry("h", HARDLINK, link="../x").frames()]),
            ("a hard link to itself", [head, Entry("h", HARDLINK, link="h").frames()]),
            ("an unknown type", [head, Entry("x", 9).frames()]), ("a frame of another kind", [head, frame(STDIN, b"x")]),
            ("a stream", [frame(ENTRY, head[8:], stream=1)]), ("a reserved byte", [b"\0\0\0\0\x42\0\1\0"]),
            ("an owner without a number", [head, Entry("x", FILE, size=0, uid=0xffffffff).frames()])):
        same(raw(*frames), 1, f"{said}: malformed")
    check(not os.path.lexists(f"{root}/data/raw/f") and not os.path.lexists(f"{root}/data/x"), "a file that was begun is gone")
    for said, payload in (
            ("no path", entry(2, "0")), ("a relative path", entry(1, "x")), ("an empty path", entry(1, "")),
            ("a path too long", entry(1, "/" * 4096)), ("two paths", entry(1, "/") * 2), ("unknown flags", tree_payload("/", flags=2)),
            ("flags twice", tree_payload("/") + entry(3, 0) * 2), ("a name with a slash", tree_payload("/", name="a/b")),
            ("the name ..", tree_payload("/", name="..")), ("an empty name", tree_payload("/", name="")), ("an unknown entry", entry(1, "/") + entry(5, 1)),
            ("a NUL", entry(1, b"/a\0b"))):
        same(raw(payload=payload), 1, f"PUT with {said}: malformed")
    same(code(get, a.path, "/", name="x"), 1, "GET with a name: malformed")
    same(code(get, a.path, "/", flags=OWNER), 1, "GET with PUT's flag: malformed")
    c.close()


def test_put_ends(a, root):
    """Clients that go, and a workload that keeps a disk full."""
    c = Connection(a.path)
    c.send(frame(PUT, tree_payload("/data/half")) + Entry("", DIRECTORY, 0o755).frames() + file_entry("whole", b"w").frames() +
           Entry("f", FILE, size=1 << 20).frames() + frame(DATA, bytes(8) + b"x" * 1000))
    check(settle(lambda: os.path.exists(f"{root}/data/half/f")), "a file is begun")
    c.close()
    check(settle(lambda: not os.path.exists(f"{root}/data/half/f")), "and removed when the client goes")
    check(os.path.exists(f"{root}/data/half/whole"), "what was whole stays")
    tree = [Entry("", FILE, 0o644, size=4 * MIB, data=[(i * 65536, b"x" * 65536) for i in range(64)])]
    same(refused(put, a.path, "/dev/shm/f", tree, name="n"), (NOSPC, "/dev/shm/f: No space left on device"),
         "a full disk is said, though the client still sends")
    same(a.exec(["ls", "/dev/shm"]).run()[1], b"", "and nothing is left of it")
    big = os.urandom(8 * MIB)
    write(f"{root}/data/eight", big)
    before = files(a.process)
    idle = []
    for _ in range(20):
        c = Connection(a.path)
        c.send(frame(GET, tree_payload("/data/eight")))
        idle.append(c)
    same(a.exec(["echo", "on"]).run()[1], b"on\n", "20 clients that do not read hold nobody up")
    for c in idle:
        c.close()
    check(settle(lambda: files(a.process) <= before), "and leave nothing")


def test_busy(tool):
    a = Agent(tool)
    same((code(get, a.path, "/"), code(put, a.path, "/x", folder())), (3, 3), "without a workload PUT and GET are refused")
    workload = a.exec(["cat"], MAIN | WITH_STDIN)
    c = Connection(a.path)
    c.send(frame(PUT, tree_payload("/data/z")) + Entry("", DIRECTORY, 0o755).frames())
    check(settle(lambda: os.path.exists(f"{a.directory}/root/data/z")), "a PUT is under way")
    workload.signal(9)
    workload.run()
    same(c.receive(), None, "when the workload dies it ends without an answer")
    power_off(a)


def main():
    ready()
    tool = sys.argv[1]
    a = Agent(tool)
    root = f"{a.directory}/root"
    workload = a.exec(["cat"], MAIN | WITH_STDIN)
    for test in (test_get, test_get_files, test_get_changing, test_put, test_put_places, test_put_users, test_put_sparse, test_put_escapes,
                 test_put_malformed, test_put_ends):
        test(a, root)
    workload.feed(b"")
    same(workload.run()[0], (1, 0), "the workload has seen nothing of it")
    power_off(a)
    test_busy(tool)
    return done()


sys.exit(main())
