/* SPDX-License-Identifier: Apache-2.0 */
/* size.h - bytes for people: "999B", "1.42kB", "8.50GiB" */
#ifndef BASE_SIZE_H
#define BASE_SIZE_H

#include <stdint.h>

#define SIZE_TEXT 24 /* with its NUL */

/** With three digits or so, in powers of 1000, as disks and networks are measured. */
void size_format(uint64_t bytes, char out[SIZE_TEXT]);
/** In powers of 1024, as memory is. */
void size_format_binary(uint64_t bytes, char out[SIZE_TEXT]);

#endif
