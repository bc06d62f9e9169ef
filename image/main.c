/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - husk-image: the program that fetches, parses and stores images
 *
 * husk-image is called by libhusk, never by users; it is a process of its own because it parses hostile bytes.
 *
 *     husk-image [--home DIR] VERB …
 *
 *     pull [--platform P] [--offline] [--quiet] [--policy missing|always|never] SOURCE    prints the image id
 *     import [--platform P] [--quiet] SOURCE|- [NAME]     the same for a local source, "-" a tar on standard input
 *     images [--format json]                              JSON array, newest first
 *     inspect REF                                         JSON object
 *     rmi [-f] REF…             removes a name, and with its last name the image; lines say what went
 *     gc [--images] [--dry-run] removes what nothing refers to; images that no VM uses, too
 *     login -u USER --password-stdin [HOST], logout [HOST]
 *     tar-in                    a tar on stdin as the agent's frames of a tree on stdout (verb_tar.c)
 *     tar-out NAME              and the other way round; NAME is the root's
 *
 * Results go to stdout and only when all went well; progress goes to stderr. Exit status 0; 1 with one line
 * "husk-image: MESSAGE" on stderr, or, when HUSK_ERROR_FD names a descriptor, "CODE MESSAGE" there (CODE is a negative
 * errno value); 130 when SIGINT or SIGTERM came.
 *
 * Theory of operation: the verb runs in a thread, the main thread draws progress and watches for signals. A signal sets a
 * flag that transfers and waits look at; a conversion does not, so after a moment the main thread ends the process itself
 * and removes the temporary files under way. What is kept of a cancelled pull is the downloaded part of its layers.
 */
#include "base/fd.h"
#include "base/loop.h"
#include "base/path.h"
#include "image/confine.h"
#include "image/progress.h"
#include "image/verbs.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define TICK_NS 50000000
#define GRACE_NS 300000000 /* from a signal to the end of a verb that does not listen */

static const struct {
	const char *name;
	verb_fn *fn;
} verbs[] = {
	{"pull", verb_pull},
	{"import", verb_import},
	{"images", verb_images},
	{"inspect", verb_inspect},
	{"rmi", verb_rmi},
	{"gc", verb_gc},
	{"login", verb_login},
	{"logout", verb_logout},
	{"tar-in", verb_tar_in},
	{"tar-out", verb_tar_out},
};

/** 1: a signal came, 2: a part failed and the others are to stop. Signal handlers write it. */
static volatile int stop;

static void on_signal(int number)
{
	stop = 1;
}

/** The verb under way. */
struct run {
	struct store store;
	verb_fn *fn;
	int argc;
	char **argv;
	struct buffer out;
	struct husk_error err;
	int rc;
	pthread_mutex_t lock;
	pthread_cond_t done_changed;
	bool done;
};

static void *run_verb(void *data)
{
	struct run *run = data;
	int rc = run->fn(&run->store, run->argc, run->argv, &run->out, &run->err);
	pthread_mutex_lock(&run->lock);
	run->rc = rc;
	run->done = true;
	pthread_cond_signal(&run->done_changed);
	pthread_mutex_unlock(&run->lock);
	return NULL;
}

/** The line of a failure, to whoever asked for it. */
static void report_error(int code, const char *message)
{
	const char *text = getenv("HUSK_ERROR_FD");
	char *end;
	long fd = text && *text ? strtol(text, &end, 10) : -1;
	CLEANUP_FREE char *line = NULL;
	if (fd >= 0 && *end == 0 && fd < 1 << 20)
		line = path_format("%d %s\n", code, message);
	else
		fd = -1;
	if (line && fd_write_all((int)fd, line, strlen(line)) == 0)
		return;
	fprintf(stderr, "husk-image: %s\n", message);
}

/** A verb that was told to stop and did not: end without it. */
static void end_now(struct run *run)
{
	progress_close();
	store_temporaries_discard(&run->store);
	report_error(-ECANCELED, "cancelled");
	_exit(130);
}

static bool wait_tick(struct run *run)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += TICK_NS;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&run->lock);
	if (!run->done)
		pthread_cond_timedwait(&run->done_changed, &run->lock, &until);
	bool done = run->done;
	pthread_mutex_unlock(&run->lock);
	return done;
}

static int run_watched(struct run *run)
{
	pthread_t thread;
	uint64_t stopped = 0;
	if (pthread_create(&thread, NULL, run_verb, run) != 0)
		return run->rc = error_set(&run->err, -EAGAIN, "start a thread");
	while (!wait_tick(run)) {
		progress_tick();
		uint64_t now = clock_monotonic_ns();
		if (stop == 1 && !stopped)
			stopped = now;
		if (stopped && now - stopped > GRACE_NS)
			end_now(run);
	}
	pthread_join(thread, NULL);
	progress_close();
	return run->rc;
}

/** HUSK_HOME, else the place for root or for others. */
static char *default_home(void)
{
	const char *home = getenv("HUSK_HOME"), *data = getenv("XDG_DATA_HOME"), *user = getenv("HOME");
	if (home && *home)
		return strdup(home);
	if (geteuid() == 0)
		return strdup("/var/lib/husk");
	if (data && data[0] == '/')
		return path_join(data, "husk");
	return user && *user ? path_join(user, ".local/share/husk") : NULL;
}

static int find_verb(struct run *run, int argc, char **argv, char **home)
{
	int at = 1;
	if (argc > 2 && strcmp(argv[1], "--home") == 0) {
		*home = strdup(argv[2]);
		at = 3;
	} else {
		*home = default_home();
	}
	if (!*home || !**home)
		return error_set(&run->err, -EINVAL, "no home directory: set HUSK_HOME or HOME");
	for (size_t i = 0; at < argc && i < ARRAY_SIZE(verbs); i++)
		if (strcmp(argv[at], verbs[i].name) == 0) {
			run->fn = verbs[i].fn;
			run->argc = argc - at;
			run->argv = argv + at;
			return 0;
		}
	return error_set(&run->err, -EINVAL, "usage: husk-image [--home DIR] VERB ...");
}

static void set_signals(void)
{
	struct sigaction action = {.sa_handler = on_signal}, ignore = {.sa_handler = SIG_IGN};
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	sigaction(SIGPIPE, &ignore, NULL);
}

int main(int argc, char **argv)
{
	struct run run = {
		.store = {.say = progress_say, .stop = &stop},
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.done_changed = PTHREAD_COND_INITIALIZER,
	};
	CLEANUP_FREE char *home = NULL;
	umask(077);
	set_signals();
	opterr = 0;
	int rc = find_verb(&run, argc, argv, &home);
	if (rc == 0)
		rc = store_open(&run.store, home, &run.err);
	if (rc == 0)
		rc = confine(&run.store, run.argc, run.argv, &run.err);
	if (rc == 0)
		rc = run_watched(&run);
	/* What rmi did before it failed is said all the same. */
	if (run.out.size)
		fd_write_all(STDOUT_FILENO, buffer_bytes(&run.out), run.out.size);
	buffer_free(&run.out);
	store_close(&run.store);
	if (rc >= 0)
		return 0;
	if (stop == 1)
		rc = error_set(&run.err, -ECANCELED, "cancelled");
	report_error(rc, run.err.message);
	return stop == 1 ? 130 : 1;
}
