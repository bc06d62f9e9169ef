/* SPDX-License-Identifier: Apache-2.0 */
/* values-test.c - values of sandbox functions as words of the command line: read, and printed */
#include "base/cleanup.h"
#include "cli/cli.h"
#include "cli/sandbox_values.h"
#include "tests/tap.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/** A word, and what it is printed as once it was read; NULL: the reason why it is refused, and its code. */
static const struct {
	enum husk_sandbox_type type;
	const char *word, *printed;
	int code;
	const char *reason;
} words[] = {
	{HUSK_SANDBOX_I32, "0", "0\n"},
	{HUSK_SANDBOX_I32, "-0", "0\n"},
	{HUSK_SANDBOX_I32, "010", "10\n"}, /* decimal, whatever C thinks */
	{HUSK_SANDBOX_I32, "2147483647", "2147483647\n"},
	{HUSK_SANDBOX_I32, "2147483648", NULL, -ERANGE, "2147483648 is out of range for i32"},
	{HUSK_SANDBOX_I32, "-2147483648", "-2147483648\n"},
	{HUSK_SANDBOX_I32, "-2147483649", NULL, -ERANGE, "-2147483649 is out of range for i32"},
	{HUSK_SANDBOX_I32, "0x7fffffff", "2147483647\n"},
	{HUSK_SANDBOX_I32, "-0x80000000", "-2147483648\n"},
	{HUSK_SANDBOX_I32, "", NULL, -EINVAL, "'' is not a whole number"},
	{HUSK_SANDBOX_I32, "-", NULL, -EINVAL, "'-' is not a whole number"},
	{HUSK_SANDBOX_I32, "0x", NULL, -EINVAL, "'0x' is not a whole number"},
	{HUSK_SANDBOX_I32, "+1", NULL, -EINVAL, "'+1' is not a whole number"},
	{HUSK_SANDBOX_I32, " 1", NULL, -EINVAL, "' 1' is not a whole number"},
	{HUSK_SANDBOX_I32, "1.5", NULL, -EINVAL, "'1.5' is not a whole number"},
	{HUSK_SANDBOX_I32, "--1", NULL, -EINVAL, "'--1' is not a whole number"},
	{HUSK_SANDBOX_U32, "4294967295", "4294967295\n"},
	{HUSK_SANDBOX_U32, "0xFFFFFFFF", "4294967295\n"},
	{HUSK_SANDBOX_U32, "4294967296", NULL, -ERANGE, "4294967296 is out of range for u32"},
	{HUSK_SANDBOX_U32, "-1", NULL, -ERANGE, "-1 is out of range for u32"},
	{HUSK_SANDBOX_I64, "9223372036854775807", "9223372036854775807\n"},
	{HUSK_SANDBOX_I64, "9223372036854775808", NULL, -ERANGE, "9223372036854775808 is out of range for i64"},
	{HUSK_SANDBOX_I64, "-9223372036854775808", "-9223372036854775808\n"},
	{HUSK_SANDBOX_I64, "-9223372036854775809", NULL, -ERANGE, "-9223372036854775809 is out of range for i64"},
	{HUSK_SANDBOX_U64, "18446744073709551615", "18446744073709551615\n"},
	{HUSK_SANDBOX_U64, "18446744073709551616", NULL, -ERANGE, "18446744073709551616 is out of range for u64"},
	{HUSK_SANDBOX_U64, "0xffffffffffffffff", "18446744073709551615\n"},
	{HUSK_SANDBOX_U64, "0x10000000000000000", NULL, -ERANGE, "0x10000000000000000 is out of range for u64"},
	{HUSK_SANDBOX_F32, "0.1", "0.1\n"},
	{HUSK_SANDBOX_F32, "1e39", NULL, -ERANGE, "1e39 is out of range for f32"},
	{HUSK_SANDBOX_F32, "inf", "inf\n"},
	{HUSK_SANDBOX_F32, "16777217", "16777216\n"}, /* what a float can be */
	{HUSK_SANDBOX_F64, "-0.1", "-0.1\n"},
	{HUSK_SANDBOX_F64, "1e-320", "9.99989e-321\n"},
	{HUSK_SANDBOX_F64, "0.30000000000000004", "0.30000000000000004\n"},
	{HUSK_SANDBOX_F64, "1e309", NULL, -ERANGE, "1e309 is out of range for f64"},
	{HUSK_SANDBOX_F64, "one", NULL, -EINVAL, "'one' is not a number"},
	{HUSK_SANDBOX_F64, "1 ", NULL, -EINVAL, "'1 ' is not a number"},
	{HUSK_SANDBOX_F64, "", NULL, -EINVAL, "'' is not a number"},
	{HUSK_SANDBOX_BOOL, "true", "true\n"},
	{HUSK_SANDBOX_BOOL, "false", "false\n"},
	{HUSK_SANDBOX_BOOL, "1", NULL, -EINVAL, "'1' is neither true nor false"},
	{HUSK_SANDBOX_STRING, "", "\n"},
	{HUSK_SANDBOX_STRING, "@none", "@none\n"},
	{HUSK_SANDBOX_BYTES, "as they are", "as they are"},
	{HUSK_SANDBOX_BYTES, "@/none", NULL, -ENOENT, "open /none: No such file or directory"},
	{HUSK_SANDBOX_BYTES, "@/", NULL, -EISDIR, "read /: Is a directory"},
	{HUSK_SANDBOX_VOID, "x", NULL, -EINVAL, "no value can be of type 0"},
};

static void test_words(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		struct husk_sandbox_value value;
		struct husk_error err = {0};
		CLEANUP_FREE char *text = NULL;
		CLEANUP_FREE void *owned = NULL;
		size_t n;
		int rc = sandbox_value_parse(words[i].word, words[i].type, &value, &owned, &err);
		if (words[i].printed) {
			FILE *out = open_memstream(&text, &n);
			if (rc == 0)
				sandbox_value_print(out, &value, false);
			fclose(out);
			CHECK_STRING(text, words[i].printed, words[i].word);
		} else {
			CHECK(rc == words[i].code, words[i].word);
			CHECK_STRING(err.message, words[i].reason, "and why");
		}
	}
}

static void test_file(void)
{
	char path[] = "/tmp/husk-values-XXXXXX", word[64];
	struct husk_sandbox_value value;
	struct husk_error err;
	CLEANUP_FREE void *owned = NULL;
	CLEANUP_FD int fd = mkstemp(path);

	CHECK(write(fd, "a\0b\n", 4) == 4, "a file with a NUL");
	snprintf(word, sizeof(word), "@%s", path);
	CHECK(sandbox_value_parse(word, HUSK_SANDBOX_BYTES, &value, &owned, &err) == 0 && value.bytes.size == 4 &&
			memcmp(value.bytes.data, "a\0b\n", 4) == 0 && owned,
		"is read as bytes");
	unlink(path);
}

static void test_terminal(void)
{
	static const char hostile[] = "a\033[2Jb\tc\r\n\177\303\244\302\2331m\302\240\302";
	CLEANUP_FREE char *shown = NULL, *raw = NULL;
	size_t n;
	FILE *out = open_memstream(&shown, &n);

	sandbox_text_print(out, hostile, sizeof(hostile) - 1, true);
	fclose(out);
	CHECK_STRING(shown, "a?[2Jb\tc?\n?\303\244?1m\302\240\302", "on a terminal control characters are replaced");
	out = open_memstream(&raw, &n);
	sandbox_text_print(out, hostile, sizeof(hostile) - 1, false);
	fclose(out);
	CHECK_STRING(raw, hostile, "elsewhere everything is as it is");
}

static void test_signature(void)
{
	static const enum husk_sandbox_type types[] = {HUSK_SANDBOX_BYTES, HUSK_SANDBOX_F32};
	const struct husk_sandbox_signature two = {
		.name = "mix", .result = HUSK_SANDBOX_STRING, .args = types, .n_args = 2};
	const struct husk_sandbox_signature none = {.name = "none"};
	CLEANUP_FREE char *text = NULL;
	size_t n;
	FILE *out = open_memstream(&text, &n);

	sandbox_signature_print(out, &two);
	fputc(' ', out);
	sandbox_signature_print(out, &none);
	fclose(out);
	CHECK_STRING(text, "string mix(bytes, f32) void none()", "signatures");
}

/** A verb whose words are another command's. */
static void test_raw(void)
{
	static const struct verb verb = {"cc", "", "", NULL, cli_no_options, 1, -1, .raw = true};
	static const char *const flags[] = {"-O2", "--", "x.c", "--help", "-o", "x"}, *const help[] = {"--help"};
	struct husk_error err;
	struct cli cli = {0};

	CHECK(cli_parse(&cli, &verb, flags, 6, &err) == 0 && cli.n_operands == 6 && !cli.help, "nothing is an option");
	bool same = true;
	for (size_t i = 0; i < 6 && i < cli.n_operands; i++)
		same = same && strcmp(cli.operands[i], flags[i]) == 0;
	CHECK(same, "and all words stay in their order");
	cli_free(&cli);
	cli = (struct cli){0};
	CHECK(cli_parse(&cli, &verb, help, 1, &err) == 0 && cli.help, "but --help as the only word");
	cli_free(&cli);
	cli = (struct cli){0};
	CHECK(cli_parse(&cli, &verb, help, 0, &err) == -EINVAL, "and something there has to be");
	cli_free(&cli);
}

int main(void)
{
	test_words();
	test_file();
	test_terminal();
	test_signature();
	test_raw();
	return tap_done();
}
