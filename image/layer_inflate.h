/* SPDX-License-Identifier: Apache-2.0 */
/* layer_inflate.h - gzip, zstd or nothing, by the first bytes; see layer_inflate.c */
#ifndef IMAGE_LAYER_INFLATE_H
#define IMAGE_LAYER_INFLATE_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

#define LAYER_SNIFF 512 /* bytes that tell what a layer is */

struct layer_inflate;

/** Bytes in and out of one step; both move forward. */
struct layer_span {
	const uint8_t *in;
	size_t in_size;
	uint8_t *out;
	size_t out_size;
};

/** Choose by the first @n (LAYER_SNIFF, or all there are) bytes at @head; refuses what is no layer. */
int layer_inflate_open(const uint8_t *head, size_t n, struct layer_inflate **out, struct husk_error *err);

/** Turn input to output until one of them is used up. */
int layer_inflate_step(struct layer_inflate *f, struct layer_span *span, struct husk_error *err);

/** The input has ended: 0 when it may end here. */
int layer_inflate_end(struct layer_inflate *f, struct husk_error *err);

void layer_inflate_close(struct layer_inflate *f);

#endif
