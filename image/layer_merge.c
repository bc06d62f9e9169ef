#include "image/layer.h"
int layer_merge(const struct layer_source *sources, size_t n, int out_fd, const struct layer_options *options,
	struct layer_result *results, struct husk_error *err)
{
	return error_set(err, -ENOSYS, "not yet");
}
int layer_from_tree(const char *path, int out_fd, const struct layer_options *options, struct layer_result *result,
	struct husk_error *err)
{
	return error_set(err, -ENOSYS, "not yet");
}
