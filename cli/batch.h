/* SPDX-License-Identifier: Apache-2.0 */
/* batch.h - one operation on each of the VMs that a command line names */
#ifndef CLI_BATCH_H
#define CLI_BATCH_H

#include "cli/cli.h"

/** Do it to @vm. 0 or -errno with @err filled. Several run at once, in threads. */
typedef int batch_fn(struct husk_vm *vm, void *data, struct husk_error *err);

/** Try @fn on each operand; those that worked are printed as they were written, the others' errors told, in the operands' order.
 *  @gone: a VM that is not there is told and counts as done. The exit status: 1 when one failed. */
int batch_run(struct cli *cli, batch_fn *fn, void *data, bool gone);

#endif
