import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** A producer of numbered records that takes its time, so that things can happen to it. */
final class Producing {
    /**
     * `count` records "0", "1", ... in turn to `partitions`, `pause` ms after every `burst`; with a transactional id each
     * burst is a transaction. Answers [partition, offset] of each, offset -1 with acks=0.
     */
    static JsonNode produce(JsonNode words) throws Exception {
        String topic = words.get("topic").asText();
        int partitions = words.get("partitions").asInt();
        int burst = words.get("burst").asInt();
        int pause = words.get("pause").asInt();
        boolean transactional = words.get("config").has("transactional.id");
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(
            Reading.properties(words), new ByteArraySerializer(), new ByteArraySerializer())) {
            if (transactional) producer.initTransactions();
            int count = words.get("count").asInt();
            for (int i = 0; i < count; i++) {
                if (transactional && i % burst == 0) producer.beginTransaction();
                byte[] value = Integer.toString(i).getBytes(StandardCharsets.US_ASCII);
                sent.add(producer.send(new ProducerRecord<>(topic, i % partitions, null, value)));
                if (i % burst == burst - 1 || i == count - 1) {
                    if (transactional) producer.commitTransaction();
                    else producer.flush();
                    Thread.sleep(pause);
                }
            }
        }
        ArrayNode where = Worker.array();
        for (Future<RecordMetadata> each : sent) {
            RecordMetadata taken = each.get();
            where.addArray().add(taken.partition()).add(taken.hasOffset() ? taken.offset() : -1);
        }
        return where;
    }
}
