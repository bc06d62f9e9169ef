/* SPDX-License-Identifier: Apache-2.0 */
/*
 * button.c - the machine's power button
 *
 * Theory of operation: the kernel's button driver makes an input device named "Power Button" of each that ACPI describes, and
 * evdev a file of each input device. A press is a KEY_POWER event of value 1; its release, value 0, follows by itself. A
 * read gives whole events only.
 */
#include "guest/button.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "guest/console.h"

#include <fcntl.h>
#include <linux/input.h>
#include <string.h>
#include <sys/ioctl.h>

#define BUTTON_NAME "Power Button" /* Linux drivers/acpi/button.c */

static void button_ready(struct loop_watch *watch, uint32_t events)
{
	struct button *b = CONTAINER_OF(watch, struct button, watch);
	struct input_event event;
	ssize_t n;

	while ((n = read(watch->fd, &event, sizeof(event))) == sizeof(event))
		if (event.type == EV_KEY && event.code == KEY_POWER && event.value == 1)
			b->all->pressed(b->all->data);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	loop_remove(b->all->loop, watch); /* the device has gone */
	close(watch->fd);
}

static bool is_power_button(int fd)
{
	char name[64] = "";
	return ioctl(fd, EVIOCGNAME(sizeof(name) - 1), name) >= 0 && strcmp(name, BUTTON_NAME) == 0;
}

void buttons_open(struct buttons *buttons, struct loop *loop, const char *directory)
{
	CLEANUP_DIR DIR *dir = opendir(directory);
	struct dirent *entry;

	buttons->loop = loop;
	while (dir && buttons->n < BUTTONS_MAX && (entry = readdir(dir))) {
		if (strncmp(entry->d_name, "event", strlen("event")) != 0)
			continue;
		CLEANUP_FD int fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		struct button *b = &buttons->button[buttons->n];
		b->all = buttons;
		if (fd < 0 || !is_power_button(fd) || loop_add(loop, &b->watch, fd, EPOLLIN, button_ready, NULL) < 0)
			continue;
		steal_fd(&fd);
		buttons->n++;
	}
	console_debug("%zu power buttons", buttons->n);
}
