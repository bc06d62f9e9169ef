/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qmp.h - a client of QEMU's machine protocol (docs/interop/qmp-spec of QEMU)
 *
 * Theory of operation: QMP is one JSON object per line in both directions: a greeting, then answers in the order of the
 * commands, with events in between. The client negotiates by itself and sends commands as they are asked for; before the
 * greeting they wait. All of QEMU's words are hostile: a line has at most QMP_LINE_MAX bytes and QMP_TOKENS_MAX tokens,
 * an answer that nobody waits for or a line that is no JSON ends the connection.
 */
#ifndef VMM_MACHINE_QEMU_QMP_H
#define VMM_MACHINE_QEMU_QMP_H

#include "base/buffer.h"
#include "base/loop.h"
#include "vmm/machine/qemu/json.h"

#define QMP_LINE_MAX 16384
#define QMP_TOKENS_MAX 512
#define QMP_PENDING_MAX 8

/** The answer to a command: @error is NULL, or QEMU's description made printable. */
typedef void qmp_answer_fn(void *data, const char *error);

struct qmp_handler {
	/** @name and the members of @json's object at @at, "data" of the event (-1 when it has none). */
	void (*event)(void *data, const struct json *json, const char *name, long at);
	/** The connection is over: closed (@why NULL) or broken. Called once; the client is silent from then on. */
	void (*closed)(void *data, const char *why);
};

struct qmp {
	struct loop *loop;
	struct loop_watch watch;
	int fd; /* owned; -1 once over */
	struct buffer in, out;
	bool greeted;
	qmp_answer_fn *pending[QMP_PENDING_MAX]; /* whom the next answers are for, oldest first */
	unsigned n_pending;
	const struct qmp_handler *handler;
	void *data;
};

/** Serve the client on @fd (taken on success, made non-blocking). */
int qmp_open(struct qmp *qmp, struct loop *loop, int fd, const struct qmp_handler *handler, void *data,
	struct husk_error *err);
void qmp_close(struct qmp *qmp);

/** Send @command with @arguments (a JSON object; NULL: none); @answer, which gets the handler's data, may be NULL. 0, -EPIPE when the connection
 *  is over, -EBUSY when QMP_PENDING_MAX answers are awaited. */
int qmp_execute(struct qmp *qmp, const char *command, const char *arguments, qmp_answer_fn *answer);

#endif
