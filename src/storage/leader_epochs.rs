//! Which leader wrote what: each leader epoch with the offset of its first record, as Kafka keeps it in
//! `leader-epoch-checkpoint`. Followers ask it where to truncate. Epochs and offsets both strictly rise.

use crate::ids::{LeaderEpoch, Offset};

/// File name within a partition's directory.
pub const FILE_NAME: &str = "leader-epoch-checkpoint";

/// Epoch -> first offset.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochs {
    entries: Vec<(LeaderEpoch, Offset)>,
}

impl LeaderEpochs {
    /// Notes that `epoch` wrote at `offset`. True: it is a new epoch.
    pub fn assign(&mut self, epoch: LeaderEpoch, offset: Offset) -> bool {
        if epoch.0 < 0 || self.latest().is_some_and(|latest| latest >= epoch) {
            return false;
        }
        // An epoch that wrote nothing that survived has no place.
        self.entries.retain(|(_, start)| *start < offset);
        self.entries.push((epoch, offset));
        true
    }
    /// The youngest epoch.
    pub fn latest(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|(epoch, _)| *epoch)
    }
    /// The epoch that wrote the record at `offset`.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let count = self.entries.partition_point(|(_, start)| *start <= offset);
        count.checked_sub(1).map(|i| self.entries[i].0)
    }
    /// The largest epoch not above `epoch`, and the offset where the next one begins (`log_end_offset` for the last):
    /// what OffsetForLeaderEpoch answers. `None`: not known here.
    pub fn end_offset_for(&self, epoch: LeaderEpoch, log_end_offset: Offset) -> Option<(LeaderEpoch, Offset)> {
        let latest = self.latest()?;
        if epoch == latest {
            return Some((latest, log_end_offset));
        }
        if epoch > latest || epoch.0 < 0 {
            return None;
        }
        let next = self.entries.partition_point(|(e, _)| *e <= epoch);
        let end = self.entries[next].1;
        // Older than all we know: nothing of it is here.
        Some(next.checked_sub(1).map_or((epoch, end), |i| (self.entries[i].0, end)))
    }
    /// Forgets epochs that begin at or after `end`. True: something changed.
    pub fn truncate_from_end(&mut self, end: Offset) -> bool {
        let before = self.entries.len();
        self.entries.retain(|(_, start)| *start < end);
        before != self.entries.len()
    }
    /// Forgets epochs that ended before `start`; the one that spans it now begins there. True: something changed.
    pub fn truncate_from_start(&mut self, start: Offset) -> bool {
        let spanning = self.entries.partition_point(|(_, s)| *s <= start);
        let Some(first) = spanning.checked_sub(1) else { return false };
        if first == 0 && self.entries[0].1 == start {
            return false;
        }
        self.entries.drain(..first);
        self.entries[0].1 = start;
        true
    }
    /// The file's text: version, count, then `epoch offset` a line.
    pub fn encode(&self) -> String {
        let mut text = format!("0\n{}\n", self.entries.len());
        for (epoch, offset) in &self.entries {
            text.push_str(&format!("{epoch} {offset}\n"));
        }
        text
    }
    /// Reads the file's text. `None`: damaged.
    pub fn decode(text: &str) -> Option<LeaderEpochs> {
        let mut lines = text.lines();
        if lines.next()?.trim() != "0" {
            return None;
        }
        let count: usize = lines.next()?.trim().parse().ok()?;
        let mut epochs = LeaderEpochs::default();
        for line in lines.by_ref().take(count) {
            let (epoch, offset) = line.split_once(' ')?;
            if !epochs.assign(LeaderEpoch(epoch.parse().ok()?), Offset(offset.trim().parse().ok()?)) {
                return None;
            }
        }
        (epochs.entries.len() == count).then_some(epochs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs() -> LeaderEpochs {
        LeaderEpochs::decode("0\n3\n1 10\n2 20\n5 30\n").unwrap()
    }

    #[test]
    fn answers_as_kafka() {
        let epochs = epochs();
        let ask = |e| epochs.end_offset_for(LeaderEpoch(e), Offset(44)).map(|(e, o)| (e.0, o.0));
        assert_eq!(ask(5), Some((5, 44)));
        assert_eq!(ask(6), None);
        assert_eq!(ask(-1), None);
        assert_eq!(ask(3), Some((2, 30)));
        assert_eq!(ask(1), Some((1, 20)));
        assert_eq!(ask(0), Some((0, 10)));
        assert_eq!(epochs.epoch_at(Offset(29)), Some(LeaderEpoch(2)));
        assert_eq!(epochs.epoch_at(Offset(9)), None);
    }

    #[test]
    fn truncates_at_both_ends_and_round_trips() {
        let mut epochs = epochs();
        assert!(!epochs.assign(LeaderEpoch(5), Offset(40)));
        assert!(epochs.truncate_from_end(Offset(30)));
        assert!(epochs.truncate_from_start(Offset(15)));
        assert!(!epochs.truncate_from_start(Offset(15)));
        assert_eq!(epochs.encode(), "0\n2\n1 15\n2 20\n");
        assert!(epochs.assign(LeaderEpoch(7), Offset(20)), "epoch 2 wrote nothing that is left");
        assert_eq!(epochs.encode(), "0\n2\n1 15\n7 20\n");
        for bad in ["", "1\n0\n", "0\n2\n1 10\n", "0\n2\n2 10\n1 20\n", "0\n1\nx y\n"] {
            assert_eq!(LeaderEpochs::decode(bad), None, "{bad:?}");
        }
    }
}
