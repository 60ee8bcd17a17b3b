# SPDX-License-Identifier: GPL-2.0
"""An NFS server of a machine's own, as `cluster_startup --nfs` wants one, and what it has mounted.

Nodes may be namespaces of one kernel: what the programs keep in files is on file systems that no other
node sees. A socket of rpcbind in /run would be found by the kernel on behalf of every node.
"""

EMPTY = "mkdir -p {docroot} && mount -t tmpfs documents {docroot}"
PLACES = """\
set -e
mount -t tmpfs state /var/lib/nfs && mkdir /var/lib/nfs/sm && touch /var/lib/nfs/etab /var/lib/nfs/rmtab
mount -t nfsd nfsd /proc/fs/nfsd
"""
DAEMONS = """\
exec unshare -m sh -c '
mount -t tmpfs run /run && mkdir /run/rpcbind
rpcbind -f &
until rpcinfo -p >/dev/null 2>&1; do sleep 0.1; done
rpc.nfsd -N 4 2
exec rpc.mountd -F -N 4 -p 20048'
"""


def possible(lab):
    """Does the kernel have NFS?"""
    look = "modprobe -a nfsd nfsv3 2>/dev/null; grep -qw nfsd /proc/filesystems"
    return all(guest.sh(look, check=False).code == 0 for guest in lab.guests)


def start(machine, docroot=None):
    """The server, which is for `stop`; with `docroot` that is made, empty, and can be exported. What is
    mounted later the server does not see."""
    if docroot:
        machine.sh(EMPTY.format(docroot=docroot))
    machine.sh(PLACES)
    return machine._spawn(DAEMONS, None)


def ready(machine):
    threads = machine.sh("cat /proc/fs/nfsd/threads", check=False).stdout.strip()
    return threads == "2" and machine.sh(f"rpcinfo -t {machine.int} mountd 3", check=False).code == 0


def stop(machine, docroot, server):
    places = " ".join(mounts(machine))
    machine.sh(
        f"for place in {places}; do umount -f -l $place; done\n"
        f"rpc.nfsd 0; umount -l /proc/fs/nfsd /var/lib/nfs {docroot}",
        check=False,
    )
    server.kill()


def mounts(machine):
    """NFS mounts: {directory: what}."""
    found = {}
    for line in machine.sh("cat /proc/self/mountinfo").stdout.splitlines():
        front, back = line.split(" - ")
        kind, source = back.split(" ")[:2]
        if kind == "nfs":
            found[front.split(" ")[4]] = source
    return found


def exports(machine):
    """What is exported: {(directory, to whom): how}."""
    found = {}
    for line in machine.sh("exportfs -s").stdout.splitlines():
        path, client = line.split()
        client, _, options = client.rstrip(")").partition("(")
        found[path, client] = set(options.split(","))
    return found


def complete(machines, docroot):
    """Do all these have each other's documents, and nobody else's?"""
    for machine in machines:
        others = [other.int for other in machines if other is not machine]
        wanted = {f"{docroot}/{addr}": f"{addr}:{docroot}" for addr in others}
        if mounts(machine) != wanted or set(exports(machine)) != {(docroot, a) for a in others}:
            return False
    return True
