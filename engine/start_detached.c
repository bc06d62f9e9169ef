/* SPDX-License-Identifier: Apache-2.0 */
/*
 * start_detached.c - the start of a VM that belongs to nobody
 *
 * Theory of operation: it has two logs of two files each in its record (base/record_log.h), a pseudo-terminal as its console, and
 * is told everything over supervisor.sock. Its starter hears of the start over a socket of its own, which it closes when the
 * agent has answered; the supervisor goes on without. The first message, BEGUN, says that the state on disk names the
 * supervisor: from then on everybody can find the VM, and the starter lets go of the record's lock.
 *
 * A start that fails or is cancelled ends the supervisor: by request, then by force, through its pidfd. Its worker and QEMU
 * die with it. Should the pidfd not be known (the process that was to tell it was killed), the socket's end tells.
 */
#include "base/fd.h"
#include "base/loop.h"
#include "base/path.h"
#include "engine/outcome.h"
#include "engine/start_internal.h"
#include "vmm/control.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>

#define END_GRACE_MS 5000 /* from asking the supervisor to end the VM to killing it, and from then on */

static const struct {
	const char *name;
	uint16_t tag;
} logs[START_LOGS] = {
	{"output.0", VMM_WORKLOAD_LOG_FD},
	{"output.1", VMM_WORKLOAD_LOG_2_FD},
	{"console.0", VMM_CONSOLE_LOG_FD},
	{"console.1", VMM_CONSOLE_LOG_2_FD},
};

static int open_logs(struct start *s, struct husk_error *err)
{
	for (size_t i = 0; i < START_LOGS; i++) {
		CLEANUP_FREE char *path = path_join(s->record.directory, logs[i].name);
		s->logs[i] = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
		if (s->logs[i] < 0)
			return error_errno(err, "open the log %s of VM %s", logs[i].name, s->record.id);
	}
	return 0;
}

/** The console: a raw terminal, whose master the worker reads and writes. */
static int open_console(struct start *s, struct husk_error *err)
{
	struct termios raw;
	s->pty_out_fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (s->pty_out_fd < 0 || grantpt(s->pty_out_fd) < 0 || unlockpt(s->pty_out_fd) < 0)
		return error_errno(err, "make the console of VM %s", s->record.id);
	int rc = ptsname_r(s->pty_out_fd, s->pty_path, sizeof(s->pty_path));
	if (rc)
		return error_set(err, -rc, "name the console of VM %s: %s", s->record.id, strerror(rc));
	s->pty_fd = open(s->pty_path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (s->pty_fd < 0 || fchmod(s->pty_fd, 0600) < 0 || tcgetattr(s->pty_fd, &raw) < 0)
		return error_errno(err, "open the console %s of VM %s", s->pty_path, s->record.id);
	cfmakeraw(&raw);
	if (tcsetattr(s->pty_fd, TCSANOW, &raw) < 0)
		return error_errno(err, "set up the console %s of VM %s", s->pty_path, s->record.id);
	rc = fd_set_nonblocking(s->pty_out_fd, true);
	s->pty_in_fd = fcntl(s->pty_out_fd, F_DUPFD_CLOEXEC, 3);
	return rc < 0 || s->pty_in_fd < 0 ? error_errno(err, "set up the console of VM %s", s->record.id) : 0;
}

int start_detached_open(struct start *s, struct husk_error *err)
{
	int rc = open_logs(s, err);
	rc = rc < 0 ? rc : open_console(s, err);
	return rc == 0 && s->config->remove ? engine_helper(s->husk, "husk-remove", &s->remover, err) : rc;
}

void start_detached_put(struct start *s)
{
	struct envelope *e = &s->envelope;
	uint64_t memory = start_memory(s->config);
	envelope_u64(e, VMM_LOG_SIZE, s->config->log_size);
	for (size_t i = 0; i < START_LOGS; i++)
		envelope_fd(e, logs[i].tag, s->logs[i]);
	envelope_u32(e, VMM_SERIAL, VMM_SERIAL_PTY);
	envelope_fd(e, VMM_SERIAL_OUT_FD, s->pty_out_fd);
	envelope_fd(e, VMM_SERIAL_IN_FD, s->pty_in_fd);
	envelope_fd(e, VMM_PTY_FD, s->pty_fd);
	envelope_string(e, VMM_PTY_PATH, s->pty_path);
	envelope_u32(e, VMM_OPEN_STDIN, s->config->open_stdin);
	if (s->memory_allowed && s->memory_allowed < memory)
		envelope_u64(e, VMM_BALLOON, memory - s->memory_allowed);
	if (!s->remover)
		return;
	envelope_string(e, VMM_REMOVER_PATH, s->remover);
	envelope_string(e, VMM_HOME, s->husk->home);
	envelope_string(e, VMM_RUNTIME_PATH, s->husk->runtime);
}

/* ---- its beginning ---- */

/** What was heard so far. */
struct heard {
	bool begun, ready, started, over; /* over: nothing more will come */
	uint64_t boot_ns;
	struct vm_message outcome; /* kind 0: none */
};

/** Take what lies in the socket. */
static void hear(struct start *s, struct heard *heard)
{
	struct vm_message m;
	int rc;
	while (!heard->over && (rc = vm_message_receive(s->our_caller_fd, &m)) != -EAGAIN) {
		if (rc != 1) {
			heard->over = true;
		} else if (m.kind == VM_MESSAGE_BEGUN) {
			heard->begun = true;
			vm_record_unlock(&s->record);
		} else if (m.kind == VM_MESSAGE_READY) {
			heard->ready = true;
			heard->boot_ns = m.boot_ns;
		} else if (m.kind == VM_MESSAGE_STARTED) {
			heard->started = true;
		} else if (m.kind == VM_MESSAGE_OUTCOME) {
			heard->outcome = m;
			heard->over = true;
		}
	}
}

/** The VM ended before it was ready. */
static int fail(const struct start *s, struct heard *heard, struct husk_error *err)
{
	char text[VM_MESSAGE_TEXT + 128];
	if (!heard->outcome.kind)
		heard->outcome.end = VM_END_SUPERVISOR;
	outcome_describe(&heard->outcome, text, sizeof(text));
	return error_set(err, heard->outcome.end == VM_END_START_TIMEOUT ? -ETIMEDOUT : -EIO, "start VM %s: %s",
		s->record.id, text);
}

/** Wait for the supervisor's end: true when it has come. */
static bool gone(struct start *s, int timeout_ms)
{
	uint64_t now, deadline = clock_monotonic_ms() + (uint64_t)timeout_ms;
	struct pollfd dead = {.fd = s->pidfd >= 0 ? s->pidfd : s->our_caller_fd, .events = POLLIN};
	struct vm_message m;
	while ((now = clock_monotonic_ms()) < deadline) {
		if (poll(&dead, 1, (int)(deadline - now)) <= 0)
			continue;
		if (s->pidfd >= 0 || vm_message_receive(s->our_caller_fd, &m) == 0)
			return true;
	}
	return false;
}

int start_detached_wait(struct start *s, uint64_t timeout_ms, int cancel_fd, uint64_t *boot_ns, struct husk_error *err)
{
	uint64_t now, deadline = clock_monotonic_ms() + timeout_ms;
	bool agentless = s->config->initramfs != NULL;
	struct heard heard = {0};
	for (;;) {
		struct pollfd fds[] = {{.fd = s->our_caller_fd, .events = POLLIN}, {.fd = cancel_fd, .events = POLLIN}};
		hear(s, &heard);
		if (heard.ready && heard.over)
			(void)gone(s, END_GRACE_MS); /* its last record tells of a command that cannot be run */
		if ((heard.ready && (heard.started || heard.over)) || (agentless && heard.begun)) {
			*boot_ns = heard.boot_ns;
			return 0;
		}
		if (heard.over)
			return fail(s, &heard, err);
		if ((now = clock_monotonic_ms()) >= deadline)
			return error_set(err, -ETIMEDOUT, "VM %s was not ready in time", s->record.id);
		uint64_t left = deadline - now;
		if (poll(fds, 2, left > 1000000 ? 1000000 : (int)left) > 0 && fds[1].revents)
			return error_set(err, -ECANCELED, "the start was canceled");
	}
}

void start_detached_end(struct start *s)
{
	if (s->our_caller_fd < 0)
		return;
	vm_record_unlock(&s->record); /* for husk-remove, which the supervisor may become */
	(void)vm_message_send(s->our_caller_fd, &(struct vm_message){.kind = VM_CONTROL_KILL});
	if (gone(s, END_GRACE_MS) || s->pidfd < 0)
		return;
	(void)syscall(SYS_pidfd_send_signal, s->pidfd, SIGKILL, NULL, 0);
	(void)gone(s, END_GRACE_MS);
}
