/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doors-random-test.c - clients, routers, guest and supervisor do what they like, in any order
 *
 * usage: doors-random-test [SEED [STEPS]]. Each step one of them does something, right or wrong, and the loop turns once. The
 * waiting time is a few milliseconds, so that clocks run out in between. Now and then, and at the end, the books are
 * checked: what waits is counted, and when all is closed nothing is left.
 */
#include "tests/unit/doors_rig.h"

#define CLIENTS 48
#define ROUTERS 6
#define HANDOFF 6u

static uint64_t seed = 1;
static unsigned forwards; /* asked of the guest: a measure of how much has happened */
static int clients[CLIENTS], routers[ROUTERS];
static struct sockaddr_storage tcp_address;
static socklen_t tcp_size;
static int tcp_listener;

/** xorshift64: the same steps for the same seed. */
static uint32_t pick(uint32_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 33) % n;
}

static void close_slot(int *fd)
{
	struct linger reset = {.l_onoff = 1};
	if (*fd < 0)
		return;
	if (pick(2))
		setsockopt(*fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(steal_fd(fd));
}

static void open_doors(void)
{
	for (uint32_t id = 1; id <= HANDOFF; id++)
		if (!rig.doors->door[id - 1] && !rig.doors->stopped)
			rig_door(id, id, id == VM_DOOR_UNIX ? 0 : id == VM_DOOR_EXEC || id == VM_DOOR_VSOCK ? 0 : 80);
}

/** A client comes, speaks, half-closes or goes. */
static void client_acts(void)
{
	static const char text[] = "CONNECT 1028\n and more";
	int *fd = &clients[pick(CLIENTS)];
	char sink[4096];
	if (*fd < 0) {
		uint32_t kind = VM_DOOR_UNIX + pick(4);
		*fd = rig_connect(kind);
		return;
	}
	switch (pick(5)) {
	case 0:
		close_slot(fd);
		return;
	case 1:
		shutdown(*fd, pick(3) ? SHUT_WR : SHUT_RD);
		return;
	case 2:
		while (recv(*fd, sink, sizeof(sink), MSG_DONTWAIT) > 0)
			;
		return;
	default:
		send(*fd, text, 1 + pick(sizeof(text) - 1), MSG_DONTWAIT | MSG_NOSIGNAL);
	}
}

/** A descriptor to hand over; mostly a TCP connection. */
static int something(void)
{
	int fd = -1;
	switch (pick(12)) {
	case 0:
		return open("/dev/null", O_RDWR | O_CLOEXEC);
	case 1:
		return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	default: {
		int *client = &clients[pick(CLIENTS)];
		close_slot(client);
		*client = rig_connect_to(&tcp_address, tcp_size);
		fd = accept4(tcp_listener, NULL, NULL, SOCK_CLOEXEC);
		if (pick(8) == 0)
			close_slot(client);
		return fd;
	}
	}
}

static void router_acts(void)
{
	static uint8_t message[4 + 3000];
	int *router = &routers[pick(ROUTERS)];
	if (*router < 0) {
		*router = rig_connect(HANDOFF);
		return;
	}
	if (pick(12) == 0) {
		close_slot(router);
		return;
	}
	uint32_t n = pick(10) ? 1 + pick(3000) : 0, length = htobe32(pick(30) ? n : pick(2) ? n + 1 : 0xffffffff);
	int fds[2] = {something(), -1};
	size_t n_fds = pick(20) ? 1 : pick(2) * 2;
	fds[1] = fds[0];
	memcpy(message, &length, 4);
	uint32_t cut = pick(2) ? 4 + n : pick(4 + n);
	fd_set_nonblocking(*router, true);
	bool early = pick(2);
	if (cut)
		fd_send(*router, message, cut, fds, early ? n_fds : 0);
	if (cut < 4 + n) {
		if (pick(2))
			rig_turn(1);
		fd_send(*router, message + cut, 4 + n - cut, fds, early ? 0 : n_fds);
	}
	if (fds[0] >= 0)
		close(fds[0]);
}

static void guest_acts(void)
{
	static const uint16_t ports[] = {80, 81, 82};
	static const uint8_t garbage[] = {3, 0, 0, 0, AGENT_LISTENING, 0, 0, 0, 1, 2, 3};
	switch (pick(8)) {
	case 0:
		rig.agent.answer = pick(FAKE_NEVER + 1);
		return;
	case 1:
		rig.agent.echo = pick(2);
		return;
	case 2:
		fake_agent_release(&rig.agent);
		return;
	case 3:
		if (rig.agent.listeners && pick(8) == 0)
			fake_agent_say(&rig.agent, garbage, 1 + pick(sizeof(garbage)));
		return;
	case 4:
		rig.agent.answer = FAKE_OK;
		return;
	default:
		fake_agent_listen(&rig.agent, ports + pick(2), pick(3));
	}
}

static void supervisor_acts(void)
{
	switch (pick(10)) {
	case 0:
		doors_remove(rig.doors, 1 + pick(HANDOFF + 1), NULL);
		return;
	case 1:
		doors_workload_started(rig.doors);
		return;
	case 2:
		rig.agent.deaf = pick(6) == 0;
		return;
	case 3:
		rig.agent.answer = FAKE_OK;
		doors_agent_ready(rig.doors);
		return;
	default:
		open_doors();
	}
}

static unsigned length(const struct list *head)
{
	unsigned n = 0;
	for (const struct list *l = head->next; l != head; l = l->next)
		n++;
	return n;
}

/** What is counted is there. */
static bool books_hold(void)
{
	uint64_t waiting = 0, kept = 0;
	for (unsigned i = 0; i < VM_DOORS_MAX; i++) {
		const struct door_meter *m = &rig.stats.door[i];
		waiting += m->waiting;
		kept += rig.doors->door[i] ? rig.doors->door[i]->n_waiting : 0;
		if (m->active > 2 * CLIENTS + 16 || (rig.doors->door[i] && m->refused > m->connections))
			return false;
	}
	return waiting == kept && length(&rig.doors->waiting) == waiting;
}

static bool run(unsigned steps)
{
	static void (*const act[])(void) = {client_acts, client_acts, client_acts, router_acts, router_acts, guest_acts,
		guest_acts, supervisor_acts};
	bool good = true;
	for (unsigned i = 0; i < CLIENTS; i++)
		clients[i] = -1;
	for (unsigned i = 0; i < ROUTERS; i++)
		routers[i] = -1;
	rig.standbys = pick(4);
	rig_start(3 + pick(20));
	rig.doors->answer_ns = 2000000;
	rig.quiet = true;
	open_doors();
	for (unsigned i = 0; i < steps && good; i++) {
		act[pick(ARRAY_SIZE(act))]();
		fake_agent_turn(&rig.agent, pick(50) ? 0 : 2);
		good = books_hold();
	}
	forwards += rig.agent.n_forwards;
	if (pick(2)) /* the end of the VM comes before that of the clients, or after */
		doors_stop(rig.doors);
	for (unsigned i = 0; i < CLIENTS; i++)
		close_slot(&clients[i]);
	for (unsigned i = 0; i < ROUTERS; i++)
		close_slot(&routers[i]);
	doors_stop(rig.doors);
	rig_turn(20);
	good = good && books_hold() && list_empty(&rig.doors->waiting) && rig.doors->prefix_bytes == 0 &&
	       list_empty(&rig.doors->asking) && list_empty(&rig.doors->returned);
	rig_stop();
	return good;
}

int main(int argc, char **argv)
{
	unsigned steps = argc > 2 ? (unsigned)atoi(argv[2]) : 2000, good = 0, rounds = argc > 1 ? 1 : 10;
	tcp_listener = rig_listen(AF_INET, &tcp_address, &tcp_size);
	unsigned before = count_descriptors();
	for (unsigned i = 0; i < rounds; i++) {
		seed = (argc > 1 ? strtoull(argv[1], NULL, 10) : i + 1) * 0x9e3779b97f4a7c15u;
		good += run(steps);
	}
	CHECK(good == rounds, "whatever is done in whatever order, the books hold");
	CHECK(forwards > steps / 100 * rounds, "and much has happened");
	CHECK(count_descriptors() == before, "and no descriptor is left");
	close(tcp_listener);
	return tap_done();
}
