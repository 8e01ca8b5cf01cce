//! What zstd and deflate work with, kept from one stream to the next: tables and windows of 0.3 to some megabytes. Taken from
//! the kernel anew for each batch, their first touch cost up to half a millisecond in one call.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::thread::LocalKey;

use flate2::{Compress, Compression};
use zstd::zstd_safe::{CCtx, DCtx, ResetDirective};

/// Contexts of a kind that a thread keeps: one for compaction, whose stream stays open between requests, and one for theirs.
const KEPT_MAX: usize = 2;
/// A larger one is not kept: high levels and wide windows take hundreds of megabytes.
const KEPT_SIZE_MAX: usize = 8 << 20;
/// Bits of deflate's largest window.
const WINDOW_BITS: u8 = 15;

thread_local! {
    static ZSTD_COMPRESSORS: RefCell<Vec<CCtx<'static>>> = const { RefCell::new(Vec::new()) };
    static ZSTD_DECOMPRESSORS: RefCell<Vec<DCtx<'static>>> = const { RefCell::new(Vec::new()) };
    static GZIP_COMPRESSORS: RefCell<Vec<Compress>> = const { RefCell::new(Vec::new()) };
}

/// What a codec works with, for one stream at a time.
pub trait Context: Sized + 'static {
    fn create() -> Self;
    /// Forgets its stream and settings, whatever became of them. False: it is not worth keeping.
    fn reset(&mut self) -> bool;
    /// Those of this thread that nobody uses.
    fn kept() -> &'static LocalKey<RefCell<Vec<Self>>>;
}

impl Context for CCtx<'static> {
    fn create() -> Self {
        CCtx::create()
    }
    fn reset(&mut self) -> bool {
        CCtx::reset(self, ResetDirective::SessionAndParameters).is_ok() && self.sizeof() <= KEPT_SIZE_MAX
    }
    fn kept() -> &'static LocalKey<RefCell<Vec<Self>>> {
        &ZSTD_COMPRESSORS
    }
}

impl Context for DCtx<'static> {
    fn create() -> Self {
        DCtx::create()
    }
    fn reset(&mut self) -> bool {
        DCtx::reset(self, ResetDirective::SessionAndParameters).is_ok() && self.sizeof() <= KEPT_SIZE_MAX
    }
    fn kept() -> &'static LocalKey<RefCell<Vec<Self>>> {
        &ZSTD_DECOMPRESSORS
    }
}

/// Of gzip streams. Its level stays when it is reset, so each user sets one.
impl Context for Compress {
    fn create() -> Self {
        Compress::new_gzip(Compression::default(), WINDOW_BITS)
    }
    fn reset(&mut self) -> bool {
        Compress::reset(self);
        true
    }
    fn kept() -> &'static LocalKey<RefCell<Vec<Self>>> {
        &GZIP_COMPRESSORS
    }
}

/// A context on loan: it goes back when this is dropped.
pub struct Loan<T: Context>(Option<T>);

impl<T: Context> Loan<T> {
    /// One that was kept, or else a new one.
    pub fn take() -> Loan<T> {
        let kept = T::kept().with(|kept| kept.borrow_mut().pop());
        Loan(Some(kept.unwrap_or_else(T::create)))
    }
}

impl<T: Context> Deref for Loan<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("there until it is dropped")
    }
}

impl<T: Context> DerefMut for Loan<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("there until it is dropped")
    }
}

impl<T: Context> Drop for Loan<T> {
    fn drop(&mut self) {
        let Some(mut context) = self.0.take() else { return };
        if context.reset() {
            // Where the thread is at its end there is nothing left to keep it in.
            let _ = T::kept().try_with(|kept| {
                let mut kept = kept.borrow_mut();
                if kept.len() < KEPT_MAX {
                    kept.push(context);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::batch::Codec;
    use crate::wire::compression::{Compressor, Decompressor, compress, decompress_bounded};

    fn kept<T: Context>() -> usize {
        T::kept().with(|kept| kept.borrow().len())
    }
    fn forget_kept() {
        ZSTD_COMPRESSORS.with(|kept| kept.borrow_mut().clear());
        ZSTD_DECOMPRESSORS.with(|kept| kept.borrow_mut().clear());
        GZIP_COMPRESSORS.with(|kept| kept.borrow_mut().clear());
    }
    fn bytes(seed: u32) -> Vec<u8> {
        (0..200_000_u32).map(|n| (n.wrapping_mul(n).wrapping_mul(seed) >> 9) as u8 & 63).collect()
    }
    fn compressed(codec: Codec, level: Option<i32>, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        compress(codec, level, bytes, &mut out).unwrap();
        out
    }

    #[test]
    fn streams_that_take_turns_do_not_mix() {
        for codec in [Codec::Zstd, Codec::Gzip] {
            for _ in 0..3 {
                let plain = [1, 3, 5, 7].map(bytes);
                let levels = [None, Some(1), Some(9), Some(4)];
                let mut writers: Vec<_> =
                    (0..4).map(|i| Compressor::new(codec, levels[i], plain[i].len(), vec![i as u8]).unwrap()).collect();
                for at in (0..plain[0].len()).step_by(10_000) {
                    for (writer, plain) in writers.iter_mut().zip(&plain) {
                        writer.write_piece(&plain[at..at + 10_000]).unwrap();
                    }
                }
                let small: Vec<_> = writers.into_iter().map(|writer| writer.finish().unwrap()).collect();
                let mut readers: Vec<_> =
                    small.iter().map(|small| Decompressor::new(codec, &small[1..], 1 << 20)).collect();
                let mut out = vec![Vec::new(); 4];
                loop {
                    let turn = readers.iter_mut().zip(&mut out);
                    if turn.filter_map(|(reader, out)| reader.read(out, 7_000).unwrap().then_some(())).count() == 0 {
                        break;
                    }
                }
                assert!(out.iter().eq(&plain), "{codec:?}");
                assert!(small.iter().enumerate().all(|(i, small)| small[0] == i as u8));
            }
        }
        assert_eq!((kept::<CCtx>(), kept::<DCtx>(), kept::<Compress>()), (KEPT_MAX, KEPT_MAX, KEPT_MAX));
    }

    #[test]
    fn a_used_context_writes_what_a_new_one_does() {
        for (codec, level) in [(Codec::Zstd, None), (Codec::Zstd, Some(7)), (Codec::Gzip, None), (Codec::Gzip, Some(1))]
        {
            forget_kept();
            let fresh = compressed(codec, level, &bytes(3));
            for other in [Some(1), Some(9), None] {
                compressed(codec, other, &bytes(5));
                assert_eq!(compressed(codec, level, &bytes(3)), fresh, "{codec:?} {level:?} after {other:?}");
            }
        }
    }

    #[test]
    fn a_stream_that_failed_or_was_left_leaves_a_context_that_works() {
        forget_kept();
        for codec in [Codec::Zstd, Codec::Gzip] {
            let plain = bytes(3);
            let small = compressed(codec, None, &plain);
            for _ in 0..3 {
                let mut left = Compressor::new(codec, Some(2), plain.len(), Vec::new()).unwrap();
                left.write_piece(&plain[..50_000]).unwrap();
                drop(left);
                let mut left = Decompressor::new(codec, &small[..], plain.len());
                assert!(left.read(&mut Vec::new(), 10_000).unwrap());
                drop(left);
                let mut damaged = small.clone();
                let middle = damaged.len() / 2;
                damaged[middle..].fill(0xff);
                assert!(decompress_bounded(codec, &damaged, plain.len()).is_err());
                assert!(decompress_bounded(codec, &small, 1000).is_err());
                assert_eq!(compressed(codec, None, &plain), small);
                assert_eq!(decompress_bounded(codec, &small, plain.len()).unwrap(), plain);
            }
        }
        {
            // More than was announced: zstd fails in the middle of its work.
            let mut short = Compressor::new(Codec::Zstd, None, 10, Vec::new()).unwrap();
            assert!(short.write_piece(&[1; 20]).is_err() || short.finish().is_err());
        }
        assert_eq!((kept::<CCtx>(), kept::<DCtx>(), kept::<Compress>()), (1, 1, 1));
        let small = compressed(Codec::Zstd, None, &bytes(3));
        assert_eq!(decompress_bounded(Codec::Zstd, &small, 1 << 20).unwrap(), bytes(3));
    }

    #[test]
    fn large_contexts_are_not_kept() {
        forget_kept();
        let zeros = vec![0; KEPT_SIZE_MAX + 1];
        let small = compressed(Codec::Zstd, Some(19), &zeros);
        assert_eq!(decompress_bounded(Codec::Zstd, &small, zeros.len()).unwrap().len(), zeros.len());
        assert_eq!((kept::<CCtx>(), kept::<DCtx>()), (0, 0));
    }
}
