// SPDX-License-Identifier: GPL-2.0

/* Directories in sysfs and tables in /proc/net. */

#include <linux/fs.h>
#include <linux/kobject.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/seq_file_net.h>
#include <linux/sysfs.h>
#include <net/net_namespace.h>

int lard_sysfs_add(struct kobject *kobj, const struct kobj_type *type, struct kobject *parent,
		   const char *name)
{
	return kobject_init_and_add(kobj, type, parent, "%s", name);
}

void lard_sysfs_attr_init(struct attribute *attr)
{
	sysfs_attr_init(attr);
}

const struct ns_common *lard_sysfs_ns(const struct net *net)
{
	return to_ns_common(net);
}

struct proc_dir_entry *lard_proc_create(struct net *net, const char *name,
					const struct seq_operations *ops, void *data)
{
	return proc_create_net_data(name, 0444, net->proc_net, ops, sizeof(struct seq_net_private),
				    data);
}

void *lard_proc_data(const struct seq_file *seq)
{
	return pde_data(file_inode(seq->file));
}
