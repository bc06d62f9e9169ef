/* SPDX-License-Identifier: Apache-2.0 */
/* core.c - what a guest was, as an ELF core file (theory of operation: core.h) */
#include "sandbox/core.h"

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/fd.h"
#include "sandbox/run.h"

#include <elf.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/procfs.h>
#include <sys/stat.h>
#include <sys/user.h>

#define SEGMENTS_MAX (1 + 1 + IMAGE_SEGMENTS_MAX + AREAS_MAX) /* notes, the library's pages, the program's, areas */
#define THREAD 1 /* debuggers want an id */

_Static_assert(sizeof(struct elf_prstatus) == 336 && sizeof(struct user_fpregs_struct) == 512,
	"the notes are those of x86-64");

/* ---- what is written where ---- */

/** Where it goes. */
struct sink {
	int fd;
	bool holes; /* zeroes can be left out: nothing is in the file from its position on */
	uint64_t skipped; /* zeroes not yet written */
};

static void sink_open(struct sink *sink, int fd)
{
	off_t at = lseek(fd, 0, SEEK_CUR);
	int flags = fcntl(fd, F_GETFL);
	struct stat st;

	*sink = (struct sink){.fd = fd};
	sink->holes = at >= 0 && flags >= 0 && !(flags & O_APPEND) && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
		      st.st_size <= at;
}

static int sink_skip(struct sink *sink)
{
	off_t skipped = (off_t)sink->skipped;

	sink->skipped = 0;
	return skipped && lseek(sink->fd, skipped, SEEK_CUR) < 0 ? -errno : 0;
}

static int sink_write(struct sink *sink, const void *bytes, size_t n)
{
	int rc = sink_skip(sink);
	return rc < 0 ? rc : fd_write_all(sink->fd, bytes, n);
}

/** A page of zeroes. */
static int sink_zero(struct sink *sink)
{
	static const uint8_t zeroes[SANDBOX_PAGE];

	if (!sink->holes)
		return fd_write_all(sink->fd, zeroes, sizeof(zeroes));
	sink->skipped += sizeof(zeroes);
	return 0;
}

/** The end: a hole there needs a size. */
static int sink_close(struct sink *sink)
{
	int rc = sink_skip(sink);
	off_t end = rc < 0 || !sink->holes ? 0 : lseek(sink->fd, 0, SEEK_CUR);

	return rc < 0 ? rc : end > 0 && ftruncate(sink->fd, end) < 0 ? -errno : 0;
}

static int sink_memory(struct sink *sink, const uint8_t *from, uint64_t n)
{
	int rc = 0;

	/* A run of pages with something in them is one write. */
	for (uint64_t at = 0, run = 0; rc == 0 && at < n; at = run) {
		for (run = at; run < n && !bytes_are_zero(from + run, SANDBOX_PAGE);)
			run += SANDBOX_PAGE;
		if (run > at) {
			rc = sink_write(sink, from + at, run - at);
		} else {
			rc = sink_zero(sink);
			run += SANDBOX_PAGE;
		}
	}
	return rc;
}

/* ---- registers ---- */

/** What the guest did last, if it was a fault: @state becomes that of before. Returns the signal that a process would have
 *  got, or 0. */
static int unwind_fault(const struct areas *areas, struct kvm_regs *regs)
{
	/* Others are memory faults. */
	static const int signals[] = {
		[0] = SIGFPE, [1] = SIGTRAP, [3] = SIGTRAP, [6] = SIGILL, [16] = SIGFPE, [17] = SIGBUS, [19] = SIGFPE};
	int vector = cpu_vector(regs->rip);
	uint8_t words[5 * 8];

	if (vector < 0)
		return 0;
	/* RIP, CS, RFLAGS, RSP, SS were pushed onto a stack aligned to 16 bytes, and for some vectors an error code behind them
	 * (Intel SDM vol. 3, 6.14.2): the address tells. */
	const uint8_t *frame = areas_at(areas, regs->rsp + (regs->rsp % 16 ? 0 : 8), sizeof(words));
	if (!frame)
		return SIGSEGV;
	memcpy(words, frame, sizeof(words));
	regs->rip = get_le64(words);
	regs->rflags = get_le64(words + 16);
	regs->rsp = get_le64(words + 24);
	return (size_t)vector < ARRAY_SIZE(signals) && signals[vector] ? signals[vector] : SIGSEGV;
}

static void put_registers(struct elf_prstatus *status, const struct areas *areas, const struct cpu_state *cpu)
{
	struct kvm_regs regs = cpu->regs;
	struct user_regs_struct user;

	int signal = unwind_fault(areas, &regs);
	user = (struct user_regs_struct){
		.r15 = regs.r15,
		.r14 = regs.r14,
		.r13 = regs.r13,
		.r12 = regs.r12,
		.rbp = regs.rbp,
		.rbx = regs.rbx,
		.r11 = regs.r11,
		.r10 = regs.r10,
		.r9 = regs.r9,
		.r8 = regs.r8,
		.rax = regs.rax,
		.rcx = regs.rcx,
		.rdx = regs.rdx,
		.rsi = regs.rsi,
		.rdi = regs.rdi,
		.orig_rax = UINT64_MAX, /* no system call is under way */
		.rip = regs.rip,
		.cs = cpu->sregs.cs.selector,
		.eflags = regs.rflags,
		.rsp = regs.rsp,
		.ss = cpu->sregs.ss.selector,
		.fs_base = cpu->sregs.fs.base,
		.gs_base = cpu->sregs.gs.base,
		.ds = cpu->sregs.ds.selector,
		.es = cpu->sregs.es.selector,
		.fs = cpu->sregs.fs.selector,
		.gs = cpu->sregs.gs.selector,
	};
	*status = (struct elf_prstatus){
		.pr_info.si_signo = signal, .pr_cursig = (short)signal, .pr_pid = THREAD, .pr_fpvalid = 1};
	_Static_assert(sizeof(status->pr_reg) == sizeof(user), "general registers are laid out as for ptrace");
	memcpy(&status->pr_reg, &user, sizeof(user));
}

/* ---- notes ---- */

static int put_note(struct buffer *notes, uint32_t type, const void *bytes, size_t n)
{
	static const char name[8] = "CORE";
	const Elf64_Nhdr header = {.n_namesz = 5, .n_descsz = (uint32_t)n, .n_type = type};
	int rc = buffer_append(notes, &header, sizeof(header));

	rc = rc < 0 ? rc : buffer_append(notes, name, sizeof(name));
	return rc < 0 ? rc : buffer_append(notes, bytes, n); /* all of whole words */
}

/** Where the program's headers lie in its memory, or 0. */
static uint64_t find_headers(const struct husk_sandbox_image *image, const Elf64_Ehdr *header)
{
	const uint8_t *at = image->elf + header->e_phoff;

	for (unsigned i = 0; i < header->e_phnum; i++, at += sizeof(Elf64_Phdr)) {
		Elf64_Phdr segment;
		memcpy(&segment, at, sizeof(segment));
		if (segment.p_type == PT_LOAD && segment.p_offset <= header->e_phoff &&
			header->e_phoff - segment.p_offset < segment.p_filesz)
			return SANDBOX_PROGRAM + segment.p_vaddr + (header->e_phoff - segment.p_offset);
	}
	return 0;
}

static int put_notes(struct buffer *notes, const struct husk_sandbox_image *image, const struct areas *areas,
	const struct cpu_state *cpu)
{
	struct elf_prstatus status;
	Elf64_Ehdr header;

	memcpy(&header, image->elf, sizeof(header));
	const Elf64_auxv_t vector[] = {
		{.a_type = AT_PHDR, .a_un.a_val = find_headers(image, &header)},
		{.a_type = AT_PHENT, .a_un.a_val = sizeof(Elf64_Phdr)},
		{.a_type = AT_PHNUM, .a_un.a_val = header.e_phnum},
		{.a_type = AT_PAGESZ, .a_un.a_val = SANDBOX_PAGE},
		{.a_type = AT_ENTRY, .a_un.a_val = image->entry},
		{.a_type = AT_NULL},
	};
	put_registers(&status, areas, cpu);
	int rc = put_note(notes, NT_PRSTATUS, &status, sizeof(status));
	/* The XSAVE area begins with what FXSAVE writes, which is what the note holds. */
	rc = rc < 0 ? rc : put_note(notes, NT_FPREGSET, cpu->xsave.region, sizeof(struct user_fpregs_struct));
	return rc < 0 ? rc : put_note(notes, NT_AUXV, vector, sizeof(vector));
}

/* ---- segments ---- */

struct segments {
	Elf64_Phdr list[SEGMENTS_MAX]; /* [0] is the notes */
	const uint8_t *from[SEGMENTS_MAX]; /* in this process */
	unsigned n;
};

static void add(struct segments *segments, uint64_t gpa, uint64_t size, uint32_t flags, const uint8_t *from)
{
	segments->list[segments->n] = (Elf64_Phdr){.p_type = PT_LOAD,
		.p_flags = flags,
		.p_vaddr = gpa,
		.p_paddr = gpa,
		.p_filesz = size,
		.p_memsz = size,
		.p_align = SANDBOX_PAGE};
	segments->from[segments->n++] = from;
}

/** The program's own segments, so that a debugger knows code from constants; what lies between them the guest does not see. */
static void add_program(struct segments *segments, const struct husk_sandbox_image *image, const struct area *area)
{
	add(segments, area->gpa, SANDBOX_SUPPORT_SIZE, PF_R | PF_X, area->host);
	for (unsigned i = 0; i < image->n_segments; i++) {
		const struct image_segment *segment = &image->segments[i];
		if (segment->at >= area->gpa && segment->at - area->gpa < area->size)
			add(segments, segment->at, segment->size, PF_R | (segment->execute ? PF_X : 0),
				area->host + (segment->at - area->gpa));
	}
}

static void add_all(struct segments *segments, const struct husk_sandbox_image *image, const struct areas *areas)
{
	for (unsigned i = 0; i < areas->n; i++) {
		const struct area *area = &areas->list[i];
		if (!(area->rights & HUSK_SANDBOX_GUEST_R))
			continue;
		if (area->kind == AREA_PROGRAM)
			add_program(segments, image, area);
		else
			add(segments, area->gpa, area->size, PF_R | (area->rights & HUSK_SANDBOX_GUEST_W ? PF_W : 0),
				area->host);
	}
}

/** Place all in the file: header, program headers, notes, and from the next page on memory. Returns where that is. */
static uint64_t place(struct segments *segments, size_t notes_size)
{
	uint64_t notes = sizeof(Elf64_Ehdr) + segments->n * sizeof(Elf64_Phdr), at = page_up(notes + notes_size);

	segments->list[0] = (Elf64_Phdr){
		.p_type = PT_NOTE, .p_offset = notes, .p_filesz = notes_size, .p_memsz = notes_size, .p_align = 4};
	for (unsigned i = 1; i < segments->n; i++) {
		segments->list[i].p_offset = at;
		at += segments->list[i].p_filesz;
	}
	return page_up(notes + notes_size);
}

static int write_head(struct sink *sink, const struct segments *segments, const struct buffer *notes, uint64_t memory)
{
	const Elf64_Ehdr header = {
		.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
		.e_type = ET_CORE,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_phoff = sizeof(header),
		.e_ehsize = sizeof(header),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = (uint16_t)segments->n,
	};
	static const uint8_t zeroes[SANDBOX_PAGE];
	size_t used = segments->list[0].p_offset + notes->size;

	int rc = sink_write(sink, &header, sizeof(header));
	rc = rc < 0 ? rc : sink_write(sink, segments->list, segments->n * sizeof(Elf64_Phdr));
	rc = rc < 0 ? rc : sink_write(sink, buffer_bytes(notes), notes->size);
	return rc < 0 ? rc : sink_write(sink, zeroes, memory - used);
}

int core_write(int fd, const struct husk_sandbox_image *image, const struct areas *areas, const struct cpu_state *cpu,
	struct husk_error *err)
{
	CLEANUP_FREE struct segments *segments = calloc(1, sizeof(*segments));
	CLEANUP_BUFFER struct buffer notes = {0};
	struct sink sink;

	if (!segments || put_notes(&notes, image, areas, cpu) < 0)
		return error_set(err, -ENOMEM, "write a core: out of memory");
	segments->n = 1;
	add_all(segments, image, areas);
	sink_open(&sink, fd);
	int rc = write_head(&sink, segments, &notes, place(segments, notes.size));
	for (unsigned i = 1; rc == 0 && i < segments->n; i++)
		rc = sink_memory(&sink, segments->from[i], segments->list[i].p_filesz);
	rc = rc < 0 ? rc : sink_close(&sink);
	return rc < 0 ? error_set(err, rc, "write a core: %s", strerror(-rc)) : 0;
}

int husk_sandbox_write_core(struct husk_sandbox *sandbox, int fd, struct husk_error *err)
{
	CLEANUP_FREE struct cpu_state *cpu = calloc(1, sizeof(*cpu));

	if (!cpu)
		return error_set(err, -ENOMEM, "write a core: out of memory");
	int rc = sandbox_enter(
		sandbox, IN_STATE(HUSK_SANDBOX_READY) | IN_STATE(HUSK_SANDBOX_POISONED), "write a core", err);
	if (rc < 0)
		return rc;
	rc = run_settle(sandbox, err);
	rc = rc < 0 ? rc : cpu_save(sandbox->kvm, &sandbox->vcpu, cpu, err);
	/* Other threads may write regions and cells meanwhile; nothing is unmapped while this one is in. */
	rc = rc < 0 ? rc : core_write(fd, sandbox->image, &sandbox->areas, cpu, err);
	sandbox_leave(sandbox);
	return rc;
}
