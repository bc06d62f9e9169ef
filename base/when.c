/* SPDX-License-Identifier: Apache-2.0 */
/*
 * when.c - points in time as users write them
 *
 * Theory of operation: one reader of digits with a place in the text, which every form is put together of. What is digits and a
 * '.' only is seconds since 1970, what begins with YYYY-MM-DD is a date, everything else has to be a duration. All of the text
 * has to be read. Dates before 1970 and after 2500 are refused, so that nanoseconds fit into 64 bits.
 */
#include "base/when.h"

#include "base/cleanup.h"
#include "base/loop.h"
#include "base/rfc3339.h"

#include <string.h>
#include <time.h>

#define SECOND_NS 1000000000ull
#define YEAR_MAX 2500
#define POLL_MAX_MS 1000000

struct text {
	const char *at, *end;
};

static bool is_digit(const struct text *t)
{
	return t->at < t->end && *t->at >= '0' && *t->at <= '9';
}

static bool take(struct text *t, char c)
{
	bool there = t->at < t->end && *t->at == c;
	t->at += there;
	return there;
}

/** Exactly @n digits as a number of at most @max. */
static bool fixed(struct text *t, int n, int max, int *out)
{
	for (*out = 0; n > 0; n--, t->at++) {
		if (!is_digit(t))
			return false;
		*out = *out * 10 + (*t->at - '0');
	}
	return *out <= max;
}

/** One or more digits. */
static bool whole(struct text *t, uint64_t *out)
{
	if (!is_digit(t))
		return false;
	for (*out = 0; is_digit(t); t->at++)
		if (__builtin_mul_overflow(*out, (uint64_t)10, out) ||
			__builtin_add_overflow(*out, (uint64_t)(*t->at - '0'), out))
			return false;
	return true;
}

/** ".5" and so on as nanoseconds, at most nine places; nothing is 0. */
static bool fraction(struct text *t, uint64_t *ns)
{
	uint64_t unit = SECOND_NS;

	*ns = 0;
	if (!take(t, '.'))
		return true;
	if (!is_digit(t))
		return false;
	for (; is_digit(t) && unit > 1; t->at++)
		*ns += (uint64_t)(*t->at - '0') * (unit /= 10);
	return !is_digit(t);
}

/** "Z", "+01:00"; *@seconds east of Greenwich. False when there is none. */
static bool offset(struct text *t, long *seconds)
{
	int hours, minutes;
	bool west = false;

	*seconds = 0;
	if (take(t, 'Z') || take(t, 'z'))
		return true;
	if (!take(t, '+') && !(west = take(t, '-')))
		return false;
	if (!fixed(t, 2, 23, &hours) || !take(t, ':') || !fixed(t, 2, 59, &minutes))
		return false;
	*seconds = (hours * 3600L + minutes * 60L) * (west ? -1 : 1);
	return true;
}

static bool days_fit(const struct tm *tm)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	int year = tm->tm_year + 1900;
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return tm->tm_mday >= 1 && tm->tm_mon >= 0 && tm->tm_mday <= days[tm->tm_mon] + (leap && tm->tm_mon == 1);
}

static bool date(struct text *t, struct tm *tm)
{
	if (!fixed(t, 4, YEAR_MAX, &tm->tm_year) || !take(t, '-') || !fixed(t, 2, 12, &tm->tm_mon) || !take(t, '-') ||
		!fixed(t, 2, 31, &tm->tm_mday))
		return false;
	tm->tm_mon--;
	tm->tm_year -= 1900;
	return tm->tm_year >= 70 && days_fit(tm);
}

/** "T22:36", "T22:36:32.5". */
static bool time_of_day(struct text *t, struct tm *tm, uint64_t *ns)
{
	*ns = 0;
	if (!take(t, 'T') && !take(t, 't'))
		return false;
	if (!fixed(t, 2, 23, &tm->tm_hour) || !take(t, ':') || !fixed(t, 2, 59, &tm->tm_min))
		return false;
	return !take(t, ':') || (fixed(t, 2, 60, &tm->tm_sec) && fraction(t, ns));
}

/** @zoned: with an offset, or without one in local time. */
static bool finish(struct tm *tm, bool zoned, long east, uint64_t ns, uint64_t *out)
{
	tm->tm_isdst = -1;
	time_t seconds = zoned ? timegm(tm) - east : mktime(tm);
	*out = (uint64_t)seconds * SECOND_NS + ns;
	return seconds >= 0;
}

bool when_read(const char *bytes, size_t n, uint64_t *out_ns, size_t *used)
{
	struct text t = {bytes, bytes + n};
	struct tm tm = {0};
	uint64_t ns;
	long east;

	if (!date(&t, &tm) || !time_of_day(&t, &tm, &ns) || !offset(&t, &east) || !finish(&tm, true, east, ns, out_ns))
		return false;
	if (used)
		*used = (size_t)(t.at - bytes);
	return true;
}

static bool read_date(struct text *t, uint64_t *out)
{
	struct tm tm = {0};
	uint64_t ns = 0;
	long east = 0;

	if (!date(t, &tm))
		return false;
	if (t->at < t->end && (*t->at | 0x20) == 't' && !time_of_day(t, &tm, &ns))
		return false;
	bool zoned = t->at < t->end && offset(t, &east);
	return t->at == t->end && finish(&tm, zoned, east, ns, out);
}

static bool read_seconds(struct text *t, uint64_t *out)
{
	uint64_t seconds, ns;

	return whole(t, &seconds) && fraction(t, &ns) && t->at == t->end && seconds <= INT64_MAX / SECOND_NS - 1 &&
	       (*out = seconds * SECOND_NS + ns, true);
}

static bool read_unit(struct text *t, uint64_t *unit)
{
	static const struct {
		const char *name;
		uint64_t ns;
	} units[] = {{"ms", 1000000}, {"s", SECOND_NS}, {"m", 60 * SECOND_NS}, {"h", 3600 * SECOND_NS},
		{"d", 86400 * SECOND_NS}};

	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		size_t n = strlen(units[i].name);
		if ((size_t)(t->end - t->at) < n || memcmp(t->at, units[i].name, n) != 0)
			continue;
		*unit = units[i].ns;
		t->at += n;
		return true;
	}
	return false;
}

static bool read_duration(struct text *t, uint64_t *out)
{
	uint64_t n, part, unit;

	*out = 0;
	do {
		if (!whole(t, &n) || !fraction(t, &part) || !read_unit(t, &unit))
			return false;
		if (__builtin_mul_overflow(n, unit, &n) ||
			__builtin_add_overflow(n, (uint64_t)((double)part / SECOND_NS * (double)unit), &n) ||
			__builtin_add_overflow(*out, n, out))
			return false;
	} while (t->at < t->end);
	return true;
}

int when_parse(const char *text, const char *what, uint64_t now_ns, uint64_t *out_ns, struct husk_error *err)
{
	const struct text whole_text = {text, text + strlen(text)};
	struct text t = whole_text;
	uint64_t ago;

	if (read_seconds(&t, out_ns))
		return 0;
	t = whole_text;
	if (read_date(&t, out_ns))
		return 0;
	t = whole_text;
	if (!read_duration(&t, &ago))
		return error_set(err, -EINVAL,
			"%s: '%s' is not a point in time; write 2026-11-28T22:36:32Z, seconds since 1970, or how long "
			"ago, "
			"as in 10m or 1h30m",
			what, text);
	*out_ns = ago < now_ns ? now_ns - ago : 0;
	return 0;
}

int when_poll_ms(uint64_t deadline_ms, uint64_t until_ns)
{
	uint64_t now = clock_monotonic_ms(), clock_ns = clock_realtime_ns(), ms = UINT64_MAX;

	if (deadline_ms != UINT64_MAX)
		ms = deadline_ms > now ? deadline_ms - now : 0;
	if (until_ns) {
		uint64_t left = until_ns > clock_ns ? (until_ns - clock_ns) / 1000000 + 1 : 0;
		ms = left < ms ? left : ms;
	}
	return ms == UINT64_MAX ? -1 : ms > POLL_MAX_MS ? POLL_MAX_MS : (int)ms;
}
