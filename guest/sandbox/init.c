/* SPDX-License-Identifier: Apache-2.0 */
/* init.c - what runs before a program is ready, when the program has nothing of its own for that */
#include "runtime.h"

void husk_init(void)
{
}
