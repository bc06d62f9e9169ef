#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 300
"""user_test.py - husk for an ordinary user: the whole way from import to exit status, without any privilege.

As root it becomes a user that owns nothing (65534) with a home of its own, and husk is installed where that user can read.
"""
import os
import pathlib
import shutil
import subprocess
import tempfile

import images
import lib
from lib import equal, ok

USER = 65534


class UserHome(lib.Home):
    """A home below /tmp that the ordinary user owns, husk installed beside it."""

    def __enter__(self):
        self.stage = pathlib.Path(tempfile.mkdtemp(prefix="husk-user-"))
        self.stage.chmod(0o755)
        subprocess.run(["meson", "install", "-C", str(lib.TOP / "build"), "--no-rebuild", "--quiet", "--destdir",
                        str(self.stage / "root")], check=True, stdout=subprocess.DEVNULL)
        self.binary = next((self.stage / "root").rglob("bin/husk"))
        self.libexec = next((self.stage / "root").rglob("husk-vmm")).parent
        self.libraries = [str(p.parent) for p in (self.stage / "root").rglob("libhusk.so*")][:1]
        shutil.copy(images.debian().removeprefix("tar:"), self.stage / "debian.tar")
        self.base = str(self.stage)
        super().__enter__()
        self.path.chmod(0o755)
        for folder, _, files in os.walk(self.path):
            os.chown(folder, USER, USER)
            for name in files:
                os.chown(os.path.join(folder, name), USER, USER, follow_symlinks=False)
        return self

    def __exit__(self, *what):
        super().__exit__(*what)
        shutil.rmtree(self.stage, ignore_errors=True)

    def environment(self):
        kept = {k: v for k, v in super().environment().items() if not k.startswith("XDG_")}
        return {**kept, "HOME": str(self.path), "HUSK_LIBEXEC": str(self.libexec),
                **({"LD_LIBRARY_PATH": self.libraries[0]} if self.libraries else {})}

    def as_user(self, *arguments, extra=None, limit=lib.LIMIT, **popen):
        done = subprocess.run(["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs",
                               "--bounding-set=-all", str(self.binary), *map(str, arguments)], timeout=limit, check=False,
                              env={**self.environment(), **(extra or {})}, cwd="/", stdin=popen.pop("stdin", subprocess.DEVNULL),
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, **popen)
        return lib.Done(arguments, done.returncode, done.stdout, done.stderr, 0)


def test_ordinary_user(_):
    if os.geteuid() != 0:
        raise lib.Skip("this suite's other half: all suites run as an ordinary user already")
    with UserHome() as home:
        done = home.as_user("import", f"tar:{home.stage}/debian.tar", "debian")
        equal(done.status, 0, "an ordinary user imports a root file system", done)
        done = home.as_user("run", "--quiet", "debian", "sh", "-c",
                            "id -u; stat -c '%a %u:%g' /usr/sbin/unix_chkpwd /usr/bin/su; chown 12:34 /root; stat -c %u /root; exit 11")
        equal((done.status, done.text), (11, "0\n2755 0:42\n4755 0:0\n12\n"),
              "and is root in the VM, with exact owners and modes", done)
        done = home.as_user("run", "debian", "true")
        ok(done.status == 0 and "software" in done.error, "the wall is named", done)
        done = home.as_user("doctor")
        equal(done.status, 0, "doctor", done)
        # Without HUSK_HOME: state below XDG_DATA_HOME, sockets below the runtime directory.
        environment = home.environment()
        data = home.path / "data"
        data.mkdir()
        os.chown(data, USER, USER)
        del environment["HUSK_HOME"]
        done = subprocess.run(["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", str(home.binary), "images"],
                              env={**environment, "XDG_DATA_HOME": str(data)}, cwd="/", check=False, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE)
        ok(done.returncode == 0 and (data / "husk").is_dir(), "without HUSK_HOME state goes to XDG_DATA_HOME", done.stderr)
        done = home.as_user("images", extra={"HUSK_HOME": "/root/husk-home"})
        ok(done.status == 1 and "/root" in done.error, "a home that may not be made is refused and named", done)
    lib.none_left()


lib.main(globals())
