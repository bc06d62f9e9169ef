/* SPDX-License-Identifier: Apache-2.0 */
/* start.h - from a configuration to a VM whose agent has answered */
#ifndef ENGINE_START_H
#define ENGINE_START_H

#include "engine/live.h"

/** See husk_vm_start(); @config is of this build's own size. */
int start_vm(
	const struct husk *husk, const struct husk_vm_config *config, struct husk_vm **out, struct husk_error *err);
/** See husk_vm_create(). */
int create_vm(
	const struct husk *husk, const struct husk_vm_config *config, struct husk_vm **out, struct husk_error *err);
/** See husk_vm_boot(); @options are of this build's own size. */
int boot_vm(struct husk_vm *vm, const struct husk_boot_options *options, struct husk_error *err);

#endif
