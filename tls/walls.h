/* SPDX-License-Identifier: Apache-2.0 */
/* walls.h - husk-tls gives up what it does not need, before it reads a client's first byte */
#ifndef TLS_WALLS_H
#define TLS_WALLS_H

#include "base/error.h"

#define WALLS_MISSING_MAX 64 /* bytes */

/**
 * Confine this process for the rest of its life. Afterwards it can use the descriptors it has, accept on its listening
 * socket and connect to unix sockets in the working directory; it can open no file and start no program. The change of root,
 * Landlock and the filter of system calls are used where the system has them; the rest must succeed.
 * @missing: which of these two this kernel does not have, "" when both stand.
 */
int walls_build(char missing[WALLS_MISSING_MAX], struct husk_error *err);

#endif
