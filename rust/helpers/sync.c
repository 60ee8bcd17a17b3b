// SPDX-License-Identifier: GPL-2.0

/* Locks that softirqs share with processes. */

#include <linux/spinlock.h>

void lard_sync_spin_lock_bh(spinlock_t *lock)
{
	spin_lock_bh(lock);
}

void lard_sync_spin_unlock_bh(spinlock_t *lock)
{
	spin_unlock_bh(lock);
}
