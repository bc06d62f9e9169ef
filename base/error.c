/* SPDX-License-Identifier: Apache-2.0 */
/* error.c - the one error contract */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int error_set(struct husk_error *err, int code, const char *format, ...)
{
	if (err) {
		va_list ap;
		va_start(ap, format);
		vsnprintf(err->message, sizeof(err->message), format, ap);
		va_end(ap);
		err->code = code;
	}
	return code;
}

int error_errno(struct husk_error *err, const char *format, ...)
{
	int code = errno ? -errno : -EIO;
	if (err) {
		va_list ap;
		va_start(ap, format);
		vsnprintf(err->message, sizeof(err->message), format, ap);
		va_end(ap);
		size_t used = strlen(err->message);
		snprintf(err->message + used, sizeof(err->message) - used, ": %s", strerror(-code));
		err->code = code;
	}
	return code;
}

int error_prefix(struct husk_error *err, int code, const char *format, ...)
{
	if (!err)
		return code;
	char old[HUSK_ERROR_MESSAGE_MAX];
	memcpy(old, err->message, sizeof(old));
	va_list ap;
	va_start(ap, format);
	vsnprintf(err->message, sizeof(err->message), format, ap);
	va_end(ap);
	size_t used = strlen(err->message);
	snprintf(err->message + used, sizeof(err->message) - used, ": %s", old);
	err->code = code;
	return code;
}
