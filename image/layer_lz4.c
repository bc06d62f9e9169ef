/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_lz4.c - libsquashfs's lz4 compressor, but never growing a block
 *
 * Theory of operation: libsquashfs 1.2 gives lz4 all the room there is and stores what comes out, even when small or
 * random blocks came out larger than they were; Linux puts up with it, unsquashfs calls it corruption. This wrapper lends
 * lz4 one byte less than the block has: what does not get smaller does not fit, and is stored as it is.
 */
#include "image/layer_lz4.h"

#include <sqfs/error.h>
#include <stdlib.h>

struct lz4 {
	sqfs_compressor_t base;
	sqfs_compressor_t *inner;
};

static sqfs_s32 do_block(sqfs_compressor_t *base, const sqfs_u8 *in, sqfs_u32 size, sqfs_u8 *out, sqfs_u32 out_size)
{
	sqfs_compressor_t *inner = ((struct lz4 *)base)->inner;
	if (size < 2)
		return 0;
	return inner->do_block(inner, in, size, out, out_size < size ? out_size : size - 1);
}

static void get_configuration(const sqfs_compressor_t *base, sqfs_compressor_config_t *config)
{
	const sqfs_compressor_t *inner = ((const struct lz4 *)base)->inner;
	inner->get_configuration(inner, config);
}

static int write_options(sqfs_compressor_t *base, sqfs_file_t *file)
{
	sqfs_compressor_t *inner = ((struct lz4 *)base)->inner;
	return inner->write_options(inner, file);
}

static int read_options(sqfs_compressor_t *base, sqfs_file_t *file)
{
	sqfs_compressor_t *inner = ((struct lz4 *)base)->inner;
	return inner->read_options(inner, file);
}

static void destroy(sqfs_object_t *object)
{
	sqfs_destroy(((struct lz4 *)object)->inner);
	free(object);
}

static sqfs_compressor_t *wrap(sqfs_compressor_t *inner);

static sqfs_object_t *copy(const sqfs_object_t *object)
{
	sqfs_compressor_t *inner = sqfs_copy(((const struct lz4 *)object)->inner);
	return inner ? (sqfs_object_t *)wrap(inner) : NULL;
}

/* Takes @inner over, also when it fails. */
static sqfs_compressor_t *wrap(sqfs_compressor_t *inner)
{
	struct lz4 *l = malloc(sizeof(*l));
	if (!l) {
		sqfs_destroy(inner);
		return NULL;
	}
	*l = (struct lz4){
		.base = {.base = {.destroy = destroy, .copy = copy},
			.get_configuration = get_configuration,
			.write_options = write_options,
			.read_options = read_options,
			.do_block = do_block},
		.inner = inner,
	};
	return &l->base;
}

int layer_lz4_create(size_t block_size, sqfs_compressor_t **out)
{
	sqfs_compressor_config_t config;
	sqfs_compressor_t *inner;
	int r = sqfs_compressor_config_init(&config, SQFS_COMP_LZ4, block_size, 0);
	if (r == 0)
		r = sqfs_compressor_create(&config, &inner);
	if (r < 0)
		return r;
	*out = wrap(inner);
	return *out ? 0 : SQFS_ERROR_ALLOC;
}
