/* SPDX-License-Identifier: Apache-2.0 */
/*
 * core-test.c - core files of guests, as they are laid out and as gdb sees them
 *
 * Theory of operation: a sandbox that is never started gives memory and a program; its registers and its stack are put
 * there by hand. So no KVM is needed. Usage: core-test PROGRAM, one of guests/, compiled with -g.
 */
#include "sandbox/core.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/spawn.h"
#include "sandbox/sandbox.h"
#include "tests/tap.h"

#include <elf.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/procfs.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/user.h>
#include <sys/wait.h>

#define REGION 0x10000u
#define SECRET 0x30000u
#define STUBS (SANDBOX_SUPPORT + SANDBOX_PAGE)
#define OUT_SIZE 2 /* of the instruction in a stub */
#define PAGE_FAULT 14
#define INVALID_OPCODE 6

static char directory[] = "/tmp/husk-core-XXXXXX";
static struct husk_sandbox *sandbox;
static struct husk_sandbox_image *image;

static uint64_t find_symbol(const char *name)
{
	for (size_t i = 0; i < image->n_symbols; i++)
		if (strcmp(image->symbols[i].name, name) == 0)
			return image->symbols[i].at;
	printf("# there is no symbol %s\n", name);
	exit(1);
}

static void put(uint64_t gpa, uint64_t value)
{
	put_le64(areas_at(&sandbox->areas, gpa, 8), value);
}

static void make_sandbox(const char *program)
{
	struct husk_sandbox_config config;
	struct husk_error err = {0};
	unsigned number;

	husk_sandbox_config_init(&config);
	config.heap = 4 << 20;
	if (husk_sandbox_image_load(program, &image, &err) < 0 ||
		husk_sandbox_create(image, &config, &sandbox, &err) < 0 ||
		husk_sandbox_add_region(sandbox, "shared", 3 * SANDBOX_PAGE,
			HUSK_SANDBOX_HOST_R | HUSK_SANDBOX_HOST_W | HUSK_SANDBOX_GUEST_R, REGION, &number, &err) < 0 ||
		husk_sandbox_region_write(sandbox, number, SANDBOX_PAGE, "read me", 8, &err) < 0 ||
		husk_sandbox_add_region(sandbox, "secret", SANDBOX_PAGE, HUSK_SANDBOX_HOST_R | HUSK_SANDBOX_HOST_W,
			SECRET, &number, &err) < 0) {
		printf("Bail out! %s\n", err.message);
		exit(1);
	}
}

/** The guest is in inner(), which was called from middle(): registers as if it stood at the first instruction. */
static void set_registers(struct cpu_state *cpu)
{
	uint64_t rsp = sandbox->places.stack.at + sandbox->places.stack.size - 0x100 - 8;
	const double half = 0.5;

	*cpu = (struct cpu_state){
		.regs = {.rip = find_symbol("inner"),
			.rsp = rsp,
			.rdi = 0x1234567890abcdef,
			.rax = 2,
			.rbx = 3,
			.rcx = 4,
			.rdx = 5,
			.rsi = 6,
			.rbp = 7,
			.r8 = 8,
			.r9 = 9,
			.r10 = 10,
			.r11 = 11,
			.r12 = 12,
			.r13 = 13,
			.r14 = 14,
			.r15 = 15,
			.rflags = 0x246},
		.sregs = {.cs.selector = 8, .ss.selector = 16, .fs.base = 0x77000},
	};
	put(rsp, find_symbol("middle") + 1);
	memcpy(&cpu->xsave.region[160 / 4], &half, sizeof(half)); /* xmm0; Intel SDM vol. 1, 10.5.1 */
	cpu->xsave.region[0] = 0x37f;
	cpu->xsave.region[6] = 0x1f80;
}

/** The guest's CPU has raised @vector there, and the stub has run. */
static void raise_fault(struct cpu_state *cpu, unsigned vector, bool error_code)
{
	uint64_t top = sandbox->places.fault_stack.at + sandbox->places.fault_stack.size;
	const uint64_t frame[] = {16, cpu->regs.rsp, cpu->regs.rflags, 8, cpu->regs.rip, 2};
	unsigned n = error_code ? 6 : 5;

	for (unsigned i = 0; i < n; i++)
		put(top - 8 * (i + 1), frame[i]);
	cpu->regs.rsp = top - 8 * n;
	cpu->regs.rip = STUBS + vector * 16 + OUT_SIZE;
	cpu->regs.rflags = 2;
}

/* ---- the file ---- */

static const Elf64_Phdr *find_segment(const uint8_t *core, uint64_t at)
{
	const Elf64_Ehdr *header = (const void *)core;
	const Elf64_Phdr *list = (const void *)(core + header->e_phoff);

	for (unsigned i = 0; i < header->e_phnum; i++)
		if (list[i].p_type == PT_LOAD && at >= list[i].p_vaddr && at - list[i].p_vaddr < list[i].p_memsz)
			return &list[i];
	return NULL;
}

/** Copy the contents of a note; false: there is none of just that size. Notes are aligned to 4 bytes only. */
static bool get_note(const uint8_t *core, uint32_t type, void *to, size_t size)
{
	const Elf64_Phdr *notes = (const void *)(core + sizeof(Elf64_Ehdr));

	for (const uint8_t *at = core + notes->p_offset, *end = at + notes->p_filesz; at < end;) {
		Elf64_Nhdr note;
		memcpy(&note, at, sizeof(note));
		at += sizeof(note);
		if (note.n_type == type && strcmp((const char *)at, "CORE") == 0 && note.n_descsz == size) {
			memcpy(to, at + 8, size);
			return true;
		}
		at += 8 + note.n_descsz;
	}
	return false;
}

static void check_memory(const uint8_t *core)
{
	unsigned wrong = 0;

	for (unsigned i = 0; i < sandbox->areas.n; i++) {
		const struct area *area = &sandbox->areas.list[i];
		for (uint64_t at = 0; at < area->size; at += SANDBOX_PAGE) {
			const Elf64_Phdr *segment = find_segment(core, area->gpa + at);
			if (!segment)
				wrong += (area->rights & HUSK_SANDBOX_GUEST_R) && area->kind != AREA_PROGRAM;
			else
				wrong += segment->p_filesz != segment->p_memsz || segment->p_offset % SANDBOX_PAGE ||
					 memcmp(core + segment->p_offset + (area->gpa + at - segment->p_vaddr),
						 area->host + at, SANDBOX_PAGE) != 0;
		}
	}
	CHECK(wrong == 0, "every page that the guest can read is in the core as it is");
	CHECK(!find_segment(core, SECRET), "what the guest cannot read is not");
	const Elf64_Phdr *code = find_segment(core, image->entry), *region = find_segment(core, REGION),
			 *core_area = find_segment(core, sandbox->places.heap.at),
			 *constants = find_segment(core, SANDBOX_PROGRAM);
	CHECK(code && code->p_flags == (PF_R | PF_X) && region && region->p_flags == PF_R && core_area &&
			core_area->p_flags == (PF_R | PF_W) && constants && constants->p_flags == PF_R,
		"with the rights of the guest");
}

static void check_notes(const uint8_t *core, const struct cpu_state *cpu)
{
	uint8_t floats[512];
	Elf64_auxv_t vector[6];
	struct elf_prstatus status;
	struct user_regs_struct regs;

	if (!CHECK(get_note(core, NT_PRSTATUS, &status, sizeof(status)) &&
			    get_note(core, NT_FPREGSET, floats, sizeof(floats)) &&
			    get_note(core, NT_AUXV, vector, sizeof(vector)),
		    "there are the three notes"))
		return;
	memcpy(&regs, status.pr_reg, sizeof(regs));
	CHECK(regs.rip == cpu->regs.rip && regs.rsp == cpu->regs.rsp && regs.rdi == cpu->regs.rdi && regs.rax == 2 &&
			regs.rbx == 3 && regs.rcx == 4 && regs.rdx == 5 && regs.rsi == 6 && regs.rbp == 7 &&
			regs.r8 == 8 && regs.r9 == 9 && regs.r10 == 10 && regs.r11 == 11 && regs.r12 == 12 &&
			regs.r13 == 13 && regs.r14 == 14 && regs.r15 == 15 && regs.eflags == 0x246 && regs.cs == 8 &&
			regs.ss == 16 && regs.fs_base == 0x77000,
		"each register is in its place");
	CHECK(status.pr_cursig == 0, "without a fault there is no signal");
	CHECK(memcmp(floats, cpu->xsave.region, sizeof(floats)) == 0, "floating-point registers are there");
	uint64_t entry = 0, headers = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(vector) && vector[i].a_type != AT_NULL; i++) {
		entry = vector[i].a_type == AT_ENTRY ? vector[i].a_un.a_val : entry;
		headers = vector[i].a_type == AT_PHDR ? vector[i].a_un.a_val : headers;
	}
	const Elf64_Phdr *segment = find_segment(core, headers);
	const Elf64_Ehdr *elf = (const void *)image->elf;
	CHECK(entry == image->entry && segment &&
			memcmp(core + segment->p_offset + (headers - segment->p_vaddr), image->elf + elf->e_phoff,
				elf->e_phnum * sizeof(Elf64_Phdr)) == 0,
		"the entry is told, and where the program's headers are");
}

/** Write a core with @open_flags; the descriptor. */
static int write_file(const char *name, int open_flags, const struct cpu_state *cpu)
{
	CLEANUP_FREE char *path = path_join(directory, name);
	struct husk_error err = {0};
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | open_flags, 0600);

	if (!CHECK(fd >= 0 && core_write(fd, image, &sandbox->areas, cpu, &err) == 0, "a core is written"))
		printf("# %s\n", err.message);
	return fd;
}

static void test_file(const struct cpu_state *cpu)
{
	struct stat st;
	CLEANUP_FD int fd = write_file("core", O_TRUNC, cpu);

	fstat(fd, &st);
	CHECK(st.st_size > (4 << 20) && st.st_blocks * 512 < 256 << 10, "zeroes are holes");
	uint8_t *core = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	const Elf64_Ehdr *header = (const void *)core;
	if (!CHECK(core != MAP_FAILED && memcmp(header->e_ident, ELFMAG, 4) == 0 && header->e_type == ET_CORE &&
			    header->e_machine == EM_X86_64,
		    "it is a core of x86-64"))
		return;
	check_memory(core);
	check_notes(core, cpu);

	/* The same where no holes can be: through a pipe, over old bytes, and at the end of a file whose end moves. */
	int pair[2];
	CLEANUP_BUFFER struct buffer piped = {0};
	if (pipe2(pair, O_CLOEXEC) < 0)
		return;
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		close(pair[0]);
		_exit(core_write(pair[1], image, &sandbox->areas, cpu, NULL) == 0 ? 0 : 1);
	}
	close(pair[1]);
	int status, rc = fd_read_to_end(pair[0], &piped, 1 << 30);
	close(pair[0]);
	waitpid(pid, &status, 0);
	CHECK(rc == 0 && status == 0 && piped.size == (size_t)st.st_size &&
			memcmp(buffer_bytes(&piped), core, piped.size) == 0,
		"a pipe gets the same bytes");
	CLEANUP_FREE uint8_t *old = malloc(piped.size);
	memset(old, 0xee, piped.size);
	static const int flags[] = {0, O_APPEND};
	for (int i = 0; i < 2; i++) {
		CLEANUP_FREE char *path = path_join(directory, i ? "append" : "old");
		CLEANUP_FD int over = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		CLEANUP_BUFFER struct buffer got = {0};
		if (fd_write_all(over, old, i ? 8 : piped.size) < 0)
			return;
		CLEANUP_FD int again = write_file(i ? "append" : "old", flags[i], cpu);
		lseek(again, i ? 8 : 0, SEEK_SET);
		CHECK(fd_read_to_end(again, &got, 1 << 30) == 0 && got.size == piped.size &&
				memcmp(buffer_bytes(&got), core, piped.size) == 0,
			i ? "and a file that is appended to" : "and so does a file that had others");
	}
	CLEANUP_FD int last = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	lseek(last, SANDBOX_PAGE, SEEK_SET);
	CHECK(core_write(last, image, &sandbox->areas, cpu, NULL) == 0 && fstat(last, &st) == 0 &&
			st.st_size == (off_t)(piped.size + SANDBOX_PAGE) && st.st_blocks * 512 < 256 << 10,
		"it begins where the file's position is");
	munmap(core, piped.size);
}

static void test_failures(const struct cpu_state *cpu)
{
	struct husk_error err = {0};
	CLEANUP_FD int full = open("/dev/full", O_WRONLY | O_CLOEXEC),
		       readable = open("/dev/null", O_RDONLY | O_CLOEXEC);

	CHECK(core_write(full, image, &sandbox->areas, cpu, &err) == -ENOSPC && strstr(err.message, "No space left"),
		"a full disk is told");
	CHECK(core_write(readable, image, &sandbox->areas, cpu, &err) == -EBADF, "and a file that is not for writing");
	CHECK(core_write(-1, image, &sandbox->areas, cpu, &err) == -EBADF, "and no file at all");
	CHECK(husk_sandbox_write_core(sandbox, full, &err) == -EINVAL && strstr(err.message, "not been started"),
		"a sandbox that has not been started has no core");
	pid_t pid = fork();
	if (pid == 0) {
		struct rlimit limit = {.rlim_cur = 1 << 20, .rlim_max = 1 << 20};
		signal(SIGXFSZ, SIG_IGN);
		setrlimit(RLIMIT_FSIZE, &limit);
		CLEANUP_FD int fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
		_exit(core_write(fd, image, &sandbox->areas, cpu, NULL) == -EFBIG ? 0 : 1);
	}
	int status;
	waitpid(pid, &status, 0);
	CHECK(status == 0, "and a limit on the size of files, though all that is behind it is a hole");
}

static void check_fault(const struct cpu_state *before, unsigned vector, bool error_code, int signal, const char *what)
{
	CLEANUP_FREE struct cpu_state *cpu = malloc(sizeof(*cpu));
	uint8_t head[16384];
	struct elf_prstatus status;
	struct user_regs_struct regs;

	*cpu = *before;
	raise_fault(cpu, vector, error_code);
	CLEANUP_FD int fd = write_file("core", O_TRUNC, cpu);
	if (pread(fd, head, sizeof(head), 0) != sizeof(head) || !get_note(head, NT_PRSTATUS, &status, sizeof(status)))
		exit(1);
	memcpy(&regs, status.pr_reg, sizeof(regs));
	CHECK(regs.rip == before->regs.rip && regs.rsp == before->regs.rsp && regs.eflags == 0x246 &&
			status.pr_cursig == signal,
		what);
}

/** What the CPU pushed is the guest's to change: a stack pointer that leads nowhere is no harm. */
static void test_faults(const struct cpu_state *before)
{
	CLEANUP_FREE struct cpu_state *cpu = malloc(sizeof(*cpu));
	static const uint64_t nowhere[] = {0, 0xfffffffffffffff8, 0xfffffffffffffff0, SANDBOX_ADDRESS_MAX};
	struct husk_error err = {0};
	unsigned wrong = 0;

	check_fault(before, INVALID_OPCODE, false, SIGILL, "an exception without error code is unwound");
	check_fault(before, PAGE_FAULT, true, SIGSEGV, "and one with it");
	check_fault(before, 0, false, SIGFPE, "a division error is SIGFPE");
	check_fault(before, 3, false, SIGTRAP, "a breakpoint is SIGTRAP");
	for (unsigned i = 0; i < ARRAY_SIZE(nowhere); i++) {
		*cpu = *before;
		cpu->regs.rip = STUBS + PAGE_FAULT * 16 + OUT_SIZE;
		cpu->regs.rsp = nowhere[i];
		CLEANUP_FD int fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
		wrong += core_write(fd, image, &sandbox->areas, cpu, &err) != 0;
	}
	CHECK(wrong == 0, "a fault stack that leads nowhere is no harm");
}

/* ---- gdb ---- */

static int run_gdb(const char *program, const char *core, struct buffer *output)
{
	const char *const argv[] = {"gdb", "-q", "-batch", "-nx", "-iex", "set debuginfod enabled off", "-ex", "bt 2",
		"-ex", "info registers rip rdi r15 eflags", "-ex", "print $xmm0.v2_double[0]", "-ex", "x/s 0x11000",
		"-ex", "print/x value", program, core, NULL};
	struct husk_error err = {0};
	int pair[2], status;
	pid_t pid;

	if (pipe2(pair, O_CLOEXEC) < 0)
		return -errno;
	const struct spawn how = {
		.path = "gdb", .argv = (char *const *)argv, .stdio = {-1, pair[1], pair[1]}, .die_with_parent = true};
	int rc = spawn(&how, &pid, NULL, &err);
	close(pair[1]);
	if (rc == 0) {
		rc = fd_read_to_end(pair[0], output, 1 << 20);
		waitpid(pid, &status, 0);
	}
	close(pair[0]);
	return rc == 0 && buffer_append(output, "", 1) == 0 ? 0 : -ENOENT;
}

static void test_gdb(const char *program, const struct cpu_state *before)
{
	CLEANUP_FREE struct cpu_state *cpu = malloc(sizeof(*cpu));
	CLEANUP_FREE char *core = path_join(directory, "core");
	CLEANUP_BUFFER struct buffer output = {0};
	char expected[64];

	*cpu = *before;
	raise_fault(cpu, PAGE_FAULT, true);
	CLEANUP_FD int fd = write_file("core", O_TRUNC, cpu);
	if (run_gdb(program, core, &output) < 0) {
		printf("ok %d - what gdb sees # skip there is no gdb\n", ++tap_count);
		return;
	}
	const char *text = (const char *)buffer_bytes(&output);
	snprintf(expected, sizeof(expected), "0x%llx", (unsigned long long)before->regs.rip);
	bool fine = CHECK(strstr(text, "SIGSEGV"), "gdb knows how it ended");
	fine &= CHECK(strstr(text, "#0  inner (value=1311768467294899695)") && strstr(text, "core.c:"),
		"where: function, argument, file and line");
	fine &= CHECK(strstr(text, "#1 ") && strstr(text, "in middle ("), "and from where it was called");
	fine &= CHECK(strstr(text, expected), "at the address where it was in the guest");
	fine &= CHECK(
		strstr(text, "= 0x1234567890abcdef") && strstr(text, "[ PF ZF IF ]"), "registers are the guest's");
	fine &= CHECK(strstr(text, "$1 = 0.5"), "floating-point registers, too");
	fine &= CHECK(strstr(text, "0x11000:\t\"read me\""), "and so is memory");
	fine &= CHECK(!strstr(text, "warning"), "gdb has nothing to complain of");
	if (!fine)
		printf("# %s\n", text);
}

int main(int argc, char **argv)
{
	static struct cpu_state cpu;

	if (argc != 2 || !mkdtemp(directory))
		return 1;
	make_sandbox(argv[1]);
	set_registers(&cpu);
	test_file(&cpu);
	test_failures(&cpu);
	test_faults(&cpu);
	test_gdb(argv[1], &cpu);
	husk_sandbox_free(sandbox);
	husk_sandbox_image_free(image);
	path_remove_tree(directory, NULL);
	return tap_done();
}
