"""kazoo, the Python client, on a ZooKeeper at argv[1]. Prints "done" when everything held."""

import queue
import socket
import sys
import threading
import time

from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import (
    BadVersionError, InvalidACLError, NoAuthError, NodeExistsError, NoNodeError, NotEmptyError,
    RolledBackError, RuntimeInconsistency,
)
from kazoo.retry import KazooRetry
from kazoo.security import make_acl, make_digest_acl

hosts = sys.argv[1]


def client(**more):
    started = KazooClient(hosts=hosts, timeout=4, **more)
    started.start(timeout=20)
    return started


def raises(error, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except error:
        return
    raise AssertionError(f"{call} {arguments} did not raise {error}")


def wait_for(holds, what):
    deadline = time.time() + 20
    while not holds():
        assert time.time() < deadline, what
        time.sleep(0.02)


zk = client()
zk.ensure_path("/kazoo/a/b")
assert zk.create("/kazoo/x", b"1") == "/kazoo/x"
path, stat = zk.create("/kazoo/y", b"22", include_data=True)
assert (path, stat.dataLength, stat.version) == ("/kazoo/y", 2, 0)
data, stat = zk.get("/kazoo/x")
assert (data, stat.version, stat.numChildren) == (b"1", 0, 0)
assert zk.set("/kazoo/x", b"2").version == 1
raises(BadVersionError, zk.set, "/kazoo/x", b"3", version=0)
raises(NodeExistsError, zk.create, "/kazoo/x", b"")
raises(NoNodeError, zk.get, "/kazoo/nosuch")
raises(NotEmptyError, zk.delete, "/kazoo/a")
assert zk.exists("/kazoo/nosuch") is None
assert sorted(zk.get_children("/kazoo")) == ["a", "x", "y"]
children, stat = zk.get_children("/kazoo", include_data=True)
assert stat.cversion == 3
assert zk.create("/kazoo/s-", sequence=True) == "/kazoo/s-0000000003"
assert zk.create("/kazoo/e-", ephemeral=True, sequence=True) == "/kazoo/e-0000000004"
zk.sync("/kazoo")
zk.delete("/kazoo/a", recursive=True)

transaction = zk.transaction()
transaction.create("/kazoo/t", b"t")
transaction.check("/kazoo/x", 1)
transaction.set_data("/kazoo/x", b"4")
transaction.delete("/kazoo/y")
results = transaction.commit()
assert results[0] == "/kazoo/t" and results[1] is True and results[2].version == 2, results
transaction = zk.transaction()
transaction.create("/kazoo/u")
transaction.check("/kazoo/x", 99)
transaction.create("/kazoo/v")
results = transaction.commit()
assert [type(r) for r in results] == [RolledBackError, BadVersionError, RuntimeInconsistency], results
assert zk.exists("/kazoo/u") is None

other = client()
seen = queue.Queue()
zk.DataWatch("/kazoo/watched", lambda data, stat: seen.put(data))
assert seen.get(timeout=20) is None
other.create("/kazoo/watched", b"1")
assert seen.get(timeout=20) == b"1"
other.set("/kazoo/watched", b"2")
assert seen.get(timeout=20) == b"2"
listed = queue.Queue()
zk.ChildrenWatch("/kazoo/watched", lambda children: listed.put(sorted(children)))
assert listed.get(timeout=20) == []
other.create("/kazoo/watched/c", ephemeral=True)
assert listed.get(timeout=20) == ["c"]

zk.add_auth("digest", "user:pw")
acl = make_digest_acl("user", "pw", all=True)
zk.create("/kazoo/private", b"mine", acl=[acl])
assert zk.get_acls("/kazoo/private")[0] == [acl]
raises(NoAuthError, other.get, "/kazoo/private")
raises(InvalidACLError, zk.create, "/kazoo/bad", acl=[make_acl("nosuch", "x", all=True)])
other.add_auth("digest", "user:pw")
assert other.get("/kazoo/private")[0] == b"mine"

# Recipes: locks exclude, an election has one winner, a counter counts, a queue keeps order.
inside = []
workers = [client() for _ in range(4)]


def work(worker):
    for _ in range(5):
        with worker.Lock("/kazoo/lock", "id"):
            inside.append(1)
            assert len(inside) == 1
            inside.pop()
            worker.Counter("/kazoo/counter").__add__(1)


threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert zk.Counter("/kazoo/counter").value == 20
fifo = zk.LockingQueue("/kazoo/queue")
for item in (b"1", b"2", b"3"):
    fifo.put(item)
for item in (b"1", b"2", b"3"):
    assert fifo.get(timeout=20) == item and fifo.consume()
party = [worker.Party("/kazoo/party", str(i)) for i, worker in enumerate(workers)]
[member.join() for member in party]
assert len(zk.Party("/kazoo/party")) == 4

# A session outlives its connection, but not its end, and its ephemerals go with it.
gone = other.client_id
cut = threading.Event()
other.add_listener(lambda state: state == KazooState.SUSPENDED and cut.set())
other._connection._socket.shutdown(socket.SHUT_RDWR)
assert cut.wait(20)
wait_for(lambda: other.connected, "the client connects again")
assert other.client_id == gone, "the session is resumed"
assert zk.exists("/kazoo/watched/c") is not None
other.stop()
assert listed.get(timeout=20) == []
resumed = KazooClient(hosts=hosts, timeout=4, client_id=gone, connection_retry=KazooRetry(max_tries=3))
resumed.start(timeout=20)
assert resumed.client_id != gone, "a session that was closed is not resumed"
for open_client in [resumed, *workers]:
    open_client.stop()
zk.delete("/kazoo", recursive=True)
assert zk.command(b"ruok") == "imok"
assert zk.server_version()[:2] == (3, 5)
zk.stop()
zk.close()
print("done")
