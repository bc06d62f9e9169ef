/* SPDX-License-Identifier: Apache-2.0 */
/*
 * edges.h - every access around every edge of a sandbox's memory, against a model
 *
 * Theory of operation: the model is a table of pieces with their rights, and says of a range in 128-bit arithmetic, in which
 * nothing wraps, where it has to end: 0, -EFAULT (not in one piece), -EACCES. An access that succeeds moves exactly the bytes
 * that the model has; one that fails moves none. Buffers lie between canaries, and what the memory holds is compared with
 * what it should after each write: small pieces as a whole, large ones now and then.
 */
#ifndef TESTS_SANDBOX_EDGES_H
#define TESTS_SANDBOX_EDGES_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EDGES_CANARY 0xa5
#define EDGES_MARGIN 64
#define EDGES_ERROR_ROOM 8192

struct edges_piece {
	uint64_t gpa, size;
	bool read, write;
	const uint8_t *bytes; /* where they are in this process, for comparing */
};

/** What is tried, by guest-physical address: a read into, a write from @buf. */
struct edges_access {
	int (*read)(void *data, uint64_t gpa, void *buf, size_t n);
	int (*write)(void *data, uint64_t gpa, const void *buf, size_t n);
	void *data;
};

struct edges_result {
	unsigned asked, given, refused, faulted;
	unsigned wrong; /* another answer than the model's */
	unsigned leaked; /* bytes moved that should not, or not moved that should */
};

__extension__ typedef unsigned __int128 edges_wide;

/** The piece that [@gpa, @gpa + @n) lies in, or NULL; no bytes lie in a piece, or else at the end of one. */
static inline const struct edges_piece *edges_find(
	const struct edges_piece *pieces, unsigned n_pieces, uint64_t gpa, uint64_t n)
{
	for (unsigned i = 0; i < n_pieces; i++)
		if (gpa >= pieces[i].gpa && gpa < pieces[i].gpa + pieces[i].size &&
			(edges_wide)gpa + n <= (edges_wide)pieces[i].gpa + pieces[i].size)
			return &pieces[i];
	for (unsigned i = 0; n == 0 && i < n_pieces; i++)
		if (gpa == pieces[i].gpa + pieces[i].size)
			return &pieces[i];
	return NULL;
}

static inline bool edges_is(const uint8_t *at, uint8_t byte, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (at[i] != byte)
			return false;
	return true;
}

static inline void edges_count(struct edges_result *result, int rc, int want)
{
	result->asked++;
	result->wrong += rc != want;
	result->given += rc == 0;
	result->refused += rc == -EACCES;
	result->faulted += rc == -EFAULT;
}

/** A read of @n bytes at @gpa. @room: a buffer that has @n bytes and two margins, when the model lets it be read. */
static inline void edges_read(const struct edges_access *access, const struct edges_piece *piece, uint64_t gpa,
	size_t n, uint8_t *room, size_t room_size, struct edges_result *result)
{
	int want = !piece ? -EFAULT : piece->read ? 0 : -EACCES;

	/* An error moves nothing: what could be moved begins at the start. */
	if (want < 0 && room_size > EDGES_ERROR_ROOM)
		room_size = EDGES_ERROR_ROOM;
	else if (want == 0)
		room_size = n + 2 * EDGES_MARGIN;
	memset(room, EDGES_CANARY, room_size);
	int rc = access->read(access->data, gpa, room + EDGES_MARGIN, n);
	edges_count(result, rc, want);
	if (want < 0) {
		result->leaked += !edges_is(room, EDGES_CANARY, room_size);
		return;
	}
	result->leaked += !edges_is(room, EDGES_CANARY, EDGES_MARGIN) ||
			  memcmp(room + EDGES_MARGIN, piece->bytes + (gpa - piece->gpa), n) != 0 ||
			  !edges_is(room + EDGES_MARGIN + n, EDGES_CANARY, room_size - EDGES_MARGIN - n);
}

#define EDGES_SMALL (64u << 10)

/** Are the pieces what they should be? */
static inline unsigned edges_compare(
	const struct edges_piece *pieces, unsigned n_pieces, uint8_t *const *should, uint64_t up_to)
{
	unsigned differ = 0;

	for (unsigned i = 0; i < n_pieces; i++)
		differ += pieces[i].size <= up_to && memcmp(should[i], pieces[i].bytes, pieces[i].size) != 0;
	return differ;
}

/** A write of @n bytes at @gpa. @should: what the pieces are to hold. */
static inline void edges_write(const struct edges_access *access, const struct edges_piece *pieces, unsigned n_pieces,
	uint64_t gpa, size_t n, const uint8_t *from, uint8_t *const *should, struct edges_result *result)
{
	const struct edges_piece *piece = edges_find(pieces, n_pieces, gpa, n);
	int want = !piece ? -EFAULT : piece->write ? 0 : -EACCES;

	int rc = access->write(access->data, gpa, from, n);
	edges_count(result, rc, want);
	if (want == 0)
		memcpy(should[piece - pieces] + (gpa - piece->gpa), from, n);
	result->leaked += edges_compare(pieces, n_pieces, should, result->asked % 1024 < 2 ? UINT64_MAX : EDGES_SMALL);
}

#define EDGES_PIECES_MAX 16

/** Every range that begins and ends at, just before and just behind every edge, and lengths that wrap. */
static inline struct edges_result edges_try(
	const struct edges_access *access, const struct edges_piece *pieces, unsigned n_pieces)
{
	static const uint64_t sizes[] = {0, 1, 2, 7, 8, 9, 4095, 4096, 4097, 1ull << 31, 1ull << 32, 1ull << 39,
		1ull << 63, UINT64_MAX - 4096, UINT64_MAX - 1, UINT64_MAX};
	enum { SIZES = sizeof(sizes) / sizeof(sizes[0]), POINTS = EDGES_PIECES_MAX * 10 + 8 };
	struct edges_result result = {0};
	uint64_t points[POINTS], largest = 0;
	uint8_t *should[EDGES_PIECES_MAX];
	unsigned n = 0;

	for (unsigned i = 0; i < n_pieces; i++) {
		for (uint64_t d = 0; d < 5; d++) {
			points[n++] = pieces[i].gpa + d - 2;
			points[n++] = pieces[i].gpa + pieces[i].size + d - 2;
		}
		largest = pieces[i].size > largest ? pieces[i].size : largest;
		should[i] = malloc(pieces[i].size);
		memcpy(should[i], pieces[i].bytes, pieces[i].size);
	}
	points[n++] = 0;
	points[n++] = (1ull << 39) - 1;
	points[n++] = 1ull << 39;
	points[n++] = UINT64_MAX;
	size_t room_size = largest + 2 * EDGES_MARGIN;
	uint8_t *room = malloc(room_size), *from = malloc(largest);
	for (unsigned i = 0; i < n; i++) {
		for (unsigned j = 0; j < n + SIZES; j++) {
			uint64_t size = j < n ? points[j] - points[i] : sizes[j - n]; /* wraps where j is below i */
			edges_read(access, edges_find(pieces, n_pieces, points[i], size), points[i], size, room,
				room_size, &result);
			memset(from, (int)(i * 7 + j), size < largest ? size : EDGES_MARGIN);
			edges_write(access, pieces, n_pieces, points[i], size, from, should, &result);
		}
	}
	result.leaked += edges_compare(pieces, n_pieces, should, UINT64_MAX);
	for (unsigned i = 0; i < n_pieces; i++)
		free(should[i]);
	free(room);
	free(from);
	return result;
}

#endif
