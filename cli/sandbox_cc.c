/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox_cc.c - husk sandbox cc: a compiler, with what sandbox programs need
 *
 * Theory of operation: our flags come first, so that the user's win, then the user's words as they are, then what is
 * linked. The flags are those that the build itself compiles the runtime and the tests' programs with
 * (guest/sandbox/meson.build). Then this process becomes the compiler, whose messages and exit status are the
 * command's.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "base/path.h"
#include "cli/verbs.h"

#include <ctype.h>
#include <string.h>
#include <unistd.h>

#ifdef __x86_64__
#include "guest/sandbox/sandbox_flags.h"

static const char *const compile_flags[] = {"-O2", SANDBOX_COMPILE_FLAGS};
static const char *const link_flags[] = {SANDBOX_LINK_FLAGS};

/** Options with which a compiler links nothing. */
static const char *const no_link[] = {
	"-c", "-S", "-E", "-M", "-MM", "-fsyntax-only", "--version", "-dumpversion", "-dumpmachine"};

/** Words that exec takes; room for all that this file adds. */
struct words {
	char **list;
	size_t n;
};

static void add(struct words *words, const char *word)
{
	words->list[words->n++] = (char *)(uintptr_t)word; /* exec does not change what it gets */
}

static void add_all(struct words *words, const char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		add(words, list[i]);
}

static bool links(const struct cli *cli)
{
	for (size_t i = 0; i < cli->n_operands; i++)
		for (size_t k = 0; k < ARRAY_SIZE(no_link); k++)
			if (strcmp(cli->operands[i], no_link[k]) == 0)
				return false;
	return true;
}

/** Split @text, which is changed, at white space; words point into it. */
static void add_split(struct words *words, char *text)
{
	while (*text) {
		while (isspace((unsigned char)*text))
			*text++ = 0;
		if (*text)
			add(words, text);
		while (*text && !isspace((unsigned char)*text))
			text++;
	}
}

/** Become the compiler: the one that was @chosen, or the first that is there. Returns only when there is none. */
static int become(struct words *words, bool chosen)
{
	static const char *const names[] = {"gcc", "clang"};

	for (size_t i = 0; i < (chosen ? 1 : ARRAY_SIZE(names)); i++) {
		if (!chosen)
			words->list[0] = (char *)(uintptr_t)names[i];
		execvp(words->list[0], words->list);
		if (chosen || errno != ENOENT) {
			cli_say("run the compiler %s: %s", words->list[0], strerror(errno));
			return 1;
		}
	}
	cli_say("there is no C compiler: install gcc or clang, or say in CC which one to use");
	return 1;
}

int verb_sandbox_cc(struct cli *cli)
{
	CLEANUP_FREE char *libexec = cli_libexec();
	CLEANUP_FREE char *include = path_format("-I%s/sandbox/include", libexec ? libexec : "");
	CLEANUP_FREE char *script = path_format("%s/sandbox/sandbox.lds", libexec ? libexec : "");
	CLEANUP_FREE char *runtime = path_format("%s/sandbox/libhusk-sandbox.a", libexec ? libexec : "");
	const char *given = getenv("CC");
	CLEANUP_FREE char *compiler = strdup(given ? given : "");
	struct words words = {0};

	words.list = calloc(cli->n_operands + strlen(compiler ? compiler : "") + ARRAY_SIZE(compile_flags) +
				    ARRAY_SIZE(link_flags) + 8,
		sizeof(*words.list));
	CLEANUP_FREE char **list = words.list;
	if (!include || !script || !runtime || !compiler || !list) {
		cli_say("compile: out of memory");
		return 1;
	}
	if (access(runtime, R_OK) < 0 || access(script, R_OK) < 0) {
		cli_say("the runtime of sandbox programs is not there (%s): %s; install husk again, or set "
			"HUSK_LIBEXEC",
			runtime, strerror(errno));
		return 1;
	}
	add_split(&words, compiler);
	bool chosen = words.n > 0;
	if (!chosen)
		add(&words, "gcc");
	add_all(&words, compile_flags, ARRAY_SIZE(compile_flags));
	add(&words, include);
	add_all(&words, cli->operands, cli->n_operands);
	if (links(cli)) {
		add_all(&words, link_flags, ARRAY_SIZE(link_flags));
		add(&words, "-x"); /* a language that the user said is not that of the runtime, which is an archive */
		add(&words, "none");
		add(&words, "-T");
		add(&words, script);
		add(&words, runtime);
	}
	return become(&words, chosen);
}
#else
int verb_sandbox_cc(struct cli *cli)
{
	(void)cli;
	cli_say("function sandboxes are for x86-64 only");
	return 1;
}
#endif
