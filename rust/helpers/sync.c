// SPDX-License-Identifier: GPL-2.0

/* Locks and counters that softirqs share with processes; module references. */

#include <linux/bottom_half.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/rcupdate.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

static DEFINE_MUTEX(lard_sync_mutex);

void lard_sync_exclusive(void)
{
	mutex_lock(&lard_sync_mutex);
}

void lard_sync_exclusive_end(void)
{
	mutex_unlock(&lard_sync_mutex);
}

void lard_sync_spin_lock_bh(spinlock_t *lock)
{
	spin_lock_bh(lock);
}

void lard_sync_spin_unlock_bh(spinlock_t *lock)
{
	spin_unlock_bh(lock);
}

void lard_sync_bh_disable(void)
{
	local_bh_disable();
}

void lard_sync_bh_enable(void)
{
	local_bh_enable();
}

u64 __percpu *lard_sync_percpu_alloc(size_t bytes)
{
	return __alloc_percpu(bytes, sizeof(u64));
}

void lard_sync_percpu_add(u64 __percpu *base, size_t index, u64 n)
{
	this_cpu_add(base[index], n);
}

u64 *lard_sync_percpu_ptr(u64 __percpu *base, unsigned int cpu)
{
	return per_cpu_ptr(base, cpu);
}

unsigned int lard_sync_next_cpu(int cpu)
{
	return cpumask_next(cpu, cpu_possible_mask);
}

unsigned int lard_sync_nr_cpu_ids(void)
{
	return nr_cpu_ids;
}

struct module *lard_sync_this_module(void)
{
	return THIS_MODULE;
}

void lard_sync_init_work(struct work_struct *work, work_func_t func)
{
	INIT_WORK(work, func);
}

/* Not the function above: a work's class of locks is the place where it is initialised. */
void lard_sync_init_bh_work(struct work_struct *work, work_func_t func)
{
	INIT_WORK(work, func);
}

bool lard_sync_queue_bh_work(struct work_struct *work)
{
	return queue_work(system_bh_wq, work);
}

bool lard_sync_schedule_work(struct work_struct *work)
{
	return schedule_work(work);
}

/* A macro for synchronize_rcu() in kernels whose functions are not preempted. */
void lard_sync_rcu_tasks(void)
{
	synchronize_rcu_tasks();
}
