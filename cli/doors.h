/* SPDX-License-Identifier: Apache-2.0 */
/* doors.h - the options of `run` and `expose` that open doors */
#ifndef CLI_DOORS_H
#define CLI_DOORS_H

#include "cli/cli.h"

/** The doors that a command line asks for, in its order. Owned; the doors' strings point into `texts`. */
struct door_list {
	struct husk_door *doors;
	char **texts; /* one per door */
	size_t n;
	char *tls; /* CERT:KEY, taken apart */
};

int door_list_take(struct door_list *list, const struct cli *cli, struct husk_error *err);
void door_list_free(struct door_list *list);

/** One option's value. @text is taken apart: the door points into it. -EINVAL, -ERANGE. */
int door_parse_publish(char *text, struct husk_door *door, struct husk_error *err);
int door_parse_http_port(char *text, struct husk_door *door, struct husk_error *err);
int door_parse_tls_port(char *text, struct husk_door *door, struct husk_error *err);
int door_parse_vsock_mux(char *text, struct husk_door *door, struct husk_error *err);
int door_parse_handoff(char *text, struct husk_door *door, struct husk_error *err);
int door_parse_exec_door(char *text, struct husk_door *door, struct husk_error *err);

#endif
