//! The simulated ring and disk: everything late, in part, in random order, and the same again for the same seed.

use std::io::{self, IoSlice};
use std::net::Ipv4Addr;
use std::path::Path;
use std::rc::Rc;

use super::{ClientId, Keep, Sim};
use crate::ids::{ConnectionId, JobOwner, Position};
use crate::io::disk::{Disk, Job};
use crate::io::{Event, Ring};
use crate::parts::{FileRange, OpenFile, Reply};

fn listening(seed: u64) -> Sim {
    let mut sim = Sim::new(seed);
    sim.listen((Ipv4Addr::LOCALHOST, 0).into()).expect("listen");
    sim
}

/// Waits until an event is turned into something.
fn next<T>(sim: &mut Sim, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
    for _ in 0..100_000 {
        let mut events = Vec::new();
        sim.wait(None, &mut events).expect("wait");
        let mut found = None;
        for event in events {
            if let Some(value) = wanted(event) {
                assert!(found.is_none(), "one at a time in these tests");
                found = Some(value);
            }
        }
        if let Some(value) = found {
            return value;
        }
    }
    panic!("nothing happened");
}

fn accept(sim: &mut Sim) -> ConnectionId {
    next(sim, |event| if let Event::Accepted { connection, .. } = event { Some(connection) } else { None })
}

fn run(sim: &mut Sim, job: Job) -> io::Result<()> {
    sim.start(JobOwner(5), job);
    next(sim, |event| if let Event::JobDone { result, .. } = event { Some(result) } else { None })
}

fn file(sim: &mut Sim, name: &str, bytes: &[u8]) -> Rc<OpenFile> {
    let file = sim.open(Path::new(name), true).expect("open");
    sim.write(&file, Position(0), &[IoSlice::new(bytes)]).expect("write");
    file
}

fn of_file(file: &Rc<OpenFile>, size: u32) -> Reply {
    let mut reply = Reply::default();
    reply.push_file(FileRange { file: file.clone(), position: Position(0), size });
    reply.finish();
    reply
}

fn step(sim: &mut Sim) {
    sim.wait(None, &mut Vec::new()).expect("wait");
}

/// Everything the client gets until `size` bytes are there.
fn read(sim: &mut Sim, client: ClientId, size: usize) -> Vec<u8> {
    let mut got = Vec::new();
    for _ in 0..100_000 {
        got.extend(sim.client_receive(client));
        if got.len() >= size {
            return got;
        }
        step(sim);
    }
    panic!("{} of {size} bytes", got.len());
}

#[test]
fn bytes_arrive_whole_and_in_order_in_both_directions() {
    for seed in 0..50 {
        let mut sim = listening(seed);
        let client = sim.connect();
        let connection = accept(&mut sim);
        let sent: Vec<u8> = (0..50_000u32).map(|i| (i * 7) as u8).collect();
        sim.client_send(client, &sent);
        let (mut got, mut pieces) = (Vec::new(), 0);
        let mut large = sim.take_buffer(20_000).map(|buffer| (buffer, 0));
        while got.len() < sent.len() {
            sim.receive(connection, large.take());
            let (buffer, filled) = next(&mut sim, |event| match event {
                Event::Received { buffer, filled, .. } => Some((buffer, filled)),
                _ => None,
            });
            got.extend_from_slice(&buffer[..filled]);
            pieces += 1;
        }
        assert!(got == sent && pieces > 1);
        for piece in sent.chunks(1000) {
            let mut reply = Reply::default();
            reply.bytes.extend(piece);
            sim.send(connection, reply);
        }
        assert!(read(&mut sim, client, sent.len()) == sent);
        sim.client_close(client);
        sim.receive(connection, None);
        next(&mut sim, |event| if let Event::Hangup { error: None, .. } = event { Some(()) } else { None });
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let trace = |seed| {
        let mut sim = listening(seed);
        let mut trace = Vec::new();
        let clients: Vec<_> = (0..5).map(|_| sim.connect()).collect();
        clients.iter().for_each(|&client| sim.client_send(client, &[1; 5000]));
        for _ in 0..200 {
            let mut events = Vec::new();
            sim.wait(None, &mut events).expect("wait");
            for event in events {
                trace.push(format!("{} {event:?}", sim.now().monotonic_ns));
                match event {
                    Event::Accepted { connection, .. } | Event::Received { connection, .. } => {
                        sim.receive(connection, None);
                    }
                    _ => {}
                }
            }
        }
        trace
    };
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}

#[test]
fn a_pinned_file_that_is_overwritten_shows_as_corrupt_data() {
    let mut corrupt = 0;
    for seed in 0..20 {
        for (near, wait_for_pins) in [(false, true), (false, false), (true, false)] {
            let mut sim = listening(seed);
            let client = if near { sim.connect_near() } else { sim.connect() };
            let connection = accept(&mut sim);
            let file = file(&mut sim, "a", &[1; 100_000]);
            sim.send(connection, of_file(&file, 100_000));
            // The reply is out when the socket has taken it; reading makes room.
            let (mut out, mut got) = (false, Vec::new());
            while !out {
                got.extend(sim.client_receive_up_to(client, 10_000));
                let mut events = Vec::new();
                sim.wait(None, &mut events).expect("wait");
                out = events.iter().any(|event| matches!(event, Event::Sent { .. }));
            }
            while wait_for_pins && Rc::strong_count(&file) > 1 {
                got.extend(sim.client_receive(client));
                step(&mut sim);
                sim.release_acknowledged();
            }
            assert_eq!(file.tainted.get(), near);
            sim.write(&file, Position(0), &[IoSlice::new(&[2; 100_000])]).expect("write");
            let rest = 100_000 - got.len();
            got.extend(read(&mut sim, client, rest));
            let spoilt = got.contains(&2);
            assert!(!(wait_for_pins && spoilt), "seed {seed}");
            corrupt += usize::from(spoilt);
        }
    }
    assert!(corrupt > 10, "overwriting too early must show, {corrupt}");
}

#[test]
fn a_crash_keeps_what_was_synced_and_some_of_the_rest() {
    let (mut all, mut none, mut some) = (0, 0, 0);
    for seed in 0..100 {
        let mut sim = listening(seed);
        let client = sim.connect();
        let log = file(&mut sim, "t-0/log", &[1; 40_000]);
        run(&mut sim, Job::Sync { file: log.clone() }).expect("sync");
        sim.write(&log, Position(20_000), &[IoSlice::new(&[2; 40_000])]).expect("write");
        file(&mut sim, "t-0/later", b"x");

        let kept = |sim: &Sim, keep| sim.crash(keep).read_file(Path::new("t-0/log")).expect("its name is durable");
        let bytes = match seed % 3 {
            0 => {
                let bytes = kept(&sim, Keep::Everything);
                assert!(bytes[..20_000] == [1; 20_000] && bytes[20_000..] == [2; 40_000]);
                continue;
            }
            1 => {
                assert_eq!(kept(&sim, Keep::Synced), vec![1; 40_000]);
                assert!(sim.client_is_cut(client));
                continue;
            }
            _ => kept(&sim, Keep::Some),
        };
        assert!(bytes[..16_384] == [1; 16_384] && bytes.len() >= 40_000);
        for (number, page) in bytes.chunks(4096).enumerate().skip(5) {
            // The durable end of the file lies in page 9.
            assert!(number == 9 || page.iter().all(|b| *b == page[0]), "pages are kept whole");
        }
        match bytes[20_480..].iter().filter(|b| **b == 2).count() {
            0 => none += 1,
            39_520 => all += 1,
            _ => some += 1,
        }
    }
    assert!(all > 0 && none > 0 && some > 0, "{all} {none} {some}");
}

#[test]
fn names_survive_a_crash_in_the_order_of_their_changes() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..60 {
        let mut sim = Sim::new(seed);
        let a = file(&mut sim, "d/a", b"a");
        run(&mut sim, Job::Sync { file: a }).expect("sync");
        run(&mut sim, Job::Rename { from: "d/a".into(), to: "d/b".into() }).expect("rename");
        run(&mut sim, Job::Remove { path: "d/b".into() }).expect("remove");
        run(&mut sim, Job::Rename { from: "d/a".into(), to: "d/c".into() }).expect_err("gone");
        let names = sim.crash(Keep::Some).list(Path::new("d")).expect("list");
        seen.insert(names.into_iter().map(|entry| entry.name).collect::<Vec<_>>().join(","));
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["", "a", "b"]);
}

#[test]
fn jobs_do_what_they_say() {
    let mut sim = Sim::new(3);
    let a = file(&mut sim, "d/a", &[1; 5000]);
    run(&mut sim, Job::Truncate { file: a.clone(), size: 100 }).expect("truncate");
    assert_eq!(sim.size(&a).expect("size"), 100);
    run(&mut sim, Job::Preallocate { file: a.clone(), position: Position(0), size: 1 << 20 }).expect("preallocate");
    assert_eq!(sim.size(&a).expect("size"), 100);
    sim.set_disk_full(true);
    assert!(sim.write(&a, Position(0), &[IoSlice::new(b"x")]).is_err());
    sim.set_disk_full(false);
    run(&mut sim, Job::Replace { path: "d/c".into(), bytes: b"text".to_vec(), sync: true }).expect("replace");
    let mut after = sim.crash(Keep::Synced);
    assert_eq!(after.read_file(Path::new("d/c")).expect("durable"), b"text");
    after.run(Job::RemoveDir { path: "d".into() }).expect("remove");
    assert!(after.list(Path::new("d")).is_err() && after.list(Path::new("")).expect("root").is_empty());
}

#[test]
fn a_file_is_closed_when_no_reply_needs_it_any_more() {
    let mut sim = listening(9);
    let client = sim.connect();
    let connection = accept(&mut sim);
    let a = file(&mut sim, "a", &[1; 300_000]);
    sim.send(connection, of_file(&a, 300_000));
    sim.start(JobOwner(1), Job::Close { file: a });
    let (mut closed, mut out, mut got) = (false, false, 0);
    while !closed {
        got += sim.client_receive(client).len();
        let mut events = Vec::new();
        sim.wait(None, &mut events).expect("wait");
        for event in events {
            match event {
                Event::Sent { .. } => out = true,
                Event::JobDone { .. } => {
                    assert!(out);
                    closed = true;
                }
                _ => {}
            }
        }
    }
    assert_eq!(got + read(&mut sim, client, 300_000 - got).len(), 300_000);
}

#[test]
fn a_file_that_was_there_before_is_not_to_be_overwritten() {
    let mut sim = Sim::new(4);
    assert!(!file(&mut sim, "a", b"x").tainted.get(), "made by this process, sent to nobody");
    assert!(sim.open(Path::new("a"), true).expect("open").tainted.get());
    assert!(!sim.open(Path::new("empty"), true).expect("open").tainted.get());
}

#[test]
fn the_bell_is_heard_and_a_silent_world_does_not_hang() {
    let mut sim = Sim::new(1);
    let mut events = Vec::new();
    let before = sim.now().monotonic_ns;
    sim.wait(Some(before + 1_000), &mut events).expect("wait");
    assert_eq!(sim.now().monotonic_ns, before + 1_000);
    sim.bell().ring();
    next(&mut sim, |event| if let Event::Mail = event { Some(()) } else { None });
}
