# SPDX-License-Identifier: GPL-2.0
"""`make install`: what the units and the documentation name is where they say. Needs no guest."""

import os
import re
import subprocess

import pytest
from lardvm import build

BUILT = (
    "build/lard.ko",
    "target/release/cluster_startup",
    "target/release/lard_run",
    "target/release/liblard_preload.so",
    "target/release/lard_sim",
)
UNITS = ("lard.service", "share/lard/systemd/nfs.conf", "share/lard/systemd/nginx-lard.conf")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """What `make install` installs, of a tree whose programs are empty."""
    tree = tmp_path_factory.mktemp("tree")
    for name in BUILT:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    for name in ("Documentation", "tools"):
        (tree / name).symlink_to(os.path.join(build.TOP, name))
    root = tmp_path_factory.mktemp("root")
    makefile = os.path.join(build.TOP, "Makefile")
    command = ["make", "-C", str(tree), "-f", makefile, "install", f"DESTDIR={root}"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return {
        "/" + os.path.relpath(os.path.join(directory, name), root): os.path.join(directory, name)
        for directory, _, names in os.walk(root)
        for name in names
    }


PATH = re.compile(r"(?<![\w.])/(?:usr|etc)/[\w./-]*\w")


def test_units_name_files_where_they_are_installed(installed):
    ours = {os.path.basename(path) for path in installed}
    found = set()
    for unit in UNITS:
        [path] = [path for path in installed if path.endswith("/" + unit)]
        lines = build.read(installed[path]).decode().splitlines()
        # The comments say where a file is to be copied.
        found.update(PATH.findall("\n".join(line for line in lines if not line.startswith("#"))))
    found = {path for path in found if os.path.basename(path) in ours}
    assert found <= set(installed), found - set(installed)
    assert {"/usr/sbin/cluster_startup", "/usr/sbin/lard_run", "/etc/default/lard"} <= found


def test_documents_name_files_where_they_are_installed(installed):
    found = []
    for directory, _, names in os.walk(os.path.join(build.TOP, "Documentation")):
        for name in names:
            text = build.read(os.path.join(directory, name)).decode().replace("\\-", "-")
            found += re.findall(r"/usr/share/lard/[\w./-]*\w", text)
    assert found and set(found) <= set(installed), found
