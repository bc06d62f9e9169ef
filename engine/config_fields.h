/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_fields.h - the fields of a VM's configuration: their names, kinds and places, once
 *
 * Theory of operation: struct husk_vm_config and the JSON of docs/configuration.md are the same thing in two forms. One table
 * says of each field what it is called, which kind of value it has and where that lies in the struct; reading and writing JSON
 * (config_json.c) walk it, so that what one writes the other reads. Descriptors are not in it: they mean something in the
 * caller's process only.
 */
#ifndef ENGINE_CONFIG_FIELDS_H
#define ENGINE_CONFIG_FIELDS_H

#include <husk.h>
#include <stddef.h>

enum config_kind {
	CONFIG_TEXT = 1, /* const char * */
	CONFIG_TEXTS, /* const char *const *, NULL-terminated */
	CONFIG_FLAG, /* bool */
	CONFIG_U16,
	CONFIG_U32,
	CONFIG_BYTES, /* u64; in JSON a number or a size as in "512M" */
	CONFIG_TIME, /* u64 milliseconds; in JSON a number or a duration as in "1.5s" */
	CONFIG_CHOICE, /* an enum; in JSON one of `choices` */
	CONFIG_GROUP, /* fields of the same struct that are an object in JSON */
	CONFIG_LIST, /* a list of structs with a size in front, objects in JSON */
};

/** A field. An array of them ends with a NULL name.
 *  offset:  in the struct
 *  choices: CHOICE: names by value, NULL in the gaps
 *  fields:  GROUP, LIST: what is in an object
 *  size:    LIST: of one struct; CHOICE: how many choices
 *  count:   LIST: offset of the number of structs, a size_t */
struct config_field {
	const char *name;
	enum config_kind kind;
	size_t offset;
	const char *const *choices;
	const struct config_field *fields;
	size_t size, count;
};

/** What husk_vm_config_init() sets. */
extern const struct husk_vm_config config_defaults;

/** Of struct husk_vm_config. */
extern const struct config_field config_fields[];

#endif
