//! Tokens: the user data that the kernel carries from a submission to its completion.

/// Kind of an operation; the first byte of its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// A connection accepted into a reserved slot.
    Accept = 1,
    /// Multishot readiness of a slot.
    Poll,
    /// One read into a provided buffer.
    Receive,
    /// A send that was short or failed after [`super::Ring::transmit`] had returned.
    Send,
    /// Oneshot poll for writability.
    Writable,
    /// Both directions of a slot were shut down.
    Shutdown,
    /// A slot was set to reset its peer at the close.
    Reset,
    /// A poll was cancelled.
    Cancel,
    /// The descriptor of a slot was closed.
    Close,
    /// The eventfd was written; handled inside the ring.
    Doorbell,
    /// The socket of a slot got an ordinary descriptor.
    Install,
    /// The socket of a slot was sent to another ring.
    SendSocket,
    /// A socket arrived from another ring.
    SocketArrived,
    /// A socket was created in a slot.
    Socket,
    /// A slot got a small receive buffer.
    LimitReceiveBuffer,
    /// A slot was connected to its peer.
    Connect,
}

const OPS: [Op; 16] = [
    Op::Accept,
    Op::Poll,
    Op::Receive,
    Op::Send,
    Op::Writable,
    Op::Shutdown,
    Op::Reset,
    Op::Cancel,
    Op::Close,
    Op::Doorbell,
    Op::Install,
    Op::SendSocket,
    Op::SocketArrived,
    Op::Socket,
    Op::LimitReceiveBuffer,
    Op::Connect,
];

/// Set in the first byte of the user data of a send; the other bits number its batch.
const SEND: u8 = 0x80;
/// Bits of the batch number.
const BATCH: u8 = 0x7f;

/// Identifies an operation: its kind, its slot and the generation of the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The operation.
    pub op: Op,
    /// The slot's generation, 24 bits.
    pub generation: u32,
    /// The slot: index of the direct descriptor and of the connection.
    pub slot: u32,
}

impl Token {
    /// Creates a token; the generation is truncated to 24 bits.
    pub fn new(op: Op, generation: u32, slot: u32) -> Self {
        Token { op, generation: generation & 0xff_ffff, slot }
    }

    /// The user data: op:8 | generation:24 | slot:32.
    pub(super) fn to_user_data(self) -> u64 {
        self.with_first_byte(self.op as u8)
    }

    /// The user data of a send of a batch.
    pub(super) fn of_send(generation: u32, slot: u32, batch: u8) -> u64 {
        Token::new(Op::Send, generation, slot).with_first_byte(SEND | batch & BATCH)
    }

    fn with_first_byte(self, byte: u8) -> u64 {
        u64::from(byte) << 56 | u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    /// Reads user data, with the batch of a send; `None`: not an operation of this ring.
    pub(super) fn from_user_data(data: u64) -> Option<(Self, Option<u8>)> {
        let first = (data >> 56) as u8;
        let (op, batch) = match first & SEND {
            0 => (*OPS.get(usize::from(first).checked_sub(1)?)?, None),
            _ => (Op::Send, Some(first & BATCH)),
        };
        Some((Token { op, generation: (data >> 32) as u32 & 0xff_ffff, slot: data as u32 }, batch))
    }
}

/// The number of the batch after this one.
pub(super) fn next_batch(batch: u8) -> u8 {
    batch.wrapping_add(1) & BATCH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_restored_from_user_data() {
        for op in OPS {
            let token = Token::new(op, 0xab_cdef, 0x1234_5678);
            assert_eq!(Token::from_user_data(token.to_user_data()), Some((token, None)));
        }
        let mut batch = 0;
        for _ in 0..300 {
            batch = next_batch(batch);
            let token = Token::new(Op::Send, 0xab_cdef, u32::MAX);
            let data = Token::of_send(0xab_cdef, u32::MAX, batch);
            assert_eq!(Token::from_user_data(data), Some((token, Some(batch))));
        }
    }

    #[test]
    fn unknown_user_data_is_not_a_token() {
        for first in (0..=0x7fu8).filter(|byte| !(1..=16).contains(byte)) {
            assert_eq!(Token::from_user_data(u64::from(first) << 56 | 5), None);
        }
    }
}
