/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - the command `husk`: find the verb, read its options by its table, run it
 *
 * The command uses nothing but the public API (and base/ for strings and numbers), so whatever it can do a program can do.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "base/path.h"
#include "cli/cli.h"

#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>

void cli_say(const char *format, ...)
{
	char line[HUSK_ERROR_MESSAGE_MAX + 256];
	va_list ap;
	va_start(ap, format);
	vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	for (char *c = line; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	fprintf(stderr, "husk: %s\n", line);
}

int cli_fail(const struct husk_error *err, int status)
{
	cli_say("%s", err->message);
	return status;
}

int cli_progress_fd(const struct cli *cli)
{
	return cli->quiet ? -1 : STDERR_FILENO;
}

static void on_notice(void *data, enum husk_notice kind, const char *line)
{
	const struct cli *cli = data;
	if (kind == HUSK_NOTICE_WALL && cli->quiet)
		return;
	if (kind == HUSK_NOTICE_CONSOLE)
		fprintf(stderr, "husk: console: %s\n", line);
	else
		cli_say("%s", line);
}

/** In a build tree and in a relocated installation the helpers lie beside us. malloc'ed, or NULL. */
static char *find_libexec(void)
{
	static const char *const places[] = {"../libexec", "../libexec/husk"};
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (n <= 0 || getenv("HUSK_LIBEXEC"))
		return NULL;
	self[n] = 0;
	*strrchr(self, '/') = 0;
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		char *directory = path_join(self, places[i]);
		CLEANUP_FREE char *helper = directory ? path_join(directory, "husk-vmm") : NULL;
		char *resolved = helper && access(helper, X_OK) == 0 ? realpath(directory, NULL) : NULL;
		free(directory);
		if (resolved)
			return resolved;
	}
	return NULL;
}

char *cli_libexec(void)
{
	const char *from_environment = getenv("HUSK_LIBEXEC");
	char *beside = from_environment ? NULL : find_libexec();
	return beside ? beside : strdup(from_environment ? from_environment : HUSK_LIBEXECDIR);
}

int cli_open(struct cli *cli, struct husk_error *err)
{
	CLEANUP_FREE char *libexec = find_libexec();
	struct husk_options options;
	husk_options_init(&options);
	options.libexec = libexec;
	options.notice = on_notice;
	options.notice_data = cli;
	int rc = husk_open(&options, &cli->husk, err);
	return rc < 0 || cli->verb->looks ? rc : husk_cleanup(cli->husk, NULL, err);
}

static const char *next_verb(const void *data, size_t i)
{
	return cli_verbs[i].name;
}

/** Exit status of a command line that is wrong: Docker's, 125 for run and 1 elsewhere. */
static int wrong_status(const struct verb *verb)
{
	return verb->own ? CLI_FAILED : 1;
}

static int unknown_verb(const char *const *argv, size_t n)
{
	bool asked = n > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
	if ((n == 1 || asked) && cli_print_group(asked ? stdout : stderr, argv[0]))
		return asked ? 0 : 1;
	CLEANUP_FREE char *two = n > 1 ? path_format("%s %s", argv[0], argv[1]) : NULL;
	const char *near = two && cli_is_group(argv[0]) ? cli_suggest(two, next_verb, NULL) : NULL;
	if (!near)
		near = cli_suggest(argv[0], next_verb, NULL);
	if (!near && two)
		near = cli_suggest(two, next_verb, NULL);
	for (const struct verb *verb = cli_verbs; verb->name && !near; verb++)
		if (strncmp(verb->name, argv[0], strlen(argv[0])) == 0 && verb->name[strlen(argv[0])] == ' ')
			near = verb->name;
	if (near && two && cli_is_group(argv[0]))
		cli_say("unknown command '%s'; did you mean 'husk %s'?", two, near);
	else if (near)
		cli_say("unknown command '%s'; did you mean 'husk %s'?", argv[0], near);
	else
		cli_say("unknown command '%s'; 'husk --help' lists them", argv[0]);
	return 1;
}

static int run_verb(const struct verb *verb, const char *const *argv, size_t n)
{
	CLEANUP(cli_free) struct cli cli = {0};
	struct husk_error err;
	if (cli_parse(&cli, verb, argv, n, &err) < 0) {
		cli_fail(&err, 0);
		fprintf(stderr, "See 'husk %s --help'.\n", verb->name);
		return wrong_status(verb);
	}
	if (cli.help) {
		cli_print_help(stdout, verb);
		return 0;
	}
	cli.quiet = cli_flag(&cli, "quiet");
	if (!verb->bare && cli_open(&cli, &err) < 0)
		return cli_fail(&err, wrong_status(verb));
	return verb->run(&cli);
}

/** What was printed has to have arrived. */
static int finish(int status)
{
	if ((fflush(stdout) != 0 || ferror(stdout)) && status == 0) {
		cli_say("write to stdout: %s", strerror(errno));
		return 1;
	}
	return status;
}

/** With 0, 1 or 2 closed the next file that is opened would become a standard stream. */
static void fill_standard_streams(void)
{
	int fd;
	while ((fd = open("/dev/null", O_RDWR)) >= 0 && fd < 3)
		;
	if (fd >= 3)
		close(fd);
}

int main(int argc, char **argv)
{
	const char *const *words = (const char *const *)argv + 1;
	size_t n = argc > 0 ? (size_t)argc - 1 : 0, used;
	fill_standard_streams();
	if (n == 0) {
		cli_print_overview(stderr);
		return 1;
	}
	if (strcmp(words[0], "--help") == 0 || strcmp(words[0], "-h") == 0) {
		cli_print_overview(stdout);
		return finish(0);
	}
	if (strcmp(words[0], "--version") == 0 || strcmp(words[0], "-v") == 0) {
		printf("husk %s\n", husk_version());
		return finish(0);
	}
	const struct verb *verb = cli_find_verb(words, n, &used);
	if (!verb)
		return unknown_verb(words, n);
	return finish(run_verb(verb, words + used, n - used));
}
