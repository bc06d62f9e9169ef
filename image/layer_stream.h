/* SPDX-License-Identifier: Apache-2.0 */
/* layer_stream.h - the bytes of one layer: read, digested, inflated, digested again; see layer_stream.c */
#ifndef IMAGE_LAYER_STREAM_H
#define IMAGE_LAYER_STREAM_H

#include "image/layer.h"

#include <stddef.h>

struct layer_stream;

/** Start reading @source; both stay the caller's and must outlive the stream. Free with layer_stream_close(). */
int layer_stream_open(const struct layer_source *source, const struct layer_options *options, struct layer_stream **out,
	struct husk_error *err);

/** The next uncompressed bytes, valid until the next call; *@size 0 at the end. */
int layer_stream_read(struct layer_stream *s, const void **bytes, size_t *size, struct husk_error *err);

/** Read what is left, check sizes and digests, and put the digests into @result. */
int layer_stream_finish(struct layer_stream *s, struct layer_result *result, struct husk_error *err);

/** Stop, from wherever it is, and free; NULL is fine. */
void layer_stream_close(struct layer_stream *s);

#endif
