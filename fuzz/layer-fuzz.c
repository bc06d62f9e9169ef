/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer-fuzz.c - libFuzzer target: bytes as a layer
 *
 * The first byte chooses: bit 0, whether the rest is one layer or, cut in two, a lower and an upper one. Without libFuzzer:
 * replay.c, whose changes are made here, as a layer's reader looks at nothing behind a header with a wrong checksum.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "fuzz/fuzz.h"
#include "image/layer.h"

#include <string.h>
#include <sys/mman.h>

static int bytes_fd(const uint8_t *data, size_t size)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	if (fd >= 0 && (fd_write_all(fd, data, size) < 0 || lseek(fd, 0, SEEK_SET) < 0))
		abort();
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct layer_result results[2];
	struct husk_error err;
	const struct layer_options options = {.max_entries = 10000};
	if (size == 0)
		return 0;
	bool two = data[0] & 1;
	size_t half = two ? (size - 1) / 1024 * 512 : size - 1;
	CLEANUP_FD int out = memfd_create("image", MFD_CLOEXEC);
	CLEANUP_FD int lower = bytes_fd(data + 1, half);
	CLEANUP_FD int upper = bytes_fd(data + 1 + half, size - 1 - half);
	const struct layer_source sources[2] = {{.fd = lower, .name = "lower"}, {.fd = upper, .name = "upper"}};
	if (two)
		layer_merge(sources, 2, out, &options, results, &err);
	else
		layer_convert(&sources[0], out, &options, &results[0], &err);
	return 0;
}

/* Change some bytes, and mend the checksum of every tar header. */
size_t fuzz_mutate(uint8_t *data, size_t size, uint64_t *random)
{
	data[0] = (uint8_t)fuzz_random(random);
	for (uint64_t n = 1 + fuzz_random(random) % 6; n > 0; n--) {
		size_t at = 1 + fuzz_random(random) % (size - 1);
		if (fuzz_random(random) % 2) /* most of what matters is in the first half of a header */
			at = 1 + (at - 1) / 512 * 512 + fuzz_random(random) % 300;
		if (at < size)
			data[at] = (uint8_t)(fuzz_random(random) % 4 ? '0' + fuzz_random(random) % 80
								     : fuzz_random(random));
	}
	for (size_t at = 1; at + 512 <= size; at += 512) {
		unsigned sum = 8 * ' ';
		if (memcmp(data + at + 257, "ustar", 5) != 0)
			continue;
		for (size_t i = 0; i < 512; i++)
			sum += i >= 148 && i < 156 ? 0 : data[at + i];
		char text[8];
		snprintf(text, sizeof(text), "%06o", sum & 0777777);
		memcpy(data + at + 148, text, 7);
	}
	return size;
}
