/* SPDX-License-Identifier: Apache-2.0 */
/* vm_filter.c - which VMs `ps` shows */
#include "cli/vm_filter.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/parse.h"

#include <string.h>

/* ---- reading ---- */

static int read_status(struct husk *husk, struct vm_filter *f, struct husk_error *err)
{
	static const char *const states[] = {
		"creating", "created", "starting", "running", "paused", "stopped", "exited", "error"};

	for (size_t i = 0; i < ARRAY_SIZE(states); i++)
		if (strcmp(f->value, states[i]) == 0)
			return 0;
	return error_set(err, -EINVAL,
		"--filter status=%s: there is no such state; creating, created, starting, running, paused, stopped, "
		"exited "
		"and error are",
		f->value);
}

static int read_ancestor(struct husk *husk, struct vm_filter *f, struct husk_error *err)
{
	CLEANUP_FREE char *text = NULL;

	/* An image that is no more may still be what a VM was made from, so its name alone counts, too. */
	if (!husk || husk_image_inspect(husk, f->value, &text, NULL) < 0)
		return 0;
	struct skim id = {.key = "id"};
	skim_object(text, strlen(text), &id, 1);
	f->image = skim_string(&id);
	return f->image ? 0 : error_set(err, -ENOMEM, "--filter: out of memory");
}

static int read_exited(struct husk *husk, struct vm_filter *f, struct husk_error *err)
{
	uint64_t status;
	int rc = parse_number(f->value, "--filter exited", 0, 255, &status, err);

	while (rc == 0 && f->value[0] == '0' && f->value[1])
		f->value++;
	return rc;
}

/* ---- matching ---- */

static bool match_status(const struct vm_filter *f, const struct vm_row *vm)
{
	return skim_is(&vm->member[VM_STATE], strcmp(f->value, "exited") == 0 ? "stopped" : f->value);
}

static bool match_name(const struct vm_filter *f, const struct vm_row *vm)
{
	CLEANUP_FREE char *name = vm_row_text(vm, VM_NAME);
	return name && *name && strstr(name, f->value);
}

static bool match_id(const struct vm_filter *f, const struct vm_row *vm)
{
	CLEANUP_FREE char *id = vm_row_text(vm, VM_ID);
	return id && strncmp(id, f->value, strlen(f->value)) == 0;
}

/** @id begins with @text, with or without its "sha256:". */
static bool id_begins(const char *id, const char *text)
{
	const char *digits = strchr(id, ':');
	size_t prefix = digits ? (size_t)(digits + 1 - id) : 0, n = strlen(text);

	if (prefix && strncmp(text, id, prefix) == 0)
		return n > prefix && strncmp(id, text, n) == 0;
	return n >= 3 && strncmp(id + prefix, text, n) == 0;
}

static bool match_ancestor(const struct vm_filter *f, const struct vm_row *vm)
{
	CLEANUP_FREE char *id = vm_row_text(vm, VM_IMAGE_ID);
	CLEANUP_FREE char *image = vm_row_text(vm, VM_IMAGE);
	return id && image &&
	       (strcmp(image, f->value) == 0 || (f->image && *id && strcmp(id, f->image) == 0) ||
		       id_begins(id, f->value));
}

static bool match_exited(const struct vm_filter *f, const struct vm_row *vm)
{
	const struct skim *code = &vm->member[VM_EXIT_CODE];
	return skim_is(&vm->member[VM_STATE], "stopped") && code->n == strlen(f->value) &&
	       memcmp(code->text, f->value, code->n) == 0;
}

static const struct {
	const char *name;
	int (*read)(struct husk *husk, struct vm_filter *f, struct husk_error *err);
	bool (*match)(const struct vm_filter *f, const struct vm_row *vm);
} kinds[VM_FILTER_KEYS] = {
	[VM_FILTER_STATUS] = {"status", read_status, match_status},
	[VM_FILTER_NAME] = {"name", NULL, match_name},
	[VM_FILTER_ID] = {"id", NULL, match_id},
	[VM_FILTER_ANCESTOR] = {"ancestor", read_ancestor, match_ancestor},
	[VM_FILTER_EXITED] = {"exited", read_exited, match_exited},
};

int vm_filter_read(struct husk *husk, const char *text, struct vm_filter *out, struct husk_error *err)
{
	const char *equals = strchr(text, '=');

	for (size_t i = 0; equals && i < ARRAY_SIZE(kinds); i++) {
		size_t n = strlen(kinds[i].name);
		if (n != (size_t)(equals - text) || memcmp(text, kinds[i].name, n) != 0)
			continue;
		*out = (struct vm_filter){.key = (enum vm_filter_key)i, .value = equals + 1};
		if (!*out->value)
			return error_set(err, -EINVAL, "--filter '%s': the value is missing", text);
		return kinds[i].read ? kinds[i].read(husk, out, err) : 0;
	}
	return error_set(
		err, -EINVAL, "--filter '%s': write status=, name=, id=, ancestor= or exited= and a value", text);
}

bool vm_filter_match(const struct vm_filter *filters, size_t n, const struct vm_row *vm)
{
	bool asked[VM_FILTER_KEYS] = {0}, fits[VM_FILTER_KEYS] = {0};

	for (size_t i = 0; i < n; i++) {
		enum vm_filter_key key = filters[i].key;
		asked[key] = true;
		fits[key] = fits[key] || kinds[key].match(&filters[i], vm);
	}
	return memcmp(asked, fits, sizeof(asked)) == 0;
}

bool vm_filter_wants_ended(const struct vm_filter *filters, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (filters[i].key == VM_FILTER_STATUS || filters[i].key == VM_FILTER_EXITED)
			return true;
	return false;
}
