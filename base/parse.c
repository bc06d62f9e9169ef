/* SPDX-License-Identifier: Apache-2.0 */
/* parse.c - strict readings of the values that users write */
#include "base/parse.h"

#include "base/cleanup.h"

#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

/** Leading digits of @text as a number; NULL when there is none or it overflows, else what follows them. */
static const char *read_digits(const char *text, uint64_t *out)
{
	const char *at = text;
	*out = 0;
	for (; *at >= '0' && *at <= '9'; at++)
		if (__builtin_mul_overflow(*out, (uint64_t)10, out) ||
			__builtin_add_overflow(*out, (uint64_t)(*at - '0'), out))
			return NULL;
	return at == text ? NULL : at;
}

int parse_number(const char *text, const char *what, uint64_t min, uint64_t max, uint64_t *out, struct husk_error *err)
{
	uint64_t value;
	const char *rest = read_digits(text, &value);
	if (!rest || *rest)
		return error_set(err, -EINVAL, "%s: '%s' is not a whole number", what, text);
	if (value < min || value > max)
		return error_set(err, -ERANGE, "%s: %s is out of range (%llu to %llu)", what, text,
			(unsigned long long)min, (unsigned long long)max);
	*out = value;
	return 0;
}

int parse_size(const char *text, const char *what, uint64_t min, uint64_t max, uint64_t *out, struct husk_error *err)
{
	static const char units[] = "bkmgt";
	uint64_t value;
	const char *rest = read_digits(text, &value);
	int shift = 0;
	if (rest && *rest) {
		const char *unit = strchr(units, *rest | 0x20);
		bool known =
			unit &&
			(!rest[1] || (unit > units && (!strcasecmp(rest + 1, "b") || !strcasecmp(rest + 1, "ib"))));
		if (!known)
			rest = NULL;
		else
			shift = (int)(unit - units) * 10;
	}
	if (!rest)
		return error_set(err, -EINVAL,
			"%s: '%s' is not a size; write a whole number of bytes or with a unit, as in 512M", what, text);
	if (value > UINT64_MAX >> shift || value << shift < min || value << shift > max)
		return error_set(err, -ERANGE, "%s: %s is out of range (%llu to %llu bytes)", what, text,
			(unsigned long long)min, (unsigned long long)max);
	*out = value << shift;
	return 0;
}

int parse_duration(const char *text, const char *what, uint64_t *out_ms, struct husk_error *err)
{
	static const struct {
		const char *name;
		uint64_t ms;
	} units[] = {{"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 3600 * 1000}};
	uint64_t whole, thousandths = 0;
	const char *rest = read_digits(text, &whole);
	if (rest && *rest == '.') {
		int places = 0;
		for (rest++; *rest >= '0' && *rest <= '9' && places < 3; rest++, places++)
			thousandths = thousandths * 10 + (uint64_t)(*rest - '0');
		if (!places)
			rest = NULL;
		for (; places < 3; places++)
			thousandths *= 10;
	}
	for (size_t i = 0; rest && i < ARRAY_SIZE(units); i++) {
		if (strcmp(rest, units[i].name) != 0)
			continue;
		uint64_t ms;
		if (__builtin_mul_overflow(whole, units[i].ms, &ms) ||
			__builtin_add_overflow(ms, thousandths * units[i].ms / 1000, &ms) ||
			ms > (uint64_t)INT64_MAX / 1000000)
			return error_set(err, -ERANGE, "%s: %s is too long", what, text);
		*out_ms = ms;
		return 0;
	}
	return error_set(
		err, -EINVAL, "%s: '%s' is not a duration; write seconds, or a number with ms, s, m or h", what, text);
}

#define REALTIME_FIRST 34
#define REALTIME_LAST 64

/** "RTMIN", "RTMIN+3", "RTMAX-1": 0 when @name is none of them. */
static int realtime_signal(const char *name)
{
	bool from_first = strncasecmp(name, "RTMIN", 5) == 0;
	uint64_t n = 0;
	if (!from_first && strncasecmp(name, "RTMAX", 5) != 0)
		return 0;
	if (name[5] && (name[5] != (from_first ? '+' : '-') ||
			       parse_number(name + 6, "signal", 0, REALTIME_LAST - REALTIME_FIRST, &n, NULL) < 0))
		return 0;
	return from_first ? REALTIME_FIRST + (int)n : REALTIME_LAST - (int)n;
}

int parse_signal(const char *text, const char *what, int *out, struct husk_error *err)
{
	static const struct {
		const char *name;
		int number;
	} others[] = {{"IOT", SIGABRT}, {"CLD", SIGCHLD}, {"IO", SIGIO}};
	const char *name = strncasecmp(text, "SIG", 3) == 0 ? text + 3 : text;
	uint64_t n;
	int found = parse_number(text, what, 1, REALTIME_LAST, &n, NULL) == 0 ? (int)n : realtime_signal(name);
	for (int i = 1; i < 32 && !found; i++)
		if (sigabbrev_np(i) && strcasecmp(sigabbrev_np(i), name) == 0)
			found = i;
	for (size_t i = 0; i < ARRAY_SIZE(others) && !found; i++)
		if (strcasecmp(others[i].name, name) == 0)
			found = others[i].number;
	if (!found)
		return error_set(err, -EINVAL,
			"%s: '%s' is no signal; write a name as in TERM or RTMIN+3, or a number "
			"from 1 to 64",
			what, text);
	*out = found;
	return 0;
}
