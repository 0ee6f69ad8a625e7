package elkfk;

import java.io.FileOutputStream;
import java.io.PrintStream;
import java.util.HashSet;
import java.util.Properties;
import java.util.Set;
import org.junit.runner.Description;
import org.junit.runner.JUnitCore;
import org.junit.runner.Request;
import org.junit.runner.notification.Failure;
import org.junit.runner.notification.RunListener;

/**
 * Runs test classes (or CLASS#METHOD) one after another: Runner RESULTS SECONDS CLASS...
 *
 * RESULTS gets a line for each test: passed, failed, ignored or hung, its seconds, CLASS#METHOD, and why. A class that
 * takes longer than SECONDS is left behind.
 */
public final class Runner {
    private static PrintStream results;

    private static synchronized void tell(String outcome, long begun, String name, String why) {
        String reason = why == null ? "" : " " + why.replaceAll("\\s+", " ");
        if (reason.length() > 300) reason = reason.substring(0, 300);
        results.printf("%s %.1f %s%s%n", outcome, (System.nanoTime() - begun) / 1e9, name, reason);
        results.flush();
    }

    private static String name(Description description) {
        String type = description.getClassName().replace("org.apache.zookeeper.", "");
        return description.getMethodName() == null ? type : type + "#" + description.getMethodName();
    }

    private static final class Listener extends RunListener {
        private final Set<Description> failed = new HashSet<>();
        volatile Description current;
        volatile boolean isLeft;
        private volatile long begun = System.nanoTime();

        @Override public void testStarted(Description description) {
            current = description;
            begun = System.nanoTime();
        }

        @Override public void testFailure(Failure failure) {
            if (failed.add(failure.getDescription()) && !isLeft)
                tell("failed", begun, name(failure.getDescription()), String.valueOf(failure.getException()));
        }

        @Override public void testAssumptionFailure(Failure failure) {
            testFailure(failure);
        }

        @Override public void testIgnored(Description description) {
            tell("ignored", System.nanoTime(), name(description), null);
        }

        @Override public void testFinished(Description description) {
            if (!failed.contains(description) && !isLeft) tell("passed", begun, name(description), null);
            current = null;
        }
    }

    public static void main(String[] args) throws Exception {
        results = new PrintStream(new FileOutputStream(args[0], true));
        long seconds = Long.parseLong(args[1]);
        for (int i = 2; i < args.length; i++) {
            String[] parts = args[i].split("#");
            Properties before = (Properties) System.getProperties().clone();
            Class<?> type = Class.forName("org.apache.zookeeper." + parts[0]);
            Request request = parts.length > 1 ? Request.method(type, parts[1]) : Request.aClass(type);
            Listener listener = new Listener();
            JUnitCore core = new JUnitCore();
            core.addListener(listener);
            Thread thread = new Thread(() -> core.run(request), args[i]);
            thread.setDaemon(true);
            long begun = System.nanoTime();
            thread.start();
            thread.join(seconds * 1000);
            if (thread.isAlive()) {
                listener.isLeft = true;
                Description at = listener.current;
                tell("hung", begun, at == null ? args[i] : name(at), "after " + seconds + " s of its class");
                thread.interrupt();
            }
            // Some set properties of the client and of servers to come.
            System.setProperties(before);
        }
        // Threads of tests that were left behind must not keep the JVM.
        System.exit(0);
    }
}
