/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fault.c - exceptions of the guest's CPU, decoded
 *
 * The stub that ran tells the vector; what the CPU pushed lies on the fault stack (Intel SDM vol. 3, 6.14.2): an error code for
 * some vectors, then RIP, CS, RFLAGS, RSP, SS. A guest can jump to a stub or write to that stack: what is told here is for
 * people to read, and nothing is decided by it.
 */
#include "sandbox/run.h"

#include "base/bytes.h"
#include "base/cleanup.h"

#include <inttypes.h>
#include <string.h>

#define PAGE_FAULT 14
#define SHUT_DOWN 255

static const struct {
	const char *name;
	bool error_code;
} vectors[] = {
	[0] = {"division error", false},
	[1] = {"debug exception", false},
	[2] = {"non-maskable interrupt", false},
	[3] = {"breakpoint", false},
	[4] = {"overflow", false},
	[5] = {"bound range exceeded", false},
	[6] = {"invalid opcode", false},
	[7] = {"device not available", false},
	[8] = {"double fault", true},
	[10] = {"invalid TSS", true},
	[11] = {"segment not present", true},
	[12] = {"stack-segment fault", true},
	[13] = {"general protection fault", true},
	[PAGE_FAULT] = {"page fault", true},
	[16] = {"x87 floating-point error", false},
	[17] = {"alignment check", true},
	[18] = {"machine check", false},
	[19] = {"SIMD floating-point error", false},
	[20] = {"virtualization exception", false},
	[21] = {"control protection exception", true},
	[29] = {"VMM communication exception", true},
	[30] = {"security exception", true},
};

static bool within(const struct sandbox_range *range, uint64_t at)
{
	return at >= range->at && at - range->at < range->size;
}

/** What lies at an address that faulted, for a reader. */
static const char *place_name(const struct husk_sandbox *s, uint64_t at)
{
	const struct sandbox_places *p = &s->places;
	const struct {
		struct sandbox_range range;
		const char *name;
	} names[] = {
		{{0, SANDBOX_PAGE}, "a null pointer"},
		{{p->stack.at - SANDBOX_PAGE, SANDBOX_PAGE}, "the guard below the stack: it is full"},
		{{p->stack.at + p->stack.size, SANDBOX_PAGE}, "the guard above the stack"},
		{{p->heap.at + p->heap.size, SANDBOX_PAGE}, "the guard above the heap"},
		{{SANDBOX_SUPPORT, SANDBOX_SUPPORT_SIZE}, "the library's pages"},
		{{SANDBOX_PROGRAM, p->core.at - SANDBOX_PROGRAM}, "the program's read-only part"},
		{p->data, "the program's data"},
		{p->heap, "the heap"},
		{p->stack, "the stack"},
		{p->input, "the input buffer"},
		{p->output, "the output buffer"},
		{p->info, "the info pages"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (within(&names[i].range, at))
			return names[i].name;
	return s->areas.n && areas_at(&s->areas, at, 1) ? "a region or a page of cells" : "no memory";
}

/** The stack that the CPU pushed, as it was before. */
static void read_frame(struct husk_sandbox *s, uint64_t rsp, bool error_code)
{
	uint8_t frame[6 * 8] = {0};
	size_t n = error_code ? sizeof(frame) : sizeof(frame) - 8;
	const void *at = areas_at(&s->areas, rsp, n);

	if (!at)
		return;
	memory_copy(frame, at, n);
	const uint8_t *p = frame;
	if (error_code) {
		s->report.error_code = get_le64(p);
		p += 8;
	}
	s->report.rip = get_le64(p);
	s->report.rsp = get_le64(p + 24);
}

static void describe_page_fault(const struct husk_sandbox *s, char *text, size_t room)
{
	uint64_t code = s->report.error_code;
	const char *did = code & 1u << 4 ? "executed" : code & 1u << 1 ? "wrote to" : "read";

	snprintf(text, room, ": it %s 0x%" PRIx64 ", %s", did, s->report.address, place_name(s, s->report.address));
}

int fault_report(struct husk_sandbox *s, struct husk_error *err)
{
	struct husk_sandbox_report *report = &s->report;
	struct kvm_regs regs = {0};
	struct kvm_sregs sregs = {0};
	char more[160] = "";

	int rc = run_settle(s, err);
	long got = rc < 0 ? rc : kvm_ioctl(s->vcpu.fd, KVM_GET_REGS, &regs, "read registers", err);
	got = got < 0 ? got : kvm_ioctl(s->vcpu.fd, KVM_GET_SREGS, &sregs, "read special registers", err);
	if (got < 0)
		return sandbox_blame(
			s, HUSK_SANDBOX_FAULT, -EFAULT, err, "the guest's CPU faulted, and its state cannot be read");
	int vector = cpu_vector(regs.rip);
	if (vector < 0)
		return sandbox_blame(s, HUSK_SANDBOX_PROTOCOL, -EPROTO, err,
			"the guest broke the protocol: it touched the port of faults at 0x%" PRIx64,
			(uint64_t)regs.rip);
	report->vector = (uint32_t)vector;
	read_frame(s, regs.rsp, (unsigned)vector < ARRAY_SIZE(vectors) && vectors[vector].error_code);
	image_symbol(s->image, report->rip, report->symbol, sizeof(report->symbol));
	if (vector == PAGE_FAULT) {
		report->address = sregs.cr2;
		describe_page_fault(s, more, sizeof(more));
	}
	const char *name = (unsigned)vector < ARRAY_SIZE(vectors) ? vectors[vector].name : NULL;
	return sandbox_blame(s, HUSK_SANDBOX_FAULT, -EFAULT, err,
		"the guest's CPU faulted: %s (vector %d) at 0x%" PRIx64 "%s%s%s", name ? name : "reserved exception",
		vector, report->rip, report->symbol[0] ? " " : "", report->symbol, more);
}

int fault_report_shutdown(struct husk_sandbox *s, struct husk_error *err)
{
	s->report.vector = SHUT_DOWN;
	return sandbox_blame(s, HUSK_SANDBOX_FAULT, -EFAULT, err,
		"the guest's CPU shut down: an exception could not be delivered (triple fault)");
}
