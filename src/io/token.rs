//! What a completion is about, packed into the 64 bits the kernel hands back: the operation, a slot (of the connection
//! table, the job table, the window table) and the generation of the slot's user, which makes a late completion harmless.

/// The operations this ring submits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Op {
    /// Multishot accept on the listener.
    Accept = 1,
    /// One receive on a connection.
    Receive,
    /// Bytes of replies, by `Send` or `SendMsg`.
    Send,
    /// Waits until a full socket takes bytes again.
    PollOut,
    /// Waits until a cold file range can be sent, for a connection that has to send it.
    ColdRead,
    /// File to pipe (`fetch.path = splice`).
    SpliceIn,
    /// Pipe to socket (`fetch.path = splice`).
    SpliceOut,
    /// A mapped file window to a socket (`fetch.path = send_zc`); the slot is the window's.
    SendZc,
    /// The eventfd somebody rang.
    Bell,
    /// A disk job; the slot is the job's.
    Job,
    /// A request to cancel another operation: its own completion says nothing.
    Cancel,
    /// Asks the kernel to begin reading a file range; another operation waits for it.
    Advise,
    /// Reads a block of a file past the page cache; the slot is the block's.
    ReadBlock,
    /// Makes memory that blocks are read into.
    Populate,
}

/// Slots are 24 bits wide.
pub(super) const SLOT_MAX: u32 = (1 << 24) - 1;

/// The meaning of `user_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub op: Op,
    pub slot: u32,
    pub generation: u32,
}

impl Token {
    pub fn new(op: Op, slot: u32, generation: u32) -> Token {
        assert!(slot <= SLOT_MAX);
        Token { op, slot, generation }
    }

    /// The 64 bits.
    pub fn pack(self) -> u64 {
        (self.op as u64) << 56 | u64::from(self.slot) << 32 | u64::from(self.generation)
    }

    /// None: not one of ours.
    pub fn unpack(user_data: u64) -> Option<Token> {
        use Op::*;
        const OPS: [Op; 14] = [
            Accept, Receive, Send, PollOut, ColdRead, SpliceIn, SpliceOut, SendZc, Bell, Job, Cancel, Advise,
            ReadBlock, Populate,
        ];
        let op = *OPS.get(((user_data >> 56) as usize).checked_sub(1)?)?;
        Some(Token { op, slot: (user_data >> 32) as u32 & SLOT_MAX, generation: user_data as u32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back() {
        for code in 1..=14u64 {
            let token = Token::unpack(code << 56).expect("an operation");
            assert_eq!(token.op as u64, code);
            let token = Token { slot: SLOT_MAX, generation: 0xdead_beef, ..token };
            assert_eq!(Token::unpack(token.pack()), Some(token));
        }
        assert_eq!(Token::unpack(0), None);
        assert_eq!(Token::unpack(15 << 56), None);
    }
}
