/* SPDX-License-Identifier: Apache-2.0 */
/*
 * faults-test.c - guests that go wrong: exceptions of their CPU, ports and memory that are not there, lies, a bad start
 *
 * One sandbox after the other is driven into each; after every one the report says what it was, the sandbox is poisoned, and a
 * snapshot from before brings it back.
 */
#include "tests/sandbox/running/rig.h"

#define NO_VECTOR 256

static struct husk_sandbox *sandbox;
static bool interpreted;
static struct husk_sandbox_snapshot *snapshot;

/** A sandbox of @image with a snapshot of its first state. */
static bool begin(struct husk_sandbox_image *image)
{
	sandbox = rig_begin(image, NULL);
	return sandbox && husk_sandbox_snapshot(sandbox, &snapshot, &rig_error) == 0;
}

static void end(void)
{
	husk_sandbox_free(sandbox);
	husk_sandbox_snapshot_free(snapshot);
	sandbox = NULL;
	snapshot = NULL;
}

/** One way to go wrong: what is called, what the call says, what the report says. */
struct wrong {
	const char *function;
	struct husk_sandbox_value args[2];
	unsigned n_args;
	int code; /* 0: it fails, one way or another */
	enum husk_sandbox_reason reason;
	unsigned vector;
	const char *message; /* a part of it */
};

#define A1(a) .args = {a}, .n_args = 1
#define A2(a, b) .args = {a, b}, .n_args = 2
#define ANYHOW .code = 0
#define FAULTS(v) .code = -EFAULT, .reason = HUSK_SANDBOX_FAULT, .vector = (v)
#define VIOLATES .code = -EPROTO, .reason = HUSK_SANDBOX_PROTOCOL, .vector = NO_VECTOR
#define ABORTS .code = -ECONNABORTED, .reason = HUSK_SANDBOX_ABORT, .vector = NO_VECTOR

static const struct wrong wrongs[] = {
	{"divide", A2(I32(1), I32(0)), FAULTS(0), .message = "division error"},
	{"ud2", FAULTS(6), .message = "invalid opcode"},
	{"breakpoint", FAULTS(3), .message = "breakpoint"},
	{"recurse", A1(U64(0)), FAULTS(14), .message = "the guard below the stack: it is full"},
	{"poke", A2(U64(0), U64(1)), FAULTS(14), .message = "wrote to 0x0, a null pointer"},
	{"peek", A1(U64(8)), FAULTS(14), .message = "read 0x8, a null pointer"},
	{"peek", A1(U64(0x700000000000)), FAULTS(14), .message = "no memory"},
	{"peek", A1(U64(0x8000000000000000)), FAULTS(13), .message = "general protection"},
	{"poke", A2(U64(0xfee00000), U64(1)), FAULTS(14), .message = "no memory"},
	{"write_code", FAULTS(14), .message = "the program's read-only part"},
	{"write_constant", FAULTS(14), .message = "the program's read-only part"},
	{"run_data", FAULTS(14), .message = "executed"},
	{"run_stack", FAULTS(14), .message = "the stack"},
	{"poke", A2(U64(0x1001fe000), U64(0)), FAULTS(14), .message = "the library's pages"},
	{"write_msr", A2(U32(0x10), U64(0)), FAULTS(13), .message = "general protection"},
	{"write_msr", A2(U32(0x12345678), U64(0)), FAULTS(13), .message = "general protection"},
	{"read_msr", A1(U32(0x1b)), FAULTS(13), .message = "general protection"},
	{"write_cr", A2(U32(4), U64(0)), FAULTS(13), .message = "general protection"},
	/* Page tables that are not there: some CPUs shut down, others never come to the next instruction. */
	{"write_cr", A2(U32(3), U64(0x40000000)), ANYHOW, .message = "page tables that are not there"},
	{"triple_fault", .code = -EFAULT, .reason = HUSK_SANDBOX_FAULT, .vector = 255, .message = "triple fault"},
	{"halt", VIOLATES, .message = "halted"},
	{"halt_open", VIOLATES, .message = "halted"},
	{"port_out", A2(U32(0x3f8), U32('x')), VIOLATES, .message = "port"},
	{"port_out", A2(U32(0x6873), U32(99)), VIOLATES, .message = "nobody knows"},
	{"port_out_byte", A2(U32(0x6873), U32(2)), VIOLATES, .message = "port"},
	{"port_out_byte", A2(U32(0xf0), U32(2)), VIOLATES, .message = "port of faults"},
	{"port_in", A1(U32(0x6873)), VIOLATES, .message = "port"},
	{"port_in", A1(U32(0xcf8)), VIOLATES, .message = "port"},
	{"port_out_string", A2(U32(0x6873), U64(8)), VIOLATES, .message = "port"},
	/* KVM does not stop between the rounds of a string instruction. */
	{"read_nowhere", A1(U64(1 << 20)), VIOLATES, .message = "no memory is"},
	{"smash_stack", A1(U64(64)), ABORTS, .message = ""},
	{"double_free", ABORTS, .message = ""},
	{"overrun", ABORTS, .message = ""},
	/* It overwrites its own memory: what comes next is its own affair. */
	{"scribble", A1(U32(0xff)), ANYHOW, .message = "all that it can write"},
};

static bool went_as_said(const struct wrong *w, int rc, const struct husk_sandbox_report *report)
{
	return rc == w->code && report->reason == w->reason &&
	       (w->vector == NO_VECTOR || report->vector == w->vector) && strstr(report->message, w->message) &&
	       strcmp(report->message, rig_error.message) == 0 && husk_sandbox_state(sandbox) == HUSK_SANDBOX_POISONED;
}

static void test_wrong(const struct wrong *w)
{
	struct husk_sandbox_call_options options;
	char what[160];

	husk_sandbox_call_options_init(&options);
	options.deadline_ns = 3000000000;
	int rc = husk_sandbox_call(sandbox, w->function, w->args, w->n_args, NULL, &options, &rig_error);
	struct husk_sandbox_report report = rig_report(sandbox);
	snprintf(what, sizeof(what), "%s: %.100s", w->function, w->message);
	bool ok = w->code ? went_as_said(w, rc, &report) : rc < 0;
	/* A KVM that interprets guest code knows some instructions only, and says so. */
	if (interpreted && rc == -ENOTSUP)
		ok = report.reason == HUSK_SANDBOX_INSTRUCTION;
	if (!CHECK(ok, what))
		printf("# %d, reason %d, vector %u: %s\n", rc, report.reason, report.vector, report.message);
	snprintf(what, sizeof(what), "%s: a restore brings it back", w->function);
	if (!CHECK(husk_sandbox_restore(sandbox, snapshot, &rig_error) == 0 &&
			    RIG_U64_IS(sandbox, 1001, "counter", U64(1)),
		    what))
		printf("# %s\n", rig_error.message);
	husk_sandbox_restore(sandbox, snapshot, &rig_error);
}

/** What a report says of where it was. */
static void test_report(void)
{
	RIG_CALL(sandbox, NULL, "poke", U64(0x1234), U64(7));
	struct husk_sandbox_report report = rig_report(sandbox);
	CHECK(report.vector == 14 && report.address == 0x1234 && report.error_code == 2,
		"a page fault has address and error code");
	CHECK(strstr(report.symbol, "poke+0x") && report.rip > 0x100200000, "and the function in which it was");
	CHECK(report.rsp != 0 && RIG_CALL(sandbox, NULL, "nothing") == -ENOTRECOVERABLE, "the sandbox is poisoned");
	husk_sandbox_restore(sandbox, snapshot, &rig_error);
	CHECK(RIG_CALL(sandbox, NULL, "nothing") == 0 && rig_report(sandbox).reason == HUSK_SANDBOX_FINE,
		"after a restore the report is a new one");
}

static void test_lies(struct husk_sandbox_image *image)
{
	struct husk_sandbox_value r = {0};
	uint32_t fine = 0;
	char what[160];

	if (!CHECK(begin(image) && RIG_CALL(sandbox, &r, "lies_count") == 0, "a liar starts"))
		return;
	uint32_t n = r.u32;
	for (uint32_t i = 0; i < n; i++) {
		RIG_CALL(sandbox, &r, "lie_name", U32(i));
		snprintf(what, sizeof(what), "%s is a violation", (const char *)r.bytes.data);
		husk_sandbox_value_clear(&r);
		int rc = RIG_CALL(sandbox, NULL, "lie", U32(i));
		bool ok = rc == -EPROTO && husk_sandbox_state(sandbox) == HUSK_SANDBOX_POISONED &&
			  husk_sandbox_restore(sandbox, snapshot, &rig_error) == 0;
		fine += ok;
		if (!ok)
			CHECK(false, what);
		if (!ok)
			printf("# %d: %s\n", rc, rig_error.message);
	}
	CHECK(n > 30 && fine == n, "every lie is a violation, and restored from");
	int rc = RIG_CALL(sandbox, NULL, "fail_unprintable");
	CHECK(rc == -EREMOTEIO && !strpbrk(rig_error.message, "\n\033\377"), "an error's message is made printable");
	end();
}

static int answer(void *data, const struct husk_sandbox_value *args, size_t n, struct husk_sandbox_value *result,
	struct husk_error *err)
{
	(void)data;
	(void)args;
	(void)n;
	(void)err;
	result->i32 = 99;
	return 0;
}

/** Programs that go wrong before they are ready. */
static void test_early(const char *directory)
{
	static const struct {
		const char *name;
		int code;
	} early[] = {{"early-return", -EPROTO}, {"early-fail", -ECONNABORTED}, {"early-abort", -ECONNABORTED},
		{"early-fault", -EFAULT}, {"early-spin", -ETIMEDOUT}, {"early-halt", -EPROTO},
		{"early-call", -ECONNABORTED}};
	struct husk_sandbox_config config;
	char what[80];

	husk_sandbox_config_init(&config);
	for (size_t i = 0; i < sizeof(early) / sizeof(early[0]); i++) {
		struct husk_sandbox_image *image = rig_load(directory, early[i].name);
		struct husk_sandbox_signature f = {.size = sizeof(f)};
		struct husk_sandbox *s;
		config.start_timeout_ns = early[i].code == -ETIMEDOUT ? 100000000 : 10000000000;
		husk_sandbox_create(image, &config, &s, &rig_error);
		for (size_t k = 0; husk_sandbox_image_import(image, k, &f, NULL) == 0; k++)
			(void)husk_sandbox_add_function(s, &f, answer, NULL, NULL);
		int rc = husk_sandbox_start(s, &rig_error);
		snprintf(what, sizeof(what), "%s: the start fails, and it is dead", early[i].name);
		if (!CHECK(rc == early[i].code && husk_sandbox_state(s) == HUSK_SANDBOX_DEAD, what))
			printf("# %d: %s\n", rc, rig_error.message);
		husk_sandbox_free(s);
		husk_sandbox_image_free(image);
	}
}

int main(int argc, char **argv)
{
	rig_need(argc);
	struct husk_sandbox_image *basic = rig_load(argv[1], "basic"), *hostile = rig_load(argv[1], "hostile");
	if (!CHECK(begin(basic), "a sandbox starts"))
		return tap_done();
	interpreted = rig_is_interpreted(basic);
	for (size_t i = 0; i < sizeof(wrongs) / sizeof(wrongs[0]); i++)
		test_wrong(&wrongs[i]);
	test_report();
	CHECK(rig_stats(sandbox).restores > 60 && rig_stats(sandbox).poisonings > 30, "it has counted them");
	end();
	test_lies(hostile);
	test_early(argv[1]);
	husk_sandbox_image_free(basic);
	husk_sandbox_image_free(hostile);
	return tap_done();
}
