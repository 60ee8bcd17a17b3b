# SPDX-License-Identifier: GPL-2.0
"""Which kernel messages make a test fail, whatever it found itself."""

import re

BAD = re.compile(
    r"WARNING|BUG\b|Oops|KASAN|UBSAN|lockdep|possible (recursive|circular)"
    r"|inconsistent lock|[Ss]uspicious RCU|suspect GRO|refcount_t|rcu.*(stall|self-detected)"
    r"|leaked|unregister_netdevice|Call Trace|soft lockup|hung task|blocked for more than"
    r"|sleeping function|ODEBUG|scheduling while atomic|general protection|panicked|PANIC"
    r"|Kernel panic|ref_tracker|bad unlock balance|held lock freed|object is (on|not)|list_(add|del)"
    r"|invalid opcode|stack guard|page allocation failure|Out of memory"
)
# Said at every loading of a module that the distribution did not build.
EXPECTED = re.compile(r"out-of-tree module taints|module verification failed|lockdep is turned off")

CONTEXT = 40


def report(log, allowed=None):
    """The findings, with what the kernel said after the first one."""
    found = findings(log, allowed)
    if not found:
        return []
    lines = log.splitlines()
    start = lines.index(found[0])
    return [*lines[start : start + CONTEXT], "all findings:", *found]


def findings(log, allowed=None):
    """The lines of a kernel log that are failures."""
    allowed = re.compile(allowed) if allowed else None
    return [
        line
        for line in log.splitlines()
        if BAD.search(line)
        and not EXPECTED.search(line)
        and not (allowed and allowed.search(line))
    ]
