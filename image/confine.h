/* SPDX-License-Identifier: Apache-2.0 */
/* confine.h - husk-image gives up what it does not need, before it reads a hostile byte */
#ifndef IMAGE_CONFINE_H
#define IMAGE_CONFINE_H

#include "image/store.h"

/** Confine this process for the rest of its life; @verb says what it will need. */
int confine(const struct store *store, const char *verb, struct husk_error *err);

#endif
