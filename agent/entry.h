/* SPDX-License-Identifier: Apache-2.0 */
/* entry.h - a thing of a tree as its sender sees it, on either side: from stat(2) to an entry, and names that are one thing */
#ifndef AGENT_ENTRY_H
#define AGENT_ENTRY_H

#include "agent/protocol.h"

#include <sys/stat.h>

/** Fill @entry from @st; its name stays, its link becomes "". */
void agent_entry_describe(struct agent_entry *entry, const struct stat *st);

/** The things with several names that were sent, by device and inode. Zeroes at first. */
struct agent_links {
	void *known; /* of tsearch(3) */
};

/** Has what @st is of been met under another name? 1: @entry is a hard link to that now; 0: no, and it is remembered by the
 *  entry's name; -ENOMEM. Neither directories nor the root are ever linked. */
int agent_links_meet(struct agent_links *links, struct agent_entry *entry, const struct stat *st);
void agent_links_free(struct agent_links *links);

#endif
