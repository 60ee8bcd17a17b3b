// SPDX-License-Identifier: GPL-2.0

/* Kernel threads, and the sockets that user space passes to them. */

#include <linux/kthread.h>
#include <linux/net.h>
#include <linux/sched/signal.h>
#include <linux/socket.h>
#include <net/inet_connection_sock.h>
#include <net/ipv6.h>
#include <net/mptcp.h>
#include <net/sock.h>
#include <net/tcp.h>

struct task_struct *lard_kthread_create(int (*fn)(void *), void *data, const char *name)
{
	return kthread_create(fn, data, "%s", name);
}

void lard_kthread_prepare_wait(void)
{
	set_current_state(TASK_INTERRUPTIBLE);
}

void lard_kthread_finish_wait(void)
{
	__set_current_state(TASK_RUNNING);
}

void lard_kthread_clear_signal(void)
{
	clear_notify_signal();
}

void lard_socket_put(struct socket *sock)
{
	sockfd_put(sock);
}

bool lard_socket_is_tcp(const struct socket *sock)
{
	return sock->type == SOCK_STREAM && sk_is_tcp(sock->sk);
}

bool lard_socket_is_established(const struct socket *sock)
{
	return READ_ONCE(sock->sk->sk_state) == TCP_ESTABLISHED;
}

bool lard_socket_is_mptcp(const struct socket *sock)
{
	return sk_is_mptcp(sock->sk);
}

bool lard_socket_has_shutdown(const struct socket *sock)
{
	return READ_ONCE(sock->ops)->shutdown != sock_no_shutdown;
}

bool lard_socket_has_user(const struct socket *sock)
{
	return rcu_access_pointer(sock->sk->sk_user_data) != NULL;
}

bool lard_socket_has_ulp(const struct socket *sock)
{
	return inet_csk_has_ulp(sock->sk);
}

struct net *lard_socket_net(const struct socket *sock)
{
	return sock_net(sock->sk);
}

void lard_socket_peer(const struct socket *sock, struct in6_addr *addr)
{
	if (sock->sk->sk_family == AF_INET6)
		*addr = sock->sk->sk_v6_daddr;
	else
		ipv6_addr_set_v4mapped(inet_sk(sock->sk)->inet_daddr, addr);
}

void lard_socket_set_rcvtimeo_max(struct socket *sock)
{
	WRITE_ONCE(sock->sk->sk_rcvtimeo, MAX_SCHEDULE_TIMEOUT);
}

void lard_socket_set_sndtimeo(struct socket *sock, unsigned int ms)
{
	WRITE_ONCE(sock->sk->sk_sndtimeo, msecs_to_jiffies(ms));
}

void lard_socket_set_nodelay(struct socket *sock)
{
	tcp_sock_set_nodelay(sock->sk);
}

void lard_socket_set_user_timeout(struct socket *sock, int ms)
{
	tcp_sock_set_user_timeout(sock->sk, ms);
}

void lard_socket_set_keepalive(struct socket *sock, int idle_s, int interval_s, int count)
{
	sock_set_keepalive(sock->sk);
	tcp_sock_set_keepidle(sock->sk, idle_s);
	tcp_sock_set_keepintvl(sock->sk, interval_s);
	tcp_sock_set_keepcnt(sock->sk, count);
}

int lard_socket_recv(struct socket *sock, void *buf, size_t len)
{
	struct kvec vec = { .iov_base = buf, .iov_len = len };
	struct msghdr msg = {};

	return kernel_recvmsg(sock, &msg, &vec, 1, len, 0);
}

int lard_socket_send(struct socket *sock, const void *buf, size_t len)
{
	struct kvec vec = { .iov_base = (void *)buf, .iov_len = len };
	struct msghdr msg = { .msg_flags = MSG_NOSIGNAL };

	return kernel_sendmsg(sock, &msg, &vec, 1, len);
}

/* Sends may come from softirqs: nothing of the current task's is used. */
void lard_socket_set_atomic(struct socket *sock)
{
	lock_sock(sock->sk);
	sock->sk->sk_allocation = GFP_ATOMIC;
	sock->sk->sk_use_task_frag = false;
	release_sock(sock->sk);
}

/* In a softirq, as espintcp_push_skb() does it. */
int lard_socket_send_atomic(struct socket *sock, const void *buf, size_t len)
{
	struct kvec vec = { .iov_base = (void *)buf, .iov_len = len };
	struct msghdr msg = { .msg_flags = MSG_NOSIGNAL | MSG_DONTWAIT };
	int ret = -EAGAIN;

	iov_iter_kvec(&msg.msg_iter, ITER_SOURCE, &vec, 1, len);
	bh_lock_sock(sock->sk);
	if (!sock_owned_by_user(sock->sk))
		ret = tcp_sendmsg_locked(sock->sk, &msg, len);
	bh_unlock_sock(sock->sk);
	return ret;
}
