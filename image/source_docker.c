/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source_docker.c - images in an archive as `docker save` writes it
 *
 * Theory of operation: manifest.json is an array with an entry per image: the name of its config, the names of its layers
 * (bottom first), its references. There are no digests of the layers as they lie there; their diff IDs, which the config
 * has, are checked when they are converted.
 */
#include "image/source.h"

#include <string.h>

static bool has_tag(const json_t *entry, const struct reference *want)
{
	json_t *tags = json_object_get(entry, "RepoTags");
	CLEANUP_FREE char *wanted = reference_format(want);
	for (size_t i = 0; wanted && i < json_array_size(tags); i++) {
		CLEANUP(reference_free) struct reference have = {0};
		const char *text = json_string_value(json_array_get(tags, i));
		if (!text || reference_parse(text, &have, NULL) < 0)
			continue;
		CLEANUP_FREE char *name = reference_format(&have);
		if (name && strcmp(name, wanted) == 0)
			return true;
	}
	return false;
}

static int choose_entry(const struct source *source, const json_t *list, json_t **out, struct husk_error *err)
{
	const char *what = source->name->canonical;
	*out = NULL;
	if (source->name->selector) {
		CLEANUP(reference_free) struct reference want = {0};
		int rc = reference_parse(source->name->selector, &want, err);
		if (rc < 0)
			return error_prefix(err, rc, "%s", what);
		for (size_t i = 0; !*out && i < json_array_size(list); i++)
			if (has_tag(json_array_get(list, i), &want))
				*out = json_array_get(list, i);
	} else if (json_array_size(list) > 1) {
		return error_set(
			err, -EINVAL, "%s: it holds %zu images; add the reference of one", what, json_array_size(list));
	} else {
		*out = json_array_get(list, 0);
	}
	if (!*out)
		return error_set(err, -ENOENT, "%s: no such image in it", what);
	return json_is_object(*out) ? 0 : error_set(err, -EBADMSG, "%s: manifest.json makes no sense", what);
}

static int take_layers(const json_t *entry, const char *what, struct image_plan *plan, struct husk_error *err)
{
	json_t *layers;
	int rc = json_get_array(entry, "Layers", what, &layers, err);
	if (rc < 0)
		return rc;
	size_t n = json_array_size(layers);
	if (n < 1 || n > MANIFEST_LAYERS_MAX)
		return error_set(err, -EBADMSG, "%s: an image of %zu layers", what, n);
	plan->layers = calloc(n, sizeof(*plan->layers));
	if (!plan->layers)
		return error_set(err, -ENOMEM, "%s: out of memory", what);
	for (plan->n_layers = 0; plan->n_layers < n; plan->n_layers++) {
		const char *member = json_string_value(json_array_get(layers, plan->n_layers));
		if (!member)
			return error_set(err, -EBADMSG, "%s: a layer's name is no string", what);
		plan->layers[plan->n_layers].member = strdup(member);
		if (!plan->layers[plan->n_layers].member)
			return error_set(err, -ENOMEM, "%s: out of memory", what);
	}
	return 0;
}

static int docker_resolve(
	struct source *source, const struct platform *platform, struct image_plan *plan, struct husk_error *err)
{
	const char *what = source->name->canonical, *config;
	CLEANUP_BUFFER struct buffer text = {0};
	CLEANUP_JSON json_t *list = NULL;
	json_t *entry = NULL;
	int rc = tree_read(source->tree, "manifest.json", MANIFEST_BYTES_MAX, &text, err);
	if (rc == 0 && !text.size)
		rc = error_set(err, -EBADMSG, "%s: manifest.json is empty", what);
	if (rc == 0)
		rc = json_read(buffer_bytes(&text), text.size, true, what, &list, err);
	if (rc == 0)
		rc = choose_entry(source, list, &entry, err);
	if (rc == 0)
		rc = json_get_string(entry, "Config", 4096, true, what, &config, err);
	if (rc == 0)
		rc = take_layers(entry, what, plan, err);
	return rc == 0 ? tree_read(source->tree, config, MANIFEST_BYTES_MAX, &plan->config, err) : rc;
}

static int docker_layer(struct source *source, const struct plan_layer *layer, source_progress *progress, void *data,
	int *fd, struct husk_error *err)
{
	return tree_file(source->tree, layer->member, fd, err);
}

const struct source_ops source_docker_ops = {
	.resolve = docker_resolve,
	.layer = docker_layer,
};
