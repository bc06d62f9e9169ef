/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - husk-tls: ends TLS in front of a door of one VM
 *
 * husk-tls is started by a VM's supervisor, never by users; it is a process of its own because OpenSSL reads what strangers
 * send, and because nothing else of the VM's has to see the key.
 *
 *     husk-tls serve INNER ALPN     serve until killed
 *     husk-tls check INNER ALPN     load certificate and key only
 *
 * INNER is the name of a unix stream socket in the directory on descriptor 6: each TLS connection is bridged to one
 * connection to it. ALPN names the protocols to agree to, most preferred first, separated by commas; "" is none.
 *
 * Descriptors: 3 the listening TCP socket, 4 the certificate chain, 5 its private key (both PEM, regular files), 6 the
 * directory, 2 the VM's log. `check` needs 4 and 5 only.
 *
 * Exit status: 0, of `check` only; 1 with one line "husk-tls: MESSAGE" on stderr. A certificate that has expired is used
 * with a warning there.
 *
 * Theory of operation: all that is read from files is read first; then the walls go up (walls.h), and only then is the
 * first client accepted.
 */
#include "base/fd.h"
#include "tls/context.h"
#include "tls/server.h"
#include "tls/walls.h"

#include <openssl/rand.h>
#include <signal.h>
#include <string.h>

enum { LISTENER = 3, CERTIFICATE = 4, KEY = 5, DIRECTORY = 6 };

#define INNER_MAX 107 /* bytes of a unix socket's path */

/** One line on stderr, in one write: the log has other writers. */
static void say(const char *what, const char *message)
{
	char line[HUSK_ERROR_MESSAGE_MAX + 64];
	int n = snprintf(line, sizeof(line), "husk-tls: %s%s\n", what, message);

	(void)fd_write_all(STDERR_FILENO, line, (size_t)n);
}

/** The directory becomes the working directory: its path may be longer than a socket's address. */
static int enter_directory(struct husk_error *err)
{
	if (fchdir(DIRECTORY) < 0)
		return error_errno(err, "enter the VM's directory on descriptor %d", DIRECTORY);
	return 0;
}

static int serve(SSL_CTX *context, const char *inner, struct husk_error *err)
{
	static struct server server; /* 16 KiB and more: not for the stack */
	unsigned char seed[16];
	char missing[WALLS_MISSING_MAX] = "";
	int rc = enter_directory(err);

	if (rc == 0)
		rc = server_open(&server, LISTENER, context, inner, err);
	/* OpenSSL's generator opens what it needs on its first use. */
	if (rc == 0 && RAND_bytes(seed, sizeof(seed)) != 1)
		rc = error_set(err, -EIO, "start OpenSSL's random generator: %s", openssl_reason());
	close(CERTIFICATE);
	close(KEY);
	close(DIRECTORY);
	if (rc == 0)
		rc = walls_build(missing, err);
	if (rc == 0 && *missing)
		say("warning: it is confined without what this kernel does not have: ", missing);
	return rc < 0 ? rc : server_run(&server, err);
}

static int run(int argc, char **argv, struct husk_error *err)
{
	bool serves = argc == 4 && strcmp(argv[1], "serve") == 0;
	struct alpn alpn;
	SSL_CTX *context = NULL;
	char warning[HUSK_ERROR_MESSAGE_MAX];

	if (!serves && !(argc == 4 && strcmp(argv[1], "check") == 0))
		return error_set(err, -EINVAL, "usage: husk-tls serve|check INNER ALPN");
	if (!argv[2][0] || strlen(argv[2]) > INNER_MAX || strchr(argv[2], '/'))
		return error_set(err, -EINVAL, "INNER is the name of a socket, without a slash and of at most %d bytes",
			INNER_MAX);
	int rc = alpn_parse(argv[3], &alpn, err);
	if (rc == 0)
		rc = context_make(CERTIFICATE, KEY, &alpn, &context, warning, err);
	if (rc == 0 && *warning)
		say("warning: ", warning);
	if (rc == 0 && serves)
		rc = serve(context, argv[2], err);
	SSL_CTX_free(context);
	return rc;
}

int main(int argc, char **argv)
{
	struct husk_error err;

	signal(SIGPIPE, SIG_IGN);
	if (run(argc, argv, &err) == 0)
		return 0;
	say("", err.message);
	return 1;
}
