//! Producers that remember what was acknowledged, and the comparison with what a partition holds.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringlane::io::sim::Random;
use ringlane::wire::record::{BatchBuilder, BatchFields};

use crate::client::{Client, StoredLog, batches};

/// One producer of one partition. Its records are numbered; what they say follows from their numbers.
pub struct Producer {
    pub topic: &'static str,
    pub partition: i32,
    name: u64,
    acks: i16,
    idempotent: bool,
    identity: Option<(i64, i16)>,
    random: Random,
    /// Number of the next record.
    next: u64,
    /// Sent and not acknowledged when the broker died: number of the first record, and how many.
    under_way: Option<(u64, u64)>,
    /// Offset and number.
    acknowledged: BTreeMap<i64, u64>,
}

impl Producer {
    /// An idempotent one sends what was not acknowledged again; another goes on with new records.
    pub fn new(topic: &'static str, partition: i32, name: u64, idempotent: bool) -> Producer {
        Producer {
            topic,
            partition,
            name,
            acks: if idempotent { -1 } else { 1 },
            idempotent,
            identity: None,
            random: Random::new(name + 1),
            next: 0,
            under_way: None,
            acknowledged: BTreeMap::new(),
        }
    }

    /// Records acknowledged so far that were not lost to damage.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// Sends until the broker is gone or enough was sent. The broker must refuse nothing.
    pub fn run(&mut self, address: SocketAddr, stop: &AtomicBool, batches_max: usize) {
        let Ok(mut client) = Client::connect(address) else { return };
        for _ in 0..batches_max {
            match self.send(&mut client) {
                Ok(0) => {}
                Ok(error) => panic!("{}-{}: refused with {error}", self.topic, self.partition),
                Err(_) => return,
            }
            if stop.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(Duration::from_micros(self.random.below(1500)));
        }
    }

    /// Sends one batch. The error code of the reply; an error: the broker is gone.
    pub fn send(&mut self, client: &mut Client) -> io::Result<i16> {
        if self.idempotent && self.identity.is_none() {
            self.identity = Some(client.init_producer_id()?);
        }
        let again = self.under_way.filter(|_| self.idempotent);
        let (first, count) = again.unwrap_or((self.next, 1 + self.random.below(20)));
        let (producer_id, producer_epoch) = self.identity.unwrap_or((-1, -1));
        let fields = match self.idempotent {
            true => BatchFields { producer_id, producer_epoch, base_sequence: first as i32, ..BatchFields::default() },
            false => BatchFields::default(),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64;
        let mut batch = Vec::new();
        let mut builder = BatchBuilder::new(&mut batch, fields);
        for number in first..first + count {
            builder.push(now, Some(b"key"), Some(&value(self.name, number)), &[]);
        }
        builder.finish();
        self.next = first + count;
        self.under_way = Some((first, count));
        let (error, base) = client.produce(self.topic, self.partition, self.acks, batch)?;
        if error != 0 {
            return Ok(error);
        }
        self.under_way = None;
        for number in first..first + count {
            let before = self.acknowledged.insert(base + (number - first) as i64, number);
            assert!(before.is_none(), "{}-{}: an offset was given twice", self.topic, self.partition);
        }
        Ok(0)
    }

    /// The log was cut: what was acknowledged from there on is gone.
    fn lose_from(&mut self, end: i64) {
        self.acknowledged.split_off(&end);
    }
}

fn value(producer: u64, number: u64) -> Vec<u8> {
    let mut value = format!("{producer}:{number}:").into_bytes();
    let size = value.len() + 20 + (number * 7919 % 2000) as usize;
    value.resize(size, b'a' + (number % 26) as u8);
    value
}

fn parse(value: &[u8]) -> (u64, u64) {
    let mut fields = value.split(|byte| *byte == b':').map(|f| std::str::from_utf8(f).ok()?.parse().ok());
    let mut field = || fields.next().flatten().expect("a record of a producer of this test");
    (field(), field())
}

/// Everything acknowledged is there once, in order, unchanged. `lost_from`: the log was damaged there and must end exactly so.
pub fn check(log: &StoredLog, producers: &mut [&mut Producer], lost_from: Option<i64>) {
    let place = format!("{}-{}", producers[0].topic, producers[0].partition);
    if let Some(end) = lost_from {
        assert_eq!(log.end, end, "{place}: the log ends where it was damaged");
        producers.iter_mut().for_each(|producer| producer.lose_from(end));
    }
    let mut last: HashMap<u64, u64> = HashMap::new();
    for record in &log.records {
        let (name, number) = parse(&record.value);
        let producer = producers.iter().find(|p| p.name == name).expect("a producer of this partition");
        assert!(number < producer.next, "{place}: record {number} was never sent");
        assert!(record.value == value(name, number), "{place}: offset {} is torn", record.offset);
        match last.insert(name, number) {
            Some(before) if producer.idempotent => {
                assert_eq!(number, before + 1, "{place}: producer {name} at offset {}", record.offset)
            }
            Some(before) => assert!(number > before, "{place}: {number} after {before} of producer {name}"),
            None => {}
        }
    }
    for producer in producers.iter() {
        for (&offset, &number) in producer.acknowledged.range(log.start..log.end) {
            let record = &log.records[(offset - log.start) as usize];
            assert_eq!(parse(&record.value), (producer.name, number), "{place}: offset {offset} is another record");
        }
        let past = producer.acknowledged.range(log.end..).next();
        assert!(past.is_none(), "{place}: acknowledged {past:?} is lost, the log ends at {}", log.end);
    }
}

/// Offsets and times are found by indexes as a walk over all records finds them.
pub fn check_indexes(client: &mut Client, topic: &str, partition: i32, log: &StoredLog, random: &mut Random) {
    if log.records.is_empty() {
        return;
    }
    for _ in 0..8 {
        let record = &log.records[random.below(log.records.len() as u64) as usize];
        let data = client.fetch(topic, partition, record.offset).records.unwrap_or_default();
        let found = batches(&data).into_iter().next();
        let (base, batch) = found.unwrap_or_else(|| panic!("{topic}-{partition}: no batch at {}", record.offset));
        let holds = base..=batch.last_offset().0;
        assert!(holds.contains(&record.offset), "{topic}-{partition}: fetch at {} gave {holds:?}", record.offset);
        let first = log.records.iter().find(|r| r.timestamp >= record.timestamp).expect("this one at least");
        let found = client.offset_for_time(topic, partition, record.timestamp);
        assert_eq!(found, (first.timestamp, first.offset), "{topic}-{partition}: time {}", record.timestamp);
    }
}
