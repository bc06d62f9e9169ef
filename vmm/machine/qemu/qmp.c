/* SPDX-License-Identifier: Apache-2.0 */
/* qmp.c - a client of QEMU's machine protocol (theory of operation: qmp.h) */
#include "vmm/machine/qemu/qmp.h"

#include "base/cleanup.h"
#include "base/fd.h"

#include <string.h>

static void qmp_over(struct qmp *q, const char *why)
{
	if (q->fd < 0)
		return;
	loop_remove(q->loop, &q->watch);
	close(steal_fd(&q->fd));
	q->handler->closed(q->data, why);
}

static void flush(struct qmp *q)
{
	if (q->out.size && q->greeted) {
		ssize_t n = buffer_write(&q->out, q->fd);
		if (n < 0 && n != -EAGAIN && n != -EINTR) {
			qmp_over(q, NULL);
			return;
		}
	}
	loop_modify(q->loop, &q->watch, q->out.size && q->greeted ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void take_answer(struct qmp *q, const char *error)
{
	if (q->n_pending == 0) {
		qmp_over(q, "QEMU gave an answer without a question");
		return;
	}
	qmp_answer_fn *answer = q->pending[0];
	q->n_pending--;
	memmove(q->pending, q->pending + 1, q->n_pending * sizeof(q->pending[0]));
	if (answer)
		answer(q->data, error);
}

/** One line: greeting, answer or event. The handler may close the client. */
static void take_line(struct qmp *q, const char *line, size_t size)
{
	struct json_token tokens[QMP_TOKENS_MAX];
	struct json json;
	char text[256];
	long at;

	if (json_parse(&json, line, size, tokens, QMP_TOKENS_MAX) < 0 || tokens[0].kind != JSON_OBJECT) {
		qmp_over(q, "QEMU sent something that is no QMP");
		return;
	}
	if (!q->greeted) {
		if (json_member(&json, 0, "QMP") < 0) {
			qmp_over(q, "QEMU did not greet");
			return;
		}
		q->greeted = true;
		flush(q);
	} else if ((at = json_member(&json, 0, "event")) >= 0) {
		json_copy(&json, at, text, sizeof(text));
		q->handler->event(q->data, &json, text, json_member(&json, 0, "data"));
	} else if ((at = json_member(&json, 0, "error")) >= 0) {
		json_copy(&json, json_member(&json, at, "desc"), text, sizeof(text));
		take_answer(q, text);
	} else if (json_member(&json, 0, "return") >= 0) {
		take_answer(q, NULL);
	} else {
		qmp_over(q, "QEMU sent something that is no QMP");
	}
}

static void on_socket(struct loop_watch *watch, uint32_t events)
{
	struct qmp *q = CONTAINER_OF(watch, struct qmp, watch);

	if (events & EPOLLOUT)
		flush(q);
	if (q->fd < 0 || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	ssize_t n = buffer_read(&q->in, q->fd, QMP_LINE_MAX - q->in.size);
	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n <= 0) {
		qmp_over(q, NULL);
		return;
	}
	while (q->fd >= 0 && q->in.size) {
		const char *line = (const char *)buffer_bytes(&q->in);
		const char *end = memchr(line, '\n', q->in.size);
		if (!end) {
			if (q->in.size >= QMP_LINE_MAX)
				qmp_over(q, "QEMU sent too long a line");
			return;
		}
		take_line(q, line, (size_t)(end - line));
		if (q->fd >= 0)
			buffer_consume(&q->in, (size_t)(end - line) + 1);
	}
}

static void on_negotiated(void *data, const char *error)
{
	(void)data; /* QEMU refuses qmp_capabilities only when it was sent twice; what follows would fail and tell */
	(void)error;
}

int qmp_open(
	struct qmp *q, struct loop *loop, int fd, const struct qmp_handler *handler, void *data, struct husk_error *err)
{
	*q = (struct qmp){.loop = loop, .fd = -1, .handler = handler, .data = data};
	int rc = fd_set_nonblocking(fd, true);
	if (rc < 0)
		return error_set(err, rc, "make QMP's socket non-blocking");
	rc = loop_add(loop, &q->watch, fd, EPOLLIN, on_socket, err);
	if (rc < 0)
		return rc;
	q->fd = fd;
	return qmp_execute(q, "qmp_capabilities", NULL, on_negotiated);
}

void qmp_close(struct qmp *q)
{
	if (q->fd >= 0) {
		loop_remove(q->loop, &q->watch);
		close(steal_fd(&q->fd));
	}
	buffer_free(&q->in);
	buffer_free(&q->out);
}

int qmp_execute(struct qmp *q, const char *command, const char *arguments, qmp_answer_fn *answer)
{
	if (q->fd < 0)
		return -EPIPE;
	if (q->n_pending == QMP_PENDING_MAX)
		return -EBUSY;
	int rc = buffer_printf(&q->out, "{\"execute\":\"%s\"%s%s}\n", command, arguments ? ",\"arguments\":" : "",
		arguments ? arguments : "");
	if (rc < 0)
		return rc;
	q->pending[q->n_pending++] = answer;
	flush(q);
	return 0;
}
