/* SPDX-License-Identifier: Apache-2.0 */
/* run.c - run the guest until it has something to say (theory of operation: run.h) */
#include "sandbox/run.h"

#include "base/cleanup.h"
#include "sandbox/codec.h"

#include <inttypes.h>
#include <string.h>

/* Exits of one access: KVM does up to 1024 rounds of a string instruction before it can stop, and a round that reads where no
 * memory is takes an exit for each page that it touches. */
#define ACCESS_PARTS_MAX 4096
#define AGAIN 0 /* what an exit's handler says: run on; more is a sandbox_signal, less a reason to stop */

/** Put into the report where the guest's CPU is. */
static void note_place(struct husk_sandbox *s)
{
	struct kvm_regs regs = {0};

	(void)kvm_ioctl(s->vcpu.fd, KVM_GET_REGS, &regs, "read registers", NULL);
	s->report.rip = regs.rip;
	s->report.rsp = regs.rsp;
	image_symbol(s->image, regs.rip, s->report.symbol, sizeof(s->report.symbol));
}

static int protocol(struct husk_sandbox *s, struct husk_error *err, const char *what)
{
	note_place(s);
	return sandbox_blame(s, HUSK_SANDBOX_PROTOCOL, -EPROTO, err,
		"the guest broke the protocol: it %s, at 0x%" PRIx64 " %s", what, s->report.rip, s->report.symbol);
}

static int said(struct husk_sandbox *s, uint32_t what, struct husk_error *err)
{
	char message[SANDBOX_MESSAGE_MAX + 1];
	int rc;

	switch (what) {
	case SANDBOX_READY:
	case SANDBOX_RETURN:
	case SANDBOX_FAIL:
		return (int)what;
	case SANDBOX_HOST_CALL:
		return host_call(s, err);
	case SANDBOX_ABORT:
		rc = codec_read_error(s->output, s->config.output, &s->report.code, message, err);
		if (rc < 0)
			return sandbox_blame(s, HUSK_SANDBOX_PROTOCOL, rc, err,
				"the program aborted, and did not say why as it should");
		return sandbox_blame(s, HUSK_SANDBOX_ABORT, -ECONNABORTED, err, "the program aborted: %s (%d)", message,
			s->report.code);
	default:
		return protocol(s, err, "said what nobody knows");
	}
}

static int on_io(struct husk_sandbox *s, struct husk_error *err)
{
	const struct kvm_run *run = s->vcpu.run;
	uint64_t offset = run->io.data_offset;
	uint32_t what;

	if (run->io.direction == KVM_EXIT_IO_OUT && run->io.count == 1) {
		if (run->io.port == SANDBOX_PORT && run->io.size == sizeof(what) &&
			offset <= s->vcpu.run_size - sizeof(what)) {
			memcpy(&what, (const uint8_t *)run + offset, sizeof(what));
			return said(s, what, err);
		}
		if (run->io.port == SANDBOX_PORT_FAULT && run->io.size == 1)
			return fault_report(s, err);
	}
	return protocol(s, err, "touched a port that does not exist");
}

static int on_mmio(struct husk_sandbox *s, struct husk_error *err)
{
	const struct kvm_run *run = s->vcpu.run;

	s->report.address = run->mmio.phys_addr;
	return protocol(
		s, err, run->mmio.is_write ? "wrote where no memory can be written" : "read where no memory is");
}

static int on_halt(struct husk_sandbox *s, struct husk_error *err)
{
	return protocol(s, err, "halted the CPU");
}

static int on_nothing(struct husk_sandbox *s, struct husk_error *err)
{
	return AGAIN;
}

static int on_internal_error(struct husk_sandbox *s, struct husk_error *err)
{
	uint32_t which = s->vcpu.run->internal.suberror;
	char bytes[3 * 15 + 1] = "";

	note_place(s);
	if (which != KVM_INTERNAL_ERROR_EMULATION)
		return sandbox_blame(s, HUSK_SANDBOX_KVM, -EIO, err,
			"KVM failed inside (error %u) with the guest at 0x%" PRIx64 " %s", which, s->report.rip,
			s->report.symbol);
	const uint8_t *code = areas_at(&s->areas, s->report.rip, 15); /* no instruction is longer */
	for (unsigned i = 0; code && i < 15; i++)
		snprintf(bytes + 3 * i, 4, "%02x ", code[i]);
	return sandbox_blame(s, HUSK_SANDBOX_INSTRUCTION, -ENOTSUP, err,
		"this host's KVM cannot run the instruction at 0x%" PRIx64
		" %s (%s): it interprets guest code; build the program with "
		"-mgeneral-regs-only",
		s->report.rip, s->report.symbol, bytes);
}

static int on_fail_entry(struct husk_sandbox *s, struct husk_error *err)
{
	return sandbox_blame(s, HUSK_SANDBOX_KVM, -EIO, err, "the CPU refused the guest's state (reason 0x%" PRIx64 ")",
		(uint64_t)s->vcpu.run->fail_entry.hardware_entry_failure_reason);
}

static int on_unknown(struct husk_sandbox *s, struct husk_error *err)
{
	return sandbox_blame(s, HUSK_SANDBOX_KVM, -EIO, err, "KVM returned for a reason that is not known, %u",
		s->vcpu.run->exit_reason);
}

static int (*const exits[])(struct husk_sandbox *s, struct husk_error *err) = {
	[KVM_EXIT_UNKNOWN] = on_unknown,
	[KVM_EXIT_IO] = on_io,
	[KVM_EXIT_DEBUG] =
		on_nothing, /* a single step, which bench/bench-sandbox.c counts; a guest cannot ask for them */
	[KVM_EXIT_HLT] = on_halt,
	[KVM_EXIT_MMIO] = on_mmio,
	[KVM_EXIT_IRQ_WINDOW_OPEN] = on_nothing,
	[KVM_EXIT_SET_TPR] = on_nothing, /* it has lowered CR8: nothing waits to interrupt it */
	[KVM_EXIT_SHUTDOWN] = fault_report_shutdown,
	[KVM_EXIT_FAIL_ENTRY] = on_fail_entry,
	[KVM_EXIT_INTR] = on_nothing,
	[KVM_EXIT_INTERNAL_ERROR] = on_internal_error,
};

static int handle(struct husk_sandbox *s, struct husk_error *err)
{
	uint32_t reason = s->vcpu.run->exit_reason;

	return (reason < ARRAY_SIZE(exits) && exits[reason] ? exits[reason] : on_unknown)(s, err);
}

static int stopped(struct husk_sandbox *s, int why, struct husk_error *err)
{
	if (why == -ECANCELED)
		return sandbox_blame(s, HUSK_SANDBOX_CANCELED, why, err, "the call was canceled");
	return sandbox_blame(s, HUSK_SANDBOX_DEADLINE, why, err, "the call took longer than it may");
}

/** KVM_RUN itself failed: nothing can be known of the guest any more. */
static int broken(struct husk_sandbox *s, int why, struct husk_error *err)
{
	sandbox_set_state(s, HUSK_SANDBOX_DEAD);
	return sandbox_blame(s, HUSK_SANDBOX_KVM, why, err, "KVM does not run the guest: %s", strerror(-why));
}

static int run(struct husk_sandbox *s, struct husk_error *err)
{
	int rc = AGAIN;

	for (bool interrupted = false; rc == AGAIN;) {
		rc = kick_check(&s->kick, interrupted);
		if (rc < 0)
			return stopped(s, rc, err);
		uint64_t begun = __builtin_ia32_rdtsc();
		rc = kvm_vcpu_run(&s->vcpu);
		int64_t ticks = (int64_t)(__builtin_ia32_rdtsc() - begun);
		if (ticks > 0) /* it may be another CPU, whose counter is behind */
			s->stats.run_ns += (uint64_t)((double)ticks * s->tick_ns);
		s->stats.exits++;
		interrupted = rc == -EINTR;
		s->stats.kicks += interrupted;
		if (rc == -EINTR || rc == -EAGAIN)
			rc = AGAIN;
		else
			rc = rc < 0 ? broken(s, rc, err) : handle(s, err);
	}
	return rc;
}

int run_guest(struct husk_sandbox *s, uint64_t timeout_ns, struct husk_error *err)
{
	if (s->report.reason != HUSK_SANDBOX_FINE)
		s->report = (struct husk_sandbox_report){0};
	int rc = kick_begin(&s->kick, &s->vcpu, timeout_ns, err);
	if (rc < 0)
		return sandbox_blame(
			s, HUSK_SANDBOX_KVM, rc, NULL, "%s", err ? err->message : "the call could not begin");
	sandbox_set_state(s, HUSK_SANDBOX_RUNNING);
	rc = run(s, err);
	kick_end(&s->kick);
	return rc;
}

int run_settle(struct husk_sandbox *s, struct husk_error *err)
{
	if (!s->kvm->caps.immediate_exit)
		return error_set(err, -ENOTSUP, "this host's KVM cannot complete an access without running the guest");
	int rc = 0;
	s->vcpu.run->immediate_exit = 1;
	for (int parts = 0; rc == 0 && parts < ACCESS_PARTS_MAX; parts++)
		rc = kvm_vcpu_run(&s->vcpu);
	s->vcpu.run->immediate_exit = 0;
	return rc == -EINTR ? 0
			    : error_set(err, rc < 0 ? rc : -EIO, "complete what the guest did last: %s",
				      rc < 0 ? strerror(-rc) : "it does not end");
}
