/* SPDX-License-Identifier: Apache-2.0 */
/*
 * record_reader.c - a reader of a log of bounded size (format and theory of operation: record_log.h)
 *
 * It reads ahead into one buffer, looks at the file's header behind that, and only then believes that what it has read is of
 * the file that it was in. Everything else is a look at both headers: where the next records are.
 */
#include "base/record_log.h"

#include "base/bytes.h"
#include "base/cleanup.h"

#include <sys/stat.h>

#define READ_AHEAD (256u << 10) /* more than the largest record */
#define ATTEMPTS 64 /* of one call: a writer may empty files faster than we look */

struct header {
	uint64_t sequence; /* 0: there is none */
	uint64_t position;
};

static int read_header(int fd, struct header *out, struct husk_error *err)
{
	uint8_t bytes[RECORD_LOG_HEADER];

	*out = (struct header){0};
	ssize_t n = pread(fd, bytes, sizeof(bytes), 0);
	if (n < 0)
		return error_errno(err, "read a log");
	if (n != sizeof(bytes) || get_le32(bytes) != RECORD_LOG_MAGIC)
		return 0;
	if (get_le16(bytes + 4) != RECORD_LOG_VERSION)
		return error_set(err, -ENOTSUP, "the log is of another husk: version %u, not %u", get_le16(bytes + 4),
			RECORD_LOG_VERSION);
	*out = (struct header){.sequence = get_le64(bytes + 8), .position = get_le64(bytes + 16)};
	return 0;
}

static int read_headers(const struct record_reader *r, struct header h[2], struct husk_error *err)
{
	int rc = read_header(r->fd[0], &h[0], err);
	return rc < 0 ? rc : read_header(r->fd[1], &h[1], err);
}

/** Whether @bytes begin with a whole record, and which. */
static bool parse(const uint8_t *bytes, size_t n, struct record *out)
{
	if (n < RECORD_HEADER)
		return false;
	struct record got = {.stream = bytes[4],
		.time_ns = get_le64(bytes + 8),
		.size = get_le32(bytes),
		.bytes = bytes + RECORD_HEADER};
	bool output = got.stream >= RECORD_STDOUT && got.stream <= RECORD_CONSOLE;
	bool ok = output                      ? got.size >= 1 && got.size <= RECORD_MAX
		  : got.stream == RECORD_GAP  ? got.size == 8
		  : got.stream == RECORD_BOOT ? got.size == 0
					      : false;
	if (!ok || !bytes_are_zero(bytes + 5, 3) || got.size > n - RECORD_HEADER)
		return false;
	*out = got;
	return true;
}

/** A whole record at the reader's place: 1; 0 when there is none now, or the file is not what it was; -errno. */
static int look(struct record_reader *r, struct record *out, struct husk_error *err)
{
	struct header h;

	if (parse(r->bytes + r->first, r->n, out))
		return 1;
	if (r->sequence == 0)
		return 0;
	r->first = r->n = 0;
	if (r->at > INT64_MAX - READ_AHEAD)
		return 0;
	ssize_t n = pread(r->fd[r->current], r->bytes, READ_AHEAD, (off_t)r->at);
	if (n < 0)
		return error_errno(err, "read a log");
	int rc = read_header(r->fd[r->current], &h, err);
	if (rc < 0)
		return rc;
	if (h.sequence != r->sequence) /* it was emptied; what was read may be of either */
		return 0;
	r->n = (size_t)n;
	return parse(r->bytes, r->n, out);
}

uint64_t record_gap(const struct record *record)
{
	return get_le64(record->bytes);
}

/** Go behind @record, which look() has found. */
static void pass(struct record_reader *r, const struct record *record)
{
	size_t size = RECORD_HEADER + record->size;

	r->first += size;
	r->n -= size;
	r->at += size;
	r->position += record->stream == RECORD_GAP ? record_gap(record) : record->size;
}

/** To the beginning of file @at, whose header is @h. */
static void go_to(struct record_reader *r, unsigned at, const struct header *h)
{
	r->current = at;
	r->sequence = h->sequence;
	r->at = RECORD_LOG_HEADER;
	r->first = r->n = 0;
	if (h->position > r->position)
		r->missing += h->position - r->position;
	r->position = h->position;
}

/** The oldest file behind the one that the reader is in; -1: none. */
static int next_file(const struct record_reader *r, const struct header h[2])
{
	int found = -1;

	for (int i = 0; i < 2; i++)
		if (h[i].sequence > r->sequence && (found < 0 || h[i].sequence < h[found].sequence))
			found = i;
	return found;
}

int record_reader_next(struct record_reader *r, struct record *out, struct husk_error *err)
{
	struct header h[2];
	bool over = false; /* the file was: whatever is in it now is all there will be */

	for (unsigned i = 0; i < ATTEMPTS; i++) {
		int rc = look(r, out, err);
		if (rc < 0)
			return rc;
		if (rc == 1 && r->missing) {
			put_le64(r->gap, r->missing);
			*out = (struct record){
				.stream = RECORD_GAP, .time_ns = out->time_ns, .size = sizeof(r->gap), .bytes = r->gap};
			r->missing = 0;
			return 1;
		}
		if (rc == 1) {
			pass(r, out);
			return 1;
		}
		rc = read_headers(r, h, err);
		if (rc < 0)
			return rc;
		int next = next_file(r, h);
		if (next < 0)
			return 0;
		/* Between our look and the switch a last record may have come. */
		bool again = !over && r->sequence && h[r->current].sequence == r->sequence;
		if (!again)
			go_to(r, (unsigned)next, &h[next]);
		over = again;
	}
	return 0;
}

int record_reader_open(struct record_reader *r, const int fd[2], struct husk_error *err)
{
	struct header h[2];

	*r = (struct record_reader){.fd = {fd[0], fd[1]}};
	int rc = read_headers(r, h, err);
	if (rc < 0)
		return rc;
	r->bytes = malloc(READ_AHEAD);
	return r->bytes ? 0 : error_set(err, -ENOMEM, "read a log: out of memory");
}

int record_reader_open_at_end(struct record_reader *r, const int fd[2], struct husk_error *err)
{
	struct header h[2];
	struct record record;
	struct stat st;

	int rc = record_reader_open(r, fd, err);
	rc = rc < 0 ? rc : read_headers(r, h, err);
	if (rc < 0) {
		record_reader_close(r);
		return rc;
	}
	unsigned newest = h[1].sequence > h[0].sequence;
	if (h[newest].sequence == 0)
		return 0;
	go_to(r, newest, &h[newest]);
	r->missing = 0;
	/* What comes while we look is to be read: a writer must not keep us here. */
	if (fstat(fd[newest], &st) < 0)
		rc = error_errno(err, "look at a log");
	while (rc == 0 && r->at < (uint64_t)st.st_size && (rc = look(r, &record, err)) == 1) {
		pass(r, &record);
		rc = 0;
	}
	if (rc < 0)
		record_reader_close(r);
	return rc;
}

void record_reader_go_back(struct record_reader *r, const struct record_reader *mark)
{
	uint8_t *bytes = r->bytes;

	*r = *mark;
	r->bytes = bytes;
	r->first = r->n = 0;
}

void record_reader_close(struct record_reader *r)
{
	free(steal_pointer(&r->bytes));
}
