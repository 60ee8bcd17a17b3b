# SPDX-License-Identifier: GPL-2.0
"""Which back-ends may serve a request, by what it asks for; and what of a request is its target."""

import json

import pytest
from support import begin, counted, run, wait_idle

STATIC = {"node2", "node3"}
APP = {"node4", "node5"}
SITE = """\
# Static files on two nodes, the application on two others.
prefix /static/              tag static
suffix .gif method GET       tag static
                             tag app    # the rest
node node2,node3             tag static
node node4,node5             tag app
"""
FIVE = {"nodes": 5, "fe": (2, 4), "be": (2, 3, 4, 5)}
two_and_two = pytest.mark.layout(**FIVE)


def nodes_of(host, requests):
    """Which node answered each (target, named arguments of a head), or the status if it was not 200.

    Only /who is a page of the servers; all else they answer with 404, and their name.
    """
    seen = []
    for target, named in requests:
        with client.Connection(host) as connection:
            answer = connection.request(target, close=True, **named)
        seen.append(answer.node or answer.status)
    return seen


def ask(cluster, *requests, fe=0):
    requests = [(r, {}) if isinstance(r, str) else r for r in requests]
    return run(cluster.client, nodes_of, cluster.fes[fe].ext, requests)


def service(cluster, words="", check=True, number=None):
    machine = cluster.node(number or cluster.layout.d)
    return machine.sh(f"cluster_startup service {words}", check=check)


def put(cluster, text):
    """Replaces the service by that of a file, and waits until all front-ends have it."""
    machine = cluster.node(cluster.layout.d)
    machine.write("/run/lard-test-service", text)
    service(cluster, "--file /run/lard-test-service")
    settled(cluster)


def settled(cluster):
    def same():
        told = [service(cluster, "--json", number=n).stdout for n in cluster.layout.members()]
        return len(set(told)) == 1

    cluster.wait(same, what="all nodes have the dispatcher's service")


def rules(cluster, *lines):
    put(cluster, "".join(f"{line}\n" for line in lines))


@pytest.fixture(autouse=True)
def plain_service(cluster):
    """Every test here begins and ends without content rules, with the usual key."""
    yield
    if cluster.spoilt:
        return
    put(cluster, "key host+path+query\n")


def tags_of(cluster, number):
    nodes = cluster.status(number)["nodes"]
    return {node["name"]: set(node["tags"]) for node in nodes if "BE" in node["roles"]}


@pytest.mark.vms
@two_and_two
def test_static_files_on_two_nodes_and_the_application_on_two_others_by_one_file(cluster):
    wait_idle(cluster)
    put(cluster, SITE)
    for fe in (0, 1):
        static = ask(cluster, *[f"/static/{i}.css" for i in range(12)], fe=fe)
        assert set(static) == STATIC, static
        gifs = ask(cluster, *[f"/a/{i}.gif" for i in range(12)], fe=fe)
        assert set(gifs) <= STATIC, gifs
        posted = ask(cluster, *[(f"/a/{i}.gif", {"method": "POST"}) for i in range(6)], fe=fe)
        assert set(posted) <= APP, posted
        app = ask(cluster, *[f"/app/{i}" for i in range(12)], fe=fe)
        assert set(app) == APP, app
    for number in cluster.layout.members():
        tags = tags_of(cluster, number)
        assert tags == {n: {"static"} if n in STATIC else {"app"} for n in STATIC | APP}
    text = cluster.node(2).sh("cluster_startup status").stdout
    assert "target key: host+path+query" in text and "content: prefix /static/" in text, text


@pytest.mark.vms
@pytest.mark.layout(
    options={
        1: "--key path --content 'prefix /static/ tag static' --content 'tag app'",
        2: "--tag static,fast",
        3: "--tag static",
        4: "--tag app",
        5: "--tag app",
    },
    **FIVE,
)
def test_nodes_say_themselves_what_they_have(cluster):
    wait_idle(cluster)
    assert service(cluster).stdout == "key path\nprefix /static/ tag static\ntag app\n"
    assert set(ask(cluster, *[f"/static/{i}" for i in range(12)])) == STATIC
    assert set(ask(cluster, *[f"/{i}" for i in range(12)], fe=1)) == APP
    assert tags_of(cluster, 1)["node2"] == {"static", "fast"}
    rows = [row.split() for row in cluster.node(1).sh("cat /proc/net/lard_nodes").stdout.splitlines()]
    tags = {row[rows[0].index("NAME")]: row[rows[0].index("TAGS")] for row in rows[1:]}
    assert tags["node1"] == "-" and tags["node4"] == "app", tags
    assert sorted(tags["node2"].split(",")) == ["fast", "static"], tags
    # A rule for a tag that was unheard of before: nodes may have it already.
    service(cluster, "--content 'prefix /static/ tag static,fast' --content 'tag app'")
    settled(cluster)
    assert set(ask(cluster, *[f"/static/new-{i}" for i in range(12)])) == {"node2"}


@pytest.mark.vms
def test_each_condition_sends_requests_to_its_node(cluster):
    rules(
        cluster,
        "host www.example.com tag a",
        "host *.example.com tag b",
        "prefix /pre tag c",
        "suffix .end tag a",
        "method DELETE tag b",
        "header X-Kind=one tag c",
        "header X-Other tag a",
        "cookie user=joe tag b",
        "cookie session tag c",
        "node node2 tag a",
        "node node3 tag b",
        "node node4 tag c",
    )
    field = lambda name, value: {"fields": [[name, value]]}
    cases = [
        (("/1", {"host": "WWW.example.com:8080"}), "node2"),
        (("/1", {"host": "x.www.example.com"}), "node3"),
        (("/pre", {"host": "example.com"}), "node4"),
        (("/%70refix", {}), "node4"),
        (("/2.end?and=more", {}), "node2"),
        (("/pre.end", {}), "node4"),
        (("/3", {"method": "DELETE"}), "node3"),
        (("/4", field("x-kind", "one")), "node4"),
        (("/5", field("X-Other", "anything")), "node2"),
        (("/6", field("Cookie", "a=b; user=joe")), "node3"),
        (("/7", field("Cookie", "user=jim; session=1")), "node4"),
    ]
    for round in range(2):
        seen = ask(cluster, *[request for request, _ in cases], fe=round)
        assert seen == [node for _, node in cases], (round, seen)
    # What no rule matches may go to any node.
    assert set(ask(cluster, *[f"/any-{i}" for i in range(24)])) == {"node2", "node3", "node4"}


def test_the_first_rule_decides(cluster):
    nodes = ["node node2 tag a", "node node3 tag b"]
    rules(cluster, "prefix /x tag a", "prefix /x/y tag b", *nodes)
    assert ask(cluster, "/x/y/1") == ["node2"]
    rules(cluster, "prefix /x/y tag b", "prefix /x tag a", *nodes)
    assert ask(cluster, "/x/y/1", "/x/1") == ["node3", "node2"]


def test_nobody_has_the_tags(cluster):
    rules(cluster, "prefix /nowhere tag nobody-has-it", "prefix /both tag a,b",
          "node node2 tag a", "node node3 tag b")
    with counted(cluster, exact_fe_no_tagged_back_end=3, exact_fe_no_back_end=0):
        assert ask(cluster, "/nowhere/1", "/both/1", "/nowhere/2", fe=1) == [503] * 3
    assert ask(cluster, "/who")[0].startswith("node")
    # A node that is drained has nothing for new requests.
    rules(cluster, "prefix /drained tag a", "node node2 tag a")
    assert ask(cluster, "/drained/1") == ["node2"]
    cluster.node(1).sh("cluster_startup drain node2")
    try:
        with counted(cluster, exact_fe_no_tagged_back_end=1):
            assert ask(cluster, "/drained/1") == [503]
    finally:
        cluster.node(1).sh("cluster_startup drain node2 --undo")


@pytest.mark.parametrize(
    "key, same, other",
    [
        # What differs within each list is what the key does not look at.
        ("host", [("/a?1", {}), ("/b?2", {})], {"host": "other-%d"}),
        ("path", [("/t?1", {}), ("/t?2", {"host": "x"})], "/t-%d"),
        ("path+query", [("/t?1", {}), ("/t?1", {"host": "x"})], "/t?%d"),
        ("host+path", [("/t?1", {}), ("/t?2", {})], "/t-%d"),
        (
            "header:X-User",
            [("/a", {"fields": [["X-User", "joe"]]}), ("/b", {"fields": [["x-user", "joe"]]})],
            {"fields": [["X-User", "user-%d"]]},
        ),
        (
            "cookie:session",
            [
                ("/a?1", {"fields": [["Cookie", "session=s"]]}),
                ("/b", {"host": "x", "fields": [["Cookie", "x=y; session=s"]]}),
            ],
            {"fields": [["Cookie", "session=session-%d"]]},
        ),
    ],
)
def test_the_key_is_what_keeps_requests_on_a_node(cluster, key, same, other):
    cluster.set(1, "policy", "lb")
    cluster.set(1, "key", key)
    settled(cluster)
    # Twice, through both front-ends: the same key is on one node, whatever else differs.
    seen = ask(cluster, *same * 2) + ask(cluster, *same * 2, fe=1)
    assert len(set(seen)) == 1, seen
    # Other values of it are spread.
    def numbered(i):
        if isinstance(other, str):
            return (other % i, {})
        return ("/same", json.loads(json.dumps(other).replace("%d", str(i))))

    others = ask(cluster, *[numbered(i) for i in range(24)])
    assert set(others) == {"node2", "node3", "node4"}, others


def test_with_the_usual_key_the_same_requests_are_spread(cluster):
    """What the test above relies on: it is the key that keeps them together."""
    cluster.set(1, "policy", "lb")
    fields = {"fields": [["Cookie", "session=s"], ["X-User", "joe"]]}
    assert len(set(ask(cluster, *[(f"/{i}", fields) for i in range(24)]))) == 3


def load(host, gate):
    """One request after the other, by four clients, until somebody opens the gate; what each was answered,
    by kind of request."""
    seen, failures = {"s": {}, "a": {}}, []

    def one(number):
        i = 0
        while not os.path.exists(gate):
            i += 1
            kind = "s" if i % 2 else "a"
            try:
                with client.Connection(host, timeout=20) as connection:
                    answer = connection.request(f"/{kind}/{number}-{i % 50}", close=True)
                node = answer.node or str(answer.status)
                seen[kind][node] = seen[kind].get(node, 0) + 1
            except Exception as error:
                failures.append(repr(error))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    print("begun", flush=True)
    for thread in threads:
        thread.join()
    return {"seen": seen, "failures": failures}


# With a front-end on the dispatcher's own node.
@pytest.mark.layout(fe=(1, 2))
@pytest.mark.parametrize("front_end", [0, 1])
def test_everything_changes_under_load_without_a_failure(cluster, front_end):
    """Rules, tags, what nodes have and the key, under requests that wait for answers meanwhile."""
    first = ["prefix /s/ tag x", "tag y", "node node2 tag x", "node node3 tag y"]
    second = ["prefix /s/ tag u,w", "tag v", "node node4 tag u,w", "node node3 tag v"]
    machine = cluster.node(1)
    for name, lines, key in (("second", second, "host"), ("first", first, "path+query")):
        text = f"key {key}\n" + "".join(f"{line}\n" for line in lines)
        machine.write(f"/run/lard-test-{name}", text)
    change = " && ".join(
        f"cluster_startup service --file /run/lard-test-{name}" for name in ("second", "first")
    )
    machine.sh(change)
    settled(cluster)
    gate = "/run/lard-test-changed"
    cluster.client.sh(f"rm -f {gate}")
    running = begin(cluster.client, load, cluster.fes[front_end].ext, gate)
    cluster.wait(lambda: "begun" in running.process.stdout(), what="requests under way")
    with counted(cluster, exact_fe_503=0):
        machine.sh(f"for i in $(seq 20); do {change} || exit; done")
        cluster.client.sh(f"touch {gate}")
        result = running.result()
    assert not result["failures"], result["failures"][:5]
    seen = result["seen"]
    # Nothing ever went where neither the rules before nor those after a change allow it.
    assert set(seen["s"]) == {"node2", "node4"}, seen
    assert set(seen["a"]) == {"node3"}, seen
    assert sum(seen["a"].values()) > 40, seen


@two_and_two
def test_rules_hold_without_the_dispatcher_and_when_it_is_back(cluster):
    put(cluster, SITE)
    before = service(cluster).stdout
    cluster.kill_node(1)

    def alone():
        return cluster.status(2)["nodes"][0]["link"] in ("none", "closing") or not any(
            node["name"] == "node1" for node in cluster.status(2)["nodes"]
        )

    cluster.wait(alone, what="the front-end has lost the dispatcher")
    # Its last word was of itself, not of those that it said good-bye to before.
    assert {n["name"]: n["state"] for n in cluster.status(2)["nodes"]} == dict.fromkeys(
        STATIC | APP, "up"
    )
    with counted(cluster, fe_assign_fallback=24):
        assert set(ask(cluster, *[f"/static/{i}" for i in range(12)])) == STATIC
        assert set(ask(cluster, *[f"/{i}" for i in range(12)])) == APP
    assert service(cluster, number=2).stdout == before
    # Started again without any rules, it is the one that says.
    cluster.start_node(1)

    def plain():
        return not service(cluster, "--json", number=2, check=False).stdout.count("tag")

    cluster.wait(plain, what="the new dispatcher's service")
    put(cluster, SITE)
    cluster.wait(cluster.complete, what="all nodes know each other")
    assert set(ask(cluster, *[f"/static/again-{i}" for i in range(12)])) == STATIC


def test_a_node_that_comes_back_still_has_its_tags(cluster):
    rules(cluster, "tag only", "node node3 tag only")
    assert ask(cluster, "/1") == ["node3"]
    cluster.kill_node(3)
    cluster.wait(lambda: ask(cluster, "/1") == [503], what="nobody is left")
    cluster.start_node(3)
    cluster.wait(lambda: ask(cluster, "/1") == ["node3"], what="the node is back")
    cluster.wait(cluster.complete, what="all nodes know each other")


def test_what_is_wrong_is_refused_and_changes_nothing(cluster):
    rules(cluster, "prefix /a tag a", "node node2 tag a")
    before = service(cluster).stdout
    for bad, said in [
        ("prefx /a tag a", "column 1"),
        ("prefix a tag a", "column 8"),
        ("host a.*.b tag a", "column 6"),
        ("suffix .gif", "column 12"),
        ("tag a b", "column 7"),
        ("tag a/b", "column 5"),
        ("prefix /" + "x" * 300 + " tag a", "255 bytes"),
    ]:
        result = service(cluster, f"--content '{bad}'", check=False)
        assert result.code == 2 and said in result.stderr, (bad, result)
    machine = cluster.node(1)
    machine.write("/run/lard-test-service", "tag fine\n\nkey url\n")
    result = service(cluster, "--file /run/lard-test-service", check=False)
    assert result.code == 2 and "line 3, column 5" in result.stderr, result
    many = " ".join(f"--content 'tag t{i}'" for i in range(33))
    assert "32 tags" in service(cluster, many, check=False).stderr
    result = machine.sh("cluster_startup set t-low=30 key=url", check=False)
    assert result.code == 1 and "host, path, query" in result.stderr, result
    result = service(cluster, "--content 'tag a'", check=False, number=2)
    assert result.code == 1 and "node 1" in result.stderr, result
    result = cluster.node(2).sh("cluster_startup set key=path", check=False)
    assert result.code == 1 and "dispatcher's" in result.stderr, result
    assert service(cluster).stdout == before
    assert ask(cluster, "/a/1") == ["node2"]


def test_what_was_replaced_and_cleared_is_shown_by_all(cluster):
    full = [f"prefix /{i}/ tag t{i % 32}" for i in range(63)] + ["node node2,node3,node4 tag t5"]
    rules(cluster, *full)
    for number in cluster.layout.members():
        shown = json.loads(service(cluster, "--json", number=number).stdout)
        assert shown == {"key": "host+path+query", "content": full}, number
    assert ask(cluster, "/5/x", "/6/x", fe=1)[1] == 503
    service(cluster, "--clear")
    settled(cluster)
    assert service(cluster, number=3).stdout == "key host+path+query\n"
    assert tags_of(cluster, 3) == {n: set() for n in ("node2", "node3", "node4")}
    assert ask(cluster, "/6/x")[0].startswith("node")


@pytest.mark.layout(nodes=4, d=1, fe=(2,), be=(1, 3))
def test_only_the_dispatcher_says_what_the_service_is(cluster):
    """And what it says of tags is read by bits: whoever asks for unheard ones gets nobody."""
    rules(cluster, "tag a", "node node3 tag a")
    before = service(cluster, number=2).stdout

    def stranger(dispatcher, front_end, front_end_id, own):
        import member

        ended = []
        for to_dispatcher in (True, False):
            joined = member.Member(dispatcher)
            joined.join()
            one = joined
            if not to_dispatcher:
                one = member.Member(front_end)
                one.link(joined, front_end_id)
            one.send(member.HELLO, one.hello(own, tags="a"))
            one.send(member.SERVICE, member.service("host", "," * 31, "tag mine"))
            ended.append(one.ended())
            one.close()
            joined.close()
        joined = member.Member(dispatcher, name="asker", roles=member.FRONT_END)
        joined.join()
        joined.send(member.HELLO, joined.hello(own))
        kind = None
        while kind != member.SERVICE:
            kind, body = joined.receive()
        lengths = struct.unpack("!HHHH", body[:8])
        told, at = [], 8
        for length in lengths[:3]:
            told.append(body[at : at + length].decode())
            at += length
        bit = 1 << told[1].split(",").index("a")
        other = 1 if bit != 1 else 2
        # Who knows the service may ask.
        joined.send(member.PING, bytes(8))
        chosen = []
        for number, tags in enumerate((bit, other, bit | other)):
            joined.send(member.ASSIGN, member.assign(joined.id << 52 | number, 7, tags))
            while kind != member.ASSIGNED:
                kind, body = joined.receive()
            kind = None
            chosen.append(struct.unpack("!QHH", body)[1])
        joined.close()
        return [ended, chosen, told]

    nodes = cluster.status(1)["nodes"]
    ids = {node["name"]: node["id"] for node in nodes}
    with counted(cluster, ct_out_of_place=2):
        ended, chosen, told = run(
            cluster.node(4),
            stranger,
            cluster.node(1).int,
            cluster.node(2).int,
            ids["node2"],
            cluster.node(4).int,
        )
    assert ended == [True, True]
    assert chosen == [ids["node3"], 0, 0], (chosen, ids)
    assert told[0] == "host+path+query" and told[2] == "tag a\nnode node3 tag a\n", told
    assert service(cluster, number=2).stdout == before
