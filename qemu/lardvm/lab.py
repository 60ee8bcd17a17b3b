# SPDX-License-Identifier: GPL-2.0
"""Machines and networks, before anything of LARD runs on them.

    node i:  ext0 10.10.0.i/24 (the clients' network)   int0 10.20.0.i/24 (the internal network)
    client:  ext0 10.10.0.100/24

`VmLab` has a guest a node; the bridges, taps and the client are in namespaces of the host.
`NsLab` has all of it in namespaces of one guest. The rest of the harness does not care which.
"""

import json
import os
import re
import shutil
import subprocess

from . import build, log_gate, vm
from .capture import Capture
from .machine import GuestMachine, HostMachine, sh_all, sh_each

# Two programs in all, since one takes long to start under emulation.
REMOVE = """\
import os, signal, subprocess
names = os.listdir("/run/netns")
inside = {os.stat(f"/run/netns/{name}").st_ino for name in names}
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        if os.stat(f"/proc/{pid}/ns/net").st_ino in inside:
            os.kill(int(pid), signal.SIGKILL)
    except OSError:
        pass
commands = "".join(f"netns del {name}\\n" for name in names)
if commands:
    subprocess.run(["ip", "-batch", "-"], input=commands, text=True)
"""
CLIENT = 100
SLOWNESS = {"kvm": 1.0, "tcg": 3.0, "uml": 3.0}


def ext_address(number):
    return f"10.10.0.{number}"


def int_address(number):
    return f"10.20.0.{number}"


def station(net, number):
    """The hardware address of a machine on the network `ext` or `int`."""
    return f"52:54:00:00:{('ext', 'int').index(net):02x}:{number:02x}"


def hosts(count):
    lines = [f"{int_address(i)} node{i}" for i in range(1, count + 1)]
    return "\n".join([*lines, f"{ext_address(CLIENT)} client", ""])


def host(*words, check=True):
    result = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if check and result.returncode:
        raise build.SetupFailed(f"{' '.join(words)}: {result.stderr.strip()}")
    return result.stdout


class Lab:
    """Guests and machines in a directory; also for another process (`attach`)."""

    mode = None

    def __init__(self, directory, count, debug=False):
        self.directory = os.path.abspath(directory)
        self.count = count
        self.debug = debug
        self.guests = []  # vm.Vm
        self.nodes = []
        self.client = None
        self.capture = None

    def save(self):
        with open(f"{self.directory}/lab.json", "w") as file:
            json.dump({"mode": self.mode, "count": self.count, "debug": self.debug}, file)

    @staticmethod
    def attach(directory):
        with open(f"{directory}/lab.json") as file:
            state = json.load(file)
        lab = {"vms": VmLab, "ns": NsLab}[state["mode"]](
            directory, state["count"], state["debug"]
        )
        lab.find()
        return lab

    @property
    def machines(self):
        return [*self.nodes, self.client]

    @property
    def slow(self):
        return SLOWNESS[self.guests[0].accelerator]

    def roots(self):
        """The guests themselves, as machines: for the module, the kernel log, slab statistics."""
        return [GuestMachine(guest, guest.spec.name) for guest in self.guests]

    def kernel_log(self, forget=False):
        """What the guests' kernels said since it was last forgotten; at first, since the boot."""
        lines = []
        for guest in self.guests:
            try:
                after = guest.log_mark
                answer = guest.channel.call("kernel_log", after=after, timeout=60)
                lines += [f"{guest.spec.name}: {line}" for line in answer["lines"]]
                if forget:
                    guest.log_mark = answer["last"]
            except (vm.GuestGone, TimeoutError, OSError) as error:
                if guest.killed:
                    continue
                console = guest.console()[-6000:]
                if guest.alive() and not log_gate.findings(console):
                    # No word of its kernel's: it may only be late.
                    raise
                lines += [f"{guest.spec.name}: PANIC? {error}"]
                lines += [f"{guest.spec.name}: {line}" for line in console.splitlines()]
        return "\n".join(lines)

    def leaks(self):
        """What kmemleak suspects and has not told before, but for what was lost before there was a
        program (User-Mode Linux loses a little); nothing without a debug kernel that has it."""
        if not self.debug or build.uml() == "plain":
            return ""
        file = "/sys/kernel/debug/kmemleak"
        scan = f"echo scan >{file} && cat {file} && echo clear >{file}"
        alive = [root for root in self.roots() if root.vm.alive()]
        told = "".join(root.sh(scan, timeout=120).stdout for root in alive)
        reports = re.split(r"^(?=unreferenced object)", told, flags=re.MULTILINE)
        return "".join(report for report in reports if 'comm "swapper/0"' not in report)

    def start_capture(self):
        """From now on the packets of both networks; what another capture had is forgotten."""
        if self.capture:
            self.capture.stop()
        self.capture = self._capture()

    def captured(self):
        """Ends the capture: the last packets, or None when there is no capture."""
        capture, self.capture = self.capture, None
        return capture and capture.end()

    def refresh_programs(self):
        """Gives the guests what of the checkout changed since their boot."""
        for root in self.roots():
            for path, (mode, data) in build.boot_files(self.debug, hosts(self.count)).items():
                if path not in ("agent.py", "place.py", "boot", "hosts"):
                    root.put(f"/lard/{path}", data, mode)

    def start(self, keep=False):
        shutil.rmtree(self.directory, ignore_errors=True)
        os.makedirs(self.directory)
        try:
            self._start(keep)
        except BaseException:
            self.stop()
            raise
        self.save()
        return self


class NsLab(Lab):
    mode = "ns"

    def __init__(self, directory, count, debug=False, processors=2):
        super().__init__(directory, count, debug)
        self.processors = processors

    def _spec(self):
        memory = 2560 if self.debug else 1536
        return vm.Spec("ns", memory=memory, cpus=self.processors, debug=self.debug)

    def _start(self, keep):
        files = build.boot_files(self.debug, hosts(self.count))
        guest = vm.Vm.start(self._spec(), f"{self.directory}/ns", files, keep=keep)
        self.guests = [guest]
        guest.ready()
        self._machines()
        self.build_network()

    def find(self):
        self.guests = [vm.Vm.find(f"{self.directory}/ns")]
        self.processors = self.guests[0].spec.cpus
        self._machines()

    def _machines(self):
        (guest,) = self.guests
        self.nodes = [
            GuestMachine(
                guest, f"node{i}", netns=f"node{i}", ext=ext_address(i), int_=int_address(i)
            )
            for i in range(1, self.count + 1)
        ]
        self.client = GuestMachine(guest, "client", netns="client", ext=ext_address(CLIENT))

    def _capture(self):
        return Capture(self.roots()[0], "/tmp/capture", "ip netns exec switch")

    def remove_network(self):
        """Ends all that runs in the namespaces, and the namespaces."""
        self.roots()[0].python(REMOVE, timeout=120)

    def build_network(self, count=None):
        """Makes the namespaces of the first nodes, and the client's, anew."""
        count = count or self.count
        self.remove_network()
        # Settings are the guest's (devconf_inherit_init_net). One `ip` a namespace, since a program
        # takes long to start under emulation.
        names = [(i, f"node{i}") for i in range(1, count + 1)] + [(CLIENT, "client")]
        batches = {None: [f"netns add {name}" for _, name in names] + ["netns add switch"]}
        # A link keeps the order of a connection's packets, whichever processors send them: the switch
        # takes them on one. The debug kernel has no other.
        mask = (1 << self.processors) - 1
        batches[None].append(f"netns exec switch sysctl -eq net.core.rps_default_mask={mask:x}")
        switch = batches["switch"] = [
            command
            for net in ("ext", "int")
            for command in (
                f"link add {net} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
                f"link set {net} up",
            )
        ]
        for number, name in names:
            inside = batches[name] = ["link set lo up"]
            for net, address in (("ext", ext_address(number)), ("int", int_address(number))):
                if name == "client" and net == "int":
                    continue
                switch += [
                    f"link add {name}-{net} type veth peer name {net}0"
                    f" address {station(net, number)} netns {name}",
                    f"link set {name}-{net} master {net} up",
                ]
                inside += [f"addr add {address}/24 dev {net}0", f"link set {net}0 up"]
        lines = ["set -e"]
        for name, commands in batches.items():
            where = f"-n {name} " if name else ""
            lines += [f"ip {where}-batch - <<'END'", *commands, "END"]
        self.roots()[0].sh("\n".join(lines), timeout=120)

    def stop(self):
        for guest in self.guests:
            guest.stop()


class VmLab(Lab):
    mode = "vms"

    def __init__(self, directory, count, debug=False, counted=False, own=None):
        super().__init__(directory, count, debug)
        self.counted = counted
        # What is not as in other guests: {number: {field of vm.Spec: value}}.
        self.own = own or {}
        # Short, for the 15 octets of interface names and the 107 of socket paths.
        self.switch = "lard-" + os.path.basename(self.directory)
        self.client_ns = self.switch + "-c"

    def _start(self, keep):
        self._host_network()
        files = build.boot_files(self.debug, hosts(self.count))
        for i in range(1, self.count + 1):
            nics = tuple(
                vm.Nic(f"{net}0", station(net, i), f"{net}{i}") for net in ("ext", "int")
            )
            spec = vm.Spec(
                f"node{i}",
                nics=nics,
                debug=self.debug,
                counted=self.counted,
                **self.own.get(i, {}),
            )
            directory = f"{self.directory}/node{i}"
            self.guests.append(vm.Vm.start(spec, directory, files, netns=self.switch, keep=keep))
        for guest in self.guests:
            guest.ready()
        self._machines()
        self.configure(*range(1, self.count + 1))

    def find(self):
        self.guests = [vm.Vm.find(f"{self.directory}/node{i}") for i in range(1, self.count + 1)]
        self._machines()

    def _machines(self):
        self.nodes = [
            GuestMachine(guest, f"node{i}", ext=ext_address(i), int_=int_address(i))
            for i, guest in enumerate(self.guests, 1)
        ]
        self.client = HostMachine("client", self.client_ns, ext=ext_address(CLIENT))

    def _capture(self):
        return Capture(HostMachine("switch", self.switch), f"{self.directory}/capture")

    def reboot(self, number):
        """Starts a guest again that was killed or has crashed."""
        old = self.guests[number - 1]
        old.stop()
        files = build.boot_files(self.debug, hosts(self.count))
        guest = vm.Vm.start(old.spec, old.directory, files, netns=self.switch)
        self.guests[number - 1] = guest
        guest.ready()
        self._machines()
        self.configure(number)

    def configure(self, *numbers):
        """Names and addresses of guests' interfaces."""
        commands = {}
        for number in numbers:
            addresses = {"ext0": ext_address(number), "int0": int_address(number)}
            lines = ["set -e"]
            for nic in self.guests[number - 1].spec.nics:
                lines += [
                    f"old=$(grep -l {nic.mac} /sys/class/net/*/address | cut -d / -f 5)",
                    f"ip link set $old name {nic.name}",
                    f"ip addr add {addresses[nic.name]}/24 dev {nic.name}",
                    f"ip link set {nic.name} up",
                ]
            commands[self.nodes[number - 1]] = "\n".join(lines)
        sh_each(commands)

    def broken(self):
        """The numbers of guests that a test has taken an interface from."""
        states = sh_all(self.nodes, "cd /sys/class/net && cat ext0/operstate int0/operstate", check=False)
        return [number for number, said in enumerate(states, 1) if said.stdout.split() != ["up"] * 2]

    def _host_network(self):
        self._remove_network()
        for namespace in (self.switch, self.client_ns):
            host("ip", "netns", "add", namespace)
            host("ip", "-n", namespace, "link", "set", "lo", "up")
        for net in ("ext", "int"):
            bridge = ("ip", "-n", self.switch, "link")
            host(*bridge, "add", net, "type", "bridge", "stp_state", "0", "forward_delay", "0")
            host(*bridge, "set", net, "up")
            for i in range(1, self.count + 1):
                host("ip", "-n", self.switch, "tuntap", "add", f"{net}{i}", "mode", "tap")
                host(*bridge, "set", f"{net}{i}", "master", net, "up")
        host("ip", "-n", self.client_ns, "link", "add", "ext0",
             "address", station("ext", CLIENT), "type", "veth",
             "peer", "name", "client", "netns", self.switch)
        host("ip", "-n", self.switch, "link", "set", "client", "master", "ext", "up")
        # A namespace takes over the host's settings.
        host("ip", "netns", "exec", self.client_ns, "sysctl", "-qw", "net.ipv4.ip_forward=0")
        address = f"{ext_address(CLIENT)}/24"
        host("ip", "-n", self.client_ns, "addr", "add", address, "dev", "ext0")
        host("ip", "-n", self.client_ns, "link", "set", "ext0", "up")

    def _remove_network(self):
        for namespace in (self.client_ns, self.switch):
            if namespace in host("ip", "netns", "list").split():
                for pid in host("ip", "netns", "pids", namespace, check=False).split():
                    host("kill", "-9", pid, check=False)
                host("ip", "netns", "del", namespace)
        shutil.rmtree(f"/etc/netns/{self.client_ns}", ignore_errors=True)

    def stop(self):
        for guest in self.guests:
            guest.stop()
        self._remove_network()
