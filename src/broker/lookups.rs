//! ListOffsets requests that wait for bytes to be read from the disk: parked until the reads they caused have ended, then
//! asked again for what those partitions could not tell.

use kafka_protocol::messages::ListOffsetsRequest;

use crate::ids::{JobOwner, LeaderEpoch, Offset, ReplyTo};
use crate::wire::error_code::ErrorCode;

/// Requests parked at once. Above it clients are told to come again.
const PARKED_MAX: usize = 1024;

/// What is told of an offset; -1 where there is nothing to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundOffset {
    /// Of the record, if a time was asked for.
    pub timestamp: i64,
    /// The offset.
    pub offset: Offset,
    /// The leader epoch it was written under.
    pub epoch: LeaderEpoch,
}

/// What is known for one partition.
#[derive(Clone, Copy, Debug)]
pub enum LookupState {
    /// This is told.
    Known(ErrorCode, FoundOffset),
    /// A read that this log started must end first.
    Waits(JobOwner),
}

/// A request under way.
#[derive(Debug)]
pub struct Lookup {
    /// Where the reply goes.
    pub to: ReplyTo,
    /// As asked.
    pub request: ListOffsetsRequest,
    /// One for each partition of the request, in order.
    pub states: Vec<LookupState>,
}

impl Lookup {
    fn waits_for(&self, owner: JobOwner) -> bool {
        self.states.iter().any(|state| matches!(state, LookupState::Waits(o) if *o == owner))
    }
}

/// All parked lookups of this core.
#[derive(Default)]
pub struct Lookups {
    parked: Vec<Lookup>,
    /// Logs whose reads have ended.
    ended: Vec<JobOwner>,
}

impl Lookups {
    /// Parks a lookup. Given back: too many are.
    pub fn park(&mut self, lookup: Lookup) -> Result<(), Lookup> {
        if self.parked.len() >= PARKED_MAX {
            return Err(lookup);
        }
        self.parked.push(lookup);
        Ok(())
    }

    /// A read that this log started has ended.
    pub(super) fn read_ended(&mut self, owner: JobOwner) {
        if self.parked.iter().any(|lookup| lookup.waits_for(owner)) {
            self.ended.push(owner);
        }
    }

    /// A lookup that can be told more now, and the log whose read has ended. It is parked no longer.
    pub fn next_due(&mut self) -> Option<(Lookup, JobOwner)> {
        while let Some(&owner) = self.ended.last() {
            if let Some(at) = self.parked.iter().position(|lookup| lookup.waits_for(owner)) {
                return Some((self.parked.swap_remove(at), owner));
            }
            self.ended.pop();
        }
        None
    }
}
