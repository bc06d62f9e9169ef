/* SPDX-License-Identifier: Apache-2.0 */
/* rfc3339.h - points in time as text, in UTC with nanoseconds: "2026-11-28T22:36:32.123456789Z" */
#ifndef BASE_RFC3339_H
#define BASE_RFC3339_H

#include <stdint.h>

#define RFC3339_SIZE 32 /* with its NUL */

/** @realtime_ns of CLOCK_REALTIME as text. */
void rfc3339_format(uint64_t realtime_ns, char out[RFC3339_SIZE]);
/** CLOCK_REALTIME in nanoseconds. */
uint64_t clock_realtime_ns(void);

#endif
