/* SPDX-License-Identifier: Apache-2.0 */
/* cli.h - what the verbs of the command `husk` share: the table's types, the parsed command line, messages */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <husk.h>
#include <stdio.h>

#define CLI_FAILED 125 /* exit status of `run` when husk itself failed, as Docker's */

/** One option of a verb, a row of its table.
 *  name:    without dashes
 *  letter:  0: none
 *  value:   what its value is called in the help; NULL: a flag, which takes --name=true and --name=false as well
 *  choices: "a|b|c" when only these are values
 *  many:    may be repeated to add up; of others the last one counts
 *  any:     the value may begin with a dash */
struct option {
	const char *name;
	char letter;
	const char *value;
	const char *help;
	const char *choices;
	bool many, any;
};

struct cli;

/** One verb. Its table is where help, completions and the manual page come from.
 *  operands: for the usage line
 *  min, max: how many operands; max -1: any number
 *  rest:     the first operand ends the options: what follows belongs to the guest's command
 *  raw:      nothing is an option: all words belong to another command, but --help as the only one
 *  own:      its exit status is of what it ran, so that husk's own failures are CLI_FAILED
 *  bare:     works without opening the home
 *  looks:    the home is opened, but not cleaned up before
 *  hidden:   in no list */
struct verb {
	const char *name;
	const char *operands;
	const char *summary;
	const char *description;
	const struct option *options;
	int min, max;
	bool rest, raw, own, bare, looks, hidden;
	int (*run)(struct cli *cli);
};

/** An option as it was given; value "true" or "false" for flags. */
struct given {
	const struct option *option;
	const char *value;
};

/** The parsed command line of one verb, and the opened husk. */
struct cli {
	const struct verb *verb;
	struct given *given;
	size_t n_given;
	const char **operands; /* NULL-terminated */
	size_t n_operands;
	bool quiet;
	bool help;
	struct husk *husk;
	struct husk_error open_error; /* of a `bare` verb's cli_open() */
};

extern const struct verb cli_verbs[]; /* ends with a NULL name */
extern const struct option cli_no_options[];
extern const char cli_about[];

/** Parse @argv (the words behind the verb) by the verb's table. 0 or -EINVAL. */
int cli_parse(struct cli *cli, const struct verb *verb, const char *const *argv, size_t n, struct husk_error *err);
void cli_free(struct cli *cli);

/** The last value of option @name, or NULL. */
const char *cli_value(const struct cli *cli, const char *name);
bool cli_flag(const struct cli *cli, const char *name);
/** The @i-th value of a repeated option, or NULL. */
const char *cli_nth(const struct cli *cli, const char *name, size_t i);

/** The verb that the first words of @argv name; *@used: how many words. NULL when there is none. */
const struct verb *cli_find_verb(const char *const *argv, size_t n, size_t *used);
/** The candidate nearest to @word, near enough to be meant, or NULL. @next yields candidates until NULL. */
const char *cli_suggest(const char *word, const char *(*next)(const void *data, size_t i), const void *data);

/** Open the home with notices going to stderr, and clean up after dead VMs unless the verb only looks. */
int cli_open(struct cli *cli, struct husk_error *err);
/** The directory of husk's helpers and of the runtime of sandbox programs. malloc'ed, or NULL. */
char *cli_libexec(void);
/** "husk: message" on stderr; returns @status. */
int cli_fail(const struct husk_error *err, int status);
__attribute__((format(printf, 1, 2))) void cli_say(const char *format, ...);
/** Progress goes to stderr unless --quiet: the descriptor or -1. */
int cli_progress_fd(const struct cli *cli);

void cli_print_help(FILE *out, const struct verb *verb);
void cli_print_overview(FILE *out);
/** True when there are verbs of two words that begin with @word. */
bool cli_is_group(const char *word);
/** Those verbs, one a line; false when there are none. */
bool cli_print_group(FILE *out, const char *word);
void cli_print_manual(FILE *out, const struct verb *verb);

#endif
