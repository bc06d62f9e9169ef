#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 400
"""layers_test.py - what a stack of layers looks like from inside: ours, umoci's, buildah's, forty-five, a whole Debian."""
import re

import images
import lib
from lib import equal, ok


def test_stacked(home):
    image = home.have(images.stacked(), "stacked")
    done = home.run(image, "sh", "-c", r"""
ls -A /d; cat /d/stays /d/changed /d/gone; echo; stat -c %a /d/changed
echo "opaque: $(ls -A /opaque)"; echo "tree: $(ls -AR /tree | tr '\n' ' ')"
echo "becomes: $(cat /becomes-file) $(ls /becomes-dir)"
echo "hard: $(cat /hard-a /hard-b /hard-c | sort -u) $(stat -c %i /hard-a /hard-b /hard-c | sort -u | wc -l)"
stat -c '%n %a %u %g %F' /setuid /sticky /null /fifo
ls / | grep -c '^n\{255\}$'; readlink /dangling; ls /link-to-d/ | head -1
find / -xdev -name '.wh.*' | wc -l; dd if=/dev/zero bs=1k count=1 > /null; stat -c %F /null
""")
    text = done.text
    equal(done.status, 0, "the stacked image runs", done)
    ok(text.startswith("changed\ngone\ngone-again\nstays\n124\n640\n"), "deleted, changed, deleted and made again", done)
    ok("opaque: new\n" in text, "an opaque directory hides all below it", done)
    ok("tree: /tree: new \n" in text or "tree: /tree: new\n" in text, "a directory that was deleted and made again is new", done)
    ok("becomes: 2 y\n" in text, "a directory becomes a file and a file a directory", done)
    ok("hard: hard 1\n" in text, "hard links within and across layers are one file", done)
    ok("/setuid 6755 1000 29 regular file\n/sticky 1770 1001 44 directory\n/null 666 0 0 character special file\n"
       "/fifo 640 0 0 fifo\n" in text, "set-ID and sticky bits, owners, devices and pipes", done)
    ok("\n1\n/no/where\nchanged\n0\ncharacter special file\n" in text, "long names, links, no whiteout is seen", done)


def test_forty_five_layers(home):
    image = home.have(images.forty_five(), "forty-five")
    done = home.run(image, "sh", "-c", "cat /last; ls /layers | wc -l; ls /layers/04 /layers/05 2>&1; grep -c . /proc/partitions")
    ok(done.status == 0 and done.text.startswith("44\n36\n"), "45 layers: the union is right", done)
    ok("/layers/05" in done.text and "/layers/04: No such file" in done.text, "with the whiteouts of each", done)


def test_umoci(home):
    image = home.have(images.by_umoci(), "umoci")
    done = home.run(image, "sh", "-c", "ls -A /d; stat -c %a /setuid; stat -c %h /hard-a; cat /d/new")
    equal(done.text, "new\n4755\n2\n3", "an image that umoci wrote", done)


def test_buildah(home):
    image = home.have(images.by_buildah(), "buildah")
    done = home.run(image)
    ok("uid=1000(alice) gid=29(audio)" in done.text and done.text.endswith("/d\none\nbuildah\n"), "an image that buildah built", done)
    done = home.run("--entrypoint", "/bin/stat", image, "-c", "%a %u %g", "/d/owned")
    equal(done.text, "4750 1000 29\n", "with owner and mode of COPY", done)


def test_debian(home):
    """A whole distribution: its own tools find themselves at home."""
    image = home.have(images.debian(), "debian:bookworm")
    done = home.run("-u", "www-data", image, "sh", "-c",
                    "cat /etc/os-release; id; dpkg --audit; echo audit $?; dpkg-query -l | wc -l; perl -e 'print 6*7, \"\\n\"'; "
                    "stat -c '%a %U:%G' /usr/bin/su /usr/sbin/unix_chkpwd /var/local /tmp; df / | tail -1; uname -r; bash -c 'echo <(true)'")
    text = done.text
    equal(done.status, 0, "Debian runs", done)
    ok('ID=debian' in text and "uid=33(www-data) gid=33(www-data)" in text, "os-release and a user of its own", done)
    ok("audit 0\n" in text and "42\n" in text, "dpkg and perl work", done)
    ok("4755 root:root\n2755 root:shadow\n2775 root:staff\n1777 root:root\n" in text, "modes and owners are the packages'", done)
    ok(re.search(r"/dev/fd/\d+", text), "process substitution works (/dev/fd)", done)


lib.main(globals())
