// SPDX-License-Identifier: GPL-2.0
/*
 * Inline functions, macros and layout-sensitive fields of the kernel, as functions that Rust can
 * call. One file an area, every function is named lard_<area>_<function>, and none holds logic.
 */

#include <linux/hrtimer_types.h>

#include "control.c"
#include "genl.c"
#include "net.c"
#include "skb.c"
#include "sock.c"
#include "sync.c"
#include "sysfs.c"
