/* SPDX-License-Identifier: Apache-2.0 */
/* config.c - the options of `run` that are a configuration: --config, --disk, --vsock-port */
#include "cli/config.h"

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/parse.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_MAX (4u << 20)

int config_take_file(
	const struct cli *cli, struct husk_vm_config *config, struct husk_vm_json **json, struct husk_error *err)
{
	const char *path = cli_value(cli, "config");
	CLEANUP_BUFFER struct buffer text = {0};
	struct stat st;

	if (!path)
		return 0;
	bool in = strcmp(path, "-") == 0;
	if (in && cli_flag(cli, "interactive"))
		return error_set(err, -EINVAL, "--config: '-' reads stdin, which --interactive gives to the command");
	CLEANUP_FD int fd = in ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3) : open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return error_errno(err, "--config: '%s'", path);
	if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode))
		return error_set(err, -EISDIR, "--config: '%s' is a directory", path);
	int rc = fd_read_to_end(fd, &text, FILE_MAX);
	if (rc < 0)
		return error_set(err, rc, "--config: '%s': %s", path, strerror(-rc));
	rc = husk_vm_config_read(config, text.size ? (const char *)buffer_bytes(&text) : "", text.size, json, err);
	return rc < 0 ? error_prefix(err, rc, "--config: '%s'", path) : 0;
}

int disk_parse(char *text, struct husk_disk *disk, struct husk_error *err)
{
	/* A path may have commas and colons in it: only what ends as an option does is one. */
	char *comma = strrchr(text, ',');
	if (comma && strncmp(comma, ",serial=", 8) == 0) {
		disk->serial = comma + 8;
		*comma = 0;
	}
	size_t n = strlen(text);
	if (n >= 3 && strcmp(text + n - 3, ":ro") == 0) {
		disk->read_only = true;
		text[n - 3] = 0;
	}
	disk->path = text;
	return *text ? 0 : error_set(err, -EINVAL, "--disk: there is no path");
}

int disk_list_take(struct disk_list *list, const struct cli *cli, struct husk_error *err)
{
	const char *value;
	size_t n = 0;

	while (cli_nth(cli, "disk", n))
		n++;
	list->disks = calloc(n + 1, sizeof(*list->disks));
	list->texts = calloc(n + 1, sizeof(*list->texts));
	if (!list->disks || !list->texts)
		return error_set(err, -ENOMEM, "read the disks: out of memory");
	for (; (value = cli_nth(cli, "disk", list->n)); list->n++) {
		struct husk_disk *disk = &list->disks[list->n];
		husk_disk_init(disk);
		list->texts[list->n] = strdup(value);
		int rc = list->texts[list->n] ? disk_parse(list->texts[list->n], disk, err)
					      : error_set(err, -ENOMEM, "read the disks: out of memory");
		if (rc < 0)
			return rc;
	}
	return 0;
}

void disk_list_free(struct disk_list *list)
{
	for (size_t i = 0; list->texts && list->texts[i]; i++)
		free(list->texts[i]);
	free(list->texts);
	free(list->disks);
}

int vsock_parse(const char *text, struct husk_vm_config *config, struct husk_error *err)
{
	static const struct {
		const char *word;
		enum husk_vsock policy;
	} words[] = {{"any", HUSK_VSOCK_ANY}, {"none", HUSK_VSOCK_DISABLED}, {"auto", HUSK_VSOCK_AUTO}};
	uint64_t port;

	config->vsock_port = 0;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (strcmp(text, words[i].word) == 0) {
			config->vsock = words[i].policy;
			return 0;
		}
	if (parse_number(text, "--vsock-port", 1, UINT32_MAX - 1, &port, NULL) < 0)
		return error_set(err, -EINVAL,
			"--vsock-port: '%s' is neither any, auto, none nor a port, 1 to 4294967294", text);
	config->vsock = HUSK_VSOCK_FIXED;
	config->vsock_port = (uint32_t)port;
	return 0;
}
