/* SPDX-License-Identifier: Apache-2.0 */
/* image-test.c - programs for sandboxes: what is loaded of a good one, and what may be odd about it */
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

static void cleanup_image(struct husk_sandbox_image **image)
{
	husk_sandbox_image_free(*image);
}
#define CLEANUP_IMAGE CLEANUP(cleanup_image)

#define PROGRAM_HEADERS 65
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
	CHECK(image_find_export(image, "add") == 0 && image_find_export(image, "greet") == 1,
		"functions are found by name");
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

/* ---- unusual, and fine ---- */

static const struct {
	const char *what;
	struct test_change changes[3];
} fine[] = {
	{"a segment without memory", {FIELD(ph[PH_SPARE].p_type, PT_LOAD), FIELD(ph[PH_SPARE].p_flags, PF_R)}},
	{"an alignment of 2 MiB", {FIELD(ph[PH_CONSTANTS].p_align, 2u << 20)}},
	{"a segment that ends where the next begins", {FIELD(ph[PH_CONSTANTS].p_memsz, TEST_CODE)}},
	{"exactly 256 MiB", {FIELD(ph[PH_DATA].p_memsz, (256u << 20) - TEST_DATA)}},
	{"no dynamic section of use", {FIELD(dynamic[DYN_SPARE].d_tag, DT_RELACOUNT)}},
	{"an unknown tag",
		{FIELD(dynamic[DYN_SPARE].d_tag, 1 << 20), FIELD(dynamic[DYN_SPARE].d_un.d_val, UINT64_MAX)}},
	{"a negative tag", {FIELD(dynamic[DYN_SPARE].d_tag, -1), FIELD(dynamic[DYN_SPARE].d_un.d_val, UINT64_MAX)}},
	{"an unknown program header",
		{FIELD(ph[PH_SPARE].p_type, 0x61234567), FIELD(ph[PH_SPARE].p_vaddr, UINT64_MAX)}},
	{"data without a byte in the file, wherever they would be there",
		{FIELD(ph[PH_DATA].p_filesz, 0), FIELD(ph[PH_DATA].p_offset, UINT64_MAX)}},
	{"no exports", {FIELD(note.program.exports_end, AT(exports) - AT(note.program))}},
	{"a relocation of code, whose last bytes it has", {FIELD(rela[RELA_DATA].r_offset, TEST_CODE + 56)}},
	{"a relocation of the relocations", {FIELD(rela[RELA_ADD].r_offset, AT(rela[RELA_DATA])),
						    FIELD(exports[0].name, SANDBOX_PROGRAM + AT(names[0]))}},
	{"65535 sections", {FIELD(header.e_shnum, 65535)}},
	/* a symbol table is never a reason */
	{"no sections", {FIELD(header.e_shnum, 0)}},
	{"sections behind the file", {FIELD(header.e_shoff, UINT64_MAX - 64)}},
	{"sections of another size", {FIELD(header.e_shentsize, 8)}},
	{"symbols behind the file", {FIELD(sections[1].sh_offset, UINT64_MAX - 24)}},
	{"more symbols than there are bytes", {FIELD(sections[1].sh_size, UINT64_MAX)}},
	{"symbols of another size", {FIELD(sections[1].sh_entsize, 1)}},
	{"symbols without strings", {FIELD(sections[1].sh_link, UINT32_MAX)}},
	{"symbols whose strings are symbols", {FIELD(sections[1].sh_link, 1)}},
	{"strings without an end", {FIELD(sections[2].sh_size, 18)}},
	{"no strings at all", {FIELD(sections[2].sh_size, 0)}},
	{"strings that wrap", {FIELD(sections[2].sh_offset, UINT64_MAX), FIELD(sections[2].sh_size, 2)}},
};

static void test_fine(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(fine); i++) {
		struct test_program program;
		CLEANUP_IMAGE struct husk_sandbox_image *image = NULL;
		struct husk_error err = {0};
		test_program_make(&program);
		test_program_change(&program, fine[i].changes, ARRAY_SIZE(fine[i].changes));
		if (!CHECK(husk_sandbox_image_load_bytes(&program, sizeof(program), &image, &err) == 0, fine[i].what)) {
			printf("# %s\n", err.message);
			continue;
		}
		if (i >= ARRAY_SIZE(fine) - 11)
			CHECK(image->n_symbols == 0, "and no symbols");
	}
}

/* ---- how many there can be ---- */

/** Load a good program with @headers program headers, of which @segments more than its own three are segments of zeroes. */
static int load_with(unsigned headers, unsigned segments, struct husk_error *err)
{
	CLEANUP_IMAGE struct husk_sandbox_image *image = NULL;
	struct {
		struct test_program program;
		Elf64_Phdr ph[PROGRAM_HEADERS];
	} file = {0};

	test_program_make(&file.program);
	memcpy(file.ph, file.program.ph, sizeof(file.program.ph));
	file.program.header.e_phoff = (uint64_t)((uint8_t *)file.ph - (uint8_t *)&file);
	file.program.header.e_phnum = (uint16_t)headers;
	for (unsigned i = 0; i < segments; i++)
		file.ph[PH_COUNT + i] = (Elf64_Phdr){
			.p_type = PT_LOAD, .p_flags = PF_R | PF_W, .p_vaddr = TEST_END + i * 0x2000, .p_memsz = 0x1000};
	int rc = husk_sandbox_image_load_bytes(&file, sizeof(file), &image, err);
	return rc < 0 ? rc : (int)image->n_segments;
}

static void test_many(void)
{
	struct husk_error err = {0};

	CHECK(load_with(64, 0, &err) == 3, "64 program headers");
	CHECK(load_with(65, 0, &err) == -ENOEXEC && strstr(err.message, "65 program headers"),
		"65 program headers are refused");
	CHECK(load_with(64, IMAGE_SEGMENTS_MAX - 3, &err) == IMAGE_SEGMENTS_MAX, "16 segments");
	CHECK(load_with(64, IMAGE_SEGMENTS_MAX - 2, &err) == -ENOEXEC && strstr(err.message, "more than 16 segments"),
		"17 segments are refused");
}

/** Symbols that lie are left out, and the others stay. */
static void test_bad_symbols(void)
{
	static const struct {
		const char *what;
		struct test_change change;
	} lies[] = {
		{"a symbol whose name is behind the strings", FIELD(symbols[1].st_name, 32)},
		{"a symbol without a name", FIELD(symbols[1].st_name, 0)},
		{"a symbol behind the program", FIELD(symbols[1].st_value, TEST_END)},
		{"a symbol that ends behind the program", FIELD(symbols[1].st_size, TEST_END)},
		{"a symbol that wraps", FIELD(symbols[1].st_size, UINT64_MAX)},
		{"a symbol without a size", FIELD(symbols[1].st_size, 0)},
		{"a symbol of a section", FIELD(symbols[1].st_info, STT_SECTION)},
		{"a symbol that is not defined", FIELD(symbols[1].st_shndx, SHN_UNDEF)},
	};

	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		struct test_program program;
		CLEANUP_IMAGE struct husk_sandbox_image *image = NULL;
		test_program_make(&program);
		test_program_change(&program, &lies[i].change, 1);
		int rc = husk_sandbox_image_load_bytes(&program, sizeof(program), &image, NULL);
		CHECK(rc == 0 && image->n_symbols == 2, lies[i].what);
		if (rc == 0 && i == 0)
			check_symbol(image, TEST_CODE + 31, 64, "add+0x1f", "others are found");
	}
	struct test_program program;
	CLEANUP_IMAGE struct husk_sandbox_image *image = NULL, *nested = NULL;
	test_program_make(&program);
	program.symbols[2].st_size = 64;
	program.symbols[1].st_size = 8;
	CHECK(husk_sandbox_image_load_bytes(&program, sizeof(program), &nested, NULL) == 0, "a symbol within another");
	check_symbol(nested, TEST_CODE + 39, 64, "greet+0x7", "the inner one");
	check_symbol(nested, TEST_CODE + 40, 64, "add+0x28", "the outer one, behind the inner");
	memcpy(program.strings + 5, "a\033\x80 e", 5);
	CHECK(husk_sandbox_image_load_bytes(&program, sizeof(program), &image, NULL) == 0,
		"a symbol with a strange name");
	check_symbol(image, TEST_CODE + 33, 64, "a???e+0x1", "is made printable");
}

/* ---- files ---- */

static void test_huge(void)
{
	struct husk_error err = {0};
	struct husk_sandbox_image *image = NULL;
	const size_t size = IMAGE_FILE_MAX + 1;
	void *zeroes = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	CHECK(zeroes != MAP_FAILED && husk_sandbox_image_load_bytes(zeroes, size, &image, &err) == -EFBIG && !image,
		"more than 64 MiB are too much");
	munmap(zeroes, size);
	CHECK(husk_sandbox_image_load_bytes(NULL, 0, &image, &err) == -ENOEXEC, "nothing is no program");
}

static void test_files(void)
{
	char directory[] = "/tmp/husk-image-test-XXXXXX", path[64];
	struct test_program program;
	CLEANUP_IMAGE struct husk_sandbox_image *image = NULL;
	struct husk_sandbox_image *none = NULL;
	struct husk_error err = {0};

	test_program_make(&program);
	if (!CHECK(mkdtemp(directory) != NULL, "a directory for files"))
		return;
	snprintf(path, sizeof(path), "%s/program", directory);
	CHECK(husk_sandbox_image_load(path, &none, &err) == -ENOENT && strstr(err.message, path),
		"a file that is not there");
	CHECK(husk_sandbox_image_load(directory, &none, &err) == -EISDIR, "a directory");
	CLEANUP_FD int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK(husk_sandbox_image_load(path, &none, &err) == -ENOEXEC && strstr(err.message, "it is empty"),
		"an empty file");
	CHECK(fd_write_all(fd, &program, sizeof(program)) == 0 && husk_sandbox_image_load(path, &image, &err) == 0,
		"a good file");
	CHECK(ftruncate(fd, IMAGE_FILE_MAX + 1) == 0 && husk_sandbox_image_load(path, &none, &err) == -EFBIG &&
			strstr(err.message, "64 MiB are the most"),
		"a file of more than 64 MiB");
	CHECK(ftruncate(fd, 0) == 0 && image && image->elf_size == sizeof(program) && image->elf[1] == 'E' &&
			image->ro[SANDBOX_SUPPORT_SIZE + 1] == 'E',
		"what was read stays when the file changes");
	CHECK(!none, "failures give no image");
	unlink(path);
	rmdir(directory);
}

static void test_references(void)
{
	struct test_program program;
	struct husk_sandbox_image *image = NULL;

	test_program_make(&program);
	if (!CHECK(husk_sandbox_image_load_bytes(&program, sizeof(program), &image, NULL) == 0,
		    "an image with two owners"))
		return;
	CHECK(image_ref(image) == image, "the second owner");
	const int fd = image->fd;
	husk_sandbox_image_free(image);
	CHECK(image->ro[SANDBOX_SUPPORT_SIZE] == 0x7f && fcntl(fd, F_GETFD) >= 0, "it stays when the first has let go");
	image_unref(image);
	CHECK(fcntl(fd, F_GETFD) < 0 && errno == EBADF, "and goes with the last");
	husk_sandbox_image_free(NULL);
}

/** Whatever this machine has: an open /dev/kvm, or an error that helps. */
static void test_kvm(void)
{
	struct test_program program;
	CLEANUP_IMAGE struct husk_sandbox_image *image = NULL;
	struct husk_error err = {0};
	const struct kvm *kvm = NULL, *again = NULL;
	CLEANUP_FD int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	const int why = fd < 0 ? errno : 0;

	test_program_make(&program);
	if (!CHECK(husk_sandbox_image_load_bytes(&program, sizeof(program), &image, &err) == 0,
		    "an image for /dev/kvm"))
		return;
	int rc = image_kvm(image, &kvm, &err);
	if (!why)
		CHECK(rc == 0 && image_kvm(image, &again, &err) == 0 && kvm->fd >= 0 && again == kvm,
			"/dev/kvm is opened once");
	else
		CHECK(rc == (why == EACCES || why == EPERM ? -EACCES : -ENODEV) && err.code == rc && !kvm &&
				strstr(err.message, "/dev/kvm") && image->kvm.fd < 0,
			"without /dev/kvm the error says what to do");
}

int main(void)
{
	test_good();
	test_fine();
	test_many();
	test_bad_symbols();
	test_huge();
	test_files();
	test_references();
	test_kvm();
	return tap_done();
}
