//! ListOffsets requests that wait: for bytes to be read from the disk, then asked again for what those partitions could not
//! tell; or for their turn to search a batch, which one at a time does, a budget in each turn of the loop.

use std::collections::VecDeque;

use kafka_protocol::messages::ListOffsetsRequest;

use crate::ids::{JobOwner, ReplyTo};
use crate::storage::{FoundOffset, RecordSearch};
use crate::wire::error_code::ErrorCode;

/// Requests parked at once. Above it clients are told to come again.
const PARKED_MAX: usize = 1024;

/// What is known for one partition.
#[derive(Debug)]
pub enum LookupState {
    /// This is told.
    Known(ErrorCode, FoundOffset),
    /// A read that this log started must end first.
    Waits(JobOwner),
    /// It has ended, or another lookup was searching: to be asked again.
    Due,
    /// A batch is searched, and the budget of this turn was spent. Of all lookups one at most is here, with one partition.
    Searches(Box<RecordSearch>),
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
    fn searches(&self) -> bool {
        self.states.iter().any(|state| matches!(state, LookupState::Searches(_)))
    }
    fn is_due(&self) -> bool {
        self.states.iter().any(|state| matches!(state, LookupState::Due | LookupState::Searches(_)))
    }
}

/// All parked lookups of this core.
#[derive(Default)]
pub struct Lookups {
    /// Wait for reads only.
    waiting: Vec<Lookup>,
    /// Can be told more. The one that searches is the first.
    due: VecDeque<Lookup>,
}

impl Lookups {
    /// Parks a lookup, behind the others. Given back: too many are.
    pub fn park(&mut self, lookup: Lookup) -> Result<(), Lookup> {
        if self.waiting.len() + self.due.len() >= PARKED_MAX {
            return Err(lookup);
        }
        match lookup.is_due() {
            true if lookup.searches() => self.due.push_front(lookup),
            true => self.due.push_back(lookup),
            false => self.waiting.push(lookup),
        }
        Ok(())
    }

    /// A read that this log started has ended.
    pub(super) fn read_ended(&mut self, owner: JobOwner) {
        for state in self.waiting.iter_mut().chain(&mut self.due).flat_map(|lookup| &mut lookup.states) {
            if matches!(state, LookupState::Waits(waits_for) if *waits_for == owner) {
                *state = LookupState::Due;
            }
        }
        self.due.extend(self.waiting.extract_if(.., |lookup| lookup.is_due()));
    }

    /// Can some be told more?
    pub fn any_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// A lookup that can be told more now. It is parked no longer; if it is parked again, there is still more to do.
    pub fn next_due(&mut self) -> Option<Lookup> {
        self.due.pop_front()
    }
}
