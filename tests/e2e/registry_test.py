#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 400
"""registry_test.py - pulls from a real docker-registry on loopback that skopeo filled, and from one that misbehaves."""
import base64
import contextlib
import crypt
import gzip
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading

import images
import lib
from lib import equal, ok


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Registry:
    """Debian's docker-registry, on a port that was free."""

    def __init__(self, home, password=None):
        if not shutil.which("docker-registry"):
            raise lib.Skip("docker-registry is not installed")
        self.folder = home.path / f"registry-{'auth' if password else 'open'}"
        self.folder.mkdir()
        self.port = free_port()
        self.host = f"localhost:{self.port}"
        auth = ""
        if password:
            digest = crypt.crypt(password, crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16)).replace("$2b$", "$2y$")
            (self.folder / "htpasswd").write_text(f"alice:{digest}\n")
            auth = f"auth:\n  htpasswd:\n    realm: test\n    path: {self.folder}/htpasswd\n"
        (self.folder / "config.yml").write_text(
            f"version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {self.folder}/data\n{auth}"
            f"http:\n  addr: 127.0.0.1:{self.port}\n")

    def __enter__(self):
        self.log = open(self.folder / "log", "wb")
        self.process = subprocess.Popen(["docker-registry", "serve", str(self.folder / "config.yml")], stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=self.log)
        while self.process.poll() is None:  # each refused connect is an answer; no clock is asked
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.02)
        raise AssertionError((self.folder / "log").read_text())

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.log.close()

    def push(self, source, name, *options):
        subprocess.run(["skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", *options, source,
                        f"docker://{self.host}/{name}"], check=True, stdin=subprocess.DEVNULL)


def layout_with_platforms(home):
    """An index of two platforms whose images differ."""
    path = home.path / "multi"
    manifests = []
    for architecture in ("amd64", "arm64"):
        images.write_layout(path, [images.busybox_layer(), images.Layer().add("arch", architecture).done()],
                            architecture=architecture)
        entry = json.loads((path / "index.json").read_text())["manifests"][0]
        entry.pop("annotations")
        manifests.append(entry)
    index = json.dumps({"schemaVersion": 2, "mediaType": images.INDEX, "manifests": manifests}).encode()
    described = {"mediaType": images.INDEX, **images.write_blob(path, index),
                 "annotations": {"org.opencontainers.image.ref.name": "latest"}}
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described]}))
    return f"oci:{path}:latest"


def test_pull_and_run(home):
    with Registry(home) as registry:
        registry.push(images.stacked(), "team/stacked:1")
        registry.push(images.stacked(), "team/docker:2", "--format", "v2s2")
        registry.push(images.busybox(), "zstd:1", "--dest-compress-format", "zstd")
        registry.push(layout_with_platforms(home), "multi", "--all")

        done = home.husk("pull", f"{registry.host}/team/stacked:1")
        ok(done.status == 0, "husk pull from a registry", done)
        ok("\x1b" not in done.error + done.text and "\r" not in done.error + done.text, "progress off a terminal is plain lines", done)
        digest = subprocess.run(["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}",
                                 f"docker://{registry.host}/team/stacked:1"], stdout=subprocess.PIPE, check=True).stdout.decode().strip()
        shown = home.husk("image", "inspect", f"{registry.host}/team/stacked:1")
        ok(digest in shown.text, "its digest is what skopeo sees", shown)
        for name in ("team/docker:2", "zstd:1"):
            done = home.husk("pull", f"{registry.host}/{name}")
            equal(done.status, 0, f"pull {name}: schema 2 and zstd", done)
        done = home.husk("pull", f"{registry.host}/team/stacked@{digest}")
        equal(done.status, 0, "pull by digest", done)

        done = home.run(f"{registry.host}/multi", "cat", "/arch")
        equal((done.status, done.out), (0, b"amd64"), "husk run pulls this machine's platform of an index", done)
        done = home.husk("pull", "--platform", "linux/arm64", f"{registry.host}/multi")
        ok(done.status == 0, "--platform picks another", done)
        done = home.husk("pull", "--platform", "linux/s390x", f"{registry.host}/multi")
        ok(done.status != 0 and "s390x" in done.error, "a platform that the index lacks is named", done)

        for name, word in (("team/none:1", "none"), ("team/stacked:no-such-tag", "no-such-tag")):
            done = home.husk("pull", f"{registry.host}/{name}")
            ok(done.status != 0 and word in done.error, f"{name}: not found, named", done)

        # Two at once, of an image that is not there yet.
        registry.push(images.forty_five(), "many:1")
        runs = [home.start("pull", f"{registry.host}/many:1") for _ in range(2)]
        done = [run.finish() for run in runs]
        equal([d.status for d in done], [0, 0], "two pulls of one image at once", "\n".join(map(str, done)))

    done = home.husk("pull", "--offline", f"{registry.host}/team/stacked:1")
    done2 = home.husk("run", "--quiet", "--offline", f"{registry.host}/team/stacked:1", "cat", "/d/changed")
    equal((done2.status, done2.out), (0, b"2"), "what was pulled runs --offline", done2)
    done = home.husk("pull", "--offline", f"{registry.host}/team/other:1")
    ok(done.status != 0 and "offline" in done.error.lower(), "--offline does not go out", done)
    done = home.husk("pull", f"{registry.host}/team/other:1")
    ok(done.status != 0 and registry.host in done.error, "a registry that is not there is named", done)
    lib.none_left()


def test_login(home):
    with Registry(home, "s3cret") as registry:
        registry.push(images.busybox(), "private:1", "--dest-creds", "alice:s3cret")
        done = home.husk("pull", f"{registry.host}/private:1")
        ok(done.status != 0 and re.search("login|credential|unauthorized|denied", done.error, re.I), "no credentials: said so", done)
        done = home.husk("login", "-u", "alice", "--password-stdin", registry.host, input=b"wrong\n")
        ok(done.status != 0 and done.err, "login with a wrong password fails", done)
        ok(not (home.config / "config.json").exists(), "and stores nothing")
        (home.config / "config.json").write_text('{"credsStore_": "kept", "auths": {"other.example": {"auth": "eDp5"}}}')
        done = home.husk("login", "-u", "alice", "--password-stdin", registry.host, input=b"s3cret\n")
        equal(done.status, 0, "login", done)
        ok("s3cret" not in done.text + done.error, "the password is not shown")
        config = home.config / "config.json"
        stored = json.loads(config.read_text())
        ok(base64.b64decode(stored["auths"][registry.host]["auth"]) == b"alice:s3cret" and "other.example" in stored["auths"]
           and stored["credsStore_"] == "kept", "config.json's auths has it, and keeps the rest", stored)
        equal(config.stat().st_mode & 0o777, 0o600, "readable by its owner only")
        done = home.husk("pull", f"{registry.host}/private:1")
        equal(done.status, 0, "pull with basic auth", done)
        skopeo = subprocess.run(["skopeo", "inspect", "--tls-verify=false", "--authfile", config,
                                 f"docker://{registry.host}/private:1"], stdout=subprocess.DEVNULL, check=False)
        equal(skopeo.returncode, 0, "skopeo can use what husk stored")
        equal(home.husk("logout", registry.host).status, 0, "logout")
        ok(registry.host not in json.loads(config.read_text())["auths"], "takes it away")
        ok(home.husk("logout", registry.host).status != 0, "a second logout says that there is nothing")


class Faulty(http.server.BaseHTTPRequestHandler):
    """A registry over one layout. Its server's `fault` is a function of (handler, path) that may answer in its stead."""
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", headers=(), length=None):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(OSError):
                self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        server = self.server
        server.requests.append((self.path, dict(self.headers)))
        if server.fault and server.fault(self, self.path):
            return
        if self.path.rstrip("/") == "/v2":
            return self.answer(200, b"{}")
        if "/manifests/" in self.path:
            body = server.manifest
            return self.answer(200, body, [("Content-Type", images.MANIFEST), ("Docker-Content-Digest", images.sha256(body))])
        file = server.blobs / self.path.rsplit(":", 1)[-1]
        if "/blobs/" in self.path and file.is_file():
            return self.blob(file.read_bytes())
        return self.answer(404, b'{"errors": [{"code": "NAME_UNKNOWN"}]}')

    def blob(self, data):
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted and int(wanted[1]) < len(data):
            start = int(wanted[1])
            return self.answer(206, data[start:], [("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")])
        return self.answer(200, data, [("Content-Type", "application/octet-stream")])


@contextlib.contextmanager
def faulty(home):
    path = home.path / "faulty"
    shutil.rmtree(path, ignore_errors=True)
    noise = os.urandom(1 << 20)
    images.write_layout(path, [images.Layer().add("noise", noise).done(), images.Layer().add("b", "two").done()])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Faulty)
    server.daemon_threads = True
    server.blobs = path / "blobs" / "sha256"
    entry = json.loads((path / "index.json").read_text())["manifests"][0]
    server.manifest = (server.blobs / entry["digest"][7:]).read_bytes()
    server.fault, server.requests = None, []
    server.released = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.name = f"localhost:{server.server_port}/x"
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()


def once_per_path(action):
    """The fault strikes the first request of each path that matches."""
    struck = set()

    def fault(handler, path):
        if path in struck or not action(handler, path, True):
            return False
        struck.add(path)
        return action(handler, path, False)
    return fault


def largest_blob(path, server):
    return "/blobs/" in path and (server.blobs / path.rsplit(":", 1)[-1]).stat().st_size > 500000


def test_faults_that_pass(home):
    """Transient trouble is retried, and what has come is kept."""
    with faulty(home) as server:
        done = home.husk("pull", server.name + ":plain")
        equal(done.status, 0, "the registry of this test works", done)

        def cut(handler, path, ask):
            if not largest_blob(path, server):
                return False
            if not ask:
                data = (server.blobs / path.rsplit(":", 1)[-1]).read_bytes()
                handler.answer(200, data[:300000], length=len(data))
                handler.close_connection = True
                handler.connection.shutdown(socket.SHUT_RDWR)
            return True

        def status(code, *headers):
            def action(handler, path, ask):
                if path.rstrip("/") == "/v2":
                    return False
                return True if ask else handler.answer(code, b"later", headers) or True
            return action

        for tag, what, action in (("cut", "a blob that ends early", cut), ("429", "429 with Retry-After", status(429, ("Retry-After", "0"))),
                                  ("500", "500 once", status(500)), ("503", "503 once", status(503))):
            home.husk("rmi", "-f", server.name + ":plain")
            for name in ("cut", "429", "500"):
                home.husk("rmi", f"{server.name}:{name}")
            server.requests.clear()
            server.fault = once_per_path(action)
            done = home.husk("pull", f"{server.name}:{tag}")
            equal(done.status, 0, f"{what}: retried", done)
            if tag == "cut":
                ranges = [h.get("Range") for p, h in server.requests if largest_blob(p, server)]
                ok(any(r and r != "bytes=0-" for r in ranges), "and resumed with a Range", ranges)


def test_faults_that_stay(home):
    with faulty(home) as server:
        html = b"<html><body>Please log in to the WiFi</body></html>"
        cases = (
            ("401 without a challenge", lambda h, p: h.answer(401) or True),
            ("403", lambda h, p: h.answer(403) or True),
            ("HTML for a manifest", lambda h, p: "/manifests/" in p and (h.answer(200, html, [("Content-Type", "text/html")]) or True)),
            ("HTML for a blob", lambda h, p: "/blobs/" in p and (h.answer(200, html, [("Content-Type", "text/html")]) or True)),
            ("a blob of another content", lambda h, p: largest_blob(p, server) and (
                h.blob(gzip.compress(os.urandom(1 << 20))[:(server.blobs / p.rsplit(":", 1)[-1]).stat().st_size]) or True)),
            ("a manifest without end", lambda h, p: "/manifests/" in p and (h.answer(200, b"{" * (5 << 20)) or True)),
            ("a manifest that is no manifest", lambda h, p: "/manifests/" in p and (
                h.answer(200, b'{"schemaVersion": 1}', [("Content-Type", "application/json")]) or True)),
            ("a redirect in a circle", lambda h, p: h.answer(307, b"", [("Location", p)]) or True),
            ("a redirect to a file", lambda h, p: "/blobs/" in p and (h.answer(307, b"", [("Location", "file:///etc/passwd")]) or True)),
        )
        for what, fault in cases:
            server.fault = fault
            done = home.husk("pull", server.name + ":stay")
            ok(done.status not in (0, None) and done.status < 128 and done.err and not done.err.count(b"root:x:"),
               f"{what}: a clear error", done)
            ok(home.husk("image", "inspect", server.name + ":stay").status != 0, f"{what}: no image")
        server.fault = lambda h, p: h.answer(404) or True
        done = home.husk("pull", server.name + ":stay")
        ok(done.status != 0 and server.name in done.error, "404: named", done)
        server.fault = None
        done = home.husk("pull", server.name + ":stay")
        equal(done.status, 0, "and when the registry is well again, the pull works", done)


def test_hanging(home):
    """A registry that takes the request and says nothing: Ctrl-C ends the pull at once."""
    with faulty(home) as server:
        asked = threading.Event()

        def hang(handler, path):
            asked.set()
            server.released.wait()
            return True
        server.fault = hang
        running = home.start("pull", server.name + ":hang")
        ok(asked.wait(lib.LIMIT), "the request has come")
        running.process.send_signal(signal.SIGINT)
        done = running.finish()
        ok(done.status not in (0, None), "Ctrl-C ends a pull that hangs", done)
        lib.none_left()


lib.main(globals())
