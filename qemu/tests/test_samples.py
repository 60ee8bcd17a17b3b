# SPDX-License-Identifier: GPL-2.0
"""The samples: a server and a client on the family, in C and in Rust, behind a cluster."""

import os
import re

import pytest
from lardvm import build


def c_programs(directory):
    """Built in the suite's tree, for the C library that guests have."""
    source = os.path.join(build.TOP, "samples", "c")
    build.script(
        "in-tree",
        *("make", "-s", "-C", directory, "-f", f"{source}/Makefile", f"VPATH={source}"),
        "CFLAGS=-O2 -Wall -Wextra -Werror",
    )
    return [os.path.join(directory, name) for name in ("server", "client")]


def rust_programs(_):
    """Built by `scripts/setup --tests`."""
    return [build.tool_path(name) for name in ("lard_server", "lard_client")]


@pytest.mark.layout(nodes=3, d=1, fe=(1,), be=(2,), servers=None)
@pytest.mark.parametrize("programs", [c_programs, rust_programs])
def test_a_sample_serves_behind_the_cluster_and_fetches_from_it(cluster, programs):
    directory = os.path.join(build.TOP, "build", "samples")
    os.makedirs(directory, exist_ok=True)
    # The client has to be another machine, and one that has the family.
    machines = [cluster.node(2), cluster.node(3)]
    for machine, path in zip(machines, programs(directory)):
        machine.put(f"/tmp/sample-{machine.name}", build.read(path), 0o755)
    server, other = machines
    running = server.spawn("exec /tmp/sample-node2 7080 sample")
    listens = "ss -tlnH 'sport = 7080'"
    cluster.wait(lambda: server.sh(listens).stdout, what="the sample listens")
    host = cluster.fes[0].ext
    answers = [other.sh(f"/tmp/sample-node3 {host} 8080 /{n}").stdout for n in range(3)]
    for answer in answers:
        head, _, body = answer.partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 200 "), answer
        # Handed over: the addresses are those of the client's connection to the front-end.
        assert re.fullmatch(rf"sample: from {other.ext}:\d+ to {host}:8080\n", body), answer
    assert running.poll() is None
