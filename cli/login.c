/* SPDX-License-Identifier: Apache-2.0 */
/* login.c - husk login and logout */
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "cli/verbs.h"

#include <string.h>
#include <termios.h>

#define DEFAULT_REGISTRY "docker.io"
#define PASSWORD_MAX 4000

/** A line of stdin without its end, asked for when it is a terminal; malloc'ed or NULL. */
static char *ask(const char *question, bool secret)
{
	struct termios before, silent;
	bool terminal = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &before) == 0;
	char *line = NULL;
	size_t room = 0;
	if (terminal) {
		fprintf(stderr, "%s: ", question);
		silent = before;
		silent.c_lflag &= ~(tcflag_t)ECHO;
		if (secret)
			tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent);
	}
	ssize_t n = getline(&line, &room, stdin);
	if (terminal && secret) {
		tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
		fputc('\n', stderr);
	}
	if (n <= 0) {
		free(line);
		return NULL;
	}
	line[strcspn(line, "\r\n")] = 0;
	return line;
}

static char *read_password(void)
{
	CLEANUP_BUFFER struct buffer text = {0};
	if (fd_read_to_end(STDIN_FILENO, &text, PASSWORD_MAX) < 0 || buffer_append(&text, "", 1) < 0)
		return NULL;
	char *password = strdup((const char *)buffer_bytes(&text));
	if (password)
		password[strcspn(password, "\r\n")] = 0;
	return password;
}

int verb_login(struct cli *cli)
{
	struct husk_error err;
	const char *registry = cli->n_operands ? cli->operands[0] : DEFAULT_REGISTRY;
	const char *given_user = cli_value(cli, "username"), *given = cli_value(cli, "password");
	bool from_stdin = cli_flag(cli, "password-stdin");
	if (from_stdin && (given || !given_user)) {
		cli_say("%s", given ? "--password and --password-stdin exclude each other"
				    : "--password-stdin needs --username");
		return 1;
	}
	CLEANUP_FREE char *user = given_user ? strdup(given_user) : ask("Username", false);
	CLEANUP_FREE char *password = given ? strdup(given) : from_stdin ? read_password() : ask("Password", true);
	if (!user || !*user || !password || !*password) {
		cli_say("log in to %s: no user or no password given", registry);
		return 1;
	}
	if (husk_login(cli->husk, registry, user, password, &err) < 0)
		return cli_fail(&err, 1);
	printf("Logged in to %s.\n", registry);
	return 0;
}

int verb_logout(struct cli *cli)
{
	struct husk_error err;
	const char *registry = cli->n_operands ? cli->operands[0] : DEFAULT_REGISTRY;
	if (husk_logout(cli->husk, registry, &err) < 0)
		return cli_fail(&err, 1);
	printf("Logged out of %s.\n", registry);
	return 0;
}
