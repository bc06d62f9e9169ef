/* SPDX-License-Identifier: Apache-2.0 */
/*
 * save-test.c - sandboxes' snapshots into files and out of them, whatever is in the files and whatever fails
 *
 * Theory of operation: the system calls that save and load make go through functions of the same names below, which count
 * them, and let one of them fail or the process end there.
 */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/path.h"
#include "base/tlv.h"
#include "sandbox/saved.h"
#include "test_snapshot.h"
#include "tests/descriptors.h"
#include "tests/tap.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- system calls ---- */

static struct {
	int left; /* of calls until it happens; 0: never */
	bool die; /* what happens: the process ends, or the call fails */
	int error;
} trap;

/** Does this call fail? */
static bool trapped(void)
{
	if (!trap.left || --trap.left)
		return false;
	if (trap.die)
		_exit(0);
	errno = trap.error;
	return true;
}

#define VIA(type, name, number, parameters, ...)                                                                       \
	type name parameters;                                                                                          \
	type name parameters                                                                                           \
	{                                                                                                              \
		return trapped() ? -1 : (type)syscall(number, __VA_ARGS__);                                            \
	}

VIA(int, fsync, SYS_fsync, (int fd), fd)
VIA(int, renameat2, SYS_renameat2, (int from_at, const char *from, int to_at, const char *to, unsigned flags), from_at,
	from, to_at, to, flags)
VIA(int, ftruncate, SYS_ftruncate, (int fd, off_t size), fd, size)
VIA(ssize_t, write, SYS_write, (int fd, const void *bytes, size_t n), fd, bytes, n)
VIA(ssize_t, pwrite, SYS_pwrite64, (int fd, const void *bytes, size_t n, off_t at), fd, bytes, n, at)
VIA(ssize_t, read, SYS_read, (int fd, void *bytes, size_t n), fd, bytes, n)
VIA(ssize_t, pread, SYS_pread64, (int fd, void *bytes, size_t n, off_t at), fd, bytes, n, at)
VIA(off_t, lseek, SYS_lseek, (int fd, off_t at, int from), fd, at, from)
VIA(ssize_t, getrandom, SYS_getrandom, (void *to, size_t n, unsigned flags), to, n, flags)

int open(const char *path, int flags, ...)
{
	va_list arguments;

	va_start(arguments, flags);
	mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
	va_end(arguments);
	return trapped() ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

/* ---- files ---- */

static char directory[] = "/tmp/husk-save-XXXXXX";

/** How many files there are; remove: and remove them. */
static unsigned count_files(bool remove)
{
	CLEANUP_DIR DIR *dir = opendir(directory);
	unsigned n = 0;

	for (struct dirent *entry; dir && (entry = readdir(dir));) {
		n += entry->d_name[0] != '.';
		if (entry->d_name[0] != '.' && remove)
			unlinkat(dirfd(dir), entry->d_name, 0);
	}
	return n;
}

/** Load @path and compare; 1: it is @want, 0: it is not, -errno: not loaded. */
static int load_same(const char *path, const struct husk_sandbox_snapshot *want, struct husk_error *err)
{
	struct husk_sandbox_snapshot *got = NULL;
	int rc = husk_sandbox_snapshot_load(path, &got, err);

	if (rc == 0)
		rc = test_snapshot_equal(want, got);
	husk_sandbox_snapshot_free(got);
	return rc;
}

static void test_round_trip(struct husk_sandbox_snapshot *snapshot)
{
	CLEANUP_FREE char *path = path_join(directory, "s"), *again = path_join(directory, "again"),
			  *memory = path_join(directory, "s.memory");
	struct husk_sandbox_snapshot *loaded = NULL;
	struct husk_error err = {0};
	struct stat st;

	CHECK(husk_sandbox_snapshot_save(snapshot, path, &err) == 0 && count_files(false) == 2, "a snapshot is saved");
	CHECK(stat(memory, &st) == 0 && st.st_size == (off_t)(MEMORY_FILE_HEADER + snapshot->size) &&
			st.st_blocks * 512 < 40 * 4096,
		"its memory with holes");
	CHECK(husk_sandbox_snapshot_load(path, &loaded, &err) == 0 && test_snapshot_equal(snapshot, loaded),
		"and loaded, the same bit for bit");
	CHECK(husk_sandbox_snapshot_image(loaded) == loaded->image && loaded->image->n_exports == 2 &&
			strcmp(loaded->image->exports[1].name, "greet") == 0,
		"with its program");
	CHECK(husk_sandbox_snapshot_save(loaded, again, &err) == 0 && load_same(again, snapshot, &err) == 1,
		"what was loaded is saved, and is the same once more");
	husk_sandbox_snapshot_free(loaded);
	husk_sandbox_snapshot_free(NULL);
	CHECK(husk_sandbox_snapshot_load(again, &loaded, &err) == 0 && unlink(path) == 0 && unlink(again) == 0 &&
			count_files(true) == 2 && test_snapshot_equal(snapshot, loaded),
		"it needs no names once it is loaded");
	husk_sandbox_snapshot_free(loaded);
}

static void test_names(struct husk_sandbox_snapshot *snapshot)
{
	CLEANUP_FREE char *path = path_join(directory, "s"), *memory = path_join(directory, "s.memory"),
			  *nowhere = path_join(directory, "none/s"), *other = path_join(directory, "t"),
			  *other_memory = path_join(directory, "t.memory");
	struct husk_error err = {0};

	CHECK(husk_sandbox_snapshot_save(snapshot, nowhere, &err) == -ENOENT && strstr(err.message, nowhere),
		"without a directory nothing is saved");
	CHECK(husk_sandbox_snapshot_save(snapshot, path, &err) == 0, "saved");
	CHECK(husk_sandbox_snapshot_save(snapshot, path, &err) == -EEXIST && strstr(err.message, path) &&
			count_files(false) == 2 && load_same(path, snapshot, &err) == 1,
		"what is there is not replaced");
	unlink(path);
	CHECK(husk_sandbox_snapshot_save(snapshot, path, &err) == -EEXIST && strstr(err.message, memory) &&
			count_files(false) == 1,
		"not even a memory alone");
	CHECK(load_same(path, snapshot, &err) == -ENOENT, "which is no snapshot");
	unlink(memory);
	CHECK(husk_sandbox_snapshot_save(snapshot, path, &err) == 0 &&
			husk_sandbox_snapshot_save(snapshot, other, &err) == 0 && rename(memory, other_memory) == 0,
		"the memory of a snapshot in the place of another's");
	CHECK(load_same(other, snapshot, &err) == -EBADMSG && strstr(err.message, "of another snapshot") &&
			strstr(err.message, other_memory),
		"is refused, though all of it is the same");
	CHECK(load_same(path, snapshot, &err) == -ENOENT && strstr(err.message, memory),
		"a snapshot without memory names what it lacks");
	CHECK(truncate(other_memory, 65536) == 0 && rename(other_memory, memory) == 0 &&
			load_same(path, snapshot, &err) == -EBADMSG && strstr(err.message, "truncated"),
		"and a memory that was cut is refused");
	count_files(true);
}

/** Save in a child that has been made to fail by @prepare; does it say @code, and leave nothing? */
static bool fails_with(struct husk_sandbox_snapshot *snapshot, bool (*prepare)(void), int code)
{
	CLEANUP_FREE char *path = path_join(directory, "s");
	int status;

	pid_t pid = fork();
	if (pid == 0) {
		struct husk_error err = {0};
		if (!prepare())
			_exit(77);
		int rc = husk_sandbox_snapshot_save(snapshot, path, &err);
		printf("# %s\n", err.message);
		fflush(stdout);
		_exit(rc == code && err.code == rc && (code == -EACCES || count_files(false) == 0) ? 0 : 1);
	}
	waitpid(pid, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
		printf("# this could not be tried here\n");
		return true;
	}
	return status == 0 && count_files(true) == 0;
}

static bool limit_files(void)
{
	struct rlimit limit = {.rlim_cur = 1 << 20, .rlim_max = 1 << 20};
	signal(SIGXFSZ, SIG_IGN);
	return setrlimit(RLIMIT_FSIZE, &limit) == 0;
}

static bool small_disk(void)
{
	if (unshare(CLONE_NEWNS) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
		return false;
	return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("tmpfs", directory, "tmpfs", 0, "size=32k") == 0;
}

static bool read_only_directory(void)
{
	if (chmod(directory, 0555) < 0)
		return false;
	return geteuid() != 0 || setresuid(65534, 65534, 65534) == 0;
}

static void test_disk(struct husk_sandbox_snapshot *snapshot)
{
	fflush(stdout);
	CHECK(fails_with(snapshot, limit_files, -EFBIG), "a file that may not be as large leaves nothing");
	CHECK(fails_with(snapshot, small_disk, -ENOSPC), "nor does a full disk");
	CHECK(fails_with(snapshot, read_only_directory, -EACCES), "nor a directory that cannot be written");
	chmod(directory, 0700);
}

/** Save, and let call number @n fail with @error or be the last: what save returned; 1: there was no such call. */
static int save_trapped(
	struct husk_sandbox_snapshot *snapshot, const char *path, int n, int error, struct husk_error *err)
{
	trap.left = n;
	trap.error = error;
	int rc = husk_sandbox_snapshot_save(snapshot, path, err);
	bool happened = trap.left == 0;
	trap.left = 0;
	return happened ? rc : 1;
}

static void test_failures(struct husk_sandbox_snapshot *snapshot)
{
	CLEANUP_FREE char *path = path_join(directory, "s");
	unsigned descriptors = count_descriptors(), done = 0, wrong = 0, left = 0;
	struct husk_error err = {0};
	int rc;

	for (int n = 1; (rc = save_trapped(snapshot, path, n, EIO, &err)) != 1; n++, done++) {
		wrong += rc != -EIO || !strstr(err.message, "Input/output error");
		left += count_files(true);
	}
	CHECK(done > 20 && wrong == 0 && left == 0,
		"whichever system call of a save fails, it says so and leaves nothing");
	CHECK(load_same(path, snapshot, &err) == 1 && count_descriptors() == descriptors, "and keeps no descriptor");
	done = wrong = 0;
	for (int n = 1;; n++, done++) {
		trap.left = n;
		rc = load_same(path, snapshot, &err);
		if (trap.left)
			break;
		wrong += rc != -EIO && rc != -EBADMSG;
	}
	trap.left = 0;
	CHECK(done >= 4 && wrong == 0 && rc == 1 && count_descriptors() == descriptors, "and so with a load");
	count_files(true);
}

/** A process that ends at any call of a save leaves a snapshot, or none. */
static void test_crash(struct husk_sandbox_snapshot *snapshot)
{
	CLEANUP_FREE char *path = path_join(directory, "s");
	unsigned whole = 0, none = 0, wrong = 0;
	struct husk_error err = {0};

	fflush(stdout);
	for (int n = 1, status = 0; status == 0; n++) {
		pid_t pid = fork();
		if (pid == 0) {
			trap.die = true;
			_exit(save_trapped(snapshot, path, n, 0, &err));
		}
		waitpid(pid, &status, 0);
		int rc = load_same(path, snapshot, &err);
		whole += rc == 1;
		none += rc == -ENOENT;
		wrong += rc != 1 && rc != -ENOENT;
		CLEANUP_DIR DIR *dir = opendir(directory);
		for (struct dirent *entry; dir && (entry = readdir(dir));)
			wrong += entry->d_name[0] != '.' && strcmp(entry->d_name, "s") != 0 &&
				 strcmp(entry->d_name, "s.memory") != 0 && !strstr(entry->d_name, ".partial-");
		count_files(true);
	}
	CHECK(wrong == 0 && none > 20 && whole >= 2, "whenever a save dies, there is a whole snapshot or none");
}

/* ---- strangers' files ---- */

#define BAD(section, at, bytes, value, says, what)                                                                     \
	{                                                                                                              \
		SAVED_AT_##section, at, bytes, value, says, what                                                       \
	}
#define AREA(i, at, bytes, value, says, what) BAD(AREAS, (i)*SAVED_AREA + (at), bytes, value, says, what)
#define CELL(i, at, bytes, value, says, what) BAD(CELLS, (i)*SAVED_CELL + (at), bytes, value, says, what)

static const struct {
	unsigned section;
	size_t at;
	unsigned bytes;
	uint64_t value;
	const char *says, *what;
} hostile[] = {
	BAD(PROGRAM, 18, 2, 183, "section 'program'", "a program for another machine"),
	BAD(SIZES, 0, 8, 0, "stack", "no stack"),
	BAD(SIZES, 0, 8, 4097, "whole pages", "a stack that is no whole pages"),
	BAD(SIZES, 8, 8, UINT64_MAX - 4095, "heap", "a huge heap"),
	BAD(SIZES, 8, 8, 4ull << 30, "cannot be", "a heap that is not that of the areas"),
	BAD(SIZES, 16, 8, (1ull << 30) + 4096, "input", "an input buffer above the limit"),
	AREA(TEST_CORE, 0, 4, 0, "no kind", "an area of kind 0"),
	AREA(TEST_CORE, 0, 4, AREA_PROGRAM, "no kind", "one that says it is the program"),
	AREA(TEST_CORE, 0, 4, 8, "no kind", "one of kind 8"),
	AREA(TEST_CORE, 0, 4, UINT32_MAX, "no kind", "one of a huge kind"),
	AREA(TEST_CORE, 8, 8, SANDBOX_SUPPORT, "cannot be", "memory over the program"),
	AREA(TEST_CORE, 16, 8, 0, "area of", "an area of no size"),
	AREA(TEST_CORE, 16, 8, 4095, "area of", "one that is no whole pages"),
	AREA(TEST_CORE, 16, 8, UINT64_MAX - 4095, "area of", "one that wraps"),
	AREA(TEST_CORE, 16, 8, 4096, "cannot be", "one that is shorter than its place"),
	AREA(TEST_CORE, 24, 8, 4096, "its bytes", "bytes elsewhere"),
	AREA(TEST_INFO, 24, 8, 0, "its bytes", "the bytes of another area"),
	AREA(TEST_CHOSEN, 24, 8, UINT64_MAX - 4095, "its bytes", "bytes beyond the end"),
	AREA(TEST_CORE, 32, 1, 'a', "wrong name", "a name where none belongs"),
	AREA(TEST_INFO, 4, 4, 15, "rights", "an info page that the guest may write"),
	AREA(TEST_TABLES, 4, 4, 15, "rights", "page tables that the host may write"),
	AREA(TEST_CELLS_HOST, 4, 4, 13, "rights", "host's cells that the guest may write"),
	AREA(TEST_CELLS_HOST, 0, 4, AREA_CELLS_GUEST, "rights", "host's cells that are called the guest's"),
	AREA(TEST_CELLS_HOST, 8, 8, 0x100000000 + 0x1fe000, "cannot be", "cells over the program"),
	AREA(TEST_CELLS_CHOSEN, 16, 8, 8192, "cannot be", "two pages of cells in one"),
	AREA(TEST_CHOSEN, 4, 4, HUSK_SANDBOX_GUEST_W, "rights", "one that the guest may only write"),
	AREA(TEST_CHOSEN, 4, 4, 16, "rights", "rights that do not exist"),
	AREA(TEST_CHOSEN, 8, 8, TEST_REGION + 1, "area of", "a region between pages"),
	AREA(TEST_CHOSEN, 8, 8, SANDBOX_ADDRESS_MAX - 4096, "area of", "one that reaches beyond all addresses"),
	AREA(TEST_CHOSEN, 8, 8, SANDBOX_SUPPORT - 4096, "cannot be", "one that reaches into the library's place"),
	AREA(TEST_CHOSEN, 8, 8, SANDBOX_PROGRAM, "cannot be", "one over the program"),
	AREA(TEST_LIBRARY, 8, 8, TEST_REGION + 8192, "overlap", "regions that overlap"),
	AREA(TEST_LIBRARY, 16, 8, (1ull << 30) + 4096, "cannot be", "a region above the limit"),
	AREA(TEST_CHOSEN, 32, 1, 0, "wrong name", "a region without a name"),
	AREA(TEST_CHOSEN, 32, 1, '\n', "wrong name", "a name that is none"),
	AREA(TEST_CHOSEN, 95, 1, 'x', "wrong name", "something behind a name"),
	AREA(TEST_CHOSEN, 33, 1, 0, "wrong name", "a gap in one"),
	AREA(TEST_INFO, 0, 4, AREA_CORE, "rights", "two cores"),
	CELL(0, 0, 1, '0', "wrong name", "a cell whose name is none"),
	CELL(0, 63, 1, 'x', "wrong name", "something behind a cell's name"),
	CELL(0, 64, 4, 0, "no owner", "a cell of nobody"),
	CELL(0, 64, 4, 3, "no owner", "a cell of somebody else"),
	CELL(0, 68, 4, 1, "no owner", "what is not used yet"),
	CELL(0, 64, 4, HUSK_SANDBOX_CELL_GUEST, "no place", "a guest's cell among the host's"),
	CELL(1, 64, 4, HUSK_SANDBOX_CELL_HOST, "no place", "a host's cell among the guest's"),
	CELL(0, 72, 8, 0, "no place", "a cell where nothing is"),
	CELL(0, 72, 8, TEST_REGION, "no place", "a cell in a region"),
	CELL(0, 72, 8, UINT64_MAX - 7, "no place", "a cell at the end of all"),
	CELL(2, 72, 8, TEST_CELL_PAGE + 4, "no place", "a cell between words"),
	CELL(2, 72, 8, TEST_CELL_PAGE + 4096, "no place", "a cell behind its page"),
	BAD(MSRS, 0, 4, 0x4b564d01, "0x4b564d01", "a register of KVM's own"),
	BAD(MSRS, 16, 4, 0x10, "register 0x10", "the time stamp counter"),
	BAD(MSRS, 4, 4, 1, "register", "what a register does not use"),
	BAD(CPU + 4, 0, 4, 17, "17 registers", "more registers than KVM has room for"),
	BAD(CPU + 4, 0, 4, UINT32_MAX, "registers", "many more"),
	BAD(MEMORY, 16, 8, 0, "memory", "no memory"),
	BAD(MEMORY, 16, 8, UINT64_MAX, "memory", "too much of it"),
};

static int decode(const struct container_writer *w, struct husk_error *err)
{
	struct husk_sandbox_snapshot *snapshot = NULL;
	struct container c = {0};
	uint8_t identity[MEMORY_FILE_IDENTITY];

	int rc = container_parse(
		buffer_bytes(&w->bytes), w->bytes.size, SAVED_MACHINE, saved_sections, SAVED_SECTIONS, &c, err);
	if (rc == 0)
		rc = saved_decode(&c, &snapshot, identity, err);
	husk_sandbox_snapshot_free(snapshot);
	return rc;
}

static void encode(const struct husk_sandbox_snapshot *snapshot, struct container_writer *w)
{
	static const uint8_t identity[MEMORY_FILE_IDENTITY] = {1};

	container_begin(w, CONTAINER_X86_64, SAVED_MACHINE);
	if (saved_encode(snapshot, identity, w, NULL) < 0 || container_seal(w, NULL) < 0)
		abort();
}

static void test_hostile(const struct husk_sandbox_snapshot *snapshot)
{
	CLEANUP_CONTAINER_WRITER struct container_writer w;
	struct husk_error err = {0};
	struct container c;

	encode(snapshot, &w);
	CHECK(decode(&w, &err) == 0, "a snapshot with nothing wrong in it is taken");
	for (size_t i = 0; i < ARRAY_SIZE(hostile); i++) {
		container_writer_free(&w);
		encode(snapshot, &w);
		if (container_parse(buffer_bytes(&w.bytes), w.bytes.size, SAVED_MACHINE, saved_sections, SAVED_SECTIONS,
			    &c, &err) < 0)
			abort();
		const struct container_section *section = &c.sections[hostile[i].section];
		uint8_t *bytes = (uint8_t *)section->bytes;
		for (unsigned b = 0; b < hostile[i].bytes; b++)
			bytes[hostile[i].at + b] = (uint8_t)(hostile[i].value >> 8 * b);
		put_le32(bytes - 8, crc32_ieee(crc32_ieee(0, bytes - 32, 24), bytes, section->size));
		int rc = decode(&w, &err);
		if (!CHECK(rc == -EBADMSG && strstr(err.message, hostile[i].says), hostile[i].what))
			printf("# %d %s\n", rc, err.message);
	}
}

/** The snapshot with @n bytes at @bytes as section @which. */
static int decode_with(const struct husk_sandbox_snapshot *snapshot, unsigned which, const void *bytes, size_t n,
	struct husk_error *err)
{
	CLEANUP_CONTAINER_WRITER struct container_writer right, wrong;
	struct container c;

	encode(snapshot, &right);
	container_begin(&wrong, CONTAINER_X86_64, SAVED_MACHINE);
	if (container_parse(buffer_bytes(&right.bytes), right.bytes.size, SAVED_MACHINE, saved_sections, SAVED_SECTIONS,
		    &c, err) < 0)
		abort();
	for (unsigned i = 0; i < SAVED_SECTIONS; i++)
		container_put(&wrong, saved_sections[i].tag, 1, 0, i == which ? bytes : c.sections[i].bytes,
			i == which ? n : c.sections[i].size, NULL);
	if (container_seal(&wrong, NULL) < 0)
		abort();
	return decode(&wrong, err);
}

static void test_sizes(const struct husk_sandbox_snapshot *snapshot)
{
	CLEANUP_CONTAINER_WRITER struct container_writer w;
	CLEANUP_FREE uint8_t *many = calloc(1024, SAVED_AREA);
	unsigned short_ones = 0, long_ones = 0, empty = 0;
	struct husk_error err = {0};
	struct container c;

	encode(snapshot, &w);
	if (!many || container_parse(buffer_bytes(&w.bytes), w.bytes.size, SAVED_MACHINE, saved_sections,
			     SAVED_SECTIONS, &c, &err) < 0)
		abort();
	for (unsigned i = 0; i < SAVED_SECTIONS; i++) {
		const struct container_section *s = &c.sections[i];
		CLEANUP_FREE uint8_t *longer = calloc(1, s->size + 1);
		memcpy(longer, s->bytes, s->size);
		/* What the end of a program is good for is the image's to say. */
		if (i != SAVED_AT_PROGRAM) {
			short_ones += decode_with(snapshot, i, longer, s->size - 1, &err) != -EBADMSG;
			long_ones += decode_with(snapshot, i, longer, s->size + 1, &err) != -EBADMSG;
		}
		empty += decode_with(snapshot, i, "", 0, &err) == 0;
	}
	CHECK(short_ones == 0 && long_ones == 0, "each section has its size");
	CHECK(empty == 3, "and only cells, CPU features and MSRs may be none");
	CHECK(decode_with(snapshot, SAVED_AT_MSRS, many, (CPU_MSRS_MAX + 1) * SAVED_MSR, &err) == -EBADMSG &&
			decode_with(snapshot, SAVED_AT_CPUID, many, (CPU_CPUID_MAX + 1) * SAVED_CPUID, &err) ==
				-EBADMSG &&
			decode_with(snapshot, SAVED_AT_CELLS, many, (CELLS_MAX + 1) * SAVED_CELL, &err) == -EBADMSG &&
			decode_with(snapshot, SAVED_AT_AREAS, many, AREAS_MAX * SAVED_AREA, &err) == -EBADMSG,
		"nor are there more registers, features, cells or areas than possible");
	const struct container_section *areas = &c.sections[SAVED_AT_AREAS];
	memcpy(many, areas->bytes, areas->size);
	memmove(many + TEST_TABLES * SAVED_AREA, many + TEST_CHOSEN * SAVED_AREA, SAVED_AREA);
	put_le64(many + TEST_TABLES * SAVED_AREA + 24, snapshot->areas[TEST_TABLES].offset);
	CHECK(decode_with(snapshot, SAVED_AT_AREAS, many, 3 * SAVED_AREA, &err) == -EBADMSG &&
			strstr(err.message, "missing"),
		"a sandbox without page tables is none");
}

/** Sizes are the snapshot's: whatever else a configuration says of them is ignored. */
static void test_create_from(struct husk_sandbox_snapshot *snapshot)
{
	struct husk_sandbox_config config;
	struct husk_sandbox *s = NULL;
	struct husk_error err;

	husk_sandbox_config_init(&config);
	config.stack = 0;
	config.heap = UINT64_MAX;
	config.input = config.output = 1;
	if (!CHECK(husk_sandbox_create_from(snapshot, &config, &s, &err) == 0 &&
			    s->config.stack == snapshot->config.stack && s->config.heap == snapshot->config.heap &&
			    s->config.input == snapshot->config.input && s->config.output == snapshot->config.output,
		    "a sandbox of a snapshot has its sizes, whatever it is given"))
		printf("# %s\n", err.message);
	husk_sandbox_free(s);
	config.kick_signal = 1;
	CHECK(husk_sandbox_create_from(snapshot, &config, &s, &err) == -EINVAL, "the rest of it is checked");
}

/** husk_sandbox_add_region() takes a region without any right. */
static void test_no_rights(struct husk_sandbox_snapshot *snapshot)
{
	CLEANUP_CONTAINER_WRITER struct container_writer w;
	unsigned *rights = &snapshot->areas[TEST_CHOSEN].rights, before = *rights;
	struct husk_error err = {0};

	*rights = 0;
	encode(snapshot, &w);
	*rights = before;
	if (!CHECK(decode(&w, &err) == 0, "a region that nobody may use is saved and loaded, too"))
		printf("# %s\n", err.message);
}

int main(void)
{
	struct husk_sandbox_snapshot *snapshot = test_snapshot_make();

	if (!snapshot || !mkdtemp(directory))
		return 1;
	test_round_trip(snapshot);
	test_names(snapshot);
	test_disk(snapshot);
	test_failures(snapshot);
	test_crash(snapshot);
	test_hostile(snapshot);
	test_sizes(snapshot);
	test_create_from(snapshot);
	test_no_rights(snapshot);
	snapshot_unref(snapshot);
	path_remove_tree(directory, NULL);
	return tap_done();
}
