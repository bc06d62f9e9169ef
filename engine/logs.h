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
/** Say the last @lines lines of the last boot of the VM @id in notices. */
void logs_show(const struct husk *husk, const char *id, int lines);

#endif
