/* SPDX-License-Identifier: Apache-2.0 */
/* envelope.h - the boot envelope (agent/boot.h), read and checked */
#ifndef GUEST_ENVELOPE_H
#define GUEST_ENVELOPE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ENVELOPE_DEVICE_MAX 16
#define ENVELOPE_HOSTNAME_MAX 64
#define ENVELOPE_LAYERS_MAX 127
#define ENVELOPE_LIST_MAX 256 /* modules, volumes */

#define ENVELOPE_DISKS_MAX 24
#define ENVELOPE_SERIAL_MAX 20

/** A disk of the user's. */
struct envelope_disk {
	char device[ENVELOPE_DEVICE_MAX]; /* "vdb" */
	char serial[ENVELOPE_SERIAL_MAX + 1];
};

/** Bytes with their length; owned. */
struct bytes {
	uint8_t *data;
	size_t size;
};

struct envelope {
	char *modules[ENVELOPE_LIST_MAX];
	size_t n_modules;
	char *late_modules[ENVELOPE_LIST_MAX];
	size_t n_late_modules;
	char *volumes[ENVELOPE_LIST_MAX];
	size_t n_volumes;
	struct envelope_disk disks[ENVELOPE_DISKS_MAX];
	size_t n_disks;
	char root_device[ENVELOPE_DEVICE_MAX];
	char scratch_device[ENVELOPE_DEVICE_MAX];
	char hostname[ENVELOPE_HOSTNAME_MAX + 1];
	uint32_t layers;
	uint32_t flags;
	uint32_t nofile;
	uint32_t vsock_port; /* 0: none */
	char console[ENVELOPE_DEVICE_MAX]; /* "": the kernel's */
	uint32_t stop_signal;
	uint64_t shm_size;
	uint64_t time_ns; /* 0: not given */
	struct bytes resolv_conf, hosts, entropy;
};

/** Read the envelope in @bytes into @out, every value checked. */
int envelope_parse(const void *bytes, size_t size, struct envelope *out, struct husk_error *err);
/** Read and parse the file @path. */
int envelope_read(const char *path, struct envelope *out, struct husk_error *err);
/** Free what the envelope owns; entropy is wiped. */
void envelope_free(struct envelope *envelope);

#endif
