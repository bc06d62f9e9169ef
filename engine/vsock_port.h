/* SPDX-License-Identifier: Apache-2.0 */
/* vsock_port.h - the port at which the host listens for a guest */
#ifndef ENGINE_VSOCK_PORT_H
#define ENGINE_VSOCK_PORT_H

#include "engine/engine.h"
#include "engine/envelope.h"

/** The port of a VM with the policy `fixed`; with `auto` one from 50000 to 59999 that no VM on record has, the configuration's
 *  if it is free; else 0. -EADDRINUSE: all are taken. */
int vsock_port_choose(
	const struct husk *husk, const struct husk_vm_config *config, uint32_t *port, struct husk_error *err);
/** Put what the guest may reach into the envelope. */
void vsock_port_put(const struct husk_vm_config *config, uint32_t port, struct envelope *e);

#endif
