#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""husk-tls between real TLS clients and a unix server that stands for the VM; prints TAP.

usage: tls_test.py HUSK_TLS

Theory of operation: the test starts husk-tls as a supervisor would (descriptors 3 to 6), plays the VM with threads behind a
unix socket, and is the client itself with Python's ssl, or starts openssl s_client and curl. What takes the handshake's
limit of 10 s to show is begun first and looked at last.
"""
import contextlib
import fcntl
import hashlib
import os
import resource
import select
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time

TLS = os.path.abspath(sys.argv[1])
ASAN = b"__asan_init" in open(TLS, "rb").read()
TOP = tempfile.mkdtemp(prefix="husk-tls-test.")
WORK = os.path.join(TOP, "a-directory-whose-path-is-longer-than-the-address-of-a-unix-socket-" + "x" * 60)
LIMIT = 20  # seconds that anything here may take on a busy machine
count = failed = 0

# husk-tls's descriptors 3 to 6 are put in place after fork: nothing else may lie there.
while os.open("/dev/null", os.O_RDONLY) < 12:
    pass


def check(ok, what, detail=""):
    global count, failed
    count += 1
    failed += not ok
    print(f"{'ok' if ok else 'not ok'} {count} - {what}")
    if not ok:
        for line in str(detail).splitlines()[-25:]:
            print(f"# {line}")
    sys.stdout.flush()


def skip(what, why):
    global count
    count += 1
    print(f"ok {count} - {what} # SKIP {why}")


def within(seconds, condition):
    """Wait for what no descriptor announces."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


# ---- keys and certificates ----

def openssl(*args):
    subprocess.run(["openssl", *args], check=True, stdin=subprocess.DEVNULL, capture_output=True)


def make_certificates():
    new = ["req", "-x509", "-nodes", "-subj", "/CN=localhost", "-days", "30",
           "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    openssl(*new, *curve, "-keyout", "key.pem", "-out", "cert.pem")
    openssl(*new, *curve, "-keyout", "other.pem", "-out", "other-cert.pem")
    openssl(*new, "-newkey", "rsa:2048", "-keyout", "rsa.pem", "-out", "rsa-cert.pem")
    openssl(*new, "-newkey", "rsa:1024", "-keyout", "weak.pem", "-out", "weak-cert.pem")
    openssl("pkey", "-in", "key.pem", "-aes256", "-passout", "pass:word", "-out", "encrypted.pem")
    openssl("ec", "-in", "key.pem", "-aes256", "-passout", "pass:word", "-out", "encrypted-old.pem")
    # An expired one: signed with dates in the past.
    with open("ca.cnf", "w") as f:
        f.write("[ca]\ndefault_ca=c\n[c]\ndatabase=index\nnew_certs_dir=.\nserial=serial\npolicy=p\ndefault_md=sha256\n"
                "[p]\ncommonName=supplied\n")
    open("index", "w").close()
    openssl("req", "-new", "-key", "key.pem", "-subj", "/CN=localhost", "-out", "request.pem")
    openssl("ca", "-batch", "-config", "ca.cnf", "-selfsign", "-create_serial", "-keyfile", "key.pem", "-in", "request.pem",
            "-startdate", "20200101000000Z", "-enddate", "20210101000000Z", "-out", "expired.pem")
    join = lambda name, *parts: open(name, "w").write("".join(open(p).read() for p in parts))
    join("both.pem", "cert.pem", "key.pem")
    join("chain.pem", "cert.pem", "other-cert.pem")
    join("text.pem", "request.pem")
    open("broken-chain.pem", "w").write(open("cert.pem").read() + "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n")
    open("garbage", "wb").write(os.urandom(5000))
    open("empty", "wb").close()
    with open("huge", "wb") as f:
        f.truncate(2 << 20)


# ---- husk-tls ----

def start(verb, listener, certificate, key, inner="door.sock", alpn="", files=None, **more):
    """husk-tls as its supervisor starts it."""
    given = [listener.fileno() if listener else os.open("/dev/null", os.O_RDONLY),
             os.open(certificate, os.O_RDONLY), os.open(key, os.O_RDONLY), os.open(".", os.O_RDONLY)]
    given += [os.dup(given[0])] if not listener else []

    def place():
        if files:
            resource.setrlimit(resource.RLIMIT_NOFILE, files)
        for i, fd in enumerate(given[:4]):
            os.dup2(fd, 3 + i)

    options = os.environ.get("ASAN_OPTIONS", "")
    try:
        return subprocess.Popen([TLS, verb, inner, alpn], preexec_fn=place, pass_fds=(3, 4, 5, 6), stdin=subprocess.DEVNULL,
                                env={**os.environ, "ASAN_OPTIONS": options + ":quarantine_size_mb=1"}, **more)
    finally:
        for fd in given[1:]:
            os.close(fd)


def run_check(certificate, key, inner="door.sock", alpn="http/1.1"):
    p = start("check", None, certificate, key, inner, alpn, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = p.communicate(timeout=LIMIT)
    return p.returncode, out.decode() + err.decode()


class Door:
    """A listening TCP socket with husk-tls behind it."""

    def __init__(self, certificate="cert.pem", key="key.pem", send_buffer=None, **more):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        if send_buffer:  # accepted sockets inherit it
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self.port = self.listener.getsockname()[1]
        self.log = tempfile.TemporaryFile()
        self.process = start("serve", self.listener, certificate, key, stderr=self.log, **more)
        self.certificate = certificate

    def text(self):
        return os.pread(self.log.fileno(), 1 << 20, 0).decode()

    def context(self, version=None, alpn=None):
        c = ssl.create_default_context(cafile=self.certificate)
        c.minimum_version = c.maximum_version = version or ssl.TLSVersion.TLSv1_3
        if alpn:
            c.set_alpn_protocols(alpn)
        return c

    def plain(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT)

    def client(self, **how):
        return self.context(**how).wrap_socket(self.plain(), server_hostname="localhost", suppress_ragged_eofs=False)

    def status(self, name):
        with open(f"/proc/{self.process.pid}/status") as f:
            return next(line.split()[1] for line in f if line.startswith(name + ":"))

    def rss(self):
        """KiB."""
        return int(self.status("VmRSS"))

    def descriptors(self):
        """What it has open, or None where this user may not look into a process that is not dumpable."""
        try:
            return sorted(int(n) for n in os.listdir(f"/proc/{self.process.pid}/fd"))
        except PermissionError:
            return None

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self):
        alive = self.process.poll() is None
        self.process.kill()
        self.process.wait()
        self.listener.close()
        return alive


# ---- the VM ----

def receive_all(s):
    parts = []
    while data := s.recv(65536):
        parts.append(data)
    return b"".join(parts)


def echo(s):
    while data := s.recv(65536):
        s.sendall(data)
    s.shutdown(socket.SHUT_WR)


class Inside:
    """A unix server; `serve` gets each connection in a thread of its own."""

    def __init__(self, name="door.sock", backlog=1024):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(name)
        self.socket.listen(backlog)
        self.serve = echo
        self.served = 0
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                s, _ = self.socket.accept()
            except OSError:
                return
            self.served += 1
            threading.Thread(target=self.one, args=(s, self.serve), daemon=True).start()

    def one(self, s, serve):
        with s, contextlib.suppress(OSError):
            serve(s)


@contextlib.contextmanager
def serving(inside, serve):
    inside.serve = serve
    try:
        yield
    finally:
        inside.serve = echo


def exchange(s, data, sizes=None):
    """Send @data, in pieces of @sizes, and receive as much, at once and in one thread (an SSL object is not for two); what
    came."""
    pieces = [data[at:at + 65536] for at in range(0, len(data), 65536)] if sizes is None else []
    at = 0
    for size in sizes or ():
        pieces.append(data[at:at + size])
        at += size
    pieces = [p for p in reversed(pieces) if p]
    got = bytearray()
    s.setblocking(False)
    while len(got) < len(data):
        moved = False
        with contextlib.suppress(ssl.SSLWantWriteError, ssl.SSLWantReadError):
            if pieces:
                n = s.send(pieces[-1])
                pieces[-1:] = [pieces[-1][n:]] if n < len(pieces[-1]) else []
                moved = True
        with contextlib.suppress(ssl.SSLWantWriteError, ssl.SSLWantReadError):
            part = s.recv(65536)
            if not part:
                break
            got += part
            moved = True
        if not moved and not any(select.select([s], [s] if pieces else [], [], LIMIT)):
            break
    s.settimeout(LIMIT)
    return bytes(got)


def ends_with_reset(s):
    """How the TCP connection below @s, which is used up, ends: True for a reset. Not asked through TLS, which shows a reset
    and a bare end of file alike."""
    with socket.socket(fileno=s.detach()) as plain:
        plain.settimeout(LIMIT)
        try:
            while plain.recv(65536):
                pass
        except ConnectionResetError:
            return True
        except OSError as e:
            return repr(e)
    return "an orderly end"


class Hand:
    """TLS by hand over @socket: half-close is ours to do."""

    def __init__(self, door, **how):
        self.socket = door.plain()
        self.into, self.out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = door.context(**how).wrap_bio(self.into, self.out, server_hostname="localhost")
        self.step(self.tls.do_handshake)

    def flush(self):
        self.socket.sendall(self.out.read())

    def step(self, what, *args):
        while True:
            try:
                result = what(*args)
                self.flush()
                return result
            except ssl.SSLWantReadError:
                self.flush()
                data = self.socket.recv(65536)
                self.into.write(data) if data else self.into.write_eof()

    def send(self, data):
        for at in range(0, len(data), 16384):
            self.step(self.tls.write, data[at:at + 16384])

    def end(self):
        """close_notify, and nothing more."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.flush()

    def receive_all(self):
        """Everything until close_notify; anything else that ends it raises."""
        parts = []
        with contextlib.suppress(ssl.SSLZeroReturnError):
            while part := self.step(self.tls.read, 65536):
                parts.append(part)
        return b"".join(parts)


# ---- tests ----

def test_check():
    for certificate, key in (("cert.pem", "key.pem"), ("chain.pem", "key.pem"), ("both.pem", "both.pem"),
                             ("rsa-cert.pem", "rsa.pem")):
        rc, text = run_check(certificate, key)
        check(rc == 0 and text == "", f"check: {certificate} and {key} are fine", f"{rc} {text}")
    rc, text = run_check("expired.pem", "key.pem")
    check(rc == 0 and "warning" in text and "expired" in text, "check: an expired certificate is a warning", f"{rc} {text}")
    bad = (("cert.pem", "other.pem", "does not match"), ("cert.pem", "rsa.pem", "does not match"),
           ("cert.pem", "encrypted.pem", "encrypted"), ("cert.pem", "encrypted-old.pem", "encrypted"),
           ("garbage", "key.pem", "certificate is not PEM"), ("cert.pem", "garbage", "key is not PEM"),
           ("text.pem", "key.pem", "certificate is not PEM"), ("cert.pem", "cert.pem", "key is not PEM"),
           ("broken-chain.pem", "key.pem", "chain is not PEM"), ("empty", "key.pem", "certificate: it is empty"),
           ("cert.pem", "empty", "private key: it is empty"), (".", "key.pem", "not a regular file"),
           ("cert.pem", ".", "not a regular file"), ("/dev/zero", "key.pem", "not a regular file"),
           ("huge", "key.pem", "more than"), ("weak-cert.pem", "weak.pem", "too small"))
    for certificate, key, words in bad:
        rc, text = run_check(certificate, key)
        check(rc == 1 and words in text and text.startswith("husk-tls: ") and text.count("\n") == 1,
              f"check: {certificate} with {key}: {words}", f"{rc} {text}")
    for inner, alpn, words in (("door.sock", "h2,,x", "ALPN"), ("door.sock", "h2,", "ALPN"), ("door.sock", "x" * 256, "ALPN"),
                               ("door.sock", ",".join(["x" * 50] * 9), "ALPN"), ("a/b", "", "INNER"), ("", "", "INNER"),
                               ("x" * 108, "", "INNER")):
        rc, text = run_check("cert.pem", "key.pem", inner, alpn)
        check(rc == 1 and words in text, f"check: INNER {inner[:12]!r} with ALPN {alpn[:12]!r} is refused", f"{rc} {text}")


def test_not_a_listener():
    with open("/dev/null") as null:
        for what in (null, socket.socket()):
            p = start("serve", what, "cert.pem", "key.pem", stderr=subprocess.PIPE)
            _, err = p.communicate(timeout=LIMIT)
            check(p.returncode == 1 and b"descriptor 3" in err, "something else than a listening socket is refused", err)


def s_client(door, *options, steps=((b"hello\n", b"hello"),)):
    """Run openssl s_client: say each line and wait until what is expected behind it shows; (all it showed, all came)."""
    p = subprocess.Popen(["openssl", "s_client", "-connect", f"127.0.0.1:{door.port}", "-CAfile", "cert.pem", *options],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    shown, came = b"", True
    for line, expected in ((b"", b"\nSSL handshake has read"), *steps):
        with contextlib.suppress(BrokenPipeError):
            p.stdin.write(line)
            p.stdin.flush()
        seen = len(shown)
        while came and expected not in shown[seen:]:
            data = p.stdout.read1(65536) if select.select([p.stdout], [], [], LIMIT)[0] else b""
            shown += data
            came = bool(data)
    with contextlib.suppress(BrokenPipeError):
        p.stdin.close()
    shown += p.stdout.read()
    p.wait(LIMIT)
    return shown.decode(errors="replace"), came


def test_versions(door):
    for version, cipher in (("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")):
        text, found = s_client(door, version, "-verify_return_error", "-alpn", "http/1.1")
        check(found and f"New, {cipher}" in text and "ALPN protocol: http/1.1" in text and "Compression: NONE" in text,
              f"openssl s_client {version} is served", text)
    text, found = s_client(door, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
    check(not found and "alert protocol version" in text, "TLS 1.1 is refused with an alert", text)
    text, found = s_client(door, "-alpn", "h2")
    check(not found and "no application protocol" in text, "a client without a common protocol is refused", text)
    text, found = s_client(door, "-alpn", "h2,http/1.0,http/1.1")
    check(found and "ALPN protocol: http/1.0" in text, "our preference among the protocols counts", text)
    text, found = s_client(door)
    check(found and "No ALPN negotiated" in text, "a client without ALPN is served", text)
    text, found = s_client(door, "-tls1_3", steps=((b"K\n", b"KEYUPDATE"), (b"hello\n", b"hello")))
    check(found and "KEYUPDATE" in text, "a client may ask for new keys", text)
    text, found = s_client(door, "-tls1_2", steps=((b"R\n", b"no renegotiation"),))
    check("RENEGOTIATING" in text and "no renegotiation" in text, "renegotiation is refused", text)
    text, found = s_client(door, "-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES256-GCM-SHA384")
    check(found and "ECDHE-ECDSA-CHACHA20" in text, "a client that puts ChaCha20 first gets it", text)
    for version in ("-tls1_2", "-tls1_3"):
        s_client(door, version, "-sess_out", "session")
        text, found = s_client(door, version, "-sess_in", "session")
        check(found and "Reused, TLS" in text, f"a session is resumed by its ticket, {version}", text)


def test_curl(door, inside):
    if not shutil.which("curl"):
        return skip("curl", "no curl")

    def http(s):
        request = b""
        while b"\r\n\r\n" not in request:
            request += s.recv(65536)
        s.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + request.split(b"\r\n")[0])
        s.shutdown(socket.SHUT_WR)
        s.recv(1)
    with serving(inside, http):
        p = subprocess.run(["curl", "-sS", "--noproxy", "*", "--cacert", "cert.pem", f"https://localhost:{door.port}/path"],
                           capture_output=True, timeout=LIMIT)
    check(p.returncode == 0 and p.stdout == b"GET /path HTTP/1.1", "curl is served", p)


def test_bulk(door):
    data = os.urandom(8 << 20)
    want = hashlib.sha256(data).hexdigest()
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with door.client(version=version) as s:
            begun = time.monotonic()
            got = exchange(s, data)
            seconds = time.monotonic() - begun
            check(hashlib.sha256(got).hexdigest() == want, f"8 MiB both ways, {version.name}, {seconds:.2f} s", len(got))
    with door.client() as s:
        sizes = [i % 700 for i in range(3000)]
        data = os.urandom(sum(sizes))
        check(exchange(s, data, sizes) == data, "3000 records of every size come in order")


def test_half_close(door, inside):
    data = os.urandom(3 << 20)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        def answer_at_end(s):
            got = receive_all(s)
            s.sendall(hashlib.sha256(got).digest() + got)
            s.shutdown(socket.SHUT_WR)
        with serving(inside, answer_at_end):
            hand = Hand(door, version=version)
            hand.send(data)
            hand.end()
            got = hand.receive_all()
        check(got == hashlib.sha256(data).digest() + data, f"the client ends first and gets its answer, {version.name}", len(got))

        result = []

        def end_first(s):
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            result.append(receive_all(s))
        with serving(inside, end_first):
            hand = Hand(door, version=version)
            got = hand.receive_all()
            hand.send(data)
            open_still = not result
            hand.end()
            whole = within(LIMIT, lambda: result)
            last = hand.socket.recv(10)
        check(got == data and whole and open_still and result[0] == data and last == b"",
              f"the VM ends first and still gets what the client sends, {version.name}", f"{len(got)} {whole} {last}")


def watched(inside_ends):
    """A server that reads on until its peer is gone both ways or has only ended its sending."""
    def serve(s):
        data = receive_all(s)
        p = select.poll()
        p.register(s, 0)
        inside_ends.append((data, bool(p.poll(200))))
    return serve


def test_truncation(door, inside):
    ends = []
    with serving(inside, watched(ends)):
        s = door.client()
        s.sendall(b"part of it")
        socket.socket(fileno=s.detach()).close()
        within(LIMIT, lambda: ends)
        check(ends == [(b"part of it", True)], "TCP's end without close_notify closes the inner connection", ends)
        ends.clear()
        s = door.client()
        s.sendall(b"part of it")
        while not inside.served:
            time.sleep(0.01)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        socket.socket(fileno=s.detach()).close()
        within(LIMIT, lambda: ends)
        check(len(ends) == 1 and ends[0][1] and b"part of it".startswith(ends[0][0]),
              "a client's reset closes the inner connection", ends)
        ends.clear()
        hand = Hand(door)
        hand.send(b"all of it")
        hand.end()
        within(LIMIT, lambda: ends)
        check(ends == [(b"all of it", False)], "close_notify ends one direction only", ends)
        hand.socket.close()


def test_inner_ends(door, inside):
    with serving(inside, lambda s: s.recv(1)):
        s = door.client()
        s.sendall(b"x")
        how = ends_with_reset(s)
        check(how is True, "a VM that closes both ways at once resets the client", how)

    def unread(s):
        s.sendall(b"some")
        s.recv(1)
    with serving(inside, unread):
        s = door.client()
        try:
            s.sendall(b"x" * 100_000)
            how = ends_with_reset(s)
        except OSError:
            how = True  # it came while this was sent
        check(how is True, "a VM that closes with bytes unread resets the client", how)

    def ended_then_gone(s):
        s.sendall(b"answer")
        s.shutdown(socket.SHUT_WR)
        gone.wait(LIMIT)
    gone = threading.Event()
    with serving(inside, ended_then_gone):
        hand = Hand(door)
        got = hand.receive_all()
        gone.set()
        fin = hand.socket.recv(10)
        for _ in range(100):
            hand.send(b"y" * 16384)
        hand.end()
        check(got == b"answer" and fin == b"", "a VM that is gone after its end: the client is told, and may still send", fin)
        hand.socket.close()


def unix_room():
    """Bytes that a unix socket takes in records before its reader reads."""
    a, b = socket.socketpair()
    with a, b, contextlib.suppress(BlockingIOError):
        a.setblocking(False)
        n = 0
        while True:
            n += a.send(b"r" * 16384)
    return n


def test_unread_tickets(door, inside):
    """A client that only writes, then closes, and so resets: its kernel has our session tickets, which it never read."""
    data, got, go = os.urandom(unix_room() + 3 * 16384), [], threading.Event()

    def late(s):
        go.wait(LIMIT)
        got.append(receive_all(s))
    with serving(inside, late):
        before = inside.served
        hand = Hand(door)
        hand.send(data)
        hand.end()
        arrived = within(LIMIT, lambda: struct.unpack("i", fcntl.ioctl(hand.socket, termios.TIOCOUTQ, b"1234"))[0] == 0)
        within(LIMIT, lambda: inside.served > before)
        hand.socket.close()
        calm = door.cpu_seconds()
        time.sleep(0.3)
        calm = door.cpu_seconds() - calm
        go.set()
        within(LIMIT, lambda: got)
    check(arrived and calm < 0.1, f"a client that reset behind a slow VM costs nothing ({calm:.2f} s of 0.3)", arrived)
    check(got == [data], "and what it sent before arrives whole", [len(g) for g in got])


def test_gone_before_read(inside):
    """The VM has said all and gone; the client takes its time, and husk-tls's buffer to it is small and full."""
    door = Door(send_buffer=16384)
    said, gone = [], threading.Event()

    def say_and_go(s):
        receive_all(s)
        s.setblocking(False)
        while select.select([], [s], [], 0.3)[1]:
            block = os.urandom(50_000)
            said.append(block[:s.send(block)])
        gone.set()
    with serving(inside, say_and_go):
        hand = Hand(door)
        hand.end()
        gone.wait(LIMIT)
        calm = door.cpu_seconds()
        time.sleep(0.6)
        calm = door.cpu_seconds() - calm
        got = hand.receive_all()
    check(calm < 0.05, f"a VM that is gone before its client has read costs nothing ({calm:.2f} s of 0.6)")
    check(got == b"".join(said) and door.close(), "and what it said before comes whole", len(got))


def test_refused(door, inside):
    os.rename("door.sock", "door.away")
    s = door.client()
    how = ends_with_reset(s)
    os.rename("door.away", "door.sock")
    check(how is True and "cannot enter the VM by door.sock: No such file" in door.text(),
          "a door that is not there resets the client and is logged", f"{how} {door.text()}")
    with door.client() as s:
        check(exchange(s, b"again") == b"again", "when it is back the next client is served")


def test_full_door():
    inside = socket.socket(socket.AF_UNIX)
    inside.bind("full.sock")
    inside.listen(0)
    door = Door(inner="full.sock")
    clients = [door.client() for _ in range(8)]
    for i, s in enumerate(clients):
        s.sendall(b"%d" % i)
    calm = door.cpu_seconds()
    time.sleep(0.5)
    calm = door.cpu_seconds() - calm
    gone = clients.pop()
    gone.close()
    order = []

    def serve():
        for _ in clients:
            s, _ = inside.accept()
            order.append(s.recv(1))
            s.sendall(b"!")
    threading.Thread(target=serve, daemon=True).start()
    answers = [s.recv(1) for s in clients]
    check(answers == [b"!"] * 7 and order == sorted(order), "clients wait in order for a door that is full", order)
    check(calm < 0.25 + ASAN * 0.2, f"and cost little meanwhile ({calm:.2f} s of 0.5)")
    check(door.close(), "husk-tls is alive")
    inside.close()


def test_garbage(door):
    hello = b"\x16\x03\x01"
    for what, data in (("noise", os.urandom(2000)), ("HTTP", b"GET / HTTP/1.1\r\n\r\n"), ("one byte", b"\0"),
                       ("a record too long", hello + b"\xff\xff" + b"x" * 65535),
                       ("a hello too long", hello + b"\x40\x00\x01\xff\xff\xff" + b"x" * 16380),
                       ("an empty record", hello + b"\0\0"), ("SSL 2", bytes.fromhex("802e010002001500000010") + b"\0" * 37)):
        s = door.plain()
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        try:
            while s.recv(4096):
                pass
            ok = True
        except ConnectionResetError:
            ok = True
        except OSError as e:
            ok = repr(e)
        check(ok is True and door.process.poll() is None, f"{what} instead of a hello ends that client only", ok)
    with door.client() as s:
        check(exchange(s, b"still") == b"still", "the next client is served")
    s = door.client()
    os.write(s.fileno(), b"\x17\x03\x03\x00\x20" + b"z" * 32)
    how = ends_with_reset(s)
    check(how in (True, "an orderly end"), "a forged record ends that client", how)


def test_slow_reader(door, inside):
    block = b"m" * 65536
    sent = [0]

    def flood(s):
        s.recv(1)
        while True:
            sent[0] += s.send(block)
    before = door.rss()
    with serving(inside, flood):
        slow = [door.client() for _ in range(20)]
        for s in slow:
            s.sendall(b"x")
        last = -1
        while last != sent[0]:
            last = sent[0]
            time.sleep(0.2)
    grown = door.rss() - before
    check(grown < 20 * (300 if ASAN else 100), f"20 clients that do not read hold back the VM: {sent[0] >> 20} MiB taken, {grown} KiB more memory")

    stuck = [0]

    def deaf(s):
        while not done.is_set():
            done.wait(LIMIT)
    done = threading.Event()
    with serving(inside, deaf):
        pushing = door.client()
        pushing.setblocking(False)
        quiet = time.monotonic()
        while time.monotonic() - quiet < 0.3:
            try:
                stuck[0] += pushing.send(block)
                quiet = time.monotonic()
            except ssl.SSLWantWriteError:
                time.sleep(0.01)
    calm = door.cpu_seconds()
    time.sleep(0.3)
    calm = door.cpu_seconds() - calm
    check(stuck[0] < 64 << 20, f"a VM that does not read holds back the client ({stuck[0] >> 10} KiB)")
    check(calm < 0.1, f"those who wait cost nothing ({calm:.2f} s of 0.3)")
    begun = time.monotonic()
    with door.client() as s:
        ok = exchange(s, b"q" * 100_000) == b"q" * 100_000
    seconds = time.monotonic() - begun
    check(ok and seconds < 5, f"another client is served meanwhile ({seconds * 1000:.0f} ms)")
    pushing.close()
    for s in slow:
        s.close()
    done.set()


def test_fairness(door, inside):
    """One client that never stops, and a small one's time beside it."""
    busy = threading.Event()

    def flood(s):
        s.recv(1)
        while True:
            s.sendall(b"m" * 65536)

    def drain(s):
        with contextlib.suppress(OSError):
            while s.recv(1 << 20):
                busy.set()
    with serving(inside, flood):
        s = door.client()
        s.sendall(b"x")
        reader = threading.Thread(target=drain, args=(s,), daemon=True)
        reader.start()
        busy.wait(LIMIT)
    times = []
    with door.client() as small:
        for _ in range(50):
            begun = time.monotonic()
            small.sendall(b"?")
            small.recv(1)
            times.append(time.monotonic() - begun)
    check(sorted(times)[25] < 0.2, f"one byte's echo beside a flood: p50 {sorted(times)[25] * 1000:.1f} ms")
    s.shutdown(socket.SHUT_RDWR)
    reader.join(LIMIT)
    s.close()


def test_many(door, n):
    context = door.context()
    plain = [door.plain() for _ in range(n)]
    clients = [context.wrap_socket(p, server_hostname="localhost") for p in plain]
    for i, s in enumerate(clients):
        s.sendall(b"client %4d" % i)
    ok = all(s.recv(64) == b"client %4d" % i for i, s in enumerate(clients))
    memory = door.rss()
    for s in clients:
        s.close()
    check(ok, f"{n} connections at once ({memory} KiB)")


def test_few_descriptors(inside):
    door = Door(files=(20, 34))
    check(within(LIMIT, lambda: door.status("Seccomp") == "2"), "the walls stand")
    answers = []

    def one(i):
        with door.client() as s:
            answers.append(exchange(s, b"%d" % i) == b"%d" % i)
    threads = [threading.Thread(target=one, args=(i,), daemon=True) for i in range(40)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(LIMIT)
    check(answers == [True] * 40, "40 clients at once with descriptors for 9: all are served in turn", answers)

    with door.client() as s:
        exchange(s, b"x")
        resource.prlimit(door.process.pid, resource.RLIMIT_NOFILE, (3, 34))
        waiting = door.plain()
        logged = within(LIMIT, lambda: "Too many open files" in door.text())
        calm = door.cpu_seconds()
        time.sleep(0.4)
        calm = door.cpu_seconds() - calm
        check(exchange(s, b"y") == b"y" and logged and calm < 0.1,
              f"without descriptors who is in is served, and nothing spins ({calm:.2f} s of 0.4)", door.text())
        resource.prlimit(door.process.pid, resource.RLIMIT_NOFILE, (34, 34))
    with door.context().wrap_socket(waiting, server_hostname="localhost") as s:
        check(exchange(s, b"z") == b"z", "who came meanwhile is served when there are some again")
    check(door.close(), "husk-tls is alive")


def test_walls(door):
    check(door.status("NoNewPrivs") == "1" and int(door.status("CapEff"), 16) == int(door.status("CapPrm"), 16) == 0,
          "no new privileges, no capabilities")
    check(door.status("Seccomp") == "2", "system calls are filtered")
    fds = door.descriptors()
    if fds is None:
        return skip("the key's descriptors are closed", "only root can look")
    names = [os.readlink(f"/proc/{door.process.pid}/fd/{fd}") for fd in fds]
    check(not any(n.startswith(TOP) for n in names), "certificate, key and directory are closed", names)


class Silent:
    """Clients that do not finish their handshake; begun early, looked at late."""

    def __init__(self, door):
        self.begun = time.monotonic()
        self.clients = [door.plain(), door.plain()]
        self.clients[1].sendall(b"\x16\x03\x01\x02")
        self.ended = []
        self.threads = [threading.Thread(target=self.watch, args=(s,), daemon=True) for s in self.clients]
        for t in self.threads:
            t.start()

    def watch(self, s):
        s.settimeout(30)
        with contextlib.suppress(OSError):
            while s.recv(1):
                pass
            self.ended.append(time.monotonic() - self.begun)

    def look(self):
        for t in self.threads:
            t.join(30)
        check(len(self.ended) == 2 and all(9.9 < t < 15 for t in self.ended), "silent clients are dropped after 10 s", self.ended)


def test_flat(door):
    """After all of the above, and a thousand more: what is open and used as at the beginning."""
    context = door.context()

    def some(n):
        for i in range(n):
            with context.wrap_socket(door.plain(), server_hostname="localhost") as s:
                s.sendall(b"x" * 1000)
                s.recv(10)
    some(200)
    fds, memory = door.descriptors(), door.rss()
    some(1000)
    grown = door.rss() - memory
    check(grown < 512, f"memory is flat after 1000 connections ({memory} KiB, then {grown:+} KiB)")
    if fds is None:
        return skip("descriptors are flat", "only root can look")
    settled = within(LIMIT, lambda: len(door.descriptors()) <= door.at_first)
    check(settled, "descriptors are as at the beginning", door.descriptors())


def main():
    door = None
    try:
        os.mkdir(WORK)
        os.chdir(WORK)
        make_certificates()
        inside = Inside()
        door = Door(alpn="http/1.0,http/1.1")
        within(LIMIT, lambda: door.status("Seccomp") == "2")
        with door.client() as s:
            check(exchange(s, b"first") == b"first", "the first client is served")
        door.at_first = len(door.descriptors() or ()) + 0
        silent = Silent(door)
        test_walls(door)
        test_check()
        test_not_a_listener()
        test_versions(door)
        test_curl(door, inside)
        test_bulk(door)
        test_half_close(door, inside)
        test_truncation(door, inside)
        test_inner_ends(door, inside)
        test_unread_tickets(door, inside)
        test_gone_before_read(inside)
        test_refused(door, inside)
        test_full_door()
        test_garbage(door)
        test_slow_reader(door, inside)
        test_fairness(door, inside)
        test_many(door, 300)
        test_few_descriptors(inside)
        silent.look()
        test_flat(door)
        check(door.close(), "husk-tls is alive at the end", door.text())
        lines = door.text().splitlines()
        check(all(line.startswith("husk-tls: ") for line in lines), "its log has its lines only", "\n".join(lines[-20:]))
    finally:
        if door:
            door.close()
        os.chdir("/")
        shutil.rmtree(TOP, ignore_errors=True)
    print(f"1..{count}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
