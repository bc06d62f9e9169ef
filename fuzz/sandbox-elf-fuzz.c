/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox-elf-fuzz.c - libFuzzer target: bytes as a program for sandboxes
 *
 * Theory of operation: the first byte chooses. RAW: the rest is the file. Else it is a list of changes (place, width, value)
 * to a good one (tests/sandbox/test_program.h), which is how a fuzzer gets past a header in a few bytes. What is loaded has
 * to keep what image.h promises, whatever the file said.
 *
 * Without libFuzzer: replay.c. With it, in bash:
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -I. -Iinclude -pthread -o sandbox-elf-fuzz \
 *     fuzz/sandbox-elf-fuzz.c tests/sandbox/test_program.c kvm/kvm.c base/{buffer,error,fd}.c \
 *     sandbox/{cpu,cpu_features,elf_file,image,program,signature,symbols}.c &&
 *     ./sandbox-elf-fuzz -max_len=128 fuzz/corpus/sandbox-elf
 */
#include "base/cleanup.h"
#include "fuzz/fuzz.h"
#include "sandbox/cpu.h"
#include "sandbox/image.h"
#include "tests/sandbox/test_program.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define RAW 1
#define LOOK_AT (1u << 20) /* bytes of memory that are looked at one by one */

static void cleanup_image(struct husk_sandbox_image **image)
{
	husk_sandbox_image_free(*image);
}

static void check_segments(const struct husk_sandbox_image *image)
{
	const uint64_t data = SANDBOX_SUPPORT + image->ro_size;
	uint64_t end = SANDBOX_PROGRAM;
	bool entered = false;

	must(image->ro_size % SANDBOX_PAGE == 0 && image->data_size % SANDBOX_PAGE == 0, "parts are whole pages");
	must(image->ro_size + image->data_size <= SANDBOX_SUPPORT_SIZE + IMAGE_MEMORY_MAX, "memory has its limit");
	must(image->n_segments > 0 && image->n_segments <= IMAGE_SEGMENTS_MAX, "there are segments");
	for (unsigned i = 0; i < image->n_segments; i++) {
		const struct image_segment *s = &image->segments[i];
		must(s->at % SANDBOX_PAGE == 0 && s->size % SANDBOX_PAGE == 0 && s->size > 0,
			"segments are whole pages");
		must(s->at >= end, "segments are in order");
		must(!(s->write && s->execute), "what can be written cannot be executed");
		must(s->write ? s->at >= data : s->at + s->size <= data, "data are above what is read-only");
		end = s->at + s->size;
		entered |= s->execute && image->entry >= s->at && image->entry < end;
	}
	must(end == data + image->data_size, "nothing lies outside of the parts");
	must(entered, "the entry is in code");
}

static bool covered(const struct husk_sandbox_image *image, uint64_t at)
{
	for (unsigned i = 0; i < image->n_segments; i++)
		if (at >= image->segments[i].at && at - image->segments[i].at < image->segments[i].size)
			return true;
	return false;
}

static void check_memory(const struct husk_sandbox_image *image)
{
	uint8_t support[SANDBOX_SUPPORT_SIZE];
	struct stat st;

	cpu_write_support(support);
	must(memcmp(image->ro, support, sizeof(support)) == 0, "the library's pages are its own");
	must(fstat(image->fd, &st) == 0 && st.st_size == (off_t)(image->ro_size + image->data_size),
		"the memfd has its size");
	must(fcntl(image->fd, F_GET_SEALS) & F_SEAL_WRITE, "and is sealed");
	for (uint64_t i = SANDBOX_SUPPORT_SIZE; i < image->ro_size && i < LOOK_AT; i += SANDBOX_PAGE)
		for (uint64_t k = i; !covered(image, SANDBOX_SUPPORT + i) && k < i + SANDBOX_PAGE; k++)
			must(image->ro[k] == 0, "holes are zeroes");
}

static void check_functions(const struct husk_sandbox_image *image)
{
	struct husk_sandbox_signature function;

	for (unsigned i = 0; husk_sandbox_image_function(image, i, &function, NULL) == 0; i++) {
		struct signature copy;
		must(signature_copy(&copy, &function, NULL) == 0, "an export has a signature that a caller could give");
		must(image_find_export(image, function.name) == (int)i, "and is found by its name");
	}
	for (unsigned i = 0; husk_sandbox_image_import(image, i, &function, NULL) == 0; i++) {
		struct signature copy;
		must(signature_copy(&copy, &function, NULL) == 0, "an import has a signature that a caller could give");
	}
}

static void check_symbols(const struct husk_sandbox_image *image)
{
	char text[64];

	for (size_t i = 0; i < image->n_symbols; i++) {
		const struct image_symbol *s = &image->symbols[i];
		must(i == 0 || s->at >= s[-1].at, "symbols are in order");
		image_symbol(image, s->at + s->size - 1, text, sizeof(text)); /* others may lie in between */
		image_symbol(image, s->at, text, sizeof(text));
		must(strstr(text, "+0x0"), "a symbol covers its first byte");
		for (const char *c = text; *c; c++)
			must(*c > ' ' && *c < 0x7f, "a symbol is printable");
	}
	image_symbol(image, UINT64_MAX, text, 1);
	must(text[0] == 0, "nothing fits into one byte");
}

/** The good program with changes. */
static void apply(struct test_program *file, struct program *changes)
{
	test_program_make(file);
	while (changes->at < changes->end) {
		size_t at = program_take(changes, 2) % sizeof(*file);
		uint8_t width = program_byte(changes) % 9;
		uint64_t value = program_take(changes, width);
		if (at + width <= sizeof(*file))
			memcpy((uint8_t *)file + at, &value, width);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CLEANUP(cleanup_image) struct husk_sandbox_image *image = NULL;
	struct program rest = {.at = data, .end = data + size};
	struct test_program file;
	struct husk_error err = {0};
	int rc;

	if (program_byte(&rest) & RAW) {
		rc = husk_sandbox_image_load_bytes(rest.at, (size_t)(rest.end - rest.at), &image, &err);
	} else {
		apply(&file, &rest);
		rc = husk_sandbox_image_load_bytes(&file, sizeof(file), &image, &err);
	}
	must(rc == 0 ? image != NULL : !image && rc == -ENOEXEC && err.code == rc && err.message[0],
		"loaded, or told why not");
	if (rc < 0)
		return 0;
	check_segments(image);
	check_memory(image);
	check_functions(image);
	check_symbols(image);
	return 0;
}
