/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer-tool.c - image/layer.h from the command line, for tests and benches
 *
 *     layer-tool convert TAR OUT        one layer
 *     layer-tool merge TAR... OUT       several, bottom first
 *     layer-tool tree DIRECTORY OUT     a root file system
 *
 * Prints a line per layer: diff ID, size, entries, dropped ACLs, needs_lower. LAYER_MAX_ENTRIES sets the cap.
 */
#include "base/cleanup.h"
#include "image/layer.h"

#include <fcntl.h>
#include <string.h>

static int fail(const struct husk_error *err)
{
	fprintf(stderr, "layer-tool: %s\n", err->message);
	return 1;
}

static void print_result(const struct layer_result *r)
{
	printf("%s %llu %llu %llu %s\n", r->diff_id, (unsigned long long)r->size, (unsigned long long)r->entries,
		(unsigned long long)r->dropped_acls, r->needs_lower ? "needs-lower" : "whole");
}

static int merge(char **paths, size_t n, int out, const struct layer_options *options, struct husk_error *err)
{
	CLEANUP_FREE struct layer_source *sources = calloc(n, sizeof(*sources));
	CLEANUP_FREE struct layer_result *results = calloc(n, sizeof(*results));
	for (size_t i = 0; i < n; i++) {
		sources[i] = (struct layer_source){.fd = open(paths[i], O_RDONLY | O_CLOEXEC), .name = paths[i]};
		if (sources[i].fd < 0)
			return error_errno(err, "open %s", paths[i]);
	}
	int r = layer_merge(sources, n, out, options, results, err);
	for (size_t i = 0; i < n; i++) {
		if (r == 0)
			print_result(&results[i]);
		close(sources[i].fd);
	}
	return r;
}

static int single(
	const char *verb, const char *path, int out, const struct layer_options *options, struct husk_error *err)
{
	struct layer_result result;
	int r;
	if (strcmp(verb, "tree") == 0) {
		r = layer_from_tree(path, out, options, &result, err);
	} else {
		struct layer_source source = {.name = path, .fd = 0};
		if (strcmp(path, "-") != 0)
			source.fd = open(path, O_RDONLY | O_CLOEXEC);
		if (source.fd < 0)
			return error_errno(err, "open %s", path);
		r = layer_convert(&source, out, options, &result, err);
		close(source.fd);
	}
	if (r == 0)
		print_result(&result);
	return r;
}

int main(int argc, char **argv)
{
	struct husk_error err = {0};
	const char *max = getenv("LAYER_MAX_ENTRIES");
	const struct layer_options options = {.max_entries = max ? strtoull(max, NULL, 10) : 0};
	if (argc < 4) {
		fprintf(stderr, "usage: layer-tool convert|merge|tree FILE... OUT\n");
		return 2;
	}
	CLEANUP_FD int out = open(argv[argc - 1], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (out < 0) {
		error_errno(&err, "open %s", argv[argc - 1]);
		return fail(&err);
	}
	int r = strcmp(argv[1], "merge") == 0 ? merge(argv + 2, (size_t)argc - 3, out, &options, &err)
					      : single(argv[1], argv[2], out, &options, &err);
	return r < 0 ? fail(&err) : 0;
}
