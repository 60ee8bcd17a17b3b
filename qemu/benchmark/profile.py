# SPDX-License-Identifier: GPL-2.0
"""Where a guest's instructions are: by area, in every run; and by function, where a profile is asked for."""

import bisect
import collections
import functools
import os
import re
import subprocess

from lardvm.vm import softirq_place

from .meter import KERNEL

# Lines that are shown of a profile.
TOP = 60

# What a function is for, by its name: the first pattern that is found in it decides. What is in a module is
# that module's. A front-end's own TCP is LARD's control connection, a proxy's connections on both sides,
# and nothing in IPVS.
AREAS = [
    ("memory cleared", r"^_*(memset|clear_(page|highpage)|kernel_init_pages)"),
    ("memory copied", r"^_*(memcpy|memmove|copy_(to|from|page|user)|rep_movs|csum_partial|skb_(copy|store)_bits)"),
    ("packets allocated", r"alloc_skb|kfree_skb|consume_skb|skb_(release|free|clone|defer|attempt)|build_skb"
     r"|napi_(build|alloc|consume|skb)|skb_reason_drop|page_to_skb"),
    ("memory allocated", r"slab|kmalloc|kfree|kmem_|kvfree|kvmalloc|alloc_page|free_(one_)?page|_frag|rmqueue"
     r"|free_(frozen|unref)|pcp|zone|memcg|mem_cgroup|obj_cgroup|setup_object|folio|vm_stat|get_page|put_page|buddy"),
    ("hashing", r"hash|prandom|get_random"),
    ("lists and bits", r"^_*(list_|find_|bitmap|rb_|xa_|idr_|radix|plist|hweight|sort|timerqueue|llist)"),
    ("netfilter", r"^_*(nf_|nft_|ipt_|nfnl)"),
    ("idle", r"idle|mwait|halt|menu_|nohz|tick_|need_resched|poll_state|tsc_?deadline"),
    ("locks and RCU", r"_lock|unlock|rcu|mutex|local_bh|refcount|^_*(down|up)_|atomic(64)?_|seqcount|spin_"),
    ("IP receive", r"gro_|^_*(ip_rcv|ip_local_deliver|ip_protocol|ip_route_input|ip_route_use|ip_list|ip_sublist"
     r"|netif_receive|net_rx|napi|eth_type|virtqueue_(get|add_inbuf|enable|disable|poll|detach)|detach_buf|process_backlog"
     r"|enqueue_to_backlog|netif_rx|dev_gro|flow_|udp|arp_rcv|packet_rcv|raw_)|early_demux|more_used"),
    ("IP transmit", r"^_*(ip_|neigh|dst_|dev_|sch_|pfifo|qdisc|fq_|validate_xmit|netdev_|netif_|skb_(network|mac|csum"
     r"|to_sgvec|warn|push|gso)|virtqueue|vring|vp_notify|sg_|dma_|fib_|rt_|arp_|eth_|dql_|harmonize|qdisc)|_xmit"),
    ("TCP and sockets", r"tcp|sock|^_*sk_|^_*inet|cubic|^_*(se)?sys_|__x64_|epoll|^_*ep_|iov_iter|import_iovec|splice"
     r"|pipe|fput|fget|fdget|vfs_|ksys|import_ubuf"),
    ("scheduling", r"sched|wake|task|queue_(work|delayed)|enqueue|dequeue|pick_|^_*update_|switch|kthread|work|avg|pelt"
     r"|wait|ttwu|entity|fair|vruntime|eevdf|deadline|_dl_|complete|cpuacct|psi_|futex|preempt|placement|_rq|rq_|poll_"),
    ("interrupts and clocks", r"irq|hrtimer|timer|apic|asm_|sysvec|interrupt|clock|ktime|timekeeping|tsc|handle_|entry"
     r"|exit|syscall|native_|vp_|swapgs|iret|jiffies|ct_(kernel|nmi|user)|ret_from|restore|pv_|ioread|iowrite|pci"),
    ("packets", r"skb"),
]
USER, OTHER = "user space", "other"
# Of a front-end.
OWN, OWN_MODULES = "LARD or IPVS", ("lard", "ip_vs", "ip_vs_rr")


class Symbols:
    """The functions that a machine's kernel has, all or, from a list of before, those of the kernel
    itself."""

    def __init__(self, text):
        entries = []
        for line in text.splitlines():
            address, kind, *names = line.split()
            if kind in "tTwW":
                entries.append((int(address, 16), " ".join(names)))
        entries.sort()
        self.addresses = [address for address, _ in entries]
        self.names = [name for _, name in entries]

    def name(self, place):
        if place < KERNEL:
            return "all [user space]"
        # A place is 16 octets; a function may begin at any of them.
        return self.names[max(0, bisect.bisect_right(self.addresses, place + 15) - 1)]

    def kernel(self):
        """Those of the kernel itself, as text."""
        lines = zip(self.addresses, self.names)
        return "".join(f"{address:x} t {name}\n" for address, name in lines if "[" not in name)

    def softirq(self):
        """Where the kernel has handle_softirqs(), as the counter wants to be told."""
        at = self.names.index("handle_softirqs")
        begin = self.addresses[at]
        end = next(address for address in self.addresses[at:] if address > begin)
        return f"{begin:x}-{end:x}"


def of(machine):
    return Symbols(machine.get("/proc/kallsyms").decode())


def _kept(image):
    return os.path.join(image, "functions")


def known(image):
    """Has a guest been asked where this image's kernel has its functions? That takes it long."""
    return os.path.exists(_kept(image)) and os.path.exists(softirq_place(image))


def keep(machine, image):
    symbols = of(machine)
    for path, text in ((_kept(image), symbols.kernel()), (softirq_place(image), symbols.softirq() + "\n")):
        with open(f"{path}.new", "w") as file:
            file.write(text)
        os.rename(f"{path}.new", path)


@functools.cache
def area(function):
    return next((name for name, pattern in AREAS if re.search(pattern, function)), OTHER)


class Areas:
    """Sorts a machine's places into areas."""

    def __init__(self, image):
        with open(_kept(image)) as file:
            self.symbols = Symbols(file.read())
        self.modules = []

    def look(self, machine):
        """At the modules that are there now. They are not in the kernel's list."""
        found = []
        for line in machine.get("/proc/modules").decode().splitlines():
            name, size, *_, address = line.partition(" (")[0].split()
            found.append((int(address, 16), int(size), name))
        self.modules = sorted(found)

    def _area(self, place):
        if place < KERNEL:
            return USER
        at = bisect.bisect_right(self.modules, (place + 15, 1 << 63)) - 1
        if at >= 0 and place < sum(self.modules[at][:2]):
            module = self.modules[at][2]
            return OWN if module in OWN_MODULES else area(f"{module}_") if module.startswith("nf") else f"module {module}"
        return area(self.symbols.name(place))

    def sums(self, places):
        sums = collections.Counter()
        for place, count in places.items():
            if count:
                sums[self._area(place)] += count
        return sums


def demangled(names):
    result = subprocess.run(
        ["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True
    )
    return result.stdout.splitlines()


def text(title, places, symbols, requests):
    counts = collections.Counter()
    for place, count in places.items():
        if count:
            counts[symbols.name(place)] += count
    total = sum(counts.values())
    modules = collections.Counter()
    for name, count in counts.items():
        modules[name.partition(" [")[2].rstrip("]") or "the kernel itself"] += count
    ordered = counts.most_common(TOP)
    lines = [f"\n{title}: {total / requests:.0f} instructions a request, of these in"]
    for name, count in modules.most_common():
        lines.append(f"{count / requests:10.0f} {100 * count / total:6.2f}%  all of {name}")
    lines.append("and by function")
    for (_, count), name in zip(ordered, demangled([name for name, _ in ordered])):
        lines.append(f"{count / requests:10.0f} {100 * count / total:6.2f}%  {name}")
    return "\n".join(lines)
