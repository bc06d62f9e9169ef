/* SPDX-License-Identifier: Apache-2.0 */
/* when-test.c - points in time as users write them are read whole, or refused; ages are said in one unit */
#include "base/when.h"

#include "base/age.h"
#include "base/cleanup.h"
#include "base/rfc3339.h"
#include "tests/tap.h"

#include <stdlib.h>
#include <time.h>

#define NOW 1795905392123456789ull /* 2026-11-28T22:36:32.123456789Z */
#define S 1000000000ull

static void test_forms(void)
{
	static const struct {
		const char *text;
		uint64_t ns;
	} good[] = {
		{"2026-11-28T22:36:32.123456789Z", NOW},
		{"2026-11-28T22:36:32Z", NOW - 123456789},
		{"2026-11-28t22:36:32.5z", NOW - 123456789 + S / 2},
		{"2026-11-28T23:36:32+01:00", NOW - 123456789},
		{"2026-11-28T20:06:32-02:30", NOW - 123456789},
		{"2026-11-28T22:36Z", NOW - 123456789 - 32 * S},
		{"2026-11-29Z", 1795910400 * S},
		{"1970-01-01T00:00:00Z", 0},
		{"2024-02-29T00:00:00Z", 1709164800 * S},
		{"0", 0},
		{"1795905392", 1795905392 * S},
		{"1795905392.123456789", NOW},
		{"1.5", S + S / 2},
		{"10m", NOW - 600 * S},
		{"1h30m", NOW - 5400 * S},
		{"1.5h", NOW - 5400 * S},
		{"250ms", NOW - S / 4},
		{"2d", NOW - 172800 * S},
		{"1m1s", NOW - 61 * S},
		{"100000d", 0},
	};
	static const char *const bad[] = {"", " ", "x", "-1", "+1", "1 ", "1.", ".5", "1.0123456789", "1x", "m", "1h30",
		"10m ", "2026-11-28T", "2026-11-28T22", "2026-11-28T22:36:", "2026-11-28T22:36:32.",
		"2026-11-28T24:00:00Z", "2026-11-28T22:61:32Z", "2026-13-01T00:00:00Z", "2026-02-29T00:00:00Z",
		"2026-00-01Z", "2026-01-00Z", "1969-12-31T23:59:59Z", "1970-01-01T00:00:00+01:00",
		"9999-01-01T00:00:00Z", "2026-11-28T22:36:32Zx", "2026-11-28T22:36:32+1:00",
		"2026-11-28T22:36:32+24:00", "2026-1-1", "18446744073709551616", "18446744073709551616s", "9223372037",
		"99999999999999d"};
	struct husk_error err;
	char what[80];
	uint64_t ns;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		snprintf(what, sizeof(what), "'%s' is read", good[i].text);
		CHECK(when_parse(good[i].text, "--since", NOW, &ns, &err) == 0 && ns == good[i].ns, what);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		snprintf(what, sizeof(what), "'%s' is refused", bad[i]);
		CHECK(when_parse(bad[i], "--since", NOW, &ns, &err) == -EINVAL && strstr(err.message, "--since: '"),
			what);
	}
}

static void test_local(void)
{
	struct husk_error err;
	uint64_t ns;

	setenv("TZ", "XYZ-2", 1);
	tzset();
	CHECK(when_parse("2026-11-29T00:36:32.123456789", "", NOW, &ns, &err) == 0 && ns == NOW,
		"without an offset it is local time");
	CHECK(when_parse("2026-11-29", "", NOW, &ns, &err) == 0 && ns == (1795910400ull - 7200) * S, "of a day, too");
}

static void test_beginning(void)
{
	static const char line[] = "2026-11-28T22:36:32.123456789Z husk-vmm: 5";
	char text[RFC3339_SIZE];
	uint64_t ns;
	size_t used;

	CHECK(when_read(line, sizeof(line) - 1, &ns, &used) && ns == NOW && used == 30,
		"a line's time is at its beginning");
	CHECK(!when_read(line, 29, &ns, &used), "one that is cut is none");
	CHECK(!when_read(line + 1, sizeof(line) - 2, &ns, &used), "nor is one that begins elsewhere");
	rfc3339_format(NOW, text);
	CHECK(when_read(text, strlen(text), &ns, NULL) && ns == NOW, "what is written is read");
}

static void test_ages(void)
{
	static const struct {
		uint64_t seconds;
		const char *text;
	} ages[] = {{0, "less than a second"}, {1, "1 second"}, {59, "59 seconds"}, {60, "1 minute"},
		{3599, "59 minutes"}, {3600, "1 hour"}, {86399, "23 hours"}, {86400, "1 day"}, {604800, "1 week"},
		{2592000, "1 month"}, {63072000, "2 years"}};
	char text[AGE_SIZE];

	for (size_t i = 0; i < ARRAY_SIZE(ages); i++) {
		age_format(ages[i].seconds, text);
		CHECK_STRING(text, ages[i].text, "an age in one unit");
	}
	age_since(NOW, NOW - S, text);
	CHECK_STRING(text, "less than a second", "what is still to come has none");
	age_since(NOW - 90 * S, NOW, text);
	CHECK_STRING(text, "1 minute", "what was is so long ago");
}

int main(void)
{
	test_forms();
	test_local();
	test_beginning();
	test_ages();
	return tap_done();
}
