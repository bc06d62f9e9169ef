/* SPDX-License-Identifier: Apache-2.0 */
/* age.h - how long something is ago, for people: "3 minutes", in the largest unit of which there is one */
#ifndef BASE_AGE_H
#define BASE_AGE_H

#include <stdint.h>

#define AGE_SIZE 40 /* with its NUL */

/** "less than a second", "1 second", "59 minutes", "2 days", … */
void age_format(uint64_t seconds, char out[AGE_SIZE]);
/** The age at @now_ns of what was at @then_ns, both CLOCK_REALTIME; what is still to come has none. */
void age_since(uint64_t then_ns, uint64_t now_ns, char out[AGE_SIZE]);

#endif
