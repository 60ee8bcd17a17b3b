# SPDX-License-Identifier: GPL-2.0
"""Fixtures of the cluster tests, and what is done around each test.

    pytest qemu/tests              nodes are namespaces of one guest
    pytest qemu/tests --vms        the tests marked `vms`, a guest a node
    pytest qemu/tests --debug-kernel

`cluster` is a running cluster of the layout that `@pytest.mark.layout(...)` names, `lab` the same
machines with the module loaded and nothing started. A clean kernel log is part of every test. A guest
whose kernel has reported something is used no more, and the run ends with the exit status REPORTED, as
one that no second run makes good.
"""

import atexit
import os
import signal
import sys
import threading
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lardvm import artefacts, build, log_gate  # noqa: E402
from lardvm.channel import GuestGone  # noqa: E402
from lardvm.cluster import Layout  # noqa: E402
from lardvm.pool import Pool, Reported  # noqa: E402
from support import MODES, counted, enter  # noqa: E402

LIMIT = 180  # seconds for one test
DISKS = "/sys/kernel/config/nullb"
REPORTED = 9  # behind those of pytest


class KernelReport(pytest.fail.Exception):
    """A kernel has reported what need not happen again, and is a fault all the same."""


def pytest_addoption(parser):
    parser.addoption("--vms", action="store_true", help="a guest a node; only tests marked vms")
    parser.addoption("--debug-kernel", action="store_true", help="guests run the debug kernel")
    parser.addoption("--no-capture", action="store_true", help="no packets of failed tests")
    parser.addoption("--processors", default="2", help="of each tester's guest, in turn: 2,1,1")


def pytest_configure(config):
    for line in (
        "layout(**fields): the cluster this test wants, see lardvm.cluster.Layout",
        "vms: also run with a guest a node",
        "faults: needs a kernel that fails on demand, the debug kernel",
        "long: takes minutes under emulation; not in `make test` but in `make test-ns`, and in"
        " `make test-debug`, where nothing is emulated",
        "limit(seconds): longest time of the test",
        "log_allows(regex): kernel messages that are expected",
    ):
        config.addinivalue_line("markers", line)
    mode = "vms" if config.getoption("--vms") else "ns"
    if config.getoption("--debug-kernel"):
        mode += "-debug"
    name = time.strftime("%Y%m%d-%H%M%S-") + f"{mode}-{os.getpid()}"
    config.artefacts = os.path.join(build.TOP, "build", "artefacts", name)


def layout_of(item):
    mark = item.get_closest_marker("layout")
    fields = dict(mark.kwargs) if mark else {}
    for name in ("fe", "be"):
        if name in fields:
            fields[name] = tuple(fields[name])
    return Layout(**fields)


def pytest_collection_modifyitems(config, items):
    def is_wanted(item):
        vms = not config.getoption("--vms") or item.get_closest_marker("vms")
        return vms and (config.getoption("--debug-kernel") or not item.get_closest_marker("faults"))

    away = [item for item in items if not is_wanted(item)]
    if away:
        config.hook.pytest_deselected(items=away)
        items[:] = [item for item in items if is_wanted(item)]
    # Tests of one layout follow each other, so that a cluster serves many.
    first = {}
    for number, item in enumerate(items):
        key = ("lab" in item.fixturenames, repr(layout_of(item)))
        first.setdefault(key, number)
    items.sort(key=lambda item: first[("lab" in item.fixturenames, repr(layout_of(item)))])


def pytest_report_header(config):
    return f"artefacts: {config.artefacts}"


def directory_of(item):
    directory = os.path.join(item.config.artefacts, item.name)
    os.makedirs(directory, exist_ok=True)
    return directory


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if call.excinfo and call.excinfo.errisinstance((KernelReport, Reported)):
        # The report goes with all that is in it to the process that counts, if this is not it.
        report.of_kernel = True
    if report.failed:
        item.failed = True
        with open(os.path.join(directory_of(item), f"{call.when}.txt"), "w") as file:
            file.write(report.longreprtext)


def of_kernel(config):
    """The names of the tests during which a kernel reported something."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    reports = [report for kind in ("failed", "error") for report in terminal.getreports(kind)]
    return sorted({report.nodeid for report in reports if getattr(report, "of_kernel", False)})


def is_worker(config):
    return hasattr(config, "workerinput")


def pytest_sessionfinish(session, exitstatus):
    if exitstatus == pytest.ExitCode.TESTS_FAILED and not is_worker(session.config):
        if of_kernel(session.config):
            session.exitstatus = REPORTED


def pytest_terminal_summary(terminalreporter, config):
    for name in of_kernel(config):
        terminalreporter.line(f"KERNEL REPORT {name}: not made good by another run", red=True)


def processors(config):
    """Of this tester's guest."""
    each = config.getoption("--processors").split(",")
    number = int(config.workerinput["workerid"].removeprefix("gw")) if is_worker(config) else 0
    return int(each[number % len(each)])


def on_signal(number, handler):
    """Whether it is handled now: an execnet before 2.1 runs a worker's tests in another thread than the
    main one now and then. The guests end with their worker, and waits have limits of their own."""
    if threading.current_thread() is not threading.main_thread():
        return False
    signal.signal(number, handler)
    return True


def ended(number, _):
    # As an exception, so that guests and namespaces are removed on the way out; once.
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt(f"signal {number}")


@pytest.fixture(scope="session")
def pool(request):
    config = request.config
    os.makedirs(config.artefacts, exist_ok=True)
    mode = "vms" if config.getoption("--vms") else "ns"
    debug = config.getoption("--debug-kernel")
    directory = f"/run/lard-tests/{os.getpid()}"
    largest = max(layout_of(item).nodes for item in request.session.items)
    captured = not config.getoption("--no-capture")
    pool = Pool(
        mode, largest, directory, debug, config.artefacts, captured, processors(config)
    )
    atexit.register(pool.stop)
    on_signal(signal.SIGTERM, ended)
    on_signal(signal.SIGHUP, ended)
    yield pool
    try:
        pool.finish()
    finally:
        if pool.lab:
            artefacts.consoles(pool.lab, config.artefacts)
        pool.stop()


@pytest.fixture
def cluster(request, pool):
    yield from around(request, pool, started=True)


@pytest.fixture
def lab(request, pool):
    yield from around(request, pool, started=False)


@pytest.fixture(params=MODES)
def mode(request, cluster):
    """A cluster in this mode of persistent connections, of which nothing is left behind the test."""
    enter(cluster, request.param)
    with counted(cluster, exact_fe_move_failed=0, exact_fe_client_reset=0, exact_fe_503=0):
        yield request.param
        cluster.wait_empty()


@pytest.fixture
def slow_disk(cluster):
    """A disk in each guest that takes a second for each read, however fast the machine is."""
    for guest in cluster.guests:
        guest.sh("modprobe null_blk nr_devices=0", check=False)
        guest.sh(
            "mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config\n"
            f"mkdir {DISKS}/slow && cd {DISKS}/slow\n"
            "echo 64 >size; echo 64 >hw_queue_depth; echo 2 >irqmode\n"
            "echo 1000000000 >completion_nsec; echo 1 >power"
        )
    yield "/dev/slow"
    for guest in cluster.guests:
        guest.sh(f"echo 0 >{DISKS}/slow/power; rmdir {DISKS}/slow")


class Late(Exception):
    pass


def late(*_):
    raise Late("the test took longer than its limit")


def limit(seconds):
    """From now on; 0 for none."""
    if on_signal(signal.SIGALRM, late):
        signal.alarm(int(seconds))


def around(request, pool, started):
    item = request.node
    limit(600)
    try:
        cluster = pool.get(layout_of(item), started)
    except BaseException:
        if pool.current:
            log = pool.current.kernel_log()
            artefacts.failure(pool.current, directory_of(item), log)
            reported = log_gate.report(log)
            if reported:
                pool.stop()
                raise KernelReport("\n".join(reported)) from None
        raise
    cluster.title = item.nodeid
    mark = item.get_closest_marker("limit")
    limit((mark.args[0] if mark else LIMIT) * max(1, cluster.slow / 3))
    yield cluster
    limit(300)
    failed = getattr(item, "failed", False)
    problems = []
    mark = item.get_closest_marker("log_allows")
    allowed = mark.args[0] if mark else None
    reported = []
    log = ""
    try:
        log = cluster.kernel_log()
        reported = log_gate.report(log, allowed)
        if failed or reported:
            cluster.spoil()
            artefacts.failure(cluster, directory_of(item), log)
        if not reported:
            cluster.undo()
    except (GuestGone, TimeoutError, OSError, AssertionError) as error:
        problems.append(f"after the test: {error}")
        cluster.spoil()
    if cluster.spoilt and not reported:
        # Now, so that what cannot be taken away is this test's failure.
        try:
            pool.drop()
        except Reported as error:
            reported = str(error).splitlines()
        except Exception as error:
            problems.append(f"taking the cluster down: {error}")
    if pool.lab and not reported:
        log = pool.lab.kernel_log(forget=True)
        reported = log_gate.report(log, allowed)
        if reported:
            artefacts.failure(cluster, directory_of(item), log)
    artefacts.append(item.config.artefacts, "kernel.log", f"== {item.nodeid}\n{log}\n")
    if reported:
        # A checker that has reported once may have switched itself off.
        pool.stop()
    limit(0)
    if reported:
        raise KernelReport("\n".join([*problems, *reported][:120]), pytrace=False)
    if problems:
        pytest.fail("\n".join(problems[:120]), pytrace=False)
