/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm_filter.h - which VMs `ps` shows: --filter KEY=VALUE
 *
 * As with Docker, filters of one key add up (any of them fits), those of different keys narrow down (all have to fit).
 */
#ifndef CLI_VM_FILTER_H
#define CLI_VM_FILTER_H

#include "cli/cli.h"
#include "cli/vm_row.h"

enum vm_filter_key {
	VM_FILTER_STATUS, /* a state, or "exited" for stopped */
	VM_FILTER_NAME, /* part of its name */
	VM_FILTER_ID, /* beginning of its id */
	VM_FILTER_ANCESTOR, /* its image, by reference or id */
	VM_FILTER_EXITED, /* its exit status, of one that has ended */
	VM_FILTER_KEYS
};

struct vm_filter {
	enum vm_filter_key key;
	const char *value; /* behind the '=' of the text it was read from */
	char *image; /* ANCESTOR: the id of the image that has this name; NULL: none. Owned */
};

/** Read "KEY=VALUE"; an image is looked up in @husk. -EINVAL. */
int vm_filter_read(struct husk *husk, const char *text, struct vm_filter *out, struct husk_error *err);
/** True when @vm passes all of them. */
bool vm_filter_match(const struct vm_filter *filters, size_t n, const struct vm_row *vm);
/** True when one of them asks for VMs that have ended, which are looked at then. */
bool vm_filter_wants_ended(const struct vm_filter *filters, size_t n);

#endif
