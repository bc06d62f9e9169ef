/* SPDX-License-Identifier: Apache-2.0 */
/* logs.h - read a VM's log, and follow it until the VM has ended */
#ifndef ENGINE_LOGS_H
#define ENGINE_LOGS_H

#include "engine/vm.h"

/** The options' defaults. */
struct husk_log_options logs_defaults(void);
/** As husk_vm_logs(), for the VM @id; @options are of this build's own size. */
int logs_read(const struct husk *husk, const char *id, const struct husk_log_options *options, husk_log_fn *fn,
	void *data, struct husk_error *err);

#endif
