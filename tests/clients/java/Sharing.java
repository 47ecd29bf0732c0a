import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import java.time.Duration;
import java.util.Collections;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** A member of a share group (KIP-932). */
final class Sharing {
    /** `count` records, each acknowledged. */
    static JsonNode share(JsonNode words) {
        int count = words.get("count").asInt();
        ArrayNode records = Worker.array();
        try (KafkaShareConsumer<byte[], byte[]> consumer = new KafkaShareConsumer<>(
            Reading.properties(words), new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(Collections.singletonList(words.get("topic").asText()));
            long began = System.nanoTime();
            while (records.size() < count) {
                Reading.check(began, records.size() + " of " + count);
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(100)))
                    records.add(Reading.json(record));
                consumer.commitSync(); // acknowledges what the last poll gave
            }
        }
        return records;
    }
}
