import java.util.Arrays;

/**
 * Runs the main class that is named first with the other arguments, when it is told to: writes "ready", waits for a
 * line, runs it, writes "done", and waits for the end of its input, so that what it cost can be looked up meanwhile.
 */
public final class Measured {
    private Measured() {}

    public static void main(String[] args) throws Exception {
        Class<?> tool = Class.forName(args[0]);
        System.out.println("ready");
        if (next() < 0) {
            return;
        }
        tool.getMethod("main", String[].class).invoke(null, (Object) Arrays.copyOfRange(args, 1, args.length));
        System.out.println("done");
        while (next() >= 0) {}
    }

    private static int next() throws Exception {
        int got;
        while ((got = System.in.read()) >= 0 && got != '\n') {}
        return got;
    }
}
