/* SPDX-License-Identifier: Apache-2.0 */
/* detach-keys-test.c - detach keys are read as Docker writes them, and found in what is typed however it is cut */
#include "cli/detach_keys.h"

#include "tests/tap.h"

#include <errno.h>

static struct detach_keys parsed(const char *text)
{
	struct detach_keys keys = {.n = 99};
	struct husk_error err;
	if (detach_keys_parse(text, &keys, &err) < 0)
		keys.n = 0;
	return keys;
}

static void test_parse(void)
{
	struct husk_error err;
	struct detach_keys keys = parsed(NULL);
	CHECK(keys.n == 2 && keys.keys[0] == 16 && keys.keys[1] == 17, "without a text it is ctrl-p,ctrl-q");
	keys = parsed("a,ctrl-a,ctrl-@,ctrl-[,ctrl-_,z");
	CHECK(keys.n == 6 && memcmp(keys.keys, "a\001\000\033\037z", 6) == 0,
		"characters and control characters are read");
	static const char *const wrong[] = {"", "ctrl-", "ctrl-A", "ctrl-1", "ab", "a,", ",a", "ctrl-p,,ctrl-q",
		"Ctrl-p", "a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a"};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct detach_keys before = {.n = 3};
		CHECK(detach_keys_parse(wrong[i], &before, &err) == -EINVAL && before.n == 3,
			"what is no key is refused");
	}
	CHECK(detach_keys_parse("a,ctrl-1", &keys, &err) < 0 && strstr(err.message, "'ctrl-1'"), "the word is named");
}

/** Everything that @typed becomes when it comes in pieces of @step bytes; true when it detached. */
static bool type(const char *keys, const char *typed, size_t step, char *out)
{
	struct detach_keys k = parsed(keys);
	size_t n = strlen(typed), written = 0;
	bool detached = false;
	for (size_t at = 0; at < n && !detached; at += step)
		written += detach_keys_filter(&k, typed + at, n - at < step ? n - at : step, out + written, &detached);
	if (!detached)
		written += detach_keys_end(&k, out + written);
	out[written] = 0;
	return detached;
}

static void test_filter(void)
{
	static const struct {
		const char *keys, *typed, *out;
		bool detached;
	} cases[] = {
		{"a,b", "hello", "hello", false},
		{"a,b", "xab", "x", true},
		{"a,b", "xaab", "xa", true},
		{"a,b", "xacb", "xacb", false},
		{"a,b", "abrest", "", true},
		{"a,b", "xa", "xa", false},
		{"a,a,b", "aaab", "a", true},
		{"a,a,b", "aaxaab", "aax", true},
		{"a,b,a,c", "abababac", "abab", true},
		{"a,b,a,c", "ababd", "ababd", false},
		{"x", "x", "", true},
		{"", "abc", "abc", false},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (size_t step = 1; step <= strlen(cases[i].typed); step++) {
			char out[64];
			bool detached = type(cases[i].keys, cases[i].typed, step, out);
			CHECK(detached == cases[i].detached, "the sequence is found, and nothing else is");
			CHECK_STRING(out, cases[i].out, "all else that was typed goes on, in order");
		}
}

int main(void)
{
	test_parse();
	test_filter();
	return tap_done();
}
