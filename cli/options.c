/* SPDX-License-Identifier: Apache-2.0 */
/*
 * options.c - the command line, read by a verb's table
 *
 * Theory of operation: `--name=value`, `--name value`, `-n value`, `-nvalue`, clusters of flags (`-it`), `--` ends the
 * options, and where the verb says so the first operand does. Of a repeated option the last one counts, as with Docker. A
 * value that is a word of its own and begins with a dash is most likely an option that was forgotten to be separated, so it
 * is refused; `--name=-value` says that it is meant.
 */
#include "cli/cli.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <string.h>

const struct option cli_no_options[] = {{0}};

/** Options that every verb has. */
static const struct option common[] = {
	{.name = "help", .help = "Show this help"},
	{0},
};

static const struct option *find_long(const struct verb *verb, const char *name, size_t n)
{
	const struct option *tables[] = {verb->options, common};
	for (size_t t = 0; t < ARRAY_SIZE(tables); t++)
		for (const struct option *o = tables[t]; o->name; o++)
			if (strlen(o->name) == n && strncmp(o->name, name, n) == 0)
				return o;
	return NULL;
}

static const struct option *find_short(const struct verb *verb, char letter)
{
	for (const struct option *o = verb->options; o->name; o++)
		if (o->letter == letter)
			return o;
	return letter == 'h' ? common : NULL;
}

static const char *next_option(const void *data, size_t i)
{
	const struct verb *verb = data;
	size_t n = 0;
	while (verb->options[n].name)
		n++;
	return i < n ? verb->options[i].name : i == n ? "help" : NULL;
}

static int unknown(const struct verb *verb, const char *word, const char *name, struct husk_error *err)
{
	const char *near = name ? cli_suggest(name, next_option, verb) : NULL;
	return near ? error_set(err, -EINVAL, "unknown option '%s'; did you mean '--%s'?", word, near)
		    : error_set(err, -EINVAL, "unknown option '%s'", word);
}

/** True when @value is one of "a|b|c". */
static bool among(const char *value, const char *choices)
{
	size_t n = strlen(value);
	for (const char *at = choices; n && at; at = strchr(at, '|')) {
		at += *at == '|';
		if (strncmp(at, value, n) == 0 && (at[n] == '|' || at[n] == 0))
			return true;
	}
	return false;
}

static int give(struct cli *cli, const struct option *option, const char *value, struct husk_error *err)
{
	if (option->choices && !among(value, option->choices))
		return error_set(err, -EINVAL, "--%s: '%s' is none of %s", option->name, value, option->choices);
	if (!option->value && strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
		return error_set(err, -EINVAL, "--%s is a flag: it takes no value but true or false, not '%s'",
			option->name, value);
	if (option == common)
		cli->help = strcmp(value, "true") == 0;
	cli->given[cli->n_given++] = (struct given){option, value};
	return 0;
}

/** A value in the word behind the option. */
static int separate_value(const struct option *option, const char *word, struct husk_error *err)
{
	if (!word)
		return error_set(err, -EINVAL, "--%s needs a value (%s)", option->name, option->value);
	if (word[0] == '-' && word[1] && !option->any)
		return error_set(err, -EINVAL,
			"--%s needs a value (%s), and '%s' looks like an option; if it is meant, write --%s=%s",
			option->name, option->value, word, option->name, word);
	return 0;
}

/** Words taken beyond this one (0 or 1), or an error. */
static int parse_long(struct cli *cli, const char *word, const char *next, struct husk_error *err)
{
	const char *name = word + 2, *equals = strchr(name, '=');
	size_t n = equals ? (size_t)(equals - name) : strlen(name);
	const struct option *option = find_long(cli->verb, name, n);
	if (!option) {
		CLEANUP_FREE char *bare = strndup(name, n);
		return unknown(cli->verb, word, bare, err);
	}
	if (equals || !option->value)
		return give(cli, option, equals ? equals + 1 : "true", err);
	int rc = separate_value(option, next, err);
	rc = rc < 0 ? rc : give(cli, option, next, err);
	return rc < 0 ? rc : 1;
}

static int parse_short(struct cli *cli, const char *word, const char *next, struct husk_error *err)
{
	for (const char *at = word + 1; *at; at++) {
		const struct option *option = find_short(cli->verb, *at);
		if (!option)
			return at == word + 1 && !at[1]
				       ? unknown(cli->verb, word, NULL, err)
				       : error_set(err, -EINVAL, "unknown option '-%c' in '%s'", *at, word);
		int rc;
		if (!option->value && at[1] == '=')
			return give(cli, option, at + 2, err);
		if (!option->value) {
			if ((rc = give(cli, option, "true", err)) < 0)
				return rc;
			continue;
		}
		if (at[1])
			return give(cli, option, at + 1 + (at[1] == '='), err);
		rc = separate_value(option, next, err);
		rc = rc < 0 ? rc : give(cli, option, next, err);
		return rc < 0 ? rc : 1;
	}
	return 0;
}

static int check_operands(const struct cli *cli, struct husk_error *err)
{
	const struct verb *verb = cli->verb;
	if (cli->help)
		return 0;
	if ((int)cli->n_operands < verb->min)
		return error_set(err, -EINVAL, "something is missing: husk %s %s", verb->name, verb->operands);
	if (verb->max >= 0 && (int)cli->n_operands > verb->max)
		return error_set(err, -EINVAL, "'%s' is too much: husk %s%s%s", cli->operands[verb->max], verb->name,
			*verb->operands ? " " : "", verb->operands);
	return 0;
}

int cli_parse(struct cli *cli, const struct verb *verb, const char *const *argv, size_t n, struct husk_error *err)
{
	size_t letters = 1;
	for (size_t i = 0; i < n; i++)
		letters += strlen(argv[i]);
	cli->verb = verb;
	cli->given = calloc(letters + n, sizeof(*cli->given)); /* at most one option per letter */
	cli->operands = calloc(n + 1, sizeof(*cli->operands));
	if (!cli->given || !cli->operands)
		return error_set(err, -ENOMEM, "read the command line: out of memory");
	bool options = !verb->raw || (n == 1 && strcmp(argv[0], "--help") == 0);
	for (size_t i = 0; i < n; i++) {
		const char *word = argv[i], *next = i + 1 < n ? argv[i + 1] : NULL;
		if (options && strcmp(word, "--") == 0) {
			options = false;
		} else if (!options || word[0] != '-' || !word[1]) {
			cli->operands[cli->n_operands++] = word;
			options = options && !verb->rest;
		} else {
			int rc = word[1] == '-' ? parse_long(cli, word, next, err) : parse_short(cli, word, next, err);
			if (rc < 0)
				return rc;
			i += (size_t)rc;
		}
	}
	return check_operands(cli, err);
}

void cli_free(struct cli *cli)
{
	free(cli->given);
	free(cli->operands);
	husk_close(cli->husk);
}

const char *cli_value(const struct cli *cli, const char *name)
{
	for (size_t i = cli->n_given; i-- > 0;)
		if (strcmp(cli->given[i].option->name, name) == 0)
			return cli->given[i].value;
	return NULL;
}

bool cli_flag(const struct cli *cli, const char *name)
{
	const char *value = cli_value(cli, name);
	return value && strcmp(value, "true") == 0;
}

const char *cli_nth(const struct cli *cli, const char *name, size_t nth)
{
	for (size_t i = 0; i < cli->n_given; i++)
		if (strcmp(cli->given[i].option->name, name) == 0 && nth-- == 0)
			return cli->given[i].value;
	return NULL;
}
