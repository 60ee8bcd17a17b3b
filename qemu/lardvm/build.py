# SPDX-License-Identifier: GPL-2.0
"""What a guest is made from, and where it is: made by the scripts when it is missing or old."""

import functools
import os
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HERE = os.path.dirname(os.path.abspath(__file__))
GUEST_PROGRAMS = os.path.join(HERE, "guest")
CACHE = os.environ.get("LARD_CACHE") or os.path.expanduser("~/.cache/lard")
TOOLS = ("cluster_startup", "lard_run")


class SetupFailed(Exception):
    """A set-up step failed; the script has said which, where its log is and what to do."""


def script(name, *arguments, **variables):
    """Runs a set-up script; its progress is shown, its answer (the last line) returned."""
    result = subprocess.run(
        [os.path.join(TOP, "scripts", name), *arguments],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **variables},
        text=True,
    )
    if result.returncode:
        raise SetupFailed(f"scripts/{name} failed; the reason is above")
    lines = result.stdout.strip().splitlines()
    return lines[-1] if lines else ""


@functools.cache
def guest_image():
    given = os.environ.get("LARD_IMAGE")
    return given or script("guest-image")


@functools.cache
def emulator():
    return script("emulator")


@functools.cache
def counter():
    """The emulator's plugin that counts instructions."""
    return script("counter")


def uml():
    """Which User-Mode Linux: `debug`, with all checkers, or with LARD_UML=plain that without."""
    return "plain" if os.environ.get("LARD_UML") == "plain" else "debug"


@functools.cache
def debug_kernel():
    words = ["--plain"] if uml() == "plain" else []
    return os.path.join(script("debug-kernel", *words), "linux")


@functools.cache
def accelerator():
    """`kvm` where a probe boot succeeded since this machine started, else `tcg`."""
    chosen = os.environ.get("LARD_ACCEL")
    if chosen:
        return chosen
    with open("/proc/sys/kernel/random/boot_id") as file:
        record = os.path.join(CACHE, f"accelerator-{file.read().strip()}")
    if os.path.exists(record):
        with open(record) as file:
            return file.read().strip()
    from . import vm

    with tempfile.TemporaryDirectory(prefix="lard-probe-") as directory:
        answer = "kvm" if vm.probe(guest_image(), directory) else "tcg"
    with open(record, "w") as file:
        file.write(answer)
    return answer


def module_path(debug=False):
    """Where lard.ko is; LARD_KO names another one."""
    given = os.environ.get("LARD_KO")
    return given or os.path.join(TOP, "build", *([uml()] if debug else []), "lard.ko")


def tool_path(name):
    directory = os.environ.get("LARD_TOOLS") or os.path.join(TOP, "target", "release")
    return os.path.join(directory, name)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def program_files():
    """The guest's programs: {path under /lard: (mode, bytes)}."""
    files = {}
    for directory, _, names in os.walk(GUEST_PROGRAMS):
        for name in names:
            if not name.endswith(".pyc"):
                path = os.path.join(directory, name)
                relative = os.path.relpath(path, GUEST_PROGRAMS)
                files[f"guest/{relative}"] = (0o755, read(path))
    return files


def boot_files(debug=False, hosts=""):
    """All that a boot is given: {path under /lard: (mode, bytes)}."""
    files = {
        "agent.py": (0o755, read(os.path.join(HERE, "agent.py"))),
        "place.py": (0o755, read(os.path.join(HERE, "place.py"))),
        "boot": (0o755, read(os.path.join(HERE, "boot"))),
        "hosts": (0o644, hosts.encode()),
        **program_files(),
    }
    for name, path, mode in [
        ("lard.ko", module_path(debug), 0o644),
        *((f"bin/{tool}", tool_path(tool), 0o755) for tool in TOOLS),
        *((f"bin/{lib}", tool_path(lib), 0o755) for lib in tool_libraries()),
    ]:
        if os.path.exists(path):
            files[name] = (mode, read(path))
        else:
            print(f"note: {path} is not there; guests start without it", file=sys.stderr)
    return files


def tool_libraries():
    """Libraries that the tools look for beside themselves (the shim of lard_run)."""
    directory = os.path.dirname(tool_path("x"))
    if not os.path.isdir(directory):
        return []
    return [name for name in os.listdir(directory) if name.endswith(".so")]
