/* SPDX-License-Identifier: Apache-2.0 */
/* progress.h - what a pull tells its user on stderr. One per process; called from any thread */
#ifndef IMAGE_PROGRESS_H
#define IMAGE_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** A bar where stderr is a terminal, else one line per event; nothing with @quiet. */
void progress_open(bool quiet);
/** A pull of @n layers begins; @total bytes in all, as far as they are known. */
void progress_layers(size_t n, uint64_t total);
/** Layer @i has @bytes of its bytes. */
void progress_bytes(size_t i, uint64_t bytes);
/** Layer @i is complete, or has changed its state: one line, if lines are shown. */
void progress_layer(size_t i, bool complete, const char *digest, const char *event);
/** Print one line; warnings come even with --quiet off a terminal's bar only by their caller's choice. */
void progress_say(const char *line);
/** Draw the bar anew; called by the main thread some times a second. */
void progress_tick(void);
/** Wipe the bar. */
void progress_close(void);

#endif
