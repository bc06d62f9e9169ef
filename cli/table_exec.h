/* SPDX-License-Identifier: Apache-2.0 */
/* table_exec.h - what table.c has of `exec` and `cp` */
#ifndef CLI_TABLE_EXEC_H
#define CLI_TABLE_EXEC_H

#include "cli/cli.h"

extern const struct option exec_options[], cp_options[];
extern const char exec_description[], cp_description[];

#endif
