//! Event ids of server-sent events. A browser sends the last id as `Last-Event-ID` when it
//! reconnects, and the server recovers the missed publications of the channels that it requests.
//!
//! Owns the positions of one connection's channels. Never decides which channels a client may
//! subscribe to. The invariant: an id holds the client's positions after the event that carries it.

use crate::wire::protocol::{Epoch, Position};

/// Maximum number of channels whose positions an event id of a connection holds.
pub const CHANNELS_MAX: usize = 32;
/// Bytes of a channel's hash and epoch, which precede the offset.
const PREFIX: usize = 16;

/// What the event ids of a group contain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EventIdMode {
    /// Nothing: the events have no id.
    #[default]
    None,
    /// The position in the event's channel. All subscribers get the same id; they have no other
    /// channel.
    Channel,
    /// The positions in all channels of the connection. The events of the group end without an id,
    /// and each connection appends its own.
    Connection,
}

/// The event id of a position in one channel: `OFFSET:EPOCH:CHANNEL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelEventId<'a> {
    /// Position in the channel's stream.
    pub position: Position,
    /// Name of the channel.
    pub channel: &'a str,
}

impl ChannelEventId<'_> {
    /// Appends the `id` line of an event; nothing if the channel name has control characters.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        let ChannelEventId { position: Position { offset, epoch }, channel } = self;
        if !channel.bytes().any(|byte| byte.is_ascii_control()) {
            let line = format!("id: {offset}:{}:{channel}\n", epoch.as_str());
            out.extend_from_slice(line.as_bytes());
        }
    }
}

/// The hash (FNV-1a) that replaces a channel name in ids of several channels. All nodes use the
/// same hash, so a client that reconnects to another node learns that recovery failed. Channels
/// with the same hash differ in the epoch.
fn name_hash(channel: &str) -> u32 {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    channel.bytes().fold(0x811c_9dc5, step)
}

/// A connection's position in one of its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ChannelPosition {
    /// Hash of the channel name on this node.
    hash: u64,
    offset: u64,
    /// Name hash and epoch as they are written.
    prefix: [u8; PREFIX],
}

/// The event id of a connection's positions in all its channels: `+` and, separated by commas, the
/// name hash of each channel in hexadecimal, its epoch and its offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionEventId(Vec<ChannelPosition>);

impl ConnectionEventId {
    /// Adds or replaces the position in a channel. Channels beyond [`CHANNELS_MAX`] are left out.
    pub fn set(&mut self, channel: &str, hash: u64, position: Position) {
        let text = format!("{:08x}{}", name_hash(channel), position.epoch.as_str());
        let Ok(prefix) = text.as_bytes().try_into() else { return };
        let channel = ChannelPosition { hash, offset: position.offset, prefix };
        let has_room = self.0.len() < CHANNELS_MAX;
        match self.0.iter_mut().find(|channel| channel.hash == hash) {
            Some(previous) => *previous = channel,
            None if has_room => self.0.push(channel),
            None => {}
        }
    }

    /// Moves the position in a channel, after the connection has received its publications up to
    /// there.
    pub fn follow(&mut self, hash: u64, position: Position) {
        if let Some(channel) = self.0.iter_mut().find(|channel| channel.hash == hash) {
            channel.offset = position.offset;
            channel.prefix[PREFIX / 2..].copy_from_slice(position.epoch.as_bytes());
        }
    }

    /// Appends the `id` line of an event; nothing if there are no channels.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        for (nth, channel) in self.0.iter().enumerate() {
            out.extend_from_slice(if nth == 0 { b"id: +" } else { b"," });
            out.extend_from_slice(&channel.prefix);
            write_number(channel.offset, out);
        }
        if !self.0.is_empty() {
            out.push(b'\n');
        }
    }
}

/// Appends a number in decimal digits.
fn write_number(mut number: u64, out: &mut Vec<u8>) {
    let start = out.len();
    loop {
        out.push(b'0' + (number % 10) as u8);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out[start..].reverse();
}

/// The positions in a client's `Last-Event-ID`, by name hash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastEventId(Vec<(u32, Position)>);

impl LastEventId {
    /// Parses an id of a [`ChannelEventId`] or a [`ConnectionEventId`]; `None` if the text is not
    /// such an id.
    pub fn parse(text: &str) -> Option<Self> {
        let Some(channels) = text.strip_prefix('+') else {
            let (offset, rest) = text.split_once(':')?;
            let (letters, channel) = rest.split_once(':')?;
            let position = Position { offset: number(offset)?, epoch: epoch(letters)? };
            return Some(LastEventId(vec![(name_hash(channel), position)]));
        };
        if channels.len() > CHANNELS_MAX * (PREFIX + 21) {
            return None;
        }
        let channel_position = |channel: &str| {
            let (prefix, offset) = channel.split_at_checked(PREFIX)?;
            let (hash, letters) = prefix.split_at_checked(PREFIX / 2)?;
            let hash = u32::from_str_radix(hash, 16).ok()?;
            Some((hash, Position { offset: number(offset)?, epoch: epoch(letters)? }))
        };
        channels.split(',').map(channel_position).collect::<Option<_>>().map(LastEventId)
    }

    /// The client's position in a channel; `None` if the id does not hold it.
    pub fn place(&self, channel: &str) -> Option<Position> {
        let hash = name_hash(channel);
        self.0.iter().find(|(other, _)| *other == hash).map(|(_, position)| *position)
    }
}

/// Parses an epoch; `None` if the text is not eight letters.
fn epoch(letters: &str) -> Option<Epoch> {
    let is_epoch =
        letters.len() == PREFIX / 2 && letters.bytes().all(|byte| byte.is_ascii_alphabetic());
    is_epoch.then(|| Epoch::parse(letters))
}

fn number(digits: &str) -> Option<u64> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(offset: u64, epoch: &str) -> Position {
        Position { offset, epoch: Epoch::parse(epoch) }
    }

    fn id(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut line = Vec::new();
        write(&mut line);
        let line = String::from_utf8(line).unwrap();
        line.strip_prefix("id: ").and_then(|line| line.strip_suffix('\n')).unwrap().to_owned()
    }

    #[test]
    fn the_event_id_of_a_channel_is_parsed_back() {
        let position = at(7, "abcdefgh");
        let text = id(|out| ChannelEventId { position, channel: "a:b" }.write_line(out));
        assert_eq!(text, "7:abcdefgh:a:b");
        let last = LastEventId::parse(&text).unwrap();
        assert_eq!((last.place("a:b"), last.place("a")), (Some(position), None));
        let mut none = Vec::new();
        ChannelEventId { position, channel: "a\nb" }.write_line(&mut none);
        assert_eq!(none, b"");
    }

    #[test]
    fn the_event_id_of_a_connection_holds_up_to_32_positions() {
        let mut event_id = ConnectionEventId::default();
        let name = |nth: usize| format!("channel-{nth}");
        for nth in 0..40 {
            event_id.set(&name(nth), nth as u64, at(nth as u64, "abcdefgh"));
        }
        event_id.follow(3, at(u64::MAX, "ABCDEFGH"));
        event_id.follow(99, at(1, "ABCDEFGH"));
        event_id.set(&name(4), 4, at(44, "abcdefgh"));
        let text = id(|out| event_id.write_line(out));
        let last = LastEventId::parse(&text).unwrap();
        assert_eq!(last.place(&name(3)), Some(at(u64::MAX, "ABCDEFGH")));
        assert_eq!(last.place(&name(4)), Some(at(44, "abcdefgh")));
        for nth in 5..40 {
            let expected = (nth < CHANNELS_MAX).then(|| at(nth as u64, "abcdefgh"));
            assert_eq!(last.place(&name(nth)), expected, "{nth}");
        }
        let mut none = Vec::new();
        ConnectionEventId::default().write_line(&mut none);
        assert_eq!(none, b"");
    }

    #[test]
    fn foreign_ids_are_not_parsed() {
        for text in [
            "",
            "7",
            "7:abcdefgh",
            "x:abcdefgh:a",
            "+7:abcdefgh:a",
            "7::a",
            "7:abcdefg:a",
            "7:abcd\0fgh:a",
            "18446744073709551616:abcdefgh:a",
            "+",
            "+00000000abcdefgh",
            "+00000000abcdefgh7,",
            "+0000000xabcdefgh7",
            "+00000000abcdefgé7",
            "+00000000abcdefgh-7",
        ] {
            assert_eq!(LastEventId::parse(text), None, "{text:?}");
        }
        let long = format!("+{}", ["00000000abcdefgh7"; 1000].join(","));
        assert_eq!(LastEventId::parse(&long), None);
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".{0,100}") {
            LastEventId::parse(&text);
            LastEventId::parse(&format!("+{text}"));
        }
    }
}
