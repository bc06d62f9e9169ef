/* SPDX-License-Identifier: Apache-2.0 */
/*
 * region.c - memory that host and guest share by name and offset
 *
 * Theory of operation: a region is an area (area.h) with a name and the rights that the caller gave. Its number counts regions
 * in the order of adding. What the host does with it goes through the area's own checks of rights and bounds.
 */
#include "sandbox/access.h"

#include <inttypes.h>
#include <string.h>

#define ALL_RIGHTS (HUSK_SANDBOX_HOST_R | HUSK_SANDBOX_HOST_W | HUSK_SANDBOX_GUEST_R | HUSK_SANDBOX_GUEST_W)

static int check_region(const char *name, uint64_t bytes, unsigned rights, struct husk_error *err)
{
	if (!bytes || bytes % SANDBOX_PAGE || bytes > REGION_BYTES_MAX)
		return error_set(err, -EINVAL,
			"region '%s': 0x%" PRIx64 " bytes are not whole pages of %llu, up to 0x%llx", name, bytes,
			SANDBOX_PAGE, REGION_BYTES_MAX);
	if (rights & ~(unsigned)ALL_RIGHTS)
		return error_set(err, -EINVAL, "region '%s': 0x%x is no set of rights", name, rights);
	if ((rights & HUSK_SANDBOX_GUEST_W) && !(rights & HUSK_SANDBOX_GUEST_R))
		return error_set(
			err, -EINVAL, "region '%s': what the guest can write (GUEST_W) it can read (GUEST_R)", name);
	return 0;
}

/** Can a region be at @gpa, which the caller chose? Whether it overlaps another area is for areas_add(). */
static int check_place(
	const struct husk_sandbox *sandbox, const char *name, uint64_t bytes, uint64_t gpa, struct husk_error *err)
{
	if (gpa % SANDBOX_PAGE || gpa >= SANDBOX_ADDRESS_MAX || bytes > SANDBOX_ADDRESS_MAX - gpa)
		return error_set(err, -EINVAL,
			"region '%s' cannot be at 0x%" PRIx64
			", which is not the start of a page, or ends above 0x%llx",
			name, gpa, SANDBOX_ADDRESS_MAX);
	if (places_reserved(&sandbox->places, gpa, bytes))
		return error_set(err, -EEXIST,
			"region '%s' cannot be at 0x%" PRIx64 ": from 0x%llx to 0x%" PRIx64 " all is the library's",
			name, gpa, SANDBOX_SUPPORT, sandbox->places.end);
	return 0;
}

static int add_region(struct husk_sandbox *sandbox, const char *name, uint64_t bytes, unsigned rights, uint64_t gpa,
	unsigned *region, struct husk_error *err)
{
	struct areas *areas = &sandbox->areas;
	unsigned at;
	int rc = access_name(sandbox, name, err);

	rc = rc < 0 ? rc : check_region(name, bytes, rights, err);
	if (rc < 0)
		return rc;
	if (gpa == HUSK_SANDBOX_ANYWHERE) {
		gpa = areas_place(areas, bytes);
		if (!gpa)
			return error_set(err, -ENOSPC, "region '%s': no place for 0x%" PRIx64 " bytes", name, bytes);
	} else {
		rc = check_place(sandbox, name, bytes, gpa, err);
	}
	rc = rc < 0 ? rc : areas_add(areas, AREA_REGION, rights, gpa, bytes, -1, 0, &at, err);
	if (rc < 0)
		return rc;
	memcpy(areas->list[at].name, name, strlen(name));
	if (region)
		*region = areas->n_regions - 1;
	return 0;
}

int husk_sandbox_add_region(struct husk_sandbox *sandbox, const char *name, uint64_t bytes, unsigned rights,
	uint64_t gpa, unsigned *region, struct husk_error *err)
{
	int rc = access_add_begin(sandbox, "add a region", err);

	if (rc < 0)
		return rc;
	rc = add_region(sandbox, name, bytes, rights, gpa, region, err);
	access_add_end(sandbox);
	return rc;
}

int husk_sandbox_find_region(struct husk_sandbox *sandbox, const char *name, unsigned *region, uint64_t *gpa,
	uint64_t *bytes, struct husk_error *err)
{
	unsigned number;
	int rc = name ? access_begin(sandbox, err) : error_set(err, -EINVAL, "find a region: no name");

	if (rc < 0)
		return rc;
	const struct area *area = access_region(sandbox, name, &number);
	if (area && region)
		*region = number;
	if (area && gpa)
		*gpa = area->gpa;
	if (area && bytes)
		*bytes = area->size;
	access_end(sandbox);
	return area ? 0 : error_set(err, -ENOENT, "there is no region called '%.80s'", name);
}

/** The area of region number @region, or NULL. */
static struct area *find(struct husk_sandbox *sandbox, unsigned region, struct husk_error *err)
{
	struct areas *areas = &sandbox->areas;

	if (region < areas->n_regions)
		return &areas->list[areas->regions[region]];
	error_set(err, -ENOENT, "there is no region number %u", region);
	return NULL;
}

int husk_sandbox_region_read(
	struct husk_sandbox *sandbox, unsigned region, uint64_t offset, void *buf, size_t n, struct husk_error *err)
{
	int rc = access_begin(sandbox, err);

	if (rc < 0)
		return rc;
	const struct area *area = find(sandbox, region, err);
	rc = area ? area_read(area, offset, buf, n, err) : -ENOENT;
	access_end(sandbox);
	return rc;
}

int husk_sandbox_region_write(struct husk_sandbox *sandbox, unsigned region, uint64_t offset, const void *buf, size_t n,
	struct husk_error *err)
{
	int rc = access_begin(sandbox, err);

	if (rc < 0)
		return rc;
	struct area *area = find(sandbox, region, err);
	rc = area ? area_write(area, offset, buf, n, err) : -ENOENT;
	access_end(sandbox);
	return rc;
}
