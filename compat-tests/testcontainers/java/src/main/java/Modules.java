import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.function.Function;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.testcontainers.containers.GenericContainer;
import org.testcontainers.kafka.ConfluentKafkaContainer;
import org.testcontainers.kafka.KafkaContainer;
import org.testcontainers.redpanda.RedpandaContainer;
import org.testcontainers.utility.DockerImageName;

/** The image under the real Testcontainers modules of Java: Modules IMAGE. */
public class Modules {
    public static void main(String[] words) throws Exception {
        var image = DockerImageName.parse(words[0]);
        serve("java KafkaContainer", new KafkaContainer(image.asCompatibleSubstituteFor("apache/kafka")), KafkaContainer::getBootstrapServers);
        serve("java ConfluentKafkaContainer", new ConfluentKafkaContainer(image.asCompatibleSubstituteFor("confluentinc/cp-kafka")),
            ConfluentKafkaContainer::getBootstrapServers);
        serve("java RedpandaContainer", new RedpandaContainer(image.asCompatibleSubstituteFor("docker.redpanda.com/redpandadata/redpanda")),
            RedpandaContainer::getBootstrapServers);
        System.exit(0);
    }

    /** A record there and back. */
    private static <C extends GenericContainer<C>> void serve(String name, C container, Function<C, String> address) throws Exception {
        long begin = System.nanoTime();
        try (container) {
            container.start();
            double ready = (System.nanoTime() - begin) / 1e9;
            Map<String, Object> common = Map.of("bootstrap.servers", address.apply(container));
            try (var producer = new KafkaProducer<>(common, new StringSerializer(), new StringSerializer())) {
                producer.send(new ProducerRecord<>("t", "x")).get();
            }
            Map<String, Object> reading = Map.of("bootstrap.servers", address.apply(container), "group.id", "g", "auto.offset.reset", "earliest");
            try (var consumer = new KafkaConsumer<>(reading, new StringDeserializer(), new StringDeserializer())) {
                consumer.subscribe(List.of("t"));
                var records = consumer.poll(Duration.ofSeconds(20));
                if (records.count() != 1 || !records.iterator().next().value().equals("x")) {
                    throw new AssertionError(name + ": got " + records.count() + " records");
                }
            }
            System.out.printf("%-32s ready after %4.1f s  ok%n", name, ready);
        }
    }
}
