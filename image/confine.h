/* SPDX-License-Identifier: Apache-2.0 */
/* confine.h - husk-image gives up what it does not need, before it reads a hostile byte */
#ifndef IMAGE_CONFINE_H
#define IMAGE_CONFINE_H

#include "image/store.h"

/** Confine this process for the rest of its life; call it while there is one thread. @argv is the verb and what follows. */
int confine(const struct store *store, int argc, char **argv, struct husk_error *err);

#endif
