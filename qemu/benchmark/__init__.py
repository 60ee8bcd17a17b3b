# SPDX-License-Identifier: GPL-2.0
"""What a request costs a front-end: the parts of `qemu/bench`."""
