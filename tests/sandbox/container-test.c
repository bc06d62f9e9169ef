/* SPDX-License-Identifier: Apache-2.0 */
/* container-test.c - snapshot files: whole or refused, whatever happened to them or to who wrote them */
#include "base/bytes.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/tlv.h"
#include "snapshot/container.h"
#include "snapshot/memory_file.h"
#include "snapshot/new_file.h"
#include "tests/tap.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define N_KNOWN 3

static const struct container_known known[N_KNOWN] = {
	{.tag = "first", .version = 2},
	{.tag = "second-8", .version = 1},
	{.tag = "may-be", .version = 1, .absent = true},
};
static char directory[] = "/tmp/husk-container-XXXXXX";

static char *in_directory(const char *name)
{
	return path_join(directory, name);
}

static void make(struct container_writer *w)
{
	container_begin(w, CONTAINER_HERE, "sandbox");
	container_put(w, "first", 2, 0, "the first", 9, NULL);
	container_put(w, "later", 7, CONTAINER_OPTIONAL, "of a newer husk", 15, NULL);
	container_put(w, "second-8", 1, 0, "", 0, NULL);
	if (container_seal(w, NULL) < 0)
		abort();
}

static int parse(const struct container_writer *w, struct husk_error *err)
{
	struct container c = {0};
	return container_parse(buffer_bytes(&w->bytes), w->bytes.size, "sandbox", known, N_KNOWN, &c, err);
}

static void test_round_trip(void)
{
	CLEANUP_CONTAINER_WRITER struct container_writer w;
	struct husk_error err = {0};
	struct container c = {0};

	make(&w);
	int rc = container_parse(buffer_bytes(&w.bytes), w.bytes.size, "sandbox", known, N_KNOWN, &c, &err);
	CHECK(rc == 0, "a file that was put together is taken");
	CHECK(c.sections[0].size == 9 && memcmp(c.sections[0].bytes, "the first", 9) == 0 && c.sections[0].version == 2,
		"its sections are found, with their versions");
	CHECK(c.sections[1].bytes && c.sections[1].size == 0, "one without bytes is there");
	CHECK(!c.sections[2].bytes, "one that may be absent is, and an unknown one that may be left out was");
}

/** Every byte of the file has a witness: whichever is changed, and to whatever, the file is refused. */
static void test_damage(void)
{
	CLEANUP_CONTAINER_WRITER struct container_writer w;
	struct husk_error err = {0};
	unsigned taken = 0, unsaid = 0, wrong = 0;

	make(&w);
	uint8_t *bytes = buffer_bytes(&w.bytes);
	for (size_t i = 0; i < w.bytes.size; i++)
		for (unsigned flip = 1; flip < 256; flip++) {
			err = (struct husk_error){0};
			bytes[i] ^= (uint8_t)flip;
			int rc = parse(&w, &err);
			taken += rc == 0;
			wrong += rc != 0 && rc != -EBADMSG;
			unsaid += err.message[0] == 0;
			bytes[i] ^= (uint8_t)flip;
		}
	CHECK(taken == 0, "no byte can be changed");
	CHECK(wrong == 0 && unsaid == 0, "each change is damage (-EBADMSG), and is said");
	CHECK(parse(&w, &err) == 0, "and with no change it is taken");

	taken = wrong = 0;
	struct container c = {0};
	for (size_t n = 0; n < w.bytes.size; n++) {
		/* A copy of just that size, so that a sanitizer sees what is read behind it. */
		CLEANUP_FREE uint8_t *cut = malloc(n + !n);
		memcpy(cut, bytes, n);
		int rc = container_parse(cut, n, "sandbox", known, N_KNOWN, &c, &err);
		taken += rc == 0;
		wrong += rc != 0 && rc != -EBADMSG;
		if (n == w.bytes.size - 1)
			CHECK(strstr(err.message, "truncated"), "a file that was cut is called truncated");
	}
	CHECK(taken == 0 && wrong == 0, "it can be cut nowhere");
	buffer_append(&w.bytes, "", 1);
	CHECK(parse(&w, &err) == -EBADMSG, "nor may anything follow");
}

struct variant {
	size_t at;
	unsigned bytes;
	uint64_t value;
	bool section; /* at: in the first section, whose checksum is put right, else in the header */
	int rc;
	const char *says, *what;
};

static const struct variant variants[] = {
	{8, 4, 2, false, -ENOTSUP, "newer husk: format version 2", "a newer format is refused as such"},
	{8, 4, 0, false, -ENOTSUP, "version 0", "there is no version 0"},
	{12, 4, 183, false, -ENOTSUP, "another architecture: ELF machine 183", "so is another architecture"},
	{16, 8, 0x6d766b /* "kvm" */, false, -ENOTSUP, "kind 'kvm'", "and another kind of machine"},
	{16, 1, 0, false, -EBADMSG, "malformed", "a kind needs a name"},
	{16, 1, 0x1b, false, -EBADMSG, "malformed", "which is text"},
	{31, 1, 'x', false, -EBADMSG, "malformed", "and ends with a NUL"},
	{32, 8, 1 << 30, false, -EBADMSG, "truncated", "a size above the file's is a truncation"},
	{32, 8, 64, false, -EBADMSG, "damaged", "one below it is damage"},
	{32, 8, UINT64_MAX, false, -EBADMSG, "truncated", "nor may it be huge"},
	{40, 4, 2, false, -EBADMSG, "belong to no section", "a section that is not counted is seen"},
	{40, 4, 4, false, -EBADMSG, "section number 4 lies beyond", "one that is counted and not there, too"},
	{40, 4, UINT32_MAX, false, -EBADMSG, "the most", "their number has a limit"},
	{44, 1, 1, false, -EBADMSG, "malformed", "what is not used yet is 0"},
	{59, 1, 1, false, -EBADMSG, "malformed", "to the last byte"},
	{0, 1, 'x', true, -ENOTSUP, "'xirst' is not known", "an unknown section is refused"},
	{0, 1, 0x0a, true, -EBADMSG, "no name", "and one whose name is no text does not get into a message"},
	{0, 8, 0, true, -EBADMSG, "no name", "no name is none"},
	{0, 8, 0x0061006100610061, true, -EBADMSG, "no name", "nor has one a NUL inside"},
	{8, 4, 3, true, -ENOTSUP, "'first' has version 3, this one reads 2", "a newer section is refused as such"},
	{8, 4, 0, true, -EBADMSG, "malformed", "sections' versions begin with 1"},
	{8, 4, 1, true, 0, "", "an older section is taken"},
	{12, 4, 2, true, -EBADMSG, "malformed", "unknown flags are refused"},
	{16, 8, 1 << 20, true, -EBADMSG, "'first' reaches beyond", "a length beyond the end is refused"},
	{16, 8, UINT64_MAX - 31, true, -EBADMSG, "'first' reaches beyond", "and does not wrap"},
	{16, 8, UINT64_MAX, true, -EBADMSG, "'first' reaches beyond", "however large"},
	{28, 4, 1, true, -EBADMSG, "malformed", "what a section does not use yet is 0"},
};

/** Files whose checksums are right and whose values are not. */
static void test_variants(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(variants); i++) {
		CLEANUP_CONTAINER_WRITER struct container_writer w;
		const struct variant *v = &variants[i];
		struct husk_error err = {0};

		make(&w);
		uint8_t *header = buffer_bytes(&w.bytes), *section = header + 64;
		for (unsigned b = 0; b < v->bytes; b++)
			(v->section ? section : header)[v->at + b] = (uint8_t)(v->value >> 8 * b);
		put_le32(header + 60, crc32_ieee(0, header, 60));
		put_le32(section + 24, crc32_ieee(crc32_ieee(0, section, 24), section + 32, 9));
		int rc = parse(&w, &err);
		if (!CHECK(rc == v->rc && (rc == 0 || strstr(err.message, v->says)), v->what))
			printf("# %d %s\n", rc, err.message);
	}
}

static void test_sections(void)
{
	CLEANUP_CONTAINER_WRITER struct container_writer w;
	struct husk_error err = {0};

	container_begin(&w, CONTAINER_HERE, "sandbox");
	container_put(&w, "first", 1, 0, "a", 1, NULL);
	container_seal(&w, NULL);
	CHECK(parse(&w, &err) == -EBADMSG && strstr(err.message, "'second-8' is missing"),
		"a missing section is named");
	container_put(&w, "first", 1, 0, "b", 1, NULL);
	container_put(&w, "second-8", 1, 0, "b", 1, NULL);
	container_seal(&w, NULL);
	CHECK(parse(&w, &err) == -EBADMSG && strstr(err.message, "'first' is there twice"),
		"and one that is there twice");
	container_writer_free(&w);

	container_begin(&w, CONTAINER_HERE, "sandbox");
	container_put(&w, "first", 1, 0, "a", 1, NULL);
	container_put(&w, "second-8", 1, 0, "b", 1, NULL);
	container_put(&w, "may-be", 2, CONTAINER_OPTIONAL, "c", 1, NULL);
	container_seal(&w, NULL);
	CHECK(parse(&w, &err) == 0, "a newer one that may be left out is");
	int rc = 0;
	for (unsigned i = 3; i < CONTAINER_SECTIONS_MAX && rc == 0; i++)
		rc = container_put(&w, "x", 1, CONTAINER_OPTIONAL, "d", 1, NULL);
	CHECK(rc == 0 && container_seal(&w, NULL) == 0 && parse(&w, &err) == 0, "64 sections are taken");
	rc = container_put(&w, "x", 1, CONTAINER_OPTIONAL, "d", 1, &err);
	CHECK(rc == -EFBIG && container_seal(&w, &err) == -EFBIG, "more are not written, and the seal says so");
	container_writer_free(&w);

	container_begin(&w, CONTAINER_HERE, "sandbox");
	/* Never read: the size is refused first. */
	rc = container_put(&w, "first", 1, 0, "", CONTAINER_SIZE_MAX, &err);
	CHECK(rc == -EFBIG && strstr(err.message, "'first'"), "nor is a section larger than what a reader takes");
}

/* ---- files ---- */

static int save(const char *path, struct husk_error *err)
{
	CLEANUP_CONTAINER_WRITER struct container_writer w;
	CLEANUP_NEW_FILE struct new_file file = NEW_FILE_NONE;

	make(&w);
	int rc = new_file_create(&file, path, err);
	if (rc < 0)
		return rc;
	if ((rc = fd_write_all(file.fd, buffer_bytes(&w.bytes), w.bytes.size)) < 0)
		return error_set(err, rc, "write %s: %s", path, strerror(-rc));
	if ((rc = new_file_sync(&file, err)) < 0)
		return rc;
	return new_file_place(&file, err);
}

static int load(const char *path, struct husk_error *err)
{
	CLEANUP_CONTAINER struct container c = {0};
	return container_read(path, "sandbox", known, N_KNOWN, &c, err);
}

/** How many files of the directory have @text in their names; remove: and remove them. */
static unsigned count_files(const char *text, bool remove)
{
	CLEANUP_DIR DIR *dir = opendir(directory);
	unsigned n = 0;

	for (struct dirent *entry; dir && (entry = readdir(dir));) {
		if (entry->d_name[0] == '.' || !strstr(entry->d_name, text))
			continue;
		n++;
		if (remove)
			unlinkat(dirfd(dir), entry->d_name, 0);
	}
	return n;
}

static void test_files(void)
{
	CLEANUP_FREE char *path = in_directory("state"), *below = in_directory("none/state"),
			  *fifo = in_directory("fifo"), *huge = in_directory("huge"),
			  *dangling = in_directory("dangling");
	struct husk_error err = {0};
	struct stat st;

	CHECK(save(path, &err) == 0 && load(path, &err) == 0, "a file is written and read");
	CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600, "it is its owner's only");
	CHECK(save(path, &err) == -EEXIST && strstr(err.message, path), "a second one does not take its place");
	CHECK(count_files("", false) == 1, "and nothing is left beside it");
	if (symlink("nowhere", dangling) < 0)
		abort();
	CHECK(save(dangling, &err) == -EEXIST, "not even that of a link to nothing");
	CHECK(save(below, &err) == -ENOENT && strstr(err.message, below), "without its directory there is none");
	CHECK(load(below, &err) == -ENOENT && strstr(err.message, below), "nor is one that is not there read");
	CHECK(load(directory, &err) == -EBADMSG && strstr(err.message, "regular"), "a directory is none");
	if (mkfifo(fifo, 0600) < 0)
		abort();
	CHECK(load(fifo, &err) == -EBADMSG, "and a FIFO holds nobody up");
	CLEANUP_FD int fd = open(huge, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	if (ftruncate(fd, CONTAINER_SIZE_MAX + 1) < 0)
		abort();
	CHECK(load(huge, &err) == -EBADMSG && strstr(err.message, "more than any"), "a huge file is not read");
	if (ftruncate(fd, 0) < 0)
		abort();
	CHECK(load(huge, &err) == -EBADMSG && strstr(err.message, "no snapshot"), "an empty one is none");
	count_files("", true);
}

/** Two that write the same name at once: one gets it, whole. */
static void test_race(void)
{
	CLEANUP_FREE char *path = in_directory("state");
	CLEANUP_NEW_FILE struct new_file one = NEW_FILE_NONE;
	struct husk_error err = {0};

	CHECK(new_file_create(&one, path, &err) == 0 && save(path, &err) == 0, "the faster one gets the name");
	CHECK(new_file_place(&one, &err) == -EEXIST && load(path, &err) == 0,
		"and the slower one does not take it away");
	new_file_withdraw(&one);
	new_file_close(&one);
	CHECK(load(path, &err) == 0 && count_files("", false) == 1, "its own remains are gone, and nothing else");
	count_files("", true);
	CHECK(new_file_create(&one, path, &err) == 0 && new_file_place(&one, &err) == 0, "one that was placed");
	new_file_withdraw(&one);
	CHECK(count_files("", false) == 0, "can be withdrawn");
}

/** Die at each of the steps. */
static void test_crash(void)
{
	CLEANUP_FREE char *path = in_directory("state");
	struct husk_error err = {0};

	for (int step = 0; step < 4; step++) {
		pid_t pid = fork();
		if (pid == 0) {
			struct new_file file = NEW_FILE_NONE;
			if (new_file_create(&file, path, &err) < 0)
				_exit(1);
			if (step > 0 && write(file.fd, "husk", 4) != 4)
				_exit(1);
			if (step > 1 && new_file_sync(&file, &err) < 0)
				_exit(1);
			if (step > 2 && new_file_place(&file, &err) < 0)
				_exit(1);
			_exit(0);
		}
		int status;
		waitpid(pid, &status, 0);
		bool placed = step > 2;
		CHECK(status == 0 && load(path, &err) == (placed ? -EBADMSG : -ENOENT) &&
				count_files("state.partial-", false) == !placed,
			placed ? "who dies later has placed it"
			       : "who dies before leaves a partial file, which is not loaded");
		count_files("", true);
	}
}

/** A disk that is full, as the kernel shows it: a limit on the size of files, and a small tmpfs where one can be mounted. */
static void test_full(void)
{
	CLEANUP_FREE char *path = in_directory("state");
	struct husk_error err = {0};

	pid_t pid = fork();
	if (pid == 0) {
		struct rlimit limit = {.rlim_cur = 70, .rlim_max = 70};
		signal(SIGXFSZ, SIG_IGN);
		setrlimit(RLIMIT_FSIZE, &limit);
		_exit(save(path, &err) == -EFBIG && strstr(err.message, path) ? 0 : 1);
	}
	int status;
	waitpid(pid, &status, 0);
	CHECK(status == 0 && count_files("", false) == 0, "what cannot be written whole is not there at all");
}

/* ---- memory ---- */

static uint8_t identity[MEMORY_FILE_IDENTITY] = "sixteen bytes...";

static int make_memory(const char *path, const uint8_t *bytes, size_t n, struct husk_error *err)
{
	CLEANUP_NEW_FILE struct new_file file = NEW_FILE_NONE;
	int rc = new_file_create(&file, path, err);

	if (rc == 0)
		rc = memory_file_begin(file.fd, identity, n, err);
	if (rc == 0)
		rc = memory_file_write(file.fd, 0, bytes, n, err);
	if (rc == 0)
		rc = new_file_sync(&file, err);
	return rc < 0 ? rc : new_file_place(&file, err);
}

static int open_memory(const char *path, size_t n, struct husk_error *err)
{
	int fd = -1, rc = memory_file_open(path, identity, n, &fd, err);
	if (fd >= 0)
		close(fd);
	return rc;
}

static void test_memory(void)
{
	enum { PAGES = 600, BYTES = PAGES * PAGE };
	CLEANUP_FREE char *path = in_directory("state.memory"), *other = in_directory("copy.memory");
	CLEANUP_FREE uint8_t *bytes = calloc(PAGES, PAGE);
	struct husk_error err = {0};
	struct stat st;
	int fd = -1;

	/* The first and the last byte of pages, runs, and one page alone at the end. */
	bytes[0] = 1;
	bytes[3 * PAGE - 1] = 2;
	memset(bytes + 100 * PAGE, 3, 100 * PAGE);
	bytes[BYTES - 1] = 4;
	CHECK(make_memory(path, bytes, BYTES, &err) == 0, "memory is written");
	CHECK(stat(path, &st) == 0 && st.st_size == PAGE + BYTES && st.st_blocks * 512 <= (1 + 103 + 8) * PAGE,
		"with holes for zeroes");
	CHECK(memory_file_open(path, identity, BYTES, &fd, &err) == 0, "and opened");
	uint8_t *map = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, MEMORY_FILE_HEADER);
	CHECK(map != MAP_FAILED && memcmp(map, bytes, BYTES) == 0, "it is what was written");
	munmap(map, BYTES);

	/* From a memfd, at an offset, and from the file just written. */
	CLEANUP_FD int memfd = memfd_create("memory", MFD_CLOEXEC);
	if (ftruncate(memfd, BYTES + PAGE) < 0 || pwrite(memfd, bytes + 100 * PAGE, 100 * PAGE, 101 * PAGE) < 0 ||
		pwrite(memfd, bytes, 3 * PAGE, PAGE) < 0 || pwrite(memfd, bytes + BYTES - PAGE, PAGE, BYTES) < 0)
		abort();
	for (int i = 0; i < 2; i++) {
		CLEANUP_FD int to = open(other, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
		CHECK(memory_file_begin(to, identity, BYTES, &err) == 0 &&
				memory_file_copy(to, 0, i ? fd : memfd, PAGE, BYTES, &err) == 0 &&
				fstat(to, &st) == 0 && st.st_blocks * 512 <= (1 + 103 + 8) * PAGE,
			i ? "it is copied from a file" : "it is copied from a memfd");
		map = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, to, MEMORY_FILE_HEADER);
		CHECK(map != MAP_FAILED && memcmp(map, bytes, BYTES) == 0, "and the copy is the same");
		munmap(map, BYTES);
	}
	CLEANUP_FD int to = open(other, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
	memory_file_begin(to, identity, BYTES, &err);
	CHECK(memory_file_copy(to, 0, memfd, PAGE, BYTES + PAGE, &err) == -ENODATA, "what is too short is not copied");
	CHECK(memory_file_begin(to, identity, 100, &err) == -EINVAL, "memory is whole pages");
	close(fd);
	count_files("", true);
}

static void test_memory_damage(void)
{
	CLEANUP_FREE char *path = in_directory("state.memory"), *none = in_directory("none");
	uint8_t page[PAGE] = {1}, header[PAGE], foreign[MEMORY_FILE_IDENTITY] = {0};
	struct husk_error err = {0};
	unsigned taken = 0;
	int fd = -1;

	if (make_memory(path, page, PAGE, &err) < 0)
		abort();
	CLEANUP_FD int file = open(path, O_RDWR | O_CLOEXEC);
	if (pread(file, header, PAGE, 0) != PAGE)
		abort();
	for (size_t i = 0; i < PAGE; i++) {
		header[i] ^= 0x20;
		if (pwrite(file, header + i, 1, (off_t)i) != 1)
			abort();
		taken += open_memory(path, PAGE, &err) != -EBADMSG;
		header[i] ^= 0x20;
		if (pwrite(file, header + i, 1, (off_t)i) != 1)
			abort();
	}
	CHECK(taken == 0 && open_memory(path, PAGE, &err) == 0, "no byte of the header can be changed");
	CHECK(memory_file_open(path, foreign, PAGE, &fd, &err) == -EBADMSG && strstr(err.message, "another snapshot"),
		"the memory of another snapshot is refused");
	CHECK(open_memory(path, 2 * PAGE, &err) == -EBADMSG, "and one of another size");
	put_le32(header + 8, 2);
	put_le32(header + 4092, crc32_ieee(0, header, 4092));
	if (pwrite(file, header, PAGE, 0) != PAGE)
		abort();
	CHECK(open_memory(path, PAGE, &err) == -ENOTSUP && strstr(err.message, "newer"),
		"a newer one is refused as such");
	put_le32(header + 8, 1);
	put_le32(header + 4092, crc32_ieee(0, header, 4092));
	if (pwrite(file, header, PAGE, 0) != PAGE || ftruncate(file, 2 * PAGE - 1) < 0)
		abort();
	CHECK(open_memory(path, PAGE, &err) == -EBADMSG && strstr(err.message, "truncated"),
		"one that was cut is refused");
	if (ftruncate(file, PAGE - 1) < 0)
		abort();
	CHECK(open_memory(path, PAGE, &err) == -EBADMSG && strstr(err.message, "truncated"), "within its header, too");
	CHECK(open_memory(none, PAGE, &err) == -ENOENT && strstr(err.message, none), "one that is not there is named");
	CHECK(open_memory(directory, PAGE, &err) == -EBADMSG, "a directory is none");
	count_files("", true);
}

int main(void)
{
	if (!mkdtemp(directory))
		return 1;
	test_round_trip();
	test_damage();
	test_variants();
	test_sections();
	test_files();
	test_race();
	test_crash();
	test_full();
	test_memory();
	test_memory_damage();
	path_remove_tree(directory, NULL);
	return tap_done();
}
