/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live.c - a VM that this process has started
 *
 * Theory of operation: the supervisor tells what happens in fixed-size messages on a SOCK_SEQPACKET socket; the last one is
 * the outcome. A pidfd tells of the supervisor's own death: when it comes without an outcome, that is the outcome. All of
 * it, and the end of the relays that write to the caller, hangs in one epoll descriptor, which is itself pollable. Whoever
 * waits takes in what has arrived under the lock and never sleeps with it.
 */
#include "engine/live.h"

#include "base/fd.h"
#include "base/loop.h"
#include "engine/cleanup.h"
#include "engine/logs.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define CLOSE_GRACE_MS 5000 /* from asking the supervisor to end the VM to killing it */

struct husk_vm *live_new(const struct husk *husk, struct husk_error *err)
{
	struct husk_vm *vm = calloc(1, sizeof(*vm));
	if (!vm) {
		error_set(err, -ENOMEM, "start a VM: out of memory");
		return NULL;
	}
	vm->husk = husk;
	vm->record = (struct vm_record)VM_RECORD_INIT;
	vm->io = vm->serial = (struct stdio)STDIO_INIT;
	vm->pidfd = vm->caller_fd = vm->control_fd = vm->epoll = vm->watch_fd = -1;
	pthread_mutex_init(&vm->lock, NULL);
	return vm;
}

static int watch(struct husk_vm *vm, int fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
	return fd < 0 ? 0 : epoll_ctl(vm->epoll, EPOLL_CTL_ADD, fd, &event);
}

int live_watch(struct husk_vm *vm, struct husk_error *err)
{
	vm->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (vm->epoll < 0 || watch(vm, vm->caller_fd) < 0 || watch(vm, vm->pidfd) < 0 ||
		watch(vm, stdio_done_fd(&vm->io)) < 0 || watch(vm, stdio_done_fd(&vm->serial)) < 0)
		return error_errno(err, "watch VM %s", vm->record.id);
	return 0;
}

static void end(struct husk_vm *vm, enum vm_end how, const char *text)
{
	vm->ended = true;
	vm->outcome = (struct vm_message){.kind = VM_MESSAGE_OUTCOME, .end = how};
	vm_message_text(&vm->outcome, "%s", text);
}

static void take_message(struct husk_vm *vm, const struct vm_message *message)
{
	switch (message->kind) {
	case VM_MESSAGE_READY:
		vm->ready = true;
		vm->boot_ns = message->boot_ns;
		break;
	case VM_MESSAGE_STARTED:
		vm->started = true;
		break;
	case VM_MESSAGE_OUTCOME:
		vm->ended = true;
		vm->outcome = *message;
		break;
	default:
		break;
	}
}

/** All messages that lie in the socket; false at its end. */
static bool take_messages(struct husk_vm *vm)
{
	while (!vm->ended) {
		struct vm_message message;
		ssize_t n = recv(vm->caller_fd, &message, sizeof(message), MSG_DONTWAIT | MSG_TRUNC);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return true;
		if (n <= 0)
			return false;
		if (n != sizeof(message) || !vm_message_check(&message))
			end(vm, VM_END_FAILED, "the supervisor sent a malformed message");
		else
			take_message(vm, &message);
	}
	return true;
}

static bool readable(int fd)
{
	struct pollfd one = {.fd = fd, .events = POLLIN};
	return poll(&one, 1, 0) > 0;
}

static void reap(struct husk_vm *vm)
{
	if (vm->reaped || vm->pidfd < 0 || !readable(vm->pidfd))
		return;
	while (waitpid(vm->pid, NULL, 0) < 0 && errno == EINTR)
		;
	vm->reaped = true;
	epoll_ctl(vm->epoll, EPOLL_CTL_DEL, vm->pidfd, NULL);
}

void live_take(struct husk_vm *vm)
{
	pthread_mutex_lock(&vm->lock);
	bool dead = readable(vm->pidfd); /* looked at first: what it said before it died is then in the socket */
	if (!vm->ended && !take_messages(vm)) {
		/* The socket's other end is closed: nothing more will come, so wait for the death that explains it. */
		epoll_ctl(vm->epoll, EPOLL_CTL_DEL, vm->caller_fd, NULL);
	}
	if (dead && !vm->ended)
		end(vm, VM_END_SUPERVISOR, "the VM's supervisor process died");
	if (vm->ended)
		epoll_ctl(vm->epoll, EPOLL_CTL_DEL, vm->caller_fd, NULL);
	reap(vm);
	if (stdio_delivered(&vm->io) && vm->io.done >= 0)
		epoll_ctl(vm->epoll, EPOLL_CTL_DEL, vm->io.done, NULL);
	if (stdio_delivered(&vm->serial) && vm->serial.done >= 0)
		epoll_ctl(vm->epoll, EPOLL_CTL_DEL, vm->serial.done, NULL);
	pthread_mutex_unlock(&vm->lock);
}

/** Sleep until something may have changed; false when @deadline (UINT64_MAX: none) is over. *@canceled may be NULL. */
static bool sleep_until(struct husk_vm *vm, uint64_t deadline, int cancel_fd, bool *canceled)
{
	uint64_t now = clock_monotonic_ms();
	if (now >= deadline)
		return false;
	uint64_t left = deadline - now;
	struct pollfd fds[2] = {{.fd = vm->epoll, .events = POLLIN}, {.fd = cancel_fd, .events = POLLIN}};
	int n = poll(fds, 2, deadline == UINT64_MAX ? -1 : left > 1000000 ? 1000000 : (int)left);
	if (n > 0 && fds[1].revents && canceled)
		*canceled = true;
	return true;
}

int live_wait_ready(struct husk_vm *vm, uint64_t timeout_ms, int cancel_fd, struct husk_error *err)
{
	uint64_t deadline = clock_monotonic_ms() + timeout_ms;
	bool canceled = false;
	for (;;) {
		live_take(vm);
		if ((vm->ready && vm->started) || vm->ended)
			return 0;
		if (canceled)
			return error_set(err, -ECANCELED, "the start was canceled");
		if (!sleep_until(vm, deadline, cancel_fd, &canceled))
			return error_set(err, -ETIMEDOUT, "VM %s was not ready in time", vm->record.id);
	}
}

/** True when the console says more of the end than the outcome does. */
static bool log_matters(const struct husk_vm *vm)
{
	uint32_t how = vm->outcome.end;
	return vm->agentless || how == VM_END_GUEST || how == VM_END_MACHINE || how == VM_END_WORKER;
}

int live_wait(struct husk_vm *vm, int64_t timeout_ms, struct husk_error *err)
{
	uint64_t deadline = timeout_ms < 0 ? UINT64_MAX : clock_monotonic_ms() + (uint64_t)timeout_ms;
	for (;;) {
		live_take(vm);
		pthread_mutex_lock(&vm->lock);
		/* A supervisor that was killed takes the worker with it, which closes the streams; the outcome of one that
		 * was not comes after the last byte. Either way the relays come to their end. */
		bool over = vm->ended && stdio_delivered(&vm->io) && stdio_delivered(&vm->serial);
		bool tell = over && !vm->told && log_matters(vm);
		vm->told = vm->told || over;
		pthread_mutex_unlock(&vm->lock);
		if (tell)
			live_show_log(vm, vm->agentless ? 100 : 12);
		if (over)
			return 0;
		if (!sleep_until(vm, deadline, -1, NULL))
			return error_set(err, -ETIMEDOUT, "VM %s has not ended yet", vm->record.id);
	}
}

int live_send(struct husk_vm *vm, int fd, enum vm_message_kind kind, uint32_t value, struct husk_error *err)
{
	struct vm_message message = {.kind = kind, .value = value};
	live_take(vm);
	if (vm->ended)
		return error_set(err, -ESRCH, "VM %s has ended", vm->record.id);
	ssize_t n;
	while ((n = send(fd, &message, sizeof(message), MSG_DONTWAIT | MSG_NOSIGNAL)) < 0 && errno == EINTR)
		;
	if (n < 0 && (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN || errno == ECONNREFUSED))
		return error_set(err, -ESRCH, "VM %s has ended", vm->record.id);
	return n < 0 ? error_errno(err, "tell VM %s", vm->record.id) : 0;
}

void live_show_log(const struct husk_vm *vm, int lines)
{
	logs_show(vm->husk, vm->record.id, lines);
}

/** Ask for the end, then insist. */
static void stop(struct husk_vm *vm)
{
	if (vm->pidfd < 0 || vm->reaped)
		return;
	live_send(vm, vm->caller_fd, VM_CONTROL_KILL, 0, NULL);
	shutdown(vm->caller_fd, SHUT_WR);
	struct pollfd dead = {.fd = vm->pidfd, .events = POLLIN};
	uint64_t deadline = clock_monotonic_ms() + CLOSE_GRACE_MS;
	for (uint64_t now; (now = clock_monotonic_ms()) < deadline && poll(&dead, 1, (int)(deadline - now)) <= 0;)
		;
	if (!readable(vm->pidfd)) {
		kill(vm->pid, SIGKILL); /* not reaped yet, so the pid is still its own */
		poll(&dead, 1, CLOSE_GRACE_MS);
	}
	reap(vm);
}

void live_close(struct husk_vm *vm)
{
	if (!vm)
		return;
	stop(vm);
	stdio_destroy(&vm->io);
	stdio_destroy(&vm->serial);
	if (vm->record.state_fd >= 0 && !vm->known)
		cleanup_doors(&vm->record);
	if (vm->record.directory && !vm->known)
		vm_record_remove(vm->husk, &vm->record, NULL);
	vm_record_close(&vm->record);
	int *fds[] = {&vm->pidfd, &vm->caller_fd, &vm->control_fd, &vm->epoll, &vm->watch_fd};
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		if (*fds[i] >= 0)
			close(*fds[i]);
	pthread_mutex_destroy(&vm->lock);
	free(vm);
}
