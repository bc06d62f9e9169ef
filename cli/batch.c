/* SPDX-License-Identifier: Apache-2.0 */
/*
 * batch.c - one operation on each of the VMs that a command line names
 *
 * Theory of operation: a stop may take ten seconds, so VMs are worked on side by side, by a few threads that take the operands in
 * their order. What became of each is told in that order too, as soon as it and those before it are done.
 */
#include "cli/batch.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <pthread.h>
#include <string.h>

#define THREADS_MAX 16

/** What became of one operand. */
struct job {
	int rc;
	bool done;
	struct husk_error err;
};

struct batch {
	const struct cli *cli;
	batch_fn *fn;
	void *data;
	struct job *jobs; /* one per operand */
	pthread_mutex_t lock; /* of what follows and of the jobs' `done` */
	pthread_cond_t changed;
	size_t next;
};

static int do_one(const struct batch *batch, const char *operand, struct husk_error *err)
{
	struct husk_vm *vm;
	int rc = husk_vm_open(batch->cli->husk, operand, &vm, err);
	if (rc < 0)
		return rc;
	rc = batch->fn(vm, batch->data, err);
	husk_vm_close(vm);
	return rc;
}

/** The next operand that nobody works on, or n_operands. */
static size_t take(struct batch *batch)
{
	pthread_mutex_lock(&batch->lock);
	size_t i = batch->next < batch->cli->n_operands ? batch->next++ : batch->cli->n_operands;
	pthread_mutex_unlock(&batch->lock);
	return i;
}

static void *work(void *argument)
{
	struct batch *batch = argument;
	for (size_t i; (i = take(batch)) < batch->cli->n_operands;) {
		struct job *job = &batch->jobs[i];
		job->rc = do_one(batch, batch->cli->operands[i], &job->err);
		pthread_mutex_lock(&batch->lock);
		job->done = true;
		pthread_cond_broadcast(&batch->changed);
		pthread_mutex_unlock(&batch->lock);
	}
	return NULL;
}

static int tell(struct batch *batch, size_t i, bool gone)
{
	struct job *job = &batch->jobs[i];
	pthread_mutex_lock(&batch->lock);
	while (!job->done)
		pthread_cond_wait(&batch->changed, &batch->lock);
	pthread_mutex_unlock(&batch->lock);
	if (job->rc < 0)
		return cli_fail(&job->err, gone && job->rc == -ENOENT ? 0 : 1);
	puts(batch->cli->operands[i]);
	fflush(stdout);
	return 0;
}

int batch_run(struct cli *cli, batch_fn *fn, void *data, bool gone)
{
	struct batch batch = {.cli = cli, .fn = fn, .data = data};
	pthread_t threads[THREADS_MAX];
	size_t n = 0;
	int status = 0;
	CLEANUP_FREE struct job *jobs = calloc(cli->n_operands, sizeof(*jobs));
	if (!jobs) {
		cli_say("%s: out of memory", cli->verb->name);
		return 1;
	}
	batch.jobs = jobs;
	pthread_mutex_init(&batch.lock, NULL);
	pthread_cond_init(&batch.changed, NULL);
	while (cli->n_operands > 1 && n < cli->n_operands && n < THREADS_MAX &&
		pthread_create(&threads[n], NULL, work, &batch) == 0)
		n++;
	if (n == 0)
		work(&batch); /* one VM, or no thread to be had: all of them here, one after the other */
	for (size_t i = 0; i < cli->n_operands; i++)
		status |= tell(&batch, i, gone);
	while (n > 0)
		pthread_join(threads[--n], NULL);
	pthread_cond_destroy(&batch.changed);
	pthread_mutex_destroy(&batch.lock);
	return status;
}
