/* SPDX-License-Identifier: Apache-2.0 */
/* user-test.c - users and groups are found as Docker finds them, in files that an enemy may have written */
#include "guest/user.h"
#include "tests/tap.h"

static const char passwd[] = "# comment\n\nbroken\nroot:x:0:0:root:/root:/bin/sh\nsam:x:1000:100::/home/sam:/bin/sh\n"
			     "sam:x:1001:101::/home/other:/bin/sh\n1234:x:77:78::/n:/s\nrel:x:5:5::home:/s\n"
			     "neg:x:-1:0::/:/s\nbig:x:4294967295:0::/:/s\nend:x:9:9::/end:/s";
static const char group[] = "root:x:0:\nusers:x:100:\nadm:x:4:root,sam\nwheel:x:10:sam,sam\nnear:x:11:samx,xsam\nodd\n"
			    "neg:x:-2:sam\nlast:x:12:x,sam";
static struct user user;
static struct husk_error err;

static int find(const char *spec)
{
	struct user_files files = {passwd, sizeof(passwd) - 1, group, sizeof(group) - 1};
	return user_resolve(&files, spec, NULL, 0, &user, &err);
}

static bool is(uid_t uid, gid_t gid, const char *home, size_t n)
{
	return user.uid == uid && user.gid == gid && strcmp(user.home, home) == 0 && user.n_groups == n &&
	       user.groups[0] == gid;
}

static void test_specs(void)
{
	CHECK(find(NULL) == 0 && is(0, 0, "/root", 2), "nothing given is root, with root's groups");
	CHECK(find("") == 0 && is(0, 0, "/root", 2), "an empty user is root");
	CHECK(find("sam") == 0 && is(1000, 100, "/home/sam", 4), "a name: first line, its group and all that list it");
	CHECK(user.groups[1] == 4 && user.groups[2] == 10 && user.groups[3] == 12,
		"names that only look alike do not count");
	CHECK(find("1000") == 0 && is(1000, 100, "/home/sam", 4), "a number finds the same line");
	CHECK(find("sam:adm") == 0 && is(1000, 4, "/home/sam", 1), "a group given stands alone");
	CHECK(find("sam:999") == 0 && is(1000, 999, "/home/sam", 1), "a group's number needs no line");
	CHECK(find(":adm") == 0 && is(0, 4, "/root", 1), "a group alone goes with root");
	CHECK(find("4242") == 0 && is(4242, 0, "/", 1), "a number without a line has group 0 and no home");
	CHECK(find("1234") == 0 && is(77, 78, "/n", 1), "a name of digits is found by name");
	CHECK(find("rel") == 0 && is(5, 5, "/", 1), "a home that is not absolute is none");
	CHECK(find("end") == 0 && is(9, 9, "/end", 1), "a last line needs no newline");
}

static void test_refusals(void)
{
	CHECK(find("bob") == -ENOENT, "an unknown user is refused");
	CHECK(find("sam:none") == -ENOENT, "an unknown group is refused");
	CHECK(find("neg") == -ENOENT && find("big") == -ENOENT, "lines with numbers out of range do not exist");
	CHECK(find("2147483648") == -ENOENT, "nor does a user beyond 2^31 - 1");
	CHECK(find("99999999999999999999") == -ENOENT, "nor one that no integer holds");
	CHECK(find("-1") == -ENOENT && find("1000x") == -ENOENT && find(" 0") == -ENOENT, "numbers are read strictly");
	CHECK(find("broken") == -ENOENT && find("#") == -ENOENT, "what is no entry is passed over");
}

static void test_hostile(void)
{
	static char many[USER_GROUPS_MAX * 24 + 1000], long_home[PATH_MAX + 100],
		nul[] = "a\0b:x:1:1::/:\nsam:x:3:3::/s:\n";
	size_t n = 0;
	for (int i = 0; i < USER_GROUPS_MAX + 10; i++)
		n += (size_t)sprintf(many + n, "g%d:x:%d:sam\n", i, 10000 + i);
	struct user_files files = {passwd, sizeof(passwd) - 1, many, n};
	CHECK(user_resolve(&files, "sam", NULL, 0, &user, &err) == -E2BIG, "too many groups are an error");
	int start = sprintf(long_home, "sam:x:1:1::/");
	memset(long_home + start, 'a', sizeof(long_home) - (size_t)start);
	files = (struct user_files){long_home, sizeof(long_home), NULL, 0};
	CHECK(user_resolve(&files, "sam", NULL, 0, &user, &err) == 0 && strcmp(user.home, "/") == 0,
		"a huge home is none");
	files = (struct user_files){nul, sizeof(nul) - 1, NULL, 0};
	CHECK(user_resolve(&files, "sam", NULL, 0, &user, &err) == 0 && user.uid == 3,
		"a line with a NUL is passed over");
	CHECK(user_resolve(&files, "a", NULL, 0, &user, &err) == -ENOENT, "and its beginning is no name");
	files = (struct user_files){0};
	CHECK(user_resolve(&files, "0:0", NULL, 0, &user, &err) == 0 && is(0, 0, "/", 1), "no files at all are fine");
	static char seven[] = "7", eight[] = "8";
	char *extra[] = {seven, seven, eight};
	CHECK(user_resolve(&files, "1", extra, 3, &user, &err) == 0 && user.n_groups == 3, "further groups, each once");
}

int main(void)
{
	test_specs();
	test_refusals();
	test_hostile();
	return tap_done();
}
