/* SPDX-License-Identifier: Apache-2.0 */
/* doctor.h - what this machine can do, and why */
#ifndef ENGINE_DOCTOR_H
#define ENGINE_DOCTOR_H

#include "engine/engine.h"

/** See husk_doctor(). */
int doctor_run(const struct husk *husk, const struct husk_error *open_error, struct husk_finding **findings, size_t *n,
	struct husk_error *err);

#endif
