/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replay.c - a fuzz target's main without libFuzzer: the files of a directory, and each with changes
 *
 * Theory of operation: `make test` has no time to search and may have no clang. What a search found lies in the corpus, so its
 * files are replayed, each also with MUTATIONS random changes of it (environment, default 0); they are the same every time.
 * A target that knows which changes are worth making defines fuzz_mutate() itself.
 */
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "fuzz/fuzz.h"

#include <fcntl.h>
#include <string.h>

/* Change, drop or double some bytes. */
__attribute__((weak)) size_t fuzz_mutate(uint8_t *data, size_t size, uint64_t *random)
{
	for (uint64_t n = 1 + fuzz_random(random) % 8; n > 0; n--) {
		size_t at = fuzz_random(random) % size, from = fuzz_random(random) % size;
		size_t length = 1 + fuzz_random(random) % 16;
		if (length > size - (at > from ? at : from))
			length = size - (at > from ? at : from);
		if (fuzz_random(random) % 3)
			data[at] = (uint8_t)fuzz_random(random);
		else
			memmove(data + at, data + from, length);
	}
	return 1 + fuzz_random(random) % size;
}

static void replay(const struct buffer *bytes, unsigned long mutations)
{
	uint64_t random = bytes->size;
	LLVMFuzzerTestOneInput(buffer_bytes(bytes), bytes->size);
	CLEANUP_FREE uint8_t *copy = malloc(bytes->size + 1);
	for (; mutations > 0 && bytes->size > 1; mutations--) {
		memcpy(copy, buffer_bytes(bytes), bytes->size);
		size_t size = fuzz_mutate(copy, bytes->size, &random);
		LLVMFuzzerTestOneInput(copy, size);
	}
}

/** Replay all files of a directory; how many, or -1. */
static int replay_all(const char *path, unsigned long mutations)
{
	int n = 0;
	CLEANUP_DIR DIR *dir = opendir(path);
	if (!dir)
		return -1;
	for (struct dirent *entry; (entry = readdir(dir));) {
		CLEANUP_BUFFER struct buffer bytes = {0};
		CLEANUP_FD int fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_CLOEXEC);
		if (entry->d_name[0] == '.')
			continue;
		if (fd < 0 || fd_read_to_end(fd, &bytes, 1 << 20) < 0)
			return -1;
		replay(&bytes, mutations);
		n++;
	}
	return n;
}

int main(int argc, char **argv)
{
	const char *mutations = getenv("MUTATIONS");
	int n = argc == 2 ? replay_all(argv[1], mutations ? strtoul(mutations, NULL, 10) : 0) : -1;
	if (n <= 0) {
		fprintf(stderr, "usage: %s DIRECTORY, of files that can be read\n", argv[0]);
		return 1;
	}
	printf("%d inputs replayed\n", n);
	return 0;
}
