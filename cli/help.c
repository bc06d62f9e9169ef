/* SPDX-License-Identifier: Apache-2.0 */
/* help.c - the help texts, from the table */
#include "cli/cli.h"

#include "base/cleanup.h"

#include <string.h>

#define TEXT_WIDTH 100

const char cli_about[] = "husk runs OCI images as microVMs: one command, no daemon.";

const struct verb *cli_find_verb(const char *const *argv, size_t n, size_t *used)
{
	for (const struct verb *verb = cli_verbs; verb->name; verb++) {
		size_t first = strcspn(verb->name, " ");
		bool two = verb->name[first] == ' ';
		if (n < 1 || strncmp(verb->name, argv[0], first) != 0 || argv[0][first])
			continue;
		if (two && (n < 2 || strcmp(verb->name + first + 1, argv[1]) != 0))
			continue;
		*used = two ? 2 : 1;
		return verb;
	}
	return NULL;
}

/** @text broken at spaces, each line after the first behind @indent spaces. */
static void print_wrapped(FILE *out, const char *text, int indent)
{
	int column = indent;
	while (*text) {
		size_t n = strcspn(text, " \n");
		if (column > indent && column + 1 + (int)n > TEXT_WIDTH) {
			fprintf(out, "\n%*s", indent, "");
			column = indent;
		} else if (column > indent) {
			fputc(' ', out);
			column++;
		}
		fwrite(text, 1, n, out);
		column += (int)n;
		text += n;
		for (; *text == '\n'; text++) {
			fprintf(out, "\n%*s", indent, "");
			column = indent;
		}
		while (*text == ' ')
			text++;
	}
	fputc('\n', out);
}

static void print_option(FILE *out, const struct option *o)
{
	char head[80];
	int n = o->letter ? snprintf(head, sizeof(head), "  -%c, ", o->letter) : snprintf(head, sizeof(head), "      ");
	n += snprintf(head + n, sizeof(head) - (size_t)n, "--%s", o->name);
	if (o->value)
		snprintf(head + n, sizeof(head) - (size_t)n, " %s", o->choices ? o->choices : o->value);
	if (strlen(head) > 28)
		fprintf(out, "%s\n%*s", head, 30, "");
	else
		fprintf(out, "%-30s", head);
	print_wrapped(out, o->help, 30);
}

void cli_print_help(FILE *out, const struct verb *verb)
{
	fprintf(out, "Usage: husk %s%s%s%s\n\n", verb->name, verb->options->name ? " [OPTIONS]" : "",
		*verb->operands ? " " : "", verb->operands);
	fprintf(out, "%s\n\n", verb->summary);
	if (verb->description) {
		print_wrapped(out, verb->description, 0);
		fputc('\n', out);
	}
	fputs("Options:\n", out);
	for (const struct option *o = verb->options; o->name; o++)
		print_option(out, o);
	print_option(out, &(const struct option){.name = "help", .help = "Show this help"});
}

void cli_print_overview(FILE *out)
{
	fprintf(out, "Usage: husk COMMAND [OPTIONS] …\n\n%s\n\nCommands:\n", cli_about);
	for (const struct verb *verb = cli_verbs; verb->name; verb++)
		if (!verb->hidden)
			fprintf(out, "  %-16s %s\n", verb->name, verb->summary);
	fputs("\n'husk COMMAND --help' says more about one. HUSK_HOME moves all state elsewhere.\n", out);
}

/** True when @verb is a verb of two words, the first of which is @word. */
static bool in_group(const struct verb *verb, const char *word)
{
	size_t length = strlen(word);
	return strncmp(verb->name, word, length) == 0 && verb->name[length] == ' ';
}

bool cli_is_group(const char *word)
{
	for (const struct verb *verb = cli_verbs; verb->name; verb++)
		if (in_group(verb, word))
			return true;
	return false;
}

bool cli_print_group(FILE *out, const char *word)
{
	if (!cli_is_group(word))
		return false;
	fprintf(out, "Usage: husk %s COMMAND, one of:\n", word);
	for (const struct verb *verb = cli_verbs; verb->name; verb++)
		if (in_group(verb, word))
			fprintf(out, "  husk %-16s %s\n", verb->name, verb->summary);
	return true;
}
