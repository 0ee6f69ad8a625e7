// The Java client of ZooKeeper 3.9 on a server at args[0]. Prints "done" when everything held.

import java.util.*;
import java.util.concurrent.*;
import org.apache.zookeeper.*;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.data.*;

public class Later {
    static void check(boolean holds, Object what) {
        if (!holds) throw new AssertionError(what);
    }

    static ZooKeeper connect(String hosts) throws Exception {
        CountDownLatch connected = new CountDownLatch(1);
        ZooKeeper zk = new ZooKeeper(hosts, 8000, e -> {
            if (e.getState() == Watcher.Event.KeeperState.SyncConnected) connected.countDown();
        });
        check(connected.await(20, TimeUnit.SECONDS), "connected");
        return zk;
    }

    static String next(BlockingQueue<WatchedEvent> events) throws Exception {
        while (true) {
            WatchedEvent event = events.poll(20, TimeUnit.SECONDS);
            check(event != null, "no event");
            if (event.getType() != Watcher.Event.EventType.None) return event.getType() + " " + event.getPath();
        }
    }

    public static void main(String[] args) throws Exception {
        ZooKeeper zk = connect(args[0]), other = connect(args[0]);
        zk.create("/j", "0".getBytes(), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);

        BlockingQueue<WatchedEvent> all = new LinkedBlockingQueue<>(), one = new LinkedBlockingQueue<>();
        zk.addWatch("/j", all::add, AddWatchMode.PERSISTENT_RECURSIVE);
        zk.addWatch("/j", one::add, AddWatchMode.PERSISTENT);
        for (int i = 0; i < 2; i++) {
            other.create("/j/a", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
            other.setData("/j", "1".getBytes(), -1);
            other.delete("/j/a", -1);
            for (String expected : new String[] {"NodeCreated /j/a", "NodeDataChanged /j", "NodeDeleted /j/a"})
                check(next(all).equals(expected), expected);
            for (String expected : new String[] {"NodeChildrenChanged /j", "NodeDataChanged /j", "NodeChildrenChanged /j"})
                check(next(one).equals(expected), expected);
        }
        // They are set again on the next connection.
        zk.getTestable().injectSessionExpiration();
        zk = connect(args[0]);
        all.clear();
        one.clear();
        zk.addWatch("/j", all::add, AddWatchMode.PERSISTENT_RECURSIVE);
        zk.addWatch("/j", one::add, AddWatchMode.PERSISTENT);
        zk.removeAllWatches("/j", Watcher.WatcherType.PersistentRecursive, false);
        check(next(all).equals("PersistentWatchRemoved /j"), "removed");
        other.create("/j/b", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        check(next(one).equals("NodeChildrenChanged /j"), "still there");
        check(all.isEmpty(), "no more");

        List<OpResult> read = zk.multi(Arrays.asList(Op.getData("/j"), Op.getChildren("/j"), Op.getData("/none")));
        check(Arrays.equals(((OpResult.GetDataResult) read.get(0)).getData(), "1".getBytes()), read);
        check(((OpResult.GetChildrenResult) read.get(1)).getChildren().equals(List.of("b")), read);
        check(((OpResult.ErrorResult) read.get(2)).getErr() == KeeperException.Code.NONODE.intValue(), read);

        zk.create("/j/e", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        check(zk.getEphemerals().equals(List.of("/j/e")), "ephemerals");
        check(zk.getEphemerals("/none").isEmpty() && other.getEphemerals().isEmpty(), "none");
        check(zk.getAllChildrenNumber("/j") == 2, "children");
        zk.addAuthInfo("digest", "user:pw".getBytes());
        Set<String> users = new TreeSet<>();
        zk.whoAmI().forEach(info -> users.add(info.getAuthScheme() + ":" + info.getUser()));
        check(users.equals(new TreeSet<>(List.of("digest:user", "ip:127.0.0.1"))), users);

        Stat stat = new Stat();
        String path = zk.create("/j/t-", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL_WITH_TTL, stat, 60000);
        check(path.startsWith("/j/t-000000000") && stat.getEphemeralOwner() == 0, path);
        zk.create("/j/c", null, Ids.OPEN_ACL_UNSAFE, CreateMode.CONTAINER);
        List<OpResult> made = zk.multi(List.of(
            Op.create("/j/m", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT.toFlag()),
            Op.create("/j/m/t", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL, 60000),
            Op.create("/j/m/c", null, Ids.OPEN_ACL_UNSAFE, CreateMode.CONTAINER)));
        check(((OpResult.CreateResult) made.get(1)).getStat() != null, made);

        zk.create("/zookeeper/quota/j", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        zk.create("/zookeeper/quota/j/zookeeper_limits", "count=-1,bytes=-1=;countHardLimit=9".getBytes(), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        zk.create("/zookeeper/quota/j/zookeeper_stats", "count=0,bytes=0".getBytes(), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        zk.create("/j/9", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        try {
            zk.create("/j/10", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
            check(false, "the quota refuses");
        } catch (KeeperException.QuotaExceededException expected) {
        }
        zk.close();
        other.close();
        System.out.println("done");
    }
}
