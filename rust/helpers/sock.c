// SPDX-License-Identifier: GPL-2.0

/* TCP sockets: listeners, requests, children, TIME_WAIT; and the address family. */

#include <linux/capability.h>
#include <linux/net.h>
#include <linux/percpu.h>
#include <linux/rcupdate.h>
#include <linux/tcp.h>
#include <net/inet_common.h>
#include <net/inet_hashtables.h>
#include <net/inet_sock.h>
#include <net/inet_timewait_sock.h>
#include <net/ipv6.h>
#include <net/mptcp.h>
#include <net/protocol.h>
#include <net/request_sock.h>
#include <net/sock.h>
#include <net/tcp.h>

bool lard_sock_is_tcp(const struct sock *sk)
{
	return sk_is_tcp(sk);
}

u8 lard_sock_state(const struct sock *sk)
{
	return READ_ONCE(sk->sk_state);
}

u16 lard_sock_family(const struct sock *sk)
{
	return sk->sk_family;
}

int lard_sock_bound_dev(const struct sock *sk)
{
	return READ_ONCE(sk->sk_bound_dev_if);
}

bool lard_sock_is_full(const struct sock *sk)
{
	return sk_fullsock(sk);
}

bool lard_sock_is_stream(const struct sock *sk)
{
	return sk->sk_type == SOCK_STREAM && sk->sk_protocol == IPPROTO_TCP;
}

bool lard_sock_is_mptcp(const struct sock *sk)
{
	return sk_is_mptcp(sk);
}

bool lard_sock_acceptq_is_full(const struct sock *sk)
{
	return sk_acceptq_is_full(sk);
}

bool lard_sock_is_transparent(const struct sock *sk)
{
	return inet_test_bit(TRANSPARENT, sk);
}

void lard_sock_set_transparent(struct sock *sk)
{
	inet_set_bit(TRANSPARENT, sk);
}

void lard_sock_clear_transparent(struct sock *sk)
{
	inet_clear_bit(TRANSPARENT, sk);
}

/* What the socket layer calls for this socket; under RCU also while it is being released. */
const struct proto_ops *lard_sock_ops(const struct sock *sk)
{
	struct socket *sock = READ_ONCE(sk->sk_socket);

	return sock ? READ_ONCE(sock->ops) : NULL;
}

struct net *lard_sock_net(const struct sock *sk)
{
	return sock_net(sk);
}

bool lard_sock_hold_not_zero(struct sock *sk)
{
	return refcount_inc_not_zero(&sk->sk_refcnt);
}

void lard_sock_put(struct sock *sk)
{
	sock_put(sk);
}

void lard_sock_lock_bh(struct sock *sk)
{
	bh_lock_sock(sk);
}

void lard_sock_unlock_bh(struct sock *sk)
{
	bh_unlock_sock(sk);
}

bool lard_sock_owned_by_user(const struct sock *sk)
{
	return sock_owned_by_user(sk);
}

void lard_sock_lock(struct sock *sk)
{
	lock_sock(sk);
}

void lard_sock_unlock(struct sock *sk)
{
	release_sock(sk);
}

bool lard_sock_got_fin(const struct sock *sk)
{
	return sock_flag(sk, SOCK_DONE);
}

/* Set for good when a TCP socket begins to listen, and not taken over by what it accepts. */
bool lard_sock_has_listened(const struct sock *sk)
{
	return sock_flag(sk, SOCK_RCU_FREE);
}

u32 lard_sock_rcv_nxt(const struct sock *sk)
{
	return READ_ONCE(tcp_sk(sk)->rcv_nxt);
}

u64 lard_sock_bytes_acked(const struct sock *sk)
{
	return tcp_sk(sk)->bytes_acked;
}

u64 lard_sock_bytes_received(const struct sock *sk)
{
	return tcp_sk(sk)->bytes_received;
}

/* --- giving a connection up --------------------------------------------------------------- */

u32 lard_sock_snd_nxt(const struct sock *sk)
{
	return tcp_sk(sk)->snd_nxt;
}

/* Is there anything that TCP would still send, or has not given to the process? Locked. */
bool lard_sock_is_drained(const struct sock *sk)
{
	const struct tcp_sock *tp = tcp_sk(sk);

	return tp->write_seq == tp->snd_nxt && tp->copied_seq == tp->rcv_nxt &&
	       skb_queue_empty(&sk->sk_receive_queue) && RB_EMPTY_ROOT(&tp->out_of_order_queue) &&
	       !sk->sk_backlog.tail && !tp->urg_data;
}

/* Does anybody but TCP and the process have a part in it? Locked. */
bool lard_sock_is_plain(const struct sock *sk)
{
	return !inet_csk(sk)->icsk_ulp_ops && !rcu_access_pointer(sk->sk_user_data) &&
	       !sk_is_mptcp(sk) && !tcp_sk(sk)->repair;
}

bool lard_sock_is_shut(const struct sock *sk)
{
	return sk->sk_shutdown;
}

bool lard_sock_has_timestamps(const struct sock *sk)
{
	return tcp_sk(sk)->rx_opt.tstamp_ok;
}

bool lard_sock_counts_usec(const struct sock *sk)
{
	return tcp_sk(sk)->tcp_usec_ts;
}

/* What the socket would send as its timestamp now: no smaller than what it has sent. */
u32 lard_sock_tsval(const struct sock *sk)
{
	return tcp_clock_ts(tcp_sk(sk)->tcp_usec_ts) + tcp_sk(sk)->tsoffset;
}

/*
 * What tcp_v4_rcv() does with a segment once it has found and locked the socket. The socket is
 * locked and not owned by a process; the packet's data is at its TCP header, without payload.
 */
void lard_sock_receive_locked(struct sock *sk, struct sk_buff *skb, u32 seq)
{
	memset(TCP_SKB_CB(skb), 0, sizeof(*TCP_SKB_CB(skb)));
	TCP_SKB_CB(skb)->seq = seq;
	TCP_SKB_CB(skb)->end_seq = seq;
	TCP_SKB_CB(skb)->ack_seq = ntohl(tcp_hdr(skb)->ack_seq);
	TCP_SKB_CB(skb)->tcp_flags = tcp_flags_ntohs(tcp_hdr(skb));
	sk->sk_backlog_rcv(sk, skb);
}

/* The old value; the new one is there only if the old one is what was expected. */
void *lard_sock_swap_destruct(struct sock *sk, void (*expected)(struct sock *),
			      void (*new)(struct sock *))
{
	return cmpxchg(&sk->sk_destruct, expected, new);
}

void *lard_sock_destruct(const struct sock *sk)
{
	return READ_ONCE(sk->sk_destruct);
}

u32 lard_sock_tw_rcv_nxt(const struct sock *tw)
{
	return READ_ONCE(tcp_twsk(tw)->tw_rcv_nxt);
}

u32 lard_sock_tw_ts_recent(const struct sock *tw)
{
	return READ_ONCE(tcp_twsk(tw)->tw_ts_recent);
}

u32 lard_sock_clock_ts(bool usec)
{
	return tcp_clock_ts(usec);
}

/* --- injection --------------------------------------------------------------------------- */

struct request_sock *lard_inject_alloc(void)
{
	return kmem_cache_alloc(tcp_prot.rsk_prot->slab, GFP_ATOMIC | __GFP_NOWARN);
}

void lard_inject_free(struct request_sock *req)
{
	kmem_cache_free(tcp_prot.rsk_prot->slab, req);
}

/*
 * Leaves the link in the table of connections alone: a reader without a lock may still be following
 * it, because requests are freed without a grace period.
 */
void lard_inject_clear(struct request_sock *req)
{
	sk_prot_clear_nulls(req_to_sk(req), tcp_prot.rsk_prot->obj_size);
}

/* What inet_reqsk_alloc() does for a request without a listener reference; req is cleared. */
void lard_inject_init(struct request_sock *req, struct sock *listener)
{
	req->rsk_ops = tcp_prot.rsk_prot;
	req->rsk_listener = listener;
	req->syncookie = 1;
	req_to_sk(req)->sk_prot = listener->sk_prot;
	sk_node_init(&req_to_sk(req)->sk_node);
	sk_tx_queue_clear(req_to_sk(req));
	inet_rsk(req)->ireq_state = TCP_NEW_SYN_RECV;
	write_pnet(&inet_rsk(req)->ireq_net, sock_net(listener));
	inet_rsk(req)->ireq_family = listener->sk_family;
	inet_rsk(req)->no_srccheck = 1;
}

void lard_inject_set_mss(struct request_sock *req, u16 mss)
{
	req->mss = mss;
}

void lard_inject_set_wscale(struct request_sock *req, u8 snd, u8 rcv)
{
	inet_rsk(req)->wscale_ok = 1;
	inet_rsk(req)->snd_wscale = snd;
	inet_rsk(req)->rcv_wscale = rcv;
}

void lard_inject_set_sack(struct request_sock *req)
{
	inet_rsk(req)->sack_ok = 1;
}

void lard_inject_set_timestamps(struct request_sock *req, u32 recent, u32 offset, bool usec)
{
	inet_rsk(req)->tstamp_ok = 1;
	req->ts_recent = recent;
	tcp_rsk(req)->ts_off = offset;
	tcp_rsk(req)->req_usec_ts = usec;
}

void lard_inject_attach(struct sk_buff *skb, struct request_sock *req)
{
	skb->sk = req_to_sk(req);
	skb->destructor = sock_pfree;
}

int lard_inject_deliver(struct sk_buff *skb)
{
	return rcu_dereference(inet_protos[IPPROTO_TCP])->handler(skb);
}

struct sock *lard_inject_lookup_reuseport(struct net *net, struct sock *sk, struct sk_buff *skb,
					  int doff, __be32 saddr, __be16 sport, __be32 daddr,
					  u16 hnum)
{
	return inet_lookup_reuseport(net, sk, skb, doff, saddr, sport, daddr, hnum, inet_ehashfn);
}

/* The tuple that is being injected on this CPU: client and server address, both ports, a flag. */
static DEFINE_PER_CPU(u32[4], lard_inject_tuple);

u32 *lard_inject_mark(void)
{
	return *raw_cpu_ptr(&lard_inject_tuple);
}

/* --- the family -------------------------------------------------------------------------- */

void lard_family_graft(struct sock *sk, struct socket *inner, struct socket *outer)
{
	inner->sk = NULL;
	sk_set_socket(sk, NULL);
	sock_graft(sk, outer);
	outer->flags |= inner->flags;
}

bool lard_family_may_be_transparent(const struct socket *sock)
{
	return ns_capable(sock_net(sock->sk)->user_ns, CAP_NET_RAW) ||
	       ns_capable(sock_net(sock->sk)->user_ns, CAP_NET_ADMIN);
}

const struct proto_ops *lard_family_swap_ops(struct socket *sock, const struct proto_ops *old,
					     const struct proto_ops *new)
{
	return cmpxchg(&sock->ops, old, new);
}
