// SPDX-License-Identifier: GPL-2.0

/* Generic netlink. */

#include <linux/netlink.h>
#include <linux/notifier.h>
#include <net/genetlink.h>
#include <net/netlink.h>

struct net *lard_genl_info_net(const struct genl_info *info)
{
	return genl_info_net(info);
}

const void *lard_genl_attrs(const struct genl_info *info)
{
	return nlmsg_attrdata(info->nlhdr, GENL_HDRLEN);
}

int lard_genl_attrs_len(const struct genl_info *info)
{
	return nlmsg_attrlen(info->nlhdr, GENL_HDRLEN);
}

const struct genl_info *lard_genl_dump_info(struct netlink_callback *cb)
{
	return genl_info_dump(cb);
}

struct sk_buff *lard_genl_new(gfp_t flags)
{
	return genlmsg_new(GENLMSG_DEFAULT_SIZE, flags);
}

void lard_genl_free(struct sk_buff *skb)
{
	nlmsg_free(skb);
}

void lard_genl_end(struct sk_buff *skb, void *header)
{
	genlmsg_end(skb, header);
}

void lard_genl_cancel(struct sk_buff *skb, void *header)
{
	genlmsg_cancel(skb, header);
}

unsigned int lard_genl_len(const struct sk_buff *skb)
{
	return skb->len;
}

int lard_genl_reply(struct sk_buff *skb, struct genl_info *info)
{
	return genlmsg_reply(skb, info);
}

int lard_genl_multicast(const struct genl_family *family, struct net *net, struct sk_buff *skb,
			unsigned int group, gfp_t flags)
{
	return genlmsg_multicast_netns(family, net, skb, 0, group, flags);
}

int lard_genl_put_uint(struct sk_buff *skb, int type, u64 value)
{
	return nla_put_uint(skb, type, value);
}

int lard_genl_put_sint(struct sk_buff *skb, int type, s64 value)
{
	return nla_put_sint(skb, type, value);
}

struct nlattr *lard_genl_nest_start(struct sk_buff *skb, int type)
{
	return nla_nest_start(skb, type);
}

void lard_genl_nest_end(struct sk_buff *skb, struct nlattr *start)
{
	nla_nest_end(skb, start);
}

void lard_genl_nest_cancel(struct sk_buff *skb, struct nlattr *start)
{
	nla_nest_cancel(skb, start);
}
