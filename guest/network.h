/* SPDX-License-Identifier: Apache-2.0 */
/* network.h - loopback, host name and the files in /etc that speak of them */
#ifndef GUEST_NETWORK_H
#define GUEST_NETWORK_H

#include "base/error.h"
#include "guest/envelope.h"

/** Bring lo up and set the host name. */
int network_up(const char *hostname, struct husk_error *err);
/** Write hostname, hosts, resolv.conf and mtab below etc of the root at @root. */
int network_write_files(const char *root, const struct envelope *envelope, struct husk_error *err);

#endif
