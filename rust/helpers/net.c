// SPDX-License-Identifier: GPL-2.0

/* Network namespaces and devices. */

#include <linux/netdevice.h>
#include <linux/netfilter_ipv4.h>
#include <net/net_namespace.h>
#include <net/netns/generic.h>

void *lard_net_generic(const struct net *net, unsigned int id)
{
	return net_generic(net, id);
}
