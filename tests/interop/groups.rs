//! Consumer groups as several processes see them, the same for every client: members join, are killed, leave, return;
//! committed offsets outlive the broker.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::broker::Broker;
use crate::harness::client::Client;
use crate::harness::process::{Process, run};
use crate::harness::{CONDITION_MAX, SCRIPT_MAX};

const PARTITIONS: usize = 12;
const TOPIC: &str = "shared";
const GROUP: &str = "team";

type Partitions = BTreeSet<usize>;

/// Three members share all partitions; one is killed, one leaves, and each time the others take over.
pub fn members_come_and_go(client: Client) {
    let Some(mut broker) = broker_for(client) else { return };
    let member = |name: &str| member(client, &broker, name, "eager", "-", 10_000);
    let mut a = member("a");
    let mut b = member("b");
    let mut c = member("c");
    eventually_share("three members", &mut [&mut a, &mut b, &mut c]);
    produce(client, &broker, 0, 60);
    eventually("60 records arrive", &mut [&mut a, &mut b, &mut c], |members| values(members).len() == 60);

    b.kill();
    eventually_share("two members after one was killed", &mut [&mut a, &mut c]);
    produce(client, &broker, 60, 90);
    eventually("30 more records arrive", &mut [&mut a, &mut c], |members| {
        let seen = values(members);
        (60..90).all(|i| seen.contains(&i))
    });

    c.signal(Signal::SIGTERM);
    let left = c.finish(CONDITION_MAX);
    assert_eq!(left.last().map(String::as_str), Some("closed"), "{client:?} closes in order");
    eventually_share("one member after one left", &mut [&mut a]);
    broker.assert_alive();
}

/// A member with a static id that dies and returns within its session gets its partitions back, and nobody else notices.
pub fn static_member_returns(client: Client) {
    let Some(mut broker) = broker_for(client) else { return };
    // A session that no slow machine lets expire: what is tested is that nothing happens meanwhile.
    let member = |name: &str| member(client, &broker, name, "eager", name, 120_000);
    let mut a = member("first");
    let mut b = member("second");
    eventually_share("two static members", &mut [&mut a, &mut b]);
    let (before_a, before_b) = (assignments(&a), held(&b));

    b.kill();
    let mut b = member("second");
    eventually("the static member has its partitions back", &mut [&mut b], |members| held(members[0]) == before_b);
    produce(client, &broker, 0, 48);
    eventually("48 records arrive", &mut [&mut a, &mut b], |members| values(members).len() == 48);
    assert_eq!(assignments(&a), before_a, "{client:?}: the other member was disturbed\n{}", a.tail());
    broker.assert_alive();
}

/// Cooperative rebalancing: when a second member joins, the first gives up only what moves and keeps reading the rest.
pub fn cooperative_rebalance(client: Client) {
    let Some(mut broker) = broker_for(client) else { return };
    let member = |name: &str| member(client, &broker, name, "cooperative", "-", 120_000);
    let mut a = member("a");
    eventually_share("one member", &mut [&mut a]);
    let mut b = member("b");
    eventually_share("two members", &mut [&mut a, &mut b]);
    produce(client, &broker, 0, 48);
    eventually("48 records arrive", &mut [&mut a, &mut b], |members| values(members).len() == 48);

    let revoked: Partitions = a.lines().iter().filter_map(|line| numbers_after(line, "revoked")).flatten().collect();
    assert_eq!(revoked, held(&b), "{client:?}: the first member gave up something else than what moved\n{}", a.tail());
    broker.assert_alive();
}

/// A group goes on where it stopped after the broker restarted, once in order and once killed.
pub fn offsets_survive_restarts(client: Client) {
    let Some(mut broker) = broker_for(client) else { return };
    produce(client, &broker, 0, 40);
    assert_eq!(consume(client, &broker, 40), (0..40).collect());
    broker.stop();
    broker.start_again();
    produce(client, &broker, 40, 60);
    assert_eq!(consume(client, &broker, 20), (40..60).collect(), "{client:?} after a restart");
    broker.crash();
    broker.start_again();
    produce(client, &broker, 60, 75);
    assert_eq!(consume(client, &broker, 15), (60..75).collect(), "{client:?} after a crash");
    broker.assert_alive();
}

/// A broker with the topic these tests read; None when the client cannot run here.
fn broker_for(client: Client) -> Option<Broker> {
    client.command("", "", &[])?;
    let broker = Broker::start(&[
        ("group.initial.rebalance.delay.ms", "500"),
        ("num.partitions", &PARTITIONS.to_string()),
        ("auto.create.topics.enable", "true"),
    ]);
    // Created by the first metadata request of a producer, with num.partitions partitions.
    produce(client, &broker, -1, 0);
    Some(broker)
}

fn member(client: Client, broker: &Broker, name: &str, strategy: &str, instance: &str, session_ms: u32) -> Process {
    let arguments = [TOPIC, GROUP, strategy, instance, &session_ms.to_string()];
    let command = client.command(&broker.bootstrap(), "member", &arguments).expect("ran before");
    Process::start(format!("{client:?} member {name}"), command)
}

/// Writes the values v<first> to v<end - 1>; v-1 is the record that creates the topic.
fn produce(client: Client, broker: &Broker, first: i64, end: i64) {
    let arguments = [TOPIC, &first.to_string(), &end.to_string()];
    let command = client.command(&broker.bootstrap(), "produce", &arguments).expect("ran before");
    run(format!("{client:?} produce"), command, SCRIPT_MAX);
}

fn consume(client: Client, broker: &Broker, count: usize) -> BTreeSet<i64> {
    // The record that created the topic comes with the first read.
    let first = broker.scratch("read-before");
    let extra = usize::from(!first.exists());
    std::fs::write(first, "").expect("writing a marker");
    let arguments = [TOPIC, GROUP, &(count + extra).to_string()];
    let command = client.command(&broker.bootstrap(), "consume", &arguments).expect("ran before");
    let lines = run(format!("{client:?} consume"), command, SCRIPT_MAX);
    lines.iter().filter_map(|line| value_of(line)).filter(|&value| value >= 0).collect()
}

/// Waits until the members hold every partition, each exactly once.
fn eventually_share(what: &str, members: &mut [&mut Process]) {
    eventually(what, members, |members| {
        let all: Vec<usize> = members.iter().flat_map(|member| held(member)).collect();
        all.len() == PARTITIONS
            && all.iter().copied().collect::<Partitions>().len() == PARTITIONS
            && members.iter().all(|member| !held(member).is_empty())
    });
}

fn eventually(what: &str, members: &mut [&mut Process], holds: impl Fn(&[&Process]) -> bool) {
    let deadline = Instant::now() + CONDITION_MAX;
    loop {
        for member in members.iter_mut() {
            assert!(member.exited().is_none(), "{what}: a member ended\n{}", member.tail());
        }
        let now: Vec<&Process> = members.iter().map(|member| &**member).collect();
        if holds(&now) {
            return;
        }
        if Instant::now() > deadline {
            let tails: Vec<String> = now.iter().map(|member| member.tail()).collect();
            panic!("{what}: not within {CONDITION_MAX:?}\n{}", tails.join("\n"));
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// What the member holds now by its own words.
fn held(member: &Process) -> Partitions {
    assignments(member).pop().unwrap_or_default()
}

fn assignments(member: &Process) -> Vec<Partitions> {
    member.lines().iter().filter_map(|line| numbers_after(line, "assigned")).collect()
}

fn numbers_after(line: &str, word: &str) -> Option<Partitions> {
    let rest = line.strip_prefix(word)?;
    Some(rest.split_whitespace().map(|number| number.parse().expect("a partition number")).collect())
}

/// Values that any of the members has read, without the one that created the topic.
fn values(members: &[&Process]) -> BTreeSet<i64> {
    members
        .iter()
        .flat_map(|member| member.lines())
        .filter_map(|line| value_of(&line))
        .filter(|&value| value >= 0)
        .collect()
}

fn value_of(line: &str) -> Option<i64> {
    line.strip_prefix("value v")?.parse().ok()
}
