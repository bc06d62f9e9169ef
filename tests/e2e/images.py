# SPDX-License-Identifier: Apache-2.0
"""images.py - the images of the end-to-end suites: made once per machine, outside the checkout, keyed by their recipe.

Each function returns a source that `husk import` takes. Layouts are written here byte by byte (so that bad ones can be
written too) and, as an independent second opinion, by umoci and buildah.
"""
import fcntl
import functools
import gzip
import hashlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import tarfile

import lib

HERE = pathlib.Path(__file__).resolve().parent
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
SERVICES = lib.TOP / "scripts" / "services-root.sh"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def recipe():
    """What the images are made from; another recipe makes another directory."""
    parts = [(HERE / "images.py").read_bytes(), SERVICES.read_bytes(),
             *(file.read_bytes() for file in sorted((HERE / "guest").iterdir()))]
    parts.append(pathlib.Path(busybox_binary()).read_bytes())
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def busybox_binary():
    found = shutil.which("busybox") or "/bin/busybox"
    return found


@functools.cache
def folder():
    path = lib.CACHE / f"images-{recipe()}"
    path.mkdir(parents=True, exist_ok=True)
    return path


def once(make):
    """Decorator: make NAME below folder() once, also when two suites ask at the same time; it appears whole."""
    @functools.cache
    @functools.wraps(make)
    def wrapper():
        path = folder() / make.__name__
        with open(folder() / f"{make.__name__}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                part = folder() / f"{make.__name__}.part"
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir()
                make(part)
                part.rename(path)
        return f"oci:{path}:latest"
    return wrapper


# ---- tars and layouts ----

class Layer:
    """A tar in the making."""

    def __init__(self):
        self.bytes = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.bytes, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, name, data=b"", mode=0o644, kind=tarfile.REGTYPE, link="", uid=0, gid=0, xattrs=None, major=0, minor=0):
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.linkname, info.uid, info.gid = kind, mode, link, uid, gid
        info.devmajor, info.devminor = major, minor
        info.mtime = 1700000000
        data = data.encode() if isinstance(data, str) else data
        info.size = len(data) if kind == tarfile.REGTYPE else 0
        for key, value in (xattrs or {}).items():
            info.pax_headers[f"SCHILY.xattr.{key}"] = value
        self.tar.addfile(info, io.BytesIO(data) if info.size else None)
        return self

    def directory(self, name, mode=0o755, **more):
        return self.add(name, mode=mode, kind=tarfile.DIRTYPE, **more)

    def symlink(self, name, target):
        return self.add(name, kind=tarfile.SYMTYPE, link=target, mode=0o777)

    def hardlink(self, name, target):
        return self.add(name, kind=tarfile.LNKTYPE, link=target)

    def done(self):
        self.tar.close()
        return self.bytes.getvalue()


def write_blob(path, data):
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    (blobs / sha256(data)[7:]).write_bytes(data)
    return {"digest": sha256(data), "size": len(data)}


def write_layout(path, layers, config=None, tag="latest", compress="gzip", architecture="amd64", spoil=None):
    """Write an OCI layout at @path. @layers: uncompressed tars, bottom first. @spoil(kind, data) may change what is stored
    under a digest without changing the digest."""
    config = config or {}
    path.mkdir(parents=True, exist_ok=True)
    media = {"gzip": LAYER_GZIP, "zstd": LAYER_ZSTD, "": LAYER_TAR}[compress]
    described = []
    for tar in layers:
        data = tar
        if compress == "gzip":
            data = gzip.compress(tar, 1, mtime=0)
        elif compress == "zstd":
            data = subprocess.run(["zstd", "-q", "-c", "-1"], input=tar, stdout=subprocess.PIPE, check=True).stdout
        described.append({"mediaType": media, **write_blob(path, data)})
        if spoil and (spoiled := spoil("layer", data)) is not None:
            (path / "blobs" / "sha256" / described[-1]["digest"][7:]).write_bytes(spoiled)
    image = {"created": "2024-01-01T00:00:00Z", "architecture": architecture, "os": "linux",
             "config": {"Env": [f"PATH={PATH}"], "Cmd": ["sh"], **config},
             "rootfs": {"type": "layers", "diff_ids": [sha256(tar) for tar in layers]}}
    data = json.dumps(image).encode()
    config_blob = {"mediaType": CONFIG, **write_blob(path, data)}
    if spoil and (spoiled := spoil("config", data)) is not None:
        (path / "blobs" / "sha256" / config_blob["digest"][7:]).write_bytes(spoiled)
    data = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config_blob, "layers": described}).encode()
    manifest = {"mediaType": MANIFEST, **write_blob(path, data), "platform": {"os": "linux", "architecture": architecture},
                "annotations": {"org.opencontainers.image.ref.name": tag}}
    if spoil and (spoiled := spoil("manifest", data)) is not None:
        (path / "blobs" / "sha256" / manifest["digest"][7:]).write_bytes(spoiled)
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest]}))
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def compiled(name):
    """Path of a program of guest/, static: it runs in any guest, and on the host."""
    out = folder() / name
    if not out.exists():
        part = folder() / f"{name}.{os.getpid()}"
        # The kernel's own headers come behind musl's.
        headers = ["-idirafter", "/usr/include", "-idirafter", "/usr/include/x86_64-linux-gnu"]
        subprocess.run(["musl-gcc", "-static", "-O2", *headers, "-o", part, HERE / "guest" / f"{name}.c"], check=True)
        part.rename(out)
    return out


@functools.cache
def busybox_layer():
    layer = Layer()
    for name in ("bin", "etc", "dev", "proc", "sys", "run", "var", "home", "root", "usr", "usr/bin"):
        layer.directory(name, 0o700 if name == "root" else 0o755)
    layer.directory("tmp", 0o1777)
    layer.directory("home/alice", 0o750, uid=1000, gid=1000)
    with open(busybox_binary(), "rb") as binary:
        layer.add("bin/busybox", binary.read(), 0o755)
    applets = subprocess.run([busybox_binary(), "--list"], stdout=subprocess.PIPE, check=True).stdout.decode().split()
    for applet in sorted(set(applets) - {"busybox"}):
        layer.symlink(f"bin/{applet}", "busybox")
    layer.add("bin/vs", compiled("vs").read_bytes(), 0o755)
    layer.add("bin/peer", compiled("peer").read_bytes(), 0o755)
    layer.add("bin/tcp", compiled("tcp").read_bytes(), 0o755)
    layer.add("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000:Alice:/home/alice:/bin/sh\n"
              "bob:x:1001:1001::/:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\n")
    layer.add("etc/group", "root:x:0:\nalice:x:1000:\nbob:x:1001:\naudio:x:29:alice\nvideo:x:44:alice,bob\ngames:x:60:\n")
    layer.add("bin/not-executable", "#!/bin/sh\n", 0o644)
    layer.add("bin/bad-format", b"\x7fELFnonsense", 0o755)
    layer.add("bin/bad-interpreter", "#!/no/such/interpreter\n", 0o755)
    layer.add("bin/su-id", "#!/bin/sh\n", 0o4755)
    return layer.done()


def debian_root(*packages):
    """Path of a tar with Debian's essential packages and @packages."""
    script = lib.TOP / "scripts" / "debian-root.sh"
    made = subprocess.run([script, *packages], check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    return pathlib.Path(made.stdout.decode().strip())


def debian():
    """The root file system that the demo makes, too."""
    return f"tar:{debian_root()}"


# What a container engine would hand to crun: every namespace, limits, a seccomp filter, an overlay as root.
CONTAINER = {
    "ociVersion": "1.0.0", "hostname": "contained", "root": {"path": "rootfs"},
    "process": {"terminal": False, "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"], "noNewPrivileges": True,
                "capabilities": {name: ["CAP_CHOWN", "CAP_NET_BIND_SERVICE"] for name in ("bounding", "effective", "permitted")},
                "args": ["/bin/sh", "-c", """echo pid $$; echo host $(busybox hostname); cd /sys/fs/cgroup
                         echo memory $(busybox cat memory.max); echo pids $(busybox cat pids.max)
                         echo seccomp $(busybox awk '/^Seccomp:/ {print $2}' /proc/self/status)
                         echo links $(busybox ls /sys/class/net); busybox mkdir /tmp/made || echo no mkdir"""]},
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
               {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
               {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
               {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}],
    "linux": {"cgroupsPath": "/contained", "resources": {"memory": {"limit": 32 << 20}, "pids": {"limit": 16}},
              "namespaces": [{"type": name} for name in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
              "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
                          "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}}}


@once
def workloads(path):
    """Debian with what containers, rule sets and file systems are made by, and guest/workloads.sh, which makes them."""
    root = debian_root("nftables", "iptables", "iproute2", "iputils-ping", "kmod", "crun", "busybox-static", "socat", "squashfuse", "fuse3",
                       "squashfs-tools", "erofs-utils", "e2fsprogs")
    layer = Layer().directory("test")
    layer.add("usr/local/bin/bpf", compiled("bpf").read_bytes(), 0o755).add("test/config.json", json.dumps(CONTAINER))
    layer.add("test/workloads", (HERE / "guest" / "workloads.sh").read_bytes(), 0o755)
    write_layout(path, [root.read_bytes(), layer.done()], {"Entrypoint": ["/test/workloads"], "Cmd": None}, compress="")


# Four services of Debian, each on a port of its own, as a user of its own, with nothing written to a disk before it answers.
# nginx is the first to listen, on 8080. With words as arguments only those are started.
SERVICES_SCRIPT = """#!/bin/sh
set -eu
export LC_ALL=C.UTF-8 PGDATA=/var/lib/postgresql/data
start() {
	case $1 in
	nginx) nginx -c /srv/nginx.conf & until [ -s /tmp/nginx.pid ]; do sleep 0.05; done ;;
	python) cd /srv/www && python3 /srv/server.py 2>/tmp/python.err & ;;
	redis) redis-server --port 6379 --bind '* -::*' --protected-mode no --save '' --appendonly no --dir /tmp --logfile /tmp/redis.log & ;;
	postgres) cd / && setpriv --reuid postgres --regid postgres --clear-groups sh -c '
		/usr/lib/postgresql/15/bin/initdb -A trust --no-locale -E UTF8 --no-sync --no-instructions >/dev/null
		exec /usr/lib/postgresql/15/bin/postgres -c fsync=off -c jit=off -c max_connections=50 -c shared_buffers=32MB \
			-c unix_socket_directories= -c autovacuum=off -c max_wal_size=256MB' & ;;
	peer) peer serve tcp:7000 echo:7001 local:7002 six:7003 vsock:7001 & ;;
	esac
	echo "up $1"
}
[ $# -gt 0 ] || set -- nginx python redis postgres peer
for name; do start "$name"; done
trap 'exit 0' TERM
wait
"""

NGINX = """
daemon off; worker_processes 1; pid /tmp/nginx.pid; error_log stderr warn; user www-data;
worker_rlimit_nofile 8192;
events { worker_connections 4096; }
http {
	access_log off; default_type application/octet-stream; client_max_body_size 64m; keepalive_requests 1000000;
	client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;
	server { listen 8080 backlog=4096; root /srv/www; location /up/ { dav_methods PUT DELETE; } }
	server { listen [::1]:8081; location / { return 200 "six\n"; } }
}
"""

# http.server as it comes, and POST, which sends back what it gets, in chunks.
PYTHON_SERVER = """
import functools, http.server
class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def do_POST(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for at in range(0, len(data), 50000):
            chunk = data[at:at + 50000]
            self.wfile.write(b"%x\\r\\n%s\\r\\n" % (len(chunk), chunk))
        self.wfile.write(b"0\\r\\n\\r\\n")
http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
"""

BIG = (bytes(range(256)) * 8192)[:2 << 20]  # of ten of which /big is made: 20 MiB, each tenth beginning differently
BIG_SHA256 = hashlib.sha256(b"".join(bytes([i]) + BIG[1:] for i in range(10))).hexdigest()


@once
def services(path):
    """nginx (8080; on ::1 only 8081), python http.server (127.0.0.1:8000), redis (6379) and PostgreSQL (5432)."""
    made = subprocess.run([SERVICES], check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    layer = Layer()
    layer.add("usr/local/bin/peer", compiled("peer").read_bytes(), 0o755)
    layer.directory("srv").directory("srv/www").directory("srv/www/up", 0o777)
    layer.add("srv/start", SERVICES_SCRIPT, 0o755).add("srv/nginx.conf", NGINX).add("srv/server.py", PYTHON_SERVER)
    layer.add("srv/www/index.html", "<h1>husk</h1>\n")
    layer.add("srv/www/big", b"".join(bytes([i]) + BIG[1:] for i in range(10)))
    layer.directory("var/lib/postgresql", 0o750, uid=104, gid=104)
    write_layout(path, [pathlib.Path(made.stdout.decode().strip()).read_bytes(), layer.done()], {"Cmd": ["/srv/start"]},
                 compress="")


def service_program(name):
    """Path, on the host, of one of PostgreSQL's programs (pgbench is in the server's package, which nobody's machine needs)."""
    out = folder() / name
    if not out.exists():
        made = subprocess.run([SERVICES], check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        part = folder() / f"{name}.{os.getpid()}"
        with tarfile.open(made.stdout.decode().strip()) as tar:
            part.write_bytes(tar.extractfile(f"./usr/lib/postgresql/15/bin/{name}").read())
        part.chmod(0o755)
        part.rename(out)
    return out


@once
def busybox(path):
    write_layout(path, [busybox_layer()])


@once
def configured(path):
    """Every field of the config that husk honours."""
    top = Layer().add("bin/entry", '#!/bin/sh\n'
                      'echo "args=$*"; echo "pid=$$"; echo "cwd=$(pwd)"; echo "id=$(id)"; env | sort; \n'
                      'exec cat\n', 0o755)
    top.directory("data", 0o775, uid=1000, gid=29).add("data/kept", "from the image\n")
    write_layout(path, [busybox_layer(), top.done()], {
        "Env": [f"PATH={PATH}", "COLOUR=blue", "EMPTY=", "SPACES=a  b"],
        "Entrypoint": ["/bin/entry", "fixed"], "Cmd": ["default", "two words"], "WorkingDir": "/work/dir",
        "User": "alice", "StopSignal": "SIGUSR1", "Volumes": {"/data": {}, "/fresh/volume": {}},
        "Labels": {"a": "b"}, "ExposedPorts": {"80/tcp": {}}})


@once
def stopped_by_usr1(path):
    write_layout(path, [busybox_layer()], {"StopSignal": "SIGUSR1"})


@once
def pid_one(path):
    """s6 as the image's init: svscan runs a service and is told by it to stop. Its entrypoint insists on being PID 1."""
    layer = Layer()
    binary = shutil.which("s6-svscan")
    if not binary:
        raise lib.Skip("s6 is not installed")
    tools = [shutil.which(tool) or "" for tool in ("s6-svscan", "s6-supervise", "s6-svscanctl", "s6-svc")]
    libraries = set()
    for tool in tools:
        for line in subprocess.run(["ldd", tool], stdout=subprocess.PIPE, check=True).stdout.decode().splitlines():
            libraries.update(word for word in line.split() if word.startswith("/"))
    for name in ("usr/lib", "usr/lib/s6", "lib", "lib64", "service", "service/hello", "lib/x86_64-linux-gnu"):
        layer.directory(name)
    for file in sorted(libraries):
        layer.directory(os.path.dirname(file).lstrip("/"))
        layer.add(file.lstrip("/"), pathlib.Path(file).read_bytes(), 0o755)
    for tool in tools:
        layer.add(f"usr/bin/{os.path.basename(tool)}", pathlib.Path(os.path.realpath(tool)).read_bytes(), 0o755)
    layer.add("service/hello/run", "#!/bin/sh\necho \"service runs, parent of supervise is $(ps -o pid,comm | grep svscan | "
              "head -1 | tr -s ' ')\"\ns6-svscanctl -t /service\nexec sleep 1000\n", 0o755)
    layer.add("init", "#!/bin/sh\n[ $$ = 1 ] || { echo \"not PID 1 but $$\"; exit 99; }\necho as PID 1\n"
              "exec s6-svscan /service\n", 0o755)
    write_layout(path, [busybox_layer(), layer.done()], {"Entrypoint": ["/init"], "Cmd": None})


@once
def forty_five(path):
    """More layers than are stacked: each adds a file and rewrites one, each fifth deletes the file before it."""
    layers = [busybox_layer()]
    for i in range(1, 45):
        layer = Layer().directory("layers").add(f"layers/{i:02}", f"{i}\n").add("last", f"{i}\n")
        if i % 5 == 0:
            layer.add(f"layers/.wh.{i - 1:02}")
        layers.append(layer.done())
    write_layout(path, layers)


@once
def stacked(path):
    """Every way in which one layer changes what lies below it."""
    one = Layer().directory("d").add("d/gone", "1").add("d/stays", "1").add("d/changed", "1", 0o600)
    one.directory("opaque").add("opaque/old", "1").directory("opaque/sub").add("opaque/sub/old", "1")
    one.directory("tree").directory("tree/deep").add("tree/deep/file", "1")
    one.add("hard-a", "hard\n").hardlink("hard-b", "hard-a")
    one.directory("becomes-file").add("becomes-file/x", "1").add("becomes-dir", "1")
    one.add("capable", "x", 0o755, xattrs={"user.note": "kept"})
    one.add("setuid", "x", 0o6755, uid=1000, gid=29).directory("sticky", 0o1770, uid=1001, gid=44)
    one.add("null", kind=tarfile.CHRTYPE, mode=0o666, major=1, minor=3).add("fifo", kind=tarfile.FIFOTYPE, mode=0o640)
    one.add("n" * 255, "long name").symlink("dangling", "/no/where").symlink("link-to-d", "d")
    two = Layer().add("d/.wh.gone").add("d/changed", "2", 0o640).add("opaque/.wh..wh..opq").add("opaque/new", "2")
    two.add(".wh.tree").add(".wh.becomes-file").add("becomes-file", "2").add(".wh.becomes-dir")
    two.directory("becomes-dir").add("becomes-dir/y", "2").add(".wh.never-was")
    three = Layer().add("d/gone-again", "3").hardlink("hard-c", "hard-a").add("d/.wh.gone-again-not", "")
    four = Layer().add("d/gone", "4").directory("tree").add("tree/new", "4")
    write_layout(path, [busybox_layer(), one.done(), two.done(), three.done(), four.done()])


def rootfs_tree(path):
    """A busybox tree as files, for the tools that work on trees."""
    tar = path.parent / (path.name + ".tar")
    tar.write_bytes(busybox_layer())
    path.mkdir()
    subprocess.run(["tar", "-C", path, "-xf", tar], check=True)
    tar.unlink()


@once
def by_umoci(path):
    """Three layers, written by umoci from changes to an unpacked bundle."""
    if not shutil.which("umoci"):
        raise lib.Skip("umoci is not installed")
    rootless = [] if os.geteuid() == 0 else ["--rootless"]

    def umoci(*arguments):
        subprocess.run(["umoci", *arguments], check=True, stdout=subprocess.DEVNULL)

    image, bundle = f"{path}:latest", str(path.parent / "umoci-bundle")
    path.rmdir()
    umoci("init", "--layout", str(path))
    umoci("new", "--image", image)
    root = pathlib.Path(bundle) / "rootfs"
    for step in range(3):
        shutil.rmtree(bundle, ignore_errors=True)
        umoci("unpack", *rootless, "--image", image, bundle)
        if step == 0:
            for entry in busybox_files():
                entry(root)
            (root / "d").mkdir()
            for name in ("gone", "stays", "changed"):
                (root / "d" / name).write_text("1")
            (root / "hard-a").write_text("hard\n")
            os.link(root / "hard-a", root / "hard-b")
            (root / "setuid").write_text("x")
            os.chmod(root / "setuid", 0o4755)
            os.setxattr(root / "setuid", "user.note", b"kept")
        elif step == 1:
            (root / "d" / "gone").unlink()
            (root / "d" / "changed").write_text("2")
        else:
            shutil.rmtree(root / "d")
            (root / "d").mkdir()
            (root / "d" / "new").write_text("3")
        umoci("repack", "--image", image, bundle)
    umoci("config", "--image", image, "--config.cmd", "sh", "--config.env", f"PATH={PATH}")
    shutil.rmtree(bundle, ignore_errors=True)


def busybox_files():
    def unpack(root):
        tar = root.parent / "busybox.tar"
        tar.write_bytes(busybox_layer())
        flags = [] if os.geteuid() == 0 else ["--no-same-owner"]
        subprocess.run(["tar", "-C", root, *flags, "-xf", tar], check=True)
        tar.unlink()
    return [unpack]


@once
def by_buildah(path):
    """Three layers, written by buildah."""
    if not shutil.which("buildah") or os.geteuid() != 0:
        raise lib.Skip("buildah, as root, is not to be had")
    work = path.parent / "buildah-work"
    shutil.rmtree(work, ignore_errors=True)
    (work / "context").mkdir(parents=True)
    (work / "context" / "busybox.tar").write_bytes(busybox_layer())
    (work / "context" / "one").write_text("one\n")
    (work / "context" / "Containerfile").write_text(
        "FROM scratch\nADD busybox.tar /\nENV WHO=buildah\nCOPY one /d/one\nCOPY --chown=1000:29 --chmod=4750 one /d/owned\n"
        "WORKDIR /d\nUSER alice:audio\nENTRYPOINT [\"/bin/sh\", \"-c\"]\nCMD [\"id; pwd; cat one; echo $WHO\"]\n")
    storage = ["--root", str(work / "root"), "--runroot", str(work / "runroot"), "--storage-driver", "vfs"]
    subprocess.run(["buildah", *storage, "bud", "--layers", "--isolation", "chroot", "-q", "-t", "made", work / "context"],
                   check=True, stdout=subprocess.DEVNULL)
    path.rmdir()
    subprocess.run(["buildah", *storage, "push", "-q", "made", f"oci:{path}:latest"], check=True)
    shutil.rmtree(work, ignore_errors=True)
