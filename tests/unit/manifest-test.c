/* SPDX-License-Identifier: Apache-2.0 */
/* manifest-test.c - manifests, indexes and configs: what is chosen, and that nonsense is refused */
#include "image/manifest.h"

#include "tests/tap.h"

#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde"
#define D0 "sha256:" HEX "0"
#define D1 "sha256:" HEX "1"
#define D2 "sha256:" HEX "2"

static json_t *parse(const char *text)
{
	json_t *json = NULL;
	json_read(text, strlen(text), false, "test", &json, NULL);
	return json;
}

/** The digest's last digit that index @text gives for @platform, or '-' for an error. */
static char select_from(const char *text, const char *platform, const char *tag)
{
	struct platform want;
	struct descriptor out;
	struct husk_error err = {0};
	CLEANUP_JSON json_t *json = parse(text);
	if (!json || platform_parse(platform, &want, &err) < 0 ||
		manifest_select(json, &want, tag, "test", &out, &err) < 0)
		return '-';
	return out.digest[70];
}

#define ENTRY(digest, os, arch, variant)                                                                               \
	"{\"digest\":\"" digest "\",\"size\":1,\"platform\":{\"os\":\"" os "\",\"architecture\":\"" arch               \
	"\",\"variant\":\"" variant "\"}}"

static void test_select(void)
{
	static const char arms[] = "{\"manifests\":[" ENTRY(D0, "linux", "arm", "v5") "," ENTRY(
		D1, "linux", "arm", "v7") "," ENTRY(D2, "linux", "amd64", "") "]}";
	CHECK(select_from(arms, "linux/arm/v7", NULL) == '1', "arm/v7 gets v7");
	CHECK(select_from(arms, "linux/arm", NULL) == '1', "arm means v7");
	CHECK(select_from(arms, "linux/arm/v6", NULL) == '0', "arm/v6 runs v5 and never v7");
	CHECK(select_from(arms, "linux/arm64", NULL) == '1', "arm64 runs arm where there is no arm64");
	CHECK(select_from(arms, "linux/amd64/v3", NULL) == '2', "amd64/v3 runs amd64");
	CHECK(select_from(arms, "x86_64", NULL) == '2', "x86_64 is linux/amd64");
	CHECK(select_from(arms, "linux/s390x", NULL) == '-', "no image for another architecture");
	CHECK(select_from(arms, "windows/amd64", NULL) == '-', "no image for another system");
	static const char arm64[] = "{\"manifests\":[" ENTRY(D0, "linux", "arm", "v8") "," ENTRY(
		D1, "linux", "arm64", "v8") "," ENTRY(D2, "unknown", "unknown", "") "]}";
	CHECK(select_from(arm64, "linux/arm64", NULL) == '1', "arm64 is arm64/v8, and better than arm");
	CHECK(select_from(arm64, "linux/amd64", NULL) == '-', "an attestation is no image");
	static const char tags[] = "{\"manifests\":[{\"digest\":\"" D0 "\",\"size\":1,\"annotations\":"
				   "{\"org.opencontainers.image.ref.name\":\"a\"}},{\"digest\":\"" D1 "\",\"size\":1,"
				   "\"annotations\":{\"org.opencontainers.image.ref.name\":\"b\"}}]}";
	CHECK(select_from(tags, NULL, "b") == '1', "a tag picks its entry");
	CHECK(select_from(tags, NULL, "c") == '-', "an unknown tag picks none");
	CHECK(select_from("{\"manifests\":[{\"digest\":\"sha512:00\",\"size\":1}]}", NULL, NULL) == '-', "no sha512");
	CHECK(select_from("{\"manifests\":[7]}", NULL, NULL) == '-', "an entry must be an object");
	CHECK(select_from("{}", NULL, NULL) == '-', "an index without entries");
}

static int parse_manifest(const char *text)
{
	struct image_plan plan = {0};
	struct descriptor config;
	struct husk_error err = {0};
	CLEANUP_JSON json_t *json = parse(text);
	int rc = json ? manifest_parse(json, "test", &plan, &config, &err) : -EBADMSG;
	image_plan_free(&plan);
	return rc;
}

#define CONFIG "\"config\":{\"digest\":\"" D0 "\",\"size\":2}"
#define LAYERS "\"layers\":[{\"digest\":\"" D1 "\",\"size\":3}]"

static void test_manifest(void)
{
	CHECK(parse_manifest("{\"schemaVersion\":2," CONFIG "," LAYERS "}") == 0, "a manifest");
	CHECK(parse_manifest("{\"schemaVersion\":1," CONFIG "," LAYERS "}") < 0, "schema 1 is refused");
	CHECK(parse_manifest("{\"schemaVersion\":2," LAYERS "}") < 0, "no config");
	CHECK(parse_manifest("{\"schemaVersion\":2," CONFIG "}") < 0, "no layers");
	CHECK(parse_manifest("{\"schemaVersion\":2," CONFIG ",\"layers\":{}}") < 0, "layers that are no array");
	CHECK(parse_manifest("{\"schemaVersion\":2," CONFIG ",\"layers\":[{\"digest\":\"" D1 "\",\"size\":1e9}]}") < 0,
		"a size that is no whole number");
	CHECK(parse_manifest("{\"schemaVersion\":2," CONFIG ",\"layers\":[{\"digest\":\"" D1
			     "\",\"size\":9223372036854775807}]}") < 0,
		"a size beyond reason");
}

static int parse_config(const char *text, struct platform *platform, char **created)
{
	struct image_plan plan = {.n_layers = 1};
	struct husk_error err = {0};
	struct platform fallback;
	CLEANUP_JSON json_t *record = NULL;
	platform_set(&fallback, "linux", "riscv64", NULL);
	plan.layers = calloc(1, sizeof(*plan.layers));
	buffer_append(&plan.config, text, strlen(text));
	int rc = config_parse(&plan, &fallback, "test", &err);
	*platform = plan.platform;
	*created = NULL;
	if (rc == 0)
		rc = config_record(&plan, &record, created, &err);
	if (rc == 0)
		CHECK_STRING(json_string_value(json_array_get(json_object_get(record, "volumes"), 0)), "/v",
			"volumes become a list");
	image_plan_free(&plan);
	return rc;
}

#define ROOTFS "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"" D1 "\"]}"

static void test_config(void)
{
	struct platform platform;
	char *created;
	CHECK(parse_config("{\"architecture\":\"arm64\",\"os\":\"linux\",\"created\":\"2020-01-01T00:00:00Z\"," ROOTFS
			   ",\"config\":{\"Env\":null,\"Volumes\":{\"/v\":{}}}}",
		      &platform, &created) == 0,
		"a config");
	CHECK_STRING(created, "2020-01-01T00:00:00Z", "its time of creation");
	CHECK_STRING(platform.architecture, "arm64", "its architecture");
	free(created);
	CHECK(parse_config("{" ROOTFS ",\"config\":{\"Volumes\":{\"/v\":{}}}}", &platform, &created) == 0 &&
			strcmp(platform.architecture, "riscv64") == 0,
		"without an architecture it is the one asked for");
	free(created);
	static const char *const bad[] = {"{}", "{" ROOTFS ",\"config\":[]}", "{" ROOTFS ",\"os\":7}",
		"{" ROOTFS ",\"config\":{\"Cmd\":\"sh\"}}", "{" ROOTFS ",\"config\":{\"Volumes\":[\"/v\"]}}",
		"{\"rootfs\":{\"diff_ids\":[]}}", "{\"rootfs\":{\"diff_ids\":[\"x\"]}}",
		"{\"rootfs\":{\"diff_ids\":[7]}}"};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		CHECK(parse_config(bad[i], &platform, &created) < 0, bad[i]);
		free(created);
	}
}

static void test_json(void)
{
	static const char *const bad[] = {"", "null", "[]", "{", "{} x", "{\"a\":1,\"a\":2}", "{\"a\":\"\\u0000\"}",
		"{\"a\":\"\xff\"}", "\"{}\""};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		CLEANUP_JSON json_t *json = parse(bad[i]);
		CHECK(!json, bad[i][0] ? "nonsense is no document" : "nothing is no document");
	}
	char deep[2 * JSON_DEPTH_MAX + 64] = "{\"a\":";
	memset(deep + 5, '[', JSON_DEPTH_MAX + 1);
	struct husk_error err = {0};
	json_t *json = NULL;
	CHECK(json_read(deep, strlen(deep), false, "test", &json, &err) == -EFBIG,
		"too deep is refused before parsing");
	static char many[2 * JSON_VALUES_MAX + 64];
	memset(many, ',', sizeof(many) - 1);
	CHECK(json_read(many, sizeof(many) - 1, false, "test", &json, &err) == -EFBIG, "so are too many values");
}

int main(void)
{
	test_select();
	test_manifest();
	test_config();
	test_json();
	return tap_done();
}
