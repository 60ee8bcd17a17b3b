# SPDX-License-Identifier: GPL-2.0
"""Clients that people use, on persistent connections, in each mode: none sees a failure, each byte that
can be checked is right, nothing is left of them, and counters show that the mode did what it is for.

Across machines the client is a namespace of the host, which has those that scripts/setup installs: curl,
Python and ab."""

import re

import pytest
from support import FOUR, counted, due, elsewhere, run

SERVERS = {1: "nginx", 2: "python", 3: "apache", 4: "nginx"}
SIZES = (0, 100, 1460, 10_000, 100_000)
# What wrk does: it asks for the targets in turn, and checks status and length of the answers.
WRK = """\
local targets = {{{targets}}}
local threads = {{}}
asked, answered, wrong = 0, 0, 0
setup = function(thread) table.insert(threads, thread) end
request = function()
    asked = asked + 1
    return wrk.format("GET", targets[asked % #targets + 1])
end
response = function(status, headers, body)
    answered = answered + 1
    if status ~= 200 or #body ~= {size} then wrong = wrong + 1 end
end
done = function()
    for _, thread in ipairs(threads) do
        io.write("answered " .. thread:get("answered") .. " wrong " .. thread:get("wrong") .. "\\n")
    end
end
"""

pytestmark = pytest.mark.layout(**FOUR, servers=SERVERS)


def targets_of(name, count):
    return [f"/size/{SIZES[n % len(SIZES)]}?{name}-{n}" for n in range(count)]


def owners(host, targets):
    """Which node serves each target, asked on a connection of its own. Clients name the port in the Host
    field, which is a part of the target."""
    nodes = {}
    for target in targets:
        with client.Connection(host) as connection:
            answer = connection.request(target, host=f"{host}:{client.PORT}", close=True)
            nodes[target] = answer.node
    return nodes


def expected(cluster, mode, targets):
    """Who answers for each target when all are asked for on one connection, and what is counted."""
    owned = run(cluster.client, owners, cluster.fes[0].ext, targets)
    assert len(set(owned.values())) > 1, owned
    answers = [due(cluster, mode, owned)[owned[targets[0]]][target] for target in targets]
    return [node for node, _ in answers], elsewhere(mode, answers)


def served_elsewhere(mode, least):
    """What is counted when at least so many further requests are another node's."""
    return {"pin": {"exact_fe_next": 0}, "forward": {"fe_supplied": least}}.get(
        mode, {"fe_move_begun": least}
    )


def while_a_node_is_drained(cluster, mode, target, commands, connections, least):
    """What clients say that ask for one target each, all the time on so many connections each. Once all
    these are there the node of `target`, the first one's, is drained, and somebody else asks for it:
    then it is another node's, and so are the further requests of who has it still from the drained one."""
    host = cluster.fes[0].ext

    def under_way():
        rows = cluster.connections(cluster.layout.fe[0])
        return sum(row["state"] == "forwarding" for row in rows)

    def owner():
        return run(cluster.client, owners, host, [target])[target]

    drained = owner()
    cluster.wait(lambda: under_way() == 0, what="no connection of before")
    running = [cluster.client.spawn(command) for command in commands]
    every = connections * len(commands)
    cluster.wait(lambda: under_way() >= every, what=f"{every} connections")
    dispatcher = cluster.node(cluster.layout.d)
    try:
        with counted(cluster, **served_elsewhere(mode, least)):
            dispatcher.sh(f"cluster_startup drain {drained}")
            assert owner() != drained
            return [process.wait(170).stdout for process in running]
    finally:
        dispatcher.sh(f"cluster_startup drain {drained} --undo")


@pytest.mark.vms
def test_curl_with_many_urls(cluster, mode):
    targets = targets_of("curl", 24) * 2
    nodes, counters = expected(cluster, mode, targets)

    def fetch(host, targets, nodes):
        import tempfile

        words = ["curl", "-sS", "--fail", "-w", "%{num_connects} %{response_code} %header{x-node}\\n"]
        with tempfile.TemporaryDirectory() as directory:
            for number, target in enumerate(targets):
                words += ["-o", f"{directory}/{number}", f"http://{host}:8080{target}"]
            done = subprocess.run(words, capture_output=True, text=True)
            assert done.returncode == 0 and not done.stderr, done
            lines = [line.split() for line in done.stdout.splitlines()]
            # One connection, each answer from its node.
            assert [line[0] for line in lines] == ["1"] + ["0"] * (len(targets) - 1), lines
            assert [line[1:] for line in lines] == [["200", node] for node in nodes], lines
            for number, target in enumerate(targets):
                size = int(target.partition("?")[0].rpartition("/")[2])
                with open(f"{directory}/{number}", "rb") as file:
                    assert hashlib.sha256(file.read()).hexdigest() == content.sha256(size), target

    with counted(cluster, **counters):
        run(cluster.client, fetch, cluster.fes[0].ext, targets, nodes)


@pytest.mark.vms
def test_pythons_http_client(cluster, mode):
    targets = targets_of("python", 20) * 3
    nodes, counters = expected(cluster, mode, targets)

    def fetch(host, targets, nodes):
        import http.client

        connection = http.client.HTTPConnection(host, 8080, timeout=60)
        connection.connect()
        ours = connection.sock.getsockname()
        for target, node in zip(targets, nodes):
            connection.request("GET", target, headers={"Accept": "*/*"})
            answer = connection.getresponse()
            body = answer.read()
            size = int(target.partition("?")[0].rpartition("/")[2])
            assert (answer.status, answer.getheader("X-Node")) == (200, node), target
            assert hashlib.sha256(body).hexdigest() == content.sha256(size), target
        # It connects again by itself when a server closes.
        assert connection.sock.getsockname() == ours
        connection.close()

    with counted(cluster, **counters):
        run(cluster.client, fetch, cluster.fes[0].ext, targets, nodes)


@pytest.mark.vms
@pytest.mark.long
def test_ab(cluster, mode):
    """It knows one target only, whose node is drained in the middle."""
    target = "/size/1460?ab"
    command = f"ab -q -k -n 2000 -c 16 'http://{cluster.fes[0].ext}:8080{target}' 2>&1"
    (done,) = while_a_node_is_drained(cluster, mode, target, [command], 16, 16)
    assert re.search(r"Complete requests: +2000\n", done), done
    assert re.search(r"Keep-Alive requests: +2000\n", done), done
    assert re.search(r"Failed requests: +0\n", done) and "Non-2xx" not in done, done
    assert re.search(rf"HTML transferred: +{2000 * 1460} bytes", done), done


@pytest.mark.long
def test_wrk(cluster, mode):
    targets = [f"/size/1460?wrk-{n}" for n in range(24)]
    expected(cluster, mode, targets)
    script = WRK.format(targets=", ".join(f'"{t}"' for t in targets), size=1460)
    cluster.client.write("/tmp/wrk.lua", script)
    # It knows only times, and goes on as fast as it can.
    with counted(cluster, **served_elsewhere(mode, 50)):
        done = cluster.client.sh(
            "wrk -t 1 -c 16 -d 6s --timeout 60s -s /tmp/wrk.lua"
            f" http://{cluster.fes[0].ext}:8080",
            timeout=100,
        ).stdout
    found = re.search(r"answered (\d+) wrong 0\n", done)
    assert found and int(found[1]) >= 100, done
    assert "Socket errors" not in done and "Non-2xx" not in done, done


@pytest.mark.long
@pytest.mark.parametrize("pipelined", [1, 4])
def test_h2load_without_h2(cluster, mode, pipelined):
    targets = [f"/size/1460?h2load-{n}" for n in range(24)]
    expected(cluster, mode, targets)
    urls = " ".join(f"'http://{cluster.fes[0].ext}:8080{target}'" for target in targets)
    # A server that has the next request already is seldom done with all of them.
    least = 200 if pipelined == 1 else 5
    with counted(cluster, **served_elsewhere(mode, least)):
        done = cluster.client.sh(
            f"h2load --h1 -t 1 -n 2000 -c 16 -m {pipelined} {urls}", timeout=170
        ).stdout
    whole = "2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed, 0 errored, 0 timeout"
    assert whole in done and "2000 2xx, 0 3xx, 0 4xx, 0 5xx" in done, done
    assert re.search(rf"\({2000 * 1460}\) data", done), done


@pytest.mark.long
def test_gos_client_whose_node_is_drained(cluster, mode):
    """Two at once, since hey knows one target: that of the first leaves its node in the middle."""
    sizes = {"/size/1460?hey": 1460, "/size/10000?hey": 10_000}
    commands = [
        f"hey -n 1600 -c 8 -q 50 -t 60 'http://{cluster.fes[0].ext}:8080{target}'"
        for target in sizes
    ]
    # Some may be at their end when their node is drained.
    said = while_a_node_is_drained(cluster, mode, next(iter(sizes)), commands, 8, 4)
    for done, size in zip(said, sizes.values()):
        assert re.search(r"\[200\]\t1600 responses", done), done
        assert re.search(rf"Total data:\t{1600 * size} bytes", done), done
        assert "Error distribution" not in done, done
