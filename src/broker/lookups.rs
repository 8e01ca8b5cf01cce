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
    /// It has ended: to be asked again.
    Due,
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
    fn is_due(&self) -> bool {
        self.states.iter().any(|state| matches!(state, LookupState::Due))
    }
}

/// All parked lookups of this core.
#[derive(Default)]
pub struct Lookups {
    parked: Vec<Lookup>,
    /// Some of them may be due.
    any_due: bool,
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
        for state in self.parked.iter_mut().flat_map(|lookup| &mut lookup.states) {
            if matches!(state, LookupState::Waits(waits_for) if *waits_for == owner) {
                *state = LookupState::Due;
                self.any_due = true;
            }
        }
    }

    /// A lookup that can be told more now. It is parked no longer; if it is parked again, it waits for another read.
    pub fn next_due(&mut self) -> Option<Lookup> {
        let at = self.any_due.then(|| self.parked.iter().position(Lookup::is_due)).flatten();
        self.any_due = at.is_some();
        at.map(|at| self.parked.swap_remove(at))
    }
}
