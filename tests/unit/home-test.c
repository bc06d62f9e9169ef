/* SPDX-License-Identifier: Apache-2.0 */
/* home-test.c - where husk keeps its state, for root and for users */
#include "engine/home.h"

#include "base/cleanup.h"
#include "base/path.h"
#include "tests/tap.h"

#include <sys/stat.h>

static struct husk_error err;

static void resolve(const char *option, struct home_environment env, const char *want_home, const char *want_runtime,
	const char *what)
{
	CLEANUP_FREE char *home = NULL, *runtime = NULL;
	CHECK(home_resolve(option, &env, &home, &runtime, &err) == 0, what);
	CHECK_STRING(home, want_home, "  home");
	if (want_runtime)
		CHECK_STRING(runtime, want_runtime, "  runtime directory");
	CHECK(runtime && strlen(runtime) <= HOME_RUNTIME_MAX, "  short enough for unix sockets");
}

static void test_resolve(void)
{
	char deep[120];
	memset(deep, 'd', sizeof(deep));
	deep[0] = '/';
	deep[sizeof(deep) - 1] = 0;
	resolve(NULL, (struct home_environment){.uid = 0, .home = "/root"}, "/var/lib/husk", "/run/husk", "root");
	resolve(NULL,
		(struct home_environment){
			.uid = 7, .home = "/home/u", .xdg_data_home = "/d", .xdg_runtime_dir = "/run/user/7"},
		"/d/husk", "/run/user/7/husk", "a user with XDG directories");
	resolve(NULL, (struct home_environment){.uid = 7, .home = "/home/u", .xdg_data_home = "relative"},
		"/home/u/.local/share/husk", "/tmp/husk-7", "a user without them, or with relative ones");
	resolve(NULL, (struct home_environment){.uid = 7, .husk_home = "/h/", .home = "/home/u"}, "/h", "/h/run",
		"HUSK_HOME");
	resolve("/o", (struct home_environment){.uid = 7, .husk_home = "/h"}, "/o", "/o/run", "the option wins");
	resolve(deep, (struct home_environment){.uid = 0}, deep, NULL, "a home too deep for sockets");
	resolve(NULL, (struct home_environment){.uid = 7, .home = "/u", .xdg_runtime_dir = deep},
		"/u/.local/share/husk", "/tmp/husk-7", "a runtime directory too deep for sockets");
	CLEANUP_FREE char *home = NULL, *runtime = NULL;
	CHECK(home_resolve(NULL, &(struct home_environment){.uid = 7}, &home, &runtime, &err) == -EINVAL,
		"without any hint there is an error");
	CHECK(home_resolve("", &(struct home_environment){.uid = 7}, &home, &runtime, &err) == -EINVAL,
		"an empty home is an error");
}

static void test_make(void)
{
	char base[] = "/tmp/husk-home-XXXXXX";
	struct stat st;
	CHECK(mkdtemp(base) != NULL, "make a directory");
	CLEANUP_FREE char *home = path_join(base, "a/b"), *run = path_join(base, "a/b/run"),
			  *link = path_join(base, "link");
	CHECK(home_make(home, run, &err) == 0, "home and runtime directory are made");
	CHECK(stat(run, &st) == 0 && (st.st_mode & 0777) == 0700, "the runtime directory is private");
	CHECK(chmod(run, 0755) == 0 && home_make(home, run, &err) == 0 && stat(run, &st) == 0 &&
			(st.st_mode & 0777) == 0700,
		"and made private again");
	CHECK(symlink(run, link) == 0 && home_make(home, link, &err) < 0, "a link in its place is refused");
	CHECK(path_remove_tree(base, NULL) == 0, "clean up");
}

int main(void)
{
	test_resolve();
	test_make();
	return tap_done();
}
