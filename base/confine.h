/* SPDX-License-Identifier: Apache-2.0 */
/*
 * confine.h - walls that a process builds around itself with its own rights alone, on any host
 *
 * What needs more (namespaces, a root, another id) is vmm/jail's. Nothing here can be undone.
 */
#ifndef BASE_CONFINE_H
#define BASE_CONFINE_H

#include "base/error.h"

#include <stddef.h>

struct sock_filter;

/** No exec raises rights from here on (no_new_privs), no core is dumped, no other process of this user reads the memory. */
int confine_process(struct husk_error *err);
/** Empty every set of capabilities. The bounding set needs CAP_SETPCAP; without it no exec could gain from it anyway, once
 *  confine_process() stands. */
int confine_capabilities(struct husk_error *err);
/** Landlock with an empty ruleset: no file or directory can be opened, made, removed or executed, no TCP connection made, no
 *  process signalled, no abstract socket of another reached, as far as this kernel's Landlock knows these. Connecting to a
 *  unix socket by its path is not among them. 1: this kernel has no Landlock. Wants no_new_privs. */
int confine_files(struct husk_error *err);
/** Put a filter of system calls on the calling thread. 1: this kernel has no filters. Wants no_new_privs. */
int confine_calls(const struct sock_filter *code, size_t n, struct husk_error *err);

#endif
