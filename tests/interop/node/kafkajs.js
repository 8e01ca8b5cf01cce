// kafkajs: what it writes, reads and asks for. Called as `node kafkajs.js BOOTSTRAP CASE ARGUMENTS...`.
'use strict'

const assert = require('node:assert/strict')
const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, ConfigSource, logLevel } = require('kafkajs')
const SnappyCodec = require('kafkajs-snappy')
const lz4 = require('lz4-napi')
const zstd = require('@bokuweb/zstd-wasm')

const LIMIT_MS = 240_000
// The base of all explicit timestamps: recent, so that retention leaves the records alone.
const NOW_MS = Math.floor(Date.now() / 1000) * 1000 - 60_000

CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: encoder => lz4.compressFrame(encoder.buffer),
  decompress: buffer => lz4.decompressFrame(buffer),
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => Buffer.from(zstd.compress(encoder.buffer, 3)),
  decompress: async buffer => Buffer.from(zstd.decompress(buffer)),
})

const [bootstrap, name, ...words] = process.argv.slice(2)
const kafka = new Kafka({ brokers: [bootstrap], logLevel: logLevel.ERROR, requestTimeout: 120_000, connectionTimeout: 60_000 })

const pause = ms => new Promise(resolve => setTimeout(resolve, ms))

async function eventually(what, probe) {
  const deadline = Date.now() + LIMIT_MS
  while (!(await probe())) {
    assert.ok(Date.now() < deadline, `never: ${what}`)
    await pause(100)
  }
}

async function connected(client) {
  await client.connect()
  return client
}

async function create(topic, numPartitions, configEntries = []) {
  const admin = await connected(kafka.admin())
  assert.equal(await admin.createTopics({ topics: [{ topic, numPartitions, replicationFactor: 1, configEntries }] }), true)
  return admin
}

// Null keys and values, empty ones, headers, and a record of 1 MB.
function sample(codec, partition) {
  const records = []
  for (let i = 0; i < 60; i++) {
    records.push({
      partition,
      timestamp: String(NOW_MS + i),
      key: i % 7 === 1 ? null : `key-${i}`,
      value: i % 11 === 5 ? null : i % 11 === 6 ? '' : `${codec} value ${i}`.repeat((i % 5) + 1),
      headers: i % 3 ? {} : { source: 'interop', 'n\u00e4me': Buffer.from([0, 255]) },
    })
  }
  const large = Buffer.alloc(990_000, 'x')
  for (let i = 0, seed = 7; i < 500_000; i++) {
    seed = (seed * 1103515245 + 12345) % 2147483648
    large[i] = seed >> 16
  }
  records.push({ partition, timestamp: String(NOW_MS + 1000), key: 'large', value: large, headers: {} })
  return records
}

const bytes = value => (value === null || value === undefined ? null : Buffer.from(value))
const fields = r => ({
  timestamp: r.timestamp,
  key: bytes(r.key),
  value: bytes(r.value),
  headers: Object.fromEntries(Object.entries(r.headers || {}).map(([k, v]) => [k, Buffer.from(v)])),
})

// Reads a topic as a group of its own until it has what `done` asks for.
async function read(topic, groupId, done) {
  const consumer = await connected(kafka.consumer({ groupId, sessionTimeout: 60_000 }))
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  const records = []
  await consumer.run({ eachMessage: async ({ partition, message }) => void records.push({ partition, ...message }) })
  await eventually(`all records of ${topic}`, () => done(records))
  await consumer.disconnect()
  return records
}

async function data() {
  await zstd.init()
  const codecs = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy, lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD }
  for (const [codec, compression] of Object.entries(codecs)) {
    const topic = `js-${codec}`
    await (await create(topic, 3)).disconnect()
    const settings = [{ idempotent: true, acks: -1 }, { acks: 1 }, { acks: 0 }]
    for (const [partition, { idempotent = false, acks }] of settings.entries()) {
      const producer = await connected(kafka.producer({ idempotent, allowAutoTopicCreation: false }))
      await producer.send({ topic, acks, compression, messages: sample(codec, partition) })
      await producer.disconnect()
    }
    const records = await read(topic, `js-${codec}`, found => found.length >= 3 * sample(codec, 0).length)
    for (const partition of settings.keys()) {
      const mine = records.filter(r => r.partition === partition)
      assert.deepEqual(mine.map(r => Number(r.offset)), [...mine.keys()])
      for (const [i, wanted] of sample(codec, partition).entries()) {
        assert.deepEqual(fields(mine[i]), fields(wanted), `${codec}: partition ${partition}: record ${i}`)
      }
    }
  }
}

async function spread() {
  const [topic, count] = ['js-spread', 100]
  const admin = await create(topic, count)
  const { brokers } = await admin.describeCluster()
  const metadata = await admin.fetchTopicMetadata({ topics: [topic] })
  const leaders = new Set(metadata.topics[0].partitions.map(p => p.leader))
  assert.deepEqual(leaders, new Set(brokers.map(b => b.nodeId)))
  const producer = await connected(kafka.producer({ allowAutoTopicCreation: false }))
  const messages = Array.from({ length: count }, (_, partition) => ({ partition, value: `value ${partition}` }))
  await producer.send({ topic, messages })
  // kafkajs sends a whole request again when one of its partitions was refused: once or more in each.
  const records = await read(topic, topic, found => new Set(found.map(r => r.partition)).size === count)
  for (const r of records) assert.equal(r.value.toString(), `value ${r.partition}`)
  const ends = await admin.fetchTopicOffsets(topic)
  assert.ok(ends.length === count && ends.every(end => Number(end.high) >= 1 && end.low === '0'), JSON.stringify(ends))

  // Offsets by time: one record every 100 ms of record time.
  await (await create('js-times', 1)).disconnect()
  await producer.send({ topic: 'js-times', messages: Array.from({ length: 200 }, (_, i) => ({ value: `${i}`, timestamp: String(NOW_MS + 100 * i) })) })
  for (const [timestamp, wanted] of [[0, 0], [NOW_MS, 0], [NOW_MS + 1, 1], [NOW_MS + 4_950, 50], [NOW_MS + 19_900, 199], [NOW_MS + 20_000, 200]]) {
    const [found] = await admin.fetchTopicOffsetsByTimestamp('js-times', timestamp)
    assert.equal(found.offset, String(wanted), `after ${timestamp - NOW_MS} ms`)
  }
  await producer.disconnect()
  await admin.disconnect()
}

const refused = (type, promise) => assert.rejects(promise, error => {
  const types = [error.type, ...(error.errors || []).map(e => e.type)]
  assert.ok(types.includes(type), `wanted ${type}, got ${types}: ${error.message}`)
  return true
})

async function admin() {
  const topic = 'js-admin'
  const admin = await create(topic, 3, [{ name: 'retention.ms', value: '86400000' }])
  assert.equal(await admin.createTopics({ topics: [{ topic, numPartitions: 1 }] }), false)
  await refused('INVALID_CONFIG', admin.createTopics({ topics: [{ topic: 'js-wrong', numPartitions: 1, configEntries: [{ name: 'retention.ms', value: 'soon' }] }] }))
  await refused('INVALID_TOPIC_EXCEPTION', admin.createTopics({ topics: [{ topic: 'js/wrong', numPartitions: 1 }] }))
  await admin.createPartitions({ topicPartitions: [{ topic, count: 5 }] })
  await eventually('5 partitions', async () => (await admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions.length === 5)

  const config = async key => {
    const { resources } = await admin.describeConfigs({ resources: [{ type: ConfigResourceTypes.TOPIC, name: topic }], includeSynonyms: true })
    return resources[0].configEntries.find(entry => entry.configName === key)
  }
  assert.equal((await config('retention.ms')).configValue, '86400000')
  assert.equal((await config('cleanup.policy')).configSource, ConfigSource.DEFAULT_CONFIG)
  await admin.alterConfigs({ validateOnly: false, resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries: [{ name: 'retention.ms', value: '7200000' }] }] })
  await eventually('a changed config', async () => (await config('retention.ms')).configValue === '7200000')
  const cluster = await admin.describeCluster()
  assert.ok(cluster.clusterId && cluster.brokers.length > 0 && cluster.controller !== null)

  await (await create('js-cut', 1)).disconnect()
  const producer = await connected(kafka.producer())
  await producer.send({ topic: 'js-cut', messages: Array.from({ length: 10 }, (_, i) => ({ value: `${i}` })) })
  // It deletes only from topics whose leaders it has looked up before.
  await admin.fetchTopicOffsets('js-cut')
  await admin.deleteTopicRecords({ topic: 'js-cut', partitions: [{ partition: 0, offset: '6' }] })
  await eventually('records cut', async () => (await admin.fetchTopicOffsets('js-cut'))[0].low === '6')
  assert.deepEqual((await read('js-cut', 'js-cut', found => found.length >= 4)).map(r => r.value.toString()), ['6', '7', '8', '9'])
  await producer.disconnect()

  await admin.deleteTopics({ topics: [topic] })
  await eventually('a topic that is gone', async () => !(await admin.listTopics()).includes(topic))
  await admin.disconnect()
}

async function produce(topic, first, end) {
  const producer = await connected(kafka.producer({ allowAutoTopicCreation: true }))
  const messages = []
  for (let i = Number(first); i < Number(end); i++) messages.push({ key: `v${i}`, value: `v${i}` })
  await producer.send({ topic, acks: -1, messages })
  await producer.disconnect()
}

async function consume(topic, groupId, count) {
  const consumer = await connected(kafka.consumer({ groupId }))
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  const next = {}
  let seen = 0
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ partition, message }) => {
      if (seen === Number(count)) return
      console.log('value', message.value.toString())
      next[partition] = String(Number(message.offset) + 1)
      seen++
    },
  })
  await eventually(`${count} records`, () => seen === Number(count))
  await consumer.commitOffsets(Object.entries(next).map(([partition, offset]) => ({ topic, partition: Number(partition), offset })))
  await consumer.disconnect()
}

async function member(topic, groupId, strategy, instance, sessionMs) {
  assert.ok(strategy === 'eager' && instance === '-', 'kafkajs has neither cooperative rebalancing nor static members')
  const consumer = kafka.consumer({ groupId, sessionTimeout: Number(sessionMs), heartbeatInterval: 1000 })
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    console.log('assigned', ...(payload.memberAssignment[topic] || []).sort((a, b) => a - b))
  })
  process.once('SIGTERM', async () => {
    await consumer.disconnect()
    console.log('closed')
    process.exit(0)
  })
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  await consumer.run({ autoCommitInterval: 500, eachMessage: async ({ message }) => console.log('value', message.value.toString()) })
}

// A group that has read 10 of 30 records: its lag, resets, its deletion, all by admin calls.
async function lag(topic, groupId) {
  const admin = await create(topic, 1)
  await produce(topic, 0, 30)
  const consumer = await connected(kafka.consumer({ groupId }))
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  let started = false
  await consumer.run({ autoCommit: false, eachMessage: async () => { started = true } })
  await eventually('a first record', () => started)
  await consumer.commitOffsets([{ topic, partition: 0, offset: '10', metadata: 'ten' }])
  const { groups } = await admin.describeGroups([groupId])
  assert.deepEqual([groups[0].state, groups[0].members.length], ['Stable', 1])
  await refused('NON_EMPTY_GROUP', admin.deleteGroups([groupId]).catch(error => { throw error.groups?.[0]?.error ?? error }))
  await consumer.disconnect()

  const committed = async () => (await admin.fetchOffsets({ groupId, topics: [topic] }))[0].partitions[0]
  assert.equal((await committed()).offset, '10')
  assert.equal((await committed()).metadata, 'ten')
  assert.equal((await admin.fetchTopicOffsets(topic))[0].high, '30')
  await admin.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: '25' }] })
  assert.equal((await committed()).offset, '25')
  // "Earliest" is committed as the number that stands for it.
  await admin.resetOffsets({ groupId, topic, earliest: true })
  assert.equal((await committed()).offset, '-2')
  const listed = async () => (await admin.listGroups()).groups.map(group => group.groupId)
  assert.ok((await listed()).includes(groupId))
  await admin.deleteGroups([groupId])
  assert.ok(!(await listed()).includes(groupId))
  await admin.disconnect()
}

const cases = { data, spread, admin, produce, consume, member, lag }
cases[name](...words).catch(error => {
  console.error(error)
  process.exit(1)
})
