//! Memory that bytes are received into.

use std::ops::{Deref, DerefMut};

/// Memory lent by the ring for received bytes; goes back to it by `Ring::give_buffer`. Its length is its capacity.
#[derive(Debug)]
pub struct ReceiveBuffer {
    memory: Box<[u8]>,
}

impl ReceiveBuffer {
    /// A buffer of its own (not of the ring's small ones).
    pub fn from_vec(bytes: Vec<u8>) -> ReceiveBuffer {
        ReceiveBuffer { memory: bytes.into_boxed_slice() }
    }
}

impl Deref for ReceiveBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.memory
    }
}
impl DerefMut for ReceiveBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }
}
