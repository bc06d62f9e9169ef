/* SPDX-License-Identifier: Apache-2.0 */
/* doctor_kvm.h - is there a KVM that runs guest code on the CPU? */
#ifndef ENGINE_DOCTOR_KVM_H
#define ENGINE_DOCTOR_KVM_H

#include <stddef.h>

enum doctor_kvm {
	DOCTOR_KVM_HARDWARE,
	DOCTOR_KVM_INTERPRETED,
	DOCTOR_KVM_DENIED,
	DOCTOR_KVM_ABSENT,
	DOCTOR_KVM_BROKEN
};

/** Try it with a guest of seven bytes; @text says what was seen. */
enum doctor_kvm doctor_kvm_probe(char *text, size_t room);

#endif
