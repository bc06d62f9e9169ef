/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bzimage.c - a bzImage (vmlinuz), entered in 64-bit mode
 *
 * Documentation/arch/x86/boot.rst, "The real-mode kernel header" and "64-bit Boot Protocol". The file is a boot sector and
 * setup code for BIOSes, then the protected-mode part, whose first bytes are the 32-bit entry and whose 64-bit entry lies at
 * 0x200. Only that part is loaded; of the rest only the setup header is read. A compressed kernel unpacks itself in place:
 * it needs init_size bytes from its run-time start on, which is never below pref_address.
 */
#include "vmm/machine/arch/x86_64/boot_internal.h"

#include "vmm/machine/arch/x86_64/layout.h"

#include <inttypes.h>
#include <string.h>

#define HEADER_AT 0x1f1 /* where struct setup_header lies in the file, and in boot_params */
#define MAGIC_AT 0x202
#define BOOT_FLAG 0xaa55
#define MAGIC 0x53726448 /* "HdrS" */
#define VERSION_MIN 0x20c /* the first with xloadflags */
#define SECTOR 512
#define ENTRY_64 0x200

static struct setup_header header_of(const uint8_t *head)
{
	struct setup_header header;
	memcpy(&header, head + HEADER_AT, sizeof(header));
	return header;
}

static bool probe(const uint8_t *head, size_t n)
{
	if (n < HEADER_AT + sizeof(struct setup_header))
		return false;
	struct setup_header header = header_of(head);
	return header.boot_flag == BOOT_FLAG && header.header == MAGIC;
}

/** The header as the file has it: it ends where its jump (0xeb and a distance, at 0x200) goes, at the latest. */
static int read_header(const struct boot_file *kernel, struct setup_header *header, struct husk_error *err)
{
	uint8_t head[HEADER_AT + sizeof(*header)];
	int rc = boot_file_read(kernel, 0, head, sizeof(head), err);

	if (rc < 0)
		return rc;
	*header = header_of(head);
	size_t end = MAGIC_AT + (header->jump >> 8),
	       needed = HEADER_AT + offsetof(struct setup_header, handover_offset);
	if (end < needed)
		return error_set(err, -EINVAL,
			"load the kernel: its setup header ends at 0x%zx, before init_size: the file is broken", end);
	if (end < sizeof(head))
		memset((uint8_t *)header + (end - HEADER_AT), 0, sizeof(head) - end);
	return 0;
}

static int check_header(const struct setup_header *header, struct husk_error *err)
{
	if (header->version < VERSION_MIN)
		return error_set(err, -EINVAL,
			"load the kernel: it speaks boot protocol %u.%02u, 2.12 (Linux 3.8) or later is needed",
			header->version >> 8, header->version & 0xff);
	if (!(header->loadflags & LOADED_HIGH))
		return error_set(err, -EINVAL, "load the kernel: it is a zImage: give it a bzImage");
	if (!(header->xloadflags & XLF_KERNEL_64))
		return error_set(err, -EINVAL, "load the kernel: it is a 32-bit kernel: give it an x86-64 one");
	if (header->relocatable_kernel &&
		(!header->kernel_alignment || header->kernel_alignment & (header->kernel_alignment - 1)))
		return error_set(err, -EINVAL,
			"load the kernel: its alignment 0x%x is no power of two: the file is broken",
			header->kernel_alignment);
	return 0;
}

/** Where the kernel goes: its run-time start, where it would move itself anyway. */
static int choose_address(const struct setup_header *header, uint64_t *address, struct husk_error *err)
{
	uint64_t at = header->pref_address < X86_KERNEL ? X86_KERNEL : header->pref_address;
	uint64_t mask = header->relocatable_kernel ? header->kernel_alignment - 1ull : 0;

	if (__builtin_add_overflow(at, mask, &at))
		return error_set(err, -EINVAL, "load the kernel: it wants to lie at 0x%" PRIx64 ": the file is broken",
			(uint64_t)header->pref_address);
	*address = at & ~mask;
	return 0;
}

/** The header as it goes into boot_params; ramdisk and command line are the loader's to fill. */
static struct setup_header header_for_guest(const struct setup_header *header, uint64_t address)
{
	struct setup_header h = *header;

	h.vid_mode = 0xffff; /* "normal" */
	h.type_of_loader = 0xff; /* no number assigned; then there is no extended one */
	h.ext_loader_type = h.ext_loader_ver = 0;
	h.loadflags = LOADED_HIGH | (header->loadflags & QUIET_FLAG);
	h.code32_start = (uint32_t)address;
	h.setup_move_size = h.heap_end_ptr = 0;
	h.ramdisk_image = h.ramdisk_size = 0;
	h.hardware_subarch = 0;
	h.hardware_subarch_data = 0;
	h.setup_data = 0;
	return h;
}

static int plan_bzimage(
	const struct boot_file *kernel, const struct memory *memory, struct boot_plan *plan, struct husk_error *err)
{
	struct setup_header header;
	uint64_t address = 0;

	int rc = read_header(kernel, &header, err);
	rc = rc < 0 ? rc : check_header(&header, err);
	rc = rc < 0 ? rc : choose_address(&header, &address, err);
	if (rc < 0)
		return rc;
	uint64_t setup = ((header.setup_sects ? header.setup_sects : 4ull) + 1) * SECTOR;
	/* In paragraphs of 16 bytes, the last of which need not be whole. What follows, like a signature, is not loaded. */
	uint64_t size = header.syssize * 16ull, rest = kernel->size > setup ? kernel->size - setup : 0;
	if (size <= ENTRY_64)
		return error_set(err, -EINVAL, "load the kernel: of %" PRIu64 " bytes: the file is broken", size);
	if (rest < size && size - rest < 16)
		size = rest;
	const struct boot_piece piece = {
		.gpa = address, .size = header.init_size > size ? header.init_size : size, .offset = setup, .n = size};
	rc = boot_plan_add(plan, kernel, memory, &piece, err);
	if (rc < 0)
		return rc;
	plan->rip = address + ENTRY_64;
	plan->initrd_max = header.xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G ? UINT64_MAX : header.initrd_addr_max;
	plan->cmdline_max = header.cmdline_size;
	plan->header = header_for_guest(&header, address);
	return 0;
}

const struct boot_format boot_bzimage = {.name = "bzImage", .probe = probe, .plan = plan_bzimage};
