/* SPDX-License-Identifier: Apache-2.0 */
/* when.h - points in time as users write them: "2026-11-28T22:36:32Z", "1795905392.5", or how long ago, "10m" */
#ifndef BASE_WHEN_H
#define BASE_WHEN_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

/** The point in time that @text is, CLOCK_REALTIME nanoseconds: a date and time as in RFC 3339, whose seconds, time and offset
 *  may be left out (local time then); seconds since 1970, with up to nine places; or a duration before @now_ns, numbers with
 *  ms, s, m, h or d, as in "1h30m". @what names it in the error. */
int when_parse(const char *text, const char *what, uint64_t now_ns, uint64_t *out_ns, struct husk_error *err);

/** The time as rfc3339_format() and others write it, with an offset or Z, at the beginning of @text; *@used (may be NULL): its
 *  length. False when there is none. */
bool when_read(const char *text, size_t n, uint64_t *out_ns, size_t *used);

/** For poll(2): milliseconds until the earlier of @deadline_ms, clock_monotonic_ms() (UINT64_MAX: none), and @until_ns,
 *  CLOCK_REALTIME (0: none); at most 1,000 seconds at once, -1 where there is neither. */
int when_poll_ms(uint64_t deadline_ms, uint64_t until_ns);

#endif
