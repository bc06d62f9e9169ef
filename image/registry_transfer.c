/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry_transfer.c - one HTTP request: curl handles, redirects, stalls, retries
 *
 * Theory of operation: transfer_run() makes attempts until the server has given an answer that stands. An attempt is a
 * request and the redirects behind it. Redirects are followed here and not by curl: the Authorization header goes to the
 * origin (scheme, host and port) it was meant for and is dropped for good at the first hop to another; nothing goes from
 * TLS to plain HTTP, and plain HTTP goes only from loopback to loopback.
 *
 * Failures that may pass (no connection, cut or stalled transfers, 408, 429, 5xx) are tried again after a back-off that
 * doubles, with jitter, or after Retry-After. There is a budget: a failed connection and a stall cost two, others one.
 * A transfer that moved a fair number of bytes gets its budget back, so that a large blob survives a bad line while a
 * server that gives a byte per connection does not hold husk for ever.
 *
 * Loopback hosts are spoken to directly, whatever proxy is configured. The process ignores SIGPIPE (CURLOPT_NOSIGNAL).
 */
#include "base/cleanup.h"
#include "base/loop.h"
#include "base/path.h"
#include "image/registry_private.h"

#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <time.h>

#define BUDGET 6
#define REDIRECTS_MAX 5
#define BACKOFF_MAX_MS 30000
#define RETRY_AFTER_MAX_S 60
#define FAIR_PROGRESS 65536 /* bytes that restore the budget */
#define STALL_BYTES 1024 /* fewer than these in options.stall_ms: stalled */
#define SMALL_TIMEOUT_MS 300000L
#define ERROR_BODY_MAX 16384
#define CHALLENGES_MAX 8192
#define TLS_PROBE_MS 3000L

/** One hop of one attempt. */
struct hop {
	struct registry *registry;
	struct transfer *t;
	CURL *curl;
	const char *url;
	struct husk_error why; /* code 0 unless an op failed */
	bool begun, stalled;
	uint64_t window_ns; /* when the stall window began */
	curl_off_t window_bytes; /* and how much had come */
};

static void list_cleanup(struct curl_slist **list)
{
	curl_slist_free_all(*list);
}

static void url_cleanup(CURLU **url)
{
	curl_url_cleanup(*url);
}

static void text_cleanup(char **text)
{
	curl_free(*text);
}

static bool is_cancelled(const struct registry *registry)
{
	return registry->options.cancelled && *registry->options.cancelled;
}

static CURL *handle_get(struct registry *registry)
{
	CURL *curl = NULL;
	pthread_mutex_lock(&registry->lock);
	if (registry->n_pool)
		curl = registry->pool[--registry->n_pool];
	pthread_mutex_unlock(&registry->lock);
	return curl ? curl : curl_easy_init();
}

/** A reset handle keeps its connections, so the next request to the host saves the handshakes. */
static void handle_put(struct registry *registry, CURL *curl)
{
	curl_easy_reset(curl);
	pthread_mutex_lock(&registry->lock);
	bool kept = registry->n_pool < POOL_MAX;
	if (kept)
		registry->pool[registry->n_pool++] = curl;
	pthread_mutex_unlock(&registry->lock);
	if (!kept)
		curl_easy_cleanup(curl);
}

int registry_wait(struct registry *registry, uint64_t ms)
{
	uint64_t end = clock_monotonic_ns() + ms * 1000000;
	for (;;) {
		if (is_cancelled(registry))
			return -EINTR;
		uint64_t now = clock_monotonic_ns();
		if (now >= end)
			return 0;
		uint64_t slice = end - now < 50000000 ? end - now : 50000000;
		nanosleep(&(struct timespec){.tv_nsec = (long)slice}, NULL);
	}
}

static void answer_reset(struct transfer *t)
{
	t->status = 0;
	t->content_type[0] = 0;
	t->content_length = t->range_start = t->range_total = -1;
	t->retry_after = 0;
	t->challenges.size = 0;
	t->body.size = 0;
	t->spoke_no_http = false;
}

void transfer_free(struct transfer *t)
{
	buffer_free(&t->challenges);
	buffer_free(&t->body);
}

/** "bytes 5-9/10" */
static void read_content_range(struct transfer *t, const char *value)
{
	long long start, end, total;
	int n = sscanf(value, "bytes %lld-%lld/%lld", &start, &end, &total);
	if (n >= 2 && start >= 0 && end >= start)
		t->range_start = start;
	if (n == 3 && total > end)
		t->range_total = total;
}

static size_t on_header(char *bytes, size_t size, size_t n, void *data)
{
	static const char challenge[] = "www-authenticate:", range[] = "content-range:";
	struct transfer *t = ((struct hop *)data)->t;
	char line[1024];
	if (n >= 5 && strncasecmp(bytes, "HTTP/", 5) == 0)
		answer_reset(t);
	if (n >= strlen(challenge) && strncasecmp(bytes, challenge, strlen(challenge)) == 0 &&
		t->challenges.size + n < CHALLENGES_MAX) {
		size_t skip = strlen(challenge), end = n;
		while (end > skip && (bytes[end - 1] == '\r' || bytes[end - 1] == '\n'))
			end--;
		if (buffer_append(&t->challenges, bytes + skip, end - skip) < 0 ||
			buffer_append(&t->challenges, "\n", 1) < 0)
			return 0;
	} else if (n > strlen(range) && n < sizeof(line) && strncasecmp(bytes, range, strlen(range)) == 0) {
		memcpy(line, bytes, n);
		line[n] = 0;
		read_content_range(t, line + strlen(range) + strspn(line + strlen(range), " \t"));
	}
	return n;
}

/** Fill the fields of @t that curl knows of the answer's head. */
static void read_head(struct hop *hop)
{
	struct transfer *t = hop->t;
	const char *type = NULL;
	curl_off_t length = -1, retry = 0;
	curl_easy_getinfo(hop->curl, CURLINFO_RESPONSE_CODE, &t->status);
	curl_easy_getinfo(hop->curl, CURLINFO_CONTENT_TYPE, &type);
	curl_easy_getinfo(hop->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
	curl_easy_getinfo(hop->curl, CURLINFO_RETRY_AFTER, &retry);
	t->content_length = length;
	t->retry_after = retry;
	size_t n = 0;
	for (; type && type[n] && type[n] != ';' && type[n] != ' ' && n < sizeof(t->content_type) - 1; n++)
		t->content_type[n] = (char)(type[n] >= 'A' && type[n] <= 'Z' ? type[n] | 0x20 : type[n]);
	t->content_type[n] = 0;
}

static bool is_success(long status)
{
	return status >= 200 && status < 300;
}

static int begin_once(struct hop *hop)
{
	if (hop->begun)
		return 0;
	hop->begun = true;
	read_head(hop);
	return is_success(hop->t->status) && hop->t->ops->begin ? hop->t->ops->begin(hop->t, &hop->why) : 0;
}

static size_t on_body(char *bytes, size_t size, size_t n, void *data)
{
	struct hop *hop = data;
	struct transfer *t = hop->t;
	int rc = begin_once(hop);
	if (rc == 0 && is_success(t->status)) {
		rc = t->ops->take(t, bytes, n, &hop->why);
		if (rc == 0)
			t->total += n;
	} else if (rc == 0) {
		size_t room = ERROR_BODY_MAX - t->body.size;
		if (buffer_append(&t->body, bytes, n < room ? n : room) < 0 || n > room)
			return 0; /* enough was seen: the status alone is the answer */
	}
	if (rc < 0)
		hop->why.code = rc;
	return rc == 0 ? n : 0;
}

static int on_progress(void *data, curl_off_t total, curl_off_t now_bytes, curl_off_t up_total, curl_off_t up)
{
	struct hop *hop = data;
	uint64_t now = clock_monotonic_ns();
	if (is_cancelled(hop->registry))
		return 1;
	if (now_bytes - hop->window_bytes >= STALL_BYTES) {
		hop->window_bytes = now_bytes;
		hop->window_ns = now;
	}
	hop->stalled = now - hop->window_ns > hop->registry->options.stall_ms * 1000000ULL;
	return hop->stalled;
}

/** Whether the host of @url is loopback; plain HTTP is for those only. */
static bool url_is_loopback(const char *url)
{
	CLEANUP(url_cleanup) CURLU *parsed = curl_url();
	CLEANUP(text_cleanup) char *host = NULL;
	return parsed && curl_url_set(parsed, CURLUPART_URL, url, 0) == CURLUE_OK &&
	       curl_url_get(parsed, CURLUPART_HOST, &host, 0) == CURLUE_OK && host_is_loopback(host);
}

static void set_common(struct registry *registry, CURL *curl, const char *url)
{
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
	curl_easy_setopt(curl, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	curl_easy_setopt(curl, CURLOPT_USERAGENT, registry->user_agent);
	if (url_is_loopback(url))
		curl_easy_setopt(curl, CURLOPT_PROXY, "");
}

static int header_add(struct curl_slist **list, const char *name, const char *value)
{
	CLEANUP_FREE char *line = path_format("%s: %s", name, value);
	struct curl_slist *longer = line ? curl_slist_append(*list, line) : NULL;
	if (!longer)
		return -ENOMEM;
	*list = longer;
	return 0;
}

static CURLcode hop_perform(struct hop *hop, bool with_authorization, char error[CURL_ERROR_SIZE])
{
	struct transfer *t = hop->t;
	CURL *curl = hop->curl;
	CLEANUP(list_cleanup) struct curl_slist *headers = NULL;
	char range[32];
	set_common(hop->registry, curl, hop->url);
	if ((t->accept && header_add(&headers, "Accept", t->accept) < 0) ||
		(with_authorization && t->authorization && header_add(&headers, "Authorization", t->authorization) < 0))
		return CURLE_OUT_OF_MEMORY;
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, error);
	curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(curl, CURLOPT_HEADERDATA, hop);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, hop);
	curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
	curl_easy_setopt(curl, CURLOPT_XFERINFODATA, hop);
	if (t->small)
		curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, SMALL_TIMEOUT_MS);
	if (t->form)
		curl_easy_setopt(curl, CURLOPT_POSTFIELDS, t->form);
	snprintf(range, sizeof(range), "%llu-", (unsigned long long)t->offset);
	if (t->offset)
		curl_easy_setopt(curl, CURLOPT_RANGE, range);
	CURLcode code = curl_easy_perform(curl);
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, NULL);
	return code;
}

/** How a failed request is to be taken: the errno, what a retry costs (0: none will help), words for the user. */
static const struct failure {
	CURLcode code;
	int error;
	int cost;
	const char *advice;
} failures[] = {
	{CURLE_COULDNT_RESOLVE_HOST, -EHOSTUNREACH, 2, "is the name right, and is this machine on the network?"},
	{CURLE_COULDNT_RESOLVE_PROXY, -EHOSTUNREACH, 0, "check HTTPS_PROXY"},
	{CURLE_COULDNT_CONNECT, -ECONNREFUSED, 2, "is the registry running, and the port right?"},
	{CURLE_OPERATION_TIMEDOUT, -ETIMEDOUT, 2, NULL},
	{CURLE_PEER_FAILED_VERIFICATION, -EKEYREJECTED, 0,
		"its certificate must come from an authority this machine trusts"},
	{CURLE_SSL_CONNECT_ERROR, -ECONNABORTED, 2,
		"it does not speak TLS; husk uses plain HTTP for loopback hosts only"},
	{CURLE_WEIRD_SERVER_REPLY, -EPROTO, 0, "it does not speak HTTP"},
	{CURLE_UNSUPPORTED_PROTOCOL, -EPROTO, 0, "it does not speak HTTP"},
	{CURLE_OUT_OF_MEMORY, -ENOMEM, 0, NULL},
	{CURLE_RECV_ERROR, -ECONNRESET, 1, NULL},
	{CURLE_SEND_ERROR, -ECONNRESET, 1, NULL},
	{CURLE_GOT_NOTHING, -ECONNRESET, 1, NULL},
	{CURLE_PARTIAL_FILE, -ECONNRESET, 1, NULL},
	{CURLE_HTTP2, -ECONNRESET, 1, NULL},
	{CURLE_HTTP2_STREAM, -ECONNRESET, 1, NULL},
};

static const struct failure *failure_find(CURLcode code)
{
	static const struct failure other = {.error = -EIO};
	for (size_t i = 0; i < ARRAY_SIZE(failures); i++)
		if (failures[i].code == code)
			return &failures[i];
	return &other;
}

/** Turn what curl returned into an error; *@cost as in struct failure. */
static int hop_failed(struct hop *hop, CURLcode code, const char *text, int *cost, struct husk_error *err)
{
	struct transfer *t = hop->t;
	*cost = 0;
	if (is_cancelled(hop->registry))
		return error_set(err, -EINTR, "%s: cancelled", t->what);
	if (hop->why.code) {
		*cost = hop->why.code == -EAGAIN;
		return error_set(
			err, *cost ? -ECONNRESET : hop->why.code, "%s: %s: %s", t->what, t->host, hop->why.message);
	}
	if (hop->stalled) {
		*cost = 2;
		return error_set(err, -ETIMEDOUT, "%s: %s: no data for %.1f seconds", t->what, t->host,
			hop->registry->options.stall_ms / 1000.0);
	}
	const struct failure *failure = failure_find(code);
	t->spoke_no_http = failure->error == -EPROTO || code == CURLE_GOT_NOTHING || code == CURLE_RECV_ERROR;
	*cost = failure->cost;
	return error_set(err, failure->error, "%s: %s: %s%s%s%s", t->what, t->host,
		*text ? text : curl_easy_strerror(code), failure->advice ? " (" : "",
		failure->advice ? failure->advice : "", failure->advice ? ")" : "");
}

static bool same_origin(const char *a, const char *b)
{
	static const CURLUPart parts[] = {CURLUPART_SCHEME, CURLUPART_HOST, CURLUPART_PORT};
	CLEANUP(url_cleanup) CURLU *ua = curl_url();
	CLEANUP(url_cleanup) CURLU *ub = curl_url();
	if (!ua || !ub || curl_url_set(ua, CURLUPART_URL, a, 0) || curl_url_set(ub, CURLUPART_URL, b, 0))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		CLEANUP(text_cleanup) char *ta = NULL;
		CLEANUP(text_cleanup) char *tb = NULL;
		if (curl_url_get(ua, parts[i], &ta, CURLU_DEFAULT_PORT) ||
			curl_url_get(ub, parts[i], &tb, CURLU_DEFAULT_PORT) || strcasecmp(ta, tb) != 0)
			return false;
	}
	return true;
}

/** Whether a redirect from @from to @to keeps husk's promises. */
static int redirect_check(const struct transfer *t, const char *from, const char *to, struct husk_error *err)
{
	bool tls = strncasecmp(to, "https://", 8) == 0;
	bool plain = strncasecmp(to, "http://", 7) == 0;
	bool from_plain = strncasecmp(from, "http://", 7) == 0;
	if (!tls && !(plain && from_plain && url_is_loopback(from) && url_is_loopback(to)))
		return error_set(err, -EPROTO, "%s: %s redirects to something that is not https", t->what, t->host);
	return 0;
}

/** One request and the redirects behind it. On failure *@cost is as in struct failure. */
static int attempt(struct registry *registry, struct transfer *t, CURL *curl, int *cost, struct husk_error *err)
{
	CLEANUP_FREE char *url = strdup(t->url);
	bool with_authorization = true;
	for (int redirects = 0; url; redirects++) {
		char text[CURL_ERROR_SIZE] = "";
		struct hop hop = {
			.registry = registry, .t = t, .curl = curl, .url = url, .window_ns = clock_monotonic_ns()};
		answer_reset(t);
		curl_easy_reset(curl);
		CURLcode code = hop_perform(&hop, with_authorization, text);
		read_head(&hop);
		bool enough = code == CURLE_WRITE_ERROR && !hop.why.code && !is_success(t->status);
		if (code == CURLE_OK && begin_once(&hop) == 0 && is_success(t->status) && t->ops->finish)
			t->ops->finish(t, &hop.why);
		if (hop.why.code || (code != CURLE_OK && !enough))
			return hop_failed(&hop, code, text, cost, err);
		char *next = NULL;
		curl_easy_getinfo(curl, CURLINFO_REDIRECT_URL, &next);
		*cost = 0;
		if (t->status < 300 || t->status > 399 || !next)
			return 0;
		if (redirects == REDIRECTS_MAX || t->form)
			return error_set(err, -ELOOP, "%s: %s: %s", t->what, t->host,
				t->form ? "redirects a login" : "too many redirects");
		int rc = redirect_check(t, url, next, err);
		if (rc < 0)
			return rc;
		with_authorization = with_authorization && same_origin(url, next);
		char *copy = strdup(next);
		free(url);
		url = copy;
	}
	*cost = 0;
	return error_set(err, -ENOMEM, "%s: out of memory", t->what);
}

static bool status_may_pass(long status)
{
	return status == 408 || status == 429 || (status >= 500 && status != 501);
}

/** Tell the user, then wait: what Retry-After asks, or base * 2^n, of which the upper half is random. */
static int back_off(struct registry *registry, struct transfer *t, int n, const char *why, struct husk_error *err)
{
	uint64_t ms = (uint64_t)registry->options.retry_base_ms << (n < 10 ? n : 10);
	uint32_t noise = 0;
	if (ms > BACKOFF_MAX_MS)
		ms = BACKOFF_MAX_MS;
	if (getrandom(&noise, sizeof(noise), GRND_NONBLOCK) != sizeof(noise))
		noise = 0;
	ms = ms / 2 + noise % (ms / 2 + 1);
	uint64_t asked = (uint64_t)(t->retry_after < RETRY_AFTER_MAX_S ? t->retry_after : RETRY_AFTER_MAX_S) * 1000;
	if (asked > ms)
		ms = asked;
	if (registry->options.notice) {
		char text[HUSK_ERROR_MESSAGE_MAX + 64];
		snprintf(text, sizeof(text), "%s; trying again in %.1f s", why, (double)ms / 1000);
		registry->options.notice(registry->options.notice_data, text);
	}
	return registry_wait(registry, ms) < 0 ? error_set(err, -EINTR, "%s: cancelled", t->what) : 0;
}

int transfer_run(struct registry *registry, struct transfer *t, struct husk_error *err)
{
	CURL *curl = handle_get(registry);
	if (!curl)
		return error_set(err, -ENOMEM, "%s: out of memory", t->what);
	int spent = 0, retries = 0, rc;
	for (;;) {
		struct husk_error why = {0};
		int cost = 0;
		uint64_t before = t->total;
		rc = t->ops->prepare(t, &why);
		if (rc == 0)
			rc = attempt(registry, t, curl, &cost, &why);
		if (rc == 0 && status_may_pass(t->status)) {
			cost = 1;
			error_set(&why, -EAGAIN, "%s: %s answered HTTP %ld", t->what, t->host, t->status);
		}
		if (t->total - before >= FAIR_PROGRESS)
			spent = retries = 0;
		spent += cost;
		if (cost == 0 || spent >= BUDGET || (t->undecided && t->spoke_no_http)) {
			if (rc < 0)
				error_set(err, rc, "%s", why.message);
			break;
		}
		rc = back_off(registry, t, retries++, why.message, err);
		if (rc < 0)
			break;
	}
	handle_put(registry, curl);
	return rc;
}

bool transfer_probe_tls(struct registry *registry, const char *host)
{
	CLEANUP_FREE char *url = path_format("https://%s/", host);
	CURL *curl = url ? handle_get(registry) : NULL;
	if (!curl)
		return false;
	set_common(registry, curl, url);
	curl_easy_setopt(curl, CURLOPT_CONNECT_ONLY, 1L);
	curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 0L); /* nothing is sent: only whether it speaks TLS */
	curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 0L);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, TLS_PROBE_MS);
	CURLcode code = curl_easy_perform(curl);
	curl_easy_cleanup(curl); /* its connection was not verified: not for the pool */
	return code == CURLE_OK;
}
