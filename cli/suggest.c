/* SPDX-License-Identifier: Apache-2.0 */
/* suggest.c - which word was meant: Levenshtein's distance, or a common beginning */
#include "cli/cli.h"

#include <string.h>

#define WORD_MAX 40

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

static size_t distance(const char *a, const char *b)
{
	size_t n = strlen(a), m = strlen(b), row[WORD_MAX + 1];
	if (n > WORD_MAX || m > WORD_MAX)
		return WORD_MAX;
	for (size_t j = 0; j <= m; j++)
		row[j] = j;
	for (size_t i = 1; i <= n; i++) {
		size_t diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= m; j++) {
			size_t above = row[j];
			row[j] = smaller(smaller(above, row[j - 1]) + 1, diagonal + (a[i - 1] != b[j - 1]));
			diagonal = above;
		}
	}
	return row[m];
}

const char *cli_suggest(const char *word, const char *(*next)(const void *data, size_t i), const void *data)
{
	const char *best = NULL;
	size_t best_distance = strlen(word) < 5 ? 2 : 3; /* to be beaten */
	for (size_t i = 0;; i++) {
		const char *candidate = next(data, i);
		if (!candidate)
			return best;
		size_t d = distance(word, candidate);
		if (strlen(word) >= 3 && strncmp(candidate, word, strlen(word)) == 0)
			d = smaller(d, 1);
		if (d < best_distance) {
			best = candidate;
			best_distance = d;
		}
	}
}
