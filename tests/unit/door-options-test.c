/* SPDX-License-Identifier: Apache-2.0 */
/* door-options-test.c - what the options that open doors take, and what they refuse */
#include "cli/doors.h"

#include "base/cleanup.h"
#include "tests/tap.h"

#include <errno.h>

typedef int parse_fn(char *text, struct husk_door *door, struct husk_error *err);

static struct husk_error err;
static char room[256];

static int parse(parse_fn *fn, const char *text, struct husk_door *door)
{
	husk_door_init(door);
	snprintf(room, sizeof(room), "%s", text);
	return fn(room, door, &err);
}

static bool same(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static void test_ports(void)
{
	static const struct {
		parse_fn *fn;
		const char *text, *address;
		uint16_t port, guest;
	} right[] = {
		{door_parse_publish, "80", NULL, 0, 80},
		{door_parse_publish, "80/tcp", NULL, 0, 80},
		{door_parse_publish, "8080:80", NULL, 8080, 80},
		{door_parse_publish, "0:80", NULL, 0, 80},
		{door_parse_publish, "65535:65535", NULL, 65535, 65535},
		{door_parse_publish, "127.0.0.1:8080:80", "127.0.0.1", 8080, 80},
		{door_parse_publish, "127.0.0.1::80", "127.0.0.1", 0, 80},
		{door_parse_publish, "[::1]:8080:80/tcp", "::1", 8080, 80},
		{door_parse_publish, "[::1]::80", "::1", 0, 80},
		{door_parse_http_port, "8080", NULL, 8080, 0},
		{door_parse_http_port, "0", NULL, 0, 0},
		{door_parse_http_port, "0.0.0.0:8080", "0.0.0.0", 8080, 0},
		{door_parse_http_port, "[::]:8080", "::", 8080, 0},
		{door_parse_tls_port, "8443", NULL, 8443, 0},
		{door_parse_tls_port, "8443:443", NULL, 8443, 443},
		{door_parse_tls_port, "127.0.0.1:8443", "127.0.0.1", 8443, 0},
		{door_parse_tls_port, "[::1]:8443:443", "::1", 8443, 443},
	};
	for (size_t i = 0; i < ARRAY_SIZE(right); i++) {
		struct husk_door door;
		int rc = parse(right[i].fn, right[i].text, &door);
		CHECK(rc == 0 && same(door.address, right[i].address) && door.port == right[i].port &&
				door.guest_port == right[i].guest,
			right[i].text);
	}
}

static void test_wrong_ports(void)
{
	static const char *const publish[] = {"", ":", "::", ":80", "80:", "0", "65536", "-1", "+80", " 80", "80 ",
		"8080:0", "65536:80", "8080:65536", "1.2.3.4:80", "1.2.3.4:80:", "1.2.3.4::", "1.2.3.4:80:80:80",
		"::1:80:80", "[::1]", "[::1]:", "[::1]:80", "[::1]80:80", "[]:80:80", "[::1:80:80", "8000-8010:80",
		"80/udp", "80/sctp", "80/", "80/TCP", "80/tcp/tcp", "http", "99999999999999999999"};
	static const char *const http[] = {
		"", ":", ":80", "80:", "65536", "1.2.3.4", "1.2.3.4:", "8080:80", "[::1]", "80/tcp"};
	static const char *const tls[] = {
		"", ":443", "8443:", "8443:0", "8443:65536", "1.2.3.4", "1:2:3", "[::1]:", "[::1]::80"};
	struct husk_door door;
	for (size_t i = 0; i < ARRAY_SIZE(publish); i++)
		CHECK(parse(door_parse_publish, publish[i], &door) < 0, publish[i]);
	for (size_t i = 0; i < ARRAY_SIZE(http); i++)
		CHECK(parse(door_parse_http_port, http[i], &door) < 0, http[i]);
	for (size_t i = 0; i < ARRAY_SIZE(tls); i++)
		CHECK(parse(door_parse_tls_port, tls[i], &door) < 0, tls[i]);
	parse(door_parse_publish, "53:53/udp", &door);
	CHECK(strstr(err.message, "udp") && strstr(err.message, "stream"), "udp is refused with the reason");
	parse(door_parse_publish, "1.2.3.4:80", &door);
	CHECK(strstr(err.message, "1.2.3.4:80"), "an error shows the whole value");
}

static void test_paths(void)
{
	static const struct {
		const char *text, *path;
		uint16_t guest;
	} right[] = {
		{"/run/web.sock", "/run/web.sock", 0},
		{"web.sock:8080", "web.sock", 8080},
		{"/a:b/c.sock", "/a:b/c.sock", 0},
		{"/a:1/c.sock:80", "/a:1/c.sock", 80},
		{"/a:80:81", "/a:80", 81},
		{"/a:8x", "/a:8x", 0},
		{"/a::80", "/a:", 80},
	};
	static const char *const wrong[] = {"", ":80", "/a:", "/a:0", "/a:65536", "/a:99999999999999999999"};
	struct husk_door door;
	for (size_t i = 0; i < ARRAY_SIZE(right); i++) {
		CHECK(parse(door_parse_vsock_mux, right[i].text, &door) == 0 && same(door.path, right[i].path) &&
				door.guest_port == right[i].guest && door.kind == HUSK_DOOR_UNIX,
			right[i].text);
		CHECK(parse(door_parse_handoff, right[i].text, &door) == 0 && same(door.path, right[i].path) &&
				door.guest_port == right[i].guest && door.kind == HUSK_DOOR_HANDOFF,
			right[i].text);
	}
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		CHECK(parse(door_parse_vsock_mux, wrong[i], &door) < 0, wrong[i]);
	CHECK(parse(door_parse_exec_door, "/x:80", &door) == 0 && same(door.path, "/x:80") && !door.guest_port,
		"an exec door has a path and nothing else");
	CHECK(parse(door_parse_exec_door, "", &door) < 0, "and no empty one");
}

static const struct option options[] = {
	{.name = "publish", .value = "P", .many = true},
	{.name = "vsock-mux", .value = "P", .many = true},
	{.name = "tls", .value = "P"},
	{.name = "tls-port", .value = "P", .many = true},
	{.name = "tls-alpn", .value = "P"},
	{0},
};
static const struct verb verb = {.name = "v", .operands = "", .options = options};

/** Read a whole command line. */
static int take(struct door_list *list, size_t n, const char *const *words)
{
	struct cli cli = {0};
	*list = (struct door_list){0};
	int rc = cli_parse(&cli, &verb, words, n, &err);
	rc = rc < 0 ? rc : door_list_take(list, &cli, &err);
	cli_free(&cli);
	return rc;
}
#define TAKE(list, ...) take(list, ARRAY_SIZE(((const char *const[]){__VA_ARGS__})), (const char *const[]){__VA_ARGS__})

static void test_lines(void)
{
	struct door_list list;
	CHECK(TAKE(&list, "--publish=1:2", "--vsock-mux=/a:5", "--publish", "3:4") == 0 && list.n == 3 &&
			list.doors[0].port == 1 && list.doors[1].guest_port == 5 && list.doors[2].port == 3,
		"doors come in the order in which they were asked for");
	door_list_free(&list);
	CHECK(TAKE(&list, "--tls=/c:/k", "--tls-port=1", "--tls-port=2:3", "--tls-alpn=h2,http/1.1", "--publish=9") ==
				0 &&
			list.n == 3 && same(list.doors[1].certificate, "/c") && same(list.doors[0].key, "/k") &&
			same(list.doors[1].alpn, "h2,http/1.1") && !list.doors[2].key,
		"certificate and key go to every tls door and to no other");
	door_list_free(&list);
	CHECK(TAKE(&list, "--tls-port=1") < 0 && strstr(err.message, "--tls"), "--tls-port without --tls");
	door_list_free(&list);
	CHECK(TAKE(&list, "--tls=/c:/k") < 0 && strstr(err.message, "--tls-port"), "--tls without --tls-port");
	door_list_free(&list);
	CHECK(TAKE(&list, "--tls-alpn=h2", "--publish=9") < 0, "--tls-alpn without --tls-port");
	door_list_free(&list);
	static const char *const wrong[] = {"--tls=/c", "--tls=:/k", "--tls=/c:", "--tls=/c:/k:/x"};
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		CHECK(TAKE(&list, wrong[i], "--tls-port=1") < 0, wrong[i]);
		door_list_free(&list);
	}
}

int main(void)
{
	test_ports();
	test_wrong_ports();
	test_paths();
	test_lines();
	return tap_done();
}
