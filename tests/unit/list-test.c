/* SPDX-License-Identifier: Apache-2.0 */
/* list-test.c - what is skimmed from JSON is what a parser finds there; a list of VMs is JSON whatever the records are */
#include "engine/list.h"

#include "base/path.h"
#include "base/skim.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <sys/stat.h>

static struct husk_error err;

static void check_string(const char *json, const char *want)
{
	struct skim m = {.key = "k"};
	char text[256];
	int n = snprintf(text, sizeof(text), "{\"a\": [1, {\"k\": \"}\"}], \"k\": %s , \"z\": null}", json);

	CHECK(skim_object(text, (size_t)n, &m, 1) && m.n == strlen(json) && memcmp(m.text, json, m.n) == 0,
		"a member is found");
	CLEANUP_FREE char *got = skim_string(&m);
	CHECK_STRING(got, want, "and is what it says");
}

static void test_skim(void)
{
	static const char *const bad[] = {"", "{", "[]", "{\"a\":1", "{\"a\":1}}", "{\"a\" 1}", "{\"a\":}",
		"{\"a\":1,}", "{a:1}", "{\"a\":[1}", "{\"a\":\"x}", "{\"a\":\"x\\", "{} x", "{\"a\":{\"b\":1}", "null"};
	struct skim m[] = {{.key = "a"}, {.key = "b"}}, element;

	check_string("\"plain\"", "plain");
	check_string("\"a\\\"b\\\\c\\n\\u0041\"", "a\"b\\c\nA");
	check_string("\"\\u00e9\\u20ac\\ud83c\\udf30\"", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x8c\xb0");
	check_string("\"a\\ud83cx\"", "a");
	check_string("\"a\\u0000x\"", "a");
	check_string("12", "");
	check_string("{\"x\": [\"]\", \"\\\"\"]}", "");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		CHECK(!skim_object(bad[i], strlen(bad[i]), m, 2), bad[i]);
	CHECK(skim_object("{\"b\":\"x\"}", 9, m, 2) && !m[0].text && skim_is(&m[1], "x") && !skim_is(&m[1], "y"),
		"one that is not there is told from one that is");
	const char *list = " [1, \"a,]\" ,[2]]", *at = list, *end = list + strlen(list);
	CHECK(skim_element(&at, end, &element) && element.n == 1 && skim_element(&at, end, &element) &&
			skim_is(&element, "a,]") && skim_element(&at, end, &element) && element.n == 3 &&
			!skim_element(&at, end, &element),
		"the elements of a list");
}

static void write_file(const struct husk *husk, const char *id, const char *name, const char *text)
{
	CLEANUP_FREE char *folder = path_format("%s/vms/%s", husk->home, id);
	CLEANUP_FREE char *path = path_join(folder, name);

	path_make_directories(folder, 0700, NULL);
	CLEANUP_FD int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), "a file of a record");
}

/** The one VM that is listed. */
static json_t *list_one(const struct husk *husk, bool all)
{
	CLEANUP_FREE char *text = NULL;

	CHECK(list_vms(husk, all, &text, &err) == 0, "the VMs are listed");
	json_t *json = json_loads(text, 0, NULL);
	CHECK(json_is_array(json), "as JSON");
	return json;
}

static void test_list(const struct husk *husk)
{
	static const char *const wrong[] = {"{", "{\"schema\": 1, \"name\": \"\xff\"}",
		"{\"schema\": 1, \"name\": \"\n\"}", "{\"schema\": 1, \"command\": [1,}",
		"{\"schema\": 1, \"image\": tru}", "{\"schema\": 9}", "{}", ""};
	json_t *json = list_one(husk, true);

	CHECK(json_array_size(json) == 0, "a home without VMs has none");
	json_decref(json);
	write_file(husk, "0123456789ab", "lock", "");
	write_file(husk, "0123456789ab", "state", "");
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		write_file(husk, "0123456789ab", "vm.json", wrong[i]);
		json = list_one(husk, true);
		CHECK_STRING(json_string_value(json_object_get(json_array_get(json, 0), "state")), "error",
			"a record that is damaged is listed with that");
		json_decref(json);
	}
	write_file(husk, "0123456789ab", "vm.json",
		"{\"schema\": 1, \"name\": \"\\u00e9\", \"command\": [\"a\\\"b\"], \"x\": [{}]}");
	json = list_one(husk, true);
	json_t *vm = json_array_get(json, 0);
	CHECK_STRING(json_string_value(json_object_get(vm, "name")), "\xc3\xa9", "a name is what it was");
	CHECK_STRING(json_string_value(json_array_get(json_object_get(vm, "command"), 0)), "a\"b", "and a command");
	CHECK_STRING(
		json_string_value(json_object_get(vm, "status")), "creation interrupted", "nobody makes it any more");
	json_decref(json);
	json = list_one(husk, false);
	CHECK(json_array_size(json) == 0, "it does not run");
	json_decref(json);
}

int main(void)
{
	char folder[] = "/tmp/husk-list-XXXXXX";
	struct husk husk = {.home = folder, .runtime = folder};

	CHECK(mkdtemp(folder) != NULL, "a home");
	test_skim();
	test_list(&husk);
	CHECK(path_remove_tree(folder, NULL) == 0, "clean up");
	return tap_done();
}
