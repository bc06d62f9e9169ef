/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_inflate.c - gzip, zstd or nothing, by the first bytes
 *
 * Theory of operation: a layer's media type is what its manifest claims, its first bytes are what it is; so the bytes
 * decide, as in Docker. gzip goes through ISA-L, which inflates two to three times as fast as zlib; it may have several
 * members (pigz, stargz), and anything behind the last member that is no gzip member is refused, as Go's reader does.
 * zstd frames may follow each other and may be skippable ones (zstd:chunked). A frame that wants a window of more than
 * 32 MiB is refused: memory is bounded however large the layer. A stream that ends inside a member or frame is truncated.
 * What is neither compressed nor begins with a tar header is refused here, because a proxy's HTML page deserves better
 * words than "unrecognized archive".
 */
#include "image/layer_inflate.h"

#include "base/bytes.h"
#include "base/cleanup.h"

#include <ctype.h>
#include <isa-l/igzip_lib.h>
#include <string.h>
#include <zstd.h>

#define ZSTD_WINDOW_LOG 25 /* 32 MiB */

enum layer_compression { PLAIN, GZIP, ZSTD };

struct layer_inflate {
	enum layer_compression kind;
	struct inflate_state *gzip;
	ZSTD_DCtx *zstd;
	size_t zstd_wants; /* 0: between two frames */
};

/* The checksum of a tar header (POSIX.1-1988 ustar, also v7): the sum of its bytes with the sum itself as spaces. Old
 * writers summed signed bytes. */
static bool looks_like_tar(const uint8_t *h, size_t n)
{
	if (n < 512)
		return false;
	long claimed = 0, sum = 0, signed_sum = 0;
	size_t i = 148;
	while (i < 156 && h[i] == ' ')
		i++;
	for (; i < 156 && h[i] >= '0' && h[i] <= '7'; i++)
		claimed = claimed * 8 + (h[i] - '0');
	for (i = 0; i < 512; i++) {
		uint8_t b = i >= 148 && i < 156 ? ' ' : h[i];
		sum += b;
		signed_sum += (int8_t)b;
	}
	/* An archive without entries begins with its end mark: zeros. */
	return claimed == sum || claimed == signed_sum || sum == 8 * ' ';
}

static int refuse(const uint8_t *h, size_t n, struct husk_error *err)
{
	static const struct {
		const char *magic;
		size_t n;
		const char *name;
	} known[] = {
		{"BZh", 3, "bzip2"},
		{"\xfd"
		 "7zXZ",
			5, "xz"},
		{"\x04\x22\x4d\x18", 4, "lz4"},
		{"PK\x03\x04", 4, "zip"},
		{"]\0\0", 3, "lzma"},
		{"hsqs", 4, "squashfs"},
	};
	if (n == 0)
		return error_set(err, -EINVAL, "is empty, not a tar archive");
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (n >= known[i].n && memcmp(h, known[i].magic, known[i].n) == 0)
			return error_set(
				err, -EINVAL, "is %s, which no layer may be (tar, tar+gzip, tar+zstd)", known[i].name);
	}
	size_t at = 0;
	while (at < n && isspace(h[at]))
		at++;
	if (at < n && h[at] == '<')
		return error_set(err, -EINVAL, "is not a tar archive; it looks like HTML or XML");
	if (at < n && h[at] == '{')
		return error_set(err, -EINVAL, "is not a tar archive; it looks like JSON");
	if (n < 512)
		return error_set(err, -EINVAL, "is not a tar archive: %zu bytes are too few", n);
	return error_set(err, -EINVAL, "is not a tar archive, nor one compressed with gzip or zstd");
}

static bool is_zstd(const uint8_t *h, size_t n)
{
	return n >= 4 && (get_le32(h) == ZSTD_MAGICNUMBER || (get_le32(h) & 0xfffffff0) == ZSTD_MAGIC_SKIPPABLE_START);
}

static int open_zstd(struct layer_inflate *f)
{
	f->kind = ZSTD;
	f->zstd = ZSTD_createDCtx();
	if (!f->zstd)
		return -ENOMEM;
	ZSTD_DCtx_setParameter(f->zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG);
	return 0;
}

static int open_gzip(struct layer_inflate *f)
{
	f->kind = GZIP;
	f->gzip = malloc(sizeof(*f->gzip));
	if (!f->gzip)
		return -ENOMEM;
	isal_inflate_init(f->gzip);
	f->gzip->crc_flag = ISAL_GZIP;
	return 0;
}

int layer_inflate_open(const uint8_t *head, size_t n, struct layer_inflate **out, struct husk_error *err)
{
	bool gzip = n >= 2 && head[0] == 0x1f && head[1] == 0x8b;
	bool zstd = is_zstd(head, n);
	if (!gzip && !zstd && !looks_like_tar(head, n))
		return refuse(head, n, err);
	struct layer_inflate *f = calloc(1, sizeof(*f));
	if (!f)
		return error_set(err, -ENOMEM, "out of memory");
	int r = gzip ? open_gzip(f) : zstd ? open_zstd(f) : 0;
	if (r < 0) {
		layer_inflate_close(f);
		return error_set(err, r, "out of memory");
	}
	*out = f;
	return 0;
}

static int step_plain(struct layer_span *span)
{
	size_t n = span->in_size < span->out_size ? span->in_size : span->out_size;
	memcpy(span->out, span->in, n);
	span->in += n;
	span->in_size -= n;
	span->out += n;
	span->out_size -= n;
	return 0;
}

static int step_gzip(struct layer_inflate *f, struct layer_span *span, struct husk_error *err)
{
	struct inflate_state *s = f->gzip;
	if (s->block_state == ISAL_BLOCK_FINISH) {
		if (span->in_size == 0)
			return 0;
		if (span->in[0] != 0x1f)
			return error_set(err, -EINVAL, "gzip: something that is not gzip behind the end");
		isal_inflate_reset(s);
		s->crc_flag = ISAL_GZIP;
	}
	s->next_in = (uint8_t *)span->in;
	s->avail_in = (uint32_t)span->in_size;
	s->next_out = span->out;
	s->avail_out = (uint32_t)span->out_size;
	int r = isal_inflate(s);
	span->in = s->next_in;
	span->in_size = s->avail_in;
	span->out = s->next_out;
	span->out_size = s->avail_out;
	if (r == ISAL_INVALID_WRAPPER || r == ISAL_UNSUPPORTED_METHOD)
		return error_set(err, -EINVAL, "gzip: invalid header");
	if (r == ISAL_INCORRECT_CHECKSUM)
		return error_set(err, -EINVAL, "gzip: wrong checksum");
	if (r != ISAL_DECOMP_OK && r != ISAL_END_INPUT && r != ISAL_OUT_OVERFLOW)
		return error_set(err, -EINVAL, "gzip: invalid data");
	return 0;
}

static int step_zstd(struct layer_inflate *f, struct layer_span *span, struct husk_error *err)
{
	if (span->in_size == 0 && f->zstd_wants == 0)
		return 0; /* else it would begin to want the next frame */
	ZSTD_inBuffer in = {.src = span->in, .size = span->in_size};
	ZSTD_outBuffer out = {.dst = span->out, .size = span->out_size};
	size_t r = ZSTD_decompressStream(f->zstd, &out, &in);
	if (ZSTD_isError(r))
		return error_set(err, -EINVAL, "zstd: %s", ZSTD_getErrorName(r));
	f->zstd_wants = r;
	span->in += in.pos;
	span->in_size -= in.pos;
	span->out += out.pos;
	span->out_size -= out.pos;
	return 0;
}

int layer_inflate_step(struct layer_inflate *f, struct layer_span *span, struct husk_error *err)
{
	switch (f->kind) {
	case GZIP:
		return step_gzip(f, span, err);
	case ZSTD:
		return step_zstd(f, span, err);
	default:
		return step_plain(span);
	}
}

int layer_inflate_end(struct layer_inflate *f, struct husk_error *err)
{
	if (f->kind == GZIP && f->gzip->block_state != ISAL_BLOCK_FINISH)
		return error_set(err, -EINVAL, "gzip: the stream is truncated");
	if (f->kind == ZSTD && f->zstd_wants != 0)
		return error_set(err, -EINVAL, "zstd: the stream is truncated");
	return 0;
}

void layer_inflate_close(struct layer_inflate *f)
{
	if (!f)
		return;
	free(f->gzip);
	ZSTD_freeDCtx(f->zstd);
	free(f);
}
