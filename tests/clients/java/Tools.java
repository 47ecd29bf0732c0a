import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.ByteArrayOutputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.apache.kafka.common.utils.Exit;

/** Kafka's own command-line tools, one after the other in one Java: starting one for each costs a second. */
final class Tools {
    private static final int NOT_ENDED = -1;

    /** What a tool meets in place of the end of Java. Some catch it, and want to end once more. */
    private static final class Ended extends RuntimeException {
    }

    /** Runs the main class `main` with `arguments`; answers its exit `status` and what it `printed` (both streams). */
    static synchronized JsonNode run(JsonNode words) throws Exception {
        List<String> arguments = new ArrayList<>();
        for (JsonNode argument : words.get("arguments")) arguments.add(argument.asText());
        ByteArrayOutputStream printed = new ByteArrayOutputStream();
        PrintStream catcher = new PrintStream(printed, true, StandardCharsets.UTF_8.name());
        PrintStream out = System.out;
        PrintStream err = System.err;
        int[] status = {NOT_ENDED};
        Exit.Procedure end = (code, message) -> {
            if (status[0] == NOT_ENDED) status[0] = code;
            System.setOut(new PrintStream(OutputStream.nullOutputStream())); // what is said after the end is not said
            System.setErr(System.out);
            throw new Ended();
        };
        Exit.setExitProcedure(end);
        Exit.setHaltProcedure(end);
        System.setOut(catcher);
        System.setErr(catcher);
        try {
            Class.forName(words.get("main").asText())
                .getMethod("main", String[].class)
                .invoke(null, (Object) arguments.toArray(new String[0]));
        } catch (InvocationTargetException thrown) {
            if (!(thrown.getCause() instanceof Ended)) throw thrown;
        } finally {
            System.setOut(out);
            System.setErr(err);
            Exit.resetExitProcedure();
            Exit.resetHaltProcedure();
        }
        ObjectNode answer = Worker.JSON.createObjectNode();
        answer.put("status", status[0] == NOT_ENDED ? 0 : status[0]);
        answer.put("printed", printed.toString(StandardCharsets.UTF_8.name()));
        return answer;
    }
}
