// SPDX-License-Identifier: GPL-2.0

//! Holds the benchmarks together; there is nothing in it.
