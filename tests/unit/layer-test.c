/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer-test.c - layers into block images: hostile and odd tars made in memory, looked at with unsquashfs
 *
 * A tar is a buffer that the tests append entries to; show() converts and returns what `unsquashfs -lln` (squashfs-tools,
 * none of our code) lists. Without unsquashfs there is nothing independent to look with, and the program skips.
 */
#include "base/buffer.h"
#include "base/fd.h"
#include "base/tlv.h"
#include "image/layer.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

static char image_path[] = "/tmp/layer-test-XXXXXX";
static int image_fd;
static struct layer_result result;
static struct husk_error error;
static const struct layer_options *options;

static void octal(char *field, int digits, unsigned long long value)
{
	for (field[digits] = 0; digits-- > 0; value >>= 3)
		field[digits] = (char)('0' + (value & 7));
}

/** What may be said of an entry. */
struct entry {
	const char *name, *link, *data;
	char type;
	unsigned mode, uid, gid, major, minor;
	size_t size; /* of data; 0: its length */
	unsigned long long claimed; /* a size that is not true */
};

static void add(struct buffer *tar, struct entry e)
{
	char h[512] = {0};
	size_t size = e.size ? e.size : e.data ? strlen(e.data) : 0;
	strncpy(h, e.name, 100);
	octal(h + 100, 7, e.mode ? e.mode : 0644);
	octal(h + 108, 7, e.uid);
	octal(h + 116, 7, e.gid);
	octal(h + 124, 11, e.claimed ? e.claimed : size);
	octal(h + 136, 11, 1000);
	memset(h + 148, ' ', 8);
	h[156] = e.type ? e.type : '0';
	if (e.link)
		strncpy(h + 157, e.link, 100);
	memcpy(h + 257, "ustar\00000", 8);
	octal(h + 329, 7, e.major);
	octal(h + 337, 7, e.minor);
	unsigned sum = 0;
	for (int i = 0; i < 512; i++)
		sum += (unsigned char)h[i];
	octal(h + 148, 6, sum);
	buffer_append(tar, h, 512);
	if (size) {
		buffer_append(tar, e.data, size);
		memset(h, 0, 512);
		buffer_append(tar, h, -size & 511);
	}
}

#define ADD(tar, ...) add(tar, (struct entry){__VA_ARGS__})
#define FILE_(tar, n, text) ADD(tar, .name = n, .data = text)
#define DIR_(tar, n) ADD(tar, .name = n, .type = '5', .mode = 0755)
#define LINK(tar, n, to) ADD(tar, .name = n, .type = '1', .link = to)
#define SYMLINK(tar, n, to) ADD(tar, .name = n, .type = '2', .link = to)

/* A pax record for the next entry. */
static void pax(struct buffer *tar, const char *key, const char *value, size_t n)
{
	char record[2048];
	size_t length = strlen(key) + n + 3, digits = 1;
	for (size_t total = length + 1; total >= 10; total /= 10)
		digits++;
	if (length + digits >= 100 && digits < 3)
		digits = 3;
	int at = sprintf(record, "%zu %s=", length + digits, key);
	memcpy(record + at, value, n);
	record[(size_t)at + n] = '\n';
	ADD(tar, .name = "pax", .type = 'x', .data = record, .size = (size_t)at + n + 1);
}

static void end(struct buffer *tar)
{
	static const char zeros[1024];
	buffer_append(tar, zeros, sizeof(zeros));
}

static int source_fd(const struct buffer *bytes)
{
	int fd = memfd_create("tar", MFD_CLOEXEC);
	if (fd_write_all(fd, buffer_bytes(bytes), bytes->size) < 0 || lseek(fd, 0, SEEK_SET) < 0)
		perror("memfd");
	return fd;
}

static int convert_bytes(const struct buffer *bytes, struct layer_source source)
{
	CLEANUP_FD int fd = source_fd(bytes);
	source.fd = fd;
	source.name = "T";
	error.message[0] = 0;
	if (ftruncate(image_fd, 0) < 0)
		perror("ftruncate");
	return layer_convert(&source, image_fd, options, &result, &error);
}

/* What unsquashfs says of the image, single-spaced, in a static buffer. */
static const char *listing(void)
{
	static char text[1 << 21];
	char command[200];
	snprintf(command, sizeof(command), "TZ=UTC unsquashfs -lln %s 2>&1", image_path);
	FILE *pipe = popen(command, "r");
	size_t n = pipe ? fread(text, 1, sizeof(text) - 1, pipe) : 0;
	text[n] = 0;
	if (pipe && pclose(pipe) != 0)
		snprintf(text, sizeof(text), "unsquashfs failed");
	char *to = text;
	for (const char *at = text; *at; at++) {
		if (*at != ' ' || at[1] != ' ')
			*to++ = *at;
	}
	*to = 0;
	return text;
}

/* Convert and list; frees the tar. */
static const char *show(struct buffer *tar)
{
	end(tar);
	int r = convert_bytes(tar, (struct layer_source){0});
	buffer_free(tar);
	return r < 0 ? error.message : listing();
}

static bool refused(struct buffer *tar, const char *why)
{
	end(tar);
	int r = convert_bytes(tar, (struct layer_source){0});
	buffer_free(tar);
	if (r >= 0 || !strstr(error.message, why))
		printf("# got %d: %s\n", r, error.message);
	return r < 0 && strstr(error.message, why) && strncmp(error.message, "layer T", 7) == 0;
}

static bool has(const char *text, const char *line)
{
	if (strstr(text, line))
		return true;
	printf("# no \"%s\" in:\n", line);
	char *copy = strdup(text), *rest = copy;
	for (char *at; (at = strsep(&rest, "\n"));)
		printf("#   %s\n", at);
	free(copy);
	return false;
}

/* The contents of a file in the image. */
static bool contains(const char *path, const char *text)
{
	char command[300], got[100] = {0};
	snprintf(command, sizeof(command), "unsquashfs -cat %s %s", image_path, path);
	FILE *pipe = popen(command, "r");
	size_t n = pipe ? fread(got, 1, sizeof(got) - 1, pipe) : 0;
	if (pipe)
		pclose(pipe);
	if (strcmp(got, text) != 0)
		printf("# %s: got \"%.*s\"\n", path, (int)n, got);
	return strcmp(got, text) == 0;
}

/* rdsquashfs (squashfs-tools-ng) shows extended attributes; unsquashfs only extracts them. */
static bool xattrs_are(const char *path, const char *text)
{
	char command[300], got[1000] = {0};
	snprintf(command, sizeof(command), "rdsquashfs -x %s %s 2>/dev/null", path, image_path);
	FILE *pipe = popen(command, "r");
	size_t n = pipe ? fread(got, 1, sizeof(got) - 1, pipe) : 0;
	if (pipe)
		pclose(pipe);
	if (strcmp(got, text) != 0)
		printf("# %s: got \"%.*s\"\n", path, (int)n, got);
	return strcmp(got, text) == 0;
}

static void test_kinds(void)
{
	struct buffer tar = {0};
	ADD(&tar, .name = "./", .type = '5', .mode = 0755, .uid = 7);
	ADD(&tar, .name = "suid", .mode = 04755, .uid = 2000000, .gid = 1999999, .data = "x");
	ADD(&tar, .name = "tmp/", .type = '5', .mode = 01777);
	ADD(&tar, .name = "null", .type = '3', .major = 1, .minor = 3, .mode = 0666);
	ADD(&tar, .name = "disk", .type = '4', .major = 259, .minor = 7, .mode = 0660);
	ADD(&tar, .name = "pipe", .type = '6');
	SYMLINK(&tar, "link", "to/nowhere");
	const char *text = show(&tar);
	CHECK(has(text, "drwxr-xr-x 7/0"), "the root's own entry gives its owner");
	CHECK(has(text, "-rwsr-xr-x 2000000/1999999"), "setuid and owners beyond 16 bits are kept");
	CHECK(has(text, "drwxrwxrwt 0/0"), "the sticky bit is kept");
	CHECK(has(text, "crw-rw-rw- 0/0 1, 3 "), "a character device is kept");
	CHECK(has(text, "259, 7 "), "a block device is kept");
	CHECK(has(text, "prw-r--r-- 0/0"), "a fifo is kept");
	CHECK(has(text, "link -> to/nowhere"), "a dangling symbolic link is kept");
	CHECK(has(text, "1970-01-01 00:16 squashfs-root/suid"), "modification times are kept");
	CHECK(!result.needs_lower && result.entries == 6 && result.size == 4096, "counts and size are right");
	CHECK(contains("suid", "x"), "contents are right");
}

static void test_names(void)
{
	struct buffer tar = {0};
	FILE_(&tar, "/abs", "1");
	FILE_(&tar, "./././rel", "2");
	FILE_(&tar, "a//b/./c", "3");
	FILE_(&tar, "bytes\xe9\xff", "4");
	const char *text = show(&tar);
	CHECK(has(text, "squashfs-root/abs\n") && has(text, "squashfs-root/rel\n") &&
			has(text, "squashfs-root/a/b/c\n"),
		"absolute names, ./ and // are normalised");
	CHECK(has(text, "bytes\xe9\xff"), "names that are not UTF-8 are kept");
	CHECK(result.needs_lower, "implied directories need the lower layers");
	char name[300];
	memset(name, 'n', 255);
	name[255] = 0;
	pax(&tar, "path", name, 255);
	FILE_(&tar, "x", "1");
	CHECK(has(show(&tar), name), "a name of 255 bytes is kept");
	memset(name, 'n', 256);
	name[256] = 0;
	pax(&tar, "path", name, 256);
	FILE_(&tar, "x", "1");
	CHECK(refused(&tar, "longer than 255"), "a name of 256 bytes is refused");
	FILE_(&tar, "../x", "1");
	CHECK(refused(&tar, "contains \"..\""), "../x is refused");
	FILE_(&tar, "a/../../x", "1");
	CHECK(refused(&tar, "contains \"..\""), "a/../../x is refused");
	LINK(&tar, "x", "../../etc/shadow");
	CHECK(refused(&tar, "contains \"..\""), "a hard link to ../../etc/shadow is refused");
	FILE_(&tar, "..x", "1");
	CHECK(has(show(&tar), "squashfs-root/..x"), "..x is a name like others");
}

static void test_symlinks(void)
{
	struct buffer tar = {0};
	SYMLINK(&tar, "l", "/../../etc");
	FILE_(&tar, "l/passwd", "inside");
	const char *text = show(&tar);
	CHECK(has(text, "squashfs-root/etc/passwd\n") && contains("etc/passwd", "inside"),
		"a path through a link of the layer ends below the root");
	FILE_(&tar, "f", "1");
	FILE_(&tar, "f/x", "1");
	CHECK(refused(&tar, "\"f/x\": goes through \"f\", which is not a directory"),
		"a path through a file is refused");
	SYMLINK(&tar, "l", "m");
	SYMLINK(&tar, "m", "l");
	FILE_(&tar, "l/x", "1");
	CHECK(refused(&tar, "too many symbolic links"), "a path through a loop of links is refused");
}

static void test_duplicates(void)
{
	struct buffer tar = {0};
	FILE_(&tar, "a", "first");
	LINK(&tar, "kept", "a");
	FILE_(&tar, "a", "second one");
	DIR_(&tar, "d");
	FILE_(&tar, "d/in", "1");
	ADD(&tar, .name = "d", .type = '5', .mode = 0700);
	DIR_(&tar, "e");
	FILE_(&tar, "e/in", "1");
	FILE_(&tar, "e", "now a file");
	FILE_(&tar, "g", "1");
	DIR_(&tar, "g");
	SYMLINK(&tar, "s", "a");
	LINK(&tar, "s2", "s");
	const char *text = show(&tar);
	CHECK(contains("a", "second one"), "the last entry of a name wins");
	CHECK(contains("kept", "first"), "a hard link keeps the inode that its target had then");
	CHECK(has(text, "drwx------ 0/0") && has(text, "squashfs-root/d/in"),
		"a directory again changes its mode and keeps what is in it");
	CHECK(contains("e", "now a file") && !strstr(text, "e/in"), "a file replaces a directory and all in it");
	CHECK(has(text, "drwxr-xr-x 0/0 3 1970-01-01 00:16 squashfs-root/g\n"), "a directory replaces a file");
	CHECK(has(text, "squashfs-root/s2 -> a"), "a hard link to a symbolic link is that link");
	CHECK(!result.needs_lower, "all of it stands on its own");
}

static void test_links(void)
{
	struct buffer tar = {0};
	LINK(&tar, "x", "lower/file");
	FILE_(&tar, "y", "1");
	const char *text = show(&tar);
	CHECK(result.needs_lower && !strstr(text, "squashfs-root/x"), "a link to a lower file is left out and said");
	DIR_(&tar, "d");
	LINK(&tar, "x", "d");
	CHECK(refused(&tar, "hard link to the directory"), "a hard link to a directory is refused");
	FILE_(&tar, "same", "1");
	LINK(&tar, "same", "same");
	CHECK(has(show(&tar), "squashfs-root/same"), "a hard link to itself changes nothing");
}

static void test_whiteouts(void)
{
	struct buffer tar = {0};
	FILE_(&tar, ".wh.gone", "");
	DIR_(&tar, "opq");
	FILE_(&tar, "opq/.wh..wh..opq", "");
	FILE_(&tar, "opq/.wh.idle", "");
	FILE_(&tar, ".wh..wh.aufs", "");
	FILE_(&tar, ".wh..wh.plnk/12.34", "");
	FILE_(&tar, ".wh.both", "");
	FILE_(&tar, "both", "here");
	FILE_(&tar, "after", "here");
	FILE_(&tar, ".wh.after", "");
	FILE_(&tar, ".wh.dir", "");
	DIR_(&tar, "dir");
	const char *text = show(&tar);
	CHECK(has(text, "c--------- 0/0 0, 0 1970-01-01 00:00 squashfs-root/gone"),
		"a whiteout is a character device 0/0");
	CHECK(contains("both", "here") && contains("after", "here"),
		"a whiteout leaves the entry of its own layer, before or after it");
	CHECK(!strstr(text, "aufs") && !strstr(text, "plnk") && !strstr(text, ".wh."), "leftovers of aufs are ignored");
	CHECK(xattrs_are("opq", "trusted.overlay.opaque=y\n"), "an opaque marker is trusted.overlay.opaque");
	CHECK(xattrs_are("dir", "trusted.overlay.opaque=y\n"), "a directory instead of a whiteout is opaque");
	CHECK(!strstr(text, "idle"), "a whiteout in an opaque directory hides nothing and is left out");
	CHECK(!result.needs_lower, "whiteouts stand on their own");
	FILE_(&tar, ".wh..", "");
	CHECK(refused(&tar, "whiteout of \".\""), "a whiteout of . is refused");
	FILE_(&tar, ".wh...", "");
	CHECK(refused(&tar, "whiteout of \"..\""), "a whiteout of .. is refused");
	FILE_(&tar, ".wh.", "");
	CHECK(refused(&tar, "whiteout of \"\""), "a whiteout of nothing is refused");
	FILE_(&tar, ".wh.a/b", "");
	CHECK(refused(&tar, "goes through a whiteout"), "a path through a whiteout is refused");
	FILE_(&tar, ".wh..wh..opq", "");
	show(&tar);
	CHECK(result.needs_lower, "an opaque root needs merging: overlayfs does not look there");
}

static void test_xattrs(void)
{
	struct buffer tar = {0};
	static const char capability[20] = {1, 0, 0, 2, 0, 32};
	pax(&tar, "SCHILY.xattr.user.a", "1", 1);
	FILE_(&tar, "plain", "1");
	pax(&tar, "SCHILY.xattr.security.capability", capability, sizeof(capability));
	FILE_(&tar, "cap", "1");
	pax(&tar, "SCHILY.xattr.trusted.overlay.opaque", "y", 1);
	DIR_(&tar, "evil");
	pax(&tar, "SCHILY.xattr.user.overlay.whiteout", "y", 1);
	FILE_(&tar, "evil2", "");
	pax(&tar, "SCHILY.acl.access", "user::rw-,user:5:rwx,group::r--,mask::rwx,other::r--", 52);
	FILE_(&tar, "acl", "");
	pax(&tar, "SCHILY.xattr.system.posix_acl_access", "zz", 2);
	FILE_(&tar, "acl2", "");
	show(&tar);
	CHECK(xattrs_are("plain", "user.a=1\n"), "user attributes are kept");
	CHECK(xattrs_are("cap", "security.capability=0x0100000200200000000000000000000000000000\n"),
		"security.capability is kept byte by byte");
	CHECK(xattrs_are("evil", "") && xattrs_are("evil2", ""), "instructions to overlayfs are stripped");
	CHECK(result.dropped_acls == 2, "ACLs are counted");
	for (int i = 0; i < 512; i++) {
		char name[16], value[16];
		sprintf(name, "f%d", i);
		pax(&tar, "SCHILY.xattr.user.n", value, (size_t)sprintf(value, "%d", i));
		FILE_(&tar, name, "");
	}
	show(&tar);
	CHECK(xattrs_are("f0", "user.n=0\n") && xattrs_are("f511", "user.n=511\n"),
		"512 different sets fill a block exactly");
}

/* Two files of 300 KiB: one of holes and one that does not compress; and a claimed size. */
static void test_contents(void)
{
	struct buffer tar = {0};
	size_t n = 300 << 10;
	CLEANUP_FREE char *bytes = calloc(1, n);
	ADD(&tar, .name = "zeros", .data = bytes, .size = n);
	for (size_t i = 0, x = 1; i < n; i++)
		bytes[i] = (char)((x = x * 6364136223846793005 + 1442695040888963407) >> 56);
	ADD(&tar, .name = "noise", .data = bytes, .size = n);
	const char *text = show(&tar);
	CHECK(has(text, "307200 1970-01-01 00:16 squashfs-root/zeros") && result.size < n + 8192, "zeros take no room");
	char command[200];
	snprintf(command, sizeof(command), "unsquashfs -cat %s noise", image_path);
	FILE *pipe = popen(command, "r");
	CLEANUP_FREE char *got = calloc(1, n + 1);
	CHECK(pipe && fread(got, 1, n + 1, pipe) == n && memcmp(got, bytes, n) == 0, "noise comes back as it was");
	if (pipe)
		pclose(pipe);
	ADD(&tar, .name = "short", .data = "abc", .claimed = 1ull << 32);
	CHECK(refused(&tar, "\"short\": read tar: Truncated"), "a tar that ends inside a file is refused");
	pax(&tar, "GNU.sparse.major", "1", 1);
	pax(&tar, "GNU.sparse.minor", "0", 1);
	ADD(&tar, .name = "plain", .data = "x");
	show(&tar);
	struct buffer sparse = {0};
	static const char records[] = "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"
				      "29 GNU.sparse.name=terabytes\n37 GNU.sparse.realsize=4398046511104\n";
	char map[1024] = "1\n4398046510592\n512\n";
	memset(map + 512, 'e', 512);
	ADD(&sparse, .name = "pax", .type = 'x', .data = records);
	ADD(&sparse, .name = "x", .data = map, .size = 1024);
	text = show(&sparse);
	CHECK(has(text, "4398046511104 1970-01-01 00:16 squashfs-root/terabytes") && result.size < 1 << 20,
		"a sparse file of 4 TiB is cheap");
	static const char more[] = "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"
				   "29 GNU.sparse.name=terabytes\n43 GNU.sparse.realsize=4611686018427387904\n";
	ADD(&sparse, .name = "pax", .type = 'x', .data = more);
	ADD(&sparse, .name = "x", .data = map, .size = 1024);
	CHECK(refused(&sparse, "more than 8 TiB of holes"), "a sparse file of 4 EiB is refused");
}

static void test_many(void)
{
	struct buffer tar = {0};
	char name[32];
	DIR_(&tar, "many");
	for (int i = 0; i < 10000; i++) {
		sprintf(name, "many/file-%d", i * 7919 % 10000);
		FILE_(&tar, name, "x");
	}
	const char *text = show(&tar);
	CHECK(result.entries == 10001, "ten thousand files in one directory are all there");
	CHECK(has(text, "squashfs-root/many/file-0\n"), "and listed in order");
	CHECK(contains("many/file-9999", "x") && contains("many/file-5000", "x"), "and found by name");
	const struct layer_options few = {.max_entries = 100};
	options = &few;
	for (int i = 0; i < 101; i++) {
		sprintf(name, "f%d", i);
		FILE_(&tar, name, "");
	}
	CHECK(refused(&tar, "more than 100 entries"), "a cap on entries is kept");
	for (int i = 0; i < 2000; i++)
		FILE_(&tar, "same", "");
	CHECK(refused(&tar, "more than 100 entries"), "entries of one name count too");
	options = NULL;
}

static bool bytes_refused(const char *bytes, size_t n, struct layer_source source, const char *why)
{
	struct buffer b = {0};
	buffer_append(&b, bytes, n);
	int r = convert_bytes(&b, source);
	buffer_free(&b);
	if (r >= 0 || !strstr(error.message, why))
		printf("# got %d: %s\n", r, error.message);
	return r < 0 && strstr(error.message, why);
}

static void test_garbage(void)
{
	char html[600];
	memset(html, ' ', sizeof(html));
	memcpy(html, "\n<!DOCTYPE html>", 16);
	const struct layer_source none = {0};
	CHECK(bytes_refused("", 0, none, "layer T: is empty"), "no bytes are no layer");
	CHECK(bytes_refused(html, sizeof(html), none, "looks like HTML"), "HTML is named");
	CHECK(bytes_refused("{\"errors\":[]}", 13, none, "looks like JSON"), "JSON is named");
	CHECK(bytes_refused("BZh91AY&SY", 10, none, "is bzip2"), "bzip2 is named");
	CHECK(bytes_refused("abc", 3, none, "too few"), "three bytes are no layer");
	char junk[2048];
	memset(junk, 'j', sizeof(junk));
	CHECK(bytes_refused(junk, sizeof(junk), none, "not a tar archive"), "junk is no layer");
	struct buffer tar = {0};
	const char *text = show(&tar);
	CHECK(has(text, "squashfs-root\n") && result.entries == 0, "an archive without entries is an empty layer");
}

/* @tar as a gzip member of stored blocks. */
static void gzip(const struct buffer *tar, struct buffer *out)
{
	buffer_append(out, "\x1f\x8b\x08\0\0\0\0\0\0\3", 10);
	for (size_t at = 0; at < tar->size;) {
		size_t n = tar->size - at < 60000 ? tar->size - at : 60000;
		uint8_t head[5] = {at + n == tar->size, (uint8_t)n, (uint8_t)(n >> 8), (uint8_t)~n, (uint8_t)(~n >> 8)};
		buffer_append(out, head, 5);
		buffer_append(out, buffer_bytes(tar) + at, n);
		at += n;
	}
	uint32_t tail[2] = {crc32_ieee(0, buffer_bytes(tar), tar->size), (uint32_t)tar->size};
	buffer_append(out, tail, 8);
}

static void test_gzip(void)
{
	struct buffer tar = {0}, packed = {0}, twice = {0}, broken = {0};
	const struct layer_source none = {0};
	FILE_(&tar, "a", "contents");
	end(&tar);
	convert_bytes(&tar, none);
	struct layer_result plain = result;
	gzip(&tar, &packed);
	CHECK(convert_bytes(&packed, none) == 0 && strcmp(plain.diff_id, result.diff_id) == 0, "gzip is inflated");
	CHECK(strcmp(result.digest, result.diff_id) != 0 && strcmp(plain.digest, plain.diff_id) == 0,
		"digest and diff ID are of the bytes before and after");
	struct buffer half = {.data = buffer_bytes(&tar), .size = 700},
		      rest = {.data = half.data + 700, .size = tar.size - 700};
	gzip(&half, &twice);
	gzip(&rest, &twice);
	CHECK(convert_bytes(&twice, none) == 0 && strcmp(plain.diff_id, result.diff_id) == 0,
		"members follow each other");
	CHECK(bytes_refused((char *)buffer_bytes(&packed), packed.size - 1, none, "gzip: the stream is truncated"),
		"a gzip without its last byte is truncated");
	CHECK(bytes_refused((char *)buffer_bytes(&packed), 12, none, "truncated"), "so is one with hardly a first");
	buffer_append(&packed, "\0\0\0\0", 4);
	CHECK(bytes_refused((char *)buffer_bytes(&packed), packed.size, none, "not gzip behind the end"),
		"bytes behind the last member are refused");
	buffer_append(&broken, buffer_bytes(&twice), twice.size);
	buffer_bytes(&broken)[30] ^= 1;
	CHECK(bytes_refused((char *)buffer_bytes(&broken), broken.size, none, "layer T: "), "a flipped bit is found");
	buffer_free(&tar);
	buffer_free(&packed);
	buffer_free(&twice);
	buffer_free(&broken);
}

static void test_digests(void)
{
	struct buffer tar = {0};
	const struct layer_source none = {0};
	FILE_(&tar, "a", "contents");
	end(&tar);
	convert_bytes(&tar, none);
	char diff_id[DIGEST_MAX];
	strcpy(diff_id, result.diff_id);
	buffer_append(&tar, "behind the end", 14);
	const char *bytes = (char *)buffer_bytes(&tar);
	CHECK(convert_bytes(&tar, none) == 0 && strcmp(diff_id, result.diff_id) != 0,
		"bytes behind the tar's end count in the digests");
	CHECK(bytes_refused(bytes, tar.size, (struct layer_source){.digest = diff_id}, "wrong digest"),
		"a wrong digest is refused");
	CHECK(bytes_refused(bytes, tar.size, (struct layer_source){.diff_id = diff_id}, "wrong diff ID"),
		"a wrong diff ID is refused");
	CHECK(bytes_refused(bytes, tar.size, (struct layer_source){.size = tar.size + 1}, "bytes came where"),
		"a layer that is too short is refused");
	CHECK(bytes_refused(bytes, tar.size, (struct layer_source){.size = tar.size - 1}, "longer than"),
		"a layer that is too long is refused");
	CLEANUP_FD int full = open("/dev/full", O_RDWR | O_CLOEXEC);
	CLEANUP_FD int fd = source_fd(&tar);
	const struct layer_source source = {.fd = fd, .name = "T"};
	int r = layer_convert(&source, full, NULL, &result, &error);
	CHECK(r == -ENOSPC && strstr(error.message, "layer T: ") && strstr(error.message, "No space left"),
		"a full disk is an error that says so");
	buffer_free(&tar);
}

static int merge(struct buffer *tars, size_t n)
{
	struct layer_source sources[8] = {0};
	struct layer_result results[8];
	static const char *const names[8] = {"T0", "T1", "T2", "T3", "T4", "T5", "T6", "T7"};
	for (size_t i = 0; i < n; i++) {
		end(&tars[i]);
		sources[i] = (struct layer_source){.fd = source_fd(&tars[i]), .name = names[i]};
		buffer_free(&tars[i]);
	}
	if (ftruncate(image_fd, 0) < 0)
		perror("ftruncate");
	int r = layer_merge(sources, n, image_fd, options, results, &error);
	result = results[n - 1];
	for (size_t i = 0; i < n; i++)
		close(sources[i].fd);
	return r;
}

static void test_merge(void)
{
	struct buffer t[3] = {0};
	DIR_(&t[0], "./");
	DIR_(&t[0], "usr");
	ADD(&t[0], .name = "usr/lib", .type = '5', .mode = 0750, .uid = 5);
	FILE_(&t[0], "usr/lib/a", "lower a");
	FILE_(&t[0], "usr/lib/b", "lower b");
	SYMLINK(&t[0], "lib", "usr/lib");
	DIR_(&t[0], "opq");
	FILE_(&t[0], "opq/old", "1");
	DIR_(&t[0], "gone");
	FILE_(&t[0], "gone/x", "1");
	FILE_(&t[1], "lib/c", "through the link");
	FILE_(&t[1], ".wh.gone", "");
	DIR_(&t[1], "opq");
	FILE_(&t[1], "opq/.wh..wh..opq", "");
	FILE_(&t[1], "opq/new", "2");
	LINK(&t[1], "ln", "usr/lib/b");
	FILE_(&t[1], "usr/lib/b", "upper b");
	DIR_(&t[2], "gone");
	FILE_(&t[2], "gone/y", "back");
	LINK(&t[2], "ln2", "lib/a");
	CHECK(merge(t, 3) == 0, "three layers are merged");
	const char *text = listing();
	CHECK(contains("usr/lib/c", "through the link") && has(text, "squashfs-root/lib -> usr/lib"),
		"an implied directory follows a lower link");
	CHECK(has(text, "drwxr-x--- 5/0") && !result.needs_lower,
		"an implied directory takes its attributes from below");
	CHECK(contains("ln", "lower b") && contains("usr/lib/b", "upper b"),
		"a hard link to a lower file outlives its replacement");
	CHECK(contains("ln2", "lower a"), "a hard link through a lower link is found");
	CHECK(!strstr(text, "opq/old") && has(text, "squashfs-root/opq/new"),
		"an opaque directory hides what was below");
	CHECK(xattrs_are("opq", ""), "no mark of overlayfs is left");
	CHECK(!strstr(text, "gone/x") && has(text, "squashfs-root/gone/y") && !strstr(text, "0, 0 "),
		"whiteouts remove and are gone");
	FILE_(&t[0], "a", "both names");
	LINK(&t[0], "b", "a");
	FILE_(&t[1], "a", "new");
	CHECK(merge(t, 2) == 0 && contains("b", "both names") && contains("a", "new"),
		"a hidden file with a living hard link keeps its contents");
	FILE_(&t[0], "a", "1");
	LINK(&t[1], "x", "nowhere");
	CHECK(merge(t, 2) < 0 && strstr(error.message, "layer T1: hard link \"x\" to \"nowhere\""),
		"a hard link to nothing is refused by name");
	FILE_(&t[0], "d", "1");
	FILE_(&t[1], "d/x", "1");
	CHECK(merge(t, 2) < 0 && strstr(error.message, "goes through \"d\""), "a path through a lower file is refused");
	CLEANUP_FREE char *deep = malloc(4096);
	for (int i = 0; i < 4094; i++)
		deep[i] = i % 2 ? '/' : 'd';
	memcpy(deep + 4093, "/f", 3);
	for (int i = 0; i < 2; i++) {
		CLEANUP_FREE char *record = malloc(5000);
		ADD(&t[i], .name = "pax", .type = 'x', .data = record,
			.size = (size_t)sprintf(record, "%zu path=%s\n", strlen(deep) + 11, deep));
		FILE_(&t[i], "x", "deep");
	}
	CHECK(merge(t, 2) == 0 && result.entries == 2048, "two layers nested 2047 deep are merged");
	CLEANUP_FREE char *noise = malloc(1 << 20);
	for (size_t i = 0, x = 1; i < 1 << 20; i++)
		noise[i] = (char)((x = x * 6364136223846793005 + 1442695040888963407) >> 56);
	ADD(&t[0], .name = "big", .data = noise, .size = 1 << 20);
	FILE_(&t[1], "big", "small");
	CHECK(merge(t, 2) == 0 && contains("big", "small") && result.size == 4096, "hidden contents are not stored");
	FILE_(&t[0], "x", "1");
	FILE_(&t[1], ".wh..wh..opq", "");
	FILE_(&t[1], "y", "1");
	CHECK(merge(t, 2) == 0 && !strstr(listing(), "squashfs-root/x"), "an opaque root hides everything");
}

static void test_tree(void)
{
	char dir[] = "/tmp/layer-tree-XXXXXX", command[300], first[DIGEST_MAX];
	if (!mkdtemp(dir))
		return;
	snprintf(command, sizeof(command),
		"cd %s && mkdir d && echo text > d/f && ln d/f hard && ln -s d/f soft && mkfifo p && chmod 4711 hard "
		"&& "
		"truncate -s 1G holes && touch -h -d @1000 d d/f soft p holes . ",
		dir);
	if (system(command) != 0)
		perror(command);
	int r = layer_from_tree(dir, image_fd, NULL, &result, &error);
	CHECK(r == 0 && result.entries == 6, "a tree is converted");
	strcpy(first, result.diff_id);
	const char *text = listing();
	CHECK(has(text, "-rws--x--x") && has(text, "squashfs-root/soft -> d/f"), "modes and links are kept");
	CHECK(contains("d/f", "text\n") && contains("hard", "text\n"), "contents are right");
	CHECK(has(text, "1073741824 1970-01-01 00:16 squashfs-root/holes") && result.size == 4096, "holes are cheap");
	layer_from_tree(dir, image_fd, NULL, &result, &error);
	CHECK_STRING(result.diff_id, first, "the same tree has the same diff ID");
	snprintf(command, sizeof(command), "cd %s && touch -d @1001 p", dir);
	if (system(command) != 0)
		perror(command);
	layer_from_tree(dir, image_fd, NULL, &result, &error);
	CHECK(strcmp(result.diff_id, first) != 0, "another time is another diff ID");
	snprintf(command, sizeof(command), "rm -r %s", dir);
	if (system(command) != 0)
		perror(command);
	CHECK(layer_from_tree(dir, image_fd, NULL, &result, &error) == -ENOENT && strstr(error.message, dir),
		"a tree that is not there is named");
}

int main(void)
{
	if (system("command -v unsquashfs rdsquashfs >/dev/null") != 0) {
		printf("1..0 # SKIP no unsquashfs\n");
		return 0;
	}
	image_fd = mkostemp(image_path, O_CLOEXEC);
	test_kinds();
	test_names();
	test_symlinks();
	test_duplicates();
	test_links();
	test_whiteouts();
	test_xattrs();
	test_contents();
	test_many();
	test_garbage();
	test_gzip();
	test_digests();
	test_merge();
	test_tree();
	unlink(image_path);
	return tap_done();
}
