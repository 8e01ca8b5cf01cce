//! Replies that are sent from files: by every path, cold, and held until they are acknowledged.

use super::*;
use crate::io::block_memory::BLOCKS_PER_CHUNK;
use crate::io::{clock, residency};

#[test]
fn replies_with_files_arrive_whole_by_every_path() {
    for fetch_path in ALL_PATHS {
        let mut shard = Shard::new(Settings { fetch_path, ..Settings::default() });
        let (mut client, connection) = shard.accepted();
        let (file, all) = shard.file("a", 5_000_000);
        let mut expected = Vec::new();
        for (position, size) in [(0, 1), (100, 16_384), (4095, 1_048_576), (0, 5_000_000), (4_999_999, 1), (7, 0)] {
            expected.extend_from_slice(b"head");
            expected.extend_from_slice(&all[position..position + size]);
            expected.extend_from_slice(b"tail");
            expected.extend_from_slice(b"next");
            shard.ring.send(connection, with_file(b"head", &file, position as u64, size, b"tail"));
            shard.ring.send(connection, bytes(b"next"));
        }
        assert_eq!(shard.ring.send_backlog(connection), expected.len() as u64);
        let reader = read_exactly(client, expected.len());
        shard.replies_back(12);
        let got;
        (got, client) = reader.join().expect("reader");
        assert!(got == expected, "{fetch_path:?}");
        drop(client);
    }
}

#[test]
fn a_connection_closed_while_it_sends_from_a_file_ends_by_every_path() {
    for fetch_path in ALL_PATHS {
        let mut shard = Shard::new(Settings { fetch_path, ..Settings::default() });
        let (file, all) = shard.file("a", 8_000_000);
        for turns in 0..6 {
            let (client, connection) = shard.accepted();
            shard.ring.send(connection, with_file(b"head", &file, 0, all.len(), b""));
            for _ in 0..turns {
                shard.ring.wait(Some(clock::monotonic_ns() + 1_000_000), &mut shard.events).expect("wait");
            }
            shard.ring.close(connection);
            shard.replies_back(1);
            // What the kernel had taken by reference is still delivered: only the client's end makes it let go of the file.
            drop(client);
            let deadline = clock::monotonic_ns() + PATIENCE.as_nanos() as u64;
            while shard.ring.connection_count() > 0 || Rc::strong_count(&file) > 1 {
                assert!(clock::monotonic_ns() < deadline, "never closed, {fetch_path:?}");
                shard.ring.wait(Some(clock::monotonic_ns() + 1_000_000), &mut shard.events).expect("wait");
                shard.events.clear();
            }
        }
    }
}

#[test]
fn a_file_that_became_shorter_ends_the_connection() {
    for fetch_path in ALL_PATHS {
        let mut shard = Shard::new(Settings { fetch_path, ..Settings::default() });
        let (file, _) = shard.file("a", 100_000);
        let (mut client, connection) = shard.accepted();
        shard.ring.receive(connection, None);
        shard.ring.run(Job::Truncate { file: file.clone(), size: 10 }).expect("truncate");
        shard.ring.send(connection, with_file(b"", &file, 4096, 90_000, b""));
        assert_eq!(shard.hangup().0, connection);
        shard.ring.close(connection);
        assert!(matches!(client.read(&mut [0; 8]), Ok(0) | Err(_)), "{fetch_path:?}");
    }
}

/// An address where no memory is reads as a worn medium does: EIO. The log of that file must hear of it.
#[test]
fn a_file_that_cannot_be_read_ends_the_connection_and_is_marked() {
    let mut shard = Shard::new(Settings { fetch_path: FetchPath::Copy, ..Settings::default() });
    let (_client, connection) = shard.accepted();
    let file = shard.ring.open(Path::new("/proc/self/mem"), false).expect("open");
    shard.ring.send(connection, with_file(b"head", &file, 0, 1000, b"tail"));
    assert_eq!(shard.hangup().0, connection);
    assert!(file.failed.get());
    let read = shard.run(Job::ReadAhead { file, position: Position(0), size: 1000 });
    assert_eq!(read.expect_err("no memory there").raw_os_error(), Some(libc::EIO));
}

fn is_cold(file: &OpenFile) -> bool {
    residency::read_resident(file.handle, Position(0), &mut [0]).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
}

/// Out of the page cache, if the file system has a device below it.
fn drop_from_cache(shard: &mut Shard, file: &Rc<OpenFile>) {
    shard.ring.run(Job::Sync { file: file.clone() }).expect("sync");
    // SAFETY: plain call on an open file.
    unsafe { libc::posix_fadvise(file.handle, 0, 0, libc::POSIX_FADV_DONTNEED) };
    shard.ring.residency.forget(file.handle);
}

/// Past the page cache, and where that is refused by way of it.
fn cold_shards() -> impl Iterator<Item = (Shard, tempfile::TempDir)> {
    [false, true].into_iter().map(|refused| {
        let mut shard = Shard::new(Settings::default());
        // Not in /tmp: that may be memory only.
        let home = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("directory");
        shard.ring.data_dir = home.path().to_path_buf();
        if refused {
            shard.ring.direct_reads.refuse("for a test");
        }
        (shard, home)
    })
}

#[test]
fn a_cold_range_is_read_ahead_and_others_are_served_meanwhile() {
    for (mut shard, _home) in cold_shards() {
        let (file, all) = shard.file("cold", 20_000_000);
        let (hot, _) = shard.file("hot", 1000);
        let (reader, cold_connection) = shard.accepted();
        let (mut other, connection) = shard.accepted();
        drop_from_cache(&mut shard, &file);
        shard.ring.send(cold_connection, with_file(b"head", &file, 0, all.len(), b"tail"));
        let reader = read_exactly(reader, all.len() + 8);
        shard.ring.send(connection, with_file(b"", &hot, 0, 1000, b""));
        shard.replies_back(2);
        other.read_exact(&mut [0; 1000]).expect("the other is served");
        let got = reader.join().expect("reader").0;
        assert!(got[..4] == *b"head" && got[4..4 + all.len()] == all && got[4 + all.len()..] == *b"tail");
        drop_from_cache(&mut shard, &file);
        if is_cold(&file) {
            assert!(shard.ring.counters().cold_reads > 0);
        }
    }
}

/// The file's range, as a client gets it.
fn fetched(shard: &mut Shard, file: &Rc<OpenFile>, position: usize, size: usize) -> Vec<u8> {
    let (client, connection) = shard.accepted();
    shard.ring.send(connection, with_file(b"", file, position as u64, size, b""));
    let reader = read_exactly(client, size);
    shard.replies_back(1);
    let (got, _client) = reader.join().expect("reader");
    shard.ring.close(connection);
    got
}

#[test]
fn what_was_read_past_the_page_cache_is_not_sent_once_it_was_written_over() {
    for (mut shard, _home) in cold_shards() {
        let (file, mut all) = shard.file("cold", 1_000_000);
        drop_from_cache(&mut shard, &file);
        assert!(fetched(&mut shard, &file, 0, all.len()) == all);
        for (position, size) in [(1_000_000, 500_000), (300_000, 1), (1_499_999, 100), (0, 4096)] {
            let fresh: Vec<u8> = noise(size).iter().map(|byte| !byte).collect();
            all.resize(all.len().max(position + size), 0);
            all[position..position + size].copy_from_slice(&fresh);
            shard.ring.write(&file, Position(position as u64), &[IoSlice::new(&fresh)]).expect("write");
            drop_from_cache(&mut shard, &file);
            assert!(fetched(&mut shard, &file, 0, all.len()) == all, "{position} {size}");
            assert!(fetched(&mut shard, &file, position, size) == fresh, "{position} {size}");
        }
        assert_eq!(Rc::strong_count(&file), 1);
        shard.run(Job::Close { file }).expect("close");
        assert!(!shard.ring.direct_reads.has_files());
    }
}

#[test]
fn many_cold_readers_at_many_places_all_get_what_they_asked_for() {
    for (mut shard, _home) in cold_shards() {
        let (file, all) = shard.file("cold", 30_000_000);
        drop_from_cache(&mut shard, &file);
        let clients: Vec<_> = (0..60).map(|_| shard.accepted()).collect();
        let mut readers = Vec::new();
        for (i, (client, connection)) in clients.into_iter().enumerate() {
            let (position, size) = (i * 450_001, 900_000 + i * 1000);
            shard.ring.send(connection, with_file(b"", &file, position as u64, size, b""));
            readers.push((position, size, read_exactly(client, size)));
        }
        shard.replies_back(60);
        for (position, size, reader) in readers {
            assert!(reader.join().expect("reader").0 == all[position..position + size], "{position}");
        }
    }
}

#[test]
fn a_file_that_is_read_again_and_again_comes_into_the_page_cache() {
    let (mut shard, _home) = cold_shards().next().expect("a shard");
    // While its memory is being made, others are read by way of the page cache.
    let (first, _) = shard.file("first", 4_000_000);
    drop_from_cache(&mut shard, &first);
    fetched(&mut shard, &first, 0, 4_000_000);
    let (file, all) = shard.file("cold", 12_000_000);
    drop_from_cache(&mut shard, &file);
    if !is_cold(&file) {
        return;
    }
    assert!(shard.ring.direct_reads.memory.block_count() > 0);
    // Probing began to read it.
    drop_from_cache(&mut shard, &file);
    assert!(fetched(&mut shard, &file, 0, all.len()) == all);
    shard.ring.residency.forget(file.handle);
    assert!(shard.ring.residency.resident_prefix(file.handle, 1_000_000, 4096, 1) == 0, "not by the first reader");
    for _ in 0..5 {
        assert!(fetched(&mut shard, &file, 0, all.len()) == all);
        shard.ring.residency.forget(file.handle);
    }
    assert!(shard.ring.residency.resident_prefix(file.handle, 1_000_000, 4096, 1) > 0);
}

#[test]
fn memory_of_direct_reads_comes_in_chunks_and_goes_when_nothing_was_read_for_a_while() {
    let (mut shard, _home) = cold_shards().next().expect("a shard");
    let (file, all) = shard.file("cold", 20_000_000);
    for _ in 0..2 {
        drop_from_cache(&mut shard, &file);
        if !is_cold(&file) {
            return;
        }
        drop_from_cache(&mut shard, &file);
        assert!(fetched(&mut shard, &file, 0, all.len()) == all);
        // One reader has enough of the first chunk.
        assert_eq!(shard.ring.direct_reads.memory.block_count(), BLOCKS_PER_CHUNK);
        let now_ns = clock::monotonic_ns();
        shard.ring.trim_direct_reads(now_ns);
        assert_eq!(shard.ring.direct_reads.memory.block_count(), BLOCKS_PER_CHUNK, "it was just used");
        shard.ring.trim_direct_reads(now_ns + 60_000_000_000);
        assert_eq!(shard.ring.direct_reads.memory.block_count(), 0);
    }
}

/// Each found the other's read of the same range under way and asked for another of its own, for ever.
#[test]
fn connections_that_read_the_same_cold_range_all_get_it() {
    for (mut shard, _home) in cold_shards() {
        let (file, all) = shard.file("cold", 8_000_000);
        let clients: Vec<_> = (0..4).map(|_| shard.accepted()).collect();
        drop_from_cache(&mut shard, &file);
        let mut readers = Vec::new();
        for (client, connection) in clients {
            shard.ring.send(connection, with_file(b"", &file, 0, all.len(), b""));
            readers.push(read_exactly(client, all.len()));
        }
        shard.replies_back(4);
        for reader in readers {
            assert!(reader.join().expect("reader").0 == all);
        }
    }
}

#[test]
fn a_file_system_that_hides_its_pages_is_sent_from_all_the_same() {
    for fetch_path in ALL_PATHS {
        let mut shard = Shard::new(Settings { fetch_path, ..Settings::default() });
        let (file, all) = shard.file("hidden", 3_000_000);
        shard.ring.residency.forget(file.handle);
        shard.ring.residency.see_nothing();
        let (reader, connection) = shard.accepted();
        shard.ring.send(connection, with_file(b"head", &file, 0, all.len(), b"tail"));
        let reader = read_exactly(reader, all.len() + 8);
        shard.replies_back(1);
        let got = reader.join().expect("reader").0;
        assert!(got[4..4 + all.len()] == all, "{fetch_path:?}");
        assert!(shard.ring.cold_reads.is_empty(), "{fetch_path:?}");
    }
}

#[test]
fn a_connection_closed_during_a_cold_read_ends() {
    for (mut shard, _home) in cold_shards() {
        let (file, all) = shard.file("cold", 8_000_000);
        for _ in 0..5 {
            drop_from_cache(&mut shard, &file);
            let (client, connection) = shard.accepted();
            shard.ring.send(connection, with_file(b"head", &file, 0, all.len(), b""));
            shard.ring.wait(Some(0), &mut shard.events).expect("wait");
            shard.ring.close(connection);
            shard.replies_back(1);
            drop(client);
        }
        let deadline = clock::monotonic_ns() + PATIENCE.as_nanos() as u64;
        while shard.ring.connection_count() > 0 || Rc::strong_count(&file) > 1 {
            assert!(clock::monotonic_ns() < deadline, "never closed");
            shard.ring.wait(Some(clock::monotonic_ns() + 1_000_000), &mut shard.events).expect("wait");
            shard.events.clear();
        }
        assert!(shard.ring.cold_reads.is_empty());
    }
}

/// As if the peer were on another host: acknowledged then means arrived. (Over loopback the client must have read it.)
fn pretend_far(shard: &mut Shard, connection: ConnectionId) {
    shard.ring.table.get(connection).expect("open").near = false;
}

#[test]
fn a_file_is_pinned_until_its_bytes_are_acknowledged() {
    let mut shard = Shard::new(Settings { receive_buffer_bytes: 65_536, ..Settings::default() });
    let (mut client, connection) = shard.accepted();
    pretend_far(&mut shard, connection);
    let (file, all) = shard.file("a", 100_000);
    let mut expected = 0;
    // Small enough that the send queue takes everything, more than the reader's window.
    for round in 0..200u64 {
        if shard.ring.send_backlog(connection) > 0 {
            break;
        }
        shard.ring.send(connection, with_file(b"", &file, round * 7, 20_000, b""));
        expected += 20_000;
        shard.ring.wait(Some(clock::monotonic_ns() + 1_000_000), &mut shard.events).expect("wait");
        shard.events.clear();
    }
    shard.ring.release_acknowledged();
    let pinned = Rc::strong_count(&file);
    assert!(pinned > 1, "unread bytes beyond the window are not acknowledged");
    assert_eq!(shard.ring.table.get(connection).expect("open").pins.count(), 1, "one pin for one hot file");
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; expected];
        client.read_exact(&mut got).expect("all bytes");
        (client, got)
    });
    let deadline = clock::monotonic_ns() + PATIENCE.as_nanos() as u64;
    while Rc::strong_count(&file) > 1 {
        assert!(clock::monotonic_ns() < deadline, "never released");
        shard.ring.wait(Some(clock::monotonic_ns() + 1_000_000), &mut shard.events).expect("wait");
        shard.events.clear();
        shard.ring.release_acknowledged();
    }
    let (_client, got) = reader.join().expect("reader");
    assert!((0..expected / 20_000).all(|i| got[i * 20_000..(i + 1) * 20_000] == all[i * 7..i * 7 + 20_000]));
    assert!(!file.tainted.get());
}

#[test]
fn a_connection_closed_with_unacknowledged_bytes_taints_the_file() {
    let mut shard = Shard::new(Settings::default());
    let (client, connection) = shard.accepted();
    pretend_far(&mut shard, connection);
    let (file, all) = shard.file("a", 8_000_000);
    let (other, _) = shard.file("b", 1000);
    shard.ring.send(connection, with_file(b"", &other, 0, 1000, b""));
    shard.replies_back(1);
    shard.ring.send(connection, with_file(b"", &file, 0, all.len(), b""));
    // Nobody reads: after a while the socket is full.
    for _ in 0..50 {
        shard.ring.wait(Some(clock::monotonic_ns() + 1_000_000), &mut shard.events).expect("wait");
    }
    shard.events.clear();
    shard.ring.close(connection);
    shard.replies_back(1);
    while shard.ring.connection_count() > 0 {
        shard.ring.wait(Some(clock::monotonic_ns() + 1_000_000), &mut shard.events).expect("wait");
        shard.events.clear();
    }
    assert!(file.tainted.get() && !other.tainted.get());
    assert_eq!(Rc::strong_count(&file), 1);
    drop(client);
}

#[test]
fn a_reader_on_this_host_taints_what_it_is_sent_by_reference_and_nothing_else() {
    for fetch_path in ALL_PATHS {
        let tainted = matches!(fetch_path, FetchPath::Sendfile | FetchPath::Splice);
        let mut shard = Shard::new(Settings { fetch_path, ..Settings::default() });
        let (mut client, connection) = shard.accepted();
        let (file, all) = shard.file("a", 30_000);
        shard.ring.send(connection, with_file(b"", &file, 0, all.len(), b""));
        shard.replies_back(1);
        assert_eq!(file.tainted.get(), tainted, "{fetch_path:?}");
        let deadline = clock::monotonic_ns() + PATIENCE.as_nanos() as u64;
        while Rc::strong_count(&file) > 1 {
            assert!(fetch_path == FetchPath::SendZc && clock::monotonic_ns() < deadline, "held for good");
            shard.ring.wait(Some(clock::monotonic_ns() + 1_000_000), &mut shard.events).expect("wait");
        }
        if !tainted {
            // What is not tainted and not held may be overwritten, whatever the peer has read by then.
            shard.ring.write(&file, Position(0), &[IoSlice::new(&vec![0; all.len()])]).expect("write");
        }
        let mut got = vec![0; all.len()];
        client.read_exact(&mut got).expect("read");
        assert!(got == all);
    }
}
