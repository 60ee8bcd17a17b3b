/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What bindgen reads: the kernel headers that kernel_net needs, and the helpers.
 */
#include <linux/hrtimer_types.h>

#include "../helpers/helpers.c"
