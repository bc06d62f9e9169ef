/* SPDX-License-Identifier: Apache-2.0 */
/*
 * boot-fuzz.c - libFuzzer target: bytes as a kernel, with an initramfs and memory of any size
 *
 * Theory of operation: the first eight bytes choose the VM (struct choice), the rest is the kernel's file. What
 * x86_boot_load() makes of it is then checked: a refusal has a code and a message. After a success kernel and initramfs lie in
 * RAM and beside each other, the entry lies in the kernel, the memory map adds up to the VM's memory, and no page of it was
 * touched but those of the low structures, the kernel's pieces and the initramfs.
 *
 * Without libFuzzer: replay.c, whose changes are made here: they are of a header's fields. With it, in bash:
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -I. -Iinclude -o boot-fuzz fuzz/boot-fuzz.c \
 *     vmm/machine/arch/x86_64/{boot,boot_info,bzimage,elf,registers}.c memory/memory.c base/{buffer,error,fd}.c &&
 *   ./boot-fuzz -max_len=4096 fuzz/corpus/boot
 */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "fuzz/fuzz.h"
#include "vmm/machine/arch/x86_64/boot_internal.h"
#include "vmm/machine/arch/x86_64/layout.h"
#include "vmm/machine/arch/x86_64/registers.h"

#include <string.h>
#include <sys/mman.h>

#define MIB (1ull << 20)
#define PAGE 4096ull
#define INITRD_MAX MIB
#define KERNEL_PAGES_MAX 512

/** What the first bytes choose. */
struct choice {
	uint8_t ram; /* an index into ram_sizes */
	uint8_t cmdline; /* its length, times 16 */
	uint16_t kernel_pages; /* the kernel's file is this long, at least, and zero at its end */
	uint32_t initrd; /* bytes; 0: none */
};

static const uint64_t ram_sizes[] = {MIB + PAGE, 2 * MIB, 16 * MIB, 17 * MIB + PAGE, 64 * MIB, X86_HOLE - PAGE,
	X86_HOLE, X86_HOLE + PAGE, X86_HIGH, 5ull << 30};

/** An invariant that says itself what it is. */
#define must_hold(condition) must(condition, #condition)

static int bytes_fd(const uint8_t *data, size_t size, uint64_t at_least)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	must_hold(fd >= 0 && fd_write_all(fd, data, size) == 0 &&
		  (size >= at_least || ftruncate(fd, (off_t)at_least) == 0));
	return fd;
}

/* ---- what must hold after a success ---- */

/** Whether the page at @gpa has a byte of [@start, @start + @size). */
static bool in_range(uint64_t gpa, uint64_t start, uint64_t size)
{
	return gpa + PAGE > start && gpa < start + size;
}

static bool may_be_touched(uint64_t gpa, const struct boot_plan *plan, const struct x86_entry *entry)
{
	bool may = gpa < X86_CMDLINE + X86_CMDLINE_SIZE || in_range(gpa, entry->initrd, entry->initrd_size);
	for (unsigned i = 0; i < plan->n_pieces; i++)
		may = may || in_range(gpa, plan->pieces[i].gpa, plan->pieces[i].n);
	return may;
}

/** Ask the memfd itself for its pages. */
static void check_pages(const struct memory *memory, const struct boot_plan *plan, const struct x86_entry *entry)
{
	for (unsigned i = 0; i < memory->n_regions; i++) {
		const struct memory_region *r = &memory->regions[i];
		uint64_t start = r->fd_offset, end = start + r->size;
		off_t at = lseek(memory->fd, (off_t)start, SEEK_DATA);
		while (at >= 0 && (uint64_t)at < end) {
			off_t hole = lseek(memory->fd, at, SEEK_HOLE);
			for (; at < hole && (uint64_t)at < end; at += PAGE)
				must_hold(may_be_touched(r->gpa + ((uint64_t)at - start), plan, entry));
			at = lseek(memory->fd, hole, SEEK_DATA);
		}
	}
}

static void check_map(const struct memory *memory, const struct x86_entry *entry)
{
	uint64_t sum = 0, n, at;
	const uint8_t *info = memory_at(memory, entry->info, PAGE);
	must_hold(info);
	if (entry->pvh) {
		n = get_le32(info + 48);
		at = get_le64(info + 40);
		must_hold(memory_at(memory, at, n * 24));
		for (uint64_t i = 0; i < n; i++)
			sum += get_le64((uint8_t *)memory_at(memory, at + i * 24, 24) + 8);
	} else {
		const struct boot_params *params = (const void *)info;
		for (unsigned i = 0; i < params->e820_entries; i++)
			sum += params->e820_table[i].size;
	}
	must_hold(sum == boot_ram(memory));
}

static void check_places(
	const struct memory *memory, const struct boot_plan *plan, const struct x86_entry *entry, uint64_t initrd)
{
	must_hold(boot_plan_holds(plan, entry->rip) && entry->rip >= X86_KERNEL && entry->rip < X86_HOLE);
	must_hold(entry->initrd_size == initrd);
	must_hold(!initrd || (memory_at(memory, entry->initrd, initrd) && entry->initrd >= X86_KERNEL));
	for (unsigned i = 0; i < plan->n_pieces; i++) {
		const struct boot_piece *p = &plan->pieces[i];
		must_hold(memory_at(memory, p->gpa, p->size) && p->gpa >= X86_KERNEL && p->n <= p->size);
		must_hold(!initrd || p->gpa >= entry->initrd + initrd || entry->initrd >= p->gpa + p->size);
		for (unsigned j = 0; j < i; j++)
			must_hold(p->gpa >= plan->pieces[j].gpa + plan->pieces[j].size ||
				  plan->pieces[j].gpa >= p->gpa + p->size);
	}
}

/** The plan again, which x86_boot_load() keeps to itself. */
static struct boot_plan plan_of(int kernel, const struct memory *memory)
{
	static const struct boot_format *const formats[] = {&boot_bzimage, &boot_elf};
	struct boot_plan plan = {0};
	uint8_t head[BOOT_HEAD];
	off_t size = lseek(kernel, 0, SEEK_END);
	ssize_t n = pread(kernel, head, sizeof(head), 0);
	const struct boot_file file = {.what = "kernel", .fd = kernel, .size = (uint64_t)size};
	must_hold(n > 0);
	for (unsigned i = 0; i < ARRAY_SIZE(formats); i++) {
		if (!formats[i]->probe(head, (size_t)n))
			continue;
		must_hold(formats[i]->plan(&file, memory, &plan, NULL) == 0);
		break;
	}
	return plan;
}

static void check(const struct memory *memory, int kernel, const struct x86_entry *entry, uint64_t initrd)
{
	struct kvm_sregs sregs = {.apic_base = 0xfee00900};
	struct kvm_regs regs;
	const struct boot_plan plan = plan_of(kernel, memory);
	check_places(memory, &plan, entry, initrd);
	check_map(memory, entry);
	check_pages(memory, &plan, entry);
	x86_entry_registers(entry, &sregs, &regs);
	must_hold(regs.rip == entry->rip && entry->pvh == !(sregs.efer & 0x400));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct choice choice;
	struct memory memory = {0};
	struct husk_error err = {0};
	struct x86_entry entry;
	char cmdline[256 * 16];
	int fd = -1;

	if (size < sizeof(choice))
		return 0;
	memcpy(&choice, data, sizeof(choice));
	uint64_t initrd = choice.initrd % (INITRD_MAX + 1), ram = ram_sizes[choice.ram % ARRAY_SIZE(ram_sizes)];
	memset(cmdline, 'x', sizeof(cmdline));
	cmdline[choice.cmdline * 16] = 0;
	CLEANUP_FD int kernel =
		bytes_fd(data + sizeof(choice), size - sizeof(choice), choice.kernel_pages % KERNEL_PAGES_MAX * PAGE);
	CLEANUP_FD int initrd_fd = initrd ? bytes_fd(NULL, 0, initrd) : -1;
	must_hold(memory_make_fd(ram, &fd, &err) == 0 && memory_init(&memory, fd, &err) == 0 &&
		  x86_map_memory(&memory, ram, &err) == 0);
	const struct x86_boot boot = {
		.memory = &memory, .kernel_fd = kernel, .initrd_fd = initrd_fd, .cmdline = cmdline, .rsdp = X86_ACPI};
	int rc = x86_boot_load(&boot, &entry, &err);
	must_hold(rc <= 0 &&
		  (rc == 0 || (err.code == rc && memchr(err.message, 0, sizeof(err.message)) && err.message[0])));
	if (rc == 0)
		check(&memory, kernel, &entry, initrd);
	memory_destroy(&memory);
	return 0;
}

/* Change some fields: of a size, at an alignment, to values at edges or close to what they were. */
size_t fuzz_mutate(uint8_t *data, size_t size, uint64_t *random)
{
	static const uint64_t edges[] = {0, 1, PAGE - 1, PAGE, X86_KERNEL - 1, X86_KERNEL, 16 * MIB, X86_HOLE - 1,
		X86_HOLE, UINT32_MAX, X86_HIGH, INT64_MAX, UINT64_MAX - PAGE, UINT64_MAX};
	for (uint64_t n = 1 + fuzz_random(random) % 4; n > 0; n--) {
		size_t bytes = 1u << fuzz_random(random) % 4;
		size_t at = fuzz_random(random) % (fuzz_random(random) % 4 ? 0x300 : size);
		if (at + bytes > size)
			continue;
		uint64_t value = 0;
		memcpy(&value, data + at, bytes);
		switch (fuzz_random(random) % 3) {
		case 0:
			value = edges[fuzz_random(random) % ARRAY_SIZE(edges)];
			break;
		case 1:
			value += fuzz_random(random) % 33 - 16;
			break;
		default:
			value ^= 1ull << fuzz_random(random) % 64;
		}
		memcpy(data + at, &value, bytes);
	}
	return fuzz_random(random) % 8 ? size : size - fuzz_random(random) % size;
}
