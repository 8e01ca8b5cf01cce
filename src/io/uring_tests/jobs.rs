//! Files and disk jobs.

use super::*;
use crate::io::content_mark;

#[test]
fn files_are_written_and_read_back() {
    let mut shard = Shard::new(Settings::default());
    let ring = &mut shard.ring;
    let path = Path::new("topic-0/00000000000000000000.log");
    assert_eq!(ring.open(path, false).expect_err("not there").kind(), io::ErrorKind::NotFound);
    let file = ring.open(path, true).expect("open");
    // More slices than one call takes, empty ones among them.
    let all = noise(5000 * 7);
    let slices: Vec<IoSlice> = all.chunks(7).flat_map(|piece| [IoSlice::new(piece), IoSlice::new(&[])]).collect();
    ring.write(&file, Position(3), &slices).expect("write");
    ring.write(&file, Position(0), &[IoSlice::new(b"abc"), IoSlice::new(&[])]).expect("write");
    ring.write(&file, Position(0), &[]).expect("write nothing");
    assert_eq!(ring.size(&file).expect("size"), 3 + all.len() as u64);
    let mut got = vec![0; all.len() + 10];
    assert_eq!(ring.read_resident(&file, Position(3), &mut got).expect("resident"), all.len());
    assert!(got[..all.len()] == all);
    assert_eq!(ring.read(&file, Position(1), &mut got).expect("read"), all.len() + 2);
    assert_eq!(&got[..2], b"bc");
    let listed = ring.list(Path::new("topic-0")).expect("list");
    assert_eq!((listed.len(), listed[0].size, listed[0].is_dir), (1, 3 + all.len() as u64, false));
    assert!(ring.list(Path::new("")).expect("list")[0].is_dir);
}

#[test]
fn jobs_do_what_they_say_through_the_ring_and_at_once() {
    let mut shard = Shard::new(Settings::default());
    for through_ring in [true, false] {
        let root = shard.directory.path().to_path_buf();
        let (file, _) = shard.file("dir/a", 100_000);
        let mut run = |job: Job| if through_ring { shard.run(job) } else { shard.ring.run(job) };
        let size = || std::fs::metadata(root.join("dir/a")).expect("there").len();
        run(Job::Preallocate { file: file.clone(), position: Position(0), size: 1 << 20 }).expect("preallocate");
        assert_eq!(size(), 100_000, "the size is kept");
        run(Job::StartWriteback { file: file.clone(), position: Position(0), size: 100_000 }).expect("write-back");
        run(Job::Sync { file: file.clone() }).expect("sync");
        run(Job::SyncFileSystems { dirs: vec!["dir".into(), "".into()] }).expect("sync");
        run(Job::SyncFileSystems { dirs: vec!["nowhere".into()] }).expect_err("no such directory");
        run(Job::ReadAhead { file: file.clone(), position: Position(10), size: 5 << 20 }).expect("read ahead");
        run(Job::DropPages { file: file.clone(), position: Position(10), size: 5 << 20 }).expect("drop pages");
        run(Job::Truncate { file: file.clone(), size: size() }).expect("truncate");
        let occupied = std::fs::metadata(root.join("dir/a")).expect("there").blocks() * 512;
        assert!((100_000..1 << 19).contains(&occupied), "{occupied} bytes: what was reserved is given back");
        run(Job::Truncate { file: file.clone(), size: 10 }).expect("truncate");
        assert_eq!(size(), 10);
        run(Job::Rename { from: "dir/a".into(), to: "dir/b".into() }).expect("rename");
        assert!(!root.join("dir/a").exists() && root.join("dir/b").exists());
        run(Job::Rename { from: "dir/a".into(), to: "dir/c".into() }).expect_err("nothing to rename");
        run(Job::Close { file }).expect("close");
        run(Job::Remove { path: "dir/b".into() }).expect("remove");
        run(Job::Remove { path: "dir/b".into() }).expect("not there is no error");
        run(Job::Remove { path: PathBuf::from("dir/\0") }).expect_err("no such name");
        for sync in [true, false] {
            let bytes = if sync { b"first".to_vec() } else { b"second".to_vec() };
            run(Job::Replace { path: "dir/checkpoint".into(), bytes: bytes.clone(), sync }).expect("replace");
            assert_eq!(std::fs::read(root.join("dir/checkpoint")).expect("there"), bytes);
            assert!(content_mark::fits(&root.join("dir/checkpoint"), &bytes));
            assert!(!content_mark::fits(&root.join("dir/checkpoint"), b"other"), "or no extended attributes here");
        }
        assert!(!root.join("dir/checkpoint.tmp").exists());
        run(Job::RemoveDir { path: "dir".into() }).expect("remove directory");
        run(Job::RemoveDir { path: "dir".into() }).expect("not there is no error");
        assert!(!root.join("dir").exists());
    }
}

#[test]
fn more_jobs_than_run_at_a_time_all_end() {
    let mut shard = Shard::new(Settings::default());
    let (file, _) = shard.file("a", 1 << 20);
    for i in 0..1000 {
        let (position, size) = (Position(i * 1000), 1000);
        shard.ring.start(
            JobOwner(i),
            match i % 3 {
                0 => Job::StartWriteback { file: file.clone(), position, size },
                1 => Job::Preallocate { file: file.clone(), position, size },
                _ => Job::Rename { from: "nothing".into(), to: "nothing2".into() },
            },
        );
    }
    let mut owners: Vec<u64> = (0..1000)
        .map(|_| shard.next(|_, event| if let Event::JobDone { owner, .. } = event { Some(owner.0) } else { None }))
        .collect();
    owners.sort_unstable();
    assert_eq!(owners, (0..1000).collect::<Vec<_>>());
}

#[test]
fn a_file_is_closed_only_when_no_reply_needs_it_any_more() {
    let mut shard = Shard::new(Settings::default());
    let (client, connection) = shard.accepted();
    let (file, all) = shard.file("a", 8_000_000);
    shard.ring.send(connection, with_file(b"", &file, 0, all.len(), b""));
    shard.ring.start(JobOwner(1), Job::Close { file });
    shard.ring.start(JobOwner(2), Job::Remove { path: "a".into() });
    shard.next(|_, event| match event {
        Event::JobDone { owner: JobOwner(2), .. } => Some(()),
        Event::JobDone { .. } => panic!("closed while a reply needs it"),
        _ => None,
    });
    let reader = read_exactly(client, all.len());
    shard.next(|_, event| match event {
        // The test gives the reply up as the owner does.
        Event::Sent { mut reply, .. } => {
            reply.clear();
            None
        }
        Event::JobDone { owner: JobOwner(1), result, .. } => {
            assert!(result.is_ok(), "{result:?}");
            Some(())
        }
        _ => None,
    });
    assert!(reader.join().expect("reader").0 == all);
}
