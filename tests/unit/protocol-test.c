/* SPDX-License-Identifier: Apache-2.0 */
/* protocol-test.c - frames read back as written; malformed, short and out-of-range ones are told apart and refused */
#include "agent/protocol.h"
#include "base/bytes.h"
#include "base/tlv.h"
#include "tests/tap.h"

/** The one frame in @b. */
static bool only(const struct buffer *b, struct agent_frame *frame)
{
	return agent_frame_decode(buffer_bytes(b), b->size, frame) == (long)b->size;
}

static void test_frames(void)
{
	CLEANUP_BUFFER struct buffer b = {0};
	struct agent_frame f;
	uint32_t u = 0;
	uint16_t rows = 0, columns = 0;

	agent_hello_put(&b);
	CHECK(only(&b, &f) && f.type == AGENT_HELLO && agent_u32_get(&f, &u) && u == AGENT_VERSION, "HELLO reads back");
	static const uint8_t wire[] = {4, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0};
	CHECK(b.size == sizeof(wire) && memcmp(buffer_bytes(&b), wire, sizeof(wire)) == 0,
		"HELLO has the bytes of the page");
	bool waits = true;
	for (size_t n = 0; n < b.size; n++)
		waits = waits && agent_frame_decode(buffer_bytes(&b), n, &f) == 0;
	CHECK(waits, "every shorter piece of a frame asks for more");

	size_t first = b.size;
	agent_frame_put(&b, AGENT_STDOUT, AGENT_STREAM_STDOUT, "abc", 3);
	CHECK(agent_frame_decode(buffer_bytes(&b), b.size, &f) == (long)first, "a frame ends where the next begins");
	buffer_consume(&b, first);
	CHECK(only(&b, &f) && f.stream == AGENT_STREAM_STDOUT && f.size == 3 && memcmp(f.payload, "abc", 3) == 0,
		"bytes read back");
	buffer_free(&b);
	agent_frame_put(&b, AGENT_SYNC, 0, NULL, 0);
	CHECK(only(&b, &f) && f.size == 0, "an empty frame reads back");
	buffer_free(&b);
	agent_resize_put(&b, 50, 132);
	CHECK(only(&b, &f) && agent_resize_get(&f, &rows, &columns) && rows == 50 && columns == 132,
		"RESIZE reads back");
	CHECK(agent_frame_put(&b, AGENT_STDIN, 0, NULL, AGENT_PAYLOAD_MAX + 1) < 0,
		"a frame over the limit is not written");
}

static void test_headers(void)
{
	uint8_t h[AGENT_HEADER_SIZE] = {0, 0, 0, 0, AGENT_SYNC};
	struct agent_frame f;
	CHECK(agent_frame_decode(h, sizeof(h), &f) == AGENT_HEADER_SIZE, "the smallest frame is a header");
	put_le32(h, AGENT_PAYLOAD_MAX);
	CHECK(agent_frame_decode(h, sizeof(h), &f) == 0, "a payload of the limit's size is waited for");
	put_le32(h, AGENT_PAYLOAD_MAX + 1);
	CHECK(agent_frame_decode(h, sizeof(h), &f) == -EPROTO, "a payload over the limit is malformed");
	put_le32(h, 0xffffffff);
	CHECK(agent_frame_decode(h, sizeof(h), &f) == -EPROTO, "so is the largest length there is");
	put_le32(h, 0);
	h[6] = 1;
	CHECK(agent_frame_decode(h, sizeof(h), &f) == -EPROTO, "a reserved byte is malformed");
	h[6] = 0;
	h[4] = 0;
	CHECK(agent_frame_decode(h, sizeof(h), &f) == -EPROTO, "type 0 is malformed");
	h[4] = 0xee;
	CHECK(agent_frame_decode(h, sizeof(h), &f) == AGENT_HEADER_SIZE, "an unknown type is the caller's to judge");
}

static bool exit_reads(uint32_t kind, uint32_t value)
{
	CLEANUP_BUFFER struct buffer b = {0};
	struct agent_exit in = {.kind = kind, .value = value, .duration_ns = 1ull << 50, .peak_rss = 1ull << 40},
			  out = {0};
	struct agent_frame f;
	agent_exit_put(&b, &in);
	return only(&b, &f) && agent_exit_get(&f, &out) && memcmp(&in, &out, sizeof(in)) == 0;
}

static void test_exit(void)
{
	CHECK(exit_reads(AGENT_EXITED, 0) && exit_reads(AGENT_EXITED, 255), "exit statuses read back");
	CHECK(exit_reads(AGENT_SIGNALED, 1) && exit_reads(AGENT_SIGNALED, 64), "signals read back");
	CHECK(!exit_reads(AGENT_EXITED, 256), "status 256 is refused");
	CHECK(!exit_reads(AGENT_SIGNALED, 0) && !exit_reads(AGENT_SIGNALED, 65), "signals 0 and 65 are refused");
	CHECK(!exit_reads(0, 0) && !exit_reads(3, 0), "unknown kinds are refused");
	struct agent_exit out;
	uint8_t bytes[AGENT_EXIT_SIZE + 1] = {AGENT_EXITED};
	struct agent_frame f = {.type = AGENT_EXIT, .size = sizeof(bytes), .payload = bytes};
	CHECK(!agent_exit_get(&f, &out), "a longer EXIT is refused");
	f.size = AGENT_EXIT_SIZE - 1;
	CHECK(!agent_exit_get(&f, &out), "a shorter EXIT is refused");
}

static void test_error(void)
{
	CLEANUP_BUFFER struct buffer b = {0};
	struct agent_frame f;
	uint32_t code = 0;
	char text[2000], small[4];

	agent_error_put(&b, AGENT_ERROR_NOT_FOUND, "%s: %s", "x", "not\nfound\xff");
	CHECK(only(&b, &f) && agent_error_get(&f, &code, text, sizeof(text)) && code == AGENT_ERROR_NOT_FOUND,
		"ERROR reads");
	CHECK_STRING(text, "x: not?found?", "what is not printable becomes a question mark");
	CHECK(agent_error_get(&f, &code, small, sizeof(small)), "a small room is fine");
	CHECK_STRING(small, "x: ", "and cuts the text");
	buffer_free(&b);
	memset(text, 'a', sizeof(text));
	text[sizeof(text) - 1] = 0;
	agent_error_put(&b, AGENT_ERROR_SYSTEM, "%s", text);
	CHECK(only(&b, &f) && f.size == 1004 && agent_error_get(&f, &code, text, sizeof(text)),
		"a long text is cut at 1000");

	uint8_t bytes[8] = {AGENT_ERROR_UNSUPPORTED + 1};
	f = (struct agent_frame){.type = AGENT_ERROR, .size = 4, .payload = bytes};
	CHECK(!agent_error_get(&f, &code, text, sizeof(text)), "an unknown code is refused");
	bytes[0] = AGENT_ERROR_UNSUPPORTED;
	CHECK(agent_error_get(&f, &code, text, sizeof(text)) && !text[0], "an empty text is fine");
	f.size = 5;
	CHECK(!agent_error_get(&f, &code, text, sizeof(text)), "a NUL in the text is refused");
	f.size = 3;
	CHECK(!agent_error_get(&f, &code, text, sizeof(text)), "a short ERROR is refused");
}

static bool error_reads(uint32_t code)
{
	CLEANUP_BUFFER struct buffer b = {0};
	struct agent_frame f;
	uint32_t got = 0;
	char text[8];
	agent_error_put(&b, code, "x");
	return only(&b, &f) && agent_error_get(&f, &got, text, sizeof(text)) && got == code;
}

static void test_errno(void)
{
	CHECK(error_reads(AGENT_ERROR_ERRNO + ENOSPC) && error_reads(AGENT_ERROR_ERRNO + 1) &&
			error_reads(AGENT_ERROR_ERRNO + AGENT_ERRNO_MAX),
		"an errno reads back");
	CHECK(!error_reads(AGENT_ERROR_ERRNO) && !error_reads(AGENT_ERROR_ERRNO + AGENT_ERRNO_MAX + 1) &&
			!error_reads(0) && !error_reads(63),
		"0 is no errno, nor is what is beyond the last one");
}

/* ---- trees ---- */

static bool entry_reads(const struct agent_entry *in)
{
	static struct agent_entry out; /* 8 KiB */
	CLEANUP_BUFFER struct buffer b = {0};
	struct agent_frame f;
	buffer_append(&b, "x", 1); /* what was there before stays */
	if (agent_entry_put(&b, in) < 0)
		return false;
	buffer_consume(&b, 1);
	return only(&b, &f) && f.type == AGENT_ENTRY && agent_entry_get(&f, &out) && strcmp(in->name, out.name) == 0 &&
	       strcmp(in->link, out.link) == 0 && in->type == out.type && in->mode == out.mode && in->uid == out.uid &&
	       in->gid == out.gid && in->mtime_ns == out.mtime_ns && in->size == out.size && in->device == out.device;
}

static void test_entry(void)
{
	static struct agent_entry e; /* 8 KiB */

	e = (struct agent_entry){.name = "a/b c/.d/...", .type = AGENT_FILE, .mode = 07777, .uid = UINT32_MAX};
	e.gid = 5;
	e.mtime_ns = -1;
	e.size = INT64_MAX;
	CHECK(entry_reads(&e), "a file reads back, with a time before 1970");
	e = (struct agent_entry){.name = "", .type = AGENT_DIRECTORY, .mode = 0755, .mtime_ns = INT64_MIN};
	CHECK(entry_reads(&e), "so does the root");
	e = (struct agent_entry){.name = "s", .type = AGENT_SYMLINK, .link = "../../etc//."};
	CHECK(entry_reads(&e), "what a symbolic link says is anything");
	e = (struct agent_entry){.name = "h", .type = AGENT_HARDLINK, .link = "a/b"};
	CHECK(entry_reads(&e), "a hard link reads back");
	e = (struct agent_entry){.name = "d", .type = AGENT_BLOCK, .device = 0xfffull << 32 | 0xfffff};
	CHECK(entry_reads(&e), "a device reads back");
	e = (struct agent_entry){.name = "p", .type = AGENT_FIFO};
	CHECK(entry_reads(&e), "a fifo reads back");
	e = (struct agent_entry){.type = AGENT_SOCKET};
	memset(e.name, 'n', AGENT_NAME_MAX);
	CHECK(entry_reads(&e), "a name of the greatest length reads back");
}

/** An ENTRY of these fields; NULL and 0 leave one out. */
struct raw {
	const char *name, *link;
	uint32_t type, mode;
	uint64_t size, device;
	uint16_t twice; /* a tag that is there again */
};

static bool raw_reads(const struct raw *raw)
{
	static struct agent_entry out;
	CLEANUP_BUFFER struct buffer payload = {0};
	tlv_put_string(&payload, AGENT_ENTRY_NAME, raw->name);
	tlv_put_string(&payload, AGENT_ENTRY_LINK, raw->link);
	if (raw->type)
		tlv_put_u32(&payload, AGENT_ENTRY_TYPE, raw->type);
	if (raw->mode)
		tlv_put_u32(&payload, AGENT_ENTRY_MODE, raw->mode);
	if (raw->size)
		tlv_put_u64(&payload, AGENT_ENTRY_SIZE, raw->size);
	if (raw->device)
		tlv_put_u64(&payload, AGENT_ENTRY_DEVICE, raw->device);
	if (raw->twice)
		tlv_put_u32(&payload, raw->twice, 1);
	struct agent_frame f = {.type = AGENT_ENTRY, .size = (uint32_t)payload.size, .payload = buffer_bytes(&payload)};
	return agent_entry_get(&f, &out);
}

static void test_bad_entries(void)
{
	static const char *const names[] = {
		"/", "/a", "a/", "a//b", ".", "..", "./a", "../a", "a/.", "a/..", "a/./b", "a/../b", "a/../../b"};
	static const struct {
		const char *what;
		struct raw raw;
	} bad[] = {
		{"no NAME", {.type = AGENT_FILE}},
		{"no TYPE", {.name = "a"}},
		{"an unknown TYPE", {.name = "a", .type = AGENT_SOCKET + 1}},
		{"a TYPE that wraps", {.name = "a", .type = UINT32_MAX}},
		{"a MODE beyond 07777", {.name = "a", .type = AGENT_FILE, .mode = 010000}},
		{"a SIZE beyond the largest offset", {.name = "a", .type = AGENT_FILE, .size = 1ull << 63}},
		{"a SIZE of a directory", {.name = "a", .type = AGENT_DIRECTORY, .size = 1}},
		{"a symbolic link without LINK", {.name = "a", .type = AGENT_SYMLINK}},
		{"a symbolic link that says nothing", {.name = "a", .type = AGENT_SYMLINK, .link = ""}},
		{"a file with LINK", {.name = "a", .type = AGENT_FILE, .link = "b"}},
		{"a file with an empty LINK", {.name = "a", .type = AGENT_FILE, .link = ""}},
		{"a root that is a hard link", {.name = "", .type = AGENT_HARDLINK, .link = "b"}},
		{"a hard link to the root", {.name = "a", .type = AGENT_HARDLINK, .link = ""}},
		{"a device without DEVICE", {.name = "a", .type = AGENT_BLOCK}},
		{"a file with DEVICE", {.name = "a", .type = AGENT_FILE, .device = 1}},
		{"a major number beyond 12 bits", {.name = "a", .type = AGENT_CHARACTER, .device = 1ull << 44}},
		{"a minor number beyond 20 bits", {.name = "a", .type = AGENT_CHARACTER, .device = 1u << 20}},
		{"MODE twice", {.name = "a", .type = AGENT_FILE, .mode = 1, .twice = AGENT_ENTRY_MODE}},
		{"TYPE twice", {.name = "a", .type = AGENT_FILE, .twice = AGENT_ENTRY_TYPE}},
		{"NAME twice", {.name = "a", .type = AGENT_FILE, .twice = AGENT_ENTRY_NAME}},
		{"a UID of the wrong size", {.name = "a", .type = AGENT_FILE, .twice = AGENT_ENTRY_MTIME}},
		{"an unknown tag", {.name = "a", .type = AGENT_FILE, .twice = AGENT_ENTRY_DEVICE + 1}},
		{"a tag beyond the mask", {.name = "a", .type = AGENT_FILE, .twice = 32 + AGENT_ENTRY_UID}},
	};
	struct raw raw = {.name = "a", .type = AGENT_FILE, .twice = AGENT_ENTRY_UID};
	CHECK(raw_reads(&raw), "MODE, GID, MTIME and SIZE may be left out");
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		raw = (struct raw){.name = names[i], .type = AGENT_FILE};
		struct raw link = {.name = "a", .type = AGENT_HARDLINK, .link = names[i]};
		char what[64];
		snprintf(what, sizeof(what), "%s is no name, and no hard link's", names[i]);
		CHECK(!raw_reads(&raw) && !raw_reads(&link), what);
	}
	printf("# refused are:\n");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		CHECK(!raw_reads(&bad[i].raw), bad[i].what);
}

static void test_bad_texts(void)
{
	static struct agent_entry e;
	static uint8_t bytes[64 + AGENT_NAME_MAX];
	CLEANUP_BUFFER struct buffer b = {0};

	tlv_put(&b, AGENT_ENTRY_NAME, "a\0b", 3);
	tlv_put_u32(&b, AGENT_ENTRY_TYPE, AGENT_FILE);
	struct agent_frame f = {.type = AGENT_ENTRY, .size = (uint32_t)b.size, .payload = buffer_bytes(&b)};
	CHECK(!agent_entry_get(&f, &e), "a NUL in a name is refused");
	buffer_consume(&b, b.size);
	memset(bytes, 'a', sizeof(bytes));
	tlv_put(&b, AGENT_ENTRY_NAME, bytes, AGENT_NAME_MAX + 1);
	tlv_put_u32(&b, AGENT_ENTRY_TYPE, AGENT_FILE);
	f = (struct agent_frame){.type = AGENT_ENTRY, .size = (uint32_t)b.size, .payload = buffer_bytes(&b)};
	CHECK(!agent_entry_get(&f, &e), "a name beyond its limit is refused");
	f.size--;
	CHECK(!agent_entry_get(&f, &e), "entries that are cut off are refused");
	size_t before = b.size;
	e = (struct agent_entry){.name = "a/../b", .type = AGENT_FILE};
	CHECK(agent_entry_put(&b, &e) == -EINVAL && b.size == before, "what would be refused is not written");
}

static void test_data(void)
{
	CLEANUP_BUFFER struct buffer b = {0};
	struct agent_frame f;
	const uint8_t *bytes = NULL;
	uint64_t offset = 0;
	size_t n = 0;

	agent_data_put(&b, 1ull << 40, "abc", 3);
	CHECK(only(&b, &f) && f.type == AGENT_DATA && agent_data_get(&f, &offset, &bytes, &n) && offset == 1ull << 40 &&
			n == 3 && memcmp(bytes, "abc", 3) == 0,
		"DATA reads back");
	CHECK(agent_data_put(&b, 0, "", 0) == -EMSGSIZE &&
			agent_data_put(&b, 0, "", AGENT_PAYLOAD_MAX - 7) == -EMSGSIZE,
		"no bytes and too many are not written");
	f.size = 8;
	CHECK(!agent_data_get(&f, &offset, &bytes, &n), "DATA without bytes is refused");
	buffer_consume(&b, b.size);
	agent_data_put(&b, INT64_MAX - 2, "abc", 3);
	CHECK(only(&b, &f) && !agent_data_get(&f, &offset, &bytes, &n), "bytes beyond the largest offset are refused");
	buffer_consume(&b, b.size);
	agent_data_put(&b, INT64_MAX - 3, "abc", 3);
	CHECK(only(&b, &f) && agent_data_get(&f, &offset, &bytes, &n), "bytes up to it are not");
}

int main(void)
{
	test_frames();
	test_headers();
	test_exit();
	test_error();
	test_errno();
	test_entry();
	test_bad_entries();
	test_bad_texts();
	test_data();
	return tap_done();
}
