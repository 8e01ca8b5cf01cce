//! Real clients against the real broker: everything that Kafka promises them and that they can see.
//!
//! Each test starts a broker and runs scripts of `tests/interop/<client>/` under a deadline. With
//! `INTEROP_BROKER=apache-kafka` the same tests run against Apache Kafka, which proves the tests. A client whose
//! runtime this machine lacks is skipped with a line that says so; in CI (`CI=true`) that is a failure.

#[path = "interop/frameworks.rs"]
mod frameworks;
#[path = "interop/groups.rs"]
mod groups;
#[path = "interop/harness/mod.rs"]
mod harness;
#[path = "interop/kafka_tools.rs"]
mod kafka_tools;
#[path = "support/client.rs"]
mod raw;
#[path = "interop/refusals.rs"]
mod refusals;

use harness::SCRIPT_MAX;
use harness::broker::Broker;
use harness::client::Client;
use harness::process::run;

/// Runs one case of a client's script against a broker of its own.
fn script(client: Client, case: &str, arguments: &[&str]) {
    if client.command("", case, arguments).is_none() {
        return;
    }
    let mut broker = Broker::start(&[("group.initial.rebalance.delay.ms", "500")]);
    let command = client.command(&broker.bootstrap(), case, arguments).expect("ran before");
    run(format!("{client:?} {case}"), command, SCRIPT_MAX);
    broker.assert_alive();
}

/// One test per line: `name: call;` inside a module per client.
macro_rules! tests {
    ($($client:ident { $($name:ident: $call:expr;)* })*) => {
        $(mod $client {
            use super::harness::client::Client::*;
            #[allow(unused_imports, reason = "only Java is tested at several versions")]
            use super::harness::install::{JAVA_2_8, JAVA_3_7};
            use super::{groups, script};
            $(#[test] fn $name() { $call })*
        })*
    };
}

tests! {
    confluent {
        data: script(Confluent, "data", &[]);
        transactions: script(Confluent, "transactions", &[]);
        spread: script(Confluent, "spread", &[]);
        admin: script(Confluent, "admin", &[]);
        lag: script(Confluent, "lag", &["lagging", "slow"]);
        members_come_and_go: groups::members_come_and_go(Confluent);
        static_member_returns: groups::static_member_returns(Confluent);
        cooperative_rebalance: groups::cooperative_rebalance(Confluent);
        offsets_survive_restarts: groups::offsets_survive_restarts(Confluent);
    }
    kafka_python {
        data: script(KafkaPython, "data", &[]);
        spread: script(KafkaPython, "spread", &[]);
        admin: script(KafkaPython, "admin", &[]);
        lag: script(KafkaPython, "lag", &["lagging", "slow"]);
        members_come_and_go: groups::members_come_and_go(KafkaPython);
        static_member_returns: groups::static_member_returns(KafkaPython);
        cooperative_rebalance: groups::cooperative_rebalance(KafkaPython);
        offsets_survive_restarts: groups::offsets_survive_restarts(KafkaPython);
    }
    aiokafka {
        data: script(Aiokafka, "data", &[]);
        spread: script(Aiokafka, "spread", &[]);
        admin: script(Aiokafka, "admin", &[]);
        lag: script(Aiokafka, "lag", &["lagging", "slow"]);
        members_come_and_go: groups::members_come_and_go(Aiokafka);
        static_member_returns: groups::static_member_returns(Aiokafka);
        offsets_survive_restarts: groups::offsets_survive_restarts(Aiokafka);
    }
    kafkajs {
        data: script(Kafkajs, "data", &[]);
        spread: script(Kafkajs, "spread", &[]);
        admin: script(Kafkajs, "admin", &[]);
        lag: script(Kafkajs, "lag", &["lagging", "slow"]);
        members_come_and_go: groups::members_come_and_go(Kafkajs);
        offsets_survive_restarts: groups::offsets_survive_restarts(Kafkajs);
    }
    java {
        data: script(Java, "data", &[]);
        spread: script(Java, "spread", &[]);
        admin: script(Java, "admin", &[]);
        lag: script(Java, "lag", &["lagging", "slow"]);
        members_come_and_go: groups::members_come_and_go(Java);
        static_member_returns: groups::static_member_returns(Java);
        cooperative_rebalance: groups::cooperative_rebalance(Java);
        offsets_survive_restarts: groups::offsets_survive_restarts(Java);
    }
    java_3_7 {
        data: script(JavaOf(JAVA_3_7), "data", &[]);
        spread: script(JavaOf(JAVA_3_7), "spread", &[]);
        admin: script(JavaOf(JAVA_3_7), "admin", &[]);
        lag: script(JavaOf(JAVA_3_7), "lag", &["lagging", "slow"]);
        members_come_and_go: groups::members_come_and_go(JavaOf(JAVA_3_7));
        static_member_returns: groups::static_member_returns(JavaOf(JAVA_3_7));
        cooperative_rebalance: groups::cooperative_rebalance(JavaOf(JAVA_3_7));
    }
    java_2_8 {
        data: script(JavaOf(JAVA_2_8), "data", &[]);
        admin: script(JavaOf(JAVA_2_8), "admin", &[]);
        lag: script(JavaOf(JAVA_2_8), "lag", &["lagging", "slow"]);
        members_come_and_go: groups::members_come_and_go(JavaOf(JAVA_2_8));
        cooperative_rebalance: groups::cooperative_rebalance(JavaOf(JAVA_2_8));
    }
    franz_go {
        data: script(FranzGo, "data", &[]);
        spread: script(FranzGo, "spread", &[]);
        admin: script(FranzGo, "admin", &[]);
        lag: script(FranzGo, "lag", &["lagging", "slow"]);
        hundred_groups_at_once: script(FranzGo, "many", &["crowd", "100"]);
        members_come_and_go: groups::members_come_and_go(FranzGo);
        static_member_returns: groups::static_member_returns(FranzGo);
        cooperative_rebalance: groups::cooperative_rebalance(FranzGo);
        offsets_survive_restarts: groups::offsets_survive_restarts(FranzGo);
    }
    kcat {
        data: script(Kcat, "data", &[]);
        spread: script(Kcat, "spread", &[]);
        offsets_survive_restarts: groups::offsets_survive_restarts(Kcat);
    }
}
