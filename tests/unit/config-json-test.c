/* SPDX-License-Identifier: Apache-2.0 */
/* config-json-test.c - a configuration as JSON reads and writes back, and one pass refuses what cannot work */
#include "engine/boot.h"
#include "engine/check.h"
#include "engine/config_json.h"
#include "engine/disks.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

static struct husk_error err;

static struct husk_vm_config plain(void)
{
	return (struct husk_vm_config){.size = sizeof(struct husk_vm_config),
		.image = "debian:12",
		.stdin_fd = -1,
		.stdout_fd = -1,
		.stderr_fd = -1,
		.memory = 512 << 20,
		.cpus = 1,
		.scratch = 1 << 30,
		.start_timeout_ms = 60000,
		.serial_fd = -1,
		.serial_input_fd = -1,
		.log_size = 16 << 20};
}

static int read_text(struct husk_vm_config *c, const char *text, struct husk_vm_json **json)
{
	*c = plain();
	*json = NULL;
	err.message[0] = 0;
	return config_json_read(c, text, strlen(text), json, &err);
}

static void refused(const char *text, const char *words)
{
	struct husk_vm_config c;
	struct husk_vm_json *json;
	int rc = read_text(&c, text, &json);
	if (rc == 0)
		rc = check_config(&c, &err);
	config_json_free(json);
	if (!CHECK(rc < 0 && strstr(err.message, words), words))
		printf("# said: %s\n", err.message);
}

/** What JSON cannot say or keep. */
static void test_detached(void)
{
	struct husk_vm_config c = plain();
	const char *const env[] = {"A=ok", "B=\xff", NULL};
	c.lifetime = HUSK_LIFETIME_DETACHED;
	CHECK(check_config(&c, &err) == 0, "a VM that belongs to nobody");
	c.stdout_fd = 1;
	CHECK(check_config(&c, &err) == -EINVAL && strstr(err.message, "stdout_fd: 1"), "has no stream of anybody's");
	c.stdout_fd = -1;
	c.env = env;
	CHECK(check_config(&c, &err) == -EINVAL && strstr(err.message, "env: not valid UTF-8"),
		"and nothing that its record could not keep");
	c.lifetime = HUSK_LIFETIME_CALLER;
	CHECK(check_config(&c, &err) == 0, "which others may have");
}

static const char whole[] =
	"{\"image\": \"x\", \"command\": [\"a\", \"\"], \"entrypoint\": [], \"env\": [\"A=1\"], \"working_dir\": "
	"\"/w\","
	" \"user\": \"u\", \"hostname\": \"h\", \"name\": \"n\", \"tty\": true, \"init\": true, \"read_only\": true,"
	" \"machine\": \"qemu\", \"require_hardware\": true, \"memory\": 134217728, \"cpus\": 1, \"kernel\": \"k\","
	" \"cmdline\": \"c\", \"scratch\": 134217728,"
	" \"disks\": [{\"path\": \"/d\", \"read_only\": true, \"serial\": \"s\", \"format\": \"raw\"},"
	" {\"path\": \"/e\", \"read_only\": false}], \"net\": \"none\","
	" \"doors\": [{\"kind\": \"tls\", \"address\": \"::1\", \"port\": 443, \"guest_port\": 80, \"certificate\": "
	"\"/c\","
	" \"key\": \"/k\", \"alpn\": \"h2\"}, {\"kind\": \"handoff\", \"path\": \"/p\", \"port\": 0, \"guest_port\": "
	"0}],"
	" \"listen_wait_ms\": 5, \"vsock\": {\"policy\": \"fixed\", \"port\": 4294967294}, \"serial\": \"log\","
	" \"lifetime\": \"detached\", \"remove\": true, \"open_stdin\": true, \"log_size\": 65536,"
	" \"timeout_ms\": 6, \"start_timeout_ms\": 7, \"platform\": \"linux/amd64\", \"pull\": \"never\", \"offline\": "
	"true}";

static void test_round_trip(void)
{
	struct husk_vm_config c;
	struct husk_vm_json *json;
	CHECK(read_text(&c, whole, &json) == 0 && check_config(&c, &err) == 0, "every field is read, and may be so");
	CHECK(c.n_disks == 2 && c.disks[0].read_only && c.disks[0].size == sizeof(struct husk_disk) &&
			strcmp(c.disks[1].path, "/e") == 0 && !c.disks[1].serial,
		"disks");
	CHECK(c.n_doors == 2 && c.doors[0].kind == HUSK_DOOR_TLS && c.doors[0].port == 443, "doors");
	CHECK(c.command[0] && !c.command[1][0] && !c.command[2] && c.entrypoint && !c.entrypoint[0], "lists");
	CHECK(c.vsock == HUSK_VSOCK_FIXED && c.vsock_port == UINT32_MAX - 1 && c.pull == HUSK_PULL_NEVER, "choices");
	CHECK(c.memory == 128 << 20 && c.timeout_ms == 6 && c.tty && c.offline, "numbers and flags");
	json_t *want = json_loads(whole, 0, NULL), *got = config_json_write(&c);
	CHECK(json_equal(want, got), "and written as it was read");
	char *text = json_dumps(got, JSON_INDENT(1));
	if (!json_equal(want, got))
		printf("# %s\n", text);
	free(text);
	json_decref(want);
	json_decref(got);
	config_json_free(json);

	CHECK(read_text(&c, "{\"memory\": \"1G\", \"timeout_ms\": \"1.5s\", \"cpus\": null}", &json) == 0 &&
			c.memory == 1 << 30 && c.timeout_ms == 1500 && c.cpus == 1,
		"sizes and times as on the command line; null is nothing");
	CHECK_STRING(c.image, "debian:12", "what is not named stays");
	config_json_free(json);
	c = plain();
	const char *odd[] = {"a\xff"
			     "b",
		"\xc3\xa4", NULL};
	c.command = odd;
	got = config_json_write(&c);
	CHECK_STRING(json_string_value(json_array_get(json_object_get(got, "command"), 0)),
		"a\xef\xbf\xbd"
		"b",
		"a byte that is no UTF-8 shows as U+FFFD");
	CHECK_STRING(
		json_string_value(json_array_get(json_object_get(got, "command"), 1)), "\xc3\xa4", "what is, stays");
	json_decref(got);
}

static void test_syntax(void)
{
	refused("{\n\n\"cpus\": }", "line 3, column");
	refused("{\"cpus\": 1} x", "line 1");
	refused("[1]", "an object");
	refused("{\"colour\": 1}", "colour: there is no such field");
	refused("{\"disks\": [{\"path\": \"a\", \"ro\": 1}]}", "disks[0].ro: there is no such field");
	refused("{\"vsock\": {\"ports\": 1}}", "vsock.ports: there is no such field");
	refused("{\"cpus\": 1, \"cpus\": 2}", "duplicate");
	refused("{\"cpus\": 1.5}", "cpus: 1.5: not a whole number");
	refused("{\"cpus\": -1}", "cpus: -1: out of range");
	refused("{\"cpus\": 4294967296}", "cpus: 4294967296: out of range");
	refused("{\"memory\": \"1.5G\"}", "memory: \"1.5G\": not a size");
	refused("{\"timeout_ms\": \"soon\"}", "timeout_ms: \"soon\": not a time");
	refused("{\"tty\": 1}", "tty: 1: neither true nor false");
	refused("{\"image\": 1}", "image: 1: not a string");
	refused("{\"env\": [\"A=1\", 2]}", "env[1]: 2: not a string");
	refused("{\"env\": \"A=1\"}", "env: \"A=1\": not a list");
	refused("{\"disks\": {}}", "disks: {}: not a list");
	refused("{\"disks\": [1]}", "disks[0]: 1: not an object");
	refused("{\"vsock\": \"auto\"}", "vsock: \"auto\": not an object");
	refused("{\"pull\": \"often\"}", "pull: \"often\": none of missing, always, never");
	refused("{\"doors\": [{\"kind\": 1}]}", "doors[0].kind: 1: none of unix, tcp, exec, handoff, tls");
	refused("{\"doors\": [{\"kind\": \"tcp\", \"port\": 65536}]}", "doors[0].port: 65536: out of range");
}

static void test_values(void)
{
	refused("{\"image\": \"\"}", "image: '' is no image");
	refused("{\"memory\": 1}", "memory: 1 is out of range: 96 MiB");
	refused("{\"cpus\": 0}", "cpus: 0 is out of range: 1 to");
	refused("{\"scratch\": 1}", "scratch: 1 is out of range");
	refused("{\"start_timeout_ms\": 0}", "start_timeout_ms: 0 is out of range");
	refused("{\"listen_wait_ms\": 86400001}", "listen_wait_ms: 86400001 is out of range");
	refused("{\"name\": \"a/b\"}", "name: 'a/b' is not a name");
	refused("{\"hostname\": \"a b\"}", "hostname: 'a b' is not a host name");
	refused("{\"working_dir\": \"w\"}", "working_dir: 'w' is not an absolute path");
	refused("{\"user\": \"\"}", "user: '' names no user");
	refused("{\"machine\": \"vbox\"}", "machine: 'vbox' is none of");
	refused("{\"cmdline\": \"a\\nb\"}", "contains a control character");
	refused("{\"platform\": \"linux/\"}", "platform: ");
	refused("{\"env\": [\"A=1\", \"=x\"]}", "env[1]: '=x' is not an environment variable");
	refused("{\"offline\": true, \"pull\": \"always\"}", "exclude each other");
	refused("{\"net\": \"tap\"}", "net: 'tap' cannot be had");
	refused("{\"shares\": [{\"path\": \"/srv\"}]}", "shares[0].path: '/srv': no machine can serve");
	refused("{\"disks\": [{}]}", "disks[0].path: ''");
	refused("{\"disks\": [{\"path\": \"a\", \"format\": \"qcow2\"}]}", "disks[0].format: 'qcow2'");
	refused("{\"disks\": [{\"path\": \"a\"}, {\"path\": \"b\", \"serial\": \"a/b\"}]}", "disks[1].serial: 'a/b'");
	refused("{\"disks\": [{\"path\": \"a\"}, {\"path\": \"b\", \"serial\": \"disk0\"}]}", "is disks[0]'s as well");
	refused("{\"disks\": [{\"path\": \"a\", \"serial\": \"husk-scratch\"}]}", "husk's own");
	refused("{\"vsock\": {\"policy\": \"fixed\"}}", "vsock.port: 0 is out of range");
	refused("{\"vsock\": {\"policy\": \"fixed\", \"port\": 1028}}", "vsock.port: 1028 is the port of husk's own");
	refused("{\"vsock\": {\"policy\": \"fixed\", \"port\": 4294967295}}", "vsock.port: 4294967295 is out of range");
	refused("{\"vsock\": {\"policy\": \"auto\", \"port\": 49999}}", "vsock.port: 49999 is out of range");
	refused("{\"vsock\": {\"port\": 5}}", "vsock.port: 5 goes with");
	refused("{\"serial\": \"capture\"}", "serial: 'capture' needs a descriptor");
	refused("{\"lifetime\": \"detached\", \"serial\": \"inherit\"}", "serial: 'inherit' needs");
	refused("{\"lifetime\": \"for ever\"}", "lifetime: \"for ever\": none of caller, detached");
	refused("{\"lifetime\": \"detached\", \"log_size\": 65535}", "log_size: 65535 is out of range: 64 KiB");
	refused("{\"log_size\": \"1M\"}", "log_size: goes with lifetime 'detached' only");
	refused("{\"open_stdin\": true}", "open_stdin: goes with lifetime 'detached' only");
	refused("{\"serial\": \"inherit\"}", "serial: 'inherit' needs a descriptor");
	refused("{\"doors\": [{\"kind\": \"unix\", \"path\": \"a\"}, {\"kind\": \"exec\", \"path\": \"a\"}]}",
		"doors[1]: two doors are to be at a");
	refused("{\"initramfs\": \"/i\", \"hostname\": \"h\"}", "hostname: a host name needs husk's agent");
	refused("{\"initramfs\": \"/i\", \"doors\": [{\"kind\": \"tcp\"}]}", "doors: a door needs husk's agent");
}

static void test_too_many(void)
{
	struct husk_vm_config c = plain();
	struct husk_disk disks[VMM_DISKS_MAX + 1];
	for (size_t i = 0; i <= VMM_DISKS_MAX; i++)
		disks[i] = (struct husk_disk){.size = sizeof(*disks), .path = "/d"};
	c.disks = disks;
	c.n_disks = VMM_DISKS_MAX;
	CHECK(check_config(&c, &err) == 0, "18 disks");
	c.n_disks++;
	CHECK(check_config(&c, &err) == -E2BIG && strstr(err.message, "disks: 19"), "19 are too many");
}

static void test_names(void)
{
	char name[BOOT_DISK_NAME];
	CHECK(boot_disk_name(0, name) == 0 && strcmp(name, "vda") == 0, "the root's name");
	CHECK(boot_disk_name(1, name) == 0 && strcmp(name, "vdb") == 0, "scratch without disks, or the first disk");
	CHECK(boot_disk_name(VMM_DISKS_MAX + 1, name) == 0 && strcmp(name, "vdt") == 0, "scratch behind 18 disks");
	CHECK(boot_disk_name(26, name) == -E2BIG, "no letter is left");
}

/** A file of @size bytes; its path. */
static const char *image(const char *directory, const char *name, off_t size)
{
	static char path[300];
	snprintf(path, sizeof(path), "%s/%s", directory, name);
	int fd = open(path, O_RDWR | O_CREAT, 0600);
	if (ftruncate(fd, size) < 0)
		path[0] = 0;
	close(fd);
	return path;
}

static int open_one(const char *path, bool read_only, struct open_disks *out)
{
	struct husk_vm_config c = plain();
	struct husk_disk disk = {.size = sizeof(disk), .path = path, .read_only = read_only};
	c.disks = &disk;
	c.n_disks = 1;
	*out = (struct open_disks){0};
	return disks_open(&c, out, &err);
}

static void test_disks(void)
{
	char directory[] = "/tmp/husk-disks-XXXXXX";
	struct open_disks first, second, third;
	CHECK(mkdtemp(directory) != NULL, "a directory");
	const char *path = image(directory, "image", 4096);
	CHECK(open_one(path, false, &first) == 0 && first.n == 1 &&
			(fcntl(first.disk[0].fd, F_GETFL) & O_ACCMODE) == O_RDWR,
		"a disk to write");
	CHECK_STRING(first.disk[0].serial, "disk0", "has a serial number");
	CHECK(open_one(path, false, &second) == -EBUSY && strstr(err.message, "another VM"), "nobody else writes it");
	disks_close(&second);
	CHECK(open_one(path, true, &second) == -EBUSY, "or reads it");
	disks_close(&second);
	disks_close(&first);
	CHECK(open_one(path, true, &first) == 0 && open_one(path, true, &second) == 0 &&
			(fcntl(first.disk[0].fd, F_GETFL) & O_ACCMODE) == O_RDONLY,
		"readers share, and cannot write");
	CHECK(open_one(path, false, &third) == -EBUSY, "but with no writer");
	disks_close(&third);
	disks_close(&second);
	disks_close(&first);
	CHECK(open_one(directory, false, &first) == -EINVAL && strstr(err.message, "neither a file nor"),
		"a directory");
	CHECK(open_one("/dev/null", true, &first) == -EINVAL, "a character device");
	CHECK(open_one("/no/such", true, &first) == -ENOENT &&
			strstr(err.message, "disks[0].path: '/no/such': no such file"),
		"what is not there");
	CHECK(open_one(image(directory, "odd", 1000), true, &first) == -EINVAL &&
			strstr(err.message, "multiple of 512"),
		"half a sector");
	disks_close(&first);
	CHECK(open_one(image(directory, "empty", 0), true, &first) == -EINVAL, "nothing at all");
	disks_close(&first);
	for (size_t i = 0; i < 3; i++)
		unlink(image(directory, (const char *[]){"image", "odd", "empty"}[i], 0));
	rmdir(directory);
}

int main(void)
{
	test_round_trip();
	test_detached();
	test_syntax();
	test_values();
	test_too_many();
	test_names();
	test_disks();
	return tap_done();
}
