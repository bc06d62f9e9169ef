/* SPDX-License-Identifier: Apache-2.0 */
/* config-options-test.c - --disk and --vsock-port */
#include "base/cleanup.h"
#include "base/error.h"
#include "cli/config.h"
#include "tests/tap.h"

static struct husk_error err;

static void disk(const char *given, const char *path, bool read_only, const char *serial)
{
	CLEANUP_FREE char *text = strdup(given);
	struct husk_disk disk;
	husk_disk_init(&disk);
	CHECK(disk_parse(text, &disk, &err) == 0 && strcmp(disk.path, path) == 0 && disk.read_only == read_only &&
			strcmp(disk.serial ? disk.serial : "-", serial) == 0,
		given);
}

static void vsock(const char *given, int rc, enum husk_vsock policy, uint32_t port)
{
	struct husk_vm_config config = {.vsock_port = 7};
	CHECK(vsock_parse(given, &config, &err) == rc &&
			(rc < 0 || (config.vsock == policy && config.vsock_port == port)),
		given);
}

int main(void)
{
	disk("/a/b.img", "/a/b.img", false, "-");
	disk("/a/b.img:ro", "/a/b.img", true, "-");
	disk("b,serial=S1", "b", false, "S1");
	disk("b:ro,serial=S1", "b", true, "S1");
	disk("with:colon,and,comma", "with:colon,and,comma", false, "-");
	disk("x:ro:ro", "x:ro", true, "-");
	disk("x,serial=", "x", false, "");
	char empty[] = ":ro", nothing[] = "";
	struct husk_disk unused;
	husk_disk_init(&unused);
	CHECK(disk_parse(empty, &unused, &err) == -EINVAL && disk_parse(nothing, &unused, &err) == -EINVAL, "no path");
	vsock("any", 0, HUSK_VSOCK_ANY, 0);
	vsock("none", 0, HUSK_VSOCK_DISABLED, 0);
	vsock("auto", 0, HUSK_VSOCK_AUTO, 0);
	vsock("5000", 0, HUSK_VSOCK_FIXED, 5000);
	vsock("4294967294", 0, HUSK_VSOCK_FIXED, 4294967294u);
	vsock("0", -EINVAL, 0, 0);
	vsock("4294967295", -EINVAL, 0, 0);
	vsock("", -EINVAL, 0, 0);
	vsock("AUTO", -EINVAL, 0, 0);
	return tap_done();
}
