import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import org.apache.zookeeper.*;

/** Loads of many things: {@code Many HOSTS znodes COUNT}, or {@code Many HOSTS sessions COUNT}. */
public class Many {
    static ZooKeeper connect(String hosts, CountDownLatch up) throws Exception {
        return new ZooKeeper(hosts, 30000, e -> {
            if (e.getState() == Watcher.Event.KeeperState.SyncConnected) up.countDown();
        });
    }

    static ZooKeeper connect(String hosts) throws Exception {
        CountDownLatch up = new CountDownLatch(1);
        ZooKeeper zk = connect(hosts, up);
        if (!up.await(30, TimeUnit.SECONDS)) throw new Exception("no connection to " + hosts);
        return zk;
    }

    public static void main(String[] args) throws Exception {
        int count = Integer.parseInt(args[2]);
        if (args[1].equals("znodes")) znodes(args[0], count);
        else sessions(args[0], count);
        System.exit(0);
    }

    /** Four sessions with 250 creates in flight each, a thousand znodes below each parent. */
    static void znodes(String hosts, int count) throws Exception {
        byte[] data = new byte[100];
        ZooKeeper first = connect(hosts);
        first.create("/many", data, ZooDefs.Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        AtomicInteger next = new AtomicInteger();
        AtomicLong longest = new AtomicLong(), failed = new AtomicLong();
        List<Thread> threads = new ArrayList<>();
        for (int i = 0; i < 4; i++) {
            ZooKeeper zk = i == 0 ? first : connect(hosts);
            Thread thread = new Thread(() -> {
                Semaphore free = new Semaphore(250);
                for (int n = next.getAndIncrement(); n < (count + 999) / 1000; n = next.getAndIncrement()) {
                    String parent = "/many/" + n;
                    for (int child = -1; child < 999 && n * 1000 + child + 1 < count; child++) {
                        String path = child < 0 ? parent : parent + "/" + child;
                        free.acquireUninterruptibly();
                        long sent = System.nanoTime();
                        zk.create(path, data, ZooDefs.Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT, (rc, p, c, name) -> {
                            if (rc != 0) failed.incrementAndGet();
                            longest.accumulateAndGet(System.nanoTime() - sent, Math::max);
                            free.release();
                        }, null);
                    }
                }
                free.acquireUninterruptibly(250);
            });
            threads.add(thread);
            thread.start();
        }
        for (Thread thread : threads) thread.join();
        if (failed.get() > 0) throw new Exception(failed + " creates failed");
        System.out.printf("longest write ms: %.1f%n", longest.get() / 1e6);
    }

    /** Sessions opened 200 at a time; then each reads, one after the other. */
    static void sessions(String hosts, int count) throws Exception {
        List<ZooKeeper> all = new ArrayList<>();
        while (all.size() < count) {
            int some = Math.min(200, count - all.size());
            CountDownLatch up = new CountDownLatch(some);
            for (int i = 0; i < some; i++) {
                CountDownLatch one = new CountDownLatch(1);
                all.add(new ZooKeeper(hosts, 30000, e -> {
                    if (e.getState() == Watcher.Event.KeeperState.SyncConnected && one.getCount() > 0) {
                        one.countDown();
                        up.countDown();
                    }
                }));
            }
            if (!up.await(60, TimeUnit.SECONDS)) throw new Exception(up.getCount() + " sessions are not connected");
        }
        System.out.println("connected: " + count);
        long[] times = new long[count];
        for (int i = 0; i < count; i++) {
            long sent = System.nanoTime();
            all.get(i).getData("/many/0", false, null);
            times[i] = System.nanoTime() - sent;
        }
        Arrays.sort(times);
        System.out.printf("read p99 ms: %.2f%n", times[(int) (count * 0.99)] / 1e6);
    }
}
