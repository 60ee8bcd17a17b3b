# SPDX-License-Identifier: GPL-2.0
"""Memory that is not there. The debug kernel makes allocations fail on demand (failslab); what fails
gives way with a reason and a counter, and everything is as before when there is memory again."""

import contextlib

import pytest
from support import counted, enter, run

pytestmark = pytest.mark.faults

FAILSLAB = "/sys/kernel/debug/failslab"
# What packets, requests and the module's own entries are made of. Not what TCP sends from: a FIN that has
# no memory is never sent. Not what reference trackers and serial lines are made of, which the checks and
# the harness stand on.
CACHES = (
    "TCP request_sock_TCP skbuff_head_cache"
    " kmalloc-96 kmalloc-128 kmalloc-192 kmalloc-256 kmalloc-2k"
).split()


@contextlib.contextmanager
def failing(guest, caches, begin, end):
    """Allocations of these caches fail, as `begin` says, until `end`."""
    files = " ".join(f"/sys/kernel/slab/{cache}/failslab" for cache in caches)
    guest.sh(
        f"cd {FAILSLAB}; echo 0 >verbose; echo -1 >times; echo Y >cache-filter\n"
        f"for file in {files}; do echo 1 >$file; done; {begin}"
    )
    try:
        yield guest
    finally:
        guest.sh(f"cd {FAILSLAB}; {end}; for file in {files}; do echo 0 >$file; done")


def now_and_then(cluster, caches, percent):
    """Those in atomic context fail this often."""
    (guest,) = cluster.lab.roots()
    return failing(guest, caches, f"echo {percent} >probability", "echo 0 >probability")


def by_number(lab):
    """Those fail that a thread chooses, but of what checks are made of: reference trackers, and kmemleak,
    which would give up."""
    (guest,) = lab.lab.roots()
    checks = {"kmalloc-32", "kmemleak_object", "kmemleak_scan_area"}
    caches = set(guest.sh("ls /sys/kernel/slab").stdout.split()) - checks
    return failing(guest, sorted(caches), "echo N >ignore-gfp-wait", "echo Y >ignore-gfp-wait")


def ask(host, count):
    answers = [client.get(host, f"/who?{random.random()}") for _ in range(count)]
    return sorted({answer.status for answer in answers})


def test_a_back_end_without_memory_for_a_connection_refuses_it(cluster):
    host = cluster.fes[0].ext
    with now_and_then(cluster, ["request_sock_TCP"], 100):
        with counted(cluster, be_no_memory=3, fe_refused_no_memory=3, fe_503=3):
            assert run(cluster.client, ask, host, 3) == [503]
    assert run(cluster.client, ask, host, 3) == [200]
    cluster.wait_empty()


@pytest.mark.parametrize("mode", ["pin", "move", "forward"])
def test_allocations_that_fail_now_and_then_cost_requests_and_nothing_else(cluster, mode):
    """What is answered is right, the tables are empty at the end, and all is served again."""

    def storm(hosts, workers, count, requests):
        outcomes = {}

        def work(number):
            for n in range(number, count, workers):
                try:
                    with client.Connection(hosts[n % len(hosts)], timeout=20) as connection:
                        for request in range(requests):
                            size = 3000 + n % 5
                            answer = connection.request(f"/size/{size}?{n}-{request}")
                            outcome = answer.status
                            if outcome == 200 and answer.sha256 != content.sha256(size):
                                outcome = "wrong"
                except (OSError, client.Closed) as error:
                    outcome = type(error).__name__
                outcomes[outcome] = outcomes.get(outcome, 0) + 1

        threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {str(outcome): count for outcome, count in outcomes.items()}

    enter(cluster, mode)
    hosts = [machine.ext for machine in cluster.fes]
    cluster.spoil()
    with now_and_then(cluster, CACHES, 2), counted(cluster, fe_no_memory=1, be_no_memory=1):
        outcomes = run(cluster.client, storm, hosts, 8, 200, 4)
    print(outcomes)
    assert outcomes.get("200", 0) > 0 and "wrong" not in outcomes, outcomes
    assert run(cluster.client, storm, hosts, 8, 40, 4) == {"200": 40}
    cluster.wait_empty()


def exhaust(kind, last):
    """Has a process do something, with one of its allocations failing, then with the next, for the last
    ones that there are. How many there are, how often it failed for that, and how often it did not."""
    import ctypes
    import genl
    import member

    libc = ctypes.CDLL(None, use_errno=True)

    def call(function, *arguments):
        if function(*arguments) < 0:
            raise OSError(ctypes.get_errno(), "refused")

    def load():
        module = os.open("/lard/lard.ko", os.O_RDONLY)
        call(libc.syscall, ctypes.c_long(313), module, b"", 0)  # finit_module

    def unload():
        subprocess.run(["rmmod", "lard"], check=True)

    def namespace():
        call(libc.unshare, 0x40000000)  # CLONE_NEWNET

    def node():
        owner = genl.Owner()
        owner.attach(7, 77, "seven", 7, member.mapped("127.0.0.1"))
        peer = socket.create_connection(listener.getsockname())
        owner.add_peer(peer, 3, member.FRONT_END | member.BACK_END)
        owner.detach()

    def server():
        with socket.socket(21, socket.SOCK_STREAM) as target:
            target.bind(("127.0.0.1", 7080))
            target.listen(8)

    action = {"load": load, "namespace": namespace, "node": node, "server": server}[kind]
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)

    def fail(number):
        """Is it done, and how many allocations more would there have to be for one to fail?"""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            nth = os.open("/proc/thread-self/fail-nth", os.O_RDWR)
            os.write(nth, b"%d" % number)
            done = False
            try:
                action()
                done = True
            except (OSError, LookupError, MemoryError):
                pass
            finally:
                os.write(writing, b"%d %s" % (done, os.pread(nth, 20, 0)))
                os._exit(0)
        os.waitpid(child, 0)
        with contextlib.suppress(BlockingIOError):
            while True:
                listener.accept()
        done, left = map(int, os.read(reading, 50).split())
        os.close(reading)
        os.close(writing)
        if done and kind == "load":
            unload()
        return done, left

    plenty = 1 << 20
    done, left = fail(plenty)
    assert done and left
    count = plenty - left
    refused = went_on = 0
    for number in range(max(1, count - last), plenty):
        done, left = fail(number)
        if left:
            # Without a failed allocation everything goes well.
            assert done, number
            return count, refused, went_on
        refused, went_on = refused + (not done), went_on + done


@pytest.mark.limit(600)
# The kernel's own words about memory that is not there, with stacks; its warnings have a line of their own.
@pytest.mark.log_allows(r"allocation failure|VM_FAULT_OOM leaked|Call Trace|\[<[0-9a-f]+>\] \?")
@pytest.mark.parametrize("kind", ["load", "namespace", "node", "server"])
def test_each_allocation_that_fails_is_an_error_and_leaves_nothing(lab, kind):
    """Nothing that checks on the debug kernel finds, be it lost memory or a reference too many."""
    with by_number(lab) as guest:
        if kind == "load":
            guest.sh("rmmod lard")
        # What is loaded, and what a namespace has, is the kernel's own at the beginning.
        outcome = run(guest, exhaust, kind, 400, timeout=500)
    count, refused, went_on = outcome
    print(f"{count} allocations, {refused} times an error, {went_on} times none")
    assert refused
