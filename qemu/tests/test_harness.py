# SPDX-License-Identifier: GPL-2.0
"""The harness itself: a fault here would let the other tests pass or fail for nothing."""

import os
import re
import subprocess
import sys
import time

import pytest
from conftest import REPORTED
from lardvm import build, log_gate
from lardvm import lab as labs
from lardvm.capture import FILES, SIZE, Capture
from lardvm.channel import GuestGone
from lardvm.cluster import Layout
from lardvm.machine import HostMachine
from lardvm.pool import Pool


@pytest.mark.parametrize(
    "line",
    [
        "[ 1.0] WARNING: CPU: 0 PID: 1 at net/ipv4/tcp.c:1 tcp_x+0x1/0x2",
        "[ 1.0] BUG: sleeping function called from invalid context at mm/slab.h:1",
        "[ 1.0] WARNING: possible recursive locking detected",
        "[ 1.0] refcount_t: underflow; use-after-free.",
        "[ 1.0] rcu: INFO: rcu_preempt self-detected stall on CPU",
        "[ 1.0] unregister_netdevice: waiting for lo to become free. Usage count = 2",
        "[ 1.0] IPv4: leaked 2 sockets",
        "[ 1.0] eth0: Driver has suspect GRO implementation, TCP performance may be compromised.",
        "[ 1.0] Oops: general protection fault, probably for non-canonical address",
        "[ 1.0] rust_kernel: panicked at net/lard/front_end.rs:1:1:",
    ],
)
def test_the_log_gate_catches(line):
    assert log_gate.findings(line) == [line]
    assert log_gate.findings(line, allowed=".") == []


@pytest.mark.parametrize(
    "line",
    [
        "[ 1.0] lard: loading out-of-tree module taints kernel.",
        "[ 1.0] lard: module verification failed: signature and/or required key missing",
        "[ 1.0] rcu: Hierarchical SRCU implementation.",
        "[ 1.0] lard: node 1 joined",
        # Each report is looked at by itself, see Lab.leaks.
        "[ 1.0] kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
    ],
)
def test_the_log_gate_lets_pass(line):
    assert log_gate.findings(line) == []


# Tests whose machines are none: what they say in their kernels' place is what a run is to make of it.
PRETENDED = """\
from types import SimpleNamespace
import pytest
from lardvm.pool import Reported


class Pretended:
    log, current, booted = "", None, 0
    mode, slow, spoilt, guests, nodes = "vms", 1, False, [], []
    startup, server = {}, {}
    client = SimpleNamespace(name="client", int=None, sh=lambda *_, **__: SimpleNamespace(stdout=""))

    def get(self, layout, started):
        self.booted += self.lab is None
        self.lab = self
        return self

    def kernel_log(self, forget=False):
        said = self.log
        if forget:
            self.log = ""
        return said

    def spoil(self):
        self.spoilt = True

    def captured(self):
        return None

    def undo(self):
        pass

    def drop(self):
        self.spoilt = False

    def stop(self):
        self.lab, self.log = None, ""

    lab = None


POOL = Pretended()


@pytest.fixture
def pool():
    return POOL


def test_good(lab):
    assert lab.booted == 1


def test_warning(lab):
    POOL.log = "WARNING: possible recursive locking detected"


def test_after_it(lab):
    assert lab.booted == 2


def test_fails(lab):
    assert not lab


def test_leak(lab):
    raise Reported("memory leaked")
"""


@pytest.mark.parametrize(
    "words, status",
    [
        ("good", 0),
        ("good or fails", 1),
        ("good or warning or after_it", REPORTED),
        ("fails or warning", REPORTED),
        ("leak", REPORTED),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_kernel_reports_ends_its_guest_and_has_a_status_of_its_own(
    tmp_path, words, status, workers
):
    (tmp_path / "test_pretended.py").write_text(PRETENDED)
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider"]
    command += ["--rootdir", str(tmp_path), "-k", words, *(["-n", str(workers)] if workers else [])]
    here = os.path.dirname(os.path.abspath(__file__))
    environment = {**os.environ, "PYTHONPATH": here}
    run = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == status, run.stdout + run.stderr
    assert ("KERNEL REPORT" in run.stdout) == (status == REPORTED), run.stdout
    # But for those that are to fail, none does: guests are new after a report, and kept otherwise.
    wrong = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    assert all(any(word in line for word in ("fails", "warning", "leak")) for line in wrong), wrong


def test_guests_that_do_not_come_up_are_not_used_again(monkeypatch, tmp_path):
    class Stuck(labs.NsLab):
        def _start(self, keep):
            raise GuestGone("no answer")

    monkeypatch.setattr(labs, "NsLab", Stuck)
    pool = Pool("ns", 1, str(tmp_path))
    for _ in range(2):
        with pytest.raises(GuestGone):
            pool.get(Layout(nodes=1), started=True)
        assert pool.lab is None


def dump(tmp_path, packets, *words):
    (tmp_path / "capture.pcap").write_bytes(packets)
    words = ["tcpdump", "-enr", str(tmp_path / "capture.pcap"), *words]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()


@pytest.fixture
def alone():
    """A network namespace of this machine, as a machine."""
    name = f"lard-test-{os.getpid()}"
    labs.host("ip", "netns", "add", name)
    yield HostMachine("alone", name)
    labs.host("ip", "netns", "del", name)


# The pauses are for tcpdump, and the last packets are few.
MANY = """\
import socket, time
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range({count}):
    sender.sendto(bytes(100), ("127.0.0.1", 10000 + number % 50000))
    if number % 500 == 0 or number > {count} - 20:
        time.sleep(0.005)
"""


def test_of_many_packets_the_last_are_kept_in_order(alone, tmp_path):
    count = 60_000
    alone.sh("ip link set lo up")
    capture = Capture(alone, str(tmp_path / "ring"))
    end = time.monotonic() + 30
    while "listening" not in capture.process.stderr():
        assert capture.process.poll() is None and time.monotonic() < end, capture.process.stderr()
        time.sleep(0.02)
    alone.python(MANY.format(count=count))
    packets = capture.end()
    assert (FILES - 1) * SIZE * 0.99e6 < len(packets) <= FILES * SIZE * 1.01e6
    lines = dump(tmp_path, packets, "udp")
    ports = [int(re.search(r"> 127[.]0[.]0[.]1[.](\d+):", line)[1]) - 10000 for line in lines]
    assert ports[-1] == (count - 1) % 50000
    # Few are lost to a machine that has much else to do.
    steps = [(after - before) % 50000 for before, after in zip(ports, ports[1:])]
    assert len(ports) > 10_000 and all(0 < step < 5000 for step in steps)


@pytest.mark.vms
def test_packets_between_machines_are_kept_once_each(lab, tmp_path):
    if lab.lab.capture is None:
        pytest.skip("--no-capture")
    one, two = lab.nodes[:2]
    one.sh(f"ping -c 2 -i 0.2 -W 5 {two.int}; ping -c 1 -W 5 {two.ext}")
    lines = dump(tmp_path, lab.lab.captured(), "icmp")
    seen = [re.search(r" (52:54:\S+) .* echo (request|reply)", line).groups() for line in lines]
    internal = [(labs.station("int", 1), "request"), (labs.station("int", 2), "reply")]
    external = [(labs.station("ext", 1), "request"), (labs.station("ext", 2), "reply")]
    assert seen == internal * 2 + external


@pytest.mark.long
def test_a_cluster_for_a_person_is_there_until_it_is_taken_down():
    name = f"test-{os.getpid()}"

    def qemu_cluster(*words):
        program = os.path.join(build.TOP, "qemu", "cluster")
        command = [sys.executable, program, words[0], "--name", name, *words[1:]]
        return subprocess.run(command, capture_output=True, text=True, timeout=150)

    def succeeds(*words):
        done = qemu_cluster(*words)
        assert done.returncode == 0, done
        return done.stdout

    try:
        assert succeeds("up", "--nodes", "2").startswith("node1 node2 client: up in ")
        script = "echo $LARD_NODE; test -d /sys/module/lard && ping -c 1 -W 5 node1 >&2"
        assert succeeds("sh", "node2", "--", script) == "node2\n"
        assert qemu_cluster("sh", "node2", "--", "exit 3").returncode == 3
        assert "lard" in succeeds("log", "node2")
        succeeds("reload")
    finally:
        succeeds("down")
    gone = qemu_cluster("sh", "node2", "--", "true")
    assert gone.returncode != 0 and "no cluster" in gone.stderr, gone
    assert f"lard-{name}" not in subprocess.run(
        ["ip", "netns", "list"], capture_output=True, text=True
    ).stdout


@pytest.mark.vms
def test_machines_reach_each_other_on_both_networks(lab):
    for machine in lab.nodes:
        lab.client.sh(f"curl -s -m 1 http://{machine.ext}:9/ ; ip neigh get {machine.ext} dev ext0")
        for other in lab.nodes:
            if other is not machine:
                machine.sh(f"ping -c 1 -W 5 {other.int} && ping -c 1 -W 5 {other.ext}")


@pytest.mark.vms
def test_commands_run_side_by_side_and_can_be_killed(lab):
    start = time.monotonic()
    procs = [machine.spawn("sleep 2; echo $LARD_NODE") for machine in lab.nodes]
    assert [proc.wait(20).stdout.strip() for proc in procs] == [m.name for m in lab.nodes]
    assert time.monotonic() - start < 2 * len(lab.nodes) * lab.slow
    proc = lab.client.spawn("echo started; sleep 100; echo not reached")
    lab.wait(lambda: "started" in proc.stdout(), what="output of a running command")
    assert proc.poll() is None
    proc.kill()
    assert "not reached" not in proc.wait(10).stdout


def test_a_command_that_cannot_be_started_fails_alone(lab):
    result = lab.node(1).sh("true " + 200_000 * "x", check=False)
    assert result.code == 1 and "too long" in result.stderr
    lab.node(1).sh("true")


@pytest.mark.vms
def test_files_and_exit_codes_come_back_unchanged(lab):
    machine = lab.node(1)
    data = bytes(range(256)) * 40
    machine.put("/tmp/file", data)
    assert machine.get("/tmp/file") == data
    assert machine.sh("cat; exit 3", check=False, input="text").code == 3
    with pytest.raises(AssertionError, match="exit code 1"):
        machine.sh("false")
    with pytest.raises(AssertionError, match="no end within"):
        machine.sh("sleep 50", timeout=1)


@pytest.mark.vms
def test_link_conditions_hold_until_the_end_of_a_test(lab):
    machine = lab.node(1)
    machine.netem("int0", "delay 300ms")
    before = machine.counters("int0")
    text = machine.sh(f"ping -c 2 -W 5 {lab.node(2).int}").stdout
    average = float(text.rpartition("= ")[2].split("/")[1])
    assert average >= 300
    after = machine.counters("int0")
    assert after["tx_packets"] - before["tx_packets"] >= 2
    lab.undo()
    assert "netem" not in machine.sh("tc qdisc show dev int0").stdout


@pytest.mark.vms
def test_kernel_messages_of_a_test_are_seen(lab):
    guest = lab.guests[0]
    guest.sh("echo '<4>harness: this line' > /dev/kmsg")
    assert "harness: this line" in lab.kernel_log()
    lab.begin_test()
    assert "harness: this line" not in lab.kernel_log()
