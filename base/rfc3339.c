/* SPDX-License-Identifier: Apache-2.0 */
/* rfc3339.c - points in time as text (RFC 3339 §5.6) */
#include "base/rfc3339.h"

#include <stdio.h>
#include <time.h>

void rfc3339_format(uint64_t realtime_ns, char out[RFC3339_SIZE])
{
	time_t seconds = (time_t)(realtime_ns / 1000000000); /* at most the year 2554, so four digits */
	struct tm t;

	gmtime_r(&seconds, &t);
	snprintf(out, RFC3339_SIZE, "%04u-%02u-%02uT%02u:%02u:%02u.%09uZ", (unsigned)(t.tm_year + 1900) % 10000,
		(unsigned)(t.tm_mon + 1) % 100, (unsigned)t.tm_mday % 100, (unsigned)t.tm_hour % 100,
		(unsigned)t.tm_min % 100, (unsigned)t.tm_sec % 100, (unsigned)(realtime_ns % 1000000000));
}

uint64_t clock_realtime_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}
