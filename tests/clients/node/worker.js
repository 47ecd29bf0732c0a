// KafkaJS as a worker: told by its standard input what to do, it says on its standard output what came of it, a JSON
// object a line both ways (see worker.py). Its folder with modules is named by NODE_PATH.
"use strict";

const readline = require("node:readline");
const { Kafka, logLevel } = require("kafkajs");

const kafka = (words) =>
  new Kafka({ clientId: "kafkajs", brokers: [words.bootstrap], logLevel: logLevel.NOTHING, retry: { retries: 10 } });

const text = (bytes) => (bytes === null || bytes === undefined ? null : Buffer.from(bytes).toString("base64"));

// A header that occurs twice is a list; one without a value is null.
const headers = (message) =>
  Object.entries(message.headers || {}).flatMap(([name, value]) =>
    (Array.isArray(value) ? value : [value]).map((each) => [name, text(each)]),
  );

const plain = (partition, message) => [
  partition,
  Number(message.offset),
  Number(message.timestamp),
  text(message.key),
  text(message.value),
  headers(message),
];

// Every consumer of KafkaJS is in a group; one that is to read partitions from offsets gets a group of its own.
async function consume(words, group, take, begin) {
  const consumer = kafka(words).consumer({
    groupId: group,
    readUncommitted: !words.committed,
    maxWaitTimeInMs: 500,
    rebalanceTimeout: 5000,
  });
  await consumer.connect();
  try {
    await consumer.subscribe({ topic: words.topic, fromBeginning: true });
    await new Promise((done, failed) => {
      consumer.on(consumer.events.CRASH, (event) => failed(event.payload.error));
      const eachMessage = async ({ partition, message }) => {
        if (await take(consumer, partition, message)) done();
      };
      consumer.run({ autoCommit: false, eachMessage }).then(() => begin(consumer), failed);
    });
  } finally {
    await consumer.disconnect();
  }
}

async function read(words) {
  const records = [];
  const starts = new Map(Object.entries(words.starts || {}).map(([p, offset]) => [Number(p), offset]));
  const missing = new Map(Object.entries(words.last).map(([p, offset]) => [Number(p), offset]));
  const take = async (_, partition, message) => {
    // What was fetched before the seek has come into effect may still be handed out.
    if (missing.has(partition) && Number(message.offset) >= (starts.get(partition) ?? 0)) {
      records.push(plain(partition, message));
      if (Number(message.offset) >= missing.get(partition)) missing.delete(partition);
    }
    return missing.size === 0;
  };
  await consume(words, `reader-${process.pid}-${words.id}`, take, (consumer) => {
    for (const [partition, offset] of starts) consumer.seek({ topic: words.topic, partition, offset: String(offset) });
  });
  return records;
}

async function group(words) {
  if (words.protocol !== "classic") throw new Error(`KafkaJS has no group protocol ${words.protocol}`);
  const records = [];
  const next = new Map();
  const take = async (consumer, partition, message) => {
    if (records.length < words.count) {
      records.push(plain(partition, message));
      next.set(partition, Number(message.offset) + 1);
      if (records.length === words.count) {
        const offsets = [...next].map(([p, offset]) => ({ topic: words.topic, partition: p, offset: String(offset) }));
        await consumer.commitOffsets(offsets);
      }
    }
    return records.length === words.count;
  };
  await consume(words, words.group, take, () => {});
  return records;
}

async function withAdmin(words, act) {
  const admin = kafka(words).admin();
  await admin.connect();
  try {
    return await act(admin);
  } finally {
    await admin.disconnect();
  }
}

// The end of the partition stands for "no record that new", as KafkaJS has it, and times are not told.
const times = (words) =>
  withAdmin(words, async (admin) => {
    const found = {};
    for (const [partition, asked] of Object.entries(words.times)) {
      found[partition] = [];
      for (const time of asked) {
        const answers = await admin.fetchTopicOffsetsByTimestamp(words.topic, time);
        const offset = Number(answers.find((answer) => answer.partition === Number(partition)).offset);
        found[partition].push([offset, null]);
      }
    }
    return found;
  });

const bounds = (words) =>
  withAdmin(words, async (admin) => {
    const found = {};
    for (const { partition, low, high } of await admin.fetchTopicOffsets(words.topic))
      if (words.partitions.includes(partition)) found[partition] = [Number(low), Number(high)];
    return found;
  });

const commands = { about: async () => require("kafkajs/package.json").version, read, group, times, bounds };

readline
  .createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const words = JSON.parse(line);
    const answer = { id: words.id };
    try {
      answer.ok = await commands[words.do](words);
    } catch (fault) {
      answer.error = fault.stack;
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
  })
  .on("close", () => process.exit(0));
