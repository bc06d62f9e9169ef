/* SPDX-License-Identifier: Apache-2.0 */
/* layer_lz4.h - libsquashfs's lz4 compressor, but never growing a block; see layer_lz4.c */
#ifndef IMAGE_LAYER_LZ4_H
#define IMAGE_LAYER_LZ4_H

#include <sqfs/compressor.h>

/** A compressor for blocks of @block_size; 0 or a code of libsquashfs. Destroy with sqfs_destroy(). */
int layer_lz4_create(size_t block_size, sqfs_compressor_t **out);

#endif
