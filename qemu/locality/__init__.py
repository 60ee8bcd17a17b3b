# SPDX-License-Identifier: GPL-2.0
"""What locality is worth where the disk is slow: the parts of `qemu/bench-locality`."""
