/* SPDX-License-Identifier: Apache-2.0 */
/*
 * effective.c - the configuration that a VM really has, for its record
 *
 * Theory of operation: what the user gave is written as it is, and over it what husk decided: machine, kernel, rounded sizes,
 * serial numbers. Relative paths become absolute, so that the text means the same from another directory. Host name and
 * ports that are left open stay so: the next VM has others.
 */
#include "engine/effective.h"

#include "base/cleanup.h"
#include "base/path.h"
#include "engine/config_json.h"

#include <string.h>

/** Make the path under @key absolute; nothing when there is none. */
static void make_absolute(json_t *object, const char *key)
{
	const char *path = json_string_value(json_object_get(object, key));
	if (!path || !*path || path[0] == '/')
		return;
	CLEANUP_FREE char *here = getcwd(NULL, 0);
	CLEANUP_FREE char *whole = here ? path_join(here, path) : NULL;
	if (whole)
		json_object_set_new(object, key, json_string(whole));
}

static void fill_kernel(json_t *json, const struct boot *boot)
{
	if (boot->kernel.id)
		json_object_set_new(json, "kernel", json_string(boot->kernel.id));
	else
		make_absolute(json, "kernel");
}

static void fill_lists(json_t *json, const struct open_disks *disks)
{
	json_t *one;
	size_t i;

	json_array_foreach(json_object_get(json, "disks"), i, one)
	{
		make_absolute(one, "path");
		json_object_set_new(one, "serial", json_string(disks->disk[i].serial));
		json_object_set_new(one, "format", json_string("raw"));
	}
	json_array_foreach(json_object_get(json, "doors"), i, one)
	{
		make_absolute(one, "path");
		make_absolute(one, "certificate");
		make_absolute(one, "key");
	}
}

json_t *effective_write(const struct effective *e)
{
	json_t *json = config_json_write(e->config);
	if (!json)
		return NULL;
	json_object_set_new(json, "machine", json_string(machine_name(e->machine->kind)));
	json_object_set_new(json, "memory", json_integer((json_int_t)e->memory));
	json_object_set_new(json, "scratch", json_integer((json_int_t)e->scratch));
	json_object_set_new(json, "listen_wait_ms", json_integer((json_int_t)e->listen_wait_ms));
	json_object_set_new(json, "net", json_string("none"));
	json_object_set_new(json_object_get(json, "vsock"), "port", json_integer(e->vsock_port));
	fill_kernel(json, e->boot);
	make_absolute(json, "initramfs");
	fill_lists(json, e->disks);
	return json;
}
