/* SPDX-License-Identifier: Apache-2.0 */
/* hybrid.h - vsock.sock's way outwards: guest programs that connect to the host */
#ifndef VMM_DOORS_HYBRID_H
#define VMM_DOORS_HYBRID_H

#include <stdint.h>

/** A guest program connects to host @port: a descriptor connected to vsock.sock_PORT, or a negative errno. */
int hybrid_connect_out(uint32_t port);

#endif
