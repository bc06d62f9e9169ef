/* SPDX-License-Identifier: Apache-2.0 */
/* image-test.c - programs for sandboxes: what is loaded of a good one, and every way in which one can be bad */
#include "base/cleanup.h"
#include "base/fd.h"
#include "sandbox/cpu.h"
#include "sandbox/image.h"
#include "test_program.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/stat.h>

__attribute__((weak)) void cpu_write_support(uint8_t *pages)
{
	memset(pages, 0x90, SANDBOX_SUPPORT_SIZE);
}

static void cleanup_image(struct husk_sandbox_image **image)
{
	husk_sandbox_image_free(*image);
}
#define CLEANUP_IMAGE CLEANUP(cleanup_image)

#define AT(member) offsetof(struct test_program, member)

/* ---- a good one ---- */

static bool same_segment(const struct image_segment *segment, uint64_t at, uint64_t size, bool write, bool execute)
{
	return segment->at == SANDBOX_PROGRAM + at && segment->size == size && segment->write == write &&
	       segment->execute == execute;
}

static void check_memory(const struct husk_sandbox_image *image, const struct test_program *program)
{
	const uint8_t *ro = image->ro + SANDBOX_SUPPORT_SIZE;
	uint8_t support[SANDBOX_SUPPORT_SIZE], zero[4096] = {0};
	uint64_t word;

	cpu_write_support(support);
	CHECK(memcmp(image->ro, support, sizeof(support)) == 0, "the library's pages come first");
	CHECK(memcmp(ro, program, AT(exports)) == 0, "constants that are not relocated are as in the file");
	memcpy(&word, ro + AT(exports[1].name), sizeof(word));
	CHECK(word == SANDBOX_PROGRAM + AT(names[1]), "a constant is relocated");
	CHECK(memcmp(ro + TEST_CODE, program->code, sizeof(program->code)) == 0, "the code is where it belongs");
	CHECK(memcmp(ro + 0x1000, zero, 0x1000) == 0 && memcmp(ro + 0x3000, zero, 0x1000) == 0,
		"pages between the segments are zeroes");
	uint8_t *data =
		mmap(NULL, image->data_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, image->fd, (off_t)image->ro_size);
	CHECK(data != MAP_FAILED, "a sandbox can map the data copy-on-write");
	if (data == MAP_FAILED)
		return;
	memcpy(&word, data + 8, sizeof(word));
	CHECK(word == SANDBOX_PROGRAM + TEST_DATA + 16 && memcmp(data, program->data, 8) == 0 &&
			memcmp(data + 16, program->data + 16, sizeof(program->data) - 16) == 0,
		"data are as in the file, and relocated");
	CHECK(memcmp(data + sizeof(program->data), zero, 4096 - sizeof(program->data)) == 0 &&
			memcmp(data + 0x2000, zero, 4096) == 0,
		"zeroes follow");
	munmap(data, image->data_size);
}

static void check_sealed(const struct husk_sandbox_image *image)
{
	CHECK(fcntl(image->fd, F_GET_SEALS) == (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL),
		"the memfd is sealed");
	CHECK(pwrite(image->fd, "x", 1, 0) < 0 && errno == EPERM, "nobody can write to it");
	CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, image->fd, 0) == MAP_FAILED, "nor map it to do so");
	CHECK(fcntl(image->fd, F_GETFD) & FD_CLOEXEC, "programs that are executed do not get it");
}

static void check_functions(const struct husk_sandbox_image *image)
{
	struct husk_sandbox_signature function = {0};
	struct husk_error err = {0};

	CHECK(husk_sandbox_image_function(image, 0, &function, &err) == 0 && strcmp(function.name, "add") == 0 &&
			function.result == HUSK_SANDBOX_I32 && function.n_args == 2 &&
			function.args[0] == HUSK_SANDBOX_I32 && function.args[1] == HUSK_SANDBOX_I32,
		"the first function is i32 add(i32, i32)");
	CHECK(husk_sandbox_image_function(image, 1, &function, &err) == 0 && strcmp(function.name, "greet") == 0 &&
			function.result == HUSK_SANDBOX_VOID && function.n_args == 1 &&
			function.args[0] == HUSK_SANDBOX_STRING,
		"the second is void greet(string)");
	CHECK(husk_sandbox_image_function(image, 2, &function, &err) == -ENOENT && err.code == -ENOENT,
		"there is no third");
	CHECK(husk_sandbox_image_import(image, 0, &function, &err) == 0 && strcmp(function.name, "print") == 0,
		"print is what it needs of the host");
	CHECK(husk_sandbox_image_import(image, 1, &function, &err) == -ENOENT, "and nothing else");
	CHECK(image_find_export(image, "add") == 0 && image_find_export(image, "greet") == 1, "functions are found by name");
	CHECK(image_find_export(image, "gree") == -ENOENT && image_find_export(image, "print") == -ENOENT &&
			image_find_export(image, "") == -ENOENT,
		"others are not");
}

static void check_symbol(
	const struct husk_sandbox_image *image, uint64_t at, size_t room, const char *want, const char *what)
{
	char text[64] = "unchanged";

	image_symbol(image, SANDBOX_PROGRAM + at, text, room);
	CHECK_STRING(text, want, what);
}

static void check_symbols(const struct husk_sandbox_image *image)
{
	check_symbol(image, TEST_CODE, 64, "add+0x0", "a function's first byte");
	check_symbol(image, TEST_CODE + 31, 64, "add+0x1f", "a function's last byte");
	check_symbol(image, TEST_CODE + 32, 64, "greet+0x0", "the next function");
	check_symbol(image, TEST_CODE + 64, 64, "", "behind the last function");
	check_symbol(image, TEST_DATA + 7, 64, "counter+0x7", "a variable");
	check_symbol(image, 0, 64, "", "before the first symbol");
	check_symbol(image, -SANDBOX_PROGRAM, 64, "", "address 0");
	check_symbol(image, -SANDBOX_PROGRAM - 1, 64, "", "the last address");
	check_symbol(image, TEST_CODE + 32, 8, "gre+0x0", "a name that does not fit is cut, not its offset");
	check_symbol(image, TEST_CODE + 32, 4, "", "no room for the offset: nothing");
}

static void test_good(void)
{
	struct test_program program;
	CLEANUP_IMAGE struct husk_sandbox_image *image = NULL;
	struct husk_error err = {0};

	test_program_make(&program);
	if (!CHECK(husk_sandbox_image_load_bytes(&program, sizeof(program), &image, &err) == 0,
		    "a good program is loaded")) {
		printf("# %s\n", err.message);
		return;
	}
	CHECK(image->entry == SANDBOX_PROGRAM + TEST_CODE, "it is entered where it says");
	CHECK(image->ro_size == SANDBOX_SUPPORT_SIZE + TEST_DATA && image->data_size == TEST_END - TEST_DATA,
		"read-only memory reaches up to the data");
	CHECK(image->n_segments == 3 && same_segment(&image->segments[0], 0, 0x1000, false, false) &&
			same_segment(&image->segments[1], TEST_CODE, 0x1000, false, true) &&
			same_segment(&image->segments[2], TEST_DATA, 0x3000, true, false),
		"its segments are known as whole pages with their rights");
	CHECK(image->elf_size == sizeof(program) && memcmp(image->elf, &program, sizeof(program)) == 0,
		"the file is kept");
	check_memory(image, &program);
	check_sealed(image);
	check_functions(image);
	check_symbols(image);
}

int main(void)
{
	test_good();
	return tap_done();
}
