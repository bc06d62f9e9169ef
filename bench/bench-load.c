/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-load.c - a kernel and an initramfs into guest memory, against a bare read(). usage: bench-load [--raw] KERNEL INITRD
 *
 * In turn for each round, both files in the page cache: x86_boot_load() into fresh memory as the `kvm` machine has it, and read()
 * of as many bytes of the same files into the fresh mapping of a memfd (of an ELF file only the segments are loaded). Making
 * and unmapping the memory is not timed. Prints a table; with --raw two lines of milliseconds, the loader's and the bare one's.
 */
#include "base/cleanup.h"
#include "vmm/machine/arch/x86_64/boot.h"
#include "vmm/machine/arch/x86_64/boot_internal.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define ROUNDS 50
#define RAM (512ull << 20)

enum way { LOADER, BARE, WAYS };
static double times[WAYS][ROUNDS];

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	exit(1);
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void make_memory(struct memory *memory, enum way way)
{
	struct husk_error err;
	int fd = -1, rc = 0;
	*memory = (struct memory){0};
	if (way == LOADER)
		memory_init_anonymous(memory, RAM);
	else if ((rc = memory_make_fd(RAM, &fd, &err)) == 0)
		rc = memory_init(memory, fd, &err);
	if (rc < 0 || x86_map_memory(memory, RAM, &err) < 0) {
		fprintf(stderr, "bench-load: %s\n", err.message);
		exit(1);
	}
}

/** Seconds of the loader. */
static double load(int kernel, int initrd)
{
	struct memory memory;
	struct x86_entry entry;
	struct husk_error err;
	make_memory(&memory, LOADER);
	const struct x86_boot boot = {
		.memory = &memory, .kernel_fd = kernel, .initrd_fd = initrd, .cmdline = "console=hvc0 quiet"};
	double begun = now();
	int rc = x86_boot_load(&boot, &entry, &err);
	double seconds = now() - begun;
	if (rc < 0) {
		fprintf(stderr, "bench-load: %s\n", err.message);
		exit(1);
	}
	memory_destroy(&memory);
	return seconds;
}

static void read_bare(int fd, uint8_t *to, uint64_t n)
{
	while (n > 0) {
		ssize_t got = read(fd, to, n);
		must(got > 0, "read");
		to += got;
		n -= (uint64_t)got;
	}
}

/** Seconds of reading @n and @n_initrd bytes. */
static double read_both(int kernel, uint64_t n, int initrd, uint64_t n_initrd)
{
	struct memory memory;
	make_memory(&memory, BARE);
	uint8_t *to = memory_at(&memory, 1 << 20, RAM - (1 << 20));
	lseek(kernel, 0, SEEK_SET);
	lseek(initrd, 0, SEEK_SET);
	double begun = now();
	read_bare(kernel, to, n);
	read_bare(initrd, to + n, n_initrd);
	double seconds = now() - begun;
	memory_destroy(&memory);
	return seconds;
}

/** Bytes of the kernel's file that the loader reads into memory. */
static uint64_t loaded_bytes(int kernel)
{
	static const struct boot_format *const formats[] = {&boot_bzimage, &boot_elf};
	uint8_t head[BOOT_HEAD];
	struct memory memory;
	struct boot_plan plan = {0};
	struct stat st;
	uint64_t n = 0;
	must(fstat(kernel, &st) == 0 && pread(kernel, head, sizeof(head), 0) == sizeof(head), "kernel");
	const struct boot_file file = {.what = "kernel", .fd = kernel, .size = (uint64_t)st.st_size};
	make_memory(&memory, LOADER);
	for (unsigned i = 0; i < ARRAY_SIZE(formats); i++)
		if (formats[i]->probe(head, sizeof(head)))
			(void)formats[i]->plan(&file, &memory, &plan, NULL);
	for (unsigned i = 0; i < plan.n_pieces; i++)
		n += plan.pieces[i].n;
	memory_destroy(&memory);
	return n;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static void print_table(uint64_t bytes)
{
	static const char *const names[WAYS] = {"x86_boot_load", "bare read()"};
	double ratios[ROUNDS];
	for (unsigned i = 0; i < ROUNDS; i++)
		ratios[i] = times[BARE][i] / times[LOADER][i];
	qsort(ratios, ROUNDS, sizeof(double), ascending);
	printf("%.1f MB into fresh memory, %d rounds\n", (double)bytes / 1e6, ROUNDS);
	for (unsigned way = 0; way < WAYS; way++) {
		qsort(times[way], ROUNDS, sizeof(double), ascending);
		double p50 = times[way][ROUNDS / 2];
		printf("%-14s p50 %7.2f ms (%.0f MB/s), p99 %7.2f ms\n", names[way], p50, (double)bytes / 1e3 / p50,
			times[way][ROUNDS - 1 - ROUNDS / 100]);
	}
	printf("%-14s p50 %7.2f, p99 %7.2f\n", "times as fast", ratios[ROUNDS / 2], ratios[ROUNDS / 100]);
}

int main(int argc, char **argv)
{
	bool raw = argc > 1 && strcmp(argv[1], "--raw") == 0;
	if (argc - raw != 3) {
		fprintf(stderr, "usage: bench-load [--raw] KERNEL INITRD\n");
		return 2;
	}
	int kernel = open(argv[1 + raw], O_RDONLY | O_CLOEXEC), initrd = open(argv[2 + raw], O_RDONLY | O_CLOEXEC);
	struct stat st;
	must(kernel >= 0 && initrd >= 0 && fstat(initrd, &st) == 0, "open");
	uint64_t n = loaded_bytes(kernel), n_initrd = (uint64_t)st.st_size;
	for (int i = -1; i < ROUNDS; i++) { /* the first brings the files into the page cache */
		double loader = load(kernel, initrd), bare = read_both(kernel, n, initrd, n_initrd);
		if (i < 0)
			continue;
		times[LOADER][i] = loader * 1e3;
		times[BARE][i] = bare * 1e3;
	}
	if (!raw)
		print_table(n + n_initrd);
	for (unsigned way = 0; raw && way < WAYS; way++)
		for (unsigned i = 0; i < ROUNDS; i++)
			printf("%.3f%c", times[way][i], i + 1 < ROUNDS ? ' ' : '\n');
	return 0;
}
