/* SPDX-License-Identifier: Apache-2.0 */
/* options-test.c - the command line parser, and environment variables and files */
#include "base/cleanup.h"
#include "cli/cli.h"
#include "cli/environment.h"
#include "tests/tap.h"

static const struct option options[] = {
	{.name = "env", .letter = 'e', .value = "NAME", .many = true},
	{.name = "interactive", .letter = 'i'},
	{.name = "memory", .letter = 'm', .value = "SIZE"},
	{.name = "pull", .value = "WHEN", .choices = "missing|always|never"},
	{.name = "tty", .letter = 't'},
	{.name = "cmdline", .value = "TEXT", .any = true},
	{0},
};
static const struct verb verb_rest = {"run", "IMAGE [ARG…]", "", NULL, options, 1, -1, .rest = true};
static const struct verb verb_two = {"two", "A B", "", NULL, options, 1, 2};

static struct husk_error err;

static int parse(struct cli *cli, const struct verb *verb, const char *const *words)
{
	size_t n = 0;
	while (words[n])
		n++;
	*cli = (struct cli){0};
	err.message[0] = 0;
	return cli_parse(cli, verb, words, n, &err);
}
#define PARSE(cli, verb, ...) parse(cli, verb, (const char *const[]){__VA_ARGS__, NULL})

static void test_forms(void)
{
	struct cli cli;
	CHECK(PARSE(&cli, &verb_rest, "--memory=1G", "img") == 0, "--name=value parses");
	CHECK_STRING(cli_value(&cli, "memory"), "1G", "and gives its value");
	cli_free(&cli);
	CHECK(PARSE(&cli, &verb_rest, "-it", "-m512M", "-e", "A=1", "-eB=2", "img", "sh", "-c", "-it") == 0,
		"clusters and attached values parse");
	CHECK(cli_flag(&cli, "interactive") && cli_flag(&cli, "tty"), "a cluster gives each flag");
	CHECK_STRING(cli_value(&cli, "memory"), "512M", "-mVALUE gives its value");
	CHECK_STRING(cli_nth(&cli, "env", 1), "B=2", "a repeated option keeps all its values in order");
	CHECK(cli_nth(&cli, "env", 2) == NULL, "and no more");
	CHECK(cli.n_operands == 4, "the first operand ends the options of run");
	CHECK_STRING(cli.operands[3], "-it", "what follows is the command's");
	cli_free(&cli);
	CHECK(PARSE(&cli, &verb_rest, "-m", "1G", "-m", "2G", "img") == 0, "a single-valued option may be repeated");
	CHECK_STRING(cli_value(&cli, "memory"), "2G", "the last one counts");
	cli_free(&cli);
	CHECK(PARSE(&cli, &verb_rest, "--tty=false", "--", "--odd") == 0, "-- ends the options");
	CHECK(!cli_flag(&cli, "tty"), "a flag can be false");
	CHECK_STRING(cli.operands[0], "--odd", "what follows -- is an operand");
	cli_free(&cli);
	CHECK(PARSE(&cli, &verb_two, "a", "-t", "b") == 0 && cli_flag(&cli, "tty"),
		"elsewhere options may follow operands");
	cli_free(&cli);
	CHECK(PARSE(&cli, &verb_rest, "--cmdline", "-x", "img") == 0, "an option for any text takes one with a dash");
	cli_free(&cli);
	CHECK(PARSE(&cli, &verb_two, "--help") == 0 && cli.help, "--help needs no operands");
	cli_free(&cli);
}

static void refuse(const struct verb *verb, const char *const *words, const char *message, const char *what)
{
	struct cli cli;
	CHECK(parse(&cli, verb, words) == -EINVAL, what);
	if (!CHECK(strstr(err.message, message) != NULL, "  and says why"))
		printf("# got: %s\n", err.message);
	cli_free(&cli);
}
#define REFUSE(verb, message, what, ...) refuse(verb, (const char *const[]){__VA_ARGS__, NULL}, message, what)

static void test_refusals(void)
{
	REFUSE(&verb_rest, "did you mean '--memory'", "an unknown option is refused with a suggestion", "--memmory",
		"img");
	REFUSE(&verb_rest, "unknown option '--zzzzzz'", "one that resembles nothing without", "--zzzzzz", "img");
	REFUSE(&verb_rest, "'-x' in '-ix'", "an unknown letter in a cluster is refused", "-ix", "img");
	REFUSE(&verb_rest, "looks like an option", "a value that looks like an option is refused", "-m", "-5", "img");
	REFUSE(&verb_rest, "needs a value", "a missing value is refused", "--memory");
	REFUSE(&verb_rest, "none of missing|always|never", "a value that is no choice is refused", "--pull=some",
		"img");
	REFUSE(&verb_rest, "none of", "a part of a choice is refused", "--pull=miss", "img");
	REFUSE(&verb_rest, "none of", "an empty choice is refused", "--pull=", "img");
	REFUSE(&verb_rest, "is a flag", "a flag's value other than true and false is refused", "--tty=maybe", "img");
	REFUSE(&verb_rest, "missing", "a missing operand is refused", "-t");
	REFUSE(&verb_two, "'c' is too much", "an operand too many is refused", "a", "b", "c");
}

static void test_environment(void)
{
	struct environment env = {0};
	setenv("HUSK_TEST_PRESENT", "here", 1);
	unsetenv("HUSK_TEST_ABSENT");
	CHECK(environment_add(&env, "A=b=c", &err) == 0 && env.n == 1, "NAME=value is taken");
	CHECK_STRING(env.list[0], "A=b=c", "with all that follows the first =");
	CHECK(environment_add(&env, "HUSK_TEST_PRESENT", &err) == 0 && env.n == 2,
		"NAME takes the value from husk's own");
	CHECK_STRING(env.list[1], "HUSK_TEST_PRESENT=here", "environment");
	CHECK(environment_add(&env, "HUSK_TEST_ABSENT", &err) == 0 && env.n == 3, "one that is not set");
	CHECK_STRING(env.list[2], "HUSK_TEST_ABSENT", "stays a bare name, which removes the image's");
	CHECK(environment_add(&env, "=x", &err) == -EINVAL, "an empty name is refused");
	CHECK(environment_add(&env, "A B=x", &err) == -EINVAL, "a name with a space is refused");
	environment_free(&env);

	char path[] = "/tmp/husk-env-XXXXXX";
	int fd = mkstemp(path);
	static const char text[] = "\xef\xbb\xbf# comment\n\n  X=1\r\nHUSK_TEST_PRESENT\nY= two words \nZ=last";
	CHECK(fd >= 0 && write(fd, text, sizeof(text) - 1) == sizeof(text) - 1, "write a file");
	CHECK(environment_add_file(&env, path, &err) == 0 && env.n == 4, "comments and blank lines are skipped");
	CHECK_STRING(
		env.n == 4 ? env.list[0] : NULL, "X=1", "white space in front and CR at the end are not part of it");
	CHECK_STRING(env.n == 4 ? env.list[2] : NULL, "Y= two words ", "white space in values is");
	CHECK_STRING(env.n == 4 ? env.list[3] : NULL, "Z=last", "the last line needs no newline");
	environment_free(&env);
	CHECK(ftruncate(fd, 0) == 0 && pwrite(fd, "A=1\nB\0=2\n", 9, 0) == 9, "write another file");
	CHECK(environment_add_file(&env, path, &err) == -EINVAL && strstr(err.message, "line 2"),
		"a NUL is refused, and the line named");
	environment_free(&env);
	close(fd);
	unlink(path);
	CHECK(environment_add_file(&env, path, &err) == -ENOENT, "a missing file is an error");
	CHECK(environment_add_file(&env, "/", &err) == -EISDIR, "a directory is an error");
	environment_free(&env);
}

int main(void)
{
	test_forms();
	test_refusals();
	test_environment();
	return tap_done();
}
