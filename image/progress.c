/* SPDX-License-Identifier: Apache-2.0 */
/*
 * progress.c - what a pull tells its user on stderr
 *
 * Theory of operation: the threads of a pull note bytes and events here, under one lock; the main thread draws. A terminal
 * gets one bar for all layers, redrawn in place, and lines above it; anything else gets a line per event and no bar, so
 * that a log stays readable. Writes to stderr may fail: nobody has to listen.
 */
#include "image/progress.h"

#include "base/loop.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BAR_WIDTH 30

static struct {
	pthread_mutex_t lock;
	bool quiet, terminal, drawn;
	size_t n, complete;
	uint64_t *bytes, total;
	uint64_t start_ns, drawn_ns;
} shown = {.lock = PTHREAD_MUTEX_INITIALIZER, .quiet = true};

void progress_open(bool quiet)
{
	const char *term = getenv("TERM");
	shown.quiet = quiet;
	shown.terminal = !quiet && isatty(STDERR_FILENO) && !(term && strcmp(term, "dumb") == 0);
}

static void wipe(void)
{
	if (shown.drawn)
		fputs("\r\033[K", stderr);
	shown.drawn = false;
}

void progress_layers(size_t n, uint64_t total)
{
	pthread_mutex_lock(&shown.lock);
	free(shown.bytes);
	shown.bytes = calloc(n ? n : 1, sizeof(*shown.bytes));
	shown.n = shown.bytes ? n : 0;
	shown.complete = 0;
	shown.total = total;
	shown.start_ns = clock_monotonic_ns();
	pthread_mutex_unlock(&shown.lock);
}

void progress_bytes(size_t i, uint64_t bytes)
{
	pthread_mutex_lock(&shown.lock);
	if (i < shown.n)
		shown.bytes[i] = bytes;
	pthread_mutex_unlock(&shown.lock);
}

void progress_layer(size_t i, bool complete, const char *digest, const char *event)
{
	pthread_mutex_lock(&shown.lock);
	shown.complete += complete;
	if (!shown.quiet && !shown.terminal)
		fprintf(stderr, "layer %zu/%zu %.12s: %s\n", i + 1, shown.n, digest + strlen("sha256:"), event);
	pthread_mutex_unlock(&shown.lock);
}

void progress_say(const char *line)
{
	pthread_mutex_lock(&shown.lock);
	if (!shown.quiet) {
		wipe();
		fprintf(stderr, "%s\n", line);
	}
	pthread_mutex_unlock(&shown.lock);
}

static void draw(uint64_t now)
{
	uint64_t done = 0;
	struct winsize size;
	char line[160], bar[BAR_WIDTH + 1];
	for (size_t i = 0; i < shown.n; i++)
		done += shown.bytes[i];
	uint64_t total = shown.total > done ? shown.total : done;
	size_t filled = total ? (size_t)((double)done / (double)total * BAR_WIDTH) : 0;
	double seconds = (double)(now - shown.start_ns) / 1e9;
	memset(bar, '.', BAR_WIDTH);
	memset(bar, '#', filled > BAR_WIDTH ? BAR_WIDTH : filled);
	bar[BAR_WIDTH] = 0;
	int columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
	snprintf(line, sizeof(line), "[%s] %zu/%zu layers  %.1f/%.1f MiB  %.1f MiB/s", bar, shown.complete, shown.n,
		(double)done / 1048576, (double)total / 1048576, seconds > 0 ? (double)done / 1048576 / seconds : 0);
	fprintf(stderr, "\r%.*s\033[K", columns - 1, line);
	fflush(stderr);
	shown.drawn = true;
}

void progress_tick(void)
{
	pthread_mutex_lock(&shown.lock);
	uint64_t now = clock_monotonic_ns();
	if (shown.terminal && shown.n && now - shown.drawn_ns > 100000000) {
		draw(now);
		shown.drawn_ns = now;
	}
	pthread_mutex_unlock(&shown.lock);
}

void progress_close(void)
{
	pthread_mutex_lock(&shown.lock);
	wipe();
	shown.n = 0;
	pthread_mutex_unlock(&shown.lock);
}
