/* SPDX-License-Identifier: Apache-2.0 */
/* expose.h - open and close doors of a VM that runs, whoever has started it */
#ifndef ENGINE_EXPOSE_H
#define ENGINE_EXPOSE_H

#include "engine/engine.h"

/** As husk_expose() and husk_unexpose(), for the VM @id. The record's lock, which who runs the VM holds, is not taken. */
int expose_open(
	const struct husk *husk, const char *id, const struct husk_door *door, char **endpoint, struct husk_error *err);
int expose_close(const struct husk *husk, const char *id, const char *endpoint, struct husk_error *err);

#endif
