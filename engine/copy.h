/* SPDX-License-Identifier: Apache-2.0 */
/* copy.h - files of a running VM: in, out, as tar, and single ones from memory. Each as its namesake in husk.h, for the VM @id */
#ifndef ENGINE_COPY_H
#define ENGINE_COPY_H

#include "engine/engine.h"

int copy_in(const struct husk *husk, const char *id, const char *from, const char *to,
	const struct husk_copy_options *options, struct husk_error *err);
int copy_out(const struct husk *husk, const char *id, const char *from, const char *to,
	const struct husk_copy_options *options, struct husk_error *err);
int copy_in_tar(const struct husk *husk, const char *id, int fd, const char *to,
	const struct husk_copy_options *options, struct husk_error *err);
int copy_out_tar(const struct husk *husk, const char *id, const char *from, int fd,
	const struct husk_copy_options *options, struct husk_error *err);
int copy_write_file(const struct husk *husk, const char *id, const char *path, const void *data, size_t n,
	uint32_t mode, const struct husk_copy_options *options, struct husk_error *err);
int copy_read_file(const struct husk *husk, const char *id, const char *path, size_t max, void **data, size_t *n,
	const struct husk_copy_options *options, struct husk_error *err);

/** The name by which what is at @path goes into a directory, at most 255 bytes into @name: its last component; "" where what is
 *  in it is meant: "DIR/.", ".", "/". -EINVAL: it ends in "..". */
int copy_own_name(const char *path, char name[256], struct husk_error *err);

#endif
