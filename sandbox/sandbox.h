/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox.h - the insides of a function sandbox, for the files of this floor
 *
 * Theory of operation: one thread owns the sandbox while it does anything but touch memory: `owned` is set for it
 * (sandbox_enter()), and what comes meanwhile is told -EBUSY. The memory lock is for areas, cells, their shadows and the dirty
 * bits; calls hold it for moments, and never while the guest runs, so other threads can read regions and turn cells under a
 * running guest.
 *
 * Memory is a list of areas (area.h), each one memslot. Everything that a snapshot remembers is in areas that are not the
 * program's.
 */
#ifndef SANDBOX_SANDBOX_H
#define SANDBOX_SANDBOX_H

#include "sandbox/area.h"
#include "sandbox/cell.h"
#include "sandbox/cpu.h"
#include "sandbox/image.h"
#include "sandbox/kick.h"
#include "sandbox/places.h"
#include "sandbox/signature.h"

/** One function of the host's. */
struct host_function {
	struct signature signature;
	husk_sandbox_function *function;
	void *data;
};

struct husk_sandbox {
	struct husk_sandbox_image *image; /* owned reference */
	struct husk_sandbox_snapshot *born_of; /* owned reference, or NULL: what it starts as */
	struct husk_sandbox_snapshot *synced; /* owned reference; what the dirty bits count from. NULL: from the start */
	struct husk_sandbox_config config;
	enum husk_sandbox_state state; /* atomic; written by the owner */
	bool owned; /* atomic: somebody is in */
	bool released; /* it holds nothing any more */

	struct host_function *functions; /* [0] is print */
	unsigned n_functions;
	unsigned *imports; /* which of functions each import of the program is; made by the start */

	pthread_mutex_t memory_lock;
	struct areas areas;
	struct cells cells;
	struct sandbox_places places;

	const struct kvm *kvm; /* the image's; NULL before the start */
	struct kvm_vm vm;
	struct kvm_vcpu vcpu;
	struct cpu_features features;
	struct kick kick;
	uint8_t *input, *output; /* the buffers in this process, of config.input and config.output bytes */
	double tick_ns; /* of the time stamp counter, which is read around each KVM_RUN: a clock would be a tenth of an empty call */
	uint64_t call_size; /* of the call frame in the input buffer, rounded up to 16; 0: none */

	struct husk_sandbox_report report;
	struct husk_sandbox_stats stats;
};

/** A set of states for sandbox_enter(). */
#define IN_STATE(state) (1u << (state))
#define IN_ANY_STATE (~0u)

/** Become the owner. -EBUSY (somebody is in), or, when it is in none of the states @allowed, -ESHUTDOWN, -ENOTRECOVERABLE or
 *  -EINVAL: @what, "call a function", cannot be done now. */
int sandbox_enter(struct husk_sandbox *sandbox, unsigned allowed, const char *what, struct husk_error *err);
void sandbox_leave(struct husk_sandbox *sandbox);
void sandbox_set_state(struct husk_sandbox *sandbox, enum husk_sandbox_state state);
/** Note why a call ended, in the report and in @err; returns @code. */
__attribute__((format(printf, 5, 6))) int sandbox_blame(struct husk_sandbox *sandbox, enum husk_sandbox_reason reason,
	int code, struct husk_error *err, const char *format, ...);

#endif
