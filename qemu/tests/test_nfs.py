# SPDX-License-Identifier: GPL-2.0
"""Documents of back-ends shared over NFS (`cluster_startup -BE --nfs`), with the system's own NFS, and
the samples of servers for them."""

import os
import time

import pytest
from lardvm import build, nfs
from support import MODES, begin, counted, due, elsewhere, enter, run, set_everywhere, set_mode

DOCROOT = "/srv/www"


def shared(*back_ends):
    """The layout in which these share their documents."""
    options = {number: f"--nfs {DOCROOT}" for number in back_ends}
    return {"nodes": 4, "d": 1, "fe": (1,), "be": back_ends, "servers": None, "options": options}


SHARED = shared(2, 3, 4)
# What Debian's own configuration has around that of a site; and answers name their node.
APACHE = """\
ServerRoot {state}
PidFile {state}/pid
ErrorLog {state}/error.log
DefaultRuntimeDir {state}
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
LoadModule rewrite_module /usr/lib/apache2/modules/mod_rewrite.so
LoadModule headers_module /usr/lib/apache2/modules/mod_headers.so
Header always set X-Node {name}
Include {state}/site.conf
"""


def start_sample(cluster, number, kind, handed_over=None, options=""):
    """A server with a configuration of the samples; `handed_over` is the address and port that clients
    of connections that were handed over have connected to."""
    machine = cluster.node(number)
    state = f"/tmp/{machine.name}-{kind}"
    with open(os.path.join(build.TOP, "samples", "forward", f"{kind}.conf")) as file:
        text = file.read().replace("/var/www/html", DOCROOT)
    if handed_over:
        text = text.replace("203.0.113.10:8080", handed_over)
        text = text.replace("8080", handed_over.rpartition(":")[2])
    text = text.replace("http {\n", f"http {{\n    add_header X-Node {machine.name} always;\n")
    machine.write(f"{state}/site.conf", text)
    if kind == "nginx":
        server = f"nginx -c {state}/site.conf -g 'daemon off; pid {state}/pid; error_log {state}/log;'"
    else:
        machine.write(f"{state}/main.conf", APACHE.format(state=state, name=machine.name))
        server = f"apache2 -DFOREGROUND -f {state}/main.conf"
    running = machine.spawn(f"exec lard_run {options} {server}")

    def serves():
        assert running.poll() is None, running.wait()
        return machine.sh(f"curl -sf http://{machine.ext}:7080/who", check=False).code == 0

    cluster.wait(serves, what=f"{kind} serves")
    return running


def start_as_handed_over(cluster, number, kind, options=""):
    """One that takes connections to its own port for such that were handed over."""
    return start_sample(cluster, number, kind, f"{cluster.node(number).ext}:7080", options)


def stop_sample(running):
    running.kill(15)
    running.wait(30)


def fetch(cluster, number, target):
    """Status, where a redirection leads, and checksum of the body, asked of the server's own port."""
    words = "curl -s --path-as-is -o /tmp/fetched -w '%{http_code} %{redirect_url}'"
    url = f"http://{cluster.node(number).ext}:7080{target}"
    status, _, redirected = cluster.client.sh(f"{words} '{url}'").stdout.partition(" ")
    checksum = cluster.client.sh("sha256sum </tmp/fetched").stdout.split()[0]
    return status, redirected.partition(":7080")[2] or redirected, checksum


def complete(cluster, numbers=None):
    return nfs.complete([cluster.node(number) for number in numbers or cluster.layout.be], DOCROOT)


@pytest.fixture
def sharing(lab):
    """A cluster of which each back-end has an NFS server; nothing of the cluster is started."""
    if not nfs.possible(lab):
        pytest.skip("this kernel has no NFS")
    machines = lab.bes
    servers = [(machine, nfs.start(machine, DOCROOT)) for machine in machines]
    for machine in machines:
        machine.sh(f"echo {machine.name} >{DOCROOT}/who; head -c 100000 /dev/urandom >{DOCROOT}/big")
    for machine in machines:
        lab.wait(lambda: nfs.ready(machine), timeout=40, what=f"NFS of {machine.name}")
    yield lab
    if not all(guest.alive() for guest in lab.lab.guests):
        # A test has killed one: no machine is used again.
        return
    lab.stop_nodes()
    for machine, server in servers:
        nfs.stop(machine, DOCROOT, server)


@pytest.mark.vms
@pytest.mark.layout(**SHARED)
def test_back_ends_share_their_documents_and_nothing_else(sharing):
    sharing.start()
    sharing.wait(lambda: complete(sharing), what="all documents are mounted")
    two, three = sharing.node(2), sharing.node(3)
    place = f"{DOCROOT}/{three.int}"
    assert two.sh(f"cat {place}/who").stdout == "node3\n"
    theirs = three.sh(f"sha256sum <{DOCROOT}/big").stdout
    assert two.sh(f"sha256sum <{place}/big").stdout == theirs
    # Nobody writes, and mounts of the other are not seen.
    assert "Read-only file system" in two.sh(f"touch {place}/new", check=False).stderr
    assert two.sh(f"ls {place}/{two.int}").stdout == ""
    options = two.sh(f"grep ' {place} ' /proc/mounts").stdout.split()[3].split(",")
    for option in ("ro", "vers=3", "soft", "noac", "lookupcache=none", "nosuid", "nodev"):
        assert option in options, options
    for how in nfs.exports(two).values():
        assert {"ro", "hide", "root_squash"} <= how, how
    # The dispatcher's node is a member, but no back-end.
    refused = sharing.node(1).sh(
        f"mkdir -p /tmp/mnt; mount.nfs {two.int}:{DOCROOT} /tmp/mnt -o vers=3,nolock,retry=0",
        check=False,
    )
    assert refused.code and "access denied" in refused.stderr, refused


@pytest.mark.vms
@pytest.mark.layout(**SHARED)
def test_what_is_shared_follows_the_members(sharing):
    sharing.start()
    sharing.wait(lambda: complete(sharing), what="all documents are mounted")
    four = sharing.node(4)
    # Killed, it is missed by the others, and its own mounts stay.
    sharing.kill_node(4)
    sharing.wait(lambda: complete(sharing, (2, 3)), what="the others have taken its documents away")
    assert len(nfs.mounts(four)) == 2 and len(nfs.exports(four)) == 2
    assert sharing.node(2).sh(f"ls {DOCROOT}").stdout.split() == [sharing.node(3).int, "big", "who"]
    # Started again it finds what it has left.
    sharing.start([4])
    sharing.wait(lambda: complete(sharing), what="all documents are mounted again")
    # What somebody has taken away comes back.
    four.sh(f"umount -l {DOCROOT}/{sharing.node(2).int}")
    sharing.wait(lambda: complete(sharing), what="what was unmounted by hand is mounted again")
    # One that leaves leaves nothing, also with a file in use.
    reader = four.spawn(f"exec sleep 1000 <{DOCROOT}/{sharing.node(2).int}/big")
    sharing.kill_node(4, 15)
    assert nfs.mounts(four) == {} and nfs.exports(four) == {}
    assert four.sh(f"ls {DOCROOT}").stdout.split() == ["big", "who"]
    sharing.wait(lambda: complete(sharing, (2, 3)), what="it is gone everywhere")
    reader.kill()


def read_of_one_that_goes(sharing, reader, limit):
    """Node 4 leaves the network; `reader` asks for a document of it. Returns the seconds until that failed."""
    four = sharing.node(4)
    four.sh("ip link set int0 down")
    begun = time.monotonic()
    failed = sharing.node(reader).sh(f"cat {DOCROOT}/{four.int}/who", check=False, timeout=limit)
    assert failed.code and failed.stderr, failed
    return time.monotonic() - begun


@pytest.mark.layout(**SHARED)
def test_a_machine_that_is_gone_holds_nobody_up(sharing):
    sharing.start()
    sharing.wait(lambda: complete(sharing), what="all documents are mounted")
    # What waits is ended when the node is missed, which is before the mount itself would give up.
    took = read_of_one_that_goes(sharing, 2, 60)
    assert took < 5 * sharing.slow, took
    sharing.wait(lambda: complete(sharing, (2, 3)), what="the others have taken its documents away")


@pytest.mark.long
@pytest.mark.layout(**SHARED)
def test_a_mount_that_nobody_looks_after_gives_up(sharing):
    sharing.start()
    sharing.wait(lambda: complete(sharing), what="all documents are mounted")
    sharing.kill_node(3)
    took = read_of_one_that_goes(sharing, 3, 60)
    # Fifteen seconds, once more.
    assert 25 < took < 30 + 5 * sharing.slow, took
    # The other one is looked after.
    gone = f"{DOCROOT}/{sharing.node(4).int}"
    sharing.wait(lambda: gone not in nfs.mounts(sharing.node(2)), what="node 2 has unmounted it")


@pytest.mark.layout(**SHARED)
def test_what_cannot_be_shared_is_refused_with_the_remedy(sharing):
    two = sharing.node(2)

    def refused(docroot, machine=two):
        words = f"cluster_startup -BE -da node1 --internal {machine.int} --nfs {docroot}"
        done = machine.sh(words, check=False)
        assert done.code == 1, done
        return done.stderr

    assert "No such file" in refused("/srv/no-such-place")
    assert "Not a directory" in refused(f"{DOCROOT}/who")
    assert "--nfs takes a directory" in refused("/")
    # The root of a guest is an overlay.
    two.sh("mkdir -p /srv/overlay")
    said = refused("/srv/overlay")
    assert "support NFS export" in said and "file system that NFS can export" in said, said
    assert "systemctl start nfs-server" in refused("/srv/overlay", sharing.node(1))
    # Nothing is left of the attempts.
    assert nfs.exports(two) == {}
    # A place that is taken does not keep the node from its work.
    taken = f"{DOCROOT}/{sharing.node(3).int}"
    two.sh(f"mkdir {taken}; touch {taken}/mine")
    sharing.start()

    def said_so():
        return "no empty directory" in sharing.startup[2].stderr()

    sharing.wait(said_so, what="the place is named")
    sharing.wait(lambda: len(nfs.mounts(two)) == 1, what="the other one is mounted")
    two.sh(f"rm {taken}/mine")
    sharing.wait(lambda: complete(sharing), what="it is mounted once there is room")


# Whoever may write in the document root makes links of the places as soon as they are there.
CHANGE = """\
while :; do
	for place in {places}; do
		rmdir $place 2>/dev/null && ln -s {elsewhere} $place && echo changed
	done
done"""


@pytest.mark.layout(**SHARED)
def test_nothing_is_mounted_where_somebody_else_leads(sharing):
    two = sharing.node(2)
    places = [f"{DOCROOT}/{sharing.node(number).int}" for number in (3, 4)]
    two.sh("mkdir -p /tmp/elsewhere")
    leading = two.spawn(CHANGE.format(places=" ".join(places), elsewhere="/tmp/elsewhere"))
    sharing.start()
    sharing.wait(lambda: "changed" in leading.stdout(), what="a place was changed")
    sharing.wait(lambda: "no empty directory" in sharing.startup[2].stderr(), what="it is said")
    assert not nfs.mounts(two)
    leading.kill()
    two.sh("; ".join(f"test -d {place} -a ! -h {place} || rm -f {place}" for place in places))
    sharing.wait(lambda: complete(sharing), what="all documents are mounted")


def requests(place):
    """What was asked of the server of a mount so far: {kind of request: how often}."""
    counts, here = {}, False
    for line in open("/proc/self/mountstats"):
        if line.startswith("device "):
            here = f" mounted on {place} " in line
        elif here and line.strip().startswith(("READ:", "GETATTR:", "LOOKUP:")):
            name, _, numbers = line.strip().partition(":")
            counts[name] = int(numbers.split()[0])
    return counts


def read_twice(place, direct):
    for _ in range(2):
        file = os.open(f"{place}/big", os.O_RDONLY | (os.O_DIRECT if direct else 0))
        data = b""
        while piece := os.read(file, 65536):
            data += piece
        os.close(file)
        assert len(data) == 100_000


@pytest.mark.vms
@pytest.mark.layout(**SHARED)
def test_names_and_attributes_are_not_cached_and_data_is_unless_read_directly(sharing):
    """What the documentation says of caches; no option of a mount switches that of data off."""
    sharing.start()
    sharing.wait(lambda: complete(sharing), what="all documents are mounted")
    two, three = sharing.node(2), sharing.node(3)
    place = f"{DOCROOT}/{three.int}"
    run(two, read_twice, place, False)
    asked = []
    for direct in (False, True):
        before = run(two, requests, place)
        run(two, read_twice, place, direct)
        after = run(two, requests, place)
        asked.append({kind: after[kind] - before[kind] for kind in after})
    cached, direct = asked
    assert cached["READ"] == 0 and cached["LOOKUP"] >= 2 and cached["GETATTR"] >= 2, cached
    assert direct["READ"] >= 2, direct
    # A new file is seen at once, and so is the end of one.
    for text in ("one", "two"):
        assert two.sh(f"cat {place}/new", check=False).code != 0
        three.sh(f"echo {text} >{DOCROOT}/new")
        assert two.sh(f"cat {place}/new").stdout == f"{text}\n"
        three.sh(f"rm {DOCROOT}/new")


@pytest.mark.vms
@pytest.mark.layout(**SHARED)
@pytest.mark.parametrize("kind", ["nginx", "apache"])
def test_servers_keep_nothing_of_others_when_told_so(sharing, kind):
    sharing.start()
    sharing.wait(lambda: complete(sharing), what="all documents are mounted")
    two, three = sharing.node(2), sharing.node(3)
    place = f"{DOCROOT}/{three.int}"
    want = three.sh(f"sha256sum <{DOCROOT}/big").stdout.split()[0]
    reads = {}
    for options in ("", f"--uncached {DOCROOT}"):
        server = start_as_handed_over(sharing, 2, kind, options)
        assert fetch(sharing, 2, f"/{three.int}/big") == ("200", "", want)
        before = run(two, requests, place)["READ"]
        for _ in range(3):
            assert fetch(sharing, 2, f"/{three.int}/big") == ("200", "", want)
        reads[options] = run(two, requests, place)["READ"] - before
        stop_sample(server)
    kept, not_kept = reads.values()
    assert kept == 0 and not_kept >= 3, reads


def make_documents(root, node, documents):
    """Files of these lengths, with other octets on each node: their checksums."""
    sums = {}
    for name, size in documents.items():
        data = hashlib.shake_128(f"{node}{name}".encode()).digest(size)
        with open(root + name, "wb") as file:
            file.write(data)
        sums[name] = hashlib.sha256(data).hexdigest()
    return sums


def each_alone(host, names):
    """On connections of their own: the answering node, and the checksum."""
    answers = {name: client.get(host, name) for name in names}
    return {name: [answer.node, answer.sha256] for name, answer in answers.items()}


def all_on_one(host, names):
    with client.Connection(host) as connection:
        answers = [connection.request(name) for name in names]
        return [[answer.status, answer.node, answer.sha256] for answer in answers]


def serve_documents(cluster, kinds, documents):
    """Starts the cluster, with the same names and other octets on each node, and gives the checksums."""
    sums = {}
    for number, kind in kinds.items():
        machine = cluster.node(number)
        sums[machine.name] = run(machine, make_documents, DOCROOT, machine.name, documents)
        start_sample(cluster, number, kind, f"{cluster.fes[0].ext}:8080", f"--uncached {DOCROOT}")
    cluster.start()
    cluster.wait(lambda: complete(cluster), what="all documents are mounted")
    return sums


@pytest.mark.vms
@pytest.mark.long
@pytest.mark.layout(**shared(1, 2, 3, 4))
@pytest.mark.limit(300)
def test_a_hundred_requests_on_one_connection_in_each_mode(sharing):
    kinds = {1: "nginx", 2: "apache", 3: "nginx", 4: "apache"}
    sizes = (20, 1460, 10_000, 100_000)
    documents = {f"/document-{n}": sizes[n % len(sizes)] for n in range(24)}
    sums = serve_documents(sharing, kinds, documents)
    by_address = {machine.int: machine.name for machine in sharing.bes}
    # Each mode waits for the entries of the one before.
    set_everywhere(sharing, time_wait_ms=3000)
    for mode in MODES:
        enter(sharing, mode)
        alone = run(sharing.client, each_alone, sharing.fes[0].ext, list(documents))
        owned = {name: node for name, (node, _) in alone.items()}
        assert set(owned.values()) == set(sums)
        assert all(alone[name][1] == sums[node][name] for name, node in owned.items()), alone
        # Apache ends a connection with its hundredth request.
        first = next(name for name in documents if kinds[int(owned[name].removeprefix("node"))] == "nginx")
        names = [first, *(list(documents) * 5)][:100]
        answers = [due(sharing, mode, owned)[owned[first]][name] for name in names]
        wanted = [
            [200, node, sums[by_address.get(supplier, node)][name]]
            for name, (node, supplier) in zip(names, answers)
        ]
        with counted(sharing, exact_fe_move_failed=0, exact_fe_503=0, **elsewhere(mode, answers)):
            assert run(sharing.client, all_on_one, sharing.fes[0].ext, names) == wanted, mode
        sharing.wait_empty()


def begin_to_read(host, first, second):
    """What becomes of the answer to the second request, of which the beginning has come."""
    with client.Connection(host, timeout=150) as connection:
        home = connection.request(first).node
        connection.send(client.head(second))
        while len(connection.buffer) < 20_000:
            connection.more()
        print("under way", flush=True)
        try:
            return [home, connection.answer(keep_body=False).status]
        except (OSError, client.Closed) as error:
            return [home, type(error).__name__]


@pytest.mark.vms
@pytest.mark.layout(**SHARED)
def test_a_supplier_that_dies_in_the_middle_of_an_answer_costs_that_answer(sharing):
    documents = {f"/document-{n}": 8_000_000 if n < 6 else 1000 for n in range(12)}
    sums = serve_documents(sharing, dict.fromkeys(sharing.layout.be, "nginx"), documents)
    enter(sharing, "forward")
    host = sharing.fes[0].ext
    alone = run(sharing.client, each_alone, host, list(documents))
    owned = {name: node for name, (node, _) in alone.items()}
    long = next(name for name in documents if documents[name] > 1000)
    short = next(name for name in documents if documents[name] == 1000 and owned[name] != owned[long])
    home = owned[short]
    supplier = sharing.node(int(owned[long].removeprefix("node")))
    # Some seconds for all of it; what waits on the link keeps no sign of life up for long.
    supplier.netem("int0", "rate 10mbit")
    with counted(sharing, fe_supplied=1):
        running = begin(sharing.client, begin_to_read, host, short, long)
        sharing.wait(lambda: "under way" in running.process.stdout(), what="an answer under way")
    sharing.spoil()
    supplier.kill()
    begun = time.monotonic()
    node, outcome = running.result(timeout=60 * sharing.slow)
    # What waits is ended when the node is missed, before the mount itself would give up.
    assert node == home and outcome in ("Closed", "ConnectionResetError"), outcome
    assert time.monotonic() - begun < 8 * sharing.slow
    # The server at home goes on, with its only worker.
    assert fetch(sharing, int(home.removeprefix("node")), short) == ("200", "", sums[home][short])
    rest = tuple(n for n in sharing.layout.be if sharing.node(n) is not supplier)
    sharing.wait(lambda: complete(sharing, rest), what="the others have taken its documents away")

    def elsewhere_now():
        answers = run(sharing.client, each_alone, host, list(documents))
        return all(node != supplier.name and sum == sums[node][name]
                   for name, (node, sum) in answers.items())

    sharing.wait(elsewhere_now, what="everything is served by the others")


@pytest.mark.vms
@pytest.mark.layout(**SHARED)
def test_each_request_of_a_connection_gets_the_document_of_the_node_it_belongs_to(sharing):
    servers = {2: "nginx", 3: "apache", 4: "nginx"}
    sizes = (20, 1460, 10_000, 100_000)
    documents = {f"/document-{n}": sizes[n % len(sizes)] for n in range(24)}
    front_end = sharing.fes[0]
    sums = serve_documents(sharing, servers, documents)
    sharing.set(1, "policy", "lb")
    set_mode(sharing, mode="forward")

    answers = run(sharing.client, each_alone, front_end.ext, list(documents))
    owners = {name: node for name, (node, _) in answers.items()}
    assert all(answers[name][1] == sums[node][name] for name, node in owners.items()), answers
    assert set(owners.values()) == set(sums)
    # Who served one just now has it still, and nobody else.
    for machine in sharing.bes:
        others = [DOCROOT + name for name, node in owners.items() if node != machine.name]
        machine.sh("rm " + " ".join(others))
    for home in sums:
        # Each node is that of the first request once.
        names = [name for name in documents if owners[name] == home]
        names = [names[0], *documents]
        wanted = [[200, home, sums[owners[name]][name]] for name in names]
        supplied = sum(owners[name] != home for name in names)
        with counted(sharing, exact_fe_supplied=supplied, exact_fe_move_failed=0):
            assert run(sharing.client, all_on_one, front_end.ext, names) == wanted
    # Nobody gets there past the front-end.
    for number in servers:
        other = next(machine for machine in sharing.bes if machine is not sharing.node(number))
        name = next(name for name in documents if owners[name] == other.name)
        assert fetch(sharing, number, f"/{other.int}{name}")[0] in ("403", "404")


@pytest.mark.layout(**SHARED | {"options": {number: f"--nfs {DOCROOT}" for number in (2, 3)}})
def test_what_is_not_mounted_is_answered_by_the_node_that_has_the_connection(sharing):
    """Node 4 does not share its documents."""
    names = [f"/document-{n}" for n in range(24)]
    sums = {}
    front_end = sharing.fes[0]
    for number in SHARED["be"]:
        machine = sharing.node(number)
        sums[machine.name] = run(machine, make_documents, DOCROOT, machine.name, dict.fromkeys(names, 1460))
        start_sample(sharing, number, "nginx", f"{front_end.ext}:8080", f"--uncached {DOCROOT}")
    sharing.start()
    sharing.wait(lambda: complete(sharing, (2, 3)), what="two have each other's documents")
    sharing.set(1, "policy", "lb")
    set_mode(sharing, mode="forward")
    answers = run(sharing.client, each_alone, front_end.ext, names)
    owners = {name: node for name, (node, _) in answers.items()}
    assert set(owners.values()) == set(sums)

    def check(home, mounted):
        first = next(name for name in names if owners[name] == home)
        asked = [first, *names]
        of = [owners[name] if owners[name] in mounted else home for name in asked]
        wanted = [[200, home, sums[node][name]] for name, node in zip(asked, of)]
        supplied = sum(node != home for node in of)
        unmounted = sum(owners[name] not in (home, *mounted) for name in asked)
        counts = {"exact_fe_supplied": supplied, "exact_fe_busy_unmounted": unmounted}
        with counted(sharing, exact_fe_move_failed=0, **counts):
            assert run(sharing.client, all_on_one, front_end.ext, asked) == wanted

    check("node2", {"node3"})
    check("node3", {"node2"})

    def head_between(host, first, missing, mounted):
        with client.Connection(host) as connection:
            home = connection.request(first).node
            head = connection.request(missing, method="HEAD")
            length = head.fields["content-length"]
            return [home, head.status, head.node, length, connection.request(mounted).sha256]

    # HEAD is handed over all the same, so that the connection can still be followed.
    first, mounted, missing = [
        next(name for name in names if owners[name] == node) for node in ("node2", "node3", "node4")
    ]
    with counted(sharing, exact_fe_busy_unmounted=1, exact_fe_supplied=1, exact_fe_move_begun=2):
        answers = run(sharing.client, head_between, front_end.ext, first, missing, mounted)
    assert answers == ["node2", 200, "node2", "1460", sums["node3"][mounted]]


@pytest.mark.layout(nodes=2, d=1, fe=(1,), be=(2,), servers=None)
@pytest.mark.parametrize("kind", ["nginx", "apache"])
def test_samples_answer_for_mounts_only_what_was_handed_over(cluster, kind):
    machine = cluster.node(2)
    machine.sh(
        f"rm -rf {DOCROOT}; mkdir -p {DOCROOT}/10.20.0.9/dir; cd {DOCROOT}; echo page | tee who"
        " 10.20.0.9/page >10.20.0.9/dir/page"
    )
    page = machine.sh("echo page | sha256sum").stdout.split()[0]
    reserved = ["/10.20.0.9/page", "/10.20.0.9", "/10.20.0.9/", "/10.20.0%2e9/page", "//10.20.0.9/page",
                "/./10.20.0.9/page", "/x/../10.20.0.9/page", "/%31%30.20.0.9/dir/page"]
    server = start_sample(cluster, 2, kind)
    assert fetch(cluster, 2, "/who") == ("200", "", page)
    for target in reserved:
        status, _, checksum = fetch(cluster, 2, target)
        assert status in ("403", "404") and checksum != page, (target, status)
    # No list either.
    assert fetch(cluster, 2, "/")[0] in ("403", "404")
    stop_sample(server)
    server = start_as_handed_over(cluster, 2, kind)
    assert fetch(cluster, 2, "/10.20.0.9/page") == ("200", "", page)
    assert fetch(cluster, 2, "/10.20.0.9/dir")[:2] == ("301", "/dir/")
    assert fetch(cluster, 2, "/10.20.0.9/")[0] in ("403", "404")
    stop_sample(server)
    machine.sh(f"rm -rf {DOCROOT}")
