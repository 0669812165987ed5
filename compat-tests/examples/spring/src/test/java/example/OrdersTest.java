package example;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.springframework.beans.factory.annotation.Autowired;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.test.context.SpringBootTest;
import org.springframework.kafka.annotation.KafkaListener;
import org.springframework.kafka.core.KafkaTemplate;

@SpringBootTest(properties = {
    "spring.kafka.bootstrap-servers=${KAFKA_BOOTSTRAP_SERVERS}",
    "spring.kafka.consumer.auto-offset-reset=earliest"
})
class OrdersTest {
    @SpringBootApplication
    static class Application {
        final BlockingQueue<String> received = new LinkedBlockingQueue<>();

        @KafkaListener(topics = "orders", groupId = "billing")
        void receive(String order) {
            received.add(order);
        }
    }

    @Autowired KafkaTemplate<String, String> template;
    @Autowired Application application;

    @Test
    void anOrderIsDelivered() throws Exception {
        template.send("orders", "4711", "paid").get(10, TimeUnit.SECONDS);
        assertEquals("paid", application.received.poll(10, TimeUnit.SECONDS));
    }
}
