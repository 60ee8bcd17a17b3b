# SPDX-License-Identifier: GPL-2.0
"""Responses on their way through a machine that does not serve them: there are to be none.

Counted exactly, at the machine's interfaces: packets that come in with the service's port as source.
"""

import json

from .cluster import FRONT_END_PORT

TABLE = "crossing"


def count(machine):
    """Counts from now on."""
    chains = "".join(
        f"chain {nic} {{ type filter hook ingress device {nic} priority -450;"
        f" tcp sport {FRONT_END_PORT} counter; }}\n"
        for nic in ("ext0", "int0")
    )
    stop(machine)
    machine.sh("nft -f -", input=f"table netdev {TABLE} {{ {chains} }}\n")


def octets(machine):
    """How much came in since."""
    table = json.loads(machine.sh(f"nft -j list table netdev {TABLE}").stdout)
    return sum(
        part["counter"]["bytes"]
        for entry in table["nftables"]
        for part in entry.get("rule", {}).get("expr", [])
        if "counter" in part
    )


def stop(machine):
    machine.sh(f"nft delete table netdev {TABLE} 2>/dev/null; true")
