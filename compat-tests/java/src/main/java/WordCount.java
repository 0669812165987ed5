import java.util.*;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.*;
import org.apache.kafka.streams.kstream.*;
import org.apache.kafka.streams.state.Stores;

/** Kafka Streams counts words with exactly_once_v2; its state lies in a changelog topic. */
class WordCount {
    static void run(String bootstrap, String from, String to, String group, String directory, AtomicBoolean closed) throws Exception {
        Properties p = new Properties();
        p.put("bootstrap.servers", bootstrap);
        p.put("application.id", group);
        p.put("state.dir", directory);
        p.put("processing.guarantee", "exactly_once_v2");
        p.put("commit.interval.ms", "100");
        p.put("num.stream.threads", "1");
        p.put("replication.factor", "1");
        p.put("consumer.session.timeout.ms", "6000");
        p.put("consumer.auto.offset.reset", "earliest");
        p.put("producer.transaction.timeout.ms", "10000");
        p.put("default.key.serde", Serdes.ByteArray().getClass());
        p.put("default.value.serde", Serdes.String().getClass());
        StreamsBuilder builder = new StreamsBuilder();
        builder.<byte[], String>stream(from)
            .map((key, line) -> KeyValue.pair("w" + Math.floorMod(line.hashCode(), 100), line))
            .groupByKey(Grouped.with(Serdes.String(), Serdes.String()))
            .count(Materialized.<String, Long>as(Stores.inMemoryKeyValueStore("counts")).withKeySerde(Serdes.String()).withValueSerde(Serdes.Long()))
            .toStream()
            .mapValues(count -> Long.toString(count))
            .to(to, Produced.with(Serdes.String(), Serdes.String()));
        KafkaStreams streams = new KafkaStreams(builder.build(), p);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            return org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse.REPLACE_THREAD;
        });
        streams.start();
        Driver.say("ready");
        while (!closed.get()) Thread.sleep(50);
        streams.close(java.time.Duration.ofSeconds(30));
    }
}
