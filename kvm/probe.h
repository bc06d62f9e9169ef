/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe.h - does this host's KVM run guest code on the CPU?
 *
 * Theory of operation: CPUID flags and module names do not tell. Some KVMs interpret guest code instead of running it, at
 * half a million instructions a second; no operating system ever boots there. So a guest that counts down 65535 times is
 * run and timed: a CPU needs well under a millisecond, an interpreter more than fifty.
 */
#ifndef KVM_PROBE_H
#define KVM_PROBE_H

#include <stddef.h>

enum kvm_host {
	KVM_HOST_HARDWARE = 1,
	KVM_HOST_INTERPRETED, /* it works, and is no hardware wall */
	KVM_HOST_ABSENT, /* no /dev/kvm */
	KVM_HOST_DENIED, /* it cannot be opened */
	KVM_HOST_BROKEN, /* it opens, but a small guest does not run */
};

/** Look at /dev/kvm. @text: what was found, a part of a sentence. At most a quarter of a second, usually a few ms. */
enum kvm_host kvm_probe(char *text, size_t room);

#endif
