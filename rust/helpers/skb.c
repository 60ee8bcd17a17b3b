// SPDX-License-Identifier: GPL-2.0

/* Socket buffers. */

#include <linux/if_ether.h>
#include <linux/inetdevice.h>
#include <linux/ip.h>
#include <linux/netfilter_bridge.h>
#include <linux/skbuff.h>
#include <linux/tcp.h>
#include <net/checksum.h>
#include <net/dst.h>
#include <net/ip.h>
#include <net/netfilter/nf_conntrack.h>
#include <net/route.h>

struct net_device *lard_skb_dev(const struct sk_buff *skb)
{
	return skb->dev;
}

void lard_skb_set_dev(struct sk_buff *skb, struct net_device *dev)
{
	skb->dev = dev;
}

int lard_skb_iif(const struct sk_buff *skb)
{
	return skb->skb_iif;
}

bool lard_skb_has_dst(const struct sk_buff *skb)
{
	return skb_dst(skb);
}

bool lard_skb_is_host(const struct sk_buff *skb)
{
	return skb->pkt_type == PACKET_HOST;
}

bool lard_skb_is_bridged(const struct sk_buff *skb)
{
#if IS_ENABLED(CONFIG_BRIDGE_NETFILTER)
	return nf_bridge_info_exists(skb);
#else
	return false;
#endif
}

bool lard_skb_is_of_vrf(const struct sk_buff *skb)
{
	return netif_is_l3_slave(skb->dev) || netif_is_l3_master(skb->dev);
}

__be32 lard_skb_dev_addr(const struct sk_buff *skb)
{
	return inet_select_addr(skb->dev, 0, RT_SCOPE_LINK);
}

bool lard_skb_is_loopback(const struct sk_buff *skb)
{
	return skb->dev->flags & IFF_LOOPBACK;
}

bool lard_skb_may_pull(struct sk_buff *skb, unsigned int len)
{
	return pskb_may_pull(skb, len);
}

void lard_skb_free(struct sk_buff *skb)
{
	kfree_skb(skb);
}

void lard_skb_untrack(struct sk_buff *skb)
{
	nf_reset_ct(skb);
	nf_ct_set(skb, NULL, IP_CT_UNTRACKED);
}

/* Whose packet it is, on its way out; NULL for one of a TIME_WAIT. */
struct sock *lard_skb_full_sk(const struct sk_buff *skb)
{
	return skb_to_full_sk(skb);
}

void lard_skb_dst_drop(struct sk_buff *skb)
{
	skb_dst_drop(skb);
}

/* What ip_rcv_finish() asks, for a packet to daddr. */
enum skb_drop_reason lard_skb_route_input(struct sk_buff *skb, __be32 daddr)
{
	return ip_route_input_noref(skb, daddr, ip_hdr(skb)->saddr, ip4h_dscp(ip_hdr(skb)), skb->dev);
}

void lard_skb_dst_set(struct sk_buff *skb, struct rtable *rt)
{
	skb_dst_set(skb, &rt->dst);
}

void lard_skb_dst_set_noref(struct sk_buff *skb, struct rtable *rt)
{
	skb_dst_set_noref(skb, &rt->dst);
}

int lard_skb_dst_input(struct sk_buff *skb)
{
	return dst_input(skb);
}

void lard_skb_orphan(struct sk_buff *skb)
{
	skb_orphan(skb);
}

void lard_skb_own(struct sk_buff *skb, struct sock *sk, void (*destructor)(struct sk_buff *))
{
	skb->sk = sk;
	skb->destructor = destructor;
}

void lard_skb_make_forwardable(struct sk_buff *skb)
{
	skb_orphan(skb);
	skb_forward_csum(skb);
	skb_clear_tstamp(skb);
	skb->ignore_df = 1;
}

void lard_skb_decrease_ttl(struct sk_buff *skb)
{
	ip_decrease_ttl(ip_hdr(skb));
}

void lard_skb_csum_replace2(struct sk_buff *skb, u8 *sum, __be16 from, __be16 to)
{
	inet_proto_csum_replace2((__sum16 *)sum, skb, from, to, false);
}

struct sk_buff *lard_skb_alloc(unsigned int headroom, unsigned int len)
{
	struct sk_buff *skb = netdev_alloc_skb(NULL, headroom + len);

	if (skb)
		skb_reserve(skb, headroom);
	return skb;
}

/* An IPv4 packet that starts at skb->data and came from nowhere. */
void lard_skb_set_ipv4(struct sk_buff *skb, unsigned int ip_len)
{
	skb_reset_mac_header(skb);
	skb_reset_network_header(skb);
	skb_set_transport_header(skb, ip_len);
	skb->protocol = htons(ETH_P_IP);
}

/* The same, as if it had been received on dev, with a good checksum. */
void lard_skb_set_received(struct sk_buff *skb, struct net_device *dev)
{
	skb->dev = dev;
	skb->skb_iif = dev->ifindex;
	skb->pkt_type = PACKET_HOST;
	skb->ip_summed = CHECKSUM_UNNECESSARY;
	memset(skb->cb, 0, sizeof(skb->cb));
}

void lard_skb_set_gso(struct sk_buff *skb, u16 size, u16 segs)
{
	skb_shinfo(skb)->gso_size = size;
	skb_shinfo(skb)->gso_segs = segs;
	skb_shinfo(skb)->gso_type = SKB_GSO_TCPV4;
}

void lard_skb_add_paged_len(struct sk_buff *skb, unsigned int len)
{
	skb->data_len += len;
	skb->len += len;
}
