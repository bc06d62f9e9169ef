/* SPDX-License-Identifier: Apache-2.0 */
/* initramfs-test.c - the guest's archives are what cpio reads, and the envelope in them is what husk-init reads */
#include "agent/boot.h"
#include "base/fd.h"
#include "base/tlv.h"
#include "engine/initramfs.h"
#include "guest/envelope.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <sys/mman.h>

static struct husk_error err;

/** What `cpio` says of the archives in @fd; fails softly when there is no cpio. */
static bool cpio_says(int fd, const char *arguments, char *text, size_t room)
{
	char command[256];
	snprintf(command, sizeof(command), "cpio --quiet %s < /proc/self/fd/%d 2>/dev/null", arguments, fd);
	lseek(fd, 0, SEEK_SET);
	fcntl(fd, F_SETFD, 0);
	FILE *p = popen(command, "r");
	size_t n = p ? fread(text, 1, room - 1, p) : 0;
	text[n] = 0;
	return p && pclose(p) == 0;
}

static void test_archives(void)
{
	char text[4096];
	const char *modules[] = {"/proc/self/exe"};
	int fd = memfd_create("initramfs", 0);
	CHECK(initramfs_write(fd, "/proc/self/exe", modules, 1, &err) == 0, "the shared archive is written");
	off_t shared = lseek(fd, 0, SEEK_END);
	CHECK(shared % 512 == 0, "its end is aligned");
	if (!cpio_says(fd, "-it", text, sizeof(text)))
		printf("# no cpio here\n");
	else
		CHECK_STRING(text, "dev\ndev/console\nhusk\nhusk/modules\ninit\nhusk/modules/exe\n",
			"cpio lists its members");
	CHECK(initramfs_append_boot(fd, "envelope", 8, &err) == 0, "the envelope is appended");
	/* cpio reads one archive: give it the second as the kernel would come to it. */
	int second = memfd_create("second", 0);
	static char rest[8192];
	ssize_t n = pread(fd, rest, sizeof(rest), shared);
	CHECK(n > 0 && n % 4 == 0 && write(second, rest, (size_t)n) == n, "it begins where the first ends");
	if (cpio_says(second, "-i --to-stdout husk/boot", text, sizeof(text)))
		CHECK_STRING(text, "envelope", "cpio finds the envelope");
	CHECK(initramfs_append_boot(fd, rest, BOOT_SIZE_MAX + 1, &err) == -EFBIG,
		"an envelope over the limit is refused");
	CHECK(initramfs_write(fd, "/nonexistent", NULL, 0, &err) == -ENOENT,
		"a husk-init that is not there is an error");
	CHECK(strstr(err.message, "/nonexistent") != NULL, "which names it");
}

/** Parse an envelope with one entry beside those that must be there. */
static int parse(uint16_t tag, const void *value, size_t size, struct envelope *e)
{
	CLEANUP_BUFFER struct buffer b = {0};
	tlv_begin(&b, BOOT_MAGIC, BOOT_VERSION);
	tlv_put_string(&b, BOOT_ROOT_DEVICE, "vda");
	tlv_put_string(&b, BOOT_SCRATCH_DEVICE, "vdb");
	tlv_put_u32(&b, BOOT_LAYERS, 3);
	if (tag)
		tlv_put(&b, tag, value, size);
	tlv_seal(&b);
	return envelope_parse(buffer_bytes(&b), b.size, e, &err);
}

static bool refused(uint16_t tag, const char *value)
{
	struct envelope e;
	return parse(tag, value, strlen(value), &e) < 0;
}

static void test_envelope(void)
{
	struct envelope e;
	CHECK(parse(0, NULL, 0, &e) == 0 && e.layers == 3 && strcmp(e.root_device, "vda") == 0, "an envelope reads");
	CHECK(e.nofile == 1048576 && e.shm_size == 64 << 20 && !e.flags, "with the defaults");
	envelope_free(&e);
	CHECK(parse(BOOT_VOLUME, "/data", 5, &e) == 0 && e.n_volumes == 1, "a volume reads");
	envelope_free(&e);
	CHECK(refused(BOOT_VOLUME, "data"), "a relative volume is refused");
	CHECK(refused(BOOT_MODULE, "../x.ko") && refused(BOOT_LATE_MODULE, "../x.ko"), "a module with a slash is refused");
	CHECK(parse(BOOT_LATE_MODULE, "x.ko", 4, &e) == 0 && e.n_late_modules == 1 && !e.n_modules, "a late module is told from others");
	envelope_free(&e);
	CHECK(refused(BOOT_ROOT_DEVICE, "../sda") && refused(BOOT_ROOT_DEVICE, ""), "odd device names are refused");
	CHECK(refused(BOOT_HOSTNAME, "a b") && refused(BOOT_HOSTNAME, "a\n"), "odd host names are refused");
	CHECK(refused(BOOT_LAYERS, "\x80\0\0") && refused(BOOT_LAYERS, "abc"), "layers out of range are refused");
	CHECK(refused(BOOT_FLAGS, "\xff\xff\xff\xff"), "unknown flags are refused");
	CHECK(parse(BOOT_STOP_SIGNAL, "\x22\0\0", 4, &e) == 0 && e.stop_signal == 34, "a stop signal reads");
	envelope_free(&e);
	CHECK(refused(BOOT_STOP_SIGNAL, "\x41\x01\x01\x01"), "one out of range is refused");
	CHECK(refused(99, "x"), "unknown tags are refused");
	CHECK(envelope_parse("", 0, &e, &err) < 0, "nothing is no envelope");
}

int main(void)
{
	test_archives();
	test_envelope();
	return tap_done();
}
