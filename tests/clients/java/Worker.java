import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;

/**
 * A client that is told by its standard input what to do, and says on its standard output what came of it: a JSON
 * object a line both ways (see worker.py). Each command runs in a thread of its own, so several clients can live in
 * one Java. It ends with its input.
 */
public final class Worker {
    static final ObjectMapper JSON = new ObjectMapper();
    private static final PrintStream ANSWERS = System.out;

    /** One command: its words in, what goes under "ok" out. */
    interface Command {
        JsonNode run(JsonNode words) throws Exception;
    }

    public static void main(String[] arguments) throws Exception {
        System.setOut(System.err); // libraries that print must not mix with answers
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = commands.readLine()) != null; ) {
            JsonNode words = JSON.readTree(line);
            Thread thread = new Thread(() -> answer(words), words.get("do").asText());
            thread.setDaemon(true);
            thread.start();
        }
        Runtime.getRuntime().halt(0);
    }

    private static void answer(JsonNode words) {
        ObjectNode answer = JSON.createObjectNode();
        answer.set("id", words.get("id"));
        try {
            answer.set("ok", command(words.get("do").asText()).run(words));
        } catch (Throwable fault) {
            StringWriter trace = new StringWriter();
            fault.printStackTrace(new PrintWriter(trace));
            answer.put("error", trace.toString());
        }
        synchronized (ANSWERS) {
            ANSWERS.println(answer);
            ANSWERS.flush();
        }
    }

    /** Named one by one, so that a class which an older kafka-clients lacks is not looked for. */
    private static Command command(String name) {
        switch (name) {
            case "about":
                return words -> JSON.valueToTree(org.apache.kafka.common.utils.AppInfoParser.getVersion());
            case "read":
                return Reading::read;
            case "group":
                return Reading::group;
            case "times":
                return Reading::times;
            case "bounds":
                return Reading::bounds;
            case "produce":
                return Producing::produce;
            case "share":
                return Sharing::share;
            case "tool":
                return Tools::run;
            default:
                throw new IllegalArgumentException("no such command: " + name);
        }
    }

    static byte[] bytes(JsonNode text) throws java.io.IOException {
        return text == null || text.isNull() ? null : text.binaryValue();
    }

    static ArrayNode array() {
        return JSON.createArrayNode();
    }
}
