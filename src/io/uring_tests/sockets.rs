//! Connections, and replies made of bytes only.

use super::*;

#[test]
fn a_request_comes_in_and_its_reply_goes_out() {
    let mut shard = Shard::new(Settings::default());
    let (mut client, connection) = shard.accepted();
    for round in 0..600u32 {
        shard.ring.receive(connection, None);
        client.write_all(&round.to_be_bytes()).expect("write");
        let (from, buffer, filled) = shard.received();
        assert_eq!((from, &buffer[..filled]), (connection, &round.to_be_bytes()[..]));
        assert!(buffer.is_small());
        shard.ring.give_buffer(buffer);
        shard.ring.send(connection, bytes(&[round as u8; 10]));
        shard.ring.send(connection, bytes(&[!(round as u8); 20]));
        shard.replies_back(2);
        let mut got = [0; 30];
        client.read_exact(&mut got).expect("replies");
        assert_eq!((&got[..10], &got[10..]), (&[round as u8; 10][..], &[!(round as u8); 20][..]));
    }
    assert_eq!(shard.ring.send_backlog(connection), 0);
}

#[test]
fn a_large_frame_fills_one_pooled_buffer() {
    let mut shard = Shard::new(Settings::default());
    let (mut client, connection) = shard.accepted();
    let sent = noise(900_000);
    let copy = sent.clone();
    let writer = std::thread::spawn(move || {
        client.write_all(&copy).expect("write");
        client
    });
    shard.ring.receive(connection, None);
    let (_, first, mut filled) = shard.received();
    assert!(filled <= SMALL_BUFFER_SIZE);
    let mut buffer = shard.ring.take_buffer(sent.len()).expect("within the budget");
    buffer[..filled].copy_from_slice(&first[..filled]);
    shard.ring.give_buffer(first);
    while filled < sent.len() {
        shard.ring.receive(connection, Some((buffer, filled)));
        (_, buffer, filled) = shard.received();
    }
    assert!(buffer[..filled] == sent[..]);
    drop(writer.join().expect("writer"));
    shard.ring.receive(connection, Some((buffer, 0)));
    let (from, error) = shard.hangup();
    assert!(from == connection && error.is_none());
}

#[test]
fn many_replies_of_bytes_larger_than_the_socket_arrive_in_order() {
    let mut shard = Shard::new(Settings::default());
    let (client, connection) = shard.accepted();
    let all = noise(3_000_000);
    let reader = read_exactly(client, all.len());
    for piece in all.chunks(30_000) {
        shard.ring.send(connection, bytes(piece));
    }
    assert_eq!(shard.ring.send_backlog(connection), all.len() as u64);
    shard.replies_back(100);
    assert!(reader.join().expect("reader").0 == all);
}

#[test]
fn idle_connections_hold_no_buffer_and_more_than_the_small_ones_are_served() {
    let mut shard = Shard::new(Settings::default());
    let mut clients = Vec::new();
    for _ in 0..300 {
        let (client, connection) = shard.accepted();
        shard.ring.receive(connection, None);
        clients.push((client, connection));
    }
    for (client, _) in &mut clients {
        client.write_all(b"hello").expect("write");
    }
    // All are kept: beyond the 256 small ones they come from the pool.
    let kept: Vec<_> = (0..clients.len()).map(|_| shard.received()).collect();
    assert!(kept.iter().all(|(_, buffer, filled)| &buffer[..*filled] == b"hello"));
    assert_eq!(kept.iter().filter(|(_, buffer, _)| buffer.is_small()).count(), 256);
    drop(kept);
    let (client, connection) = &mut clients[0];
    client.write_all(b"again").expect("write");
    shard.ring.receive(*connection, None);
    assert!(shard.received().1.is_small());
}

#[test]
fn a_receive_waits_when_all_buffers_are_used_and_goes_on_when_one_is_back() {
    let mut shard = Shard::new(Settings { buffer_budget: 0, ..Settings::default() });
    let mut clients: Vec<_> = (0..258).map(|_| shard.accepted()).collect();
    for (client, connection) in &mut clients {
        shard.ring.receive(*connection, None);
        client.write_all(b"x").expect("write");
    }
    // 256 small ones and the one beyond the budget.
    let mut kept: Vec<_> = (0..257).map(|_| shard.received()).collect();
    let soon = clock::monotonic_ns() + 50_000_000;
    shard.ring.wait(Some(soon), &mut shard.events).expect("wait");
    assert!(shard.events.is_empty(), "{:?}", shard.events);
    kept.pop();
    assert_eq!(shard.received().2, 1);
}

#[test]
fn a_connection_closed_with_a_receive_in_flight_gives_its_buffer_and_slot_back() {
    let mut shard = Shard::new(Settings { buffer_budget: 1 << 20, ..Settings::default() });
    for round in 0..20 {
        let (mut client, connection) = shard.accepted();
        assert_eq!((connection.slot, connection.generation), (0, round));
        let buffer = shard.ring.take_buffer(1 << 20).expect("the whole budget");
        shard.ring.receive(connection, Some((buffer, 0)));
        shard.ring.wait(Some(0), &mut shard.events).expect("wait");
        shard.ring.close(connection);
        shard.ring.close(connection);
        // Harmless after the close.
        shard.ring.send(connection, bytes(b"late"));
        shard.replies_back(1);
        assert_eq!(client.read(&mut [0; 8]).expect("end of stream"), 0);
        let deadline = clock::monotonic_ns() + PATIENCE.as_nanos() as u64;
        while shard.ring.connection_count() > 0 {
            assert!(clock::monotonic_ns() < deadline, "the receive never ended");
            shard.ring.wait(Some(clock::monotonic_ns() + 1_000_000), &mut shard.events).expect("wait");
            shard.events.clear();
        }
    }
}

#[test]
fn close_after_send_delivers_everything_first() {
    let mut shard = Shard::new(Settings::default());
    let (client, connection) = shard.accepted();
    shard.ring.receive(connection, None);
    let all = noise(1_000_000);
    shard.ring.send(connection, bytes(&all));
    shard.ring.close_after_send(connection);
    let reader = std::thread::spawn(move || {
        let (mut client, mut got) = (client, Vec::new());
        client.write_all(b"not heard any more").expect("write");
        client.read_to_end(&mut got).expect("an orderly end");
        got
    });
    shard.replies_back(1);
    let deadline = clock::monotonic_ns() + PATIENCE.as_nanos() as u64;
    while shard.ring.connection_count() > 0 {
        assert!(clock::monotonic_ns() < deadline, "never closed");
        shard.ring.wait(Some(clock::monotonic_ns() + 10_000_000), &mut shard.events).expect("wait");
        assert!(shard.events.drain(..).all(|e| matches!(e, Event::Sent { .. })));
    }
    assert!(reader.join().expect("reader") == all);
}

#[test]
fn replies_to_a_peer_that_is_gone_come_back_and_the_owner_is_told() {
    let mut shard = Shard::new(Settings::default());
    let (client, connection) = shard.accepted();
    drop(client);
    let mut told = false;
    for _ in 0..100 {
        // No receive is posted: only sends can find out.
        shard.ring.send(connection, bytes(&noise(100_000)));
        let back = shard.next(|_, event| match event {
            Event::Hangup { connection: of, error, .. } => {
                assert!(of == connection && error.is_some());
                told = true;
                None
            }
            Event::Sent { reply, .. } => Some(reply),
            _ => None,
        });
        assert_eq!(back.bytes.len(), 100_000);
    }
    assert!(told);
    shard.ring.close(connection);
}

#[test]
fn connections_beyond_the_limit_are_closed_and_counted() {
    let mut shard = Shard::new(Settings { connections_max: 2, ..Settings::default() });
    let _kept = (shard.accepted(), shard.accepted());
    let mut refused = shard.connect();
    let reader = std::thread::spawn(move || matches!(refused.read(&mut [0; 1]), Ok(0) | Err(_)));
    while shard.ring.counters().connections_refused == 0 {
        shard.ring.wait(Some(clock::monotonic_ns() + 10_000_000), &mut shard.events).expect("wait");
    }
    assert!(reader.join().expect("reader") && shard.events.is_empty());
    let mut shard2 = Shard::new(Settings { connections_max_per_ip: 1, ..Settings::default() });
    for _ in 0..3 {
        let (client, connection) = shard2.accepted();
        let refused_before = shard2.ring.counters().connections_refused;
        let _refused = shard2.connect();
        while shard2.ring.counters().connections_refused == refused_before {
            shard2.ring.wait(Some(clock::monotonic_ns() + 10_000_000), &mut shard2.events).expect("wait");
        }
        assert!(shard2.events.is_empty());
        shard2.ring.close(connection);
        drop(client);
    }
    shard.ring.stop_listening();
    shard.ring.wait(Some(0), &mut shard.events).expect("wait");
    shard.ring.wait(Some(0), &mut shard.events).expect("wait");
    assert!(TcpStream::connect(shard.address).is_err());
}

#[test]
fn the_bell_wakes_a_shard_from_another_thread() {
    let mut shard = Shard::new(Settings::default());
    for _ in 0..3 {
        let bell = shard.ring.bell();
        let thread = std::thread::spawn(move || (0..10).for_each(|_| bell.ring()));
        shard.next(|_, event| if let Event::Mail = event { Some(()) } else { None });
        thread.join().expect("thread");
    }
}

#[test]
fn a_deadline_ends_the_wait() {
    let mut shard = Shard::new(Settings::default());
    for deadline in [0, clock::monotonic_ns() + 5_000_000] {
        shard.ring.wait(Some(deadline), &mut shard.events).expect("wait");
        assert!(clock::monotonic_ns() >= deadline && shard.events.is_empty());
    }
}
