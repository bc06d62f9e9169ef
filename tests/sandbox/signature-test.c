/* SPDX-License-Identifier: Apache-2.0 */
/* signature-test.c - names, types, and what a caller may say of a function */
#include "sandbox/signature.h"
#include "tests/tap.h"

#include <stdlib.h>
#include <string.h>

static void test_names(void)
{
	char longest[SANDBOX_NAME_MAX + 2];
	memset(longest, 'a', sizeof(longest));
	longest[SANDBOX_NAME_MAX + 1] = 0;

	CHECK(signature_name_fits("a", 64) && signature_name_fits("_x9", 64), "C identifiers are names");
	CHECK(!signature_name_fits("", 64) && !signature_name_fits("9x", 64) && !signature_name_fits("a-b", 64) &&
			!signature_name_fits("a b", 64),
		"other texts are not");
	CHECK(!signature_name_fits(longest, sizeof(longest)), "64 bytes are too many");
	longest[SANDBOX_NAME_MAX] = 0;
	CHECK(signature_name_fits(longest, sizeof(longest)), "63 are not");
	CHECK(!signature_name_fits("abc", 3), "a name has to end within its room");
}

static void test_copy(void)
{
	struct husk_error err = {0};
	enum husk_sandbox_type args[SANDBOX_ARGS_MAX + 1];
	struct signature copy = {0}, other = {0};
	char text[128];

	for (size_t i = 0; i <= SANDBOX_ARGS_MAX; i++)
		args[i] = HUSK_SANDBOX_U64;
	struct husk_sandbox_signature given = {.size = sizeof(given),
		.name = "f",
		.result = HUSK_SANDBOX_VOID,
		.args = args,
		.n_args = SANDBOX_ARGS_MAX};
	CHECK(signature_copy(&copy, &given, &err) == 0 && copy.n_args == SANDBOX_ARGS_MAX, "32 arguments are taken");
	given.n_args++;
	CHECK(signature_copy(&other, &given, &err) == -EINVAL && strstr(err.message, "33 arguments") && !other.name[0],
		"33 are refused, with their number, and nothing is written");
	given.n_args = 2;
	args[1] = HUSK_SANDBOX_VOID;
	CHECK(signature_copy(&other, &given, &err) == -EINVAL, "no argument is void");
	args[1] = (enum husk_sandbox_type)10;
	CHECK(signature_copy(&other, &given, &err) == -EINVAL, "type 10 is none");
	args[1] = HUSK_SANDBOX_STRING;
	given.result = (enum husk_sandbox_type)77;
	CHECK(signature_copy(&other, &given, &err) == -EINVAL, "nor is a result of type 77 one");
	given.result = HUSK_SANDBOX_F32;
	CHECK(signature_copy(&other, &given, &err) == 0 && !signature_equal(&copy, &other), "signatures differ");
	signature_print(&other, text, sizeof(text));
	CHECK(strcmp(text, "f32 f(u64, string)") == 0, "and can be read");
	signature_print(&other, text, 8);
	CHECK(strcmp(text, "f32 f(u") == 0, "or cut");
	given.args = NULL;
	CHECK(signature_copy(&other, &given, &err) == -EINVAL, "arguments need types");
	given.n_args = 0;
	CHECK(signature_copy(&other, &given, &err) == 0, "no arguments need none");
	signature_print(&other, text, sizeof(text));
	CHECK(strcmp(text, "f32 f()") == 0, "and have nothing between the parentheses");
	struct husk_sandbox_value value = {.type = HUSK_SANDBOX_STRING, .bytes = {.data = strdup("x"), .size = 1}};
	husk_sandbox_value_clear(&value);
	CHECK(value.type == HUSK_SANDBOX_VOID && !value.bytes.data, "a value that was cleared is void");
}

int main(void)
{
	test_names();
	test_copy();
	return tap_done();
}
