package elkfk;

import java.io.File;
import java.io.FileWriter;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.TimeUnit;

/**
 * One coordinator in a process of its own, for tests written for a server in their own JVM.
 *
 * The command stands in the system property elkfk.server, words with spaces between them; the path of a zoo.cfg
 * follows it. What a test sets as a system property of ZooKeeper becomes a key of that zoo.cfg, which ZooKeeper 3.5
 * reads as the same thing; elkfk.keys names the keys (with commas) that the server knows, where it does not know all.
 */
public final class Server {
    private static final List<String> KEYS = Arrays.asList(
        "extendedTypesEnabled", "skipACL", "maxCnxns", "DigestAuthenticationProvider.superDigest", "reconfigEnabled");

    private final File dir;
    private final int port;
    private final String more;
    private Process process;

    /** A server on a client port; {@code more} lines go into its zoo.cfg. */
    public Server(File dir, int port, String more) {
        this.dir = dir;
        this.port = port;
        this.more = more;
    }

    public void start() throws IOException {
        File data = new File(dir, "data");
        data.mkdirs();
        StringBuilder text = new StringBuilder();
        text.append("tickTime=3000\ninitLimit=10\nsyncLimit=5\nadmin.enableServer=false\nclientPortAddress=127.0.0.1\n");
        text.append("dataDir=").append(data).append("\nclientPort=").append(port).append('\n').append(more);
        for (String key : KEYS) {
            String value = System.getProperty("zookeeper." + key);
            if (value != null && isKnown(key)) text.append(key).append('=').append(value).append('\n');
        }
        String words = System.getProperty("zookeeper.4lw.commands.whitelist", "*");
        text.append("4lw.commands.whitelist=").append(words).append('\n');
        File config = new File(dir, "zoo.cfg");
        try (FileWriter out = new FileWriter(config)) {
            out.write(text.toString());
        }
        List<String> command = new ArrayList<>(Arrays.asList(System.getProperty("elkfk.server").split(" ")));
        command.add(config.toString());
        ProcessBuilder builder = new ProcessBuilder(command);
        builder.redirectErrorStream(true);
        builder.redirectOutput(ProcessBuilder.Redirect.appendTo(new File(dir, "server.log")));
        process = builder.start();
        Process mine = process;
        Runtime.getRuntime().addShutdownHook(new Thread(mine::destroyForcibly));
    }

    private static boolean isKnown(String key) {
        String known = System.getProperty("elkfk.keys");
        return known == null || Arrays.asList(known.split(",")).contains(key);
    }

    public boolean isRunning() {
        return process != null && process.isAlive();
    }

    public String log() throws IOException {
        Path log = new File(dir, "server.log").toPath();
        return Files.exists(log) ? new String(Files.readAllBytes(log)) : "";
    }

    /** Ends it in order; killed when that takes too long. */
    public void stop() throws InterruptedException {
        if (process == null) return;
        process.destroy();
        if (!process.waitFor(20, TimeUnit.SECONDS)) process.destroyForcibly().waitFor();
        process = null;
    }
}
