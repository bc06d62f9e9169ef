/* SPDX-License-Identifier: Apache-2.0 */
/* config.h - the options of `run` that are a configuration: --config, --disk, --vsock-port, --serial */
#ifndef CLI_CONFIG_H
#define CLI_CONFIG_H

#include "cli/cli.h"

/** The disks that a command line asks for. Owned; paths and serial numbers point into `texts`. */
struct disk_list {
	struct husk_disk *disks;
	char **texts; /* one per disk */
	size_t n;
};

/** Read the file of --config ("-": stdin) into @config; nothing without the option. *@json as in husk_vm_config_read(). */
int config_take_file(
	const struct cli *cli, struct husk_vm_config *config, struct husk_vm_json **json, struct husk_error *err);

/** PATH[:ro][,serial=S]. @text is taken apart: the disk points into it. */
int disk_parse(char *text, struct husk_disk *disk, struct husk_error *err);
int disk_list_take(struct disk_list *list, const struct cli *cli, struct husk_error *err);
void disk_list_free(struct disk_list *list);

/** "any", "none", "auto" or a port. */
int vsock_parse(const char *text, struct husk_vm_config *config, struct husk_error *err);

#endif
