/* SPDX-License-Identifier: Apache-2.0 */
/* attach.h - being with a VM that lives on */
#ifndef CLI_ATTACH_H
#define CLI_ATTACH_H

#include "cli/cli.h"
#include "cli/detach_keys.h"
#include "cli/run.h"

/** How to be with it. */
struct attach {
	bool input; /* feed its stdin, if it was made for that */
	bool proxy; /* pass signals on; else they end us */
	bool tty; /* it was made with a terminal */
	bool open_stdin; /* it was made for stdin */
	bool from_start; /* show what it has printed since its last start, and not only what comes */
	struct detach_keys keys;
};

/** Read the options that `attach` and `start` share, and what @vm is. -ENOTTY: it has a terminal, and stdin is none. */
int attach_prepare(
	struct attach *attach, const struct cli *cli, struct husk_vm *vm, bool input, struct husk_error *err);
/** Be with @vm, which runs, until it ends or the user leaves. The exit status. */
int attach_stay(struct husk_vm *vm, const struct attach *attach, struct run_signals *signals);

#endif
