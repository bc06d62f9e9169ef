/* SPDX-License-Identifier: Apache-2.0 */
/* verb_pull.c - husk-image pull and import */
#include "image/progress.h"
#include "image/pull.h"
#include "image/verbs.h"

#include <getopt.h>
#include <string.h>

enum { OPTION_PLATFORM = 256, OPTION_OFFLINE, OPTION_QUIET, OPTION_POLICY };

static const struct option options[] = {
	{"platform", required_argument, NULL, OPTION_PLATFORM},
	{"offline", no_argument, NULL, OPTION_OFFLINE},
	{"quiet", no_argument, NULL, OPTION_QUIET},
	{"policy", required_argument, NULL, OPTION_POLICY},
	{0},
};

static int parse_policy(const char *text, enum pull_policy *out, struct husk_error *err)
{
	static const char *const names[] = {
		[PULL_MISSING] = "missing", [PULL_ALWAYS] = "always", [PULL_NEVER] = "never"};
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strcmp(text, names[i]) == 0) {
			*out = (enum pull_policy)i;
			return 0;
		}
	return error_set(err, -EINVAL, "policy '%.80s': missing, always or never", text);
}

static int run(struct store *store, struct pull_request *request, bool import, int argc, char **argv,
	struct buffer *out, struct husk_error *err)
{
	bool quiet = false;
	int rc = 0, option;
	while (rc == 0 && (option = getopt_long(argc, argv, "+", options, NULL)) != -1) {
		if (option == OPTION_PLATFORM)
			request->platform = optarg;
		else if (option == OPTION_OFFLINE)
			request->offline = true;
		else if (option == OPTION_QUIET)
			quiet = true;
		else if (option == OPTION_POLICY)
			rc = parse_policy(optarg, &request->policy, err);
		else
			return error_set(err, -EINVAL, "%s: unknown or incomplete option", argv[0]);
	}
	int left = argc - optind;
	if (rc == 0 && (left < 1 || left > (import ? 2 : 1)))
		rc = error_set(err, -EINVAL, "usage: %s SOURCE%s", argv[0], import ? " [NAME]" : "");
	if (rc < 0)
		return rc;
	char id[DIGEST_MAX];
	request->source = import && strcmp(argv[optind], "-") == 0 ? "tar:-" : argv[optind];
	request->name = left > 1 ? argv[optind + 1] : NULL;
	progress_open(quiet);
	rc = pull_image(store, request, id, err);
	return rc == 0 ? buffer_printf(out, "%s\n", id) : rc;
}

int verb_pull(struct store *store, int argc, char **argv, struct buffer *out, struct husk_error *err)
{
	return run(store, &(struct pull_request){.policy = PULL_MISSING}, false, argc, argv, out, err);
}

int verb_import(struct store *store, int argc, char **argv, struct buffer *out, struct husk_error *err)
{
	return run(store, &(struct pull_request){.policy = PULL_MISSING}, true, argc, argv, out, err);
}
