/* SPDX-License-Identifier: Apache-2.0 */
/* terminal.h - the caller's terminal during `run -t` */
#ifndef CLI_TERMINAL_H
#define CLI_TERMINAL_H

#include <husk.h>

/** Put stdin's terminal into raw mode; it is restored at exit() at the latest. */
int terminal_raw(struct husk_error *err);
/** Give the terminal back as it was; fine when it was never changed. */
void terminal_restore(void);
/** The terminal's size; false when no standard stream is one. */
bool terminal_size(uint16_t *rows, uint16_t *columns);

#endif
