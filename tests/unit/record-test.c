/* SPDX-License-Identifier: Apache-2.0 */
/* record-test.c - records and names are read as written, and what is damaged is an error that says so */
#include "base/path.h"
#include "image/name.h"
#include "image/record.h"
#include "image/record_private.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <sys/stat.h>

#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde"

static char home[] = "/tmp/husk-record-test.XXXXXX";

static void put(const char *path, const char *text)
{
	CLEANUP_FREE char *full = path_join(home, path);
	path_write_atomically(full, text, strlen(text), 0600, NULL);
}

static void put_image(char digit, const char *architecture, const char *rest)
{
	CLEANUP_FREE char *path = path_format("images/" HEX "%c.json", digit);
	CLEANUP_FREE char *text =
		path_format("{\"schema\":1,\"id\":\"sha256:" HEX "%c\",\"os\":\"linux\",\"architecture\":"
			    "\"%s\",\"size\":4096,\"pulled\":%d,\"config\":{\"env\":[\"A=b\"],\"cmd\":[\"sh\"],"
			    "\"user\":\"7\"},\"layers\":[{\"diff_id\":\"sha256:" HEX "0\",\"file\":\"" HEX
			    "0.img\",\"size\":4096}]%s}",
			digit, architecture, digit, rest);
	put(path, text);
}

static void put_name(const char *name, char digit)
{
	CLEANUP_FREE char *file = name_file(name);
	CLEANUP_FREE char *path = path_format("names/%s.json", file);
	CLEANUP_FREE char *text =
		path_format("{\"schema\":1,\"name\":\"%s\",\"image_id\":\"sha256:" HEX "%c\"}", name, digit);
	put(path, text);
}

/** The last digit of the id that is found, or '-', with the code in *@code. */
static char find(const char *text, const char *platform, int *code)
{
	struct image_record record;
	struct husk_error err = {0};
	*code = image_find(home, text, platform, &record, &err);
	if (*code < 0)
		return '-';
	char digit = record.id[70];
	image_record_free(&record);
	return digit;
}

static void test_find(void)
{
	int code;
	struct image_record record = {0};
	CHECK(find("debian", NULL, &code) == '-' && code == -ENOENT, "an empty home has no image");
	put("layers/" HEX "0.img", "");
	CLEANUP_FREE char *layer = path_join(home, "layers/" HEX "0.img");
	CHECK(truncate(layer, 4096) == 0, "a layer");
	put_image('a', "amd64", "");
	put_image('b', "arm64", ",\"manifest_digest\":\"sha256:" HEX "9\"");
	put_name("docker.io/library/debian:12", 'a');
	put_name("docker.io/library/arm:latest", 'b');
	CHECK(find("debian:12", "linux/amd64", &code) == 'a', "by the short name");
	CHECK(find("docker.io/library/debian:12", "linux/amd64", &code) == 'a', "by the full name");
	CHECK(find("debian:12", "linux/amd64/v3", &code) == 'a', "for a later variant");
	CHECK(find("arm", "linux/arm64", &code) == 'b', "with the tag latest");
	CHECK(find("arm", "linux/amd64", &code) == '-' && code == -ENOENT, "not for another platform");
	CHECK(find("sha256:" HEX "a", "linux/amd64", &code) == 'a', "by id");
	CHECK(find(HEX "b", "linux/arm64", &code) == 'b', "by the id's digits");
	CHECK(find("0123", "linux/amd64", &code) == '-' && code == -ENOTUNIQ, "an ambiguous prefix");
	CHECK(find("01", "linux/amd64", &code) == '-' && code == -ENOENT, "two digits are no prefix");
	CHECK(find("UPPER/x", NULL, &code) == '-' && code < 0, "no name");
	CHECK(image_find(home, "debian:12", "linux/amd64", &record, NULL) == 0, "a whole record");
	CHECK_STRING(record.names[0], "docker.io/library/debian:12", "its name");
	CHECK_STRING(record.env[0], "A=b", "its environment");
	CHECK_STRING(record.cmd[0], "sh", "its command");
	CHECK_STRING(record.user, "7", "its user");
	CHECK(!record.entrypoint[0] && !record.volumes[0] && !record.working_dir && !record.manifest_digest,
		"what it does not have is empty");
	CHECK(record.n_layers == 1 && record.layers[0].size == 4096, "its layers");
	CHECK_STRING(record.layers[0].path, layer, "with absolute paths");
	image_record_free(&record);
	CHECK(truncate(layer, 8192) == 0 && find("debian:12", "linux/amd64", &code) == '-' && code == -ENOENT,
		"a damaged layer is as good as no image");
}

static void test_list(void)
{
	struct image_record *records;
	size_t n = 0;
	struct husk_error err = {0};
	put("images/" HEX "a.json.Xy12Zz", "{");
	CHECK(image_list(home, &records, &n, &err) == 0 && n == 2, "the list; a temporary file is not in it");
	CHECK(n == 2 && records[0].id[70] == 'b', "newest first");
	for (size_t i = 0; i < n; i++)
		image_record_free(&records[i]);
	free(records);
	static const char *const bad[] = {"", "{", "[]", "{\"schema\":2}", "{\"schema\":1}"};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		put("images/" HEX "c.json", bad[i]);
		CHECK(image_list(home, &records, &n, &err) == -EBADMSG && strstr(err.message, HEX "c.json"),
			"a damaged record is named");
	}
	put_image('c', "amd64", ",\"x\":1,\"created\":7");
	CHECK(image_list(home, &records, &n, &err) == -EBADMSG, "a member of the wrong type");
}

static void test_names(void)
{
	char long_name[600];
	memset(long_name, 'x', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = 0;
	CLEANUP_FREE char *one = name_file(long_name);
	long_name[sizeof(long_name) - 2] = 'y';
	CLEANUP_FREE char *two = name_file(long_name);
	CLEANUP_FREE char *hidden = name_file("../.x");
	CHECK(strlen(one) <= 200 && strcmp(one, two) != 0, "long names stay apart in short file names");
	CHECK_STRING(hidden, "%2E.%2F.x", "no path, nothing hidden");
	struct source_name name;
	struct husk_error err = {0};
	CHECK(source_name_parse("oci:/no/where:tag", &name, &err) == 0, "a layout that is gone");
	CHECK_STRING(name.path, "/no/where", "its path");
	CHECK_STRING(name.selector, "tag", "its tag");
	source_name_free(&name);
	CLEANUP_FREE char *odd = path_format("oci:%s:x", home);
	CHECK(source_name_parse(odd, &name, &err) == 0, "a layout that is there");
	CHECK_STRING(name.path, home, "its path");
	source_name_free(&name);
	CHECK(source_name_parse("rootfs:/", &name, &err) == 0 && name.kind == SOURCE_ROOTFS, "a tree");
	source_name_free(&name);
	CHECK(source_name_parse("oci:", &name, &err) == -EINVAL, "a path must follow");
	CHECK(source_name_parse("oci:/tmp:", &name, &err) == -EINVAL, "a tag must follow");
}

int main(void)
{
	static const char *const directories[] = {"images", "names", "layers"};
	if (!mkdtemp(home))
		return 1;
	for (size_t i = 0; i < ARRAY_SIZE(directories); i++) {
		CLEANUP_FREE char *path = path_join(home, directories[i]);
		mkdir(path, 0700);
	}
	test_find();
	test_list();
	test_names();
	path_remove_tree(home, NULL);
	return tap_done();
}
