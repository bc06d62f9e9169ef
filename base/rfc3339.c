/* SPDX-License-Identifier: Apache-2.0 */
/* rfc3339.c - points in time as text (RFC 3339 §5.6) */
#include "base/rfc3339.h"

#include <stdio.h>
#include <time.h>

/** A day of the Gregorian calendar; @month 1 to 12. */
struct date {
	unsigned year, month, day;
};

/** The day @days after 1970-01-01. Years are taken to begin with March, so that leap days are their last; then months are in
 *  groups of five with 153 days, and the calendar repeats every 400 years of 146097. */
static struct date date_of(uint64_t days)
{
	days += 719468; /* since 0000-03-01 */
	uint64_t era = days / 146097, in_era = days % 146097;
	uint64_t year = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
	uint64_t in_year = in_era - (365 * year + year / 4 - year / 100);
	uint64_t month = (5 * in_year + 2) / 153; /* from March */

	return (struct date){.year = (unsigned)(era * 400 + year + (month >= 10)),
		.month = (unsigned)(month < 10 ? month + 3 : month - 9),
		.day = (unsigned)(in_year - (153 * month + 2) / 5 + 1)};
}

/** Not gmtime_r(3): that looks for a time zone's file first, which ends a process whose filter does not let it open any. */
void rfc3339_format(uint64_t realtime_ns, char out[RFC3339_SIZE])
{
	uint64_t seconds = realtime_ns / 1000000000; /* at most the year 2554, so four digits */
	struct date d = date_of(seconds / 86400);
	unsigned of_day = (unsigned)(seconds % 86400);

	snprintf(out, RFC3339_SIZE, "%04u-%02u-%02uT%02u:%02u:%02u.%09uZ", d.year % 10000, d.month % 100, d.day % 100,
		of_day / 3600, of_day / 60 % 60, of_day % 60, (unsigned)(realtime_ns % 1000000000));
}

uint64_t clock_realtime_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}
