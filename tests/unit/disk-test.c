/* SPDX-License-Identifier: Apache-2.0 */
/* disk-test.c - disks of one file and of layers; sfdisk and sgdisk judge the partition table */
#include "vmm/virtio/disk.h"

#include "base/cleanup.h"
#include "base/tlv.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <sys/mman.h>

static int file_of(size_t size, char fill)
{
	int fd = memfd_create("layer", MFD_CLOEXEC);
	char *bytes = malloc(size ? size : 1);
	memset(bytes, fill, size);
	if (write(fd, bytes, size) < 0)
		size = 0;
	free(bytes);
	return fd;
}

static int read_at(struct disk *disk, uint64_t offset, void *bytes, size_t n)
{
	struct iovec iov = {bytes, n};
	return disk_read(disk, offset, &iov, 1);
}

static void test_file(void)
{
	struct disk *disk;
	int fd = file_of(8192, 'a');
	CHECK(disk_open_file(fd, false, &disk, NULL) == 0 && disk->size == 8192, "a file is a disk");
	char bytes[8192 + 512], more[512];
	CHECK(read_at(disk, 4096, bytes, 4096) == 0 && bytes[4095] == 'a', "it reads");
	CHECK(read_at(disk, 4096, bytes, 4097) == -ERANGE, "not beyond its end");
	CHECK(read_at(disk, UINT64_MAX - 511, bytes, 512) == -ERANGE, "not far beyond its end");
	CHECK(read_at(disk, 8192, bytes, 0) == 0, "nothing at the end is fine");
	memset(bytes, 'b', sizeof(bytes));
	memset(more, 'c', sizeof(more));
	struct iovec iov[2] = {{bytes, 512}, {more, 512}};
	CHECK(disk_write(disk, 512, iov, 2) == 0 && disk_flush(disk) == 0, "it is written and flushed");
	CHECK(read_at(disk, 1024, bytes, 512) == 0 && bytes[0] == 'c' && bytes[511] == 'c', "and reads back");
	CHECK(disk_zero(disk, 0, 4096, true) == 0 && read_at(disk, 512, bytes, 512) == 0 && bytes[0] == 0, "discard");
	CHECK(disk_zero(disk, 4096, 4096, false) == 0 && read_at(disk, 4096, bytes, 512) == 0 && bytes[0] == 0, "zero");
	CHECK(disk_zero(disk, 4096, 4097, false) == -ERANGE, "zeroes beyond the end are refused");
	CHECK(disk_zero(disk, UINT64_MAX, 2, true) == -ERANGE, "a range that wraps is refused");
	CHECK(ftruncate(fd, 4096) == 0 && read_at(disk, 4096, bytes, 512) == -EIO, "a file cut short is an I/O error");
	disk_close(disk);
	CHECK(fcntl(fd, F_GETFD) < 0, "closing the disk closes the file");

	fd = file_of(4096, 'a');
	disk_open_file(fd, true, &disk, NULL);
	struct iovec one = {bytes, 512};
	CHECK(disk_write(disk, 0, &one, 1) == -EROFS && disk_zero(disk, 0, 512, true) == -EROFS, "read-only means it");
	disk_close(disk);
	fd = file_of(1000, 'a');
	CHECK(disk_open_file(fd, true, &disk, NULL) == -EINVAL, "half a sector is refused");
	close(fd);
	fd = file_of(0, 'a');
	CHECK(disk_open_file(fd, true, &disk, NULL) == -EINVAL, "no sector is refused");
	close(fd);
	int pair[2];
	CHECK(pipe(pair) == 0 && disk_open_file(pair[0], true, &disk, NULL) == -EINVAL, "a pipe is no disk");
	close(pair[0]);
	close(pair[1]);
}

/** All of @disk as a file, read in pieces that fit no boundary. */
static bool dump(struct disk *disk, const char *path)
{
	FILE *out = fopen(path, "we");
	static char bytes[300 * 512 + 7 * 512];
	bool ok = out;
	for (uint64_t at = 0; ok && at < disk->size;) {
		size_t n = disk->size - at < sizeof(bytes) ? disk->size - at : sizeof(bytes);
		struct iovec iov[3] = {{bytes, 5}, {bytes + 5, n / 2}, {bytes + 5 + n / 2, n - 5 - n / 2}};
		ok = disk_read(disk, at, iov, 3) == 0 && fwrite(bytes, 1, n, out) == n;
		at += n;
	}
	return (!out || fclose(out) == 0) && ok;
}

static void test_layers(size_t n)
{
	struct disk *disk, *again;
	int fds[DISK_LAYERS_MAX], twice[DISK_LAYERS_MAX];
	char path[64], command[256], byte[512];
	snprintf(path, sizeof(path), "/tmp/husk-disk-test.%d", (int)getpid());
	for (size_t i = 0; i < n; i++) {
		fds[i] = file_of(i == 0 ? 3 << 20 : 1000 + i * 4096, (char)('A' + i % 26));
		twice[i] = dup(fds[i]);
	}
	CHECK(disk_open_layers(fds, n, &disk, NULL) == 0 && disk->read_only, "layers make a disk");
	CHECK(dump(disk, path), "it reads from end to end");
	snprintf(command, sizeof(command), "sfdisk --verify %s 2>&1 | grep -q 'No errors detected'", path);
	CHECK(system("command -v sfdisk >/dev/null") != 0 || system(command) == 0,
		"sfdisk, where it is, finds no fault");
	snprintf(command, sizeof(command), "sgdisk -v %s 2>&1 | grep -q 'No problems found'", path);
	CHECK(system("command -v sgdisk >/dev/null") != 0 || system(command) == 0, "nor does sgdisk");
	snprintf(command, sizeof(command), "test $(sgdisk -p %s | grep -c layer-) = %zu", path, n);
	CHECK(system("command -v sgdisk >/dev/null") != 0 || system(command) == 0, "a partition per layer");
	CHECK(read_at(disk, DISK_ALIGN, byte, 512) == 0 && byte[0] == 'A', "the first layer begins at 1 MiB");
	CHECK(n < 2 || (read_at(disk, 4 * DISK_ALIGN, byte, 512) == 0 && byte[0] == 'B'), "the second behind it");
	disk_open_layers(twice, n, &again, NULL);
	CHECK(!memcmp(disk->tables, again->tables, 2 * DISK_ALIGN), "the same layers make the same disk");
	struct iovec iov = {byte, 512};
	CHECK(disk_write(disk, DISK_ALIGN, &iov, 1) == -EROFS, "nobody writes to it");
	disk_close(disk);
	disk_close(again);
	unlink(path);
}

int main(void)
{
	struct disk *disk;
	int fds[DISK_LAYERS_MAX + 1];
	test_file();
	test_layers(1);
	test_layers(2);
	test_layers(127);
	CHECK(disk_open_layers(fds, 0, &disk, NULL) == -EINVAL, "no layers");
	CHECK(disk_open_layers(fds, DISK_LAYERS_MAX + 1, &disk, NULL) == -EINVAL, "too many layers");
	fds[0] = file_of(0, 'a');
	CHECK(disk_open_layers(fds, 1, &disk, NULL) == -EINVAL, "an empty layer");
	close(fds[0]);
	return tap_done();
}
