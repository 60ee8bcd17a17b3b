# SPDX-License-Identifier: GPL-2.0
"""Virtual clusters: machines under QEMU or network namespaces, for tests, the demo and a person."""
