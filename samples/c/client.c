// SPDX-License-Identifier: GPL-2.0
/*
 * client ADDR PORT [PATH]: fetches PATH over a socket of the family, which on connecting is an
 * ordinary TCP socket, and prints the answer.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <unistd.h>

#include "lard.h"

int main(int argc, char **argv)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	char buffer[4096];
	ssize_t got;
	int fd, size;

	if (argc < 3 || argc > 4) {
		fprintf(stderr, "usage: %s ADDR PORT [PATH]\n", argv[0]);
		return 2;
	}
	address.sin_port = htons(atoi(argv[2]));
	if (inet_pton(AF_INET, argv[1], &address.sin_addr) != 1) {
		fprintf(stderr, "%s is not an IPv4 address\n", argv[1]);
		return 2;
	}
	fd = lard_socket();
	if (connect(fd, (struct sockaddr *)&address, sizeof(address))) {
		perror("connect");
		return 1;
	}
	size = snprintf(buffer, sizeof(buffer),
			"GET %s HTTP/1.1\r\nHost: %s:%s\r\nConnection: close\r\n\r\n",
			argc == 4 ? argv[3] : "/", argv[1], argv[2]);
	if (size >= (int)sizeof(buffer) || write(fd, buffer, size) != size) {
		fprintf(stderr, "the request could not be sent\n");
		return 1;
	}
	while ((got = read(fd, buffer, sizeof(buffer))) > 0)
		fwrite(buffer, 1, got, stdout);
	if (got < 0) {
		perror("read");
		return 1;
	}
	return 0;
}
