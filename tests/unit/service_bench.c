/* SPDX-License-Identifier: Apache-2.0 */
/* service_bench.c - a supervisor that serves supervisor.sock (service_bench.h) */
#include "tests/unit/service_bench.h"

#include "base/cleanup.h"
#include "vmm/control.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

struct supervisor s;
int worker = -1;
char folder[64];
struct husk_error err;

static void on_channel(struct loop_watch *watch, uint32_t events)
{
	(void)watch;
	if (events & EPOLLOUT)
		channel_flush(&s);
	life_drain(&s);
}

void turn(void)
{
	for (int i = 0; i < 8; i++)
		loop_round(&s.loop, 0, &err);
}

void turn_in(int ms)
{
	loop_round(&s.loop, ms, &err);
	turn();
}

void set_address(struct sockaddr_un *address, const char *name)
{
	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(address->sun_path, sizeof(address->sun_path), "%.60s/%s", folder, name);
}

int listen_at(const char *name, int type)
{
	struct sockaddr_un address;
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	set_address(&address, name);
	return bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 64) == 0 ? fd : -1;
}

int join(void)
{
	struct sockaddr_un address;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	set_address(&address, VM_SERVICE_NAME);
	return connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 ? fd : -1;
}

bool closed(int client)
{
	char byte;

	return recv(client, &byte, 1, MSG_DONTWAIT) == 0 || errno == ECONNRESET;
}

bool told(struct vm_message *m, bool *with_fd)
{
	int fds[4];
	size_t n = 4;
	int rc = vm_message_receive_fds(worker, m, fds, &n);

	*with_fd = rc == 1 && n == 1;
	for (size_t i = 0; rc == 1 && i < n; i++)
		close(fds[i]);
	return rc == 1;
}

bool bench_begin(void)
{
	int pair[2];

	snprintf(folder, sizeof(folder), "/tmp/husk-service-XXXXXX");
	if (!mkdtemp(folder) || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return false;
	worker = pair[1];
	s.channel = pair[0];
	s.config = (struct vmm_config){.exec_size = 1, .log_fd = -1, .caller_fd = -1, .start_timeout_ms = 60000};
	s.config.runtime_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	s.config.state_fd = memfd_create("state", MFD_CLOEXEC);
	s.config.service_fd = listen_at(VM_SERVICE_NAME, SOCK_SEQPACKET);
	s.errors.fd = -1;
	s.record.state = VM_RUNNING;
	s.answered = true;
	return loop_init(&s.loop, &err) == 0 && life_prepare(&s, &err) == 0 && doors_take(&s, &err) == 0 &&
	       loop_add(&s.loop, &s.channel_watch, s.channel, EPOLLIN, on_channel, &err) == 0 &&
	       service_open(&s, &err) == 0;
}

void bench_end(void)
{
	service_close(&s);
	close(worker);
	close(s.channel);
	loop_destroy(&s.loop);
}
