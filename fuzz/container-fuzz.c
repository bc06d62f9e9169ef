/* SPDX-License-Identifier: Apache-2.0 */
/*
 * container-fuzz.c - libFuzzer target: bytes as the state file of a snapshot
 *
 * Theory of operation: the first byte chooses. RAW: the rest is the file. CHANGED: it is a list of changes (place, width,
 * value) to a good one, whose checksums are put right again, so that a fuzzer gets past them. Else it is a list of
 * sections; then what the reader says of the file is compared with what a few lines here expect of these sections.
 *
 * Without libFuzzer: replay.c. With it, in bash:
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -I. -Iinclude -o container-fuzz fuzz/container-fuzz.c \
 *     snapshot/container.c base/{buffer,error,fd,tlv}.c && ./container-fuzz -max_len=512 fuzz/corpus/container
 */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/tlv.h"
#include "fuzz/fuzz.h"
#include "snapshot/container.h"

#include <string.h>

enum { RAW = 1, CHANGED = 2 };
#define HEADER_SIZE 64
#define SECTION_SIZE 32

static const struct container_known known[] = {
	{.tag = "one", .version = 1},
	{.tag = "two", .version = 3},
	{.tag = "may-be", .version = 2, .absent = true},
};
static const char *const tags[] = {"one", "two", "may-be", "later", "one-long"};

static int parse(const struct buffer *file, struct container *c)
{
	/* Of just its size, so that a sanitizer sees what is read behind it. */
	CLEANUP_FREE uint8_t *exact = malloc(file->size + !file->size);
	struct husk_error err = {0};
	const uint8_t *bytes = buffer_bytes(file);

	memcpy(exact, bytes, file->size);
	int rc = container_parse(exact, file->size, "fuzz", known, ARRAY_SIZE(known), c, &err);
	must(rc == 0 || rc == -EBADMSG || rc == -ENOTSUP, "an answer of a known kind");
	must((rc == 0) == (err.message[0] == 0), "a reason for each refusal");
	for (const char *text = err.message; *text; text++)
		must((unsigned char)*text >= 0x20 && (unsigned char)*text < 0x7f, "a reason that can be printed");
	for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(known); i++) {
		struct container_section *s = &c->sections[i];
		must(s->bytes || known[i].absent, "what must not be absent is there");
		if (!s->bytes)
			continue;
		must(s->bytes >= exact + HEADER_SIZE + SECTION_SIZE &&
				s->size <= (size_t)(exact + file->size - s->bytes),
			"sections lie in the file");
		must(s->version >= 1 && s->version <= known[i].version, "of versions that are known");
		s->bytes = bytes + (s->bytes - exact);
	}
	return rc;
}

/** Put all checksums right, as far as there are sections. */
static void seal(uint8_t *file, size_t size)
{
	put_le32(file + 60, crc32_ieee(0, file, 60));
	for (size_t at = HEADER_SIZE; size - at >= SECTION_SIZE;) {
		uint64_t length = get_le64(file + at + 16);
		if (length > size - at - SECTION_SIZE)
			return;
		put_le32(file + at + 24, crc32_ieee(crc32_ieee(0, file + at, 24), file + at + SECTION_SIZE, length));
		at += SECTION_SIZE + length;
	}
}

static void changed(struct program *p)
{
	CLEANUP_CONTAINER_WRITER struct container_writer w;
	struct container c = {0};

	container_begin(&w, CONTAINER_HERE, "fuzz");
	for (unsigned i = 0; i < ARRAY_SIZE(known); i++)
		container_put(&w, tags[i], 1, 0, tags[i], strlen(tags[i]), NULL);
	must(container_seal(&w, NULL) == 0 && parse(&w.bytes, &c) == 0, "a good file is taken");
	while (p->at < p->end) {
		size_t at = program_take(p, 2) % w.bytes.size;
		unsigned n = 1 + program_byte(p) % 8;
		for (unsigned i = 0; i < n && at + i < w.bytes.size; i++)
			buffer_bytes(&w.bytes)[at + i] = program_byte(p);
	}
	seal(buffer_bytes(&w.bytes), w.bytes.size);
	parse(&w.bytes, &c);
}

struct given {
	unsigned tag, version, flags;
	size_t n;
	const uint8_t *bytes;
};

/** What the reader has to say of such sections. */
static bool fine(const struct given *list, unsigned n)
{
	unsigned seen[ARRAY_SIZE(known)] = {0};

	for (unsigned i = 0; i < n; i++) {
		bool is_known = list[i].tag < ARRAY_SIZE(known), optional = list[i].flags & CONTAINER_OPTIONAL;
		if (list[i].version == 0 || list[i].flags & ~1u)
			return false;
		if (!is_known && !optional)
			return false;
		if (!is_known)
			continue;
		bool newer = list[i].version > known[list[i].tag].version;
		if (newer && !(optional && known[list[i].tag].absent))
			return false;
		if (!newer && seen[list[i].tag]++)
			return false;
	}
	return seen[0] && seen[1];
}

static void sections(struct program *p)
{
	CLEANUP_CONTAINER_WRITER struct container_writer w;
	struct given list[CONTAINER_SECTIONS_MAX];
	struct container c = {0};
	unsigned n = 0;

	container_begin(&w, CONTAINER_HERE, "fuzz");
	for (; n < ARRAY_SIZE(list) && p->at < p->end; n++) {
		uint8_t how = program_byte(p);
		struct given *g = &list[n];
		*g = (struct given){
			.tag = how % ARRAY_SIZE(tags), .version = program_byte(p) % 5, .flags = how >> 4 & 3};
		g->n = program_byte(p);
		g->bytes = p->at;
		if (g->n > (size_t)(p->end - p->at))
			g->n = (size_t)(p->end - p->at);
		p->at += g->n;
		must(container_put(&w, tags[g->tag], g->version, g->flags, g->bytes, g->n, NULL) == 0, "it is put");
	}
	must(container_seal(&w, NULL) == 0, "it is sealed");
	bool taken = parse(&w.bytes, &c) == 0;
	must(taken == fine(list, n), "what is right is taken, and nothing else");
	for (unsigned i = 0; taken && i < n; i++) {
		if (list[i].tag >= ARRAY_SIZE(known) || list[i].version > known[list[i].tag].version)
			continue;
		const struct container_section *s = &c.sections[list[i].tag];
		must(s->version == list[i].version && s->size == list[i].n &&
				memcmp(s->bytes, list[i].bytes, list[i].n) == 0,
			"what was put in comes out");
	}
	/* One bit that is not what it was. */
	size_t at = (w.bytes.size * 2654435761u >> 8) % w.bytes.size;
	buffer_bytes(&w.bytes)[at] ^= (uint8_t)(1u << w.bytes.size % 8);
	must(parse(&w.bytes, &c) == -EBADMSG, "damage is seen");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct program p = {data, data + size};
	uint8_t how = program_byte(&p);

	if (how == RAW) {
		CLEANUP_BUFFER struct buffer file = {0};
		struct container c = {0};
		if (buffer_append(&file, p.at, (size_t)(p.end - p.at)) == 0 && file.size)
			parse(&file, &c);
	} else if (how == CHANGED) {
		changed(&p);
	} else {
		sections(&p);
	}
	return 0;
}
