/* SPDX-License-Identifier: Apache-2.0 */
/* qmp-test.c - the JSON tokenizer takes JSON and nothing else, and the QMP client survives a hostile QEMU */
#include "vmm/machine/machine.h"
#include "vmm/machine/qemu/qmp.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "tests/tap.h"

#include <sys/socket.h>

#define TOKENS 64

static int parse(const char *text)
{
	struct json_token tokens[TOKENS];
	struct json json;
	return json_parse(&json, text, strlen(text), tokens, TOKENS);
}

static void test_grammar(void)
{
	static const char *const good[] = {
		"{}", "[]", " [1,-0.5e+3 , \"a\\u00e9\\n\", true,false,null]\r", "\"\"", "{\"a\":{\"b\":[{}]}}", "0"};
	static const char *const bad[] = {"", "{", "}", "[1,]", "{\"a\"}", "{\"a\":}", "{a:1}", "{\"a\":1,}", "01", "-",
		"1.", "1e", "\"", "\"\\x\"", "\"\\u12\"", "\"\\", "tru", "nulll", "[1 2]", "{} {}", "\"a\nb\"",
		"[\"a\":1]", "{\"a\":1 \"b\":2}", "\x80", "+1", "'a'"};

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		CHECK(parse(good[i]) == 0, good[i]);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		CHECK(parse(bad[i]) == -EPROTO, "no JSON is refused");
}

static void test_limits(void)
{
	char text[4 * TOKENS + 1] = {0};

	memset(text, '[', JSON_DEPTH_MAX);
	memset(text + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
	CHECK(parse(text) == 0, "the deepest nesting passes");
	memset(text, '[', JSON_DEPTH_MAX + 1);
	memset(text + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
	CHECK(parse(text) == -E2BIG, "one level more does not");
	memset(text, '[', sizeof(text) - 1);
	CHECK(parse(text) == -E2BIG, "nor do brackets without end");
	text[0] = '[';
	for (int i = 1; i < TOKENS; i++)
		memcpy(text + 2 * i - 1, i == TOKENS - 1 ? "1]" : "1,", 3);
	CHECK(parse(text) == 0, "as many tokens as there is room for");
	memcpy(text + 2 * (TOKENS - 1), ",1]", 4);
	CHECK(parse(text) == -E2BIG, "and not one more");
}

static void test_members(void)
{
	static const char text[] =
		"{\"x\":[1,{\"reason\":\"no\"}],\"data\":{\"guest\":true,\"reason\":\"a\\u0000\x1f?\"}}";
	static const char plain[] =
		"{\"x\":[1,{\"reason\":\"no\"}],\"data\":{\"guest\":true,\"reason\":\"\xc3\xa9!\"}}";
	struct json_token tokens[TOKENS];
	struct json json;
	char out[8];

	CHECK(json_parse(&json, text, strlen(text), tokens, TOKENS) == -EPROTO, "a control character in a string");
	CHECK(json_parse(&json, plain, strlen(plain), tokens, TOKENS) == 0, "an event is read");
	long data = json_member(&json, 0, "data");
	CHECK(data > 0 && json_member(&json, data, "guest") > 0, "members are found behind nested values");
	CHECK(json_member(&json, 0, "reason") == -1, "and not in nested ones");
	CHECK(json_member(&json, -1, "x") == -1 && json_member(&json, json_member(&json, 0, "x"), "x") == -1,
		"what is no object has no members");
	json_copy(&json, json_member(&json, data, "reason"), out, sizeof(out));
	CHECK_STRING(out,
		"??"
		"!",
		"text is made printable");
	json_copy(&json, json_member(&json, data, "reason"), out, 3);
	CHECK_STRING(out, "??", "and cut to its room");
}

/** What @text is as a number; UINT64_MAX: none. */
static uint64_t number(const char *text)
{
	struct json_token tokens[TOKENS];
	struct json json;
	uint64_t n;

	if (json_parse(&json, text, strlen(text), tokens, TOKENS) < 0 || !json_number(&json, 0, &n))
		return UINT64_MAX;
	return n;
}

static void test_numbers(void)
{
	CHECK(number("0") == 0 && number("536870912") == 536870912, "a whole number is read");
	CHECK(number("9223372036854775807") == INT64_MAX, "up to the largest");
	CHECK(number("9223372036854775808") == UINT64_MAX && number("99999999999999999999") == UINT64_MAX,
		"and no further");
	CHECK(number("-1") == UINT64_MAX && number("1.5") == UINT64_MAX && number("1e3") == UINT64_MAX &&
			number("\"1\"") == UINT64_MAX && number("true") == UINT64_MAX,
		"what is written in another way is none");
}

/** Every prefix and every single-byte change of a message is parsed: nothing to check but that it ends and stays inside. */
static void test_mutations(void)
{
	static const char text[] =
		"{\"timestamp\": {\"seconds\": 17, \"microseconds\": -2.5e9}, \"event\": \"SHUTDOWN\", "
		"\"data\": {\"guest\": true, \"reason\": \"guest\\\"-shutdown\"}}";
	char *copy = malloc(sizeof(text) - 1); /* exact, so that ASan sees a byte too many */
	int parsed = 0;

	for (size_t n = 0; n < sizeof(text); n++) {
		struct json_token tokens[TOKENS];
		struct json json;
		char *prefix = malloc(n ? n : 1);
		memcpy(prefix, text, n);
		parsed += json_parse(&json, prefix, n, tokens, TOKENS) == 0;
		free(prefix);
	}
	CHECK(parsed == 1 || parsed == 2, "only the whole message is JSON");
	for (size_t i = 0; i < sizeof(text) - 1; i++)
		for (int c = 0; c < 256; c++) {
			struct json_token tokens[TOKENS];
			struct json json;
			memcpy(copy, text, sizeof(text) - 1);
			copy[i] = (char)c;
			if (json_parse(&json, copy, sizeof(text) - 1, tokens, TOKENS) == 0)
				(void)json_member(&json, json_member(&json, 0, "data"), "reason");
		}
	free(copy);
}

/* ---- the client ---- */

struct seen {
	int answers, errors, events, closed;
	const char *why;
};

static void on_answer(void *data, const char *error)
{
	struct seen *seen = data;
	seen->answers++;
	seen->errors += error != NULL;
}

static void on_event(void *data, const struct json *json, const char *name, long at)
{
	struct seen *seen = data;
	seen->events += strcmp(name, "SHUTDOWN") == 0 && json_is(json, json_member(json, at, "reason"), "guest-reset");
}

static void on_closed(void *data, const char *why)
{
	struct seen *seen = data;
	seen->closed++;
	seen->why = why;
}

static const struct qmp_handler handler = {.event = on_event, .closed = on_closed};

/** Run a client that executes `cont` against a QEMU that says @script and then hangs up. */
static struct seen run(const char *script, size_t size, char *heard, size_t room)
{
	struct seen seen = {0};
	struct loop loop;
	struct qmp qmp;
	int pair[2];

	loop_init(&loop, NULL);
	socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
	qmp_open(&qmp, &loop, pair[0], &handler, &seen, NULL);
	qmp_execute(&qmp, "cont", NULL, on_answer);
	for (size_t at = 0; at < size;) {
		ssize_t n = send(pair[1], script + at, size - at, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n <= 0 && errno != EAGAIN)
			break;
		at += n > 0 ? (size_t)n : 0;
		loop_round(&loop, 0, NULL);
	}
	for (int i = 0; i < 20; i++)
		loop_round(&loop, 0, NULL);
	if (heard) {
		ssize_t n = recv(pair[1], heard, room - 1, MSG_DONTWAIT);
		heard[n > 0 ? n : 0] = 0;
	}
	close(pair[1]);
	for (int i = 0; i < 5; i++)
		loop_round(&loop, 0, NULL);
	qmp_close(&qmp);
	loop_destroy(&loop);
	return seen;
}

#define GREETING "{\"QMP\":{\"version\":{},\"capabilities\":[]}}\r\n"

static void test_client(void)
{
	static const char talk[] =
		GREETING "{\"return\":{}}\r\n{\"event\":\"SHUTDOWN\",\"data\":{\"reason\":\"guest-reset\"}}"
			 "\r\n{\"error\":{\"class\":\"x\",\"desc\":\"no\"}}\r\n";
	static const char *const nonsense[] = {"{\"return\":{}}\r\n", "x\n", GREETING "[]\n", GREETING "{}\n",
		GREETING "{\"return\":{}}\n{\"return\":{}}\n{\"return\":{}}\n"};
	char heard[256];

	struct seen seen = run("", 0, heard, sizeof(heard));
	CHECK_STRING(heard, "", "nothing is said before the greeting");
	CHECK(seen.closed == 1 && !seen.why, "a hang-up is told once");
	seen = run(talk, strlen(talk), heard, sizeof(heard));
	CHECK_STRING(
		heard, "{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"cont\"}\n", "then the commands in order");
	CHECK(seen.answers == 1 && seen.errors == 1 && seen.events == 1 && seen.closed == 1,
		"answers, errors and events");
	for (size_t i = 0; i < ARRAY_SIZE(nonsense); i++) {
		seen = run(nonsense[i], strlen(nonsense[i]), NULL, 0);
		CHECK(seen.closed == 1 && seen.why, "nonsense ends the connection with a reason, once");
	}
	char *line = malloc(2 * QMP_LINE_MAX);
	memset(line, ' ', 2 * QMP_LINE_MAX);
	seen = run(line, 2 * QMP_LINE_MAX, NULL, 0);
	CHECK(seen.closed == 1 && seen.why, "and so does a line without end");
	free(line);
}

/** What the machine told its worker. */
struct told {
	enum machine_event events[8];
	unsigned n;
	char text[64];
	uint64_t ballooned;
};

static void on_machine(void *data, enum machine_event event, const char *text)
{
	struct told *told = data;
	if (told->n < ARRAY_SIZE(told->events))
		told->events[told->n++] = event;
	snprintf(told->text, sizeof(told->text), "%s", text);
}

static void on_ballooned(void *data, uint64_t bytes)
{
	((struct told *)data)->ballooned = bytes;
}

/** QEMU says @line and hears what the machine says meanwhile. */
static const char *talk(struct loop *loop, int qemu, const char *line)
{
	static char heard[512];

	(void)!write(qemu, line, strlen(line));
	for (int i = 0; i < 5; i++)
		loop_round(loop, 0, NULL);
	ssize_t n = recv(qemu, heard, sizeof(heard) - 1, MSG_DONTWAIT);
	heard[n > 0 ? n : 0] = 0;
	return heard;
}

static void test_machine(void)
{
	const struct machine_ops *ops = &machine_qemu_ops;
	struct memory memory = {.fd = -1, .fd_size = 512 << 20};
	struct told told = {0};
	struct machine *machine;
	struct loop loop;
	int pair[2];

	loop_init(&loop, NULL);
	socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair);
	const struct machine_setup setup = {.loop = &loop,
		.memory = &memory,
		.event = on_machine,
		.data = &told,
		.control_fd = pair[0],
		.ballooned = on_ballooned};
	if (ops->create(&setup, &machine, NULL) < 0)
		abort();
	talk(&loop, pair[1], GREETING "{\"return\":{}}\n");
	CHECK(ops->pause(machine, NULL) == 0, "a machine is told to rest");
	CHECK_STRING(talk(&loop, pair[1], "{\"return\":{}}\n"), "{\"execute\":\"stop\"}\n", "by QMP's stop");
	CHECK(told.n == 0, "and does not rest before QEMU says so");
	talk(&loop, pair[1], "{\"event\":\"STOP\"}\n");
	CHECK(told.n == 1 && told.events[0] == MACHINE_PAUSED, "which it then tells");
	CHECK(ops->resume(machine, NULL) == 0, "to go on likewise");
	CHECK_STRING(talk(&loop, pair[1], "{\"return\":{}}\n{\"event\":\"RESUME\"}\n"), "{\"execute\":\"cont\"}\n",
		"by cont");
	CHECK(told.n == 2 && told.events[1] == MACHINE_RUNNING, "and tells that");
	CHECK(ops->balloon(machine, 128 << 20, NULL) == 0, "to give memory back");
	CHECK_STRING(talk(&loop, pair[1], "{\"return\":{}}\n"),
		"{\"execute\":\"balloon\",\"arguments\":{\"value\":402653184}}\n", "by what is to be left");
	CHECK(told.n == 3 && told.events[2] == MACHINE_BALLOON && !told.text[0], "the answer is told");
	talk(&loop, pair[1], "{\"event\":\"BALLOON_CHANGE\",\"data\":{\"actual\":436207616}}\n");
	CHECK(told.ballooned == 96 << 20, "and what the guest gives back, as it does");
	talk(&loop, pair[1], "{\"event\":\"BALLOON_CHANGE\",\"data\":{\"actual\":9000000000000}}\n");
	CHECK(told.ballooned == 0, "more than there is left is nothing given back");
	ops->balloon(machine, 1, NULL);
	talk(&loop, pair[1], "{\"error\":{\"class\":\"x\",\"desc\":\"no balloon\"}}\n");
	CHECK(told.n == 4 && told.events[3] == MACHINE_BALLOON, "a refusal is told as one");
	CHECK_STRING(told.text, "no balloon", "with QEMU's reason");
	ops->destroy(machine);
	close(pair[1]);
	loop_destroy(&loop);
}

int main(void)
{
	test_grammar();
	test_limits();
	test_members();
	test_numbers();
	test_mutations();
	test_client();
	test_machine();
	return tap_done();
}
