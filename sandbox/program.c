/* SPDX-License-Identifier: Apache-2.0 */
/*
 * program.c - exports and imports of a program
 *
 * Theory of operation: a note says where the two tables are. All that is read here (note, tables, names) is read from the
 * relocated memory, because names are addresses, and has to lie in segments that the program cannot write, so that what the
 * host has read is what the guest sees for ever.
 */
#include "sandbox/program.h"

#include "base/cleanup.h"
#include "sandbox/layout.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct source {
	const struct elf *elf;
	const uint8_t *memory;
};

/** One of the two tables. */
struct table {
	const char *what; /* its entries are, for messages */
	uint64_t at, size; /* vaddr */
	size_t entry_size;
	bool exports;
};

/** Copy @n constant bytes at @vaddr. */
static bool take(const struct source *source, uint64_t vaddr, void *to, size_t n)
{
	if (elf_constant(source->elf, vaddr) < n)
		return false;
	memcpy(to, source->memory + vaddr, n);
	return true;
}

static int read_name(const struct source *source, const struct table *table, unsigned i, uint64_t name, char *to,
	struct husk_error *err)
{
	uint64_t vaddr = name - SANDBOX_PROGRAM;
	uint64_t room = elf_constant(source->elf, vaddr);

	if (room == 0)
		return error_set(err, -ENOEXEC, "the name of %s %u is not among its constants (%#" PRIx64 ")",
			table->what, i, name);
	if (room > SANDBOX_NAME_MAX + 1)
		room = SANDBOX_NAME_MAX + 1;
	const char *text = (const char *)source->memory + vaddr;
	if (!signature_name_fits(text, room))
		return error_set(err, -ENOEXEC, "the name of %s %u is no C identifier of at most %d bytes", table->what,
			i, SANDBOX_NAME_MAX);
	memcpy(to, text, strlen(text) + 1);
	return 0;
}

static int read_entry(const struct source *source, const struct table *table, unsigned i, struct signature *out,
	struct husk_error *err)
{
	struct sandbox_export entry = {0};
	const uint64_t at = table->at + i * table->entry_size;

	if (table->exports) {
		if (!take(source, at, &entry, sizeof(entry)))
			return error_set(err, -ENOEXEC, "%s %u is not among its constants", table->what, i);
	} else {
		struct sandbox_import import;
		if (!take(source, at, &import, sizeof(import)))
			return error_set(err, -ENOEXEC, "%s %u is not among its constants", table->what, i);
		entry = (struct sandbox_export){.name = import.name, .result = import.result, .n_args = import.n_args};
		memcpy(entry.args, import.args, sizeof(entry.args));
	}
	int rc = read_name(source, table, i, entry.name, out->name, err);
	if (rc < 0)
		return rc;
	if (table->exports && !elf_is_code(source->elf, entry.thunk - SANDBOX_PROGRAM))
		return error_set(
			err, -ENOEXEC, "%s '%s' is not in code (%#" PRIx64 ")", table->what, out->name, entry.thunk);
	if (entry.result >= SANDBOX_TYPES)
		return error_set(err, -ENOEXEC, "%s '%s' has a result of an unknown type (%u)", table->what, out->name,
			entry.result);
	if (entry.n_args > SANDBOX_ARGS_MAX)
		return error_set(err, -ENOEXEC, "%s '%s' has %u arguments; %d are the most", table->what, out->name,
			entry.n_args, SANDBOX_ARGS_MAX);
	for (unsigned k = 0; k < entry.n_args; k++) {
		if (entry.args[k] == SANDBOX_VOID || entry.args[k] >= SANDBOX_TYPES)
			return error_set(err, -ENOEXEC, "%s '%s' has an argument (%u) of an unknown type (%u)",
				table->what, out->name, k + 1, entry.args[k]);
		out->args[k] = (enum husk_sandbox_type)entry.args[k];
	}
	out->result = (enum husk_sandbox_type)entry.result;
	out->n_args = entry.n_args;
	return 0;
}

static int compare_names(const void *a, const void *b, void *signatures)
{
	const struct signature *list = signatures;

	return strcmp(list[*(const unsigned *)a].name, list[*(const unsigned *)b].name);
}

/** *@out: the numbers of @list, sorted by name; -ENOEXEC when two have the same. */
static int sort_names(
	const struct table *table, struct signature *list, unsigned n, unsigned **out, struct husk_error *err)
{
	CLEANUP_FREE unsigned *order = calloc(n ? n : 1, sizeof(*order));

	if (!order)
		return error_set(err, -ENOMEM, "no memory for the names of %u functions", n);
	for (unsigned i = 0; i < n; i++)
		order[i] = i;
	qsort_r(order, n, sizeof(*order), compare_names, list);
	for (unsigned i = 1; i < n; i++)
		if (strcmp(list[order[i - 1]].name, list[order[i]].name) == 0)
			return error_set(err, -ENOEXEC, "%s '%s' is there twice", table->what, list[order[i]].name);
	*out = steal_pointer(&order);
	return 0;
}

static int read_table(const struct source *source, const struct table *table, struct signature **list, unsigned *n,
	unsigned **by_name, struct husk_error *err)
{
	const uint64_t count = table->size / table->entry_size;

	if (table->size % table->entry_size || count > SANDBOX_FUNCTIONS_MAX)
		return error_set(err, -ENOEXEC,
			"its table of %ss has %" PRIu64 " bytes; whole entries of %zu and at most %d are possible",
			table->what, table->size, table->entry_size, SANDBOX_FUNCTIONS_MAX);
	*list = calloc(count ? count : 1, sizeof(**list));
	if (!*list)
		return error_set(err, -ENOMEM, "no memory for %" PRIu64 " functions", count);
	*n = (unsigned)count;
	for (unsigned i = 0; i < *n; i++) {
		int rc = read_entry(source, table, i, &(*list)[i], err);
		if (rc < 0)
			return rc;
	}
	return sort_names(table, *list, *n, by_name, err);
}

/** print is the library's own, so its signature is fixed. */
static int check_print(const struct husk_sandbox_image *image, struct husk_error *err)
{
	static const struct signature print = {
		.name = "print", .result = HUSK_SANDBOX_VOID, .n_args = 1, .args = {HUSK_SANDBOX_STRING}};

	for (unsigned i = 0; i < image->n_imports; i++)
		if (strcmp(image->imports[i].name, print.name) == 0 && !signature_equal(&image->imports[i], &print))
			return error_set(err, -ENOEXEC,
				"import 'print' is not `void print(string)`, as which every host has it");
	return 0;
}

int program_read(const struct elf *elf, const uint8_t *memory, struct husk_sandbox_image *image, struct husk_error *err)
{
	const struct source source = {.elf = elf, .memory = memory};
	struct sandbox_program program;
	uint64_t at = 0, size = 0;
	CLEANUP_FREE unsigned *unused = NULL;

	int rc = elf_find_note(elf, SANDBOX_NOTE_NAME, SANDBOX_NOTE_TYPE, &at, &size, err);
	if (rc < 0)
		return rc;
	if (size < sizeof(program) || !take(&source, at, &program, sizeof(program)) || program.size < sizeof(program) ||
		program.size > size)
		return error_set(
			err, -ENOEXEC, "its note of husk's is not constant, or too short (%" PRIu64 " bytes)", size);
	if (program.protocol != SANDBOX_PROTOCOL)
		return error_set(err, -ENOEXEC,
			"it speaks version %u of the protocol and this husk %d: link it again with this husk's runtime",
			program.protocol, SANDBOX_PROTOCOL);
	if (program.exports_end < program.exports || program.imports_end < program.imports)
		return error_set(err, -ENOEXEC, "its tables of functions end before they begin");
	const struct table exports = {.what = "export",
		.at = at + (uint64_t)program.exports,
		.size = (uint64_t)program.exports_end - (uint64_t)program.exports,
		.entry_size = sizeof(struct sandbox_export),
		.exports = true};
	const struct table imports = {.what = "import",
		.at = at + (uint64_t)program.imports,
		.size = (uint64_t)program.imports_end - (uint64_t)program.imports,
		.entry_size = sizeof(struct sandbox_import)};
	rc = read_table(&source, &exports, &image->exports, &image->n_exports, &image->by_name, err);
	if (rc == 0)
		rc = read_table(&source, &imports, &image->imports, &image->n_imports, &unused, err);
	return rc < 0 ? rc : check_print(image, err);
}
