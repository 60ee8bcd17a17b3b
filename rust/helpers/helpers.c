// SPDX-License-Identifier: GPL-2.0
/*
 * Inline functions, macros and layout-sensitive fields of the kernel, as functions that Rust can
 * call. One file an area, every function is named lard_<area>_<function>, and none holds logic.
 */

#include "net.c"
#include "sync.c"
