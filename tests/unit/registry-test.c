/* SPDX-License-Identifier: Apache-2.0 */
/* registry-test.c - the registry client's pure parts: challenges, loopback hosts, error texts, config.json */
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "image/registry_private.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <sys/stat.h>

static void test_challenges(void)
{
	struct challenge c;
	const char *at = " Bearer realm=\"https://a.b/token\",service=\"a \\\"b\\\", c\",scope=\"x:y:pull,push\"\n";
	CHECK(challenge_next(&at, &c) && strcmp(c.scheme, "Bearer") == 0, "a bearer challenge is read");
	CHECK_STRING(c.realm, "https://a.b/token", "its realm is unquoted");
	CHECK_STRING(c.service, "a \"b\", c", "escapes, commas and spaces in quotes are text");
	CHECK(!challenge_next(&at, &c), "and it is the only one");

	at = "Negotiate, Basic realm=\"r\", Bearer realm = token , service=s\n Basic realm=\"two\"\n";
	CHECK(challenge_next(&at, &c) && strcmp(c.scheme, "Negotiate") == 0, "a bare scheme is a challenge");
	CHECK(challenge_next(&at, &c) && strcmp(c.scheme, "Basic") == 0 && strcmp(c.realm, "r") == 0,
		"several may share a header");
	CHECK(challenge_next(&at, &c) && strcmp(c.realm, "token") == 0 && strcmp(c.service, "s") == 0,
		"values need no quotes, '=' may have spaces around");
	CHECK(challenge_next(&at, &c) && strcmp(c.realm, "two") == 0, "and several headers may come");
	CHECK(!challenge_next(&at, &c), "the list ends");

	static const char *const bad[] = {"", "\n", ",,,", "=", "Bearer realm=\"open", "Bearer realm=\"a\\",
		"Bearer realm=", "Bearer realm=\"a\nb\""};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		at = bad[i];
		CHECK(!challenge_next(&at, &c), "a malformed challenge is none");
	}
	char endless[5000];
	memset(endless, 'a', sizeof(endless));
	memcpy(endless, "Bearer realm=\"", 14);
	endless[sizeof(endless) - 1] = 0;
	at = endless;
	CHECK(!challenge_next(&at, &c), "an endless realm is none");
}

static void test_hosts(void)
{
	static const char *const yes[] = {
		"localhost", "localhost:5000", "LOCALHOST", "127.0.0.1", "127.9.8.7:80", "[::1]", "[::1]:5000"};
	static const char *const no[] = {"docker.io", "localhost.example", "127.0.0.1.example", "127.1", "128.0.0.1",
		"xlocalhost", "[::1", "[::11]", "[::2]:5000", "", "0.0.0.0", "1270.0.0.1"};
	for (size_t i = 0; i < ARRAY_SIZE(yes); i++)
		CHECK(host_is_loopback(yes[i]), yes[i]);
	for (size_t i = 0; i < ARRAY_SIZE(no); i++)
		CHECK(!host_is_loopback(no[i]), no[i]);
}

static void check_text(const char *body, const char *type, const char *want, const char *what)
{
	char text[256];
	CLEANUP(transfer_free) struct transfer t = {.authorization = "Basic c2VjcmV0", .secret = "hunter22"};
	snprintf(t.content_type, sizeof(t.content_type), "%s", type);
	(void)buffer_append(&t.body, body, strlen(body));
	answer_text(&t, text);
	CHECK_STRING(text, want, what);
}

static void test_texts(void)
{
	static const char json[] = "application/json";
	check_text("{\"errors\":[{\"code\":\"DENIED\",\"message\":\"no\"}]}", json, "DENIED: no", "errors[] is shown");
	check_text(
		"{\"errors\":[{\"code\":\"A\"},{\"message\":\"b\"},7]}", json, "A, b", "also where parts are missing");
	check_text("{\"details\":\"bad login\"}", json, "bad login", "a token server's details are shown");
	check_text("oh\x1b[31m\r\nno\n", "text/plain", "oh?[31m  no", "control characters are not");
	check_text("<html>x</html>", "text/html", "", "a web page is not shown");
	check_text("your password is hunter22!", "text/plain", "", "an answer that repeats the secret is not shown");
	check_text("you sent Basic c2VjcmV0", "text/plain", "", "nor one that repeats the header");
	char big[2000];
	memset(big, 'x', sizeof(big));
	big[sizeof(big) - 1] = 0;
	char want[256];
	memset(want, 'x', 255);
	want[255] = 0;
	check_text(big, "text/plain", want, "a long one is cut");
}

static bool write_file(const char *path, const char *text)
{
	return path_write_atomically(path, text, strlen(text), 0644, NULL) == 0;
}

static bool file_has(const char *path, const char *text)
{
	CLEANUP_BUFFER struct buffer content = {0};
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 && fd_read_to_end(fd, &content, 65536) == 0 && buffer_append(&content, "", 1) == 0 &&
	       strstr((char *)buffer_bytes(&content), text);
}

static bool has(const char *path, const char *host, const char *user, const char *password)
{
	CLEANUP(credential_free) struct credential c = {0};
	return docker_config_get(path, host, NULL, &c, NULL) == 0 && c.user && c.password && !strcmp(c.user, user) &&
	       !strcmp(c.password, password);
}

static void test_config_read(const char *path)
{
	CLEANUP(credential_free) struct credential c = {0};
	struct husk_error err = {0};
	CHECK(docker_config_get(path, "a.b", NULL, &c, &err) == 0 && !c.user, "no file: no credentials");
	write_file(path,
		"{\"auths\":{\"https://index.docker.io/v1/\":{\"auth\":\"dTpw\"},\"https://old.io/v1/\":"
		"{\"auth\":\"dTpwOjpx\"},\"t.io\":{\"auth\":\"dTo=\",\"identitytoken\":\"tok\"},\"p.io\":{\"username\":"
		"\"x\",\"password\":\"y\"},\"bad.io\":{\"auth\":\"!!!\"},\"n.io\":{}}}");
	CHECK(has(path, "docker.io", "u", "p"), "docker.io goes by its legacy key");
	CHECK(has(path, "old.io", "u", "p::q"), "a key with scheme and path is found; passwords may hold ':'");
	CHECK(has(path, "p.io", "x", "y"), "username and password are read");
	CHECK(docker_config_get(path, "t.io", NULL, &c, &err) == 0 && c.identity_token &&
			!strcmp(c.identity_token, "tok"),
		"an identity token is read");
	credential_free(&c);
	CHECK(docker_config_get(path, "bad.io", NULL, &c, &err) == -EINVAL && strstr(err.message, "bad.io"),
		"bad base64 is an error that names the host");
	CHECK(docker_config_get(path, "n.io", NULL, &c, &err) == 0 && !c.password, "an empty entry is no credential");
	write_file(path, "[]");
	CHECK(docker_config_get(path, "a.b", NULL, &c, &err) == -EINVAL, "a file that is no object is an error");
	write_file(path, "");
	CHECK(docker_config_get(path, "a.b", NULL, &c, &err) == 0, "an empty file is none");
}

static void test_config_write(const char *path)
{
	struct husk_error err = {0};
	struct stat st;
	write_file(path, "{\"HttpHeaders\":{\"X\":\"y\"},\"auths\":{\"a.b\":{\"auth\":\"eDp5\"}}}");
	CHECK(docker_config_put(path, "docker.io", "me", "pass", NULL, &err) == 0 &&
			has(path, "docker.io", "me", "pass"),
		"what is stored is found");
	CHECK(has(path, "a.b", "x", "y") && file_has(path, "HttpHeaders"), "all else in the file is kept");
	CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600, "the file is for its owner only");
	CHECK(file_has(path, "https://index.docker.io/v1/"), "docker.io is stored under its legacy key");
	CHECK(docker_config_remove(path, "docker.io", NULL, &err) == 0 && !file_has(path, "index.docker.io"),
		"what is removed is gone");
	CHECK(docker_config_remove(path, "docker.io", NULL, &err) == -ENOENT, "and cannot be removed again");
	CLEANUP_FREE char *link = path_format("%s.link", path);
	CHECK(symlink(path, link) == 0 && docker_config_put(link, "c.d", "u", "p", NULL, &err) == 0 &&
			lstat(link, &st) == 0 && S_ISLNK(st.st_mode) && has(path, "c.d", "u", "p"),
		"a symbolic link stays one");
}

static void make_helper(const char *directory, const char *name, const char *script)
{
	CLEANUP_FREE char *path = path_format("%s/docker-credential-%s", directory, name);
	(void)path_write_atomically(path, script, strlen(script), 0755, NULL);
}

static void test_helpers(const char *directory, const char *path)
{
	CLEANUP(credential_free) struct credential c = {0};
	struct husk_error err = {0};
	CLEANUP_FREE char *search = path_format("%s:%s", directory, getenv("PATH"));
	setenv("PATH", search, 1);
	CLEANUP_FREE char *script = path_format("#!/bin/sh\ncat > %s/in.$1\n[ $1 != get ] || "
						"echo '{\"ServerURL\":\"x\",\"Username\":\"hu\",\"Secret\":\"hp\"}'\n",
		directory);
	make_helper(directory, "good", script);
	make_helper(directory, "none", "#!/bin/sh\necho credentials not found in native keychain; exit 1\n");
	make_helper(directory, "broken", "#!/bin/sh\necho the vault is shut; exit 3\n");
	write_file(path, "{\"credsStore\":\"broken\",\"credHelpers\":{\"good.io\":\"good\",\"none.io\":\"none\","
			 "\"gone.io\":\"gone\",\"evil.io\":\"../x\"}}");
	CHECK(has(path, "good.io", "hu", "hp"), "a helper is asked");
	CHECK(docker_config_get(path, "none.io", NULL, &c, &err) == 0 && !c.user, "one that has nothing is no error");
	CHECK(docker_config_get(path, "other.io", NULL, &c, &err) == -EACCES &&
			strstr(err.message, "the vault is shut"),
		"one that fails is, in its own words; credsStore is for all other hosts");
	CHECK(docker_config_get(path, "gone.io", NULL, &c, &err) == -ENOENT, "one that is not installed is told apart");
	CHECK(docker_config_get(path, "evil.io", NULL, &c, &err) == -EINVAL, "a helper's name is no path");
	CLEANUP_FREE char *stored = path_format("%s/in.store", directory);
	CHECK(docker_config_put(path, "good.io", "n", "secret", NULL, &err) == 0 && file_has(stored, "secret") &&
			!file_has(path, "secret"),
		"with a helper the secret goes there and not into the file");
	CLEANUP_FREE char *erased = path_format("%s/in.erase", directory);
	CHECK(docker_config_remove(path, "good.io", NULL, &err) == 0 && file_has(erased, "good.io"),
		"and is erased there");
}

int main(void)
{
	char directory[] = "/tmp/husk-registry-test.XXXXXX";
	if (!mkdtemp(directory))
		return 1;
	CLEANUP_FREE char *path = path_format("%s/config.json", directory);
	test_challenges();
	test_hosts();
	test_texts();
	test_config_read(path);
	test_config_write(path);
	test_helpers(directory, path);
	(void)path_remove_tree(directory, NULL);
	return tap_done();
}
