#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The registry client against a hostile server and against Debian's docker-registry; prints TAP.

usage: registry_test.py REGISTRY_TOOL

Theory of operation: each test runs tests/unit/registry-tool as a user would meet the client, and looks at its exit
status, its words, the file it wrote, and the requests the server saw. The hostile server is scripted: a test gives it a
function per path. The parts with docker-registry are skipped where it, skopeo or umoci is missing.
"""
import base64
import hashlib
import http.server
import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import warnings

TOOL = os.path.abspath(sys.argv[1])
WORK = tempfile.mkdtemp(prefix="husk-registry-test.")
CONFIG = os.path.join(WORK, "config.json")
OCI = "application/vnd.oci.image.manifest.v1+json"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
count = failed = 0


def check(ok, what, detail=""):
    global count, failed
    count += 1
    failed += not ok
    print(f"{'ok' if ok else 'not ok'} {count} - {what}")
    if not ok:
        for line in str(detail).splitlines():
            print(f"# {line}")
    sys.stdout.flush()


def skip(what, why):
    global count
    count += 1
    print(f"ok {count} - {what} # SKIP {why}")


class Outcome:
    """What one run of the tool said and did."""

    def __init__(self, args, options, env):
        command = [TOOL, "-c", CONFIG, "-b", "1", "-s", "300", *options, *args]
        full = {**os.environ, "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", **(env or {})}
        self.started = time.monotonic()
        p = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, env=full)
        self.seconds = time.monotonic() - self.started
        self.rc, self.out, self.err = p.returncode, p.stdout, p.stderr.decode(errors="replace")

    def __str__(self):
        return f"rc={self.rc} after {self.seconds:.1f} s\n{self.err}\nstdout: {self.out[:200]}"

    def failed_with(self, code, *words):
        return self.rc == 1 and f"error {code}:" in self.err and all(w in self.err for w in words)


def tool(*args, options=(), env=None):
    return Outcome([str(a) for a in args], options, env)


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        s = self.server
        path = urllib.parse.urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        self.form = self.rfile.read(length).decode() if length else ""
        with s.guard:
            s.seen.append((self.command, self.path, dict(self.headers), self.form))
            n = sum(1 for x in s.seen if urllib.parse.urlsplit(x[1]).path == path.path)
        script = s.scripts.get(path.path)
        if script is None:
            self.answer(404, b'{"errors":[{"code":"NAME_UNKNOWN","message":"never heard of it"}]}')
        else:
            script(self, n)

    do_POST = do_GET

    def answer(self, status, body=b"", type="application/json", length=None, **headers):
        self.send_response(status)
        if type:
            self.send_header("Content-Type", type)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def cut(self):
        """End the connection in the middle, with a reset."""
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def range_start(self):
        value = self.headers.get("Range")
        return int(value.removeprefix("bytes=").split("-")[0]) if value else 0

    def part(self, data, **more):
        """Honour a Range as a server should."""
        start = self.range_start()
        if not start:
            return self.answer(200, data, "application/octet-stream", **more)
        self.answer(206, data[start:], "application/octet-stream",
                    Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}", **more)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    address_family = socket.AF_INET

    def __init__(self, scripts=None, tls=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.scripts, self.seen, self.guard = scripts or {}, [], threading.Lock()
        self.released = threading.Event()
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.host = f"127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def handle_error(self, request, client_address):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.released.set()
        self.shutdown()
        self.server_close()

    def paths(self):
        return [urllib.parse.urlsplit(x[1]).path for x in self.seen]


MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": OCI, "config": {}, "layers": []}).encode()
PATH = "/v2/a/b/manifests/t"


def manifest(script, *args, options=(), env=None, extra=None):
    """Run `manifest HOST/a/b:t` against @script; the outcome and the server."""
    with Server({PATH: script, **(extra or {})}) as server:
        return tool("manifest", f"{server.host}/a/b:t", *args, options=options, env=env), server


def good(h, n=0):
    h.answer(200, MANIFEST, OCI)


def no_credentials():
    if os.path.exists(CONFIG):
        os.unlink(CONFIG)


def store(host, user="me", password="s3cret-word", **more):
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    with open(CONFIG, "w") as f:
        json.dump({"auths": {host: {"auth": auth, **more}}}, f)


def test_manifests():
    o, s = manifest(good)
    check(o.rc == 0 and o.out == f"{OCI} {digest_of(MANIFEST)}\n".encode() + MANIFEST, "a manifest is fetched", o)
    accept = s.seen[0][2].get("Accept", "")
    check(all(x in accept for x in (OCI, DOCKER, "image.index.v1", "manifest.list.v2")),
          "the four current types are accepted", accept)
    check("Authorization" not in s.seen[0][2], "nothing is sent unasked")
    with Server({f"/v2/a/b/manifests/{digest_of(MANIFEST)}": good}) as s:
        o = tool("manifest", f"{s.host}/a/b@{digest_of(MANIFEST)}")
        check(o.rc == 0, "a manifest is fetched by digest", o)
    wrong = "sha256:" + "0" * 64
    with Server({f"/v2/a/b/manifests/{wrong}": lambda h, n: h.answer(200, MANIFEST, OCI, Docker_Content_Digest=wrong)}) as s:
        o = tool("manifest", f"{s.host}/a/b@{wrong}")
        check(o.failed_with(74, digest_of(MANIFEST)), "bytes with another digest are refused, whatever the header says", o)
    o, _ = manifest(lambda h, n: h.answer(200, MANIFEST, "text/plain; charset=x"))
    check(o.out.startswith(OCI.encode()), "without a useful Content-Type the type inside counts", o)
    bare = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    o, _ = manifest(lambda h, n: h.answer(200, bare, None))
    check(o.out.startswith(b"application/vnd.oci.image.index.v1+json "), "an untyped index is an OCI index", o)
    o, _ = manifest(lambda h, n: h.answer(200, MANIFEST, DOCKER))
    check(o.failed_with(74, DOCKER, OCI), "contradicting types are refused", o)
    both = json.dumps({"schemaVersion": 2, "manifests": [], "layers": []}).encode()
    o, _ = manifest(lambda h, n: h.answer(200, both, OCI))
    check(o.failed_with(74, "at once"), "an index that is also a manifest is refused", o)
    one = json.dumps({"schemaVersion": 1, "fsLayers": []}).encode()
    o, _ = manifest(lambda h, n: h.answer(200, one, "application/vnd.docker.distribution.manifest.v1+prettyjws"))
    check(o.failed_with(95, "schema 1"), "schema 1 is refused by name", o)
    o, _ = manifest(lambda h, n: h.answer(200, b'{"hello": 1}', "application/json"))
    check(o.failed_with(71, "not the manifest"), "JSON that is no manifest is refused", o)
    o, _ = manifest(lambda h, n: h.answer(200, b"\0\1\2", "application/json"))
    check(o.failed_with(71, "not JSON"), "bytes that are no JSON are refused", o)
    o, _ = manifest(lambda h, n: h.answer(200, b"<html>hi</html>", "text/html"))
    check(o.failed_with(71, "not a registry"), "a web page is called one", o)


def endless(h, n):
    h.send_response(200)
    h.send_header("Content-Type", OCI)
    h.send_header("Connection", "close")
    h.end_headers()
    h.close_connection = True
    for _ in range(64):
        h.wfile.write(b" " * 1048576)


def test_sizes():
    o, s = manifest(lambda h, n: h.answer(200, b" ", OCI, length=5 * 1048576))
    check(o.failed_with(27, "4194304") and len(s.seen) == 1, "a manifest that announces too much is refused", o)
    o, s = manifest(endless)
    check(o.failed_with(27, "4194304") and len(s.seen) == 1, "an endless manifest is refused", o)


def test_statuses():
    o, s = manifest(lambda h, n: h.answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown\\u001b[2J"}]}'))
    check(o.failed_with(2, "404", "MANIFEST_UNKNOWN: unknown?[2J", "no such image or tag", s.host) and len(s.seen) == 1,
          "404: no such image or tag, at once, in the registry's own sanitised words", o)
    o, s = manifest(lambda h, n: h.answer(404, b"<!DOCTYPE html>", "text/html"))
    check(o.failed_with(2, "not a registry"), "404 with a web page: not a registry", o)
    for status, code in ((400, 71), (403, 13)):
        o, s = manifest(lambda h, n: h.answer(status, b"{}"))
        check(o.failed_with(code, str(status)) and len(s.seen) == 1, f"{status} is not tried again", o)
    o, s = manifest(lambda h, n: good(h) if n > 1 else h.answer(429, b"{}", Retry_After="1"))
    check(o.rc == 0 and o.seconds >= 1 and "429" in o.err, "429: waits as long as Retry-After says", o)
    o, s = manifest(lambda h, n: good(h) if n > 2 else h.answer(503, b"{}"))
    check(o.rc == 0 and len(s.seen) == 3 and "trying again" in o.err, "two 503 are survived and told", o)
    o, s = manifest(lambda h, n: h.answer(500, b'{"errors":[{"code":"X","message":"disk on fire"}]}'))
    check(o.failed_with(121, "500", "disk on fire") and len(s.seen) == 6, "an eternal 500 ends after six tries", o)
    o, s = manifest(lambda h, n: h.answer(429, b"{}"))
    check(o.failed_with(16, "429", "husk login"), "an eternal 429 ends too", o)
    o, s = manifest(lambda h, n: h.answer(401, b"{}"))
    check(o.failed_with(13, "401", f"husk login {s.host}") and len(s.seen) == 1, "401 without a challenge: log in", o)


def hang(h, n):
    h.server.released.wait(30)


def trickle(h, n):
    h.send_response(200)
    h.send_header("Content-Length", "100000")
    h.end_headers()
    while not h.server.released.wait(0.1):
        h.wfile.write(b"x")


def test_hangs():
    o, s = manifest(hang)
    check(o.failed_with(110, "no data for") and o.seconds < 15, "a server that hangs is given up", o)
    o, s = manifest(lambda h, n: good(h) if n > 1 else hang(h, n))
    check(o.rc == 0, "one that hangs once is tried again", o)
    o, s = manifest(trickle)
    check(o.failed_with(110, "no data for") and o.seconds < 15, "one that trickles is given up", o)
    o, s = manifest(hang, options=("-k", "200", "-s", "60000"))
    check(o.failed_with(4, "cancelled") and o.seconds < 5, "a hanging transfer can be cancelled", o)
    o, s = manifest(lambda h, n: h.answer(503, b"", Retry_After="60"), options=("-k", "300"))
    check(o.failed_with(4, "cancelled") and o.seconds < 5, "so can the wait for a retry", o)
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))
    o = tool("manifest", f"127.0.0.1:{closed.getsockname()[1]}/a:t")
    closed.close()
    check(o.failed_with(111, "is the registry running") and o.seconds < 10, "a refused connection is explained", o)


def garbage(reply):
    """A listener that answers every connection with @reply."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                c, _ = listener.accept()
            except OSError:
                return
            with c:
                try:
                    c.recv(4096)
                    c.sendall(reply)
                except OSError:
                    pass
    threading.Thread(target=serve, daemon=True).start()
    return listener


def test_no_http():
    for reply, words in ((b"SSH-2.0-OpenSSH_9.2\r\n", "HTTP"), (b"", "")):
        listener = garbage(reply)
        o = tool("manifest", f"127.0.0.1:{listener.getsockname()[1]}/a:t")
        listener.close()
        check(o.rc == 1 and words in o.err and o.seconds < 20, f"a server that answers {reply!r} is no registry", o)


def test_tls():
    key, cert = os.path.join(WORK, "key.pem"), os.path.join(WORK, "cert.pem")
    made = subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                           "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost", "-addext",
                           "subjectAltName=DNS:localhost,IP:127.0.0.1"], capture_output=True)
    if made.returncode:
        return skip("TLS on loopback", "openssl cannot make a certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with Server({PATH: good}, tls=context) as s:
        o = tool("manifest", f"{s.host}/a/b:t")
        check(o.rc == 1 and "certificate" in o.err and not s.seen, "a loopback registry with TLS must have a good certificate", o)


CHALLENGE = 'Bearer realm="http://{}/token?x=1",service="the registry",scope="repository:a/b:pull"'


def bearer(tokens, host=lambda h: h.server.host):
    """A script that wants one of @tokens."""
    def script(h, n):
        if h.headers.get("Authorization") in [f"Bearer {t}" for t in tokens]:
            return good(h)
        h.answer(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}',
                 WWW_Authenticate=CHALLENGE.format(host(h)))
    return script


def token(h, n):
    h.answer(200, json.dumps({"token": f"tok{n}", "expires_in": 300}).encode())


def query(seen):
    return urllib.parse.parse_qs(urllib.parse.urlsplit(seen[1]).query)


def test_bearer():
    no_credentials()
    o, s = manifest(bearer(["tok1"]), extra={"/token": token})
    asked = [x for x in s.seen if "/token" in x[1]]
    check(o.rc == 0 and len(asked) == 1, "a bearer challenge is answered with a token", o)
    q = query(asked[0])
    check(q == {"x": ["1"], "service": ["the registry"], "scope": ["repository:a/b:pull"]} and
          "Authorization" not in asked[0][2], "asked for pull only, without credentials where there are none", q)
    o, s = manifest(bearer(["never"]), extra={"/token": token})
    check(o.failed_with(13, "husk login", "authentication required") and s.paths() == [PATH, "/token", PATH],
          "a token that is refused is the end after one renewal", o)
    with Server({"/token": token}) as s:
        store(s.host)
        s.scripts[PATH] = bearer(["tok1"])
        o = tool("manifest", f"{s.host}/a/b:t")
        asked = [x for x in s.seen if "/token" in x[1]][0]
        want = "Basic " + base64.b64encode(b"me:s3cret-word").decode()
        check(o.rc == 0 and asked[2].get("Authorization") == want and query(asked)["account"] == ["me"],
              "stored credentials go to the token server", o)
    deny = lambda h, n: h.answer(401, ('{"details":"wrong ' + h.headers.get("Authorization", "") + '"}').encode())
    with Server({"/token": deny}) as s:
        store(s.host)
        s.scripts[PATH] = bearer(["x"])
        o = tool("manifest", f"{s.host}/a/b:t")
        check(o.failed_with(13, "not accepted", "husk login") and "bWU6" not in o.err and "s3cret" not in o.err,
              "a refused login says so and repeats no secret, even one the server echoes", o)
    no_credentials()
    for body in (b"{}", b"[]", b"nothing", b'{"token":"a\\r\\nX-Evil: 1"}', b'{"token":""}'):
        o, s = manifest(bearer(["x"]), extra={"/token": lambda h, n: h.answer(200, body)})
        check(o.failed_with(71, "no token") and len(s.seen) == 2, f"a token answer {body!r} is refused", o)
    for realm in ("http://example.com", "http://user:pw@127.0.0.1", "ftp://127.0.0.1", "file:///etc", "http://127.0.0.1.example.com"):
        o, s = manifest(lambda h, n: h.answer(401, b"", WWW_Authenticate=f'Bearer realm="{realm}/t"'))
        check(o.failed_with(71, "token server"), f"the realm {realm} is refused", o)


def test_identity_token():
    with Server({"/token": lambda h, n: h.answer(200, b'{"access_token":"tok1"}')}) as s:
        with open(CONFIG, "w") as f:
            json.dump({"auths": {s.host: {"auth": "MDA6", "identitytoken": "idtok"}}}, f)
        s.scripts[PATH] = bearer(["tok1"])
        o = tool("manifest", f"{s.host}/a/b:t")
        post = [x for x in s.seen if x[0] == "POST"]
        form = urllib.parse.parse_qs(post[0][3]) if post else {}
        check(o.rc == 0 and form.get("grant_type") == ["refresh_token"] and form.get("refresh_token") == ["idtok"],
              "an identity token is traded by OAuth2", f"{o} {form}")
    no_credentials()


def test_basic():
    want = "Basic " + base64.b64encode(b"me:s3cret-word").decode()

    def script(h, n):
        if h.headers.get("Authorization") == want:
            return good(h)
        h.answer(401, b"{}", WWW_Authenticate='Basic realm="here"')
    with Server({PATH: script}) as s:
        store(s.host)
        o = tool("manifest", f"{s.host}/a/b:t")
        check(o.rc == 0 and len(s.seen) == 2, "basic auth is used when asked for", o)
        store(s.host, password="wrong-word")
        o = tool("manifest", f"{s.host}/a/b:t")
        check(o.failed_with(13, "not accepted", "husk login") and "wrong-word" not in o.err and len(s.seen) == 4,
              "a wrong password is tried once", o)
        store("other.example")
        o = tool("manifest", f"{s.host}/a/b:t")
        check(o.failed_with(13, "a login is needed") and "Authorization" not in s.seen[-1][2],
              "credentials of another host are not used", o)
    no_credentials()


DATA = os.urandom(3_000_000)
BLOB = f"/v2/a/b/blobs/{digest_of(DATA)}"


def blob(script, keep=None, size=len(DATA), options=(), extra=None, name="blob", prepare=None):
    """Run `blob` against @script with a file that holds @keep already; outcome, server, the file's bytes."""
    path = os.path.join(WORK, name)
    with open(path, "wb") as f:
        f.write(keep or b"")
    with Server({BLOB: script, **(extra or {})}) as server:
        if prepare:
            prepare(server)
        o = tool("blob", f"{server.host}/a/b:t", digest_of(DATA), size, path, options=options)
    with open(path, "rb") as f:
        return o, server, f.read()


def ranges(server):
    return [x[2].get("Range") for x in server.seen]


def serve(h, n):
    h.part(DATA)


def cut_twice(h, n):
    if n > 2:
        return h.part(DATA)
    start = h.range_start()
    end = start + 1_000_000
    if start:
        h.answer(206, DATA[start:end], length=len(DATA) - start, Content_Range=f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
    else:
        h.answer(200, DATA[:end], length=len(DATA))
    h.cut()


def cut_often(h, n):
    """A resumable server whose connections last for 200,000 bytes."""
    start = h.range_start()
    h.answer(206 if start else 200, DATA[start:start + 200_000], length=len(DATA) - start,
             Content_Range=f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
    if start + 200_000 < len(DATA):
        h.cut()


def stall_once(h, n):
    if n > 1:
        return h.part(DATA)
    h.answer(200, DATA[:1_000_000], length=len(DATA))
    hang(h, n)


def drip(h, n):
    """A byte per connection."""
    start = h.range_start()
    h.answer(206 if start else 200, DATA[start:start + 1], length=len(DATA) - start,
             Content_Range=f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
    h.cut()


def test_blobs():
    o, s, data = blob(serve)
    check(o.rc == 0 and data == DATA and ranges(s) == [None], "a blob is fetched", o)
    o, s, data = blob(serve, DATA[:1234567])
    check(o.rc == 0 and data == DATA and ranges(s) == ["bytes=1234567-"], "a beginning is resumed", o)
    o, s, data = blob(serve, DATA)
    check(o.rc == 0 and data == DATA and not s.seen, "a whole one needs no request", o)
    o, s, data = blob(serve, DATA + b"x")
    check(o.rc == 0 and data == DATA and ranges(s) == [None], "a file that is too long is begun anew", o)
    o, s, data = blob(serve, b"\0" * len(DATA))
    check(o.rc == 0 and data == DATA and ranges(s) == [None], "a whole file of other bytes is begun anew", o)
    o, s, data = blob(serve, b"\0" * 1000)
    check(o.rc == 0 and data == DATA and ranges(s) == ["bytes=1000-", None], "so is a beginning that was wrong", o)
    o, s, data = blob(lambda h, n: h.answer(200, DATA), DATA[:1000])
    check(o.rc == 0 and data == DATA and len(s.seen) == 1, "a server that ignores Range sends the whole", o)
    o, s, data = blob(lambda h, n: h.answer(416) if h.range_start() else h.answer(200, DATA), DATA[:1000])
    check(o.rc == 0 and data == DATA and ranges(s) == ["bytes=1000-", None], "416: begun anew", o)
    lie = lambda h, n: h.answer(206, DATA[7:], Content_Range=f"bytes 7-{len(DATA) - 1}/{len(DATA)}") if h.range_start() else h.answer(200, DATA)
    o, s, data = blob(lie, DATA[:1000])
    check(o.rc == 0 and data == DATA and ranges(s) == ["bytes=1000-", None], "another part than asked for: begun anew", o)
    with Server({f"/v2/a/b/blobs/{digest_of(b'')}": lambda h, n: h.answer(200)}) as s:
        o = tool("blob", f"{s.host}/a/b:t", digest_of(b""), 0, os.path.join(WORK, "empty"))
        check(o.rc == 0, "an empty blob is one", o)
    o, s, data = blob(lambda h, n: h.answer(404))
    check(o.failed_with(2, "lost"), "a missing blob is explained", o)


def test_bad_lines():
    o, s, data = blob(cut_twice)
    check(o.rc == 0 and data == DATA and ranges(s)[0] is None and all(r for r in ranges(s)[1:]) and len(s.seen) == 3,
          "a blob that is cut twice is resumed twice", f"{o} {ranges(s)}")
    o, s, data = blob(cut_often)
    check(o.rc == 0 and data == DATA and len(s.seen) >= 15, "one that is cut again and again, but moves, comes", o)
    o, s, data = blob(stall_once)
    check(o.rc == 0 and data == DATA and ranges(s) == [None, "bytes=1000000-"], "one that stalls is resumed", o)
    o, s, data = blob(drip)
    check(o.failed_with(104) and len(s.seen) < 20, "a byte per connection is not for ever", o)
    check(DATA.startswith(data) and data, "and what came stays for the next time")
    fault = lambda h, n: h.part(DATA) if n > 2 else h.answer(502)
    o, s, data = blob(fault, DATA[:5])
    check(o.rc == 0 and data == DATA and ranges(s) == ["bytes=5-"] * 3, "a 502 in between does not lose the beginning", o)


def chunked(h, data):
    h.send_response(200)
    h.send_header("Connection", "close")
    h.end_headers()
    h.close_connection = True
    h.wfile.write(data)


def test_lies():
    o, s, data = blob(lambda h, n: h.answer(200, DATA + b"x"))
    check(o.failed_with(74, "announces 3000001", "3000000") and data == b"" and len(s.seen) == 1, "a blob that announces too much is refused", o)
    o, s, data = blob(lambda h, n: h.answer(200, DATA[:-1]))
    check(o.failed_with(74, "announces 2999999") and len(s.seen) == 1, "so is one that announces too little", o)
    too_much = DATA * 3  # made here: while a busy machine copies it, an answer would come later than a stall is allowed to last
    o, s, data = blob(lambda h, n: chunked(h, too_much))
    check(o.failed_with(74, "sends at least") and data == b"" and len(s.seen) == 1, "one that sends too much is cut off", o)
    o, s, data = blob(lambda h, n: chunked(h, DATA[:100]))
    check(o.rc == 1 and "ended after 100 of" in o.err, "one that sends too little is not taken", o)
    bad = b"\0" * len(DATA)
    o, s, data = blob(lambda h, n: h.answer(200, bad))
    check(o.failed_with(74, digest_of(bad)) and data == b"" and len(s.seen) == 1, "a wrong digest empties the file", o)
    with Server({BLOB: serve}) as s:
        o = tool("blob", f"{s.host}/a/b:t", digest_of(DATA), len(DATA), "/dev/full")
        check(o.failed_with(28, "No space left") and len(s.seen) == 1, "a full disk is named", o)
    o, s, data = blob(serve, size=len(DATA) - 1)
    check(o.failed_with(74), "a size that is wrong in the manifest is an error", o)


def test_redirects():
    with Server() as cdn:
        cdn.scripts["/cdn"] = serve
        elsewhere = lambda h, n: h.answer(307, Location=f"http://{cdn.host}/cdn?signature=secret")

        def guarded(h, n):
            if not h.headers.get("Authorization"):
                return h.answer(401, b"{}", WWW_Authenticate='Basic realm="x"')
            elsewhere(h, n)
        o, s, data = blob(guarded, DATA[:99], prepare=lambda s: store(s.host))
        check(o.rc == 0 and data == DATA and ranges(cdn) == ["bytes=99-"], "a blob behind a redirect is fetched", o)
        check("Authorization" in s.seen[-1][2] and "Authorization" not in cdn.seen[0][2],
              "credentials stay with the host they are for")
        cdn.scripts["/cdn"] = lambda h, n: h.answer(302, Location=f"http://{cdn.host}/next")
        cdn.scripts["/next"] = lambda h, n: h.answer(302, Location=f"http://{back.host}{BLOB}/once")
        with Server() as back:
            back.scripts[BLOB] = guarded
            back.scripts[BLOB + "/once"] = lambda h, n: h.answer(302, Location=f"{BLOB}/again")
            back.scripts[BLOB + "/again"] = serve
            store(back.host)
            path = os.path.join(WORK, "blob2")
            o = tool("blob", f"{back.host}/a/b:t", digest_of(DATA), len(DATA), path)
            last = back.seen[-1]
            sent = [x for x in cdn.seen + back.seen if "Authorization" in x[2]]
            check(o.rc == 0 and last[1].endswith("/again") and [x[1] for x in sent] == [BLOB],
                  "once gone elsewhere they do not come back", o)
        cdn.scripts["/cdn"] = lambda h, n: h.answer(403, b"denied", "text/plain")
        no_credentials()
        o, s, data = blob(elsewhere)
        check(o.rc == 1 and "signature" not in o.err, "a signed address is not shown", o)
    same = lambda h, n: h.answer(307, Location="/there")

    def there(h, n):
        h.answer(200, DATA) if h.headers.get("Authorization") else h.answer(401, WWW_Authenticate='Basic realm="x"')
    o, s, data = blob(same, extra={"/there": there}, prepare=lambda s: store(s.host))
    check(o.rc == 0 and data == DATA, "within one host credentials go along", o)
    no_credentials()
    o, s, data = blob(lambda h, n: h.answer(307, Location=BLOB))
    check(o.failed_with(40, "too many redirects") and len(s.seen) == 6, "a redirect loop ends", o)
    for target in ("http://example.com/x", "file:///etc/passwd", "ftp://127.0.0.1/x"):
        o, s, data = blob(lambda h, n: h.answer(307, Location=target))
        check(o.failed_with(71, "not https") and data == b"", f"a redirect to {target} is refused", o)


def test_threads():
    parts = [os.urandom(100_000 + i) for i in range(6)]
    lock = threading.Lock()
    valid = []

    def fetch(data):
        def script(h, n):
            if h.headers.get("Authorization") not in valid:
                return h.answer(401, b"{}", WWW_Authenticate=CHALLENGE.format(h.server.host))
            h.part(data)
        return script

    def fresh(h, n):
        with lock:
            valid.append(f"Bearer tok{n}")
        token(h, n)
    scripts = {f"/v2/a/b/blobs/{digest_of(p)}": fetch(p) for p in parts}
    with Server({**scripts, "/token": fresh}) as s:
        args = []
        for i, p in enumerate(parts):
            args += [digest_of(p), len(p), os.path.join(WORK, f"part{i}")]
        o = tool("blobs", f"{s.host}/a/b:t", *args)
        ok = all(open(os.path.join(WORK, f"part{i}"), "rb").read() == p for i, p in enumerate(parts))
        check(o.rc == 0 and ok and s.paths().count("/token") == 1, "six threads fetch six blobs with one token",
              f"{o} {s.paths()}")

    def once(h, n):
        """The token of a transfer runs out in its middle."""
        if h.headers.get("Authorization") != ("Bearer tok1" if not h.range_start() else "Bearer tok2"):
            return h.answer(401, b"{}", WWW_Authenticate=CHALLENGE.format(h.server.host))
        if h.range_start():
            return h.part(DATA)
        h.answer(200, DATA[:500_000], length=len(DATA))
        h.cut()
    o, s, data = blob(once, extra={"/token": token})
    check(o.rc == 0 and data == DATA, "a token that runs out in the middle is renewed", o)


def test_login():
    no_credentials()
    want = "Basic " + base64.b64encode(b"me:right-word").decode()

    def root(h, n):
        if h.headers.get("Authorization") == "Bearer tok1":
            return h.answer(200, b"{}")
        h.answer(401, b"{}", WWW_Authenticate=f'Bearer realm="http://{h.server.host}/token",service="s"')

    def check_user(h, n):
        if h.headers.get("Authorization") == want:
            return h.answer(200, b'{"token":"tok1"}')
        h.answer(401, b'{"details":"incorrect username or password"}')
    with Server({"/v2/": root, "/token": check_user}) as s:
        o = tool("login", s.host, "me", "wrong-word")
        check(o.failed_with(13, "incorrect username or password") and not os.path.exists(CONFIG),
              "a wrong password is refused and not stored", o)
        o = tool("login", s.host, "me", "right-word")
        stored = json.load(open(CONFIG)) if o.rc == 0 else {}
        check(stored.get("auths", {}).get(s.host) == {"auth": base64.b64encode(b"me:right-word").decode()} and
              os.stat(CONFIG).st_mode & 0o777 == 0o600, "a right one is stored for its owner only", o)
        o = tool("logout", s.host)
        check(o.rc == 0 and json.load(open(CONFIG))["auths"] == {}, "logout removes it", o)
        o = tool("logout", s.host)
        check(o.failed_with(2, "no credentials"), "a second logout says there is none", o)
    with Server({}) as s:
        o = tool("login", s.host, "me", "x")
        check(o.failed_with(2, "not a registry"), "a server without /v2/ is no registry", o)
    for host in ("no/such", "", "foo", "a b.c"):
        o = tool("login", host, "me", "x")
        check(o.failed_with(22, "not a registry host") or o.rc == 1 and host == "no/such", f"login to {host!r} is refused", o)
    no_credentials()


def start_registry(directory, htpasswd=None):
    """Debian's docker-registry on a free port; (process, host)."""
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    config = {"version": 0.1, "log": {"level": "error"}, "storage": {"filesystem": {"rootdirectory": directory}},
              "http": {"addr": f"127.0.0.1:{port}"}}
    if htpasswd:
        config["auth"] = {"htpasswd": {"realm": "test", "path": htpasswd}}
    path = os.path.join(WORK, f"registry-{port}.yml")
    with open(path, "w") as f:
        json.dump(config, f)  # JSON is YAML
    process = subprocess.Popen(["docker-registry", "serve", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process, f"127.0.0.1:{port}"
        except OSError:
            time.sleep(0.05)  # nothing announces that a foreign server listens
    process.kill()
    process.wait()
    return None, None


def make_image():
    """A small OCI image with one layer; its directory."""
    layout = os.path.join(WORK, "layout")
    rootfs = os.path.join(WORK, "rootfs")
    os.makedirs(rootfs)
    with open(os.path.join(rootfs, "file"), "wb") as f:
        f.write(os.urandom(300_000))
    for command in (["umoci", "init", "--layout", layout], ["umoci", "new", "--image", f"{layout}:t"],
                    ["umoci", "insert", "--rootless", "--image", f"{layout}:t", rootfs, "/data"]):
        subprocess.run(command, check=True, capture_output=True)
    return layout


def copy_image(layout, target, *options):
    subprocess.run(["skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", *options, f"oci:{layout}:t",
                    f"docker://{target}"], check=True, capture_output=True, timeout=60)


def pull_all(target, what):
    """Manifest, config and layers of @target through the tool."""
    o = tool("manifest", target)
    check(o.rc == 0, f"{what}: the manifest is fetched", o)
    if o.rc:
        return
    head, body = o.out.split(b"\n", 1)
    m = json.loads(body)
    for i, d in enumerate([m["config"], *m["layers"]]):
        path = os.path.join(WORK, f"real{i}")
        half = b""
        if os.path.exists(path):
            os.unlink(path)
        o = tool("blob", target, d["digest"], d["size"], path)
        data = open(path, "rb").read()
        check(o.rc == 0 and digest_of(data) == d["digest"], f"{what}: blob {i} is fetched", o)
        with open(path, "wb") as f:
            f.write(data[:len(data) // 2])
        o = tool("blob", target, d["digest"], d["size"], path)
        check(o.rc == 0 and digest_of(open(path, "rb").read()) == d["digest"], f"{what}: and resumed from its half", o)


def test_real():
    missing = [p for p in ("docker-registry", "skopeo", "umoci") if not shutil.which(p)]
    if missing:
        return skip("docker-registry", f"no {', '.join(missing)}")
    layout = make_image()
    process, host = start_registry(os.path.join(WORK, "open"))
    check(process, "docker-registry starts")
    if process:
        try:
            copy_image(layout, f"{host}/some/image:t")
            copy_image(layout, f"{host}/some/image:v2s2", "--format", "v2s2")
            pull_all(f"{host}/some/image:t", "OCI image")
            pull_all(f"{host}/some/image:v2s2", "schema 2 image")
            o = tool("manifest", f"{host}/some/image:none")
            check(o.failed_with(2, "MANIFEST_UNKNOWN", "no such image or tag"), "an unknown tag", o)
            o = tool("manifest", f"{host}/none:t")
            check(o.failed_with(2, "no such image or tag"), "an unknown repository", o)
        finally:
            process.kill()
            process.wait()
    test_real_auth(layout)


def test_real_auth(layout):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import crypt
            line = "me:" + crypt.crypt("right-word", crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16))
        except (ImportError, AttributeError):
            return skip("docker-registry with htpasswd", "this Python cannot make a bcrypt hash")
    htpasswd = os.path.join(WORK, "htpasswd")
    with open(htpasswd, "w") as f:
        f.write(line + "\n")
    process, host = start_registry(os.path.join(WORK, "closed"), htpasswd)
    check(process, "docker-registry with htpasswd starts")
    if not process:
        return
    try:
        copy_image(layout, f"{host}/some/image:t", "--dest-creds", "me:right-word")
        o = tool("manifest", f"{host}/some/image:t")
        check(o.failed_with(13, f"husk login {host}", "UNAUTHORIZED"), "without a login it is refused", o)
        o = tool("login", host, "me", "wrong-word")
        check(o.failed_with(13, "not accepted") and "wrong-word" not in o.err, "a wrong login is refused", o)
        o = tool("login", host, "me", "right-word")
        check(o.rc == 0, "the right one is taken", o)
        pull_all(f"{host}/some/image:t", "after login")
        o = tool("logout", host)
        check(o.rc == 0 and tool("manifest", f"{host}/some/image:t").rc == 1, "after logout it is refused again", o)
    finally:
        process.kill()
        process.wait()


def main():
    try:
        for test in (test_manifests, test_sizes, test_statuses, test_hangs, test_no_http, test_tls, test_bearer,
                     test_identity_token, test_basic, test_blobs, test_bad_lines, test_lies, test_redirects,
                     test_threads, test_login, test_real):
            test()
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
    print(f"1..{count}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
