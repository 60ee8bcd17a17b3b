# SPDX-License-Identifier: GPL-2.0
"""Responses on their way through a machine that does not serve them: there are to be none.

Counted exactly, before the module has a say: packets that come in with the service's port as source.
"""

import json

from .cluster import FRONT_END_PORT

TABLE = "crossing"


def count(machine):
    """Counts from now on."""
    stop(machine)
    rule = f'iifname {{ "ext0", "int0" }} tcp sport {FRONT_END_PORT} counter'
    chain = f"chain in {{\ntype filter hook prerouting priority -450;\n{rule}\n}}\n"
    machine.sh("nft -f -", input=f"table ip {TABLE} {{\n{chain}}}\n")


def octets(machine):
    """How much came in since."""
    table = json.loads(machine.sh(f"nft -j list table ip {TABLE}").stdout)
    return sum(
        part["counter"]["bytes"]
        for entry in table["nftables"]
        for part in entry.get("rule", {}).get("expr", [])
        if "counter" in part
    )


def stop(machine):
    machine.sh(f"nft delete table ip {TABLE} 2>/dev/null; true")
