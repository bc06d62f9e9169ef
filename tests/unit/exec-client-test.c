/* SPDX-License-Identifier: Apache-2.0 */
/* exec-client-test.c - programs that are run in a VM: what is asked, what comes of it, and an agent that means ill */
#include "tests/unit/scripted_agent.h"

#include "base/bytes.h"
#include "base/loop.h"
#include "base/tlv.h"
#include "engine/exec.h"
#include "engine/joined.h"
#include "tests/tap.h"

#include <poll.h>
#include <sys/resource.h>

static struct scripted_agent agent;

static struct husk_exec_config config_of(const char *const *command)
{
	return (struct husk_exec_config){
		.size = sizeof(struct husk_exec_config),
		.command = command,
		.stdin_fd = -1,
		.stdout_fd = -1,
		.stderr_fd = -1,
		.start_timeout_ms = 10000,
	};
}

static const char *const true_command[] = {"true", NULL};

/** Run it; the outcome or the error. */
static int exec(const struct husk_exec_config *config, struct husk_exec_outcome *outcome, struct husk_error *err)
{
	struct husk_exec *e = NULL;
	int rc = joined_start(&agent.husk, SCRIPTED_ID, config, &e, err);
	rc = rc < 0 ? rc : joined_wait(e, 20000, outcome, err);
	joined_close(e);
	return rc;
}

/* ---- what is asked ---- */

static struct buffer heard; /* the payload of the last EXEC */
static int reads; /* how often the agent had to read for it */

/** Take HELLO and EXEC. */
static bool hear_exec(int fd)
{
	struct buffer b = {0};
	struct agent_frame frame;
	bool ok = scripted_hear(fd, &b, &frame) && frame.type == AGENT_HELLO;
	reads = b.size ? 1 : 2;
	ok = ok && scripted_hear(fd, &b, &frame) && frame.type == AGENT_EXEC;
	buffer_free(&heard);
	if (ok)
		buffer_append(&heard, frame.payload, frame.size);
	buffer_free(&b);
	return ok;
}

static void say_started(struct buffer *b)
{
	agent_hello_put(b);
	agent_u32_put(b, AGENT_STARTED, 0, 7);
}

static void say_exit(struct buffer *b, uint32_t kind, uint32_t value, uint32_t flags)
{
	const struct agent_exit e = {
		.kind = kind, .value = value, .flags = flags, .duration_ns = 5, .peak_rss = 4096, .step = 2};
	agent_exit_put(b, &e);
}

static void script_true(int fd, void *data)
{
	struct buffer b = {0};
	(void)data;
	if (!hear_exec(fd))
		return;
	say_started(&b);
	say_exit(&b, AGENT_EXITED, 0, 0);
	scripted_say(fd, &b);
}

/** How many entries @tag the payload has; the last one goes to *@last. */
static size_t entries(uint16_t tag, struct tlv *last)
{
	struct tlv_reader reader;
	struct tlv entry;
	size_t n = 0;
	tlv_start(&reader, buffer_bytes(&heard), heard.size);
	while (tlv_next(&reader, &entry))
		if (entry.tag == tag) {
			*last = entry;
			n++;
		}
	return reader.broken ? 0 : n;
}

static bool is(const struct tlv *entry, const char *text)
{
	return entry->size == strlen(text) && memcmp(entry->value, text, entry->size) == 0;
}

static void test_request(void)
{
	const char *const env[] = {"A=1", "B", NULL}, *const groups[] = {"7", "audio", NULL};
	const char *const *const chain[] = {true_command, (const char *const[]){"echo", "a", NULL}, NULL};
	const struct husk_staged_file files[] = {
		{.path = "/tmp/x", .data = "data", .n = 4, .mode = 0600}, {.path = "y"}};
	struct husk_exec_config config = config_of(true_command);
	struct husk_exec_outcome outcome;
	struct husk_error err;
	struct tlv entry;
	uint32_t number;
	uint64_t ms;

	scripted_begin(&agent, script_true, NULL);
	CHECK(exec(&config, &outcome, &err) == 0 && outcome.end == HUSK_END_EXITED && outcome.exit_code == 0,
		"a program runs to its end");
	CHECK(outcome.duration_ns == 5 && outcome.peak_rss == 4096 && outcome.step == 2 && !outcome.timed_out,
		"what the agent tells of it is in the outcome");
	CHECK(reads == 1, "HELLO and the request are one write: connect, ask, be told is all there is");
	CHECK(entries(AGENT_EXEC_ARG, &entry) == 1 && is(&entry, "true"), "the command is asked for");
	CHECK(entries(AGENT_EXEC_CWD, &entry) + entries(AGENT_EXEC_USER, &entry) + entries(AGENT_EXEC_ENV, &entry) == 0,
		"what is not said is left to the agent");
	config.command = NULL;
	config.chain = chain;
	config.env = env;
	config.groups = groups;
	config.user = "1:2";
	config.working_dir = "/w";
	config.timeout_ms = 1234;
	config.files = files;
	config.n_files = 2;
	config.input = "";
	CHECK(exec(&config, &outcome, &err) == 0, "a chain with all that there is runs");
	CHECK(entries(AGENT_EXEC_NEXT, &entry) == 1 && entries(AGENT_EXEC_ARG, &entry) == 3 && is(&entry, "a"),
		"the commands are told apart");
	CHECK(entries(AGENT_EXEC_ENV, &entry) == 2 && is(&entry, "B") && entries(AGENT_EXEC_GROUP, &entry) == 2 &&
			is(&entry, "audio"),
		"variables and groups are told in order");
	CHECK(entries(AGENT_EXEC_USER, &entry) == 1 && is(&entry, "1:2") && entries(AGENT_EXEC_CWD, &entry) == 1 &&
			is(&entry, "/w"),
		"so are user and directory");
	CHECK(entries(AGENT_EXEC_TIMEOUT, &entry) == 1 && tlv_u64(&entry, &ms) && ms == 1234, "so is the time limit");
	CHECK(entries(AGENT_EXEC_FLAGS, &entry) == 1 && tlv_u32(&entry, &number) && number == AGENT_EXEC_FLAG_STDIN,
		"so is stdin");
	CHECK(entries(AGENT_EXEC_FILE, &entry) == 2 && entry.size == 7 && get_le32(entry.value) == 0644 &&
			entry.value[6] == 'y',
		"so are files; their mode is 0644 when none is said");
}

static void test_limits(void)
{
	struct husk_exec_config config;
	struct husk_exec_outcome outcome;
	struct husk_error err;
	char *argument = malloc(EXEC_ARGUMENT_MAX + 2);
	const char *command[16] = {"echo", argument, NULL};
	struct tlv entry;

	memset(argument, 'x', EXEC_ARGUMENT_MAX + 1);
	argument[EXEC_ARGUMENT_MAX + 1] = 0;
	config = config_of(command);
	CHECK(exec(&config, &outcome, &err) == -E2BIG && strstr(err.message, "131072 bytes") &&
			strstr(err.message, "131071"),
		"an argument of 131072 bytes is refused, with the limit");
	argument[EXEC_ARGUMENT_MAX] = 0;
	CHECK(exec(&config, &outcome, &err) == 0 && entries(AGENT_EXEC_ARG, &entry) == 2 &&
			entry.size == EXEC_ARGUMENT_MAX,
		"one of 131071 bytes is passed whole");
	for (int i = 1; i < 9; i++)
		command[i] = argument;
	CHECK(exec(&config, &outcome, &err) == -E2BIG && strstr(err.message, "1048"), "more than 1 MiB is refused");
	free(argument);

	const struct {
		const char *what;
		struct husk_exec_config config;
	} wrong[] = {
		{"no command", {.stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1}},
		{"a command and a chain", {.command = true_command,
						  .chain = (const char *const *const[]){true_command, NULL},
						  .stdin_fd = -1,
						  .stdout_fd = -1,
						  .stderr_fd = -1}},
		{"an empty chain", {.chain = (const char *const *const[]){NULL},
					   .stdin_fd = -1,
					   .stdout_fd = -1,
					   .stderr_fd = -1}},
		{"an empty name",
			{.command = (const char *const[]){"", NULL}, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1}},
		{"bytes and a descriptor for stdin",
			{.command = true_command, .input = "", .stdin_fd = 0, .stdout_fd = -1, .stderr_fd = -1}},
		{"output collected and handed on",
			{.command = true_command, .collect = 1, .stdin_fd = -1, .stdout_fd = 1, .stderr_fd = -1}},
		{"a detached terminal", {.command = true_command,
						.detach = true,
						.tty = true,
						.stdin_fd = -1,
						.stdout_fd = -1,
						.stderr_fd = -1}},
		{"a relative directory", {.command = true_command,
						 .working_dir = "x",
						 .stdin_fd = -1,
						 .stdout_fd = -1,
						 .stderr_fd = -1}},
		{"a variable without a name", {.command = true_command,
						      .env = (const char *const[]){"=x", NULL},
						      .stdin_fd = -1,
						      .stdout_fd = -1,
						      .stderr_fd = -1}},
	};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		config = wrong[i].config;
		config.start_timeout_ms = 1000;
		CHECK(exec(&config, &outcome, &err) == -EINVAL, wrong[i].what);
	}
}

/* ---- outcomes and errors ---- */

/** What the agent says behind HELLO and EXEC; then it reads until the library is gone. */
static void script_bytes(int fd, void *data)
{
	struct buffer *b = data, copy = {0};
	if (!hear_exec(fd))
		return;
	buffer_append(&copy, buffer_bytes(b), b->size);
	scripted_say(fd, &copy);
	shutdown(fd, SHUT_WR);
	scripted_drain(fd);
}

static int exec_with(
	struct buffer *said, struct husk_exec_config *config, struct husk_exec_outcome *outcome, struct husk_error *err)
{
	scripted_begin(&agent, script_bytes, said);
	int rc = exec(config, outcome, err);
	scripted_settle(&agent);
	buffer_free(said);
	return rc;
}

static void test_outcomes(void)
{
	struct husk_exec_config config = config_of(true_command);
	struct husk_exec_outcome o;
	struct husk_error err;
	struct buffer b = {0};
	config.timeout_ms = 5000;

	say_started(&b);
	say_exit(&b, AGENT_SIGNALED, 9, AGENT_EXIT_TIMED_OUT | AGENT_EXIT_OOM);
	CHECK(exec_with(&b, &config, &o, &err) == 0 && o.end == HUSK_END_TIMEOUT && o.timed_out && o.oom &&
			o.exit_code == 124 && o.reason[0],
		"a program whose time was over");
	say_started(&b);
	say_exit(&b, AGENT_SIGNALED, 11, 0);
	CHECK(exec_with(&b, &config, &o, &err) == 0 && o.end == HUSK_END_SIGNALED && o.value == 11 &&
			o.exit_code == 139,
		"a program that died of a signal");
	static const struct {
		uint32_t code;
		int rc, exit_code;
	} errors[] = {
		{AGENT_ERROR_NOT_FOUND, 0, 127},
		{AGENT_ERROR_NOT_EXECUTABLE, 0, 126},
		{AGENT_ERROR_USER, 0, 125},
		{AGENT_ERROR_ERRNO + ENOSPC, 0, 125},
		{AGENT_ERROR_UNSUPPORTED, -ENOTSUP, 0},
		{AGENT_ERROR_BUSY, -ESRCH, 0},
		{AGENT_ERROR_VERSION, -EPROTO, 0},
	};
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		agent_hello_put(&b);
		agent_error_put(&b, errors[i].code, "x\033[2Jy\n");
		int rc = exec_with(&b, &config, &o, &err);
		const char *text = rc ? err.message : o.reason;
		CHECK(rc == errors[i].rc &&
				(rc || (o.end == HUSK_END_NOT_STARTED && o.exit_code == errors[i].exit_code)),
			"the agent's reason not to start decides between outcome and error");
		CHECK(strstr(text, "x?[2Jy?"), "its words are printable");
	}
	say_started(&b);
	CHECK(exec_with(&b, &config, &o, &err) == 0 && o.end == HUSK_END_GUEST && o.exit_code == 125,
		"a connection that ends behind STARTED is the guest's end");
	CHECK(exec_with(&b, &config, &o, &err) == -EPROTO, "one that ends before is none while the VM runs");
	scripted_state(&agent, VM_STOPPED);
	CHECK(exec(&config, &o, &err) == -ESRCH, "a VM that does not run");
	scripted_state(&agent, VM_PAUSED);
	CHECK(exec(&config, &o, &err) == -EAGAIN, "a VM that is paused");
	scripted_state(&agent, VM_STARTING);
	CHECK(exec(&config, &o, &err) == -EAGAIN, "a VM that is not ready yet");
	scripted_state(&agent, VM_RUNNING);
	struct husk_exec *e = NULL;
	CHECK(joined_start(&agent.husk, "ffffffffffff", &config, &e, &err) == -ENOENT, "a VM that is none");
}

/* ---- an agent that means ill ---- */

/** The whole of a good exec, of which the agent says the first @said bytes. */
struct part {
	struct buffer whole;
	size_t said;
	bool hang;
};

static void script_part(int fd, void *data)
{
	const struct part *p = data;
	struct buffer copy = {0};
	if (!hear_exec(fd))
		return;
	buffer_append(&copy, buffer_bytes(&p->whole), p->said);
	scripted_say(fd, &copy);
	if (p->hang)
		scripted_drain(fd);
}

static void make_whole(struct buffer *b)
{
	say_started(b);
	agent_frame_put(b, AGENT_STDOUT, AGENT_STREAM_STDOUT, "out", 3);
	agent_frame_put(b, AGENT_EOF, AGENT_STREAM_STDOUT, NULL, 0);
	say_exit(b, AGENT_EXITED, 3, 0);
}

static void test_cut(void)
{
	struct husk_exec_config config = config_of(true_command);
	struct part p = {0};
	bool fine = true;
	config.collect = 10;
	make_whole(&p.whole);
	scripted_begin(&agent, script_part, &p);
	for (p.said = 0; p.said <= p.whole.size; p.said++) {
		struct husk_exec_outcome o = {0};
		struct husk_error err;
		int rc = exec(&config, &o, &err);
		bool whole = p.said == p.whole.size, begun = p.said >= 24;
		fine = fine && (whole          ? rc == 0 && o.exit_code == 3 && o.out_size == 3
				       : begun ? rc == 0 && o.end == HUSK_END_GUEST
					       : rc == -EPROTO);
		free(o.out);
		free(o.err);
	}
	CHECK(fine, "a connection that ends at any byte is an error before STARTED, and the guest's end after it");
	p.hang = true;
	config.start_timeout_ms = 300;
	for (p.said = 0, fine = true; p.said < 24; p.said += 6) {
		struct husk_exec_outcome o;
		struct husk_error err;
		uint64_t begun = clock_monotonic_ns();
		fine = fine && exec(&config, &o, &err) == -ETIMEDOUT && clock_monotonic_ns() - begun < 5000000000ull;
	}
	CHECK(fine, "an agent that hangs before STARTED costs start_timeout_ms");
	scripted_settle(&agent);
	buffer_free(&p.whole);
}

/** A program that lives on alone is over for its caller when it has started. */
static void test_detached(void)
{
	struct husk_exec_config config = config_of(true_command);
	struct husk_exec_outcome o = {.size = sizeof(o)};
	struct husk_error err;
	bool fine = true;

	config.detach = true;
	for (int i = 0; i < 200; i++) {
		struct husk_exec *e = NULL;
		struct buffer b = {0};
		say_started(&b);
		scripted_begin(&agent, script_bytes, &b);
		fine = fine && joined_start(&agent.husk, SCRIPTED_ID, &config, &e, &err) == 0 &&
		       joined_wait(e, 0, &o, &err) == 0 && o.exit_code == 0;
		joined_close(e);
		scripted_settle(&agent);
		buffer_free(&b);
	}
	CHECK(fine, "a program that lives on is over for its caller when it has started");
}

/** Says STARTED and then @data's frame again and again, until the library has enough. */
static void script_flood(int fd, void *data)
{
	const struct buffer *frame = data;
	struct buffer b = {0};
	if (!hear_exec(fd))
		return;
	say_started(&b);
	scripted_say(fd, &b);
	while (send(fd, buffer_bytes(frame), frame->size, MSG_NOSIGNAL) > 0)
		;
}

static long peak_kib(void)
{
	struct rusage usage;
	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_maxrss;
}

static void test_floods(void)
{
	static uint8_t bytes[AGENT_PAYLOAD_MAX];
	static const struct {
		const char *what;
		uint8_t type, stream;
		size_t size;
	} floods[] = {
		{"output beyond its window is refused", AGENT_STDOUT, AGENT_STREAM_STDOUT, AGENT_WINDOW + 1},
		{"empty output is refused", AGENT_STDERR, AGENT_STREAM_STDERR, 0},
		{"a frame of an unknown type is refused", 0x7f, 0, 16},
		{"a control frame of a megabyte is refused by its header", AGENT_EXIT, 0, AGENT_PAYLOAD_MAX},
		{"a second STARTED is refused", AGENT_STARTED, 0, 4},
		{"input from the agent is refused", AGENT_STDIN, 0, 4},
		{"a window of more than there is is refused", AGENT_WINDOW_OPEN, AGENT_STREAM_STDIN, 4},
		{"an EXIT of the wrong size is refused", AGENT_EXIT, 0, 8},
		{"HELLO for ever is refused", AGENT_HELLO, 0, 4},
	};
	long before = peak_kib();
	memset(bytes, 0x7f, sizeof(bytes));
	for (size_t i = 0; i < sizeof(floods) / sizeof(floods[0]); i++) {
		struct husk_exec_config config = config_of(true_command);
		struct husk_exec_outcome o;
		struct husk_error err;
		struct buffer frame = {0};
		agent_frame_put(&frame, floods[i].type, floods[i].stream, bytes, floods[i].size);
		scripted_begin(&agent, script_flood, &frame);
		CHECK(exec(&config, &o, &err) == -EPROTO && strstr(err.message, "broke the protocol"), floods[i].what);
		scripted_settle(&agent);
		buffer_free(&frame);
	}
	CHECK(peak_kib() - before < 16 << 10, "none of it becomes memory");
}

/** Fills the window of stdout, and then says nothing more. */
static void script_full(int fd, void *data)
{
	struct buffer b = {0};
	char *bytes = calloc(1, AGENT_WINDOW);
	(void)data;
	if (hear_exec(fd)) {
		say_started(&b);
		agent_frame_put(&b, AGENT_STDOUT, AGENT_STREAM_STDOUT, bytes, AGENT_WINDOW);
		scripted_say(fd, &b);
		scripted_drain(fd);
	}
	free(bytes);
}

static void test_deadlines(void)
{
	struct husk_exec_config config = config_of(true_command);
	struct husk_exec_outcome o;
	struct husk_error err;
	struct husk_exec *e = NULL;
	int ends[2];
	uint64_t begun = clock_monotonic_ns();

	config.timeout_ms = 10;
	config.collect = 2 * AGENT_WINDOW;
	scripted_begin(&agent, script_full, NULL);
	CHECK(exec(&config, &o, &err) == -ETIMEDOUT && clock_monotonic_ns() - begun < 15000000000ull,
		"an agent that does not keep the time limit is not waited for longer than 5 s");
	config.collect = 100;
	CHECK(exec(&config, &o, &err) == -EMSGSIZE, "more output than may be collected is an error");
	config.collect = 0;
	if (pipe(ends) < 0)
		abort();
	config.stdout_fd = ends[1];
	CHECK(exec(&config, &o, &err) == 0 && o.end == HUSK_END_TIMEOUT && o.exit_code == 124,
		"a time limit is over as well where nobody reads the output");
	config.timeout_ms = 0;
	CHECK(joined_start(&agent.husk, SCRIPTED_ID, &config, &e, &err) == 0 &&
			joined_wait(e, 50, NULL, &err) == -ETIMEDOUT,
		"a wait ends in time while the program runs");
	begun = clock_monotonic_ns();
	joined_close(e);
	CHECK(clock_monotonic_ns() - begun < 5000000000ull, "a program is given up at once");
	close(ends[0]);
	close(ends[1]);
}

int main(void)
{
	scripted_open(&agent);
	test_request();
	test_limits();
	test_outcomes();
	test_cut();
	test_detached();
	test_floods();
	test_deadlines();
	scripted_close(&agent);
	buffer_free(&heard);
	return tap_done();
}
