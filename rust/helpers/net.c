// SPDX-License-Identifier: GPL-2.0

/* Network namespaces, devices and routes. */

#include <linux/inetdevice.h>
#include <linux/netdevice.h>
#include <linux/netfilter_ipv4.h>
#include <linux/rtnetlink.h>
#include <linux/workqueue.h>
#include <net/dst_cache.h>
#include <net/ip.h>
#include <net/net_namespace.h>
#include <net/netns/generic.h>
#include <net/route.h>

void *lard_net_generic(const struct net *net, unsigned int id)
{
	return net_generic(net, id);
}

void lard_net_init_delayed_work(struct delayed_work *work, work_func_t func)
{
	INIT_DELAYED_WORK(work, func);
}

bool lard_net_schedule_delayed_work(struct delayed_work *work, unsigned int ms)
{
	return schedule_delayed_work(work, msecs_to_jiffies(ms));
}

/* Not before the work was initialised; it may be disabled. */
void lard_net_hasten_delayed_work(struct delayed_work *work)
{
	mod_delayed_work(system_percpu_wq, work, 1);
}

struct net_device *lard_net_dev_by_name_rcu(struct net *net, const char *name)
{
	return dev_get_by_name_rcu(net, name);
}

const char *lard_net_dev_name(const struct net_device *dev)
{
	return dev->name;
}

void lard_net_rtnl_lock(void)
{
	rtnl_lock();
}

void lard_net_rtnl_unlock(void)
{
	rtnl_unlock();
}

int lard_route_genid(const struct net *net)
{
	return rt_genid_ipv4(net);
}

struct rtable *lard_route_output(struct net *net, __be32 daddr, __be32 saddr, u8 flags)
{
	struct flowi4 fl4 = {
		.daddr = daddr,
		.saddr = saddr,
		.flowi4_flags = flags,
		.flowi4_proto = IPPROTO_TCP,
	};

	return ip_route_output_key(net, &fl4);
}

int lard_route_hoplimit(const struct rtable *rt)
{
	return ip4_dst_hoplimit(&rt->dst);
}

unsigned int lard_net_dev_mtu(const struct net_device *dev)
{
	return READ_ONCE(dev->mtu);
}

struct net_device *lard_net_first_dev(struct net *net)
{
	return first_net_device(net);
}

struct net_device *lard_net_next_dev(struct net_device *dev)
{
	return next_net_device(dev);
}
