/* SPDX-License-Identifier: GPL-2.0 */
/* The address family, as the samples use it. */
#ifndef LARD_H
#define LARD_H

#include <stdio.h>
#include <stdlib.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define AF_LARD 21

/* A socket of the family; ends the program if there can be none. */
static inline int lard_socket(void)
{
	const char *number = getenv("LARD_FAMILY");
	int family = number ? atoi(number) : AF_LARD;
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0) {
		fprintf(stderr, "socket of family %d: %s%s\n", family, strerror(errno),
			errno == EAFNOSUPPORT ? ": is the module lard loaded?" : "");
		exit(1);
	}
	return fd;
}

#endif
