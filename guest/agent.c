/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent.c - the agent: connections and what they may ask for
 *
 * Theory of operation: one thread, one epoll loop. A connection reads frames into its `in`, hands each to what its state
 * allows, and writes from its `out`; handlers only ever append to `out` and mark the connection, and connection_settle() at
 * the end of each handler writes, re-arms and frees. So no handler finds its connection gone under it. A connection that
 * becomes a forward is handed over and leaves the agent's books.
 *
 * A LISTENERS client that does not read costs one frame: while that is under way its connection is only marked stale, and
 * gets the newest state once the frame is gone.
 *
 * The more connections there are, the less the host may have in flight on each, so that clients whose service does not read
 * cannot fill the guest's memory.
 *
 * Children are reaped through a signalfd: programs of ours go to exec.c, the rest is what PID 1 inherits.
 *
 * The power button asks the workload to end, as a host does that stops it; the VM ends with it as ever. Without a workload the
 * agent ends. A host that presses it will not wait for ever: a sync begins at once where what is written outlives the VM.
 *
 * The agent's end is the VM's: the host asked for it, the workload's end was delivered, or the connection that carries the
 * workload broke, after which nobody could learn of its outcome.
 */
#include "guest/agent.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "guest/console.h"
#include "guest/exec.h"
#include "guest/forward.h"
#include "guest/listeners.h"
#include "guest/slots.h"
#include "guest/tree.h"

#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define OPERATIONS_MAX 256 /* forwards are counted apart */
#define CONNECTIONS_MAX (FORWARDS_MAX + OPERATIONS_MAX)
#define READ_SIZE (128u << 10)
#define POWER_DELAY_MS 200 /* for the host to take the OK */
#define HELPER_FAILED 255 /* exit status of a helper; others are its answer */
#define HELPER_ANSWER_MAX 254
#define STOP_GRACE_MS 10000 /* between the stop signal and SIGKILL; what container engines give */

static void connection_free(struct connection *c)
{
	struct agent *agent = c->agent;

	if (c->power) {
		agent->end = "the host asked for it";
		loop_stop(&agent->loop);
	} else if (c->exec && c->exec == agent->main) {
		agent->end = "the connection of the workload was lost";
		loop_stop(&agent->loop);
	} else if (c->was_main) {
		agent_end_in(agent, "the workload has ended", 5000);
	}
	if (c->exec)
		exec_abandon(c->exec);
	if (c->forward)
		forward_abandon(c->forward);
	*(c->prev ? &c->prev->next : &agent->connections) = c->next;
	if (c->next)
		c->next->prev = c->prev;
	agent->n_connections--;
	agent->n_operations -= c->counted;
	loop_remove(&agent->loop, &c->watch);
	cleanup_fd(&c->watch.fd);
	buffer_free(&c->in);
	buffer_free(&c->out);
	free(c);
}

void connection_error(struct connection *c, enum agent_error code, const char *format, ...)
{
	char text[1001];
	va_list ap;
	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	if (c->state == CONNECTION_HELLO)
		agent_hello_put(&c->out);
	agent_error_put(&c->out, code, "%s", text);
	c->state = CONNECTION_CLOSING;
	if (c->exec && c->exec == c->agent->main)
		agent_end_in(c->agent, "the client of the workload broke the protocol", POWER_DELAY_MS);
	if (c->exec)
		exec_abandon(c->exec);
	c->exec = NULL;
}

/** Write until all is gone or the socket is full. */
static void connection_write(struct connection *c)
{
	while (c->out.size && !c->broken) {
		ssize_t n = send(c->watch.fd, buffer_bytes(&c->out), c->out.size, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n > 0)
			buffer_consume(&c->out, (size_t)n);
		else if (n < 0 && errno == EAGAIN)
			break;
		else if (n == 0 || errno != EINTR)
			c->broken = true;
	}
}

void connection_settle(struct connection *c)
{
	if (c->state == CONNECTION_HANDED_OVER)
		return connection_free(c);
	if (c->state == CONNECTION_TREE)
		return;
	connection_write(c);
	if (c->stale && !c->out.size && c->state == CONNECTION_LISTENERS) {
		size_t n;
		const struct agent_listener *listeners = listeners_get(c->agent->listeners, &n);
		agent_listening_put(&c->out, listeners, n);
		c->stale = false;
		connection_write(c);
	}
	if (c->broken)
		return connection_free(c);
	if (c->state == CONNECTION_CLOSING && !c->out.size && !c->shut) {
		shutdown(c->watch.fd, SHUT_WR);
		c->shut = true;
	}
	if (!c->out.size && c->state != CONNECTION_EXEC)
		buffer_free(&c->out);
	uint32_t reads = c->state == CONNECTION_FORWARD ? 0 : EPOLLIN;
	loop_modify(&c->agent->loop, &c->watch, c->out.size ? reads | EPOLLOUT : reads);
}

void agent_end_in(struct agent *agent, const char *why, uint64_t ms)
{
	agent->end = why;
	agent->ending = true;
	loop_timer_set(&agent->timer, ms);
}

static void timer_ready(struct loop_watch *watch, uint32_t events)
{
	loop_stop(&CONTAINER_OF(watch, struct agent, timer)->loop);
}

/* ---- the power button ---- */

/** Nobody waits for it. */
static void sync_aside(void)
{
	if (fork() == 0) {
		sync();
		_exit(0);
	}
}

static void button_pressed(void *data)
{
	struct agent *agent = data;

	if (agent->options->kept)
		sync_aside();
	if (agent->main) {
		console_debug("the power button was pressed: signal %u", agent->options->stop_signal);
		exec_signal(agent->main, agent->options->stop_signal);
		if (!agent->asked)
			loop_timer_set(&agent->grace, STOP_GRACE_MS);
		agent->asked = true;
	} else if (!agent->ending) {
		agent->end = "the power button was pressed";
		loop_stop(&agent->loop);
	}
}

/** The workload was asked to end and has not. */
static void grace_over(struct loop_watch *watch, uint32_t events)
{
	struct agent *agent = CONTAINER_OF(watch, struct agent, grace);

	loop_timer_set(watch, 0);
	if (agent->main)
		exec_signal(agent->main, SIGKILL);
}

/* ---- frames ---- */

static void frame_hello(struct connection *c, const struct agent_frame *frame)
{
	uint32_t version;
	if (frame->type != AGENT_HELLO || !agent_u32_get(frame, &version))
		return connection_error(c, AGENT_ERROR_PROTOCOL, "the first frame is not HELLO");
	if (version != AGENT_VERSION)
		return connection_error(
			c, AGENT_ERROR_VERSION, "this agent speaks version %d, not %u", AGENT_VERSION, version);
	agent_hello_put(&c->out);
	c->state = CONNECTION_REQUEST;
}

/** A request that may take long, in a process of its own, since streams must go on. The child's exit status is the answer. */
static void request_helper(struct connection *c, const struct agent_frame *frame)
{
	if (frame->size)
		return connection_error(c, AGENT_ERROR_PROTOCOL, "a payload where none is meant");
	c->helper = fork();
	if (c->helper < 0)
		return connection_error(c, AGENT_ERROR_SYSTEM, "fork: %s", strerror(errno));
	if (c->helper == 0) {
		struct husk_error err;
		int answer = 0;
		if (frame->type == AGENT_SYNC)
			sync();
		else
			answer = slots_rescan(c->agent->options->sysfs, &err);
		if (answer < 0)
			console_say("%s", err.message);
		_exit(answer < 0 || answer > HELPER_ANSWER_MAX ? HELPER_FAILED : answer);
	}
	c->helped = frame->type;
	c->state = CONNECTION_HELPER;
}

static bool helper_reaped(struct agent *agent, pid_t pid, int status)
{
	struct connection *c = agent->connections;

	while (c && ((c->state != CONNECTION_HELPER && c->state != CONNECTION_TREE) || c->helper != pid))
		c = c->next;
	if (!c)
		return false;
	if (c->state == CONNECTION_TREE) {
		tree_reaped(c, status);
	} else if (!WIFEXITED(status) || WEXITSTATUS(status) == HELPER_FAILED) {
		connection_error(c, AGENT_ERROR_SYSTEM, "it failed in the guest; the console says why");
	} else {
		if (c->helped == AGENT_SYNC)
			agent_frame_put(&c->out, AGENT_OK, 0, NULL, 0);
		else
			agent_u32_put(&c->out, AGENT_RESCANNED, 0, (uint32_t)WEXITSTATUS(status));
		c->state = CONNECTION_CLOSING;
	}
	connection_settle(c);
	return true;
}

static void request_power(struct connection *c, const struct agent_frame *frame)
{
	uint32_t how;
	if (!agent_u32_get(frame, &how) || how != 0)
		return connection_error(c, AGENT_ERROR_PROTOCOL, "POWER asks for something unknown");
	agent_frame_put(&c->out, AGENT_OK, 0, NULL, 0);
	c->state = CONNECTION_CLOSING;
	c->power = true;
	agent_end_in(c->agent, "the host asked for it", POWER_DELAY_MS);
}

static void request_listeners(struct connection *c)
{
	if (!c->agent->listeners)
		return connection_error(c, AGENT_ERROR_UNSUPPORTED, "%s", c->agent->no_listeners.message);
	c->state = CONNECTION_LISTENERS;
	c->stale = true;
}

static void frame_request(struct connection *c, const struct agent_frame *frame)
{
	struct agent *agent = c->agent;

	if (frame->type == AGENT_FORWARD)
		return forward_open(c, frame);
	if (agent->n_operations == OPERATIONS_MAX)
		return connection_error(c, AGENT_ERROR_SYSTEM, "%d operations are under way already", OPERATIONS_MAX);
	agent->n_operations++;
	c->counted = true;
	switch (frame->type) {
	case AGENT_EXEC:
		return exec_open(c, frame);
	case AGENT_PUT:
	case AGENT_GET:
		return tree_open(c, frame);
	case AGENT_SYNC:
	case AGENT_RESCAN:
		return request_helper(c, frame);
	case AGENT_LISTENERS:
		if (frame->size)
			return connection_error(c, AGENT_ERROR_PROTOCOL, "LISTENERS has no payload");
		return request_listeners(c);
	case AGENT_POWER:
		return request_power(c, frame);
	default:
		return connection_error(c, AGENT_ERROR_PROTOCOL, "unknown request %#x", frame->type);
	}
}

/** May a client's frame of @type name a stream? */
static bool names_stream(uint8_t type)
{
	return type == AGENT_STDIN || type == AGENT_EOF || type == AGENT_WINDOW_OPEN;
}

static void connection_frame(struct connection *c, const struct agent_frame *frame)
{
	if (frame->stream && !names_stream(frame->type))
		return connection_error(c, AGENT_ERROR_PROTOCOL, "a stream where none is meant");
	switch (c->state) {
	case CONNECTION_HELLO:
		return frame_hello(c, frame);
	case CONNECTION_REQUEST:
		return frame_request(c, frame);
	case CONNECTION_EXEC:
		return exec_frame(c, frame);
	case CONNECTION_HELPER:
		return connection_error(c, AGENT_ERROR_PROTOCOL, "a frame where none is meant");
	case CONNECTION_LISTENERS:
		return connection_error(c, AGENT_ERROR_PROTOCOL, "a frame after LISTENERS");
	case CONNECTION_FORWARD:
	case CONNECTION_HANDED_OVER:
	case CONNECTION_TREE:
	case CONNECTION_CLOSING:
		return;
	}
}

/** Does what lies in `in` belong to the agent, and is it to be read now? */
static bool takes_frames(const struct connection *c)
{
	return !c->broken && c->state < CONNECTION_FORWARD;
}

/** Read onto `in`: what read(2) returned, or -errno. A request is short, and what comes behind FORWARD is not ours to keep:
 *  until it is known a connection gets no more memory than it has bytes. */
static ssize_t connection_read(struct connection *c)
{
	char *bytes = c->agent->request;

	if (c->state != CONNECTION_HELLO && c->state != CONNECTION_REQUEST)
		return buffer_read(&c->in, c->watch.fd, READ_SIZE);
	ssize_t n = read(c->watch.fd, bytes, sizeof(c->agent->request));
	int rc = n > 0 ? buffer_append(&c->in, bytes, (size_t)n) : n < 0 ? -errno : 0;
	return rc < 0 ? rc : n;
}

static void connection_ready(struct loop_watch *watch, uint32_t events)
{
	struct connection *c = CONTAINER_OF(watch, struct connection, watch);

	if (c->state == CONNECTION_FORWARD) {
		c->broken = events & (EPOLLHUP | EPOLLERR);
	} else if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		ssize_t n = connection_read(c);
		if (n == 0 || (n < 0 && n != -EAGAIN && n != -EINTR))
			c->broken = true;
	}
	while (takes_frames(c) && c->in.size) {
		struct agent_frame frame;
		long used = agent_frame_decode(buffer_bytes(&c->in), c->in.size, &frame);
		if (used == 0)
			break;
		if (used < 0) {
			connection_error(c, AGENT_ERROR_PROTOCOL, "malformed frame");
			break;
		}
		/* The frame's bytes stay where they are until the next are read; what lies behind may be handed over. */
		buffer_consume(&c->in, (size_t)used);
		connection_frame(c, &frame);
	}
	if (c->state == CONNECTION_CLOSING || (!c->in.size && c->state != CONNECTION_EXEC))
		buffer_free(&c->in);
	connection_settle(c);
}

int connection_watch(struct connection *c)
{
	return loop_add(&c->agent->loop, &c->watch, c->watch.fd, EPOLLIN, connection_ready, NULL);
}

/* ---- sockets and children ---- */

/** Is the peer the host? Programs in the guest come with the guest's own CID or the loopback's. */
static bool is_host(const struct sockaddr_vm *peer, socklen_t size)
{
	return size >= sizeof(*peer) && peer->svm_family == AF_VSOCK && peer->svm_cid == VMADDR_CID_HOST;
}

/** How much the host may have in flight on each of @n connections. All together stay below half a GiB. With 64 KiB or less
 *  Linux tells its credit after each read, which is a packet more. */
static uint64_t choose_buffer_size(size_t n)
{
	return n < 64 ? 1u << 20 : n < 1024 ? 128u << 10 : 16u << 10;
}

/** Accepted sockets inherit the listener's buffer size. */
static void size_buffers(struct agent *agent)
{
	uint64_t size = choose_buffer_size(agent->n_connections + forwards_count(agent->forwards));

	if (!agent->from_host_only || size == agent->buffer_size)
		return;
	setsockopt(agent->listener.fd, AF_VSOCK, SO_VM_SOCKETS_BUFFER_SIZE, &size, sizeof(size));
	agent->buffer_size = size;
}

/** Take @fd (taken, also on failure) in. */
static void connection_open(struct agent *agent, int fd)
{
	struct connection *c = agent->n_connections < CONNECTIONS_MAX ? calloc(1, sizeof(*c)) : NULL;

	if (!c || loop_add(&agent->loop, &c->watch, fd, EPOLLIN, connection_ready, NULL) < 0) {
		free(c);
		close(fd);
		return;
	}
	c->agent = agent;
	c->next = agent->connections;
	if (c->next)
		c->next->prev = c;
	agent->connections = c;
	agent->n_connections++;
}

/** There is no descriptor left for the connection that waits: close it, or it would be reported in every round. */
static void drop_waiting(struct agent *agent)
{
	cleanup_fd(&agent->spare);
	int fd = accept4(agent->listener.fd, NULL, NULL, SOCK_CLOEXEC);
	cleanup_fd(&fd);
	agent->spare = open("/", O_PATH | O_CLOEXEC);
}

/** One per event, and never until there is none: on an empty queue accept(2) of AF_VSOCK sleeps until the next tick, 4 ms,
 *  although it must not block (Linux 6.1, vsock_accept: schedule_timeout(0)). */
static void listener_ready(struct loop_watch *watch, uint32_t events)
{
	struct agent *agent = CONTAINER_OF(watch, struct agent, listener);
	struct sockaddr_vm peer = {0};
	socklen_t size = sizeof(peer);
	int fd = accept4(watch->fd, (struct sockaddr *)&peer, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE)
			drop_waiting(agent);
		return;
	}
	if (agent->from_host_only && !is_host(&peer, size)) {
		console_debug("refused a connection of CID %u", peer.svm_cid);
		close(fd);
		return;
	}
	connection_open(agent, fd);
	size_buffers(agent);
}

static void listeners_changed(void *data)
{
	struct agent *agent = data;

	for (struct connection *c = agent->connections, *next; c; c = next) {
		next = c->next;
		if (c->state != CONNECTION_LISTENERS)
			continue;
		c->stale = true;
		connection_settle(c);
	}
}

static void child_ready(struct loop_watch *watch, uint32_t events)
{
	struct agent *agent = CONTAINER_OF(watch, struct agent, child_signal);
	struct signalfd_siginfo info;
	struct rusage usage;
	int status;
	pid_t pid;

	if (read(watch->fd, &info, sizeof(info)) < 0)
		return;
	while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
		if (pid == agent->options->late_modules)
			buttons_open(&agent->buttons, &agent->loop, agent->options->input);
		else if (!exec_reaped(agent, pid, status, &usage))
			helper_reaped(agent, pid, status);
	}
}

/** The host has read READY and closes. */
static void ready_done(struct loop_watch *watch, uint32_t events)
{
	char bytes[64];
	ssize_t n = read(watch->fd, bytes, sizeof(bytes));
	if (n > 0 || (n < 0 && errno == EAGAIN))
		return;
	struct agent *agent = CONTAINER_OF(watch, struct agent, ready);
	int fd = watch->fd;
	loop_remove(&agent->loop, watch);
	close(fd);
}

static int watch_children(struct agent *agent, struct husk_error *err)
{
	sigset_t mask;
	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	CLEANUP_FD int fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return error_errno(err, "watch for children");
	int rc = loop_add(&agent->loop, &agent->child_signal, fd, EPOLLIN, child_ready, err);
	if (rc == 0)
		steal_fd(&fd);
	return rc;
}

/** A kernel that cannot tell has an agent that says so to who asks, and does all the rest. */
static void watch_listeners(struct agent *agent)
{
	int rc = listeners_open(
		&agent->loop, agent->setup->cgroup, listeners_changed, agent, &agent->listeners, &agent->no_listeners);
	console_debug("listeners are told%s%s", rc < 0 ? " not: " : "", rc < 0 ? agent->no_listeners.message : "");
}

int agent_serve(const struct agent_setup *setup, const char **why, struct husk_error *err)
{
	struct agent agent = {
		.setup = &setup->workload,
		.options = setup,
		.from_host_only = setup->from_host_only,
		.end = "the agent's loop ended",
	};
	agent.buttons.pressed = button_pressed;
	agent.buttons.data = &agent;

	signal(SIGPIPE, SIG_IGN);
	agent.spare = open("/", O_PATH | O_CLOEXEC);
	int rc = loop_init(&agent.loop, err);
	if (rc == 0)
		rc = watch_children(&agent, err);
	if (rc == 0)
		rc = loop_timer_open(&agent.loop, &agent.timer, timer_ready, err);
	if (rc == 0)
		rc = loop_timer_open(&agent.loop, &agent.grace, grace_over, err);
	if (rc == 0)
		rc = loop_add(&agent.loop, &agent.listener, setup->listener, EPOLLIN, listener_ready, err);
	if (rc == 0 && setup->ready >= 0)
		rc = loop_add(&agent.loop, &agent.ready, setup->ready, EPOLLIN, ready_done, err);
	if (rc == 0)
		rc = forwards_open(&agent.loop, &agent.forwards, err);
	if (rc == 0)
		watch_listeners(&agent); /* before the first program can run */
	if (rc == 0 && setup->late_modules < 0)
		buttons_open(&agent.buttons, &agent.loop, setup->input);
	if (rc == 0)
		rc = loop_run(&agent.loop, err);
	*why = agent.end;
	/* What is open goes with the process, which goes with the VM. */
	return rc;
}
