import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.HashSet;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** What consumers do: with KafkaConsumer as every version since 2.0 has it. */
final class Reading {
    private static final Duration A_MOMENT = Duration.ofMillis(100);
    private static final long PATIENCE = Duration.ofMinutes(3).toNanos(); // nobody waits for so long

    /** From `starts`, or where the reset policy says, until each partition has given its `last` offset. */
    static JsonNode read(JsonNode words) {
        Map<TopicPartition, Long> last = offsets(words, "last");
        ArrayNode records = Worker.array();
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(words)) {
            consumer.assign(last.keySet());
            offsets(words, "starts").forEach(consumer::seek);
            Set<TopicPartition> missing = new HashSet<>(last.keySet());
            long began = System.nanoTime();
            while (!missing.isEmpty()) {
                check(began, missing);
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(A_MOMENT)) {
                    TopicPartition partition = new TopicPartition(record.topic(), record.partition());
                    if (missing.contains(partition)) {
                        records.add(json(record));
                        if (record.offset() >= last.get(partition)) missing.remove(partition);
                    }
                }
            }
        }
        return records;
    }

    /** `count` records as a member of a group, which then commits just those. */
    static JsonNode group(JsonNode words) {
        int count = words.get("count").asInt();
        ArrayNode records = Worker.array();
        Map<TopicPartition, OffsetAndMetadata> done = new HashMap<>();
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(words)) {
            consumer.subscribe(java.util.Collections.singletonList(words.get("topic").asText()));
            long began = System.nanoTime();
            while (records.size() < count) {
                check(began, records.size() + " of " + count);
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(A_MOMENT)) {
                    if (records.size() == count) break;
                    records.add(json(record));
                    done.put(
                        new TopicPartition(record.topic(), record.partition()),
                        new OffsetAndMetadata(record.offset() + 1));
                }
            }
            consumer.commitSync(done);
        }
        return records;
    }

    static void check(long began, Object what) {
        if (System.nanoTime() - began > PATIENCE) throw new IllegalStateException("nothing more comes: " + what);
    }

    /** Per partition, for each time the offset and time of the first record that is not older, or null. */
    static JsonNode times(JsonNode words) {
        ObjectNode found = Worker.JSON.createObjectNode();
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(words)) {
            words.get("times").properties().forEach(asked -> {
                TopicPartition partition = partition(words, asked.getKey());
                ArrayNode answers = found.putArray(asked.getKey());
                for (JsonNode time : asked.getValue()) {
                    Map<TopicPartition, Long> question = new HashMap<>();
                    question.put(partition, time.asLong());
                    OffsetAndTimestamp answer = consumer.offsetsForTimes(question).get(partition);
                    if (answer == null) answers.addNull();
                    else answers.addArray().add(answer.offset()).add(answer.timestamp());
                }
            });
        }
        return found;
    }

    /** Per partition its beginning and its end. */
    static JsonNode bounds(JsonNode words) {
        ObjectNode found = Worker.JSON.createObjectNode();
        List<TopicPartition> partitions = new ArrayList<>();
        for (JsonNode number : words.get("partitions")) partitions.add(partition(words, number.asText()));
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(words)) {
            Map<TopicPartition, Long> first = consumer.beginningOffsets(partitions);
            Map<TopicPartition, Long> end = consumer.endOffsets(partitions);
            for (TopicPartition p : partitions)
                found.putArray("" + p.partition()).add(first.get(p)).add(end.get(p));
        }
        return found;
    }

    static KafkaConsumer<byte[], byte[]> consumer(JsonNode words) {
        return new KafkaConsumer<>(properties(words), new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static Properties properties(JsonNode words) {
        Properties properties = new Properties();
        words.get("config").properties().forEach(entry -> properties.put(entry.getKey(), entry.getValue().asText()));
        return properties;
    }

    static ArrayNode json(ConsumerRecord<byte[], byte[]> record) {
        ArrayNode out = Worker.array();
        out.add(record.partition()).add(record.offset()).add(record.timestamp());
        out.add(record.key()).add(record.value()); // as base64, or null
        ArrayNode headers = out.addArray();
        for (Header header : record.headers()) headers.addArray().add(header.key()).add(header.value());
        return out;
    }

    private static TopicPartition partition(JsonNode words, String number) {
        return new TopicPartition(words.get("topic").asText(), Integer.parseInt(number));
    }

    private static Map<TopicPartition, Long> offsets(JsonNode words, String name) {
        Map<TopicPartition, Long> found = new HashMap<>();
        if (words.hasNonNull(name))
            words.get(name).properties().forEach(e -> found.put(partition(words, e.getKey()), e.getValue().asLong()));
        return found;
    }
}
