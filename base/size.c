/* SPDX-License-Identifier: Apache-2.0 */
/* size.c - bytes for people */
#include "base/size.h"

#include <stdio.h>

#define UNITS 6

static void format(uint64_t bytes, double step, const char *const units[UNITS], char out[SIZE_TEXT])
{
	double value = (double)bytes;
	unsigned unit = 0;

	/* What would be rounded up to a whole step is said in the next unit. */
	for (; value >= step - 0.5 && unit + 1 < UNITS; unit++)
		value /= step;
	snprintf(out, SIZE_TEXT,
		!unit           ? "%.0f%s"
		: value < 9.995 ? "%.2f%s"
		: value < 99.95 ? "%.1f%s"
				: "%.0f%s",
		value, units[unit]);
}

void size_format(uint64_t bytes, char out[SIZE_TEXT])
{
	static const char *const units[UNITS] = {"B", "kB", "MB", "GB", "TB", "PB"};
	format(bytes, 1000, units, out);
}

void size_format_binary(uint64_t bytes, char out[SIZE_TEXT])
{
	static const char *const units[UNITS] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	format(bytes, 1024, units, out);
}
