// SPDX-License-Identifier: GPL-2.0
/*
 * server PORT NAME: answers each request with its name and the addresses of the connection.
 *
 * One connection at a time and one request a connection: what matters here is the socket.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <unistd.h>

#include "lard.h"

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* Reads up to the empty line that ends the head; -1 if the client went away or says too much. */
static int read_head(int fd)
{
	char head[16384];
	size_t used = 0;

	while (used < sizeof(head) - 1) {
		ssize_t got = read(fd, head + used, sizeof(head) - 1 - used);

		if (got <= 0)
			return -1;
		used += got;
		head[used] = '\0';
		if (strstr(head, "\r\n\r\n"))
			return 0;
	}
	return -1;
}

static const char *end_text(const struct sockaddr_in *end, char *text, size_t size)
{
	char addr[INET_ADDRSTRLEN];

	inet_ntop(AF_INET, &end->sin_addr, addr, sizeof(addr));
	snprintf(text, size, "%s:%u", addr, ntohs(end->sin_port));
	return text;
}

static void serve(int fd, const struct sockaddr_in *client, const char *name)
{
	struct sockaddr_in own;
	socklen_t length = sizeof(own);
	char body[256], answer[512], from[32], to[32];
	int size;

	if (read_head(fd) || getsockname(fd, (struct sockaddr *)&own, &length))
		return;
	snprintf(body, sizeof(body), "%s: from %s to %s\n", name,
		 end_text(client, from, sizeof(from)), end_text(&own, to, sizeof(to)));
	size = snprintf(answer, sizeof(answer),
			"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n"
			"Connection: close\r\n\r\n%s", strlen(body), body);
	if (write(fd, answer, size) != size)
		perror("write");
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	const int on = 1;
	int listener;

	if (argc != 3) {
		fprintf(stderr, "usage: %s PORT NAME\n", argv[0]);
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	listener = lard_socket();
	address.sin_port = htons(atoi(argv[1]));
	if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)))
		die("setsockopt");
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)))
		die("bind");
	if (listen(listener, SOMAXCONN))
		die("listen");
	for (;;) {
		struct sockaddr_in client;
		socklen_t length = sizeof(client);
		int fd = accept(listener, (struct sockaddr *)&client, &length);

		if (fd < 0) {
			perror("accept");
			continue;
		}
		serve(fd, &client, argv[2]);
		close(fd);
	}
}
