/* SPDX-License-Identifier: Apache-2.0 */
/*
 * context.c - what husk-tls answers with: certificate, key, versions, protocols
 *
 * Theory of operation: TLS 1.2 and 1.3; OpenSSL's own choice of ciphers at security level 2 or what the system's
 * openssl.cnf makes stricter, in the server's order; no compression, no renegotiation. Sessions are resumed by tickets
 * alone, whose keys live and die with this process; there is no cache that clients could fill.
 *
 * ALPN: a client that does not ask goes on without. One that asks and has no protocol in common is refused with the alert
 * no_application_protocol (RFC 7301 section 3.2): the guest behind the door speaks what --tls-alpn says, and a client that
 * goes on regardless is how one protocol is mistaken for another.
 */
#include "tls/context.h"

#include "base/cleanup.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <string.h>
#include <sys/stat.h>

#define PEM_MAX (1 << 20) /* bytes; a chain of ten certificates has some 20 KiB */
#define SECURITY_LEVEL 2 /* at least 112 bits: no RSA key under 2048 bits, no SHA-1 signatures */

static void free_bio(BIO **bio)
{
	BIO_free(*bio);
}

static void free_certificate(X509 **certificate)
{
	X509_free(*certificate);
}

static void free_key(EVP_PKEY **key)
{
	EVP_PKEY_free(*key);
}

static void free_context(SSL_CTX **context)
{
	SSL_CTX_free(*context);
}

/** A file's bytes; wiped when they go, for one of them is a key. */
struct secret {
	size_t size;
	char *bytes;
};

static void secret_free(struct secret *s)
{
	OPENSSL_clear_free(s->bytes, PEM_MAX);
}

const char *openssl_reason(void)
{
	unsigned long code = ERR_get_error();
	const char *reason = ERR_SYSTEM_ERROR(code) ? strerror(ERR_GET_REASON(code)) : ERR_reason_error_string(code);

	ERR_clear_error();
	return reason ? reason : "unknown reason";
}

int alpn_parse(const char *text, struct alpn *alpn, struct husk_error *err)
{
	alpn->size = 0;
	while (*text) {
		size_t n = strcspn(text, ",");
		if (n == 0 || n > 255 || (text[n] == ',' && !text[n + 1]))
			return error_set(err, -EINVAL,
				"ALPN: a protocol's name has 1 to 255 bytes; give them as in h2,http/1.1");
		if (alpn->size + 1 + n > sizeof(alpn->list))
			return error_set(err, -EINVAL, "ALPN: more than %zu bytes of protocols", sizeof(alpn->list));
		alpn->list[alpn->size] = (unsigned char)n;
		memcpy(alpn->list + alpn->size + 1, text, n);
		alpn->size += 1 + (unsigned)n;
		text += n + (text[n] == ',');
	}
	return 0;
}

static int select_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_size, const unsigned char *asked,
	unsigned asked_size, void *data)
{
	const struct alpn *ours = data;
	unsigned char *chosen;
	int rc = SSL_select_next_proto(&chosen, out_size, ours->list, ours->size, asked, asked_size);

	*out = chosen;
	return rc == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

/** Read all of @fd; @what names it in errors. */
static int read_file(int fd, const char *what, struct secret *out, struct husk_error *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_errno(err, "read the %s", what);
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, "read the %s: it is not a regular file", what);
	if (st.st_size > PEM_MAX)
		return error_set(err, -EFBIG, "read the %s: it has more than %d bytes", what, PEM_MAX);
	out->bytes = OPENSSL_malloc(PEM_MAX);
	if (!out->bytes)
		return error_set(err, -ENOMEM, "read the %s: out of memory", what);
	while (out->size < PEM_MAX) {
		ssize_t n = pread(fd, out->bytes + out->size, PEM_MAX - out->size, (off_t)out->size);
		if (n < 0 && errno != EINTR)
			return error_errno(err, "read the %s", what);
		if (n == 0)
			break;
		out->size += n > 0 ? (size_t)n : 0;
	}
	return out->size ? 0 : error_set(err, -EINVAL, "read the %s: it is empty", what);
}

/** Called for a key that is encrypted: note it and have no passphrase. */
static int no_passphrase(char *room, int size, int writing, void *encrypted)
{
	*(bool *)encrypted = true;
	return -1;
}

static int use_key(SSL_CTX *context, int fd, struct husk_error *err)
{
	CLEANUP(secret_free) struct secret file = {0};
	bool encrypted = false;
	int rc = read_file(fd, "private key", &file, err);
	if (rc < 0)
		return rc;
	CLEANUP(free_bio) BIO *bio = BIO_new_mem_buf(file.bytes, (int)file.size);
	CLEANUP(free_key) EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, &encrypted) : NULL;
	if (encrypted)
		return error_set(err, -EINVAL,
			"the private key is encrypted and there is nobody to ask for its passphrase: decrypt it with "
			"openssl pkey");
	if (!key)
		return error_set(err, -EINVAL, "the private key is not PEM: %s", openssl_reason());
	if (SSL_CTX_use_PrivateKey(context, key) != 1)
		return error_set(err, -EINVAL, "the private key does not match the certificate: %s", openssl_reason());
	return 0;
}

/** Expiry does not stop a server: its clients decide. */
static void look_at_dates(const X509 *certificate, char *warning)
{
	if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0)
		snprintf(warning, HUSK_ERROR_MESSAGE_MAX, "the certificate has expired: clients will refuse it");
	else if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0)
		snprintf(warning, HUSK_ERROR_MESSAGE_MAX, "the certificate is not valid yet: clients will refuse it");
}

static int use_chain(SSL_CTX *context, int fd, char *warning, struct husk_error *err)
{
	CLEANUP(secret_free) struct secret file = {0};
	int rc = read_file(fd, "certificate", &file, err);
	if (rc < 0)
		return rc;
	CLEANUP(free_bio) BIO *bio = BIO_new_mem_buf(file.bytes, (int)file.size);
	CLEANUP(free_certificate) X509 *own = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
	if (!own)
		return error_set(err, -EINVAL, "the certificate is not PEM: %s", openssl_reason());
	if (SSL_CTX_use_certificate(context, own) != 1)
		return error_set(err, -EINVAL, "the certificate cannot be used: %s", openssl_reason());
	look_at_dates(own, warning);
	for (X509 *next; (next = PEM_read_bio_X509(bio, NULL, NULL, NULL));)
		if (SSL_CTX_add0_chain_cert(context, next) != 1) {
			X509_free(next);
			return error_set(
				err, -EINVAL, "a certificate of the chain cannot be used: %s", openssl_reason());
		}
	if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
		return error_set(err, -EINVAL, "a certificate of the chain is not PEM: %s", openssl_reason());
	ERR_clear_error();
	return 0;
}

static void set_policy(SSL_CTX *context, const struct alpn *alpn)
{
	SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
	if (SSL_CTX_get_security_level(context) < SECURITY_LEVEL)
		SSL_CTX_set_security_level(context, SECURITY_LEVEL);
	SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE |
					     SSL_OP_PRIORITIZE_CHACHA);
	SSL_CTX_set_mode(context,
		SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_session_id_context(context, (const unsigned char *)"husk", 4);
	/* Whatever lies in OpenSSL's buffers epoll cannot see: it reads no further than the record at hand. */
	SSL_CTX_set_read_ahead(context, 0);
	if (alpn->size)
		SSL_CTX_set_alpn_select_cb(context, select_alpn, (void *)alpn);
}

int context_make(
	int certificate, int key, const struct alpn *alpn, SSL_CTX **out, char *warning, struct husk_error *err)
{
	CLEANUP(free_context) SSL_CTX *context = SSL_CTX_new(TLS_server_method());

	*warning = 0;
	if (!context)
		return error_set(err, -EIO, "start OpenSSL: %s", openssl_reason());
	set_policy(context, alpn);
	int rc = use_chain(context, certificate, warning, err);
	if (rc == 0)
		rc = use_key(context, key, err);
	if (rc == 0 && SSL_CTX_check_private_key(context) != 1)
		rc = error_set(err, -EINVAL, "the private key does not match the certificate: %s", openssl_reason());
	if (rc == 0)
		*out = steal_pointer(&context);
	return rc;
}
