/* SPDX-License-Identifier: Apache-2.0 */
/* selftest.h - a VM that boots, runs and stops, on each machine */
#ifndef ENGINE_SELFTEST_H
#define ENGINE_SELFTEST_H

#include "engine/engine.h"

/** As husk_selftest(). */
int selftest_run(const struct husk *husk, struct husk_finding **findings, size_t *n, struct husk_error *err);

#endif
