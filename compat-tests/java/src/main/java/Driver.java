import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.*;

/** The Java client; see ../README.md for the operations. */
public class Driver {
    static Map<String, String> o = new HashMap<>();

    static String enc(byte[] value) { return value == null ? "-" : "=" + Base64.getEncoder().encodeToString(value); }
    static byte[] dec(String text) { return text.equals("-") ? null : Base64.getDecoder().decode(text.substring(1)); }
    static synchronized void say(Object... words) {
        System.out.println(Arrays.stream(words).map(String::valueOf).collect(Collectors.joining("\t")));
        System.out.flush();
    }
    static void show(ConsumerRecord<byte[], byte[]> r) {
        StringJoiner headers = new StringJoiner(",");
        for (Header h : r.headers()) headers.add(h.key() + ":" + enc(h.value()));
        say("rec", r.partition(), r.offset(), r.timestamp(), enc(r.key()), enc(r.value()), headers);
    }
    static AtomicBoolean inputClosed() {
        AtomicBoolean closed = new AtomicBoolean();
        Thread t = new Thread(() -> { try { while (System.in.read() >= 0) { } } catch (Exception e) { } closed.set(true); });
        t.setDaemon(true);
        t.start();
        return closed;
    }
    static Producer<byte[], byte[]> producer(String... more) {
        Properties p = new Properties();
        p.put("bootstrap.servers", o.get("bootstrap"));
        p.put("max.request.size", o.getOrDefault("max_bytes", "1048576"));
        for (int i = 0; i < more.length; i += 2) p.put(more[i], more[i + 1]);
        return new KafkaProducer<>(p, new ByteArraySerializer(), new ByteArraySerializer());
    }
    static Consumer<byte[], byte[]> consumer(String... more) {
        Properties p = new Properties();
        p.put("bootstrap.servers", o.get("bootstrap"));
        p.put("auto.offset.reset", "earliest");
        p.put("enable.auto.commit", "false");
        p.put("isolation.level", o.getOrDefault("isolation", "read_uncommitted"));
        p.put("max.partition.fetch.bytes", o.getOrDefault("max_bytes", "1048576"));
        for (int i = 0; i < more.length; i += 2) p.put(more[i], more[i + 1]);
        return new KafkaConsumer<>(p, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    public static void main(String[] args) throws Exception {
        for (int i = 1; i < args.length; i++) o.put(args[i].substring(0, args[i].indexOf('=')), args[i].substring(args[i].indexOf('=') + 1));
        switch (args[0]) {
            case "metadata" -> {
                try (Admin admin = Admin.create(Map.of("bootstrap.servers", o.get("bootstrap")))) {
                    for (var n : admin.describeCluster().nodes().get()) say("broker", n.host() + ":" + n.port());
                    for (var t : admin.describeTopics(admin.listTopics().names().get()).allTopicNames().get().values()) say("topic", t.name(), t.partitions().size());
                }
            }
            case "create" -> {
                try (Admin admin = Admin.create(Map.of("bootstrap.servers", o.get("bootstrap")))) {
                    admin.createTopics(List.of(new NewTopic(o.get("topic"), Integer.parseInt(o.get("partitions")), (short) 1))).all().get();
                }
            }
            case "produce" -> produce();
            case "consume" -> consume();
            case "group" -> group();
            case "stream" -> stream();
            case "transform" -> transform();
            case "hang" -> {
                var producer = producer("transactional.id", o.get("id"));
                producer.initTransactions();
                producer.beginTransaction();
                producer.send(new ProducerRecord<>(o.get("topic"), "x".getBytes())).get();
                Runtime.getRuntime().halt(0);
            }
            case "wordcount" -> WordCount.run(o.get("bootstrap"), o.get("from"), o.get("to"), o.get("group"), o.get("id"), inputClosed());
            default -> throw new IllegalArgumentException(args[0]);
        }
    }

    static void produce() throws Exception {
        try (var producer = producer("compression.type", o.get("codec"), "linger.ms", "20")) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (String line : Files.readAllLines(Path.of(o.get("file")))) {
                String[] w = line.split("\t", -1);
                long timestamp = Long.parseLong(w[4]);
                var record = new ProducerRecord<>(o.get("topic"), Integer.parseInt(w[3]), timestamp == 0 ? null : timestamp, dec(w[0]), dec(w[1]));
                for (String h : w[2].split(",")) if (!h.isEmpty()) record.headers().add(h.substring(0, h.indexOf(':')), dec(h.substring(h.indexOf(':') + 1)));
                sent.add(producer.send(record));
            }
            for (int i = 0; i < sent.size(); i++) say("ack", i, sent.get(i).get(60, TimeUnit.SECONDS).offset());
        }
    }

    static void consume() {
        try (var c = consumer()) {
            var where = new TopicPartition(o.get("topic"), Integer.parseInt(o.get("partition")));
            c.assign(List.of(where));
            long end = c.endOffsets(List.of(where)).get(where);
            String[] start = o.get("start").split(":");
            if (start[0].equals("beginning")) c.seekToBeginning(List.of(where));
            else if (start[0].equals("offset")) c.seek(where, Long.parseLong(start[1]));
            else c.seek(where, c.offsetsForTimes(Map.of(where, Long.parseLong(start[1]))).get(where).offset());
            while (c.position(where) < end) for (var r : c.poll(Duration.ofSeconds(1))) show(r);
        }
    }

    static void group() {
        var closed = inputClosed();
        try (var c = consumer("group.id", o.get("group"), "session.timeout.ms", "10000", "heartbeat.interval.ms", "500")) {
            Set<Integer> held = new TreeSet<>();
            Runnable tell = () -> say("assigned", held.stream().map(String::valueOf).collect(Collectors.joining(",")));
            c.subscribe(List.of(o.get("topic")), new ConsumerRebalanceListener() {
                public void onPartitionsRevoked(Collection<TopicPartition> ps) { ps.forEach(p -> held.remove(p.partition())); tell.run(); }
                public void onPartitionsAssigned(Collection<TopicPartition> ps) { ps.forEach(p -> held.add(p.partition())); tell.run(); }
            });
            while (!closed.get()) {
                var records = c.poll(Duration.ofMillis(100));
                for (var r : records) show(r);
                if (!records.isEmpty()) c.commitSync();
            }
        }
    }

    static void stream() throws Exception {
        var closed = inputClosed();
        try (var producer = producer("linger.ms", "5", "retry.backoff.ms", "50", "reconnect.backoff.max.ms", "200", "max.block.ms", "120000")) {
            Semaphore room = new Semaphore(2000);
            double rate = Double.parseDouble(o.getOrDefault("rate", "Infinity"));
            int partitions = Integer.parseInt(o.getOrDefault("partitions", "1"));
            long begin = System.nanoTime();
            for (long n = 0; !closed.get(); n++) {
                String value = "s" + n;
                while (n > (System.nanoTime() - begin) / 1e9 * rate && !closed.get()) Thread.sleep(1);
                room.acquire();
                producer.send(new ProducerRecord<>(o.get("topic"), (int) (n % partitions), null, value.getBytes(StandardCharsets.UTF_8)), (m, e) -> { room.release(); if (e == null) say("ack", value); });
            }
        }
    }

    /** Ends with an error where this producer cannot go on; a new process takes its place. */
    static void transform() {
        var closed = inputClosed();
        Random chance = new Random(o.get("id").hashCode());
        try (var producer = producer("transactional.id", o.get("id"), "transaction.timeout.ms", "10000", "reconnect.backoff.max.ms", "200");
             var c = consumer("group.id", o.get("group"), "session.timeout.ms", "6000", "max.poll.records", "100")) {
            c.subscribe(List.of(o.get("from")));
            producer.initTransactions();
            say("ready");
            while (!closed.get()) {
                var records = c.poll(Duration.ofMillis(200));
                if (records.isEmpty()) continue;
                try {
                    producer.beginTransaction();
                    Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
                    for (var r : records) {
                        byte[] value = ("t:" + new String(r.value(), StandardCharsets.UTF_8)).getBytes(StandardCharsets.UTF_8);
                        producer.send(new ProducerRecord<>(o.get("to"), r.partition(), null, value));
                        offsets.put(new TopicPartition(r.topic(), r.partition()), new OffsetAndMetadata(r.offset() + 1));
                    }
                    if (chance.nextInt(10) == 0) {
                        producer.flush();
                        back(producer, c);
                        continue;
                    }
                    producer.sendOffsetsToTransaction(offsets, c.groupMetadata());
                    producer.commitTransaction();
                } catch (org.apache.kafka.common.errors.ProducerFencedException | org.apache.kafka.common.errors.InvalidProducerEpochException fatal) {
                    throw fatal;
                } catch (org.apache.kafka.common.KafkaException abortable) {
                    back(producer, c);
                }
            }
        }
    }

    /** Aborts, and goes back to what the group has committed. */
    static void back(Producer<byte[], byte[]> producer, Consumer<byte[], byte[]> c) {
        producer.abortTransaction();
        var committed = c.committed(c.assignment());
        for (var p : c.assignment()) {
            var at = committed.get(p);
            if (at == null) c.seekToBeginning(List.of(p)); else c.seek(p, at.offset());
        }
    }
}
