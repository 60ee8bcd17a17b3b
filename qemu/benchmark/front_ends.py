# SPDX-License-Identifier: GPL-2.0
"""The front-ends that are compared, each set up as its manual advises for many requests.

Node 1 is the front-end, node 2 the back-end, node 3 the dispatcher where that is a machine of its own
(in modes.py, another back-end). All have the same back-end: nginx, on the regular stack at the front-end's port, or under `lard_run` at
LARD's. Each front-end listens at node 1's address in the clients' network and reaches node 2 by the
internal one.

Servers and module stay from one turn of a front-end to the next, since to start them takes longer than a
run. A module without a node has no hook, and a server without requests nothing to do.

Those that remember connections which have ended, IPVS and LARD, do so for `MEMORY` seconds only, so that
to forget them is part of the run that made them.
"""

import abc

from lardvm.cluster import BACK_END_PORT, FRONT_END_PORT, Cluster, Layout

# Seconds.
MEMORY = 1
# Where content.py has its files.
CONTENT = "/var/tmp/lard-www"

NGINX = """\
user root;
daemon off;
worker_processes 1;
worker_rlimit_nofile 40000;
pid /run/front.pid;
error_log /run/front.log warn;
events {{ worker_connections 16000; multi_accept on; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    client_max_body_size 0;
    client_body_temp_path /run/front-body;
    proxy_temp_path /run/front-proxy;
    fastcgi_temp_path /run/front-fastcgi;
    uwsgi_temp_path /run/front-uwsgi;
    scgi_temp_path /run/front-scgi;
    upstream back_end {{
        server {back_end}:{port};
        keepalive 512;
        keepalive_requests 1000000;
    }}
    server {{
        listen {front_end}:{port} backlog=4096;
        location / {{
            proxy_pass http://back_end;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_request_buffering off;
            proxy_buffer_size 16k;
            proxy_buffers 16 64k;
            proxy_busy_buffers_size 512k;
            proxy_max_temp_file_size 0;
        }}
    }}
}}
"""

HAPROXY = """\
global
    nbthread 1
    maxconn 16000
    tune.bufsize 32768
    tune.pipesize 1048576
defaults
    mode http
    option splice-auto
    option http-keep-alive
    balance {balance}
    http-reuse {reuse}
    retries 0
    timeout connect 60s
    timeout client 60s
    timeout server 60s
listen front
    bind {front_end}:{port} backlog 4096
{servers}
"""


class Stage:
    """What stays."""

    def __init__(self, lab):
        self.lab = lab
        self.servers = {}
        self.loaded = False

    def serve(self, machine, words, port):
        """A server there, unless it is there already."""
        key = (machine.name, words, port)
        if key not in self.servers:
            command = f"exec python3 $G/serve.py nginx --name {machine.name} --port {port} {words}"
            self.servers[key] = machine._spawn(command, None)

    def load(self, cluster):
        """The module, on all machines."""
        if not self.loaded:
            cluster.load()
        self.loaded = True

    def end(self):
        for server in self.servers.values():
            server.kill()
        if self.loaded:
            Cluster(self.lab, Layout(nodes=len(self.lab.nodes))).tear_down()


class FrontEnd(abc.ABC):
    """Set up by `start`, taken away by `stop`; between them clients may come."""

    name = None
    # Of the nodes that take part, in order.
    roles = ("front_end", "back_end")
    # Seconds until connections that have ended are forgotten: IPVS sees one end after the other.
    aftermath = 2 * MEMORY + 0.5
    # What HAProxy does with its connections to the back-end.
    reuse = "always"
    # How it chooses a back-end.
    balance = "roundrobin"
    # What serve.py is told of documents.
    documents = ""

    def __init__(self, stage):
        self.stage = stage
        self.lab = lab = stage.lab
        self.front, self.back = lab.nodes[:2]
        self.backs = [node for node, role in zip(lab.nodes, self.roles) if role == "back_end"]
        self.names = {
            "front_end": self.front.ext,
            "back_end": self.back.int,
            "port": FRONT_END_PORT,
            "reuse": self.reuse,
            "balance": self.balance,
            "servers": self.servers(),
        }

    def servers(self):
        """Lines of HAProxy's configuration."""
        lines = [f"    server {b.name} {b.int}:{FRONT_END_PORT} pool-max-conn 512" for b in self.backs]
        return "\n".join(lines)

    def serve(self, words, port):
        for machine in self.backs:
            self.stage.serve(machine, f"{words} {self.documents}", port)

    @abc.abstractmethod
    def start(self):
        """Returns before all is ready: who starts it asks until it answers."""

    def state(self):
        """What a person wants to see when clients were answered wrong."""
        return ""

    def moved(self):
        """Requests so far that were handed over on a connection that had been handed over before."""
        return 0

    def stop(self):
        for machine in self.lab.nodes:
            machine.kill_procs()


class Ipvs(FrontEnd):
    """Direct routing: the layer-4 floor, which sees no content. The back-end has its address too."""

    name = "IPVS-DR"

    def start(self):
        self.serve("--plain", FRONT_END_PORT)
        self.back.sh(f"ip addr add {self.front.ext}/32 dev lo")
        service = f"{self.front.ext}:{FRONT_END_PORT}"
        self.front.sh(
            f"modprobe ip_vs_rr && ipvsadm --set 900 {MEMORY} 300 && ipvsadm -A -t {service} -s rr &&"
            f" ipvsadm -a -t {service} -r {self.back.int}:{FRONT_END_PORT} -g"
        )

    def stop(self):
        self.front.sh("ipvsadm -C && rmmod ip_vs_rr ip_vs")
        self.back.sh(f"ip addr del {self.front.ext}/32 dev lo")
        super().stop()


class Proxy(FrontEnd):
    """A program that has a connection to the client and uses others to the back-end again."""

    configuration = None
    command = None
    # It remembers none.
    aftermath = 0.2

    def start(self):
        self.serve("--plain", FRONT_END_PORT)
        self.front.write("/run/front.conf", self.configuration.format(**self.names))
        self.front.spawn(f"ulimit -n 40000; exec {self.command} /run/front.conf")


class Nginx(Proxy):
    name = "nginx"
    configuration = NGINX
    command = "nginx -c"


class Haproxy(Proxy):
    name = "HAProxy"
    configuration = HAPROXY
    command = "haproxy -q -db -f"


class HaproxyAnew(Haproxy):
    """With a connection to the back-end for each of a client's, as direct routing has."""

    name = "HAProxy, anew"
    reuse = "never"


class Lard(FrontEnd):
    """The dispatcher on the same node."""

    name = "LARD"
    # It knows the end of a connection when the back-end tells it.
    aftermath = MEMORY + 0.5
    dispatcher = 1
    # Of cluster_startup, by node.
    options = {}

    def start(self):
        be = tuple(n for n, role in enumerate(self.roles, 1) if role == "back_end")
        layout = Layout(
            nodes=3, d=self.dispatcher, fe=(1,), be=be, servers=None, options=self.options
        )
        self.cluster = Cluster(self.lab, layout)
        self.stage.load(self.cluster)
        self.serve("", BACK_END_PORT)
        self.cluster.start()
        self.front.sh(f"cluster_startup set time-wait-ms={1000 * MEMORY}")

    def state(self):
        """The counters of all nodes that are not 0, and the end of their kernel logs."""
        parts = []
        for number in self.cluster.layout.members():
            counts = {name: n for name, n in self.cluster.stats(number).items() if n}
            log = self.cluster.node(number).sh("dmesg | grep lard: | tail -5", check=False).stdout
            parts.append(f"node{number}: {counts}\n{log}")
        return "\n".join(parts)

    def stop(self):
        super().stop()
        self.cluster.stop_nodes()


class LardRemote(Lard):
    """The dispatcher on a node of its own."""

    name = "LARD, D apart"
    dispatcher = 3
    roles = ("front_end", "back_end", "dispatcher")


ALL = [Ipvs, Nginx, Haproxy, Lard, LardRemote]
# Measured where they are asked for by name.
OTHERS = [HaproxyAnew]
FLOOR = Ipvs.name


def prepare(lab, sizes):
    """What all have in common: files, addresses that are told only where they are, and no timer that
    sends anything again while an emulated processor is only late."""
    back = lab.nodes[1]
    back.sh("python3 $G/content.py")
    for size in sizes:
        back.sh(f"head -c {size} {CONTENT}/stream > {CONTENT}/size/{size}")
    for machine in lab.nodes:
        machine.sh("sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2")
    for machine in lab.machines:
        machine.sh("echo 0 > /proc/sys/net/ipv4/tcp_early_retrans")
        for nic, address in (("ext0", machine.ext), ("int0", machine.int)):
            if address:
                net = address.rpartition(".")[0] + ".0/24"
                machine.sh(
                    f"ip route change {net} dev {nic} proto kernel scope link src {address}"
                    " rto_min 10s"
                )
