//! Which shard leads which partition. Partitions of one topic are spread evenly first, all partitions second; with one
//! host there is one replica, since replicas of a partition never share a host.

use std::collections::BTreeMap;

use super::image::{ClusterImage, PartitionInfo};
use super::record::{PartitionChange, Record};
use crate::ids::{NodeId, TopicId};

/// How many partitions each broker leads: of a topic, and in all.
#[derive(Clone, Debug, Default)]
pub struct Loads {
    total: BTreeMap<NodeId, usize>,
}

impl Loads {
    /// Loads of the brokers that are there.
    pub fn of(image: &ClusterImage) -> Loads {
        let mut total: BTreeMap<_, _> = image.alive_brokers().map(|broker| (broker.id, 0)).collect();
        for partition in image.topics.values().flat_map(|topic| &topic.partitions) {
            if let Some(count) = total.get_mut(&partition.leader) {
                *count += 1;
            }
        }
        Loads { total }
    }

    /// Whether there is a broker to place anything on.
    pub fn is_empty(&self) -> bool {
        self.total.is_empty()
    }

    /// Leaders for `count` more partitions of a topic that has `existing` ones.
    pub fn place(&mut self, existing: &[PartitionInfo], count: usize) -> Vec<NodeId> {
        let mut of_topic: BTreeMap<NodeId, usize> = self.total.keys().map(|node| (*node, 0)).collect();
        for partition in existing {
            if let Some(count) = of_topic.get_mut(&partition.leader) {
                *count += 1;
            }
        }
        (0..count).filter_map(|_| self.place_one(&mut of_topic)).collect()
    }

    fn place_one(&mut self, of_topic: &mut BTreeMap<NodeId, usize>) -> Option<NodeId> {
        let node = of_topic.iter().map(|(node, count)| (*count, self.total[node], *node)).min()?.2;
        *of_topic.entry(node).or_default() += 1;
        *self.total.entry(node).or_default() += 1;
        Some(node)
    }

    fn spread(&self) -> Option<(NodeId, NodeId)> {
        let most = self.total.iter().max_by_key(|(node, count)| (**count, std::cmp::Reverse(**node)))?;
        let least = self.total.iter().min_by_key(|(node, count)| (**count, **node))?;
        (most.1 > &(least.1 + 1)).then_some((*most.0, *least.0))
    }
}

/// Leaders for partitions whose broker is gone; with `balance`, also moves partitions to brokers that have come.
/// All data of a host is within reach of all its shards, so a move is a change of metadata only.
pub fn reassign(image: &ClusterImage, balance: bool) -> Vec<Record> {
    let mut loads = Loads::of(image);
    let mut records = Vec::new();
    if loads.is_empty() {
        return records;
    }
    let mut moves: BTreeMap<(TopicId, i32), NodeId> = BTreeMap::new();
    for topic in image.topics.values() {
        let nodes: Vec<NodeId> = loads.total.keys().copied().collect();
        let mut of_topic: BTreeMap<NodeId, usize> = nodes.iter().map(|node| (*node, 0)).collect();
        let mut leaders: Vec<NodeId> = topic.partitions.iter().map(|p| p.leader).collect();
        for leader in &leaders {
            of_topic.entry(*leader).and_modify(|count| *count += 1);
        }
        for leader in &mut leaders {
            if !loads.total.contains_key(leader) {
                *leader = loads.place_one(&mut of_topic).unwrap_or(*leader);
            }
        }
        if balance {
            even_out(&mut leaders, &mut of_topic, &mut loads);
        }
        for (index, leader) in leaders.into_iter().enumerate() {
            if leader != topic.partitions[index].leader {
                moves.insert((topic.id, index as i32), leader);
            }
        }
    }
    if balance {
        balance_totals(image, &mut loads, &mut moves);
    }
    for ((topic, partition), leader) in moves {
        let nodes = Some(vec![leader]);
        let (isr, replicas) = (nodes.clone(), nodes);
        let change = PartitionChange { partition, topic, isr, leader: Some(leader), replicas, directories: None };
        records.push(Record::PartitionChange(change));
    }
    records
}

/// Moves partitions of one topic until no broker leads two more of them than another.
fn even_out(leaders: &mut [NodeId], of_topic: &mut BTreeMap<NodeId, usize>, loads: &mut Loads) {
    loop {
        let most = of_topic.iter().max_by_key(|(_, count)| **count).map(|(n, c)| (*n, *c));
        let least = of_topic.iter().min_by_key(|(n, c)| (**c, loads.total[*n])).map(|(n, c)| (*n, *c));
        let (Some((from, most)), Some((to, least))) = (most, least) else { return };
        let last = leaders.iter().rposition(|leader| *leader == from);
        let Some(index) = last.filter(|_| most > least + 1) else { return };
        leaders[index] = to;
        for counts in [&mut *of_topic, &mut loads.total] {
            counts.entry(from).and_modify(|count| *count -= 1);
            counts.entry(to).and_modify(|count| *count += 1);
        }
    }
}

/// Each topic is even by now; what is left are topics of few partitions that all began on the same broker. One such
/// partition moves if that leaves its topic as even as it was.
fn balance_totals(image: &ClusterImage, loads: &mut Loads, moves: &mut BTreeMap<(TopicId, i32), NodeId>) {
    let mut leaders: BTreeMap<(TopicId, i32), NodeId> = BTreeMap::new();
    for topic in image.topics.values() {
        for (index, partition) in topic.partitions.iter().enumerate() {
            let at = (topic.id, index as i32);
            leaders.insert(at, moves.get(&at).copied().unwrap_or(partition.leader));
        }
    }
    let mut of_topic: BTreeMap<(TopicId, NodeId), usize> = BTreeMap::new();
    leaders.iter().for_each(|((topic, _), leader)| *of_topic.entry((*topic, *leader)).or_default() += 1);
    let count = |of_topic: &BTreeMap<_, usize>, topic, node| of_topic.get(&(topic, node)).copied().unwrap_or(0);
    while let Some((from, to)) = loads.spread() {
        let candidate = leaders.iter().find(|((topic, _), leader)| {
            **leader == from && count(&of_topic, *topic, from) > count(&of_topic, *topic, to)
        });
        let Some((at, _)) = candidate else { break };
        let at = *at;
        leaders.insert(at, to);
        moves.insert(at, to);
        *of_topic.entry((at.0, from)).or_default() -= 1;
        *of_topic.entry((at.0, to)).or_default() += 1;
        loads.total.entry(from).and_modify(|count| *count -= 1);
        loads.total.entry(to).and_modify(|count| *count += 1);
    }
}
