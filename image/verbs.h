/* SPDX-License-Identifier: Apache-2.0 */
/* verbs.h - what husk-image can do; see main.c for the command line */
#ifndef IMAGE_VERBS_H
#define IMAGE_VERBS_H

#include "base/buffer.h"
#include "image/store.h"

/** A verb: @argv is its own name and what follows; what it prints on stdout goes to @out. */
typedef int verb_fn(struct store *store, int argc, char **argv, struct buffer *out, struct husk_error *err);

verb_fn verb_pull, verb_import, verb_images, verb_inspect, verb_rmi, verb_gc, verb_login, verb_logout;
verb_fn verb_tar_in, verb_tar_out; /* they write to stdout themselves, as they go */

#endif
