//! Event ids: what a browser gives back as `Last-Event-ID` when it comes again, so that it gets
//! what it missed of every channel that it asks for.
//!
//! Owns the places of one connection's channels. Never says which channels somebody may have. The
//! invariant: an id says where the client stands, behind the event that carries it and all before.

use crate::wire::protocol::{Epoch, Position};

/// Channels of which one connection's ids say where it stands.
pub const CHANNELS_MAX: usize = 32;
/// Letters of a channel's tag and of its epoch, in front of the offset.
const FRONT: usize = 16;

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

/// One channel's place: `OFFSET:EPOCH:CHANNEL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelEventId<'a> {
    /// In its stream.
    pub position: Position,
    /// The stream's channel.
    pub channel: &'a str,
}

impl ChannelEventId<'_> {
    /// Appends the line of an event; nothing where the channel's name does not fit a line.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        let ChannelEventId { position: Position { offset, epoch }, channel } = self;
        if !channel.bytes().any(|byte| byte.is_ascii_control()) {
            let line = format!("id: {offset}:{}:{channel}\n", epoch.as_str());
            out.extend_from_slice(line.as_bytes());
        }
    }
}

/// What stands for a channel's name among several (FNV-1a). The same on every node, so that who
/// comes to another one is told that it did not recover. Names that share one differ in the epoch.
fn tag(channel: &str) -> u32 {
    channel.bytes().fold(0x811c_9dc5, |tag, byte| (tag ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Where a connection stands in one of its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// Hash of the channel's name on this node.
    hash: u64,
    offset: u64,
    /// Tag and epoch as they are written.
    front: [u8; FRONT],
}

/// Where a connection stands in all of its channels: `+` and, separated by commas, the tag of each
/// in hexadecimal, its epoch and its offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionEventId(Vec<Place>);

impl ConnectionEventId {
    /// Adds a channel, or replaces it. Past [`CHANNELS_MAX`] it is left out.
    pub fn set(&mut self, channel: &str, hash: u64, position: Position) {
        let text = format!("{:08x}{}", tag(channel), position.epoch.as_str());
        let Ok(front) = text.as_bytes().try_into() else { return };
        let place = Place { hash, offset: position.offset, front };
        let room = self.0.len() < CHANNELS_MAX;
        match self.0.iter_mut().find(|place| place.hash == hash) {
            Some(before) => *before = place,
            None if room => self.0.push(place),
            None => {}
        }
    }

    /// The connection gets what a channel's stream holds up to a position.
    pub fn follow(&mut self, hash: u64, position: Position) {
        if let Some(place) = self.0.iter_mut().find(|place| place.hash == hash) {
            place.offset = position.offset;
            place.front[FRONT / 2..].copy_from_slice(position.epoch.as_bytes());
        }
    }

    /// Appends the line of an event; nothing where there are no channels.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        for (nth, place) in self.0.iter().enumerate() {
            out.extend_from_slice(if nth == 0 { b"id: +" } else { b"," });
            out.extend_from_slice(&place.front);
            write_number(place.offset, out);
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

/// What a client's `Last-Event-ID` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastEventId(Vec<(u32, Position)>);

impl LastEventId {
    /// Reads an id that a [`ChannelEventId`] or a [`ConnectionEventId`] has written; `None`: the
    /// text is no such id.
    pub fn parse(text: &str) -> Option<Self> {
        let Some(places) = text.strip_prefix('+') else {
            let (offset, rest) = text.split_once(':')?;
            let (letters, channel) = rest.split_once(':')?;
            let position = Position { offset: number(offset)?, epoch: epoch(letters)? };
            return Some(LastEventId(vec![(tag(channel), position)]));
        };
        if places.len() > CHANNELS_MAX * (FRONT + 21) {
            return None;
        }
        let place = |place: &str| {
            let (front, offset) = place.split_at_checked(FRONT)?;
            let (tag, letters) = front.split_at_checked(FRONT / 2)?;
            let tag = u32::from_str_radix(tag, 16).ok()?;
            Some((tag, Position { offset: number(offset)?, epoch: epoch(letters)? }))
        };
        places.split(',').map(place).collect::<Option<_>>().map(LastEventId)
    }

    /// Where the client stands in a channel, if the id says so.
    pub fn place(&self, channel: &str) -> Option<Position> {
        let tag = tag(channel);
        self.0.iter().find(|(other, _)| *other == tag).map(|(_, position)| *position)
    }
}

/// The epoch of eight letters; `None`: it is none.
fn epoch(letters: &str) -> Option<Epoch> {
    let whole =
        letters.len() == FRONT / 2 && letters.bytes().all(|byte| byte.is_ascii_alphabetic());
    whole.then(|| Epoch::parse(letters))
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
    fn a_place_is_read_as_it_was_written() {
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
    fn a_trail_says_where_every_channel_stands() {
        let mut trail = ConnectionEventId::default();
        let name = |nth: usize| format!("channel-{nth}");
        for nth in 0..40 {
            trail.set(&name(nth), nth as u64, at(nth as u64, "abcdefgh"));
        }
        trail.follow(3, at(u64::MAX, "ABCDEFGH"));
        trail.follow(99, at(1, "ABCDEFGH"));
        trail.set(&name(4), 4, at(44, "abcdefgh"));
        let text = id(|out| trail.write_line(out));
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
    fn what_is_no_id_of_ours_is_not_read() {
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
