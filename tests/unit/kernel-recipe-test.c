/* SPDX-License-Identifier: Apache-2.0 */
/* kernel-recipe-test.c - what a tuned kernel is made from, the checks around its build, and which kernel a VM boots */
#include "base/cleanup.h"
#include "base/path.h"
#include "engine/kernel.h"
#include "engine/kernel_modules.h"
#include "engine/kernel_recipe.h"
#include "engine/kernel_store.h"
#include "tests/tap.h"

#include <sys/stat.h>

#define TEXT(s) ((char[]){s}) /* a recipe owns its strings elsewhere */

static const struct kernel_recipe base = {
	.source = TEXT("6.12.1-1"),
	.fragment = TEXT("CONFIG_A=y\n"),
	.compiler = TEXT("gcc 12"),
	.linker = TEXT("ld 2.40"),
};

static char *id_of(struct kernel_recipe recipe)
{
	char *id = NULL;
	kernel_recipe_id(&recipe, &id, NULL);
	return id;
}

static void test_id(void)
{
	CLEANUP_FREE char *id = id_of(base);
	CLEANUP_FREE char *again = id_of(base);
	if (!CHECK(id && again, "a recipe has an id"))
		return;
	CHECK(strncmp(id, "husk-6.12.1-1-x86_64-", 21) == 0 && strlen(id) == 21 + 12, "with version and architecture");
	CHECK_STRING(id, again, "and always the same");
	CHECK(kernel_is_tuned(id) && !kernel_is_tuned("linux-image-6.1"), "by which it is known as tuned");
	const struct kernel_recipe others[] = {
		{.source = TEXT("6.12.1-2"),
			.fragment = base.fragment,
			.compiler = base.compiler,
			.linker = base.linker},
		{.source = base.source,
			.fragment = TEXT("CONFIG_A=y\nCONFIG_B=y\n"),
			.compiler = base.compiler,
			.linker = base.linker},
		{.source = base.source, .fragment = base.fragment, .compiler = TEXT("gcc 13"), .linker = base.linker},
		{.source = base.source,
			.fragment = base.fragment,
			.compiler = base.compiler,
			.linker = TEXT("ld 2.41")},
		/* The same letters, cut elsewhere. */
		{.source = base.source,
			.fragment = base.fragment,
			.compiler = TEXT("gcc 12ld"),
			.linker = TEXT(" 2.40")},
	};
	static const char *const what[ARRAY_SIZE(others)] = {"another source is another kernel",
		"another fragment, too", "another compiler, too", "another linker, too",
		"and the same letters cut elsewhere"};
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		CLEANUP_FREE char *other = id_of(others[i]);
		CHECK(other && strcmp(other, id) != 0, what[i]);
	}
}

static void test_check(void)
{
	struct husk_error err;
	static const char fragment[] =
		"# a comment\nCONFIG_A=y\nCONFIG_N=64\nCONFIG_S=\"a b\"\n# CONFIG_OFF is not set\n";
	CHECK(kernel_recipe_check(fragment, "CONFIG_S=\"a b\"\nCONFIG_MORE=y\nCONFIG_N=64\nCONFIG_A=y\n", &err) == 0,
		"a configuration that has what was asked for is fine, with more in it and in another order");
	CHECK(kernel_recipe_check(fragment, "CONFIG_S=\"a b\"\nCONFIG_N=64\nCONFIG_AB=y\n", &err) == -EINVAL &&
			strstr(err.message, "CONFIG_A=y"),
		"an option that is not there is named");
	CHECK(kernel_recipe_check("CONFIG_A=y\n", "# CONFIG_A is not set\n", &err) == -EINVAL &&
			strstr(err.message, "# CONFIG_A is not set"),
		"one that could not be set, too");
	CHECK(kernel_recipe_check("CONFIG_N=64\n", "CONFIG_N=640\n", &err) == -EINVAL, "and one with another value");
	CHECK(kernel_recipe_check("# CONFIG_OFF is not set\n", "CONFIG_OFF=y\n", &err) == -EINVAL &&
			strstr(err.message, "CONFIG_OFF"),
		"and one that something else selects");
	CHECK(kernel_recipe_check("CONFIG_A=y\n# CONFIG_A is not set\n", "# CONFIG_A is not set\n", &err) == 0,
		"the last word on an option counts: a fragment of the user's can take one away");
	CHECK(strstr(kernel_fragment, "\nCONFIG_VIRTIO_MMIO=y\n") &&
			strstr(kernel_fragment, "\nCONFIG_DEFAULT_HOSTNAME=\"husk\"\n"),
		"husk's own fragment is compiled in as it is");
}

static void test_needs(void)
{
	struct husk_error err;
	struct kernel_need needs[] = {{"make", "make"}, {"flex", "flex"}, {"one", "both"}, {"two", "both"}};
	CHECK(kernel_needs_met(needs, ARRAY_SIZE(needs), &err) == 0, "with all tools there is nothing to say");
	needs[1].missing = needs[2].missing = needs[3].missing = true;
	CHECK(kernel_needs_met(needs, ARRAY_SIZE(needs), &err) == -ENOENT, "missing ones are refused");
	CHECK(strstr(err.message, "here: flex, one, two;") && strstr(err.message, "run: apt-get install flex both"),
		"by name, with the line that installs each package once");
}

static void complaint_is(const char *log, const char *want, const char *what)
{
	char line[40];
	kernel_complaint(log, line, sizeof(line));
	CHECK_STRING(line, want, what);
}

static void test_complaint(void)
{
	complaint_is("  CC a.o\na.c:1: error: no\n  CC b.o\nmake: *** [x] Error 1\n", "a.c:1: error: no",
		"a failed build is told by the compiler's first error");
	complaint_is("  CC a.o\nmake[1]: *** [x] Error 1\nmake: *** [y] Error 2\n", "make[1]: *** [x] Error 1",
		"or by make's first complaint");
	complaint_is("one\nla\033st\n\n", "la?st", "or by the last line, printable");
	complaint_is("", "", "of an empty log there is none");
	complaint_is("0123456789012345678901234567890123456789012345", "012345678901234567890123456789012345678",
		"a long one is cut");
}

static void test_pick(void)
{
	char tuned_new[] = "husk-2", tuned[] = "husk-1", fetched_new[] = "linux-image-22", fetched[] = "linux-image-2";
	const struct kernel_entry list[] = {
		{.id = fetched_new}, {.id = tuned_new, .tuned = true}, {.id = fetched}, {.id = tuned, .tuned = true}};
	CHECK(kernel_pick(list, 4, NULL) == 1, "the newest tuned kernel is used, also when a newer other one is there");
	CHECK(kernel_pick(list, 1, NULL) == 0, "without a tuned one the newest");
	CHECK(kernel_pick(list, 0, NULL) == -1 && kernel_pick(list, 0, "husk") == -1, "of none, none");
	CHECK(kernel_pick(list, 4, "linux") == 0, "by the beginning of an id the newest that begins so");
	CHECK(kernel_pick(list, 4, "linux-image-2") == 2, "a whole id is meant before a longer one that begins so");
	CHECK(kernel_pick(list, 4, "image") == -1 && kernel_pick(list, 4, "") == -1, "nothing else is an id");
}

static void test_list(const char *dir)
{
	struct husk_error err;
	struct kernel_entry *list;
	CLEANUP_FREE char *id = NULL;
	size_t n;
	CHECK(kernel_list(dir, &list, &n, &err) == 0 && n == 0 && !list, "a home without kernels has none");
	CLEANUP_FREE char *fetched = path_format("%s/kernels/linux-image-1", dir);
	CLEANUP_FREE char *tuned = path_format("%s/kernels/husk-1", dir);
	CLEANUP_FREE char *hidden = path_format("%s/kernels/.build", dir);
	path_make_directories(tuned, 0755, NULL);
	path_make_directories(fetched, 0755, NULL);
	path_make_directories(hidden, 0755, NULL);
	CHECK(kernel_list(dir, &list, &n, &err) == 0 && n == 1 && list[0].tuned, "a fetched one with other modules is not listed");
	kernel_list_free(list, n);
	CLEANUP_FREE char *wanted = path_join(fetched, "wanted");
	path_write_atomically(wanted, kernel_modules_wanted(), strlen(kernel_modules_wanted()), 0644, NULL);
	CHECK(kernel_choose(dir, NULL, &id, &err) == 0 && strcmp(id, "husk-1") == 0,
		"of both kinds the tuned one is used");
	CHECK(kernel_choose(dir, "nothing", &id, &err) == -ENOENT && strstr(err.message, "husk kernel list"),
		"a name of nothing is refused with what to do");
	if (!CHECK(kernel_list(dir, &list, &n, &err) == 0 && n == 2, "both are listed, what is hidden is not"))
		return;
	for (size_t i = 0; i < n; i++)
		CHECK(list[i].used == list[i].tuned && *list[i].why,
			"and the tuned one is marked as used, with the reason");
	kernel_list_free(list, n);
}

/** A maker that crashed left things in its temporary directory; the next one begins with an empty one. */
static void test_store(const char *dir)
{
	struct husk_error err;
	CLEANUP(kernel_store_end) struct kernel_store store = KERNEL_STORE_INIT(-1);
	CLEANUP_FREE char *left = path_format("%s/kernels/.build/tree/left", dir);
	CLEANUP_FREE char *target = path_format("%s/kernels/husk-9", dir);
	path_make_directories(left, 0755, NULL);
	if (!CHECK(kernel_store_begin(&store, dir, "build", &err) == 0, "the lock is taken"))
		return;
	CHECK(access(store.work, F_OK) == 0 && access(left, F_OK) < 0, "what a crash left is gone");
	CLEANUP_FREE char *assembled = path_join(store.work, "kernel");
	path_make_directories(assembled, 0755, NULL);
	CHECK(kernel_store_commit(&store, assembled, "husk-9", &err) == 0 && access(target, F_OK) == 0,
		"a kernel is moved into place");
	CLEANUP_FREE char *work = strdup(store.work);
	kernel_store_end(&store);
	CHECK(access(work, F_OK) < 0, "and the temporary directory goes");
}

int main(void)
{
	char dir[] = "/tmp/husk-recipe-test.XXXXXX";
	if (!mkdtemp(dir))
		return 1;
	test_id();
	test_check();
	test_needs();
	test_complaint();
	test_pick();
	test_list(dir);
	test_store(dir);
	path_remove_tree(dir, NULL);
	return tap_done();
}
