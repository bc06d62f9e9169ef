/* SPDX-License-Identifier: Apache-2.0 */
/* context.h - what husk-tls answers with: certificate, key, versions, protocols */
#ifndef TLS_CONTEXT_H
#define TLS_CONTEXT_H

#include "base/error.h"

#include <openssl/ssl.h>

#define ALPN_MAX 256 /* bytes of the list on the wire */

/** ALPN protocols in their wire form, each with its length in front, most preferred first. */
struct alpn {
	unsigned char list[ALPN_MAX];
	unsigned size; /* 0: none, the extension is not answered */
};

/** Read "h2,http/1.1"; "" is none. -EINVAL: an empty name, or too many bytes. */
int alpn_parse(const char *text, struct alpn *alpn, struct husk_error *err);

/**
 * Make the context that every connection is answered with.
 * @certificate: descriptor of a regular file: the chain as PEM, the server's own certificate first
 * @key:         descriptor of a regular file: its private key as PEM, not encrypted
 * @alpn:        outlives the context
 * @out:         the caller frees it with SSL_CTX_free()
 * @warning:     at least HUSK_ERROR_MESSAGE_MAX bytes: what is odd but no obstacle (expired), else ""
 *
 * The files are read from their beginning, whatever the descriptors' positions; the descriptors stay the caller's.
 * Errors: -EINVAL (not a regular file, not PEM, encrypted, a pair that does not match), -EFBIG, what read(2) says.
 */
int context_make(
	int certificate, int key, const struct alpn *alpn, SSL_CTX **out, char *warning, struct husk_error *err);

/** The oldest reason in OpenSSL's error queue, which is emptied; never NULL. A constant text without a peer's bytes. */
const char *openssl_reason(void);

#endif
