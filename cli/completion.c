/* SPDX-License-Identifier: Apache-2.0 */
/*
 * completion.c - husk completion bash|zsh, from the table
 *
 * Both shells get the same case distinction: the verb's words, then its options, then the choices of an option's value;
 * file names otherwise.
 */
#include "cli/verbs.h"

#include <string.h>

static void print_words(const struct verb *verb)
{
	for (const struct option *o = verb->options; o->name; o++) {
		printf("--%s ", o->name);
		if (o->letter)
			printf("-%c ", o->letter);
	}
	fputs("--help", stdout);
}

/** "a|b" as "a b". */
static void print_choices(const char *choices)
{
	for (; *choices; choices++)
		putchar(*choices == '|' ? ' ' : *choices);
}

static void print_verbs(void)
{
	const char *last = "";
	for (const struct verb *verb = cli_verbs; verb->name; verb++) {
		size_t n = strcspn(verb->name, " ");
		if (verb->hidden || (strncmp(last, verb->name, n) == 0 && last[n] == ' '))
			continue;
		printf("%.*s ", (int)n, verb->name);
		last = verb->name;
	}
}

/** Second words: `kernel) words="fetch list"`. */
static void print_groups(void)
{
	for (const struct verb *verb = cli_verbs; verb->name; verb++) {
		size_t n = strcspn(verb->name, " ");
		if (!verb->name[n] || (verb > cli_verbs && strncmp(verb[-1].name, verb->name, n + 1) == 0))
			continue;
		printf("\t\t%.*s) words=\"", (int)n, verb->name);
		for (const struct verb *same = verb; same->name && strncmp(same->name, verb->name, n + 1) == 0; same++)
			printf("%s%s", same == verb ? "" : " ", same->name + n + 1);
		puts("\" ;;");
	}
}

static void print_cases(void)
{
	for (const struct verb *verb = cli_verbs; verb->name; verb++) {
		if (verb->hidden)
			continue;
		printf("\t\t\"%s\")\n\t\t\tcase \"$prev\" in\n", verb->name);
		for (const struct option *o = verb->options; o->name; o++) {
			if (!o->choices)
				continue;
			printf("\t\t\t\t--%s) words=\"", o->name);
			print_choices(o->choices);
			puts("\" ;;");
		}
		fputs("\t\t\t\t*) words=\"", stdout);
		print_words(verb);
		if (strcmp(verb->name, "completion") == 0)
			fputs(" bash zsh", stdout);
		puts("\" ;;\n\t\t\tesac ;;");
	}
}

static void print_body(void)
{
	fputs("\tcase \"$verb\" in\n\t\t\"\") words=\"", stdout);
	print_verbs();
	puts("--help --version\" ;;");
	print_groups();
	print_cases();
	puts("\tesac");
}

static void print_bash(void)
{
	puts("# bash completion for husk, generated from its table of verbs\n"
	     "_husk() {\n"
	     "\tlocal cur=\"${COMP_WORDS[COMP_CWORD]}\" prev=\"${COMP_WORDS[COMP_CWORD-1]}\" verb=\"\" words=\"\"\n"
	     "\t(( COMP_CWORD > 1 )) && verb=\"${COMP_WORDS[1]}\"\n"
	     "\tcase \"$verb\" in image|kernel) (( COMP_CWORD > 2 )) && verb=\"$verb ${COMP_WORDS[2]}\" ;; esac");
	print_body();
	puts("\tCOMPREPLY=( $(compgen -W \"$words\" -- \"$cur\") )\n"
	     "}\n"
	     "complete -o default -F _husk husk");
}

static void print_zsh(void)
{
	puts("#compdef husk\n"
	     "# zsh completion for husk, generated from its table of verbs\n"
	     "_husk() {\n"
	     "\tlocal prev=\"${words[CURRENT-1]}\" verb=\"\" all=(\"${words[@]}\") at=$CURRENT\n"
	     "\tlocal words=\"\"\n"
	     "\t(( at > 2 )) && verb=\"${all[2]}\"\n"
	     "\tcase \"$verb\" in image|kernel) (( at > 3 )) && verb=\"$verb ${all[3]}\" ;; esac");
	print_body();
	puts("\tcompadd -- ${=words}\n"
	     "\t[[ \"${all[at]}\" == -* ]] || _files\n"
	     "}\n"
	     "if [[ \"$funcstack[1]\" == _husk ]]; then _husk \"$@\"; else compdef _husk husk; fi");
}

int verb_completion(struct cli *cli)
{
	if (strcmp(cli->operands[0], "bash") == 0) {
		print_bash();
	} else if (strcmp(cli->operands[0], "zsh") == 0) {
		print_zsh();
	} else {
		cli_say("completions are for bash or zsh, not for '%s'", cli->operands[0]);
		return 1;
	}
	return 0;
}
