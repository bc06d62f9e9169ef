/* SPDX-License-Identifier: Apache-2.0 */
/* doctor.c - husk doctor: what this machine can do, and why */
#include "base/cleanup.h"
#include "cli/verbs.h"

#include <jansson.h>
#include <string.h>

static const char *const status_names[] = {
	[HUSK_FINDING_OK] = "ok",
	[HUSK_FINDING_NOTE] = "note",
	[HUSK_FINDING_WARNING] = "warning",
	[HUSK_FINDING_ERROR] = "error",
};

static void print_json(const struct husk_finding *findings, size_t n)
{
	json_t *array = json_array();
	for (size_t i = 0; i < n; i++) {
		json_t *remedy = findings[i].remedy ? json_string(findings[i].remedy) : json_null();
		json_array_append_new(
			array, json_pack("{s:s, s:s, s:s, s:o}", "status", status_names[findings[i].status], "topic",
				       findings[i].topic, "message", findings[i].message, "remedy", remedy));
	}
	json_dumpf(array, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	putchar('\n');
	json_decref(array);
}

static void print_text(const struct husk_finding *findings, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		printf("%-8s %-10s %s\n", status_names[findings[i].status], findings[i].topic, findings[i].message);
		if (findings[i].remedy)
			printf("%-8s %-10s -> %s\n", "", "", findings[i].remedy);
	}
}

static size_t count_errors(const struct husk_finding *findings, size_t n)
{
	size_t bad = 0;
	for (size_t i = 0; i < n; i++)
		bad += findings[i].status == HUSK_FINDING_ERROR;
	return bad;
}

int verb_doctor(struct cli *cli)
{
	struct husk_error open_error, err;
	CLEANUP_FREE struct husk_finding *findings = NULL;
	CLEANUP_FREE struct husk_finding *tried = NULL;
	const char *format = cli_value(cli, "format");
	void (*print)(const struct husk_finding *, size_t) =
		format && strcmp(format, "json") == 0 ? print_json : print_text;
	size_t n, n_tried = 0;
	bool opened = cli_open(cli, &open_error) == 0;
	if (husk_doctor(cli->husk, opened ? NULL : &open_error, &findings, &n, &err) < 0)
		return cli_fail(&err, 1);
	size_t bad = count_errors(findings, n);
	if (cli_flag(cli, "selftest") && !bad) {
		if (print == print_text)
			fputs("booting a guest on each machine…\n", stderr);
		if (husk_selftest(cli->husk, &tried, &n_tried, &err) < 0)
			return cli_fail(&err, 1);
		bad = count_errors(tried, n_tried);
	}
	struct husk_finding all[n + n_tried];
	memcpy(all, findings, n * sizeof(all[0]));
	if (n_tried)
		memcpy(all + n, tried, n_tried * sizeof(all[0]));
	print(all, n + n_tried);
	if (print == print_text)
		puts(bad ? "\nhusk cannot run VMs here until the errors above are cured." : "\nhusk can run VMs here.");
	return bad ? 1 : 0;
}
