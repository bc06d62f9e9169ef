/* SPDX-License-Identifier: Apache-2.0 */
/* age.c - how long something is ago, for people */
#include "base/age.h"

#include "base/cleanup.h"

#include <stdio.h>

void age_format(uint64_t seconds, char out[AGE_SIZE])
{
	static const struct {
		uint64_t seconds;
		const char *name;
	} units[] = {{31536000, "year"}, {2592000, "month"}, {604800, "week"}, {86400, "day"}, {3600, "hour"},
		{60, "minute"}, {1, "second"}};

	snprintf(out, AGE_SIZE, "less than a second");
	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		uint64_t n = seconds / units[i].seconds;
		if (n == 0)
			continue;
		snprintf(out, AGE_SIZE, "%llu %s%s", (unsigned long long)n, units[i].name, n == 1 ? "" : "s");
		return;
	}
}

void age_since(uint64_t then_ns, uint64_t now_ns, char out[AGE_SIZE])
{
	age_format(now_ns > then_ns ? (now_ns - then_ns) / 1000000000 : 0, out);
}
