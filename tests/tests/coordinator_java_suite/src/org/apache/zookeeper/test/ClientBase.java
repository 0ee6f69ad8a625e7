package org.apache.zookeeper.test;

import elkfk.Server;
import java.io.BufferedReader;
import java.io.File;
import java.io.FileReader;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.apache.zookeeper.PortAssignment;
import org.apache.zookeeper.TestableZooKeeper;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.ZKTestCase;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.client.FourLetterWordMain;
import org.apache.zookeeper.server.ServerCnxnFactory;
import org.apache.zookeeper.server.ZooKeeperServer;
import org.junit.After;
import org.junit.Assert;
import org.junit.Before;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Stands before ZooKeeper's class of this name on the class path, so that its tests meet a server in another process
 * where they expect one in their own. What reaches into a server's objects fails here.
 */
public abstract class ClientBase extends ZKTestCase {
    protected static final Logger LOG = LoggerFactory.getLogger(ClientBase.class);
    public static int CONNECTION_TIMEOUT = 30000;
    static final File BASETEST = new File(System.getProperty("java.io.tmpdir"));

    protected String hostPort = "127.0.0.1:" + PortAssignment.unique();
    protected int maxCnxns = 0;
    /** Never set: there is no server in this JVM. */
    protected ServerCnxnFactory serverFactory = null;
    protected File tmpDir = null;
    private final List<ZooKeeper> clients = new ArrayList<>();
    private Server server;

    public ClientBase() {}

    /** Hears nothing. */
    protected static class NullWatcher implements Watcher {
        protected NullWatcher() {}

        @Override public void process(WatchedEvent event) {}
    }

    /** Knows whether its client is connected. */
    public static class CountdownWatcher implements Watcher {
        volatile CountDownLatch clientConnected = new CountDownLatch(1);
        volatile boolean connected;
        volatile boolean syncConnected;
        volatile boolean readOnlyConnected;

        public synchronized void reset() {
            clientConnected = new CountDownLatch(1);
            connected = syncConnected = readOnlyConnected = false;
        }

        @Override public synchronized void process(WatchedEvent event) {
            syncConnected = event.getState() == Event.KeeperState.SyncConnected;
            readOnlyConnected = event.getState() == Event.KeeperState.ConnectedReadOnly;
            connected = syncConnected || readOnlyConnected;
            notifyAll();
            if (connected) clientConnected.countDown();
        }

        public synchronized boolean isConnected() {
            return connected;
        }

        private interface Claim { boolean holds(); }

        private void await(Claim claim, long millis, String what) throws InterruptedException, TimeoutException {
            long until = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(millis);
            while (!claim.holds()) {
                long left = TimeUnit.NANOSECONDS.toMillis(until - System.nanoTime());
                if (left <= 0) throw new TimeoutException(what);
                wait(left);
            }
        }

        public synchronized void waitForConnected(long millis) throws InterruptedException, TimeoutException {
            await(() -> connected, millis, "Failed to connect to ZooKeeper server.");
        }

        public synchronized void waitForSyncConnected(long millis) throws InterruptedException, TimeoutException {
            await(() -> syncConnected, millis, "Failed to connect to read-write ZooKeeper server.");
        }

        public synchronized void waitForReadOnlyConnected(long millis) throws InterruptedException, TimeoutException {
            await(() -> readOnlyConnected, millis, "Failed to connect in read-only mode to ZooKeeper server.");
        }

        public synchronized void waitForDisconnected(long millis) throws InterruptedException, TimeoutException {
            await(() -> !connected, millis, "Did not disconnect");
        }
    }

    public static class HostPort {
        String host;
        int port;

        public HostPort(String host, int port) {
            this.host = host;
            this.port = port;
        }
    }

    public static List<HostPort> parseHostPortList(String text) {
        List<HostPort> list = new ArrayList<>();
        for (String one : text.split("/")[0].split(",")) {
            int colon = one.lastIndexOf(':');
            list.add(new HostPort(one.substring(0, colon), Integer.parseInt(one.substring(colon + 1))));
        }
        return list;
    }

    protected TestableZooKeeper createClient() throws IOException, InterruptedException {
        return createClient(hostPort);
    }

    protected TestableZooKeeper createClient(String at) throws IOException, InterruptedException {
        return createClient(new CountdownWatcher(), at);
    }

    protected TestableZooKeeper createClient(CountdownWatcher watcher) throws IOException, InterruptedException {
        return createClient(watcher, hostPort);
    }

    protected TestableZooKeeper createClient(CountdownWatcher watcher, String at) throws IOException, InterruptedException {
        return createClient(watcher, at, CONNECTION_TIMEOUT);
    }

    protected TestableZooKeeper createClient(CountdownWatcher watcher, String at, int timeout)
            throws IOException, InterruptedException {
        watcher.reset();
        TestableZooKeeper client = new TestableZooKeeper(at, timeout, watcher);
        if (!watcher.clientConnected.await(timeout, TimeUnit.MILLISECONDS)) {
            client.close();
            Assert.fail("no connection to " + at);
        }
        synchronized (clients) {
            clients.add(client);
        }
        return client;
    }

    public static ZooKeeper createZKClient(String at) throws Exception {
        return createZKClient(at, CONNECTION_TIMEOUT);
    }

    public static ZooKeeper createZKClient(String at, int timeout) throws IOException {
        CountdownWatcher watcher = new CountdownWatcher();
        ZooKeeper client = new ZooKeeper(at, timeout, watcher);
        try {
            watcher.waitForConnected(CONNECTION_TIMEOUT);
        } catch (InterruptedException | TimeoutException e) {
            Assert.fail("no connection to " + at);
        }
        return client;
    }

    private static boolean await(String at, long millis, boolean isUp) {
        HostPort place = parseHostPortList(at).get(0);
        long until = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(millis);
        do {
            try {
                String said = FourLetterWordMain.send4LetterWord(place.host, place.port, "stat");
                boolean serves = said.startsWith("Zookeeper version:") && !said.contains("READ-ONLY");
                if (isUp && serves) return true;
            } catch (Exception e) {
                if (!isUp) return true;
            }
            try {
                Thread.sleep(20);
            } catch (InterruptedException e) {
                return false;
            }
        } while (System.nanoTime() < until);
        return false;
    }

    public static boolean waitForServerUp(String at, long millis) {
        return await(at, millis, true);
    }

    public static boolean waitForServerUp(String at, long millis, boolean secure) {
        return !secure && await(at, millis, true);
    }

    public static boolean waitForServerDown(String at, long millis) {
        return await(at, millis, false);
    }

    public static boolean waitForServerDown(String at, long millis, boolean secure) {
        return await(at, millis, false);
    }

    public static File createTmpDir() throws IOException {
        return createTmpDir(BASETEST, true);
    }

    public static File createEmptyTestDir() throws IOException {
        return createTmpDir(BASETEST, false);
    }

    static File createTmpDir(File parent, boolean initialized) throws IOException {
        File dir = File.createTempFile("elkfk", ".dir", parent);
        if (!dir.delete() || !dir.mkdirs()) throw new IOException("cannot make " + dir);
        return dir;
    }

    /** Tests that run a server of their own in this JVM are none for us. */
    public static ServerCnxnFactory createNewServerInstance(ServerCnxnFactory factory, String at, int maxCnxns) {
        throw new UnsupportedOperationException("a server in this JVM");
    }

    public static void startServerInstance(File dir, ServerCnxnFactory factory, String at, int id) {
        throw new UnsupportedOperationException("a server in this JVM");
    }

    protected static ZooKeeperServer getServer(ServerCnxnFactory factory) {
        throw new UnsupportedOperationException("a server in this JVM");
    }

    public static void setupTestEnv() {
        System.setProperty("zookeeper.4lw.commands.whitelist", "*");
    }

    protected void setUpAll() throws Exception {}

    @Before public void setUp() throws Exception {
        begin();
    }

    private void begin() throws Exception {
        setupTestEnv();
        setUpAll();
        tmpDir = createTmpDir();
        startServer();
    }

    /** The id only has to be a small one. */
    protected void setUpWithServerId(int id) throws Exception {
        begin();
    }

    protected void startServer() throws Exception {
        HostPort place = parseHostPortList(hostPort).get(0);
        server = new Server(tmpDir, place.port, "maxClientCnxns=" + maxCnxns + "\n");
        server.start();
        long until = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(CONNECTION_TIMEOUT);
        while (!waitForServerUp(hostPort, 0)) {
            Assert.assertTrue("server does not start: " + server.log(), server.isRunning() && System.nanoTime() < until);
            Thread.sleep(20);
        }
    }

    protected void stopServer() throws Exception {
        if (server != null) server.stop();
        server = null;
    }

    protected void tearDownAll() throws Exception {
        synchronized (clients) {
            for (ZooKeeper client : clients) {
                if (client != null) client.close();
            }
            clients.clear();
        }
    }

    @After public void tearDown() throws Exception {
        tearDownAll();
        stopServer();
        if (tmpDir != null) recursiveDelete(tmpDir);
        tmpDir = null;
    }

    protected static String getHexSessionId(long id) {
        return "0x" + Long.toHexString(id);
    }

    public static boolean recursiveDelete(File file) {
        File[] children = file.listFiles();
        if (children != null) {
            for (File child : children) recursiveDelete(child);
        }
        return file.delete();
    }

    static void verifyThreadTerminated(Thread thread, long millis) throws InterruptedException {
        thread.join(millis);
        Assert.assertFalse(thread.getName() + " did not end", thread.isAlive());
    }

    public static void logAllStackTraces() {}

    public static String readFile(File file) throws IOException {
        try (BufferedReader in = new BufferedReader(new FileReader(file))) {
            StringBuilder text = new StringBuilder();
            for (String line = in.readLine(); line != null; line = in.readLine()) text.append(line).append('\n');
            return text.toString();
        }
    }

    public static String join(String between, Object[] parts) {
        StringBuilder text = new StringBuilder();
        for (Object part : parts) text.append(text.length() == 0 ? "" : between).append(part);
        return text.toString();
    }
}
