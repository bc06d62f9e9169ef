/* SPDX-License-Identifier: Apache-2.0 */
/* parse-test.c - values are read whole or refused */
#include "base/cleanup.h"
#include "base/parse.h"
#include "tests/tap.h"

static uint64_t number(const char *text)
{
	uint64_t v = UINT64_MAX;
	return parse_number(text, "n", 0, UINT64_MAX - 1, &v, NULL) == 0 ? v : UINT64_MAX;
}

static uint64_t size(const char *text)
{
	uint64_t v = UINT64_MAX;
	return parse_size(text, "n", 0, UINT64_MAX - 1, &v, NULL) == 0 ? v : UINT64_MAX;
}

static uint64_t duration(const char *text)
{
	uint64_t v = UINT64_MAX;
	return parse_duration(text, "n", &v, NULL) == 0 ? v : UINT64_MAX;
}

static int signal_number(const char *text)
{
	int v = -1;
	return parse_signal(text, "n", &v, NULL) == 0 ? v : 0;
}

static void test_signals(void)
{
	static const char *const bad[] = {"", "SIG", "0", "65", "-9", "TERMS", "RTMIN+31", "RTMIN-1", "RTMAX+1",
		"RTMIN+", "RTMIN3", "KILL 9", "SIGSIGHUP"};
	static const struct {
		const char *text;
		int number;
	} good[] = {{"TERM", 15}, {"sigkill", 9}, {"9", 9}, {"64", 64}, {"RTMIN", 34}, {"SIGRTMIN+3", 37},
		{"rtmax", 64}, {"RTMAX-30", 34}, {"RTMIN+30", 64}, {"IOT", 6}, {"SIGCLD", 17}, {"STKFLT", 16},
		{"WINCH", 28}};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		CHECK(signal_number(bad[i]) == 0, bad[i]);
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		CHECK(signal_number(good[i].text) == good[i].number, good[i].text);
}

int main(void)
{
	static const char *const bad_numbers[] = {
		"", " 1", "1 ", "+1", "-1", "0x10", "1.0", "1e3", "18446744073709551616", "99999999999999999999", "a"};
	for (size_t i = 0; i < ARRAY_SIZE(bad_numbers); i++)
		CHECK(number(bad_numbers[i]) == UINT64_MAX, bad_numbers[i]);
	CHECK(number("0") == 0 && number("18446744073709551614") == UINT64_MAX - 1, "numbers at both ends are read");

	static const char *const bad_sizes[] = {
		"", "k", "1x", "1kk", "1.5g", "-1m", "1bb", "1mib1", "17179869184g", "1 m"};
	for (size_t i = 0; i < ARRAY_SIZE(bad_sizes); i++)
		CHECK(size(bad_sizes[i]) == UINT64_MAX, bad_sizes[i]);
	CHECK(size("512M") == 512ull << 20 && size("8g") == 8ull << 30 && size("1TiB") == 1ull << 40 &&
			size("3kb") == 3072 && size("7b") == 7 && size("9") == 9,
		"sizes with every unit are read");

	static const char *const bad_durations[] = {
		"", "s", "1.", "1.2345", ".5", "-1", "1d", "1 s", "9999999999999999h"};
	for (size_t i = 0; i < ARRAY_SIZE(bad_durations); i++)
		CHECK(duration(bad_durations[i]) == UINT64_MAX, bad_durations[i]);
	CHECK(duration("1") == 1000 && duration("1.5") == 1500 && duration("0.05s") == 50 && duration("20ms") == 20 &&
			duration("2m") == 120000 && duration("1.5h") == 5400000,
		"durations with every unit are read");

	struct husk_error err;
	uint64_t v = 42;
	CHECK(parse_number("9", "--cpus", 1, 8, &v, &err) == -ERANGE && v == 42, "out of range leaves the value alone");
	CHECK_STRING(err.message, "--cpus: 9 is out of range (1 to 8)", "and the message names option, value and rule");
	test_signals();
	return tap_done();
}
