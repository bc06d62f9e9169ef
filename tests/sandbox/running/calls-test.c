/* SPDX-License-Identifier: Apache-2.0 */
/* calls-test.c - calls of a running sandbox's functions, and its calls of the host's: values, errors, states, who may be in */
#include "tests/descriptors.h"
#include "tests/sandbox/running/rig.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>

static char printed[4096];
static size_t n_printed;

static void keep_text(void *data, const char *text, size_t n)
{
	(void)data;
	if (n > sizeof(printed) - 1 - n_printed)
		n = sizeof(printed) - 1 - n_printed;
	memcpy(printed + n_printed, text, n);
	n_printed += n;
	printed[n_printed] = 0;
}

static struct husk_sandbox_config with_print(void)
{
	struct husk_sandbox_config config;

	husk_sandbox_config_init(&config);
	config.print = keep_text;
	return config;
}

/* ---- values ---- */

static void test_numbers(struct husk_sandbox *s)
{
	struct husk_sandbox_value r = {0};

	CHECK(RIG_CALL(s, &r, "add", I32(40), I32(2)) == 0 && r.type == HUSK_SANDBOX_I32 && r.i32 == 42,
		"40 + 2 is 42");
	CHECK(RIG_CALL(s, &r, "add", I32(INT32_MIN), I32(-1)) == 0 && r.i32 == INT32_MAX,
		"the smallest less one wraps");
	CHECK(RIG_CALL(s, &r, "echo_i32", I32(-7)) == 0 && r.i32 == -7, "an i32 comes back");
	CHECK(RIG_CALL(s, &r, "echo_u32", U32(UINT32_MAX)) == 0 && r.u32 == UINT32_MAX, "a u32 does");
	CHECK(RIG_CALL(s, &r, "echo_i64", I64(INT64_MIN)) == 0 && r.i64 == INT64_MIN, "an i64 does");
	CHECK(RIG_CALL(s, &r, "echo_u64", U64(UINT64_MAX)) == 0 && r.u64 == UINT64_MAX, "a u64 does");
	CHECK(RIG_CALL(s, &r, "echo_bool", BOOL(true)) == 0 && r.type == HUSK_SANDBOX_BOOL && r.boolean, "true does");
	CHECK(RIG_CALL(s, &r, "echo_bool", BOOL(false)) == 0 && !r.boolean, "and false");
	CHECK(RIG_CALL(s, &r, "nothing") == 0 && r.type == HUSK_SANDBOX_VOID, "a void result is void");
	CHECK(RIG_CALL(s, &r, "one_of_each", I32(-1), U32(2), I64(-30), U64(400), BOOL(true), STRING("12345"),
		      BYTES("\0\0", 2)) == 0 &&
			r.i64 == 379,
		"one argument of each type arrives");
	CHECK(RIG_CALL(s, &r, "initialized") == 0 && r.i32 == 11, "its constructor and husk_init() have run once each");
}

static void test_bytes(struct husk_sandbox *s)
{
	static const char zeros[] = "a\0b\0c";
	struct husk_sandbox_value r = {0};

	CHECK(RIG_CALL(s, &r, "hello", STRING("world")) == 0 && r.type == HUSK_SANDBOX_STRING && r.bytes.size == 12 &&
			strcmp(r.bytes.data, "hello, world") == 0,
		"a string goes in and comes out, with a NUL behind it");
	husk_sandbox_value_clear(&r);
	CHECK(RIG_CALL(s, &r, "echo_string", STRING("")) == 0 && r.bytes.size == 0 && *(const char *)r.bytes.data == 0,
		"an empty one");
	husk_sandbox_value_clear(&r);
	CHECK(RIG_CALL(s, &r, "null_string") == 0 && r.bytes.size == 0, "a NULL in the guest is an empty string");
	husk_sandbox_value_clear(&r);
	CHECK(RIG_CALL(s, &r, "reverse", BYTES(zeros, 5)) == 0 && r.type == HUSK_SANDBOX_BYTES && r.bytes.size == 5 &&
			memcmp(r.bytes.data, "c\0b\0a", 5) == 0,
		"bytes may have zeroes among them");
	husk_sandbox_value_clear(&r);
	CHECK(RIG_CALL(s, &r, "reverse", BYTES(NULL, 0)) == 0 && r.bytes.size == 0, "or be none");
	husk_sandbox_value_clear(&r);
	struct husk_sandbox_value bad = {.type = HUSK_SANDBOX_STRING, .bytes = {.data = zeros, .size = 5}};
	CHECK(husk_sandbox_call(s, "hello", &bad, 1, &r, NULL, &rig_error) == -EINVAL,
		"a string with zeroes is refused");
	CHECK(husk_sandbox_state(s) == HUSK_SANDBOX_READY, "which poisons nothing");
}

static void test_large(struct husk_sandbox_image *image)
{
	const size_t n = rig_is_interpreted(image) ? 64 << 10 : 16 << 20;
	struct husk_sandbox_value r = {0};
	struct husk_sandbox_config config = with_print();
	uint8_t *ramp = malloc(n);

	for (size_t i = 0; i < n; i++)
		ramp[i] = (uint8_t)i;
	config.heap = 40 << 20;
	config.input = config.output = n + 8192;
	struct husk_sandbox *s = rig_begin(image, &config);
	CHECK(s && RIG_CALL(s, &r, "echo_bytes", BYTES(ramp, n)) == 0 && r.bytes.size == n &&
			memcmp(r.bytes.data, ramp, n) == 0,
		"16 MiB go in and come out (64 KiB where the guest is interpreted)");
	husk_sandbox_value_clear(&r);
	CHECK(RIG_CALL(s, &r, "echo_bytes", BYTES(ramp, n + 8192)) == -EMSGSIZE &&
			husk_sandbox_state(s) == HUSK_SANDBOX_READY,
		"more than the input buffer takes is refused");
	husk_sandbox_free(s);
	free(ramp);
	config = with_print();
	config.output = 4096;
	s = rig_begin(image, &config);
	CHECK(s && RIG_CALL(s, &r, "ramp", U64(5000)) == -EREMOTEIO && husk_sandbox_state(s) == HUSK_SANDBOX_READY,
		"a result that the output buffer does not take is the guest's error");
	CHECK(RIG_CALL(s, &r, "ramp", U64(3000)) == 0 && r.bytes.size == 3000, "a smaller one arrives");
	husk_sandbox_value_clear(&r);
	husk_sandbox_free(s);
}

static void test_refusals(struct husk_sandbox *s)
{
	struct husk_sandbox_value many[HUSK_SANDBOX_ARGS_MAX + 1], r = {0};

	for (size_t i = 0; i < HUSK_SANDBOX_ARGS_MAX + 1; i++)
		many[i] = I64((int64_t)i + 1);
	CHECK(husk_sandbox_call(s, "most", many, HUSK_SANDBOX_ARGS_MAX, &r, NULL, &rig_error) == 0 && r.i64 == 11440,
		"32 arguments arrive, each in its place");
	CHECK(husk_sandbox_call(s, "most", many, HUSK_SANDBOX_ARGS_MAX + 1, &r, NULL, &rig_error) == -EINVAL &&
			strstr(rig_error.message, "33"),
		"33 are refused");
	CHECK(RIG_CALL(s, &r, "no_such_function") == -ENOENT && strstr(rig_error.message, "no_such_function"),
		"an unknown function is refused by name");
	CHECK(RIG_CALL(s, &r, "add", I32(1)) == -EINVAL, "too few arguments are refused");
	CHECK(RIG_CALL(s, &r, "add", I32(1), I32(2), I32(3)) == -EINVAL, "too many are");
	CHECK(RIG_CALL(s, &r, "add", I32(1), U32(2)) == -EINVAL && strstr(rig_error.message, "i32"),
		"and ones of another type");
	CHECK(RIG_CALL(s, &r, "") == -ENOENT, "no name is no function");
	CHECK(husk_sandbox_call(s, NULL, NULL, 0, &r, NULL, &rig_error) == -EINVAL, "nor is NULL");
	CHECK(RIG_CALL(s, &r, "add", I32(1), I32(2)) == 0 && r.i32 == 3, "it is ready after all that");
}

static void test_errors(struct husk_sandbox *s)
{
	struct husk_sandbox_value r = {.type = HUSK_SANDBOX_U64, .u64 = 99};

	CHECK(RIG_CALL(s, &r, "fail", I32(-5), STRING("so be it")) == -EREMOTEIO &&
			strstr(rig_error.message, "so be it"),
		"an error of the guest's function is told");
	struct husk_sandbox_report report = rig_report(s);
	CHECK(report.reason == HUSK_SANDBOX_GUEST_ERROR && report.code == -5 && strstr(report.message, "so be it"),
		"with its code");
	CHECK(r.u64 == 99, "the result is not touched");
	CHECK(husk_sandbox_state(s) == HUSK_SANDBOX_READY && RIG_U64_IS(s, 5, "echo_u64", U64(5)),
		"and poisons nothing");
	CHECK(rig_report(s).reason == HUSK_SANDBOX_FINE, "the report is of the last call");
}

/** Callers know the structs of their own time. */
static void test_sizes(struct husk_sandbox *s)
{
	struct {
		struct husk_sandbox_stats stats;
		uint64_t later[2];
	} longer = {.stats.size = sizeof(longer), .later = {1, 1}};
	struct husk_sandbox_stats all = rig_stats(s);
	struct husk_sandbox_stats shorter = {
		.size = offsetof(struct husk_sandbox_stats, guest_errors), .guest_errors = UINT64_MAX};
	struct husk_sandbox_report none = {0};

	CHECK(husk_sandbox_stats(s, &shorter, &rig_error) == 0 && all.calls > 0 && shorter.calls == all.calls &&
			shorter.guest_errors == UINT64_MAX,
		"a caller who knows only the first counts gets these and no more");
	CHECK(shorter.size == offsetof(struct husk_sandbox_stats, guest_errors), "of the size that it said");
	CHECK(husk_sandbox_stats(s, &longer.stats, &rig_error) == 0 && longer.stats.size == sizeof(longer) &&
			longer.stats.calls == all.calls && !longer.later[0] && !longer.later[1],
		"counts that the library does not know are 0");
	CHECK(husk_sandbox_report(s, &none, &rig_error) == -EINVAL &&
			strstr(rig_error.message, "sandbox_report has no size"),
		"a report without a size is refused");
	all.size = sizeof(all.size) - 1;
	CHECK(husk_sandbox_stats(s, &all, &rig_error) == -EINVAL &&
			strstr(rig_error.message, "sandbox_stats has no size") && RIG_U64_IS(s, 5, "echo_u64", U64(5)),
		"so are counts whose size has no room for itself, and the sandbox is ready still");
}

static void test_print(struct husk_sandbox *s)
{
	n_printed = 0;
	CHECK(RIG_CALL(s, NULL, "print", STRING("some text")) == 0 && strcmp(printed, "some text\n") == 0,
		"what it prints arrives");
	n_printed = 0;
	CHECK(RIG_CALL(s, NULL, "print_lines", U32(3)) == 0 &&
			strcmp(printed, "line 1 of 3\nline 2 of 3\nline 3 of 3\n") == 0,
		"in order");
	CHECK(RIG_U64_IS(s, 0, "heap_stress", U64(7), U32(300)), "its heap keeps what it is given");
}

/* ---- functions of the host's ---- */

static struct husk_sandbox *running;
static int misbehaved;

static int answer_number(void *data, const struct husk_sandbox_value *args, size_t n, struct husk_sandbox_value *result,
	struct husk_error *err)
{
	(void)data;
	if (n == 1 && args[0].type == HUSK_SANDBOX_I32 && args[0].i32 == -13) {
		*err = (struct husk_error){.code = -EACCES, .message = "unlucky"};
		return -EACCES;
	}
	if (n == 1 && args[0].type == HUSK_SANDBOX_I32 && args[0].i32 == -14) {
		result->type = HUSK_SANDBOX_U64;
		return 0;
	}
	if (n)
		*result = args[0];
	return 0;
}

static int answer_each(void *data, const struct husk_sandbox_value *a, size_t n, struct husk_sandbox_value *result,
	struct husk_error *err)
{
	(void)data;
	(void)n;
	(void)err;
	result->i64 = a[0].i32 + (int64_t)a[1].u32 + a[2].i64 + (int64_t)a[3].u64 + a[4].boolean +
		      (int64_t)a[5].bytes.size + (int64_t)a[6].bytes.size;
	return 0;
}

/** What a host function should not do. */
static int misbehave(void *data, const struct husk_sandbox_value *args, size_t n, struct husk_sandbox_value *result,
	struct husk_error *err)
{
	struct husk_error why;

	(void)n;
	(void)err;
	switch (args[0].i32) {
	case 1:
		misbehaved = husk_sandbox_call(running, "call_nothing", NULL, 0, NULL, NULL, &why);
		break;
	case 2:
		misbehaved = husk_sandbox_cancel(running, &why);
		break;
	case 3:
		misbehaved = husk_sandbox_destroy(running, &why);
		break;
	case 4:
		misbehaved = RIG_CALL((struct husk_sandbox *)data, NULL, "nothing");
		break;
	case 5: /* the caller's deadline is over before it returns */
		usleep(30000);
		break;
	}
	result->i32 = args[0].i32;
	return 0;
}

static int add(struct husk_sandbox *s, const char *name, enum husk_sandbox_type result,
	const enum husk_sandbox_type *args, size_t n, husk_sandbox_function *function, void *data)
{
	const struct husk_sandbox_signature signature = {
		.size = sizeof(signature), .name = name, .result = result, .args = args, .n_args = n};
	return husk_sandbox_add_function(s, &signature, function, data, &rig_error);
}

/** Add all that host.c needs but @except. */
static int add_all(
	struct husk_sandbox *s, struct husk_sandbox_image *image, const char *except, struct husk_sandbox *other)
{
	struct husk_sandbox_signature f = {.size = sizeof(f)};
	int rc = 0;

	for (size_t i = 0; rc == 0 && husk_sandbox_image_import(image, i, &f, NULL) == 0; i++) {
		husk_sandbox_function *function = strcmp(f.name, "host_misbehave") == 0     ? misbehave
						  : strcmp(f.name, "host_one_of_each") == 0 ? answer_each
											    : answer_number;
		if (strcmp(f.name, "print") != 0 && strcmp(f.name, except) != 0)
			rc = husk_sandbox_add_function(s, &f, function, other, &rig_error);
	}
	return rc;
}

static void test_registration(struct husk_sandbox_image *image)
{
	static const enum husk_sandbox_type i32[] = {HUSK_SANDBOX_I32}, u32[] = {HUSK_SANDBOX_U32};
	struct husk_sandbox *s;

	husk_sandbox_create(image, NULL, &s, &rig_error);
	CHECK(add_all(s, image, "host_u32", NULL) == 0, "functions are added");
	CHECK(add(s, "host_i32", HUSK_SANDBOX_I32, i32, 1, answer_number, NULL) == -EEXIST, "a name twice is refused");
	CHECK(add(s, "print", HUSK_SANDBOX_VOID, i32, 1, answer_number, NULL) == -EEXIST, "print is taken");
	CHECK(add(s, "no-name", HUSK_SANDBOX_VOID, NULL, 0, answer_number, NULL) == -EINVAL,
		"what is no name is refused");
	CHECK(add(s, "no_code", HUSK_SANDBOX_VOID, NULL, 0, NULL, NULL) == -EINVAL, "and a function without code");
	CHECK(husk_sandbox_start(s, &rig_error) == -ENOENT && strstr(rig_error.message, "u32 host_u32(u32)"),
		"a program that needs more does not start, and the message has the signature");
	CHECK(husk_sandbox_state(s) == HUSK_SANDBOX_DEAD, "the sandbox is dead then");
	husk_sandbox_free(s);
	husk_sandbox_create(image, NULL, &s, &rig_error);
	add_all(s, image, "host_u32", NULL);
	add(s, "host_u32", HUSK_SANDBOX_I32, u32, 1, answer_number, NULL);
	CHECK(husk_sandbox_start(s, &rig_error) == -EINVAL && strstr(rig_error.message, "i32 host_u32(u32)"),
		"nor does one with another signature");
	husk_sandbox_free(s);
}

static void test_host_values(struct husk_sandbox *s)
{
	struct husk_sandbox_value r = {0};

	CHECK(RIG_CALL(s, NULL, "call_nothing") == 0, "the guest calls the host");
	CHECK(RIG_CALL(s, &r, "call_i32", I32(-3)) == 0 && r.i32 == -3, "an i32 goes out and comes back");
	CHECK(RIG_CALL(s, &r, "call_u32", U32(3)) == 0 && r.u32 == 3, "a u32");
	CHECK(RIG_CALL(s, &r, "call_i64", I64(INT64_MIN)) == 0 && r.i64 == INT64_MIN, "an i64");
	CHECK(RIG_CALL(s, &r, "call_u64", U64(UINT64_MAX)) == 0 && r.u64 == UINT64_MAX, "a u64");
	CHECK(RIG_CALL(s, &r, "call_bool", BOOL(true)) == 0 && r.boolean, "a bool");
	CHECK(RIG_CALL(s, &r, "call_string", STRING("text")) == 0 && strcmp(r.bytes.data, "text") == 0, "a string");
	husk_sandbox_value_clear(&r);
	CHECK(RIG_CALL(s, &r, "call_bytes", BYTES("\0\1\0", 3)) == 0 && r.bytes.size == 3 &&
			memcmp(r.bytes.data, "\0\1\0", 3) == 0,
		"bytes");
	husk_sandbox_value_clear(&r);
	CHECK(RIG_CALL(s, &r, "call_one_of_each", I32(1), U32(2), I64(3), U64(4), BOOL(true), STRING("xx"),
		      BYTES("yyy", 3)) == 0 &&
			r.i64 == 16,
		"one of each");
	CHECK(RIG_CALL(s, &r, "call_often", U32(20)) == 0 && r.i64 == 210, "often");
	CHECK(RIG_CALL(s, &r, "arguments_stay", STRING("abc"), BYTES("def", 3)) == 0 && r.i32 == 1,
		"the call's own arguments stay as they are");
}

static void test_host_errors(struct husk_sandbox *s)
{
	struct husk_sandbox_value r = {0};

	CHECK(RIG_CALL(s, &r, "error_of", I32(-13)) == 0 && r.i32 == -EACCES && strstr(printed, "unlucky"),
		"an error of a host function is the guest's to deal with: code and message");
	CHECK(RIG_CALL(s, &r, "call_i32", I32(-13)) == -EREMOTEIO &&
			strstr(rig_error.message, "the host said: unlucky"),
		"or to pass on");
	CHECK(RIG_CALL(s, &r, "call_i32", I32(-14)) == -EREMOTEIO,
		"a result of another type than the signature's is an error, too");
	CHECK(husk_sandbox_state(s) == HUSK_SANDBOX_READY, "nothing of it poisons");
	CHECK(RIG_CALL(s, &r, "call_misbehave", I32(1)) == 0 && misbehaved == -EBUSY,
		"a host function cannot call its own sandbox");
	CHECK(RIG_CALL(s, &r, "call_misbehave", I32(3)) == 0 && misbehaved == -EBUSY, "nor destroy it");
	CHECK(RIG_CALL(s, &r, "call_misbehave", I32(4)) == 0 && misbehaved == 0, "but call another one");
	CHECK(RIG_CALL(s, &r, "call_misbehave", I32(2)) == -ECANCELED && misbehaved == 0,
		"and cancel the call that led to it");
	CHECK(rig_report(s).reason == HUSK_SANDBOX_CANCELED && husk_sandbox_state(s) == HUSK_SANDBOX_POISONED,
		"which poisons");
}

/** Arguments that leave no room for an answer but an error; a host that has no memory. */
static void test_host_room(struct husk_sandbox_image *image)
{
	static const char zeroes[4096];
	struct husk_sandbox_config config = with_print();
	struct husk_sandbox_value r = {0};
	struct rlimit was __attribute__((unused)), none __attribute__((unused)) = {0};
	struct husk_sandbox *s;
	size_t n = 4096;
	int rc;

	config.input = 4096;
	config.output = 9 << 20;
	config.heap = 10 << 20;
	husk_sandbox_create(image, &config, &s, &rig_error);
	if (!CHECK(add_all(s, image, "", NULL) == 0 && rig_start(s), "a sandbox with a small input buffer starts"))
		return;
	while ((rc = RIG_CALL(s, &r, "call_bytes", BYTES(zeroes, n))) == -EMSGSIZE && n)
		n--;
	CHECK(n > 3000 && rc == -EREMOTEIO && strstr(rig_error.message, "the host said") &&
			husk_sandbox_state(s) == HUSK_SANDBOX_READY,
		"when arguments leave no room for an answer, the guest is told so");
	CHECK(RIG_CALL(s, &r, "call_bytes", BYTES(zeroes, 1000)) == 0 && r.bytes.size == 1000, "fewer leave it room");
	husk_sandbox_value_clear(&r);
#ifndef __SANITIZE_ADDRESS__ /* which ends when it has no memory */
	getrlimit(RLIMIT_AS, &was);
	none.rlim_max = was.rlim_max;
	setrlimit(RLIMIT_AS, &none);
	rc = RIG_CALL(s, &r, "send_bytes", U64(8 << 20));
	setrlimit(RLIMIT_AS, &was);
	CHECK(rc == 0 && r.i64 == -ENOMEM && husk_sandbox_state(s) == HUSK_SANDBOX_READY,
		"and when the host has no memory for what a host function is given");
#endif
	husk_sandbox_free(s);
}

static void test_host_deadline(struct husk_sandbox *s)
{
	struct husk_sandbox_call_options options;
	const struct husk_sandbox_value what = I32(5);

	husk_sandbox_call_options_init(&options);
	options.deadline_ns = 20000000;
	CHECK(husk_sandbox_call(s, "call_misbehave", &what, 1, NULL, &options, &rig_error) == -ETIMEDOUT,
		"a deadline that passes in a host function counts when that returns");
}

/* ---- states ---- */

static void *call_from_here(void *data)
{
	static int rc;

	rc = husk_sandbox_call(data, "nothing", NULL, 0, NULL, NULL, NULL);
	return &rc;
}

static void test_states(struct husk_sandbox_image *image)
{
	struct husk_sandbox *s;
	pthread_t thread;
	void *rc;

	husk_sandbox_create(image, NULL, &s, &rig_error);
	CHECK(husk_sandbox_state(s) == HUSK_SANDBOX_CONFIGURED && RIG_CALL(s, NULL, "nothing") == -EINVAL,
		"what is not started cannot be called");
	CHECK(rig_start(s) && husk_sandbox_state(s) == HUSK_SANDBOX_READY, "started, it is ready");
	CHECK(husk_sandbox_start(s, &rig_error) == -EINVAL, "it starts once");
	CHECK(add(s, "late", HUSK_SANDBOX_VOID, NULL, 0, answer_number, NULL) == -EINVAL, "functions come before");
	pthread_create(&thread, NULL, call_from_here, s);
	pthread_join(thread, &rc);
	CHECK(*(int *)rc == 0, "another thread may call it");
	CHECK(husk_sandbox_cancel(s, &rig_error) == -ESRCH, "there is nothing to cancel");
	CHECK(RIG_CALL(s, NULL, "abort_with", I32(77), STRING("enough")) == -ECONNABORTED &&
			strstr(rig_error.message, "enough"),
		"an abort is told");
	CHECK(rig_report(s).reason == HUSK_SANDBOX_ABORT && rig_report(s).code == 77, "with its code");
	CHECK(husk_sandbox_state(s) == HUSK_SANDBOX_POISONED && RIG_CALL(s, NULL, "nothing") == -ENOTRECOVERABLE,
		"and poisons: it cannot be called any more");
	CHECK(husk_sandbox_destroy(s, &rig_error) == 0 && husk_sandbox_state(s) == HUSK_SANDBOX_DEAD,
		"it can be destroyed");
	CHECK(RIG_CALL(s, NULL, "nothing") == -ESHUTDOWN && husk_sandbox_destroy(s, &rig_error) == -ESHUTDOWN &&
			husk_sandbox_start(s, &rig_error) == -ESHUTDOWN,
		"then everything is refused");
	husk_sandbox_free(s);
}

static void test_config(struct husk_sandbox_image *image)
{
	static const struct {
		size_t at;
		uint64_t value;
		const char *name;
	} bad[] = {
		{offsetof(struct husk_sandbox_config, stack), 4095, "stack"},
		{offsetof(struct husk_sandbox_config, stack), (64 << 20) + 1, "stack"},
		{offsetof(struct husk_sandbox_config, heap), (4ull << 30) + 1, "heap"},
		{offsetof(struct husk_sandbox_config, input), 0, "input"},
		{offsetof(struct husk_sandbox_config, output), UINT64_MAX, "output"},
	};
	struct husk_sandbox_config config;
	struct husk_sandbox *s;
	char what[64];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		husk_sandbox_config_init(&config);
		memcpy((char *)&config + bad[i].at, &bad[i].value, sizeof(bad[i].value));
		snprintf(what, sizeof(what), "%s: a size that cannot be is refused by name", bad[i].name);
		CHECK(husk_sandbox_create(image, &config, &s, &rig_error) == -ERANGE &&
				strstr(rig_error.message, bad[i].name),
			what);
	}
	husk_sandbox_config_init(&config);
	config.kick_signal = SIGTERM;
	CHECK(husk_sandbox_create(image, &config, &s, &rig_error) == -EINVAL, "the kick has to be a real-time signal");
	husk_sandbox_config_init(&config);
	config.heap = 0;
	config.stack = config.input = config.output = 4096;
	s = rig_begin(image, &config);
	CHECK(s && RIG_CALL(s, NULL, "nothing") == 0, "the smallest sizes do");
	husk_sandbox_free(s);
	config.heap = 4ull << 30;
	s = rig_begin(image, &config);
	CHECK(s && RIG_CALL(s, NULL, "nothing") == 0, "and a heap of 4 GiB, of which nothing is used");
	husk_sandbox_free(s);
}

static void test_leaks(struct husk_sandbox_image *image)
{
	int before = (int)count_descriptors();
	bool ok = true;

	for (int i = 0; i < 30; i++) {
		struct husk_sandbox *s = rig_begin(image, NULL);
		ok &= s && RIG_CALL(s, NULL, "nothing") == 0;
		husk_sandbox_free(s);
	}
	CHECK(ok && (int)count_descriptors() == before, "thirty sandboxes leave no descriptor behind");
}

int main(int argc, char **argv)
{
	rig_need(argc);
	struct husk_sandbox_image *basic = rig_load(argv[1], "basic"), *host = rig_load(argv[1], "host");
	struct husk_sandbox_config config = with_print();
	struct husk_sandbox *s = rig_begin(basic, &config), *other = rig_begin(basic, &config);

	if (!CHECK(s && other, "a sandbox starts"))
		return tap_done();
	test_numbers(s);
	test_bytes(s);
	test_large(basic);
	test_refusals(s);
	test_errors(s);
	test_sizes(s);
	test_print(s);
	test_registration(host);
	for (int round = 0; round < 2; round++) {
		husk_sandbox_create(host, &config, &running, &rig_error);
		if (!CHECK(add_all(running, host, "", other) == 0 && rig_start(running),
			    "a program that needs the host's functions starts"))
			return tap_done();
		if (round == 0) {
			test_host_values(running);
			test_host_errors(running);
		} else {
			test_host_deadline(running);
		}
		husk_sandbox_free(running);
	}
	test_states(basic);
	test_config(basic);
	test_host_room(host);
	husk_sandbox_free(s);
	husk_sandbox_free(other);
	test_leaks(basic);
	husk_sandbox_image_free(basic);
	husk_sandbox_image_free(host);
	return tap_done();
}
