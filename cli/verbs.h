/* SPDX-License-Identifier: Apache-2.0 */
/* verbs.h - the functions behind the table, one file per verb; each returns the exit status */
#ifndef CLI_VERBS_H
#define CLI_VERBS_H

#include "cli/cli.h"

int verb_attach(struct cli *cli);
int verb_completion(struct cli *cli);
int verb_console(struct cli *cli);
int verb_cp(struct cli *cli);
int verb_create(struct cli *cli);
int verb_doctor(struct cli *cli);
int verb_events(struct cli *cli);
int verb_exec(struct cli *cli);
int verb_expose(struct cli *cli);
int verb_gc(struct cli *cli);
int verb_help(struct cli *cli);
int verb_image_inspect(struct cli *cli);
int verb_images(struct cli *cli);
int verb_import(struct cli *cli);
int verb_inspect(struct cli *cli);
int verb_kernel_build(struct cli *cli);
int verb_kernel_fetch(struct cli *cli);
int verb_kernel_list(struct cli *cli);
int verb_kill(struct cli *cli);
int verb_login(struct cli *cli);
int verb_logout(struct cli *cli);
int verb_logs(struct cli *cli);
int verb_man(struct cli *cli);
int verb_pause(struct cli *cli);
int verb_port(struct cli *cli);
int verb_prune(struct cli *cli);
int verb_ps(struct cli *cli);
int verb_pull(struct cli *cli);
int verb_rename(struct cli *cli);
int verb_restart(struct cli *cli);
int verb_rm(struct cli *cli);
int verb_rmi(struct cli *cli);
int verb_run(struct cli *cli);
int verb_sandbox_cc(struct cli *cli);
int verb_sandbox_run(struct cli *cli);
int verb_start(struct cli *cli);
int verb_stats(struct cli *cli);
int verb_stop(struct cli *cli);
int verb_unexpose(struct cli *cli);
int verb_unpause(struct cli *cli);
int verb_update(struct cli *cli);
int verb_version(struct cli *cli);
int verb_wait(struct cli *cli);

#endif
