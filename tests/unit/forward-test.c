/* SPDX-License-Identifier: Apache-2.0 */
/* forward-test.c - what the kernel notes of listeners, told in the protocol's words, and the addresses to try for a port */
#include "guest/forward.h"
#include "guest/listeners.h"
#include "tests/tap.h"

#include <arpa/inet.h>
#include <string.h>

static struct listener_note note(uint64_t since, uint32_t port, const char *address)
{
	struct listener_note n = {.since = since, .network = 7, .port = port};
	n.family = strchr(address, ':') ? AF_INET6 : AF_INET;
	inet_pton((int)n.family, address, n.address);
	return n;
}

static bool is(const struct agent_listener *l, uint16_t port, const char *address)
{
	uint8_t bytes[16] = {0};
	int family = strchr(address, ':') ? AF_INET6 : AF_INET;
	inet_pton(family, address, bytes);
	return l->port == port && l->family == (family == AF_INET ? 4 : 6) && memcmp(l->address, bytes, 16) == 0;
}

static void test_tell(void)
{
	struct agent_listener told[8];
	struct listener_note notes[] = {note(30, 80, "::"), note(10, 65535, "127.0.0.1"), note(20, 1, "0.0.0.0"),
		note(15, 82, "::1"), note(40, 83, "::ffff:10.1.2.3")};

	CHECK(listeners_tell(notes, 0, 7, told) == 0, "no notes, no listeners");
	CHECK(listeners_tell(notes, 5, 7, told) == 5, "all in our network are told");
	CHECK(is(&told[0], 65535, "127.0.0.1") && is(&told[1], 82, "::1") && is(&told[2], 1, "0.0.0.0") &&
			is(&told[3], 80, "::"),
		"the oldest first");
	CHECK(is(&told[4], 83, "10.1.2.3"), "a mapped address is an IPv4 one");
	notes[0].network = 8;
	notes[1].port = 0;
	notes[2].port = 65536;
	CHECK(listeners_tell(notes, 5, 7, told) == 2, "another network's are not told, nor impossible ports");
}

static void test_renewed(void)
{
	struct agent_listener before[1], after[1];
	struct listener_note one = note(10, 80, "0.0.0.0"), again = note(20, 80, "0.0.0.0");
	struct listener_note older[] = {note(5, 79, "::"), note(10, 80, "::")};
	uint64_t youngest = 0;

	CHECK(!listeners_renewed(NULL, 0, 7, &youngest), "no notes, nothing new");
	CHECK(listeners_renewed(&one, 1, 7, &youngest) && !listeners_renewed(&one, 1, 7, &youngest),
		"a listener is new once");
	CHECK(listeners_tell(&one, 1, 7, before) == 1 && listeners_tell(&again, 1, 7, after) == 1 &&
			memcmp(before, after, sizeof(before)) == 0 && listeners_renewed(&again, 1, 7, &youngest),
		"one that closed and came again is new, though it is told in the same words");
	CHECK(!listeners_renewed(older, 2, 7, &youngest), "that the youngest has gone is nothing new");
	older[1].since = 30;
	older[1].network = 8;
	CHECK(!listeners_renewed(older, 2, 7, &youngest), "nor is one of another network");
}

static bool goes_to(const union forward_target *target, uint16_t port, const char *address)
{
	char text[INET6_ADDRSTRLEN];
	bool four = target->any.sa_family == AF_INET;
	inet_ntop(target->any.sa_family, four ? (void *)&target->v4.sin_addr : (void *)&target->v6.sin6_addr, text,
		sizeof(text));
	return strcmp(text, address) == 0 && ntohs(four ? target->v4.sin_port : target->v6.sin6_port) == port;
}

static void test_targets(void)
{
	union forward_target to[FORWARD_TARGETS_MAX];
	struct listener_note notes[16] = {note(1, 80, "::"), note(2, 81, "127.0.0.9"), note(3, 80, "127.0.0.2"),
		note(4, 80, "0.0.0.0"), note(5, 80, "fd00::1")};
	struct agent_listener l[16];
	size_t n = listeners_tell(notes, 5, 7, l);

	CHECK(forward_targets(NULL, 0, 80, to) == 2 && goes_to(&to[0], 80, "127.0.0.1") && goes_to(&to[1], 80, "::1"),
		"without a listener both loopbacks are tried");
	CHECK(forward_targets(l, n, 80, to) == 4, "each address once");
	CHECK(goes_to(&to[0], 80, "::1") && goes_to(&to[1], 80, "127.0.0.2") && goes_to(&to[2], 80, "127.0.0.1") &&
			goes_to(&to[3], 80, "fd00::1"),
		"the listeners' own first, wildcards by loopback");
	CHECK(forward_targets(l, n, 81, to) == 3 && goes_to(&to[0], 81, "127.0.0.9") &&
			goes_to(&to[1], 81, "127.0.0.1"),
		"other ports' listeners do not count");
	for (int i = 0; i < 16; i++) {
		char address[16];
		snprintf(address, sizeof(address), "127.0.1.%d", i);
		notes[i] = note((uint64_t)i, 80, address);
	}
	n = listeners_tell(notes, 16, 7, l);
	CHECK(n == 16 && forward_targets(l, n, 80, to) == FORWARD_TARGETS_MAX,
		"many listeners on a port are not all tried");
	CHECK(goes_to(&to[FORWARD_TARGETS_MAX - 1], 80, "::1"), "but the loopbacks are");
}

int main(void)
{
	test_tell();
	test_renewed();
	test_targets();
	return tap_done();
}
