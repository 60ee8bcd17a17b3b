#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Starts one web server of a test cluster on the module's family and says `ready`.

    serve.py nginx|apache|python --name node2 [--port 7080] [--workers N] [--reuseport]
             [--bind ADDR] [--rcvbuf N] [--backlog N] [--plain] [--no-accept]
             [--root DIR [--uncached]] [--threads]

nginx and Apache are the distribution's, unmodified, started through `lard_run` (`--plain`: on the
regular stack). The python server is server.py.
All serve `/who` and `/size/N` of content.py, or with `--root` the files there, and mark answers with
`X-Node`; nginx answers a POST to `/take` once it has the whole body, and with `--reuseport` names the
process that answers in `X-Worker`.

The program stays in the foreground; SIGTERM ends it and the server.
"""

import argparse
import os
import pathlib
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import content  # noqa: E402

NGINX = """\
user root;
daemon off;
worker_processes {workers};
worker_rlimit_nofile 40000;
pid {state}/nginx.pid;
error_log {state}/error.log warn;
events {{ worker_connections 16000; }}
http {{
    map $uri $supplier {{
        ~^/(?<node>10[.]20[.]0[.][1-9])/ $node;
    }}
    access_log off;
    sendfile on;
    {threads}{http2}tcp_nopush on;
    keepalive_requests 100000;
    client_body_temp_path {state}/body;
    proxy_temp_path {state}/proxy;
    fastcgi_temp_path {state}/fastcgi;
    uwsgi_temp_path {state}/uwsgi;
    scgi_temp_path {state}/scgi;
    default_type application/octet-stream;
    server {{
        listen {bind}:{port} backlog={backlog}{reuseport}{rcvbuf};
        root {content};
        add_header X-Node {name} always;
        add_header X-Supplier $supplier always;
        {worker}location = /who {{ return 200 "{name}\\n"; }}
        location = /take {{
            client_max_body_size 0;
            client_body_buffer_size 2m;
            proxy_set_body "";
            proxy_pass http://unix:{state}/taken:/;
        }}
    }}
    # Asked when the body of a request for /take is complete.
    server {{
        listen unix:{state}/taken;
        return 200 "taken\\n";
    }}
}}
"""

APACHE = """\
ServerName {name}
ServerRoot {state}
PidFile {state}/apache.pid
ErrorLog {state}/error.log
Mutex pthread
DefaultRuntimeDir {state}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule headers_module {modules}/mod_headers.so
LoadModule alias_module {modules}/mod_alias.so
LoadModule setenvif_module {modules}/mod_setenvif.so
Listen {bind}:{port}
ListenBacklog {backlog}
StartServers {workers}
MaxRequestWorkers 150
KeepAliveTimeout 15
MaxKeepAliveRequests 0
DocumentRoot {content}
EnableMMAP {maps}
Alias /who {state}/who
Header always set X-Node {name}
SetEnvIf Request_URI "^/(10[.]20[.]0[.][1-9])/" SUPPLIER=$1
Header always set X-Supplier %{{SUPPLIER}}e env=SUPPLIER
<Directory />
    Require all granted
</Directory>
"""


def listeners(port):
    """Listening sockets of this namespace on a port."""
    found = 0
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table) as file:
                for line in file.readlines()[1:]:
                    word = line.split()
                    if word[3] == "0A" and int(word[1].rpartition(":")[2], 16) == port:
                        found += 1
        except FileNotFoundError:
            pass
    return found


def command(options):
    state = f"/run/lard-test/{options.name}-{options.port}"
    os.makedirs(state, exist_ok=True)
    names = {
        "state": state,
        "content": options.root or content.ROOT,
        "modules": "/usr/lib/apache2/modules",
        "name": options.name,
        "bind": options.bind,
        "port": options.port,
        "workers": options.workers,
        "backlog": options.backlog,
        "reuseport": " reuseport" if options.reuseport else "",
        "worker": "add_header X-Worker $pid always;\n        " if options.reuseport else "",
        "rcvbuf": f" rcvbuf={options.rcvbuf}" if options.rcvbuf else "",
        # What is mapped goes through the cache.
        "maps": "Off" if options.uncached else "On",
        "http2": "http2 on;\n    " if options.http2 else "",
        # A read may wait long for a slow disk that many use.
        "threads": "aio threads;\n    send_timeout 600s;\n    " if options.threads else "",
    }
    if not options.root:
        content.prepare()
    run = [] if options.plain else ["lard_run"]
    if options.uncached:
        run += ["--uncached", options.root]
    if options.kind == "nginx":
        # One that was killed leaves it, and then the next cannot listen there.
        pathlib.Path(state, "taken").unlink(missing_ok=True)
        with open(f"{state}/nginx.conf", "w") as file:
            file.write(NGINX.format(**names))
        return run + ["nginx", "-p", state, "-c", f"{state}/nginx.conf"]
    if options.kind == "apache":
        with open(f"{state}/who", "w") as file:
            file.write(f"{options.name}\n")
        with open(f"{state}/apache.conf", "w") as file:
            file.write(APACHE.format(**names))
        return run + ["apache2", "-DFOREGROUND", "-f", f"{state}/apache.conf"]
    numbers = (options.port, options.backlog, options.workers, options.reuseport, options.rcvbuf)
    words = [options.name, options.bind, *map(int, (*numbers, options.no_accept))]
    # As a module, of which the bytecode is kept.
    return run + [sys.executable, "-S", "-c", "import server; server.main()", *map(str, words)]


def main(words=None):
    """With the words of a command line; without, those of the program's."""
    words = sys.argv[1:] if words is None else words
    parser = argparse.ArgumentParser(prog="serve.py")
    parser.add_argument("kind", choices=("nginx", "nginx-reuseport", "apache", "python"))
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, default=7080)
    parser.add_argument("--bind", default="0.0.0.0")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--reuseport", action="store_true")
    parser.add_argument("--rcvbuf", type=int, default=0)
    parser.add_argument("--backlog", type=int, default=4096)
    parser.add_argument("--root", help="nginx and Apache serve these documents, not content.py's")
    parser.add_argument(
        "--threads", action="store_true", help="nginx goes on while files are read from disk"
    )
    parser.add_argument(
        "--uncached", action="store_true", help="what other nodes have in --root is read past the cache"
    )
    parser.add_argument("--http2", action="store_true", help="nginx speaks it, too, without TLS")
    parser.add_argument("--plain", action="store_true", help="on the regular stack")
    parser.add_argument(
        "--no-accept",
        action="store_true",
        help="listen, and accept only once /run/lard-test/accept-NAME exists",
    )
    options = parser.parse_args(words)
    if options.kind == "nginx-reuseport":
        options.kind, options.reuseport, options.workers = "nginx", True, 4
    if listeners(options.port) and options.bind == "0.0.0.0":
        sys.exit(f"serve.py: port {options.port} has a listener already")
    server = subprocess.Popen(command(options), stdin=subprocess.DEVNULL)

    def end(*_):
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    try:
        limit = time.monotonic() + 60
        while listeners(options.port) == 0:
            if server.poll() is not None:
                sys.exit(f"serve.py: {options.kind} ended with {server.returncode} before it listened")
            if time.monotonic() > limit:
                sys.exit(f"serve.py: {options.kind} does not listen after 60 s")
            time.sleep(0.05)
        print("ready", flush=True)
        sys.exit(server.wait())
    finally:
        if server.poll() is None:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()


if __name__ == "__main__":
    main()
