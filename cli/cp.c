/* SPDX-License-Identifier: Apache-2.0 */
/* cp.c - husk cp: files and trees between host and guest, "-" for a tar archive */
#include "base/cleanup.h"
#include "base/error.h"
#include "base/loop.h"
#include "base/path.h"
#include "cli/run.h"
#include "cli/verbs.h"

#include <string.h>

#define PROGRESS_AFTER_NS 1000000000ull
#define PROGRESS_EVERY_NS 200000000ull

/** One side of a copy: VM:PATH, or a path of the host's; "-" is an archive. */
struct place {
	char *vm; /* NULL: the host */
	char *path;
};

/** What is told while it runs. */
struct progress {
	bool wanted, shown;
	uint64_t begun_ns, said_ns;
};

static void place_free(struct place *place)
{
	free(place->vm);
	free(place->path);
}

/** As Docker has it: what begins with '/' or '.' is of the host, whatever colons it has. A guest's path begins at its root. */
static int parse_place(const char *text, struct place *place, struct husk_error *err)
{
	const char *colon = text[0] == '/' || text[0] == '.' ? NULL : strchr(text, ':');
	if (colon == text || (colon && !colon[1]))
		return error_set(err, -EINVAL, "'%s' is not VM:PATH", text);
	if (colon) {
		place->vm = strndup(text, (size_t)(colon - text));
		place->path = path_format("%s%s", colon[1] == '/' ? "" : "/", colon + 1);
	} else {
		place->path = strdup(text);
	}
	return place->path && (!colon || place->vm) ? 0 : error_set(err, -ENOMEM, "cp: out of memory");
}

static void show_progress(void *data, uint64_t bytes)
{
	struct progress *p = data;
	uint64_t now = clock_monotonic_ns();
	if (!p->wanted || now - p->begun_ns < PROGRESS_AFTER_NS || now - p->said_ns < PROGRESS_EVERY_NS)
		return;
	p->said_ns = now;
	p->shown = true;
	double seconds = (double)(now - p->begun_ns) / 1e9, mib = (double)bytes / (1 << 20);
	fprintf(stderr, "\rcopied %.1f MiB, %.1f MiB/s\033[K", mib, mib / seconds);
}

static void clear_progress(struct progress *p)
{
	if (p->shown)
		fprintf(stderr, "\r\033[K");
	p->shown = false;
}

/** A name of the guest's may hold anything. */
static void say_skipped(void *data, const char *name, const char *why)
{
	char text[512];
	size_t i = 0;
	for (; name[i] && i + 1 < sizeof(text); i++)
		text[i] = name[i] >= 0x20 && name[i] < 0x7f ? name[i] : '?';
	text[i] = 0;
	clear_progress(data);
	cli_say("not copied: '%s' is %s", text, why);
}

static int check_places(const struct place *from, const struct place *to, struct husk_error *err)
{
	if (!from->vm == !to->vm)
		return error_set(err, -EINVAL,
			from->vm ? "copying from one VM to another is not possible: go by a file of the host, or 'husk "
				   "cp "
				   "VM:PATH - | husk cp - VM:PATH'"
				 : "one of the two places has to be VM:PATH");
	if (to->vm && strcmp(from->path, "-") == 0 && isatty(STDIN_FILENO))
		return error_set(err, -EINVAL, "stdin is a terminal, where a tar archive is wanted");
	if (from->vm && strcmp(to->path, "-") == 0 && isatty(STDOUT_FILENO))
		return error_set(err, -EINVAL, "stdout is a terminal, which a tar archive would garble");
	return 0;
}

static int copy(struct husk_vm *vm, const struct place *from, const struct place *to,
	const struct husk_copy_options *options, struct husk_error *err)
{
	if (to->vm)
		return strcmp(from->path, "-") == 0 ? husk_vm_copy_in_tar(vm, STDIN_FILENO, to->path, options, err)
						    : husk_vm_copy_in(vm, from->path, to->path, options, err);
	return strcmp(to->path, "-") == 0 ? husk_vm_copy_out_tar(vm, from->path, STDOUT_FILENO, options, err)
					  : husk_vm_copy_out(vm, from->path, to->path, options, err);
}

int verb_cp(struct cli *cli)
{
	CLEANUP(place_free) struct place from = {0}, to = {0};
	struct progress progress = {.begun_ns = clock_monotonic_ns()};
	struct husk_copy_options options;
	struct run_signals signals;
	struct husk_vm *vm = NULL;
	struct husk_error err;
	husk_copy_options_init(&options);
	options.archive = cli_flag(cli, "archive");
	options.follow = cli_flag(cli, "follow-link");
	options.user = cli_value(cli, "user");
	options.skipped = say_skipped;
	options.progress = show_progress;
	options.data = &progress;
	progress.wanted = !cli_flag(cli, "quiet") && isatty(STDERR_FILENO);
	int rc = parse_place(cli->operands[0], &from, &err);
	rc = rc < 0 ? rc : parse_place(cli->operands[1], &to, &err);
	rc = rc < 0 ? rc : check_places(&from, &to, &err);
	rc = rc < 0 ? rc : husk_vm_open(cli->husk, from.vm ? from.vm : to.vm, &vm, &err);
	rc = rc < 0 ? rc : run_signals_open(&signals, &err);
	if (rc < 0) {
		husk_vm_close(vm);
		return cli_fail(&err, 1);
	}
	options.cancel_fd = signals.ending;
	rc = copy(vm, &from, &to, &options, &err);
	clear_progress(&progress);
	int status = rc == -ECANCELED ? 128 + run_signals_take(signals.ending) : rc < 0 ? cli_fail(&err, 1) : 0;
	run_signals_close(&signals);
	husk_vm_close(vm);
	return status;
}
