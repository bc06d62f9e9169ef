/* SPDX-License-Identifier: Apache-2.0 */
/*
 * seal.c - the last stage: a filter of system calls (theory of operation: jail.h, filters/rules.h)
 *
 * The arrays are made by filters/compile.c when husk is built. No other thread is touched (no TSYNC): each puts on its own.
 */
#include "base/cleanup.h"
#include "base/confine.h"
#include "vmm/jail/jail.h"

#include "filters.h"

/* A sanitizer's runtime maps, reads /proc and starts threads when it likes: such a build, for tests only, has no filter. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAS_FILTER false
#else
#define HAS_FILTER true
#endif

int jail_seal(enum jail_thread kind, struct husk_error *err)
{
	static const struct {
		const char *name;
		const struct sock_filter *code;
		size_t n;
	} filters[JAIL_THREADS] = {
		[JAIL_LOOP] = {"event loop", loop_filter, ARRAY_SIZE(loop_filter)},
		[JAIL_VCPU] = {"vCPU", vcpu_filter, ARRAY_SIZE(vcpu_filter)},
	};

	if (!HAS_FILTER)
		return 0;
	int rc = confine_calls(filters[kind].code, filters[kind].n, err);
	if (rc > 0)
		rc = error_set(err, -ENOSYS, "this kernel has no filters of system calls");
	return rc < 0 ? error_prefix(err, rc, "seal the %s", filters[kind].name) : 0;
}
