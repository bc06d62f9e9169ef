/* SPDX-License-Identifier: Apache-2.0 */
/* guest-test.c - the runtime of sandbox programs, as compiled for them, run natively (native.h): calls, host calls,
 * errors, heap, cost */
#include "native.h"
#include "tests/sandbox/literals.h"
#include "tests/tap.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>

#define VALUES(...) ((struct husk_sandbox_value[]){__VA_ARGS__})

static const char *guests; /* the directory */

static bool start(struct native *native, const char *name, native_host *host)
{
	char path[512];

	*native = (struct native){.host = host, .config = native->config};
	snprintf(path, sizeof(path), "%s/%s.elf", guests, name);
	if (!CHECK(native_load(native, path, NULL, 0), "the program is loaded"))
		printf("# %s\n", native->err.message);
	return native->pid > 0;
}

static bool start_ready(struct native *native, const char *name, native_host *host)
{
	return start(native, name, host) &&
	       CHECK(native_finish(native).signal == SANDBOX_READY, "the program is ready");
}

/** Call what returns one value, by its bits; ~0 when it does not return. */
static uint64_t number(struct native *native, const char *name, const struct husk_sandbox_value *args, size_t n)
{
	struct codec_values result = {0};
	uint64_t bits = ~0ull;

	if (native_call(native, name, args, n, &result).signal == SANDBOX_RETURN && result.n == 1)
		bits = result.values[0].type == HUSK_SANDBOX_I64 || result.values[0].type == HUSK_SANDBOX_U64
			       ? result.values[0].u64
		       : result.values[0].type == HUSK_SANDBOX_BOOL ? result.values[0].boolean
								    : result.values[0].u32;
	codec_values_clear(&result);
	return bits;
}

/** Does echo_TYPE, or another function, give @want for @arg? */
static bool echoes(
	struct native *native, const char *name, struct husk_sandbox_value arg, struct husk_sandbox_value want)
{
	struct codec_values result = {0};
	bool same = native_call(native, name, &arg, 1, &result).signal == SANDBOX_RETURN && result.n == 1 &&
		    result.values[0].type == want.type;

	if (same && (want.type == HUSK_SANDBOX_STRING || want.type == HUSK_SANDBOX_BYTES))
		same = result.values[0].bytes.size == want.bytes.size &&
		       (!want.bytes.size || memcmp(result.values[0].bytes.data, want.bytes.data, want.bytes.size) == 0);
	else if (same && want.type == HUSK_SANDBOX_BOOL)
		same = result.values[0].boolean == want.boolean;
	else if (same)
		same = memcmp(&result.values[0].u64, &want.u64,
			       want.type == HUSK_SANDBOX_I64 || want.type == HUSK_SANDBOX_U64 ||
					       want.type == HUSK_SANDBOX_F64
				       ? 8
				       : 4) == 0;
	codec_values_clear(&result);
	return same;
}

static void test_values(void)
{
	struct native native = {0};
	struct husk_sandbox_value most[32];
	static unsigned char ramp[100000];

	if (!start_ready(&native, "basic", NULL))
		return;
	CHECK(number(&native, "initialized", NULL, 0) == 11, "constructors and husk_init() have run, once each");
	for (int i = 0; i < 2; i++) { /* the second round finds what the first left behind */
		CHECK(echoes(&native, "echo_i32", I32(INT32_MIN), I32(INT32_MIN)), "i32");
		CHECK(echoes(&native, "echo_u32", U32(UINT32_MAX), U32(UINT32_MAX)), "u32");
		CHECK(echoes(&native, "echo_i64", I64(INT64_MIN), I64(INT64_MIN)), "i64");
		CHECK(echoes(&native, "echo_u64", U64(UINT64_MAX), U64(UINT64_MAX)), "u64");
		CHECK(echoes(&native, "echo_bool", BOOL(true), BOOL(true)), "true");
		CHECK(echoes(&native, "echo_bool", BOOL(false), BOOL(false)), "false");
		CHECK(echoes(&native, "echo_string", STRING("ä string"), STRING("ä string")), "string");
		CHECK(echoes(&native, "echo_string", STRING(""), STRING("")), "an empty string");
		CHECK(echoes(&native, "echo_bytes", BYTES("a\0b", 4), BYTES("a\0b", 4)), "bytes");
		CHECK(echoes(&native, "echo_bytes", BYTES(NULL, 0), BYTES(NULL, 0)), "no bytes");
	}
	CHECK(echoes(&native, "hello", STRING("seed"), STRING("hello, seed")), "text is formatted");
	CHECK(number(&native, "one_of_each",
		      VALUES(I32(-1), U32(2), I64(-3), U64(4), BOOL(true), STRING("12345"), BYTES("123456", 6)),
		      7) == 14,
		"one argument of each type");
	uint64_t want = 0;
	for (int i = 0; i < 32; i++) {
		most[i] = I64((i + 1) * 1000);
		want += (uint64_t)(i + 1) * (i + 1) * 1000;
	}
	CHECK(number(&native, "most", most, 32) == want, "32 arguments, in their order");
	for (size_t i = 0; i < sizeof(ramp); i++)
		ramp[i] = (unsigned char)i;
	CHECK(number(&native, "is_ramp", VALUES(BYTES(ramp, sizeof(ramp))), 1) == 1, "many bytes in");
	CHECK(echoes(&native, "ramp", U64(sizeof(ramp)), BYTES(ramp, sizeof(ramp))), "many bytes out");
	CHECK(number(&native, "counter", VALUES(U64(5)), 1) == 1005 &&
			number(&native, "counter", VALUES(U64(5)), 1) == 1010,
		"statics keep their values");
	native_end(&native);
}

static bool divides(struct native *native, unsigned __int128 n, unsigned __int128 d)
{
	const unsigned __int128 results[] = {n / d, n % d, (unsigned __int128)((__int128)n / (__int128)d),
		(unsigned __int128)((__int128)n % (__int128)d)};

	for (uint32_t which = 0; which < 8; which++) {
		uint64_t got = number(native, "divide_wide",
			VALUES(U64((uint64_t)(n >> 64)), U64((uint64_t)n), U64((uint64_t)(d >> 64)), U64((uint64_t)d),
				U32(which)),
			5);
		if (got != (uint64_t)(results[which / 2] >> 64 * (which & 1)))
			return false;
	}
	return true;
}

/** What compilers leave to a library. */
static void test_wide(void)
{
	struct native native = {0};
	uint64_t seed = 1;
	bool right = true;

	if (!start_ready(&native, "basic", NULL))
		return;
	for (int i = 0; i < 300; i++) {
		unsigned __int128 two[2];
		for (int k = 0; k < 2; k++) {
			seed = seed * 6364136223846793005ull + 1442695040888963407ull;
			two[k] = (unsigned __int128)seed << 64 | seed * 0x9e3779b97f4a7c15;
			two[k] >>= seed >> 20 & 127;
		}
		right = right && (!two[1] || divides(&native, two[0], two[1]));
	}
	CHECK(right, "numbers of 128 bits are divided");
	CHECK(divides(&native, ~(unsigned __int128)0, ~(unsigned __int128)0 >> 1) &&
			divides(&native, 5, ~(unsigned __int128)0),
		"also the largest ones");
	CHECK(number(&native, "count_bits", VALUES(U64(0xf0f0000000000001)), 1) == 9 &&
			number(&native, "count_bits", VALUES(U64(UINT64_MAX)), 1) == 64 &&
			number(&native, "count_bits", VALUES(U64(0)), 1) == 0,
		"bits are counted");
	native_end(&native);
}

static void test_errors(void)
{
	struct native native = {.config = {0}};

	husk_sandbox_config_init(&native.config);
	native.config.size = sizeof(native.config);
	native.config.output = 8192;
	if (!start_ready(&native, "basic", NULL))
		return;
	CHECK(native_call(&native, "fail", VALUES(I32(-7), STRING("no luck")), 2, NULL).signal == SANDBOX_FAIL &&
			native.code == -7,
		"a function fails, with its code");
	CHECK_STRING(native.message, "no luck", "and with its message");
	CHECK(number(&native, "add", VALUES(I32(2), I32(3)), 2) == 5, "the next call does not");
	char longer[1000];
	memset(longer, 'x', sizeof(longer) - 1);
	longer[999] = 0;
	CHECK(native_call(&native, "fail", VALUES(I32(1), STRING(longer)), 2, NULL).signal == SANDBOX_FAIL &&
			strlen(native.message) == SANDBOX_MESSAGE_MAX,
		"a message that is too long is cut");
	CHECK(number(&native, "is_ramp", VALUES(BYTES("\0\1\2", 3)), 1) == 1, "and nothing behind it was overwritten");
	CHECK(native_call(&native, "ramp", VALUES(U64(8192 - 31)), 1, NULL).signal == SANDBOX_FAIL &&
			native.code == -90,
		"a result that is larger than the output buffer is an error");
	struct codec_values result = {0};
	CHECK(native_call(&native, "ramp", VALUES(U64(8192 - 32)), 1, &result).signal == SANDBOX_RETURN &&
			result.values[0].bytes.size == 8192 - 32,
		"one that just fits is none");
	codec_values_clear(&result);
	CHECK(native_call(&native, "print_long", VALUES(U64(20000)), 1, NULL).signal == SANDBOX_RETURN &&
			native.n_printed == 4095,
		"a text that is larger than the output buffer is cut");
	CHECK(native_call(&native, "abort_with", VALUES(I32(9), STRING("enough")), 2, NULL).signal == SANDBOX_ABORT &&
			native.code == 9,
		"a program aborts");
	CHECK_STRING(native.message, "enough", "with its message");
	native_end(&native);
}

/** Each ends the program: what it says, or the process's signal. */
static const struct {
	const char *function;
	struct husk_sandbox_value args[2];
	size_t n;
	int fault;
	const char *message;
} ends[] = {
	{"double_free", {{0}}, 0, 0, "free(0x"},
	{"overrun", {{0}}, 0, 0, "the heap is damaged at 0x"},
	{"smash_stack", {{.type = HUSK_SANDBOX_U64, .u64 = 64}}, 1, 0, "a function wrote beyond its part of the stack"},
	{"recurse", {{.type = HUSK_SANDBOX_U64}}, 1, SIGSEGV, NULL},
	{"divide", {{.type = HUSK_SANDBOX_I32, .i32 = 1}, {.type = HUSK_SANDBOX_I32}}, 2, SIGFPE, NULL},
	{"ud2", {{0}}, 0, SIGILL, NULL},
	{"poke", {{.type = HUSK_SANDBOX_U64}, {.type = HUSK_SANDBOX_U64}}, 2, SIGSEGV, NULL},
	{"write_code", {{0}}, 0, SIGSEGV, NULL},
	{"write_constant", {{0}}, 0, SIGSEGV, NULL},
	{"run_data", {{0}}, 0, SIGSEGV, NULL},
	{"run_stack", {{0}}, 0, SIGSEGV, NULL},
	{"halt", {{0}}, 0, SIGSEGV, NULL},
	{"scribble", {{.type = HUSK_SANDBOX_U32}}, 1, SIGSEGV, NULL},
};

static void test_ends(void)
{
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		struct native native = {0};
		if (!start_ready(&native, "basic", NULL))
			return;
		struct native_exit exit = native_call(&native, ends[i].function, ends[i].args, ends[i].n, NULL);
		bool as_said = ends[i].message
				       ? exit.signal == SANDBOX_ABORT &&
						 strncmp(native.message, ends[i].message, strlen(ends[i].message)) == 0
				       : exit.signal == 0 && exit.fault == ends[i].fault;
		if (!CHECK(as_said, ends[i].function))
			printf("# signal %u, fault %d, '%s', %s\n", exit.signal, exit.fault, native.message,
				native.err.message);
		native_end(&native);
	}
}

/** Frames that are not for the program: host and program were built apart. */
static void test_mismatch(void)
{
	static const struct {
		const char *what;
		uint32_t which, n, type;
		const char *message;
	} frames[] = {
		{"a function that is not there", 100000, 0, 0, "call of function number 100000"},
		{"too few arguments", 0, 1, SANDBOX_I32, "with 1 arguments, which takes 2"},
		{"an argument of another type", 0, 2, SANDBOX_U32, "argument 1 is of type 2, not 1"},
	};

	for (size_t i = 0; i < sizeof(frames) / sizeof(frames[0]); i++) {
		struct native native = {0};
		if (!start_ready(&native, "basic", NULL))
			return;
		struct sandbox_frame *frame = (struct sandbox_frame *)native.input;
		*frame = (struct sandbox_frame){
			.which = frames[i].which ? frames[i].which : (uint32_t)image_find_export(native.image, "add"),
			.n = frames[i].n,
			.size = sizeof(*frame) + frames[i].n * sizeof(frame->slots[0]),
		};
		for (uint32_t k = 0; k < frames[i].n; k++)
			frame->slots[k] = (struct sandbox_slot){.type = frames[i].type, .value = 1};
		struct native_exit exit = native_finish(&native);
		if (!CHECK(exit.signal == SANDBOX_ABORT && strstr(native.message, frames[i].message), frames[i].what))
			printf("# signal %u, '%s'\n", exit.signal, native.message);
		native_end(&native);
	}
}

static int32_t answer_host(struct native *native, const struct signature *import, const struct codec_values *args,
	struct husk_sandbox_value *result, char message[64])
{
	(void)native;
	if (strcmp(import->name, "host_nothing") == 0)
		return 0;
	if (args->values[0].type == HUSK_SANDBOX_I32 && args->values[0].i32 == 404) {
		snprintf(message, 64, "not found");
		return -2;
	}
	*result = args->values[0];
	if (strcmp(import->name, "host_one_of_each") == 0)
		*result = I64(args->values[0].i32 + (int64_t)args->values[5].bytes.size * 100 +
			      (int64_t)args->values[6].bytes.size * 10000);
	return 0;
}

static void test_host_calls(void)
{
	struct native native = {0};

	if (!start_ready(&native, "host", answer_host))
		return;
	CHECK(echoes(&native, "call_i32", I32(-5), I32(-5)), "i32 to the host and back");
	CHECK(echoes(&native, "call_u32", U32(UINT32_MAX), U32(UINT32_MAX)), "u32");
	CHECK(echoes(&native, "call_i64", I64(INT64_MIN), I64(INT64_MIN)), "i64");
	CHECK(echoes(&native, "call_u64", U64(UINT64_MAX), U64(UINT64_MAX)), "u64");
	CHECK(echoes(&native, "call_bool", BOOL(true), BOOL(true)), "bool");
	CHECK(echoes(&native, "call_string", STRING("text"), STRING("text")), "string");
	CHECK(echoes(&native, "call_bytes", BYTES("b\0c", 3), BYTES("b\0c", 3)), "bytes");
	CHECK(native_call(&native, "call_nothing", NULL, 0, NULL).signal == SANDBOX_RETURN, "nothing");
	CHECK(number(&native, "call_one_of_each",
		      VALUES(I32(7), U32(2), I64(3), U64(4), BOOL(true), STRING("ab"), BYTES("cde", 3)), 7) == 30207,
		"one argument of each type to the host");
	CHECK(native_call(&native, "call_i32", VALUES(I32(404)), 1, NULL).signal == SANDBOX_FAIL && native.code == -2,
		"the host's error reaches the program, and is passed on");
	CHECK_STRING(native.message, "the host said: not found", "with its message");
	CHECK(number(&native, "error_of", VALUES(I32(404)), 1) == (uint32_t)-2,
		"the program can live on with the host's error");
	CHECK(number(&native, "error_of", VALUES(I32(5)), 1) == 0, "no error is no error");
	CHECK(number(&native, "arguments_stay", VALUES(STRING("stays"), BYTES("stays, too", 10)), 2) == 1,
		"a reply does not overwrite the call");
	CHECK(number(&native, "call_often", VALUES(U32(100)), 1) == 5050, "many host calls in one call");
	CHECK(number(&native, "send_bytes", VALUES(U64(100000)), 1) == 100000, "many bytes to the host and back");
	native_end(&native);
}

static void test_floats(void)
{
	struct native native = {0};
	struct husk_sandbox_value ten[10];

	if (!start_ready(&native, "floats", NULL))
		return;
	CHECK(echoes(&native, "echo_f32", F32(-1.5f), F32(-1.5f)), "f32");
	CHECK(echoes(&native, "echo_f64", F64(-0.0), F64(-0.0)), "f64");
	CHECK(echoes(&native, "divide", VALUES(F64(1))[0], F64(0)) == false, "(a call with too few arguments is none)");
	struct codec_values result = {0};
	for (int i = 0; i < 10; i++)
		ten[i] = i < 9 ? F64(i + 0.25) : F32(100.5f);
	CHECK(native_call(&native, "sum_of_ten", ten, 10, &result).signal == SANDBOX_RETURN &&
			result.values[0].f64 == 138.75,
		"more of them than fit into registers");
	codec_values_clear(&result);
	CHECK(echoes(&native, "text_of", F64(-3.14159), STRING("-3.142")), "floating point is formatted");
	native_end(&native);
}

static void test_heap(void)
{
	struct native native = {0};

	if (!start_ready(&native, "basic", NULL))
		return;
	uint64_t before = number(&native, "heap_most", NULL, 0);
	CHECK(before > native.config.heap - 4096 && before < native.config.heap,
		"one block can be nearly the whole heap");
	for (uint64_t seed = 1; seed <= 5; seed++)
		CHECK(number(&native, "heap_stress", VALUES(U64(seed), U32(20000)), 2) == 0, "blocks keep their bytes");
	CHECK(number(&native, "heap_most", NULL, 0) == before, "everything came together again");
	CHECK(native_call(&native, "touch", VALUES(U32(10), U32(77)), 2, NULL).signal == SANDBOX_RETURN &&
			number(&native, "touched", VALUES(U32(9)), 1) == 77,
		"aligned blocks");
	CHECK(native_call(&native, "ramp", VALUES(U64(1ull << 40)), 1, NULL).signal == SANDBOX_FAIL &&
			native.code == 12,
		"no memory is NULL");
	native_end(&native);
}

static void test_print(void)
{
	struct native native = {0};

	if (!start_ready(&native, "basic", NULL))
		return;
	CHECK(native_call(&native, "print", VALUES(STRING("words")), 1, NULL).signal == SANDBOX_RETURN, "print");
	CHECK(native_call(&native, "print_lines", VALUES(U32(2)), 1, NULL).signal == SANDBOX_RETURN, "print lines");
	CHECK_STRING(native.printed, "words\nline 1 of 2\nline 2 of 2\n", "what was printed");
	native_end(&native);
}

static void test_shared(void)
{
	static const struct sandbox_named names[] = {
		{.name = "window", .at = SANDBOX_REGIONS, .size = 1024, .rights = 15},
		{.name = "hidden", .at = SANDBOX_REGIONS, .size = 1024, .rights = 3},
		{.name = "credit", .at = SANDBOX_REGIONS + 2048, .size = 8, .rights = 15, .cell = 1},
	};
	struct native native = {0};
	char path[512];

	snprintf(path, sizeof(path), "%s/basic.elf", guests);
	if (!CHECK(native_load(&native, path, names, 3) && native_finish(&native).signal == SANDBOX_READY,
		    "a program with names"))
		return;
	CHECK(number(&native, "region_size", VALUES(STRING("window")), 1) == 1024, "a region is found by its name");
	CHECK(number(&native, "region_size", VALUES(STRING("credit")), 1) == 0, "a cell is no region");
	CHECK(number(&native, "region_size", VALUES(STRING("hidden")), 1) == 0, "what it may not read is not there");
	native.shared[7] = 42;
	CHECK(number(&native, "region_read", VALUES(STRING("window"), U64(7)), 2) == 42,
		"the program reads what the host wrote");
	CHECK(native_call(&native, "region_write", VALUES(STRING("window"), U64(8), U32(43)), 3, NULL).signal ==
				SANDBOX_RETURN &&
			native.shared[8] == 43,
		"and the host what the program wrote");
	CHECK(native_call(&native, "region_read", VALUES(STRING("window"), U64(1024)), 2, NULL).signal == SANDBOX_FAIL,
		"its end");
	CHECK(native_call(&native, "cell_store", VALUES(STRING("credit"), U64(1ull << 60)), 2, NULL).signal ==
				SANDBOX_RETURN &&
			number(&native, "cell_load", VALUES(STRING("credit")), 1) == 1ull << 60,
		"a cell is stored and loaded");
	CHECK(native_call(&native, "cell_load", VALUES(STRING("window")), 1, NULL).signal == SANDBOX_FAIL,
		"a region is no cell");
	native_end(&native);
}

static void test_early(void)
{
	static const struct {
		const char *program;
		uint32_t signal;
		int fault;
		int32_t code;
	} early[] = {
		{"early-return", SANDBOX_RETURN, 0, 0}, {"early-fail", SANDBOX_ABORT, 0, 33},
		{"early-abort", SANDBOX_ABORT, 0, 34}, {"early-fault", 0, SIGILL, 0},
		{"early-call", SANDBOX_ABORT, 0, 35}, /* the host answers 7 */
	};

	for (size_t i = 0; i < sizeof(early) / sizeof(early[0]); i++) {
		struct native native = {0};
		if (!start(&native, early[i].program, answer_host))
			return;
		struct native_exit exit = native_finish(&native);
		CHECK(exit.signal == early[i].signal && exit.fault == early[i].fault && native.code == early[i].code,
			early[i].program);
		native_end(&native);
	}
}

/** From the host's entry to the next `out`, both counted. */
static void test_cost(void)
{
	struct native native = {0};

	if (!start_ready(&native, "basic", NULL))
		return;
	native_call(&native, "nothing", NULL, 0, NULL);
	native.count = true;
	struct native_exit exit = native_call(&native, "nothing", NULL, 0, NULL);
	printf("# an empty function: %llu instructions\n", (unsigned long long)exit.steps);
	CHECK(exit.signal == SANDBOX_RETURN && exit.steps > 10 && exit.steps <= 200,
		"call and return of an empty function take at most 200 instructions");
	exit = native_call(&native, "add", VALUES(I32(1), I32(2)), 2, NULL);
	printf("# two numbers and a result: %llu instructions\n", (unsigned long long)exit.steps);
	CHECK(exit.signal == SANDBOX_RETURN && exit.steps <= 200, "and so does one with two numbers and a result");
	native_end(&native);
}

int main(int argc, char **argv)
{
	guests = argc > 1 ? argv[1] : "tests/sandbox/guests";
	test_values();
	test_wide();
	test_errors();
	test_ends();
	test_mismatch();
	test_host_calls();
	test_floats();
	test_heap();
	test_print();
	test_shared();
	test_early();
	test_cost();
	return tap_done();
}
