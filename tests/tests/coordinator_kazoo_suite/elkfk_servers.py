"""Lets kazoo's own test suite run on servers of our choice: a plugin for pytest, the suite stays as it is.

Its harness starts and stops ZooKeepers by `kazoo.testing.common`. This module stands in for that one: the same
classes, but what they start is the command in ELKFK_KAZOO_SERVER with the path of a zoo.cfg after it. It also
writes how each test ended to ELKFK_KAZOO_RESULTS, a line each: `passed FILE::CLASS::TEST`.

Only tests whose names stand in the file ELKFK_KAZOO_SELECT are run, where that is given.

ELKFK_KAZOO_LEAVE_OUT names keys of zoo.cfg that the server does not know, with commas between them.
"""

import collections
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import types

import pytest

START_SECONDS = 60

ServerInfo = collections.namedtuple(
    "ServerInfo", "server_id client_port peer_port election_port"
)


def left_out():
    return set(filter(None, os.environ.get("ELKFK_KAZOO_LEAVE_OUT", "").split(",")))


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Server:
    """One server as a child process; what the suite calls a ManagedZooKeeper."""

    def __init__(self, info, peers, entries, properties):
        self.server_info = info
        self.host = "127.0.0.1"
        self.client_port = info.client_port
        self.address = "%s:%s" % (self.host, info.client_port)
        # TLS is not part of these runs.
        self.secure_client_port = 0
        self.secure_address = "127.0.0.1:0"
        self.peers = peers
        self.entries = entries
        self.properties = properties
        self.process = None
        self.working_path = tempfile.mkdtemp(prefix="elkfk-kazoo-")
        self.log_path = os.path.join(self.working_path, "server.log")

    @property
    def running(self):
        return self.process is not None

    def run(self):
        if self.running:
            return
        data = os.path.join(self.working_path, "data")
        os.makedirs(data, exist_ok=True)
        with open(os.path.join(data, "myid"), "w") as f:
            f.write(str(self.server_info.server_id))
        lines = [
            "tickTime=2000",
            "initLimit=10",
            "syncLimit=5",
            "dataDir=" + data,
            "clientPort=%s" % self.client_port,
            "clientPortAddress=127.0.0.1",
            "maxClientCnxns=0",
            "admin.enableServer=false",
            *self.entries,
            # A key of zoo.cfg that ZooKeeper does not know becomes such a property.
            *(p.removeprefix("-Dzookeeper.") for p in self.properties if p.startswith("-Dzookeeper.")),
        ]
        if len(self.peers) > 1:
            for p in self.peers:
                lines.append("server.%s=127.0.0.1:%s:%s" % (p.server_id, p.peer_port, p.election_port))
        lines = [line for line in lines if line.split("=")[0] not in left_out()]
        config = os.path.join(self.working_path, "zoo.cfg")
        with open(config, "w") as f:
            f.write("\n".join(lines) + "\n")
        environment = dict(os.environ)
        environment["JVMFLAGS"] = "-Dfile.encoding=UTF-8 -Dreadonlymode.enabled=true"
        command = shlex.split(os.environ["ELKFK_KAZOO_SERVER"]) + [config]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )

    def mode(self):
        """What `srvr` says of it: leader, follower, standalone, or nothing while it does not serve."""
        try:
            with socket.create_connection((self.host, self.client_port), 1) as s:
                s.settimeout(2)
                s.sendall(b"srvr")
                text = b""
                while True:
                    more = s.recv(4096)
                    if not more:
                        break
                    text += more
        except OSError:
            return None
        for line in text.decode().splitlines():
            if line.startswith("Mode: "):
                return line[len("Mode: "):]
        return None

    def stop(self):
        if not self.running:
            return
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        self.process = None

    def reset(self):
        self.stop()
        shutil.rmtree(os.path.join(self.working_path, "data"), True)

    def destroy(self):
        self.stop()
        shutil.rmtree(self.working_path, True)
        os.makedirs(self.working_path, exist_ok=True)

    def get_logs(self, num_lines=100):
        try:
            with open(self.log_path, errors="replace") as f:
                return f.readlines()[-num_lines:]
        except OSError:
            return []


class Cluster:
    """What the suite calls a ZookeeperCluster."""

    def __init__(self, size=3, configuration_entries=(), java_system_properties=(), **_):
        ports = free_ports(3 * size)
        infos = [ServerInfo(i + 1, *ports[3 * i : 3 * i + 3]) for i in range(size)]
        self._servers = [
            Server(info, infos, list(configuration_entries), list(java_system_properties))
            for info in infos
        ]

    def __getitem__(self, k):
        return self._servers[k]

    def __iter__(self):
        return iter(self._servers)

    def start(self):
        for server in reversed(self._servers):
            server.run()
        until = time.monotonic() + START_SECONDS
        for server in self._servers:
            while server.mode() is None:
                status = server.process.poll()
                if status is not None or time.monotonic() > until:
                    raise RuntimeError(
                        "server %s does not serve (status %s):\n%s"
                        % (server.address, status, "".join(server.get_logs(30)))
                    )
                time.sleep(0.05)

    def stop(self):
        for server in self._servers:
            server.stop()

    def terminate(self):
        for server in self._servers:
            server.destroy()

    def reset(self):
        for server in self._servers:
            server.reset()

    def get_logs(self):
        logs = []
        for server in self._servers:
            logs += server.get_logs()
        return logs

    def get_ssl_client_configuration(self):
        pytest.skip("TLS is not part of this run")


common = types.ModuleType("kazoo.testing.common")
common.ManagedZooKeeper = Server
common.ZookeeperCluster = Cluster
common.ServerInfo = ServerInfo
sys.modules["kazoo.testing.common"] = common


def short_name(nodeid):
    return nodeid.split("kazoo/tests/")[-1]


def pytest_collection_modifyitems(config, items):
    if "ELKFK_KAZOO_SELECT" not in os.environ:
        return
    with open(os.environ["ELKFK_KAZOO_SELECT"]) as f:
        wanted = set(f.read().split())
    others = [item for item in items if short_name(item.nodeid) not in wanted]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if short_name(item.nodeid) in wanted]


def pytest_runtest_logreport(report):
    ended = report.when == "call" or report.outcome != "passed"
    if ended and "ELKFK_KAZOO_RESULTS" in os.environ:
        name = short_name(report.nodeid)
        with open(os.environ["ELKFK_KAZOO_RESULTS"], "a") as f:
            f.write("%s %.1f %s\n" % (report.outcome, report.duration, name))
