/* SPDX-License-Identifier: Apache-2.0 */
/* protocol-test.c - frames read back as written; malformed, short and out-of-range ones are told apart and refused */
#include "agent/protocol.h"
#include "base/bytes.h"
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
	static const uint8_t wire[] = {4, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0};
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

int main(void)
{
	test_frames();
	test_headers();
	test_exit();
	test_error();
	return tap_done();
}
