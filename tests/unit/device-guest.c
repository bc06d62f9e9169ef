/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device-guest.c - PID 1 of a guest that tries husk's devices (see device-tool.c); static, prints "GUEST ok|not ok - what"
 *
 * Loads /modules/[0-9]* in order, reads the whole of /dev/vda twice, writes, reads back and discards on /dev/vdb, connects
 * to host port 5000 (an echo), serves an echo at port 6000 for a connection of the host, and powers off.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/vm_sockets.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB (1 << 20)
#define STREAM_BYTES (64 * MIB)

static char block[MIB], other[MIB];

static void report(int ok, const char *what)
{
	printf("GUEST %s - %s\n", ok ? "ok" : "not ok", what);
	if (!ok)
		printf("GUEST errno %s\n", strerror(errno));
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void load_modules(void)
{
	char path[64];
	for (int i = 0; i < 64; i++) {
		snprintf(path, sizeof(path), "/modules/%02d.ko", i);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			break;
		if (syscall(SYS_finit_module, fd, "", 0) < 0)
			printf("GUEST module %s: %s\n", path, strerror(errno));
		close(fd);
	}
}

static uint64_t sum_of(const char *device, uint64_t *bytes)
{
	uint64_t sum = 0;
	ssize_t n;
	int fd = open(device, O_RDONLY | O_CLOEXEC);
	*bytes = 0;
	while (fd >= 0 && (n = read(fd, block, sizeof(block))) > 0) {
		for (ssize_t i = 0; i < n; i += 8) {
			uint64_t word;
			memcpy(&word, block + i, 8);
			sum = (sum << 1 | sum >> 63) ^ word;
		}
		*bytes += (uint64_t)n;
	}
	close(fd);
	return sum;
}

static void test_root(void)
{
	uint64_t bytes, again;
	double start = now();
	uint64_t sum = sum_of("/dev/vda", &bytes);
	printf("GUEST vda %llu bytes sum %016llx %.0f MB/s\n", (unsigned long long)bytes, (unsigned long long)sum,
		(double)bytes / 1e6 / (now() - start));
	report(sum == sum_of("/dev/vda", &again) && bytes == again && bytes, "vda reads the same twice");
	int fd = open("/dev/vda", O_RDWR | O_CLOEXEC);
	report(fd < 0 || write(fd, block, 4096) < 0, "vda cannot be written");
	report(access("/dev/vda1", F_OK) == 0 && access("/dev/vda2", F_OK) == 0, "vda has partitions");
	char serial[32] = "";
	int s = open("/sys/block/vda/serial", O_RDONLY | O_CLOEXEC);
	if (read(s, serial, sizeof(serial) - 1) < 0)
		serial[0] = 0;
	report(strncmp(serial, "root", 4) == 0, "vda's serial number");
}

static void test_scratch(void)
{
	int fd = open("/dev/vdb", O_RDWR | O_DIRECT | O_CLOEXEC);
	char *aligned = aligned_alloc(4096, MIB), *back = aligned_alloc(4096, MIB);
	memset(aligned, 0x5a, MIB);
	double start = now();
	int ok = 1;
	for (int i = 0; i < 32; i++)
		ok &= pwrite(fd, aligned, MIB, (off_t)i * MIB) == MIB;
	report(ok && fsync(fd) == 0, "vdb is written and flushed");
	printf("GUEST vdb write %.0f MB/s\n", 32.0 * MIB / 1e6 / (now() - start));
	report(pread(fd, back, MIB, 31 * (off_t)MIB) == MIB && !memcmp(aligned, back, MIB), "vdb reads back");
	uint64_t range[2] = {MIB, MIB};
	report(ioctl(fd, BLKDISCARD, range) == 0, "vdb discards");
	memset(aligned, 0, MIB);
	report(pread(fd, back, MIB, MIB) == MIB && !memcmp(aligned, back, MIB), "what was discarded is zero");
	range[0] = 2 * MIB;
	report(ioctl(fd, BLKZEROOUT, range) == 0, "vdb zeroes");
	report(pread(fd, back, MIB, 2 * MIB) == MIB && !memcmp(aligned, back, MIB), "what was zeroed is zero");
}

static void test_connect(void)
{
	struct sockaddr_vm host = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = 5000};
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
	report(connect(fd, (struct sockaddr *)&host, sizeof(host)) == 0, "connect to the host");
	for (size_t i = 0; i < sizeof(block); i++)
		block[i] = (char)(i * 31);
	double start = now();
	pid_t child = fork();
	if (!child) {
		for (int sent = 0; sent < STREAM_BYTES; sent += MIB)
			for (ssize_t at = 0, n; at < MIB; at += n)
				if ((n = write(fd, block + at, MIB - (size_t)at)) <= 0)
					_exit(1);
		shutdown(fd, SHUT_WR);
		_exit(0);
	}
	long got = 0, wrong = 0;
	ssize_t n;
	while ((n = read(fd, other, sizeof(other))) > 0)
		for (ssize_t i = 0; i < n; i++, got++)
			wrong += other[i] != block[got % MIB];
	report(got == STREAM_BYTES && !wrong && n == 0, "64 MiB through the host's echo, half-close, end of file");
	printf("GUEST echo %ld bytes %.0f MB/s each way\n", got, (double)got / 1e6 / (now() - start));
	waitpid(child, NULL, 0);
	close(fd);
	host.svm_port = 5001;
	fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
	report(connect(fd, (struct sockaddr *)&host, sizeof(host)) < 0 && errno == ECONNRESET,
		"a port nobody has is refused");
	close(fd);
}

static void test_listen(void)
{
	struct sockaddr_vm any = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = 6000};
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
	report(bind(fd, (struct sockaddr *)&any, sizeof(any)) == 0 && listen(fd, 8) == 0, "listen at 6000");
	int conn = accept(fd, NULL, NULL);
	report(conn >= 0, "the host connects");
	ssize_t n;
	long total = 0;
	while ((n = read(conn, block, sizeof(block))) > 0)
		for (ssize_t at = 0, w; at < n; at += w, total += w)
			if ((w = write(conn, block + at, (size_t)(n - at))) <= 0)
				_exit(1);
	printf("GUEST echoed %ld bytes\n", total);
	report(n == 0, "the host's end of file arrives");
	close(conn);
}

int main(void)
{
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	int console = open("/dev/ttyS0", O_RDWR);
	dup2(console, 1);
	dup2(console, 2);
	setvbuf(stdout, NULL, _IOLBF, 0);
	load_modules();
	test_root();
	test_scratch();
	test_connect();
	test_listen();
	printf("GUEST done\n");
	sync();
	usleep(100000);
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}
