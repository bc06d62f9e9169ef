/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scripted_agent.h - a home with one VM "running" in it, whose agent is a script of the test
 *
 * The record says RUNNING with this process as supervisor; exec.sock is served by a thread that runs the script once for each
 * connection. A script that returns has its connection closed; it must not outlive the test, so its reads end when the library
 * closes its side.
 */
#ifndef TESTS_SCRIPTED_AGENT_H
#define TESTS_SCRIPTED_AGENT_H

#include "agent/protocol.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/state.h"
#include "engine/engine.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define SCRIPTED_ID "0123456789ab"

typedef void agent_script(int fd, void *data);

struct scripted_agent {
	struct husk husk;
	char directory[64], home[96], runtime[96];
	int listener, state_fd;
	struct vm_state_record state;
	pthread_t thread;
	agent_script *script;
	void *data;
	pthread_mutex_t talking; /* held while a script runs */
};

static void *scripted_connection(void *data)
{
	struct scripted_agent *a = data;
	for (;;) {
		int fd = accept4(a->listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			return NULL;
		pthread_mutex_lock(&a->talking);
		a->script(fd, a->data);
		pthread_mutex_unlock(&a->talking);
		close(fd);
	}
}

/** Say what state the record has from now on. */
static void scripted_state(struct scripted_agent *a, enum vm_state state)
{
	a->state.state = state;
	if (state_write(a->state_fd, &a->state, NULL) < 0)
		abort();
}

static void scripted_open(struct scripted_agent *a)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char path[160];
	*a = (struct scripted_agent){.listener = -1, .talking = PTHREAD_MUTEX_INITIALIZER};
	signal(SIGPIPE, SIG_IGN);
	snprintf(a->directory, sizeof(a->directory), "/tmp/husk-test-XXXXXX");
	if (!mkdtemp(a->directory))
		abort();
	snprintf(a->home, sizeof(a->home), "%s/home", a->directory);
	snprintf(a->runtime, sizeof(a->runtime), "%s/run", a->directory);
	a->husk = (struct husk){.home = a->home, .runtime = a->runtime};
	snprintf(path, sizeof(path), "%s/vms/" SCRIPTED_ID, a->home);
	if (path_make_directories(path, 0700, NULL) < 0)
		abort();
	snprintf(path, sizeof(path), "%s/vms/" SCRIPTED_ID "/state", a->home);
	a->state_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	process_identify(getpid(), &a->state.supervisor);
	host_boot_id(a->state.boot_id);
	scripted_state(a, VM_RUNNING);
	snprintf(path, sizeof(path), "%s/" SCRIPTED_ID, a->runtime);
	if (path_make_directories(path, 0700, NULL) < 0)
		abort();
	snprintf(address.sun_path, sizeof(address.sun_path), "%.90s/exec.sock", path);
	a->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(a->listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(a->listener, 128) < 0)
		abort();
}

/** Serve from now on. */
static void scripted_begin(struct scripted_agent *a, agent_script *script, void *data)
{
	a->script = script;
	a->data = data;
	if (!a->thread && pthread_create(&a->thread, NULL, scripted_connection, a))
		abort();
}

/** The script that has begun is over, and what it was given may go. */
static void scripted_settle(struct scripted_agent *a)
{
	pthread_mutex_lock(&a->talking);
	pthread_mutex_unlock(&a->talking);
}

static void scripted_close(struct scripted_agent *a)
{
	shutdown(a->listener, SHUT_RDWR);
	if (a->thread)
		pthread_join(a->thread, NULL);
	close(a->listener);
	close(a->state_fd);
	path_remove_tree(a->directory, NULL);
}

/** The next frame of the library's into @b, whose front it becomes; false at the end. */
static bool scripted_hear(int fd, struct buffer *b, struct agent_frame *frame)
{
	for (;;) {
		long n = b->size ? agent_frame_decode(buffer_bytes(b), b->size, frame) : 0;
		if (n < 0)
			return false;
		if (n > 0) {
			buffer_consume(
				b, (size_t)n); /* the bytes stay where they are until the next one is asked for */
			return true;
		}
		if (buffer_read(b, fd, 65536) <= 0)
			return false;
	}
}

/** Read until the library closes. */
static void scripted_drain(int fd)
{
	char bytes[65536];
	while (read(fd, bytes, sizeof(bytes)) > 0)
		;
}

/** Send all of @b and empty it. */
static void scripted_say(int fd, struct buffer *b)
{
	while (b->size && buffer_write(b, fd) > 0)
		;
	buffer_free(b);
}

#endif
