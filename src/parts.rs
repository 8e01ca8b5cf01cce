//! What a reply is made of: bytes that were encoded, and ranges of files that are sent without being copied.
//! Only `io` knows how a file range reaches a socket.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

use crate::ids::Position;

/// A file that is open on this shard. Whoever holds an `Rc` of it relies on its bytes staying as they are:
/// replies that are queued or sent but not yet acknowledged by the peer hold one, so a log may overwrite
/// (recycle) a file only when it holds the last one and `tainted` is false.
#[derive(Debug)]
pub struct OpenFile {
    /// The ring's name for it: a file descriptor, or an index in the simulation.
    pub handle: i32,
    /// Nobody can know when peers have their own copy of what was sent from this file: it is never to be overwritten,
    /// only deleted. So when a connection was dropped with bytes in its send queue, when a peer on this very host was sent
    /// pages of it by reference, and when the file was there already when it was opened.
    pub tainted: Cell<bool>,
    /// The device failed to give bytes of it while a reply was being sent: its log is told by this.
    pub failed: Cell<bool>,
}

impl OpenFile {
    /// A file known to the ring as `handle`.
    pub fn new(handle: i32) -> Rc<OpenFile> {
        Rc::new(OpenFile { handle, tainted: Cell::new(false), failed: Cell::new(false) })
    }
}

/// `size` bytes of a file from `position`.
#[derive(Clone, Debug)]
pub struct FileRange {
    /// The file.
    pub file: Rc<OpenFile>,
    /// First byte.
    pub position: Position,
    /// Number of bytes, at most `i32::MAX` as the protocol's record lengths are.
    pub size: u32,
}

/// One stretch of a reply.
#[derive(Clone, Debug)]
pub enum Part {
    /// A range of `Reply::bytes`.
    Bytes(Range<u32>),
    /// A range of a file.
    File(FileRange),
}

/// A reply frame, size prefix included: encoded bytes, with file ranges between them. Pooled: `clear` keeps the memory.
/// With no `parts` the reply is all of `bytes`.
#[derive(Debug, Default)]
pub struct Reply {
    /// Everything that was encoded, in order.
    pub bytes: Vec<u8>,
    /// The order in which bytes and files leave. Empty: just `bytes`.
    pub parts: Vec<Part>,
    /// Where the bytes not yet named by a part begin.
    unnamed: u32,
}

impl Reply {
    /// Forgets the contents, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.parts.clear();
        self.unnamed = 0;
    }
    /// Puts a file range after all bytes encoded so far.
    pub fn push_file(&mut self, range: FileRange) {
        self.name_bytes();
        self.parts.push(Part::File(range));
    }
    /// To be called once when encoding is over and files were pushed: names the bytes after the last file.
    pub fn finish(&mut self) {
        if !self.parts.is_empty() {
            self.name_bytes();
        }
    }
    /// Memory that it holds; none of it is that of files.
    pub fn memory(&self) -> usize {
        self.bytes.capacity() + self.parts.capacity() * size_of::<Part>()
    }
    /// Bytes of file ranges pushed so far.
    pub fn file_bytes(&self) -> u64 {
        self.parts.iter().map(|p| if let Part::File(r) = p { u64::from(r.size) } else { 0 }).sum()
    }
    fn name_bytes(&mut self) {
        let end = self.bytes.len() as u32;
        if end > self.unnamed {
            self.parts.push(Part::Bytes(self.unnamed..end));
            self.unnamed = end;
        }
    }
}

/// A stretch of one of the buffers received in this turn of the loop: how staged batches are named until they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Index of the buffer among those of this turn.
    pub buffer: u32,
    /// First byte.
    pub start: u32,
    /// Number of bytes.
    pub size: u32,
}

/// The buffers of this turn of the loop, looked up by `Slice`.
pub trait Buffers {
    /// The bytes a slice names.
    fn bytes(&self, slice: Slice) -> &[u8];
}

impl Buffers for Vec<Vec<u8>> {
    fn bytes(&self, slice: Slice) -> &[u8] {
        &self[slice.buffer as usize][slice.start as usize..(slice.start + slice.size) as usize]
    }
}
