/* SPDX-License-Identifier: Apache-2.0 */
/* events.h - read the events of a home, and follow them */
#ifndef ENGINE_EVENTS_H
#define ENGINE_EVENTS_H

#include "engine/engine.h"

/** The options' defaults. */
struct husk_event_options events_defaults(void);
/** As husk_events(); @options are of this build's own size. */
int events_read(const struct husk *husk, const struct husk_event_options *options, husk_event_fn *fn, void *data,
	struct husk_error *err);

#endif
