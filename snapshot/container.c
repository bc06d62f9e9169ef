/* SPDX-License-Identifier: Apache-2.0 */
/* container.c - the state file of a snapshot; its layout is in container.h */
#include "snapshot/container.h"

#include "base/bytes.h"
#include "base/fd.h"
#include "base/tlv.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define VERSION 1
#define HEADER_SIZE 64
#define HEADER_CRC 60
#define SECTION_SIZE 32
#define SECTION_CRC 24

static const uint8_t magic[8] = {'h', 'u', 's', 'k', 'S', 'N', 'A', 'P'};
static const uint8_t zeroes[16];

/** Is @text, NUL-padded in @room bytes, a name of this format: small letters, digits, '-'? */
static bool name_fits(const uint8_t *text, size_t room)
{
	size_t n = strnlen((const char *)text, room);

	for (size_t i = 0; i < n; i++)
		if (!(text[i] >= 'a' && text[i] <= 'z') && !(text[i] >= '0' && text[i] <= '9') && text[i] != '-')
			return false;
	return n > 0 && memcmp(text + n, zeroes, room - n) == 0;
}

/* ---- writing ---- */

void container_begin(struct container_writer *writer, uint32_t architecture, const char *machine)
{
	uint8_t header[HEADER_SIZE] = {0};

	*writer = (struct container_writer){0};
	memcpy(header, magic, sizeof(magic));
	put_le32(header + 8, VERSION);
	put_le32(header + 12, architecture);
	memcpy(header + 16, machine, strnlen(machine, CONTAINER_MACHINE_MAX));
	writer->failed = buffer_append(&writer->bytes, header, sizeof(header));
}

int container_put(struct container_writer *writer, const char *tag, uint32_t version, unsigned flags, const void *bytes,
	size_t n, struct husk_error *err)
{
	uint8_t section[SECTION_SIZE] = {0};

	if (!writer->failed &&
		(writer->n == CONTAINER_SECTIONS_MAX || n > CONTAINER_SIZE_MAX - SECTION_SIZE - writer->bytes.size))
		writer->failed = -EFBIG;
	if (!writer->failed) {
		memcpy(section, tag, strnlen(tag, CONTAINER_TAG_MAX));
		put_le32(section + 8, version);
		put_le32(section + 12, flags);
		put_le64(section + 16, n);
		put_le32(section + SECTION_CRC, crc32_ieee(crc32_ieee(0, section, SECTION_CRC), bytes, n));
		writer->failed = buffer_append(&writer->bytes, section, sizeof(section));
	}
	if (!writer->failed)
		writer->failed = buffer_append(&writer->bytes, bytes, n);
	if (writer->failed)
		return error_set(err, writer->failed, "section '%s' of a snapshot (%zu bytes): %s", tag, n,
			strerror(-writer->failed));
	writer->n++;
	return 0;
}

int container_seal(struct container_writer *writer, struct husk_error *err)
{
	if (writer->failed)
		return error_set(err, writer->failed, "a snapshot: %s", strerror(-writer->failed));
	uint8_t *header = buffer_bytes(&writer->bytes);
	put_le64(header + 32, writer->bytes.size);
	put_le32(header + 40, writer->n);
	put_le32(header + HEADER_CRC, crc32_ieee(0, header, HEADER_CRC));
	return 0;
}

void container_writer_free(struct container_writer *writer)
{
	buffer_free(&writer->bytes);
}

/* ---- reading ---- */

static int check_header(const uint8_t *header, size_t size, const char *machine, struct husk_error *err)
{
	if (size < sizeof(magic) || memcmp(header, magic, sizeof(magic)) != 0)
		return error_set(err, -EBADMSG, "it is no snapshot");
	if (size < HEADER_SIZE)
		return error_set(err, -EBADMSG, "it is truncated: %zu bytes, less than a header", size);
	if (get_le32(header + HEADER_CRC) != crc32_ieee(0, header, HEADER_CRC))
		return error_set(err, -EBADMSG, "its header is damaged (checksum)");
	if (get_le32(header + 8) != VERSION)
		return error_set(err, -ENOTSUP, "it is of a newer husk: format version %u, this one reads %u",
			get_le32(header + 8), VERSION);
	if (get_le32(header + 12) != CONTAINER_HERE)
		return error_set(err, -ENOTSUP,
			"it is for another architecture: ELF machine %u, this is %u (62 is x86-64, 183 AArch64)",
			get_le32(header + 12), CONTAINER_HERE);
	if (!name_fits(header + 16, CONTAINER_MACHINE_MAX + 1) || header[16 + CONTAINER_MACHINE_MAX] ||
		memcmp(header + 44, zeroes, 16) != 0)
		return error_set(err, -EBADMSG, "its header is malformed");
	if (strcmp((const char *)header + 16, machine) != 0)
		return error_set(err, -ENOTSUP, "it is one of a machine of the kind '%s', not '%s'",
			(const char *)header + 16, machine);
	if (get_le64(header + 32) > size)
		return error_set(err, -EBADMSG, "it is truncated: %zu bytes of %llu", size,
			(unsigned long long)get_le64(header + 32));
	if (get_le64(header + 32) < size)
		return error_set(err, -EBADMSG, "it is damaged: %zu bytes, and %llu belong to it", size,
			(unsigned long long)get_le64(header + 32));
	if (get_le32(header + 40) > CONTAINER_SECTIONS_MAX)
		return error_set(
			err, -EBADMSG, "%u sections, %u are the most", get_le32(header + 40), CONTAINER_SECTIONS_MAX);
	return 0;
}

/** One section's header at @at, of which @left bytes are there. *@size: of its bytes. */
static int check_section(const uint8_t *at, size_t left, unsigned number, size_t *size, struct husk_error *err)
{
	if (left < SECTION_SIZE)
		return error_set(err, -EBADMSG, "section number %u lies beyond the end", number);
	if (!name_fits(at, CONTAINER_TAG_MAX))
		return error_set(err, -EBADMSG, "section number %u is damaged: no name", number);
	if (get_le64(at + 16) > left - SECTION_SIZE)
		return error_set(err, -EBADMSG, "section '%.8s' reaches beyond the end", (const char *)at);
	*size = get_le64(at + 16);
	if (get_le32(at + SECTION_CRC) != crc32_ieee(crc32_ieee(0, at, SECTION_CRC), at + SECTION_SIZE, *size))
		return error_set(err, -EBADMSG, "section '%.8s' is damaged (checksum)", (const char *)at);
	if (get_le32(at + 8) == 0 || get_le32(at + 12) & ~(uint32_t)CONTAINER_OPTIONAL || get_le32(at + 28) != 0)
		return error_set(err, -EBADMSG, "section '%.8s' is malformed", (const char *)at);
	return 0;
}

/** All of them, before anybody asks what is in them: a damaged file is called damaged, whatever it seems to say. */
static int check_sections(const uint8_t *header, size_t size, struct husk_error *err)
{
	size_t at = HEADER_SIZE;

	for (unsigned i = 0; i < get_le32(header + 40); i++) {
		size_t length = 0;
		int rc = check_section(header + at, size - at, i + 1, &length, err);
		if (rc < 0)
			return rc;
		at += SECTION_SIZE + length;
	}
	return at == size ? 0 : error_set(err, -EBADMSG, "it is damaged: %zu bytes belong to no section", size - at);
}

/** Put the section at @at, whose form is right, where the reader looks for it. */
static int take_section(const uint8_t *at, size_t size, const struct container_known *known, size_t n,
	struct container *container, struct husk_error *err)
{
	const char *tag = (const char *)at;
	uint32_t version = get_le32(at + 8);
	size_t i = 0;

	while (i < n && strncmp(tag, known[i].tag, CONTAINER_TAG_MAX) != 0)
		i++;
	bool optional = get_le32(at + 12) & CONTAINER_OPTIONAL;
	if (i == n && optional)
		return 0;
	if (i == n)
		return error_set(err, -ENOTSUP, "it is of a newer husk: section '%.8s' is not known here", tag);
	if (version > known[i].version && optional && known[i].absent)
		return 0;
	if (version > known[i].version)
		return error_set(err, -ENOTSUP,
			"it is of a newer husk: section '%.8s' has version %u, this one reads %u", tag, version,
			known[i].version);
	if (container->sections[i].bytes)
		return error_set(err, -EBADMSG, "section '%.8s' is there twice", tag);
	container->sections[i] = (struct container_section){at + SECTION_SIZE, size, version};
	return 0;
}

int container_parse(const void *bytes, size_t size, const char *machine, const struct container_known *known, size_t n,
	struct container *container, struct husk_error *err)
{
	const uint8_t *header = bytes;

	memset(container->sections, 0, sizeof(container->sections));
	int rc = check_header(header, size, machine, err);
	rc = rc < 0 ? rc : check_sections(header, size, err);
	if (rc < 0)
		return rc;
	const uint8_t *at = header + HEADER_SIZE;
	for (unsigned i = 0; i < get_le32(header + 40); i++) {
		size_t length = get_le64(at + 16);
		rc = take_section(at, length, known, n, container, err);
		if (rc < 0)
			return rc;
		at += SECTION_SIZE + length;
	}
	for (size_t i = 0; i < n; i++)
		if (!container->sections[i].bytes && !known[i].absent)
			return error_set(err, -EBADMSG, "section '%s' is missing", known[i].tag);
	return 0;
}

static int read_whole(const char *path, struct buffer *file, struct husk_error *err)
{
	/* O_NONBLOCK: a FIFO must not hold us up; for files it means nothing. */
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(err, "open");
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EBADMSG, "it is no regular file");
	if ((uint64_t)st.st_size > CONTAINER_SIZE_MAX)
		return error_set(
			err, -EBADMSG, "it is no snapshot: %lld bytes, more than any has", (long long)st.st_size);
	uint8_t *to = buffer_reserve(file, (size_t)st.st_size + 1);
	if (!to)
		return error_set(err, -ENOMEM, "out of memory");
	int rc = fd_read_all(fd, to, (size_t)st.st_size);
	if (rc < 0) {
		errno = -rc;
		return rc == -EPIPE ? error_set(err, -EBADMSG, "it was cut while it was read")
				    : error_errno(err, "read");
	}
	buffer_commit(file, (size_t)st.st_size);
	return 0;
}

int container_read(const char *path, const char *machine, const struct container_known *known, size_t n,
	struct container *container, struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer file = {0};
	struct husk_error why = {0};
	int rc = read_whole(path, &file, &why);

	if (rc == 0)
		rc = container_parse(buffer_bytes(&file), file.size, machine, known, n, container, &why);
	if (rc < 0)
		return error_set(err, rc, "snapshot %s: %s", path, why.message);
	container->file = file;
	file = (struct buffer){0};
	return 0;
}

void container_free(struct container *container)
{
	buffer_free(&container->file);
}
