/* SPDX-License-Identifier: Apache-2.0 */
/* nodes.h - devices of this VM for the workload's /dev: the user's disks, a console of its own */
#ifndef GUEST_NODES_H
#define GUEST_NODES_H

#include "base/error.h"
#include "guest/envelope.h"

#include <sys/types.h>

#define NODES_MAX 128
#define NODES_NAME 32

/** A device, and under which name it is in /dev/disk/by-id. */
struct node {
	char name[NODES_NAME]; /* below /dev: "vdb1" */
	char id[NODES_NAME + ENVELOPE_SERIAL_MAX]; /* "virtio-SERIAL-part1"; "": none */
	mode_t type; /* S_IFBLK, S_IFCHR */
	dev_t device;
};

struct nodes {
	struct node list[NODES_MAX];
	dev_t console; /* what /dev/console is; 0: the kernel's */
	size_t n;
};

/** Find the nodes of the envelope's disks and their partitions in devtmpfs, waiting for disks that are late. */
int nodes_find(const struct envelope *envelope, struct nodes *out, struct husk_error *err);
/** Make them in /dev, which is the workload's own. */
int nodes_make(const struct nodes *nodes, struct husk_error *err);

#endif
