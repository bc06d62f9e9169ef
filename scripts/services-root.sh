#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# services-root.sh - a root file system with nginx, Python, redis and PostgreSQL of Debian as a tar, made once per
# machine; prints its path.
#
# The packages are unpacked and not configured: no maintainer script runs, so nothing is started, and neither root nor a
# working chroot is needed. What scripts would have made, and the test uses, is made here: users, and little else. LLVM
# is left out, which PostgreSQL loads for its JIT only.
#
# Lives in the user's cache directory under the digest of this recipe. Packages come from where this machine's apt gets
# them.
set -eu
export LC_ALL=C

cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/husk
key=$(sha256sum <"$0" | cut -c1-16)
tar=$cache/services-$key.tar
if [ -s "$tar" ]; then
	echo "$tar"
	exit 0
fi
mkdir -p "$cache"

# One builder at a time; whoever waited finds the tar made.
exec 9>"$cache/services.lock"
flock 9
if [ -s "$tar" ]; then
	echo "$tar"
	exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Run on the unpacked root, $1; under fakechroot as well, so only with plain file operations.
cat >"$work/finish" <<'HOOK'
#!/bin/sh
set -eu
cd "$1"
rm -rf usr/share/doc usr/share/man usr/share/locale usr/share/i18n usr/share/info usr/include \
	usr/bin/perl* usr/share/perl usr/share/perl5 usr/lib/*/perl usr/lib/*/perl-base usr/lib/*/libperl.so* usr/lib/*/libdb-5.3.so \
	usr/lib/*/libLLVM-14.so* usr/lib/*/libz3.so* usr/lib/llvm-14 usr/lib/postgresql/15/lib/bitcode usr/lib/*/gconv \
	usr/share/zoneinfo/right usr/share/zoneinfo/posix var/cache/apt var/lib/apt etc/ssl/certs
mkdir -p tmp run var/tmp var/lib/nginx var/lib/redis var/lib/postgresql var/www/html dev proc sys root
chmod 1777 tmp var/tmp
ln -sf dash bin/sh
cat >etc/passwd <<'EOT'
root:x:0:0:root:/root:/bin/sh
www-data:x:33:33:www-data:/var/www:/bin/sh
redis:x:103:103::/var/lib/redis:/bin/sh
postgres:x:104:104::/var/lib/postgresql:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
EOT
cat >etc/group <<'EOT'
root:x:0:
www-data:x:33:
redis:x:103:
postgres:x:104:
nogroup:x:65534:
EOT
printf '127.0.0.1 localhost\n::1 localhost\n' >etc/hosts
HOOK
chmod 755 "$work" "$work/finish"

mode=fakechroot
[ "$(id -u)" -eq 0 ] && mode=root
echo "making a root file system with nginx, Python, redis and PostgreSQL (once, about 15 s) ..." >&2
part=$cache/services-$key.part.tar
rm -f "$part"
# apt's own list of sources, as one-line entries; without any of this suite mmdebstrap falls back to its default.
# shellcheck disable=SC2016 # apt's own variables
sources=$(apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 2>/dev/null |
	sort -u | grep -E ' bookworm(-updates|-security)? main$' || true)
set -- --mode="$mode" --variant=extract --extract-hook="$work/finish" \
	--include=dash,coreutils,sed,grep,util-linux,nginx,python3-minimal,libpython3.11-stdlib,redis-server,postgresql-15,libc-bin \
	bookworm "$part"
# TMPDIR: apt unpacks as its sandbox user, which must be able to get there.
if [ -n "$sources" ]; then
	printf '%s\n' "$sources" | TMPDIR=/tmp mmdebstrap "$@" - 9>&- >&2
else
	TMPDIR=/tmp mmdebstrap "$@" </dev/null 9>&- >&2
fi
mv "$part" "$tar"
echo "$tar"
