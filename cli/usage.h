/* SPDX-License-Identifier: Apache-2.0 */
/* usage.h - what `husk stats` shows: the objects of husk_stats(), as tables and in Prometheus's text format */
#ifndef CLI_USAGE_H
#define CLI_USAGE_H

#include "cli/cli.h"

#include <jansson.h>

/** What each VM uses; CPU in percent since @before, an earlier sample @interval_ns ago (NULL: not known yet). */
bool usage_print_table(const json_t *vms, const json_t *before, uint64_t interval_ns);
/** What went through the doors of each. */
void usage_print_doors(const json_t *vms);
/** As a scraper reads it: https://prometheus.io/docs/instrumenting/exposition_formats/, text, version 0.0.4. */
void usage_print_prometheus(const json_t *vms);

/** A number at "key" or "key.key" of @json; 0 when there is none. */
uint64_t usage_number(const json_t *json, const char *path);

#endif
