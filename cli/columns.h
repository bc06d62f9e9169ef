/* SPDX-License-Identifier: Apache-2.0 */
/*
 * columns.h - tables on stdout whose columns are as wide as what is in them
 *
 * Cells come in order, row by row, the headings first. What a terminal would obey (controls, bytes that are no UTF-8) is replaced,
 * since names of files and commands may hold anything. Memory failures end the table early and are told by columns_print().
 */
#ifndef CLI_COLUMNS_H
#define CLI_COLUMNS_H

#include "base/buffer.h"

#include <stdbool.h>

#define COLUMNS_MAX 16

/** Zero-initialise with `n` set. */
struct columns {
	size_t n; /* columns of a row */
	unsigned right; /* bit i: column i is adjusted to the right */
	struct buffer text; /* the cells, NUL-terminated one behind the other */
	size_t n_cells;
	size_t width[COLUMNS_MAX];
	bool failed;
};

void columns_add(struct columns *columns, const char *text);
__attribute__((format(printf, 2, 3))) void columns_format(struct columns *columns, const char *format, ...);
/** Print all rows, a line each; false when memory was out. */
bool columns_print(const struct columns *columns);
void columns_free(struct columns *columns);

/** @text malloc'ed with everything replaced by '?' that a terminal would not just show; at most @max characters, the last one "…"
 *  when there are more; 0: all. NULL without memory. */
char *columns_clean(const char *text, size_t max);

#endif
