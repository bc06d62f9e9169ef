/* SPDX-License-Identifier: Apache-2.0 */
/* husk.c - the handle: open, close, clean up, doctor */
#include "base/cleanup.h"
#include "engine/cleanup.h"
#include "engine/doctor.h"
#include "engine/selftest.h"
#include "engine/engine.h"
#include "engine/home.h"
#include "base/adopt.h"

#include <string.h>

const char *husk_version(void)
{
	return HUSK_VERSION;
}

void husk_options_init(struct husk_options *options)
{
	*options = (struct husk_options){.size = sizeof(*options)};
}

static int open_paths(struct husk *husk, const struct husk_options *options, struct husk_error *err)
{
	struct home_environment env;
	const char *from_environment = getenv("HUSK_LIBEXEC");
	home_environment_get(&env);
	int rc = home_resolve(options->home, &env, &husk->home, &husk->runtime, err);
	if (rc < 0)
		return rc;
	if (!options->libexec && from_environment && from_environment[0] != '/')
		return error_set(err, -EINVAL, "HUSK_LIBEXEC='%s' is not an absolute path", from_environment);
	husk->libexec = strdup(options->libexec   ? options->libexec
			       : from_environment ? from_environment
						  : HUSK_LIBEXECDIR);
	if (!husk->libexec)
		return error_set(err, -ENOMEM, "open husk: out of memory");
	return home_make(husk->home, husk->runtime, err);
}

int husk_open(const struct husk_options *given, struct husk **out, struct husk_error *err)
{
	struct husk_options options;
	husk_options_init(&options);
	int rc = given ? adopt_struct(&options, sizeof(options), given, "struct husk_options", err) : 0;
	if (rc < 0)
		return rc;
	struct husk *husk = calloc(1, sizeof(*husk));
	if (!husk)
		return error_set(err, -ENOMEM, "open husk: out of memory");
	husk->notice = options.notice;
	husk->notice_data = options.notice_data;
	rc = open_paths(husk, &options, err);
	if (rc < 0) {
		husk_close(husk);
		return rc;
	}
	*out = husk;
	return 0;
}

void husk_close(struct husk *husk)
{
	if (!husk)
		return;
	free(husk->home);
	free(husk->runtime);
	free(husk->libexec);
	free(husk);
}

const char *husk_home(const struct husk *husk)
{
	return husk->home;
}

const char *husk_runtime(const struct husk *husk)
{
	return husk->runtime;
}

int husk_cleanup(struct husk *husk, size_t *n, struct husk_error *err)
{
	size_t count = 0;
	int rc = cleanup_run(husk, &count, err);
	if (rc == 0 && n)
		*n = count;
	return rc;
}

int husk_doctor(struct husk *husk, const struct husk_error *open_error, struct husk_finding **findings, size_t *n,
	struct husk_error *err)
{
	return doctor_run(husk, open_error, findings, n, err);
}

int husk_selftest(struct husk *husk, struct husk_finding **findings, size_t *n, struct husk_error *err)
{
	return selftest_run(husk, findings, n, err);
}
