// kafkajs; see ../README.md for the operations.
import { createReadStream } from "node:fs";
import { createInterface } from "node:readline";
import kafkajs from "kafkajs";
import SnappyCodec from "kafkajs-snappy";

const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = kafkajs;
CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec;
const operation = process.argv[2];
const o = Object.fromEntries(process.argv.slice(3).map((w) => [w.slice(0, w.indexOf("=")), w.slice(w.indexOf("=") + 1)]));
const kafka = new Kafka({ brokers: [o.bootstrap], logLevel: logLevel.NOTHING, retry: { retries: 200, initialRetryTime: 50, maxRetryTime: 300 } });
const enc = (v) => (v === null || v === undefined ? "-" : "=" + Buffer.from(v).toString("base64"));
const dec = (s) => (s === "-" ? null : Buffer.from(s.slice(1), "base64"));
const say = (...words) => console.log(words.join("\t"));
const show = (partition, m) =>
  say("rec", partition, m.offset, m.timestamp, enc(m.key), enc(m.value), Object.entries(m.headers ?? {}).map(([n, v]) => `${n}:${enc(v)}`).join(","));
const inputClosed = new Promise((resolve) => process.stdin.on("end", resolve).resume());
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function withAdmin(work) {
  const admin = kafka.admin();
  await admin.connect();
  try {
    return await work(admin);
  } finally {
    await admin.disconnect();
  }
}

async function produce() {
  const codec = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy }[o.codec];
  if (codec === undefined) {
    console.error(`kafkajs brings no ${o.codec} codec`);
    process.exit(77);
  }
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
  await producer.connect();
  let number = 0;
  for await (const line of createInterface({ input: createReadStream(o.file) })) {
    const [key, value, headers, partition, timestamp] = line.split("\t");
    const pairs = headers.split(",").filter(Boolean).map((h) => [h.slice(0, h.indexOf(":")), dec(h.slice(h.indexOf(":") + 1))]);
    const message = { key: dec(key), value: dec(value), headers: Object.fromEntries(pairs), partition: Number(partition) };
    if (timestamp !== "0") message.timestamp = timestamp;
    const [done] = await producer.send({ topic: o.topic, compression: codec, acks: -1, messages: [message] });
    say("ack", number++, done.baseOffset);
  }
  await producer.disconnect();
}

async function consume() {
  const partition = Number(o.partition);
  const [place, end] = await withAdmin(async (admin) => {
    const ends = (await admin.fetchTopicOffsets(o.topic)).find((p) => p.partition === partition);
    const [kind, where] = o.start.split(":");
    if (kind === "beginning") return [ends.low, Number(ends.high)];
    if (kind === "offset") return [where, Number(ends.high)];
    const found = (await admin.fetchTopicOffsetsByTimestamp(o.topic, Number(where))).find((p) => p.partition === partition);
    return [found.offset, Number(ends.high)];
  });
  const consumer = kafka.consumer({ groupId: `reader-${process.pid}-${Date.now()}`, maxBytesPerPartition: Number(o.max_bytes ?? 1048576) });
  await consumer.connect();
  await consumer.subscribe({ topics: [o.topic], fromBeginning: true });
  let finished;
  const done = new Promise((resolve) => (finished = resolve));
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ partition: p, message }) => {
      if (p !== partition || Number(message.offset) < Number(place) || Number(message.offset) >= end) return;
      show(p, message);
      if (Number(message.offset) === end - 1) finished();
    },
  });
  consumer.seek({ topic: o.topic, partition, offset: place });
  await done;
  await consumer.disconnect();
}

async function group() {
  const consumer = kafka.consumer({ groupId: o.group, sessionTimeout: 10000, heartbeatInterval: 500 });
  await consumer.connect();
  await consumer.subscribe({ topics: [o.topic], fromBeginning: true });
  consumer.on(consumer.events.GROUP_JOIN, (e) => say("assigned", (e.payload.memberAssignment[o.topic] ?? []).join(",")));
  await consumer.run({ autoCommitThreshold: 1, eachMessage: async ({ partition, message }) => show(partition, message) });
  await inputClosed;
  await consumer.disconnect();
}

async function stream() {
  let closed = false;
  inputClosed.then(() => (closed = true));
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
  await producer.connect();
  for (let n = 0; !closed; n += 100) {
    const values = Array.from({ length: 100 }, (_, i) => `s${n + i}`);
    await producer.send({ topic: o.topic, acks: -1, messages: values.map((value) => ({ value, partition: 0 })) });
    for (const value of values) say("ack", value);
    await sleep(0);
  }
  await producer.disconnect();
}

const work = {
  metadata: () =>
    withAdmin(async (admin) => {
      for (const b of (await admin.describeCluster()).brokers) say("broker", `${b.host}:${b.port}`);
      for (const t of (await admin.fetchTopicMetadata()).topics) say("topic", t.name, t.partitions.length);
    }),
  // -1 is a topic of which only the name is given, as in kafkajs's own documentation.
  create: () =>
    withAdmin((admin) =>
      admin.createTopics({ topics: [o.partitions === "-1" ? { topic: o.topic } : { topic: o.topic, numPartitions: Number(o.partitions) }] }),
    ),
  produce,
  consume,
  group,
  stream,
};
await work[operation]();
// What was printed goes out before the end.
process.stdout.write("", () => process.exit(0));
