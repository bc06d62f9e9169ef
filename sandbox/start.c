/* SPDX-License-Identifier: Apache-2.0 */
/*
 * start.c - from configured to ready
 *
 * In this order: the program's imports find the host's functions; names and page tables are written; the VM gets its memory,
 * then its one CPU (memslots before vCPUs are the cheap order); and it either runs from the program's entry until it says READY,
 * or takes the state that a snapshot has.
 */
#include "base/cleanup.h"
#include "sandbox/info.h"
#include "sandbox/run.h"
#include "sandbox/snapshot.h"
#include "sandbox/tables.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/** The program needs @import, and the host's function @j, if there is one, is not that. */
static int unresolved(const struct husk_sandbox *s, const struct signature *import, unsigned j, struct husk_error *err)
{
	char want[512], have[512];

	signature_print(import, want, sizeof(want));
	if (j == s->n_functions)
		return error_set(
			err, -ENOENT, "the program needs a function of the host's that was not added: %s", want);
	signature_print(&s->functions[j].signature, have, sizeof(have));
	return error_set(err, -EINVAL, "the program needs %s, and the host has %s", want, have);
}

/** Which of the host's functions each import is. */
static int resolve(struct husk_sandbox *s, struct husk_error *err)
{
	const struct husk_sandbox_image *image = s->image;

	s->imports = calloc(image->n_imports + 1, sizeof(*s->imports));
	if (!s->imports)
		return error_set(err, -ENOMEM, "start the sandbox: out of memory");
	for (unsigned i = 0; i < image->n_imports; i++) {
		unsigned j = 0;
		while (j < s->n_functions && strcmp(s->functions[j].signature.name, image->imports[i].name) != 0)
			j++;
		if (j == s->n_functions || !signature_equal(&s->functions[j].signature, &image->imports[i]))
			return unresolved(s, &image->imports[i], j, err);
		s->imports[i] = j;
	}
	return 0;
}

/** All that the guest may reach by an address. */
static int map_all(struct husk_sandbox *s, struct husk_error *err)
{
	const struct sandbox_places *p = &s->places;
	const struct sandbox_range writable[] = {p->fault_stack, p->heap, p->stack, p->input, p->output};
	struct tables tables;

	tables_begin(&tables, areas_at(&s->areas, p->tables.at, p->tables.size), p->tables.at, p->tables.size);
	int rc = tables_map(&tables, SANDBOX_SUPPORT, SANDBOX_PAGE, 0, err);
	rc = rc < 0 ? rc : tables_map(&tables, SANDBOX_SUPPORT + SANDBOX_PAGE, SANDBOX_PAGE, TABLES_EXECUTE, err);
	for (unsigned i = 0; rc == 0 && i < s->image->n_segments; i++) {
		const struct image_segment *segment = &s->image->segments[i];
		rc = tables_map(&tables, segment->at, segment->size,
			(segment->write ? TABLES_WRITE : 0) | (segment->execute ? TABLES_EXECUTE : 0), err);
	}
	for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(writable); i++)
		rc = tables_map(&tables, writable[i].at, writable[i].size, TABLES_WRITE, err);
	for (unsigned i = 0; rc == 0 && i < s->areas.n; i++) {
		const struct area *area = &s->areas.list[i];
		bool by_itself = area->kind == AREA_PROGRAM || area->kind == AREA_CORE || area->kind == AREA_TABLES;
		if (!by_itself && area->rights & HUSK_SANDBOX_GUEST_R)
			rc = tables_map(&tables, area->gpa, area->size,
				area->rights & HUSK_SANDBOX_GUEST_W ? TABLES_WRITE : 0, err);
	}
	areas_touched(&s->areas, p->tables.at, tables.used);
	return rc;
}

/** What the guest finds in memory when it begins. */
static int write_memory(struct husk_sandbox *s, struct husk_error *err)
{
	uint64_t tss = s->places.info.at + s->places.info.size - SANDBOX_TSS_ROOM;
	int rc = info_write(s);

	if (rc < 0)
		return rc;
	cpu_write_tss(areas_at(&s->areas, tss, CPU_TSS_SIZE), s->places.fault_stack.at + s->places.fault_stack.size);
	areas_touched(&s->areas, tss, CPU_TSS_SIZE);
	return map_all(s, err);
}

/** Does every address fit the guest's CPU? */
static int check_addresses(const struct husk_sandbox *s, struct husk_error *err)
{
	unsigned bits = cpu_address_bits(&s->features);

	for (unsigned i = 0; i < s->areas.n; i++)
		if (bits < 64 && (s->areas.list[i].gpa + s->areas.list[i].size - 1) >> bits)
			return error_set(err, -ENOTSUP,
				"memory at 0x%" PRIx64 ": this host's CPU has addresses of %u bits",
				s->areas.list[i].gpa, bits);
	return 0;
}

/** How long a tick of the counter takes; 0 where KVM does not tell. API 4.56. */
static double tick_ns(const struct kvm_vcpu *vcpu)
{
	long khz = kvm_ioctl(vcpu->fd, KVM_GET_TSC_KHZ, NULL, "ask for the rate of the time stamp counter", NULL);
	return khz > 0 ? 1e6 / (double)khz : 0;
}

static int make_vm(struct husk_sandbox *s, struct husk_error *err)
{
	int rc = areas_log(&s->areas, NULL, err);

	rc = rc < 0 ? rc : kvm_vm_create(s->kvm, &s->vm, err);
	rc = rc < 0 ? rc : areas_map(&s->areas, s->kvm, &s->vm, err);
	rc = rc < 0 ? rc : cpu_filter_msrs(s->kvm, &s->vm, err);
	rc = rc < 0 ? rc : kvm_vcpu_create(s->kvm, &s->vm, 0, &s->vcpu, err);
	rc = rc < 0 ? rc : cpu_features_set(&s->vcpu, &s->features, err);
	s->tick_ns = rc < 0 ? 0 : tick_ns(&s->vcpu);
	if (rc == -EMFILE || rc == -ENFILE)
		error_prefix(err, rc, "start the sandbox: it takes two descriptors (ulimit -n)");
	else if (rc < 0)
		error_prefix(err, rc, "start the sandbox");
	return rc;
}

/** Boot the program. */
static int boot(struct husk_sandbox *s, struct husk_error *err)
{
	const struct sandbox_places *p = &s->places;
	const struct cpu_entry entry = {
		.rip = s->image->entry,
		.rsp = p->stack.at + p->stack.size,
		.rdi = p->info.at,
		.cr3 = p->tables.at,
		.tss = p->info.at + p->info.size - SANDBOX_TSS_ROOM,
	};
	int rc = cpu_enter(s->kvm, &s->vcpu, &s->features, &entry, err);

	if (rc < 0)
		return rc;
	rc = run_guest(s, s->config.start_timeout_ns, err);
	if (rc == SANDBOX_FAIL || rc == SANDBOX_RETURN)
		return sandbox_blame(s, HUSK_SANDBOX_PROTOCOL, -EPROTO, err,
			"the guest broke the protocol: it returned before it was called");
	return rc < 0 ? rc : 0;
}

static int start(struct husk_sandbox *s, struct husk_error *err)
{
	struct husk_sandbox_snapshot *from = s->born_of;
	int rc = resolve(s, err);

	rc = rc < 0 ? rc : image_kvm(s->image, &s->kvm, err);
	rc = rc < 0 ? rc : cpu_features_get(s->kvm, &s->features, err);
	if (rc == 0 && from) {
		rc = cpu_features_fit(&from->features, &s->features, err);
		s->features = from->features;
	}
	rc = rc < 0 ? rc : check_addresses(s, err);
	pthread_mutex_lock(&s->memory_lock);
	s->input = areas_at(&s->areas, s->places.input.at, s->config.input);
	s->output = areas_at(&s->areas, s->places.output.at, s->config.output);
	rc = rc < 0 || from ? rc : write_memory(s, err);
	rc = rc < 0 ? rc : make_vm(s, err);
	pthread_mutex_unlock(&s->memory_lock);
	if (rc < 0)
		return rc;
	return from ? snapshot_begin(from, s, err) : boot(s, err);
}

int husk_sandbox_start(struct husk_sandbox *sandbox, struct husk_error *err)
{
	int rc = sandbox_enter(sandbox, IN_STATE(HUSK_SANDBOX_CONFIGURED), "start", err);

	if (rc < 0)
		return rc;
	rc = start(sandbox, err);
	sandbox_set_state(sandbox, rc < 0 ? HUSK_SANDBOX_DEAD : HUSK_SANDBOX_READY);
	sandbox_leave(sandbox);
	return rc;
}
