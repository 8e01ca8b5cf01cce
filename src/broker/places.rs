//! Where the partitions of a topic are: led by this core, in one of its slots, or by another broker.

use std::rc::Rc;

use crate::ids::{LeaderEpoch, NodeId};
use crate::wire::error_code::ErrorCode;

/// Where a partition is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Here(u32),
    Elsewhere(NodeId, LeaderEpoch),
}

/// Where the partitions of a topic are, at the moment of asking: for who goes through many of them. None of a topic that is
/// not known.
#[derive(Clone, Default)]
pub struct Places(Option<Rc<[Place]>>);

impl Places {
    /// The slot of a partition that is led here.
    pub fn find(&self, index: i32) -> Result<u32, NotHere> {
        match usize::try_from(index).ok().and_then(|index| self.get(index)) {
            Some(Place::Here(slot)) => Ok(slot),
            Some(Place::Elsewhere(node, epoch)) => {
                Err(NotHere { error: ErrorCode::NotLeaderOrFollower, leader: Some((node, epoch)) })
            }
            None => Err(NotHere::unknown(ErrorCode::UnknownTopicOrPartition)),
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<Place> {
        self.0.as_ref()?.get(index).copied()
    }

    /// The slots of all that are led here.
    pub(super) fn here(&self) -> impl Iterator<Item = u32> {
        self.0.iter().flat_map(|places| places.iter()).filter_map(|place| match place {
            Place::Here(slot) => Some(*slot),
            Place::Elsewhere(..) => None,
        })
    }
}

impl From<Vec<Place>> for Places {
    fn from(places: Vec<Place>) -> Places {
        Places(Some(places.into()))
    }
}

/// Why a partition cannot serve a request here.
#[derive(Clone, Copy, Debug)]
pub struct NotHere {
    /// The code for the reply.
    pub error: ErrorCode,
    /// Who leads it, if that is known and it is somebody else.
    pub leader: Option<(NodeId, LeaderEpoch)>,
}

impl NotHere {
    pub(super) fn unknown(error: ErrorCode) -> NotHere {
        NotHere { error, leader: None }
    }
}
