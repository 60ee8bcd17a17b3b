# SPDX-License-Identifier: GPL-2.0
"""Bad networks: loss, reordering, duplication and delay on each link, contents compared."""

import pytest
from support import CROSSED, LINKS, counted, run, spoil_link

FAULTS = {
    "loss-2": "loss 2%",
    "loss-10": "loss 10%",
    "disorder": "delay 40ms 15ms reorder 30% 50% duplicate 10%",
}


def transfer(host, threads, timeout):
    """Downloads and uploads at once; returns what went wrong."""
    wrong = []

    def work(number):
        try:
            with client.Connection(host, timeout=timeout) as connection:
                for size in (100, 100_000):
                    answer = connection.request(f"/size/{size}", keep_body=False)
                    assert answer.sha256 == content.sha256(size), f"/size/{size}"
                body = content.stream()[number : number + 40_000]
                fields = [("Content-Length", str(len(body)))]
                text = client.head("/echo", method="POST", fields=fields, close=True)
                cut = number * 7 % len(text)
                connection.send(text[:cut])
                connection.send(text[cut:] + body)
                answer = connection.answer().json()
                assert answer["sha256"] == hashlib.sha256(body).hexdigest(), answer
        except Exception as error:
            wrong.append(f"{number}: {type(error).__name__} {error}")

    client.side_by_side(work, threads)
    return wrong


@pytest.mark.vms
@pytest.mark.layout(**CROSSED)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("link", LINKS)
def test_contents_survive_a_bad_link(cluster, link, fault):
    spoil_link(cluster, link, FAULTS[fault])
    assert run(cluster.client, transfer, cluster.fes[0].ext, 6, 100, timeout=150) == []


def ask_at_length(host, threads, length):
    """Requests with heads of that length, all at once; returns what was not answered well."""
    wrong = []

    def work(number):
        try:
            with client.Connection(host, timeout=60) as connection:
                connection.send(client.head(f"/who?{number}", length=length, close=True))
                answer = connection.answer()
                assert answer.status == 200, answer.status
        except Exception as error:
            wrong.append(f"{number}: {type(error).__name__} {error}")

    client.side_by_side(work, threads)
    return wrong


# What waits for seconds is no sign of death.
PATIENT = "--set handoff-timeout-ms=60000 --set dead-after-ms=60000"


@pytest.mark.layout(nodes=2, d=1, fe=(1,), be=(2,), options=PATIENT)
def test_hand_offs_wait_for_room_on_a_narrow_link_to_the_only_back_end(cluster):
    front_end = cluster.fes[0]
    # A megabyte in twenty seconds, of which a quarter may wait to be sent, and little in the socket.
    front_end.sh("sysctl -qw net.ipv4.tcp_wmem='4096 16384 32768'")
    front_end.netem("int0", "rate 400kbit limit 10000")
    with counted(cluster, fe_handoff_later=1, exact_fe_503=0, exact_be_adopted=120):
        assert run(cluster.client, ask_at_length, front_end.ext, 120, 8000, timeout=100) == []


@pytest.mark.vms
@pytest.mark.layout(**CROSSED)
def test_contents_survive_faults_on_all_links_at_once(cluster):
    outside = "delay 5ms 2ms loss 2% duplicate 1%"
    spoil_link(cluster, "client-ext0", outside)
    for machine in cluster.nodes:
        machine.netem("ext0", outside)
    for machine in cluster.nodes:
        machine.netem("int0", "delay 2ms 1ms loss 1% duplicate 1%")
    assert run(cluster.client, transfer, cluster.fes[0].ext, 8, 100, timeout=150) == []


@pytest.mark.vms
@pytest.mark.layout(**CROSSED)
# As much disorder as above with a tenth of the delay: over 40 ms Linux's own TCP falls to 125 kB/s.
@pytest.mark.parametrize("fault", [FAULTS["loss-2"], "delay 4ms 2ms reorder 30% 50% duplicate 10%"])
def test_sixteen_mebibytes_survive_a_bad_link(cluster, fault):
    def fetch(host):
        return client.check_size(host, content.LARGEST)

    for machine in cluster.bes:
        machine.netem("ext0", fault)
    assert run(cluster.client, fetch, cluster.fes[0].ext, timeout=160).startswith("node")
