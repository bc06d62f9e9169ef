/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry-tool.c - drives the registry client for tests/registry_test.py
 *
 *     registry-tool [-c CONFIG] [-b BASE_MS] [-s STALL_MS] [-k CANCEL_MS] VERB …
 *         manifest REF [SELECTOR]         type and digest on stdout's first line, then the bytes
 *         blob REF DIGEST SIZE FILE
 *         blobs REF (DIGEST SIZE FILE)…   at once, a thread each
 *         login HOST USER PASSWORD | logout HOST
 *
 * Errors go to stderr as "error CODE: MESSAGE", notices as "notice: TEXT".
 */
#include "base/cleanup.h"
#include "image/registry.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>

static volatile int cancelled;

static void on_notice(void *data, const char *text)
{
	fprintf(stderr, "notice: %s\n", text);
}

static void on_alarm(int signal)
{
	cancelled = 1;
}

static int fail(const struct husk_error *err)
{
	fprintf(stderr, "error %d: %s\n", -err->code, err->message);
	return 1;
}

static int run_manifest(struct registry *registry, const struct reference *ref, const char *selector)
{
	CLEANUP_BUFFER struct buffer body = {0};
	struct husk_error err;
	char type[128], digest[DIGEST_MAX];
	if (registry_manifest(registry, ref, selector, &body, type, digest, &err) < 0)
		return fail(&err);
	printf("%s %s\n", type, digest);
	return fwrite(buffer_bytes(&body), 1, body.size, stdout) != body.size;
}

struct job {
	struct registry *registry;
	const struct reference *ref;
	char **argv;
	uint64_t seen;
	int rc;
};

static void on_progress(void *data, uint64_t bytes)
{
	((struct job *)data)->seen = bytes;
}

static void *run_blob(void *data)
{
	struct job *job = data;
	struct husk_error err;
	uint64_t size = strtoull(job->argv[1], NULL, 10);
	CLEANUP_FD int fd = open(job->argv[2], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	job->rc = registry_blob(job->registry, job->ref, job->argv[0], size, fd, on_progress, job, &err);
	if (job->rc < 0)
		fail(&err);
	else if (job->seen != size)
		job->rc = fprintf(stderr, "error 0: progress ended at %llu\n", (unsigned long long)job->seen);
	return NULL;
}

static int run_blobs(struct registry *registry, const struct reference *ref, char **argv, int n)
{
	struct job jobs[16];
	pthread_t threads[16];
	int failed = 0;
	for (int i = 0; i < n; i++) {
		jobs[i] = (struct job){.registry = registry, .ref = ref, .argv = argv + 3 * i};
		if (pthread_create(&threads[i], NULL, run_blob, &jobs[i]) != 0)
			return 2;
	}
	for (int i = 0; i < n; i++) {
		pthread_join(threads[i], NULL);
		failed |= jobs[i].rc != 0;
	}
	return failed;
}

static int run(struct registry *registry, int argc, char **argv)
{
	CLEANUP(reference_free) struct reference ref = {0};
	struct husk_error err;
	const char *verb = argc > 1 ? argv[0] : "";
	if (strcmp(verb, "login") == 0 && argc == 4)
		return registry_login(registry, argv[1], argv[2], argv[3], &err) < 0 ? fail(&err) : 0;
	if (strcmp(verb, "logout") == 0 && argc == 2)
		return registry_logout(registry, argv[1], &err) < 0 ? fail(&err) : 0;
	if (argc > 1 && reference_parse(argv[1], &ref, &err) < 0)
		return fail(&err);
	if (strcmp(verb, "manifest") == 0 && argc < 4)
		return run_manifest(registry, &ref, argc == 3 ? argv[2] : NULL);
	if (strncmp(verb, "blob", 4) == 0 && argc >= 5 && (argc - 2) % 3 == 0 && argc <= 50)
		return run_blobs(registry, &ref, argv + 2, (argc - 2) / 3);
	fprintf(stderr, "usage: see the head of registry-tool.c\n");
	return 2;
}

int main(int argc, char **argv)
{
	struct registry_options options = {.notice = on_notice, .cancelled = &cancelled};
	struct registry *registry;
	struct husk_error err;
	int option, cancel_ms = 0;
	while ((option = getopt(argc, argv, "+c:b:s:k:")) != -1) {
		if (option == 'c')
			options.docker_config = optarg;
		else if (option == 'b')
			options.retry_base_ms = (uint32_t)atoi(optarg);
		else if (option == 's')
			options.stall_ms = (uint32_t)atoi(optarg);
		else if (option == 'k')
			cancel_ms = atoi(optarg);
		else
			return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	signal(SIGALRM, on_alarm);
	if (cancel_ms) {
		timer_t timer;
		struct itimerspec when = {.it_value = {cancel_ms / 1000, cancel_ms % 1000 * 1000000L}};
		if (timer_create(CLOCK_MONOTONIC, NULL, &timer) < 0 || timer_settime(timer, 0, &when, NULL) < 0)
			return 2;
	}
	if (registry_open(&options, &registry, &err) < 0)
		return fail(&err);
	int rc = run(registry, argc - optind, argv + optind);
	registry_close(registry);
	return rc;
}
