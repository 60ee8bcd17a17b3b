# SPDX-License-Identifier: GPL-2.0
"""One virtual machine: how QEMU is started, what is given to the boot, when it is ready, its end.

What a boot needs beyond the root image (the agent, lard.ko, the tools, the guest's programs) is
a second archive appended to the initial RAM disk, so a new lard.ko needs no new image.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

from . import build, qmp
from .channel import PORTS, Channel, GuestGone

# Seconds. Who counts instructions may do so on a machine that has much else to do.
BOOT_LIMIT = {"kvm": 30, "tcg": 90, "uml": 90, "counted": 600}
BOOT_ATTEMPTS = 3
# An instruction of a counted guest takes two to this power nanoseconds of its clock.
COUNTED_SHIFT = 1
# Reads a second of a disk that nothing slows down.
FAST = 1_000_000
BOOT_WORDS = (
    "random.trust_cpu=on norandmaps panic=-1 net.ifnames=0 loglevel=5 printk.devkmsg=on"
    " log_buf_len=4M"
)


@dataclasses.dataclass(frozen=True)
class Nic:
    """A network interface of a guest: its name inside, its hardware address, the tap outside."""

    name: str
    mac: str
    tap: str


@dataclasses.dataclass(frozen=True)
class Disk:
    """A disk of a guest that cannot be written to, after that of the root image: the first is
    /dev/vdb. Its name is for `Vm.throttle`."""

    name: str
    image: str


@dataclasses.dataclass(frozen=True)
class Spec:
    name: str
    memory: int = 512  # MiB
    cpus: int = 1
    nics: tuple = ()
    disks: tuple = ()
    debug: bool = False
    # Its instructions are counted, and each takes the same time of its clock.
    counted: bool = False


def cpio(entries):
    """A `newc` archive of [(path, mode, bytes or None for a directory)]."""
    parts = []

    def add(number, name, mode, data):
        name = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
        parts.append(head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4))

    for number, (name, mode, data) in enumerate(entries, 1):
        add(number, name, mode if data is not None else 0o040755, data or b"")
    add(0, "TRAILER!!!", 0, b"")
    return b"".join(parts)


def boot_files(files):
    """The archive with {path under /lard: (mode, bytes)}."""
    entries, made = [], set()
    for path, (mode, data) in sorted(files.items()):
        parents = path.split("/")[:-1]
        for depth in range(len(parents) + 1):
            directory = "/".join(["lard", *parents[:depth]])
            if directory not in made:
                made.add(directory)
                entries.append((directory, 0, None))
        entries.append((f"lard/{path}", 0o100000 | mode, data))
    return cpio(entries)


def uml_command(spec, image, directory):
    """The debug kernel is a program of the host; its console and channels come by uml.py."""
    command = [sys.executable, os.path.join(os.path.dirname(__file__), "uml.py"), directory]
    command += [str(PORTS), "--", build.debug_kernel(), f"mem={spec.memory}M", f"umid={os.getpid()}"]
    command += [f"ubd0rs={image}/root.img", f"initrd={directory}/initrd.cpio"]
    # The faster way to run user space.
    command += ["seccomp=on", f"lard.name={spec.name}", *BOOT_WORDS.split()]
    return command


def counter_path(directory):
    """The socket that tells what instructions a counted guest has executed."""
    return f"{directory}/counter"


def softirq_place(image):
    """The file that says where this image's kernel has handle_softirqs(), once a guest was asked."""
    return os.path.join(image, "softirq")


def counter_words(image, directory):
    """The emulator's plugin that counts instructions, and what it is told."""
    words = f"{build.counter()},at={counter_path(directory)}"
    if os.path.exists(softirq_place(image)):
        with open(softirq_place(image)) as file:
            words += f",softirq={file.read().strip()}"
    return words


def qemu_command(spec, image, directory, accelerator):
    boot = os.path.join(image, "vmlinuz")
    arguments = f"console=ttyS0 lard.name={spec.name} mitigations=off nokaslr {BOOT_WORDS} quiet"
    # Huge pages are put together at the lowest priority, which a busy guest leaves no time for; RCU
    # waits for it all the while, and says so.
    arguments += " transparent_hugepage=never"
    command = [build.emulator(), "-name", f"lard-{spec.name}", "-nodefaults", "-no-user-config"]
    command += ["-display", "none", "-no-reboot", "-m", str(spec.memory), "-smp", str(spec.cpus)]
    if spec.counted:
        command += ["-accel", "tcg,thread=single,tb-size=1024", "-cpu", "max,la57=off"]
        # While it has nothing to do its clock goes with the world's, so others need not wait.
        command += ["-icount", f"shift={COUNTED_SHIFT},sleep=on"]
        command += ["-plugin", counter_words(image, directory)]
    elif accelerator == "kvm":
        command += ["-accel", "kvm", "-cpu", "host"]
    else:
        # Fewer levels of page tables to walk, and room for all translated code.
        command += ["-accel", "tcg,thread=multi,tb-size=1024", "-cpu", "max,la57=off"]
    command += ["-kernel", boot, "-initrd", os.path.join(directory, "initrd.cpio")]
    command += ["-append", arguments]
    command += ["-chardev", f"file,id=console,path={directory}/console.log,append=on"]
    command += ["-serial", "chardev:console"]
    disk = "format=raw,if=virtio,readonly=on,file.locking=off"
    command += ["-drive", f"file={image}/root.img,{disk}"]
    for extra in spec.disks:
        # A throttle can be set later only where there is one from the start.
        command += ["-drive", f"file={extra.image},id={extra.name},{disk},throttling.iops-total={FAST}"]
    if spec.disks:
        command += ["-qmp", f"unix:{qmp.path(directory)},server=on,wait=off"]
    command += ["-device", f"virtio-serial-pci,max_ports={PORTS + 1}"]
    for port in range(PORTS):
        path = f"{directory}/port{port}"
        command += ["-chardev", f"socket,id=port{port},path={path},server=on,wait=off"]
        command += ["-device", f"virtserialport,chardev=port{port},name=lard.{port},nr={port + 1}"]
    for number, nic in enumerate(spec.nics):
        command += ["-netdev", f"tap,id=n{number},ifname={nic.tap},script=no,downscript=no"]
        command += ["-device", f"virtio-net-pci,netdev=n{number},mac={nic.mac},romfile="]
    return command


class Vm:
    """A running guest, known by its directory: sockets, console log, process id."""

    def __init__(self, spec, directory):
        self.spec = spec
        self.directory = directory
        self._channel = None
        self.process = None
        self.pid = None
        self.log_mark = -1  # the last kernel message that somebody has looked at
        self.killed = False  # by a test, on purpose

    @classmethod
    def start(cls, spec, directory, files, netns=None, keep=False):
        """Starts QEMU; `ready` waits for the guest. With `keep` it outlives this process."""
        os.makedirs(directory, exist_ok=True)
        image = build.guest_image()
        accelerator = "uml" if spec.debug else "tcg" if spec.counted else build.accelerator()
        with open(f"{image}/initrd.cpio", "rb") as base:
            first = base.read()
        with open(f"{directory}/initrd.cpio", "wb") as initrd:
            # The kernel wants the next archive at a multiple of four.
            initrd.write(first + b"\0" * (-len(first) % 512) + boot_files(files))
        vm = cls(spec, directory)
        vm.accelerator = accelerator
        if spec.debug:
            vm.command = uml_command(spec, image, directory)
        else:
            vm.command = qemu_command(spec, image, directory, accelerator)
        if not keep:
            vm.command = ["setpriv", "--pdeathsig", "KILL", *vm.command]
        if netns:
            vm.command = ["ip", "netns", "exec", netns, *vm.command]
        vm.launch()
        return vm

    def launch(self):
        with open(f"{self.directory}/qemu.log", "wb") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid = self.process.pid
        with open(f"{self.directory}/vm.json", "w") as file:
            state = {"pid": self.pid, "accelerator": self.accelerator}
            json.dump({**state, "spec": dataclasses.asdict(self.spec)}, file)

    @classmethod
    def find(cls, directory):
        """A guest that another process started."""
        with open(f"{directory}/vm.json") as file:
            state = json.load(file)
        nics = tuple(Nic(**nic) for nic in state["spec"].pop("nics"))
        disks = tuple(Disk(**disk) for disk in state["spec"].pop("disks"))
        vm = cls(Spec(**state["spec"], nics=nics, disks=disks), directory)
        vm.accelerator = state["accelerator"]
        vm.pid = state["pid"]
        return vm

    def alive(self):
        if self.process:
            return self.process.poll() is None
        try:
            with open(f"/proc/{self.pid}/cmdline", "rb") as file:
                return self.directory.encode() in file.read()
        except OSError:
            return False

    def console(self):
        try:
            with open(f"{self.directory}/console.log", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def failure(self, what):
        with open(f"{self.directory}/qemu.log", errors="replace") as file:
            qemu = file.read()[-1500:]
        return GuestGone(
            f"{self.spec.name}: {what}\n{qemu}\nthe end of {self.directory}/console.log:\n"
            f"{self.console()[-2500:]}"
        )

    def ready(self):
        """Waits until the agent answers. A kernel that dies before its first program does so by
        the emulator's fault, so it is started once more, and that is said."""
        for attempt in range(BOOT_ATTEMPTS):
            try:
                self._answers()
                # The boot is the kernel's own affair.
                self.log_mark = self.channel.call("kernel_log", timeout=60)["last"]
                return self
            except GuestGone as error:
                if attempt + 1 == BOOT_ATTEMPTS or "lard-guest" in self.console():
                    raise
                print(f"{error}\n{self.spec.name}: starting it again", file=sys.stderr)
            self.stop()
            # An emulator that did not start at all has left no console.
            if os.path.exists(f"{self.directory}/console.log"):
                os.rename(
                    f"{self.directory}/console.log", f"{self.directory}/console-{attempt}.log"
                )
            self.launch()

    def _answers(self):
        limit = BOOT_LIMIT["counted" if self.spec.counted else self.accelerator]
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if not self.alive():
                raise self.failure("it ended during the boot")
            try:
                self.channel.call("ping", timeout=2)
                return
            except (OSError, TimeoutError, GuestGone):
                if self._channel:
                    self._channel.close()
                    self._channel = None
                time.sleep(0.1)
        raise self.failure(f"no answer within {limit} s of boot")

    @property
    def channel(self):
        if self._channel is None:
            self._channel = Channel(self.directory)
        return self._channel

    def throttle(self, disk, reads=FAST, unit=0):
        """A disk does so many reads a second from now on; with `unit` a read of n times as many
        octets counts as n."""
        limits = {f"{what}{way}": 0 for what in ("bps", "iops") for way in ("", "_rd", "_wr")}
        limits |= {"iops": reads, "iops_size": unit}
        qmp.command(self.directory, "block_set_io_throttle", device=disk, **limits)

    def stop(self):
        """Ends the guest; it keeps nothing, so nothing needs to be shut down."""
        if self._channel:
            self._channel.close()
            self._channel = None
        if self.alive():
            try:
                # The leader of its group: UML is many processes.
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if self.process:
            self.process.wait()


def probe(image, directory):
    """True when a guest boots with KVM; `/dev/kvm` may exist and not work."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    print("trying KVM ...", file=sys.stderr)
    os.makedirs(directory, exist_ok=True)
    log = f"{directory}/console.log"
    with open(log, "wb"):
        pass
    spec = Spec("probe", 256)
    command = qemu_command(spec, image, directory, "kvm")
    command[command.index("-initrd") + 1] = f"{image}/initrd.cpio"
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 12
        while time.monotonic() < end and process.poll() is None:
            with open(log, errors="replace") as file:
                # This boot is given no files, which busybox init says: the kernel works.
                if "lard/boot" in file.read():
                    return True
            time.sleep(0.1)
        return False
    finally:
        process.kill()
        process.wait()
