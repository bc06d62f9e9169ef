/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run.h - run the guest until it has something to say
 *
 * Theory of operation: one KVM_RUN per thing said. A port access of the right kind is something said (protocol.h) or the stub
 * of a fault; every other exit is a violation of the protocol or a failure of KVM, and poisons. The access is complete only
 * when KVM_RUN has been entered again, which run_settle() does without running the guest, for whoever wants to look at the
 * CPU.
 */
#ifndef SANDBOX_RUN_H
#define SANDBOX_RUN_H

#include "sandbox/sandbox.h"

/** Run, and serve the guest's calls of host functions, until it says READY, RETURN or FAIL: that one. A negative errno value:
 *  the reason is in the report, and poisons. */
int run_guest(struct husk_sandbox *sandbox, uint64_t timeout_ns, struct husk_error *err);
/** Complete what the last KVM_RUN left; nothing of the guest runs. */
int run_settle(struct husk_sandbox *sandbox, struct husk_error *err);

/** The guest has said HOST_CALL: find the function, call it, write the reply. -EPROTO. */
int host_call(struct husk_sandbox *sandbox, struct husk_error *err);

/** A stub of an exception vector has spoken, or the CPU has given up: fill the report. Returns -EFAULT. */
int fault_report(struct husk_sandbox *sandbox, struct husk_error *err);
int fault_report_shutdown(struct husk_sandbox *sandbox, struct husk_error *err);

#endif
