/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox.c - call the functions of a program that runs in a sandbox, answer its questions, and put it back when it has crashed
 *
 *	cc sandbox.c $(pkg-config --cflags --libs husk) && ./a.out sandbox_guest.elf
 */
#include <errno.h>
#include <husk.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define I32(n) ((struct husk_sandbox_value){.type = HUSK_SANDBOX_I32, .i32 = (n)})
#define U64(n) ((struct husk_sandbox_value){.type = HUSK_SANDBOX_U64, .u64 = (n)})
#define STRING(s) ((struct husk_sandbox_value){.type = HUSK_SANDBOX_STRING, .bytes = {(s), strlen(s)}})

/** What the guest may ask. */
static int capital_of(void *data, const struct husk_sandbox_value *args, size_t n, struct husk_sandbox_value *result,
	struct husk_error *err)
{
	static const char *const known[][2] = {{"France", "Paris"}, {"Kenya", "Nairobi"}, {"Peru", "Lima"}};

	(void)data;
	(void)n; /* the library has checked number and types */
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strcmp(args[0].bytes.data, known[i][0]) == 0) {
			*result = STRING(known[i][1]);
			return 0;
		}
	snprintf(err->message, sizeof(err->message), "it is not in the atlas");
	return -ENOENT;
}

static void print(void *data, const char *text, size_t n)
{
	(void)data;
	printf("the guest says: %.*s", (int)n, text);
}

/** A sandbox that is ready. */
static int start(struct husk_sandbox_image *image, struct husk_sandbox **sandbox, struct husk_error *err)
{
	static const enum husk_sandbox_type one_string[] = {HUSK_SANDBOX_STRING};
	const struct husk_sandbox_signature signature = {.size = sizeof(signature),
		.name = "capital_of",
		.result = HUSK_SANDBOX_STRING,
		.args = one_string,
		.n_args = 1};
	struct husk_sandbox_config config;

	husk_sandbox_config_init(&config);
	config.print = print;
	int rc = husk_sandbox_create(image, &config, sandbox, err);
	if (rc == 0)
		rc = husk_sandbox_add_function(*sandbox, &signature, capital_of, NULL, err);
	return rc < 0 ? rc : husk_sandbox_start(*sandbox, err);
}

/** Call, say what came of it, and give back the call's own return value. */
static int show(struct husk_sandbox *sandbox, const char *name, const struct husk_sandbox_value *args, size_t n)
{
	struct husk_sandbox_call_options options;
	struct husk_sandbox_value result = {0};
	struct husk_error err;

	husk_sandbox_call_options_init(&options);
	options.deadline_ns = 1000000000;
	int rc = husk_sandbox_call(sandbox, name, args, n, &result, &options, &err);
	if (rc < 0)
		printf("%s: %s\n", name, err.message);
	else if (result.type == HUSK_SANDBOX_STRING)
		printf("%s: %s\n", name, (const char *)result.bytes.data);
	else
		printf("%s: %" PRId32 "\n", name, result.i32);
	husk_sandbox_value_clear(&result);
	return rc;
}

static int play(struct husk_sandbox *sandbox, struct husk_sandbox_snapshot **clean, struct husk_error *err)
{
	int rc = husk_sandbox_snapshot(sandbox, clean, err);

	if (rc < 0)
		return rc;
	show(sandbox, "add", (struct husk_sandbox_value[]){I32(2), I32(40)}, 2);
	show(sandbox, "describe", &STRING("Peru"), 1);
	show(sandbox, "describe", &STRING("Atlantis"), 1); /* an error of the guest's: the sandbox stays usable */
	show(sandbox, "count", NULL, 0);
	show(sandbox, "count", NULL, 0);
	if (show(sandbox, "crash", &U64(0), 1) == 0) /* a fault: it is poisoned */
		printf("it should have crashed\n");
	show(sandbox, "count", NULL, 0); /* so this is refused */
	rc = husk_sandbox_restore(sandbox, *clean, err); /* as it was at the snapshot */
	return rc < 0 ? rc : show(sandbox, "count", NULL, 0);
}

int main(int argc, char **argv)
{
	struct husk_sandbox_image *image = NULL;
	struct husk_sandbox *sandbox = NULL;
	struct husk_sandbox_snapshot *clean = NULL;
	struct husk_error err = {0};

	if (argc != 2) {
		fprintf(stderr, "usage: %s sandbox_guest.elf\n", argv[0]);
		return 2;
	}
	int rc = husk_sandbox_image_load(argv[1], &image, &err);
	if (rc == 0)
		rc = start(image, &sandbox, &err);
	if (rc == 0)
		rc = play(sandbox, &clean, &err);
	if (rc < 0)
		fprintf(stderr, "sandbox: %s\n", err.message);
	husk_sandbox_free(sandbox);
	husk_sandbox_snapshot_free(clean);
	husk_sandbox_image_free(image);
	return rc < 0;
}
