//! Words: the small types that name things. An *offset* counts records, a *position* counts bytes in a file;
//! the compiler keeps them apart. Nothing here does work.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::sync::Arc;

/// A broker as clients see it: one core. Shard `i` of a host is `node.id + i`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub i32);

/// Index of a core's shard within this process, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// A topic's id (KIP-516). The nil id means "none".
pub type TopicId = uuid::Uuid;

/// A topic's name, shared and cheap to clone.
pub type TopicName = Arc<str>;

/// Number of a record in its partition, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub i64);

/// Byte in a file, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// How many leaders a partition has had. -1: unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaderEpoch(pub i32);

/// One client's connection on this shard: a slot that is used again, and the generation that tells its users apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    /// Index into the shard's and the ring's connection tables.
    pub slot: u32,
    /// Rises each time the slot is used again.
    pub generation: u32,
}

/// Who asked for a disk job: given back with its completion. The meaning is the asker's (a log's number on this shard).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobOwner(pub u64);

/// A request whose answer comes later. Opaque to those who keep it; the shard knows connection and place in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Waiter(pub u64);

/// A parked fetch. The slot is used again, the generation tells its users apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FetchWaitId {
    /// Index into the broker's table of parked fetches.
    pub slot: u32,
    /// Rises each time the slot is used again.
    pub generation: u32,
}

/// Where and how a reply goes: kept by whoever answers later.
#[derive(Clone, Copy, Debug)]
pub struct ReplyTo {
    /// The request's place in its connection's line.
    pub waiter: Waiter,
    /// Echoed to the client.
    pub correlation_id: i32,
    /// API key.
    pub api: i16,
    /// Version of request and reply.
    pub version: i16,
}

/// A point in time, passed down as an argument: only `io::clock` reads clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Nanoseconds of a clock that never goes back.
    pub monotonic_ns: u64,
    /// Milliseconds since 1970, as record timestamps count.
    pub wall_ms: i64,
}

impl Now {
    /// Milliseconds of the clock that never goes back.
    pub fn monotonic_ms(self) -> u64 {
        self.monotonic_ns / 1_000_000
    }
}

impl Add<i64> for Offset {
    type Output = Offset;
    fn add(self, count: i64) -> Offset {
        Offset(self.0 + count)
    }
}
impl AddAssign<i64> for Offset {
    fn add_assign(&mut self, count: i64) {
        self.0 += count;
    }
}
impl Sub for Offset {
    type Output = i64;
    fn sub(self, other: Offset) -> i64 {
        self.0 - other.0
    }
}
impl Add<u64> for Position {
    type Output = Position;
    fn add(self, bytes: u64) -> Position {
        Position(self.0 + bytes)
    }
}
impl AddAssign<u64> for Position {
    fn add_assign(&mut self, bytes: u64) {
        self.0 += bytes;
    }
}
impl Sub for Position {
    type Output = u64;
    fn sub(self, other: Position) -> u64 {
        self.0 - other.0
    }
}

macro_rules! display_as_number {
    ($($t:ident),*) => {$(
        impl fmt::Display for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
display_as_number!(NodeId, ShardId, Offset, Position, LeaderEpoch);
