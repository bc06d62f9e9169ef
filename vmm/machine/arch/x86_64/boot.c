/* SPDX-License-Identifier: Apache-2.0 */
/* boot.c - kernel and initramfs into guest memory (theory of operation: boot.h) */
#include "vmm/machine/arch/x86_64/boot_internal.h"

#include "base/cleanup.h"
#include "vmm/machine/arch/x86_64/layout.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define PAGE UINT64_C(4096)
#define MIB (UINT64_C(1) << 20)

static const struct boot_format *const formats[] = {&boot_bzimage, &boot_elf};

/* ---- memory ---- */

int x86_map_memory(struct memory *memory, uint64_t size, struct husk_error *err)
{
	uint64_t low = size < X86_HOLE ? size : X86_HOLE;

	if (size % PAGE || size <= X86_KERNEL)
		return error_set(err, -EINVAL,
			"a VM's memory of %" PRIu64 " bytes: more than 1 MiB in whole pages is needed", size);
	int rc = memory_add(memory, 0, low, 0, err);
	if (rc == 0 && size > low)
		rc = memory_add(memory, X86_HIGH, size - low, low, err);
	return rc;
}

uint64_t boot_ram(const struct memory *memory)
{
	uint64_t ram = 0;
	for (unsigned i = 0; i < memory->n_regions; i++)
		ram += memory->regions[i].size;
	return ram;
}

/** MiB, rounded up, for messages. */
static uint64_t mib(uint64_t bytes)
{
	return bytes / MIB + !!(bytes % MIB);
}

/* ---- files ---- */

static int file_open(int fd, const char *what, struct boot_file *file, struct husk_error *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_errno(err, "look at the %s", what);
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, "load the %s: it is not a regular file", what);
	if (st.st_size == 0)
		return error_set(err, -EINVAL, "load the %s: the file is empty", what);
	*file = (struct boot_file){.what = what, .fd = fd, .size = (uint64_t)st.st_size};
	return 0;
}

int boot_file_read(const struct boot_file *file, uint64_t offset, void *bytes, size_t n, struct husk_error *err)
{
	uint8_t *to = bytes;
	uint64_t end;

	if (__builtin_add_overflow(offset, n, &end) || end > file->size)
		return error_set(err, -EINVAL,
			"load the %s: the file is cut off: %zu bytes at %" PRIu64 " are needed, it has %" PRIu64,
			file->what, n, offset, file->size);
	while (n > 0) {
		ssize_t got = pread(file->fd, to, n, (off_t)offset);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return error_errno(err, "read the %s", file->what);
		if (got == 0)
			return error_set(err, -EINVAL, "read the %s: the file became shorter meanwhile", file->what);
		to += got;
		offset += (uint64_t)got;
		n -= (size_t)got;
	}
	return 0;
}

/* ---- the plan ---- */

static bool overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
	return a < b + b_size && b < a + a_size;
}

/** Why a kernel cannot have [@gpa, @gpa + @size), in words that help. */
static int refuse_range(const struct memory *memory, uint64_t gpa, uint64_t size, struct husk_error *err)
{
	uint64_t end = gpa + size, ram = boot_ram(memory);

	if (end <= X86_HOLE)
		return error_set(err, -ENOMEM,
			"load the kernel: it needs %" PRIu64 " MiB (%" PRIu64 " MiB from 0x%" PRIx64
			" on), the VM has %" PRIu64 ": give it more with -m",
			mib(end), mib(size), gpa, ram / MIB);
	return error_set(err, -EINVAL,
		"load the kernel: it wants %" PRIu64 " MiB of memory at 0x%" PRIx64
		", but a kernel has to lie below 0x%llx in every VM: the file is broken, or made for another machine",
		mib(size), gpa, X86_HOLE);
}

int boot_plan_add(struct boot_plan *plan, const struct boot_file *kernel, const struct memory *memory,
	const struct boot_piece *piece, struct husk_error *err)
{
	uint64_t end;

	if (piece->n > piece->size)
		return error_set(err, -EINVAL,
			"load the kernel: 0x%" PRIx64 " bytes for 0x%" PRIx64 " of memory: the file is broken",
			piece->n, piece->size);
	if (__builtin_add_overflow(piece->offset, piece->n, &end) || end > kernel->size)
		return error_set(err, -EINVAL,
			"load the kernel: the file is cut off: it should have 0x%" PRIx64 " bytes at 0x%" PRIx64
			", it has 0x%" PRIx64,
			piece->n, piece->offset, kernel->size);
	if (!piece->size || __builtin_add_overflow(piece->gpa, piece->size, &end))
		return error_set(err, -EINVAL,
			"load the kernel: 0x%" PRIx64 " bytes at 0x%" PRIx64
			" are no range of memory: the file is broken",
			piece->size, piece->gpa);
	if (piece->gpa < X86_KERNEL)
		return error_set(err, -EINVAL,
			"load the kernel: it wants to lie at 0x%" PRIx64
			", but the first MiB is the machine's: it is no kernel for a VM",
			piece->gpa);
	/* There is RAM above the hole, but neither way to enter has it mapped. */
	if (end > X86_HOLE || !memory_at(memory, piece->gpa, piece->size))
		return refuse_range(memory, piece->gpa, piece->size, err);
	for (unsigned i = 0; i < plan->n_pieces; i++)
		if (overlap(piece->gpa, piece->size, plan->pieces[i].gpa, plan->pieces[i].size))
			return error_set(err, -EINVAL,
				"load the kernel: its parts at 0x%" PRIx64 " and 0x%" PRIx64
				" overlap: the file is broken",
				plan->pieces[i].gpa, piece->gpa);
	if (plan->n_pieces == BOOT_PIECES_MAX)
		return error_set(err, -EINVAL, "load the kernel: it has more than %d parts", BOOT_PIECES_MAX);
	plan->pieces[plan->n_pieces++] = *piece;
	return 0;
}

bool boot_plan_holds(const struct boot_plan *plan, uint64_t gpa)
{
	for (unsigned i = 0; i < plan->n_pieces; i++)
		if (gpa >= plan->pieces[i].gpa && gpa - plan->pieces[i].gpa < plan->pieces[i].size)
			return true;
	return false;
}

/** Kinds of files that are taken for a kernel, and what they are. */
static const struct mistake {
	const char *bytes;
	size_t n;
	const char *is;
} mistakes[] = {
	{"\x1f\x8b", 2, "it is compressed with gzip: unpack it first"},
	{"\x28\xb5\x2f\xfd", 4, "it is compressed with zstd: unpack it first"},
	{"\xfd"
	 "7zXZ",
		5, "it is compressed with xz: unpack it first"},
	{"070701", 6, "it is an initramfs"},
	{"hsqs", 4, "it is a squashfs image"},
	{"MZ", 2, "it is an EFI program and no x86 kernel"},
	{"#!", 2, "it is a script"},
};

static int plan_kernel(
	const struct boot_file *kernel, const struct memory *memory, struct boot_plan *plan, struct husk_error *err)
{
	uint8_t head[BOOT_HEAD];
	size_t n = kernel->size < sizeof(head) ? (size_t)kernel->size : sizeof(head);
	int rc = boot_file_read(kernel, 0, head, n, err);

	if (rc < 0)
		return rc;
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
		if (formats[i]->probe(head, n))
			return formats[i]->plan(kernel, memory, plan, err);
	const char *is = "give it a bzImage (vmlinuz) or an uncompressed vmlinux";
	for (size_t i = ARRAY_SIZE(mistakes); i-- > 0;)
		if (n >= mistakes[i].n && memcmp(head, mistakes[i].bytes, mistakes[i].n) == 0)
			is = mistakes[i].is;
	return error_set(err, -EINVAL, "load the kernel: the file is neither a bzImage nor an ELF file: %s", is);
}

/* ---- the initramfs ---- */

/** The highest whole-page address for @size bytes in @region up to @max beside the kernel; 0: none. */
static uint64_t place_in(const struct memory_region *region, const struct boot_plan *plan, uint64_t size, uint64_t max)
{
	uint64_t bottom = region->gpa < X86_KERNEL ? X86_KERNEL : region->gpa;
	uint64_t top = region->gpa + region->size;

	if (max < top - 1)
		top = max + 1;
	for (;;) {
		if (top < bottom || size > top - bottom)
			return 0;
		uint64_t at = (top - size) & ~(PAGE - 1);
		if (at < bottom)
			return 0;
		unsigned i = 0;
		while (i < plan->n_pieces && !overlap(at, size, plan->pieces[i].gpa, plan->pieces[i].size))
			i++;
		if (i == plan->n_pieces)
			return at;
		top = plan->pieces[i].gpa; /* below that one; so top falls with each round */
	}
}

/** Below 4 GiB where there is room, since not every kernel maps more before it looks; above where it may be. */
static int place_initrd(const struct memory *memory, const struct boot_plan *plan, const struct boot_file *initrd,
	struct x86_entry *entry, struct husk_error *err)
{
	uint64_t kernel = 0, at = 0;

	for (unsigned i = 0; i < memory->n_regions && !at; i++)
		at = place_in(&memory->regions[i], plan, initrd->size, plan->initrd_max);
	if (!at) {
		for (unsigned i = 0; i < plan->n_pieces; i++)
			kernel += plan->pieces[i].size;
		return error_set(err, -ENOMEM,
			"load the initramfs: its %" PRIu64 " MiB do not fit beside the kernel's %" PRIu64
			" MiB, up to 0x%" PRIx64 " of the VM's %" PRIu64
			" MiB: give it more with -m, or a smaller initramfs",
			mib(initrd->size), mib(kernel), plan->initrd_max, boot_ram(memory) / MIB);
	}
	entry->initrd = at;
	entry->initrd_size = initrd->size;
	return 0;
}

/* ---- what lies below 1 MiB ---- */

static void *low(const struct memory *memory, uint64_t gpa, uint64_t size, struct husk_error *err)
{
	void *at = memory_at(memory, gpa, size);
	if (!at)
		error_set(err, -ENOMEM, "load the kernel: the VM has no memory at 0x%" PRIx64, gpa);
	return at;
}

static int write_cmdline(const struct x86_boot *boot, const struct boot_plan *plan, struct husk_error *err)
{
	size_t n = strlen(boot->cmdline);
	uint64_t max = plan->cmdline_max < X86_CMDLINE_SIZE - 1 ? plan->cmdline_max : X86_CMDLINE_SIZE - 1;

	if (n > max)
		return error_set(
			err, -E2BIG, "the kernel's command line has %zu bytes, this kernel takes %" PRIu64, n, max);
	char *at = low(boot->memory, X86_CMDLINE, X86_CMDLINE_SIZE, err);
	if (!at)
		return -ENOMEM;
	memcpy(at, boot->cmdline, n + 1);
	return 0;
}

/** Selectors 0x10 and 0x18 are the boot protocol's __BOOT_CS and __BOOT_DS; 8 is a 32-bit __BOOT_CS for PVH. */
static int write_gdt(const struct memory *memory, struct x86_entry *entry, struct husk_error *err)
{
	static const uint64_t gdt[] = {
		0,
		0x00cf9b000000ffff, /* 8: code, 32-bit, 4 GiB */
		0x00af9b000000ffff, /* 0x10: code, 64-bit */
		0x00cf93000000ffff, /* 0x18: data, 4 GiB */
		0x00008b0000000067, /* 0x20: a busy TSS at 0, in 64-bit mode of two entries */
		0,
	};
	void *at = low(memory, X86_GDT, sizeof(gdt), err);

	if (!at)
		return -ENOMEM;
	memcpy(at, gdt, sizeof(gdt));
	entry->gdt = X86_GDT;
	entry->gdt_limit = sizeof(gdt) - 1;
	return 0;
}

/** The first 4 GiB where they are, in pages of 2 MiB, which every 64-bit CPU has (Intel SDM vol. 3 §4.5). */
static int write_page_tables(const struct memory *memory, struct x86_entry *entry, struct husk_error *err)
{
	enum { PRESENT = 1, WRITE = 2, LARGE = 0x80, TABLES = 6, ENTRIES = 512 };
	uint64_t *tables = low(memory, X86_PAGE_TABLES, TABLES * PAGE, err);

	if (!tables)
		return -ENOMEM;
	memset(tables, 0, TABLES * PAGE);
	tables[0] = (X86_PAGE_TABLES + PAGE) | PRESENT | WRITE;
	for (uint64_t i = 0; i < 4; i++)
		tables[ENTRIES + i] = (X86_PAGE_TABLES + (2 + i) * PAGE) | PRESENT | WRITE;
	for (uint64_t i = 0; i < 4 * ENTRIES; i++)
		tables[2 * ENTRIES + i] = i * 2 * MIB | PRESENT | WRITE | LARGE;
	entry->page_tables = X86_PAGE_TABLES;
	return 0;
}

static int write_low(
	const struct x86_boot *boot, const struct boot_plan *plan, struct x86_entry *entry, struct husk_error *err)
{
	int rc = write_cmdline(boot, plan, err);
	rc = rc < 0 ? rc : write_gdt(boot->memory, entry, err);
	if (!plan->pvh)
		rc = rc < 0 ? rc : write_page_tables(boot->memory, entry, err);
	return rc < 0 ? rc : boot_info_write(boot, plan, entry, err);
}

/* ---- all of it ---- */

static int read_file(const struct memory *memory, const struct boot_file *file, uint64_t gpa, uint64_t offset,
	uint64_t n, struct husk_error *err)
{
	int rc = n ? memory_read_file(memory, gpa, file->fd, offset, n, err) : 0;
	return rc < 0 ? error_prefix(err, rc, "load the %s", file->what) : 0;
}

int x86_boot_load(const struct x86_boot *boot, struct x86_entry *entry, struct husk_error *err)
{
	struct boot_plan plan = {0};
	struct boot_file kernel, initrd;

	int rc = file_open(boot->kernel_fd, "kernel", &kernel, err);
	if (rc == 0 && boot->initrd_fd >= 0)
		rc = file_open(boot->initrd_fd, "initramfs", &initrd, err);
	rc = rc < 0 ? rc : plan_kernel(&kernel, boot->memory, &plan, err);
	if (rc < 0)
		return rc;
	*entry = (struct x86_entry){.pvh = plan.pvh, .rip = plan.rip, .info = X86_BOOT_INFO};
	if (boot->initrd_fd >= 0)
		rc = place_initrd(boot->memory, &plan, &initrd, entry, err);
	rc = rc < 0 ? rc : write_low(boot, &plan, entry, err);
	for (unsigned i = 0; rc == 0 && i < plan.n_pieces; i++) {
		const struct boot_piece *p = &plan.pieces[i];
		rc = read_file(boot->memory, &kernel, p->gpa, p->offset, p->n, err);
	}
	if (rc == 0 && boot->initrd_fd >= 0)
		rc = read_file(boot->memory, &initrd, entry->initrd, 0, initrd.size, err);
	return rc;
}
