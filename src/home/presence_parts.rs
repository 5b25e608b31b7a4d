//! Encoded presence answers of a channel, shared by all clients that ask.
//!
//! Owns the parts of one encoded answer; each part encodes a run of members. A part is dropped as
//! soon as one of its members comes or goes. So a complete answer is true at one moment, however
//! many turns it took to encode.

use std::sync::Arc;

use crate::wire::protocol::reply::PresenceList;

/// Number of members per part.
pub const PART: usize = 64;

/// The parts of one encoding; `None` is a part that is not encoded.
#[derive(Default)]
pub struct PresenceParts {
    parts: Vec<Option<Arc<[u8]>>>,
    missing: Vec<u32>,
    bytes: usize,
}

impl PresenceParts {
    /// Creates missing parts for members with an index below `end`.
    pub fn new(end: usize) -> Self {
        let mut parts = PresenceParts::default();
        parts.reach(end);
        parts
    }

    fn reach(&mut self, end: usize) {
        let first = self.parts.len();
        let needed = end.div_ceil(PART).max(first);
        self.parts.resize(needed, None);
        self.missing.extend((first..needed).map(|part| part as u32));
    }

    /// Drops the part of a member that has come or gone.
    pub fn change(&mut self, at: usize) {
        self.reach(at + 1);
        let part = at / PART;
        if let Some(old) = self.parts.get_mut(part).and_then(Option::take) {
            self.bytes -= old.len();
            self.missing.push(part as u32);
        }
    }

    /// Encodes one missing part: `encode` appends the members of a range of indexes. Returns
    /// whether a part was missing.
    pub fn encode_next(
        &mut self,
        encode: impl FnOnce(std::ops::Range<usize>, &mut Vec<u8>),
    ) -> bool {
        let Some(part) = self.missing.pop() else { return false };
        let start = part as usize * PART;
        let mut bytes = Vec::new();
        encode(start..start + PART, &mut bytes);
        self.bytes += bytes.len();
        if let Some(empty) = self.parts.get_mut(part as usize) {
            *empty = Some(bytes.into());
        }
        true
    }

    /// Whether every part is encoded.
    pub fn are_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// Number of encoded bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The complete answer.
    pub fn roll(&self) -> PresenceList {
        PresenceList::new(
            self.parts.iter().flatten().filter(|part| !part.is_empty()).cloned().collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parts_with_changed_members_are_encoded_again() {
        let mut parts = PresenceParts::new(3 * PART);
        let mut encoded = 0;
        let mut finish = |parts: &mut PresenceParts| {
            encoded = 0;
            while parts.encode_next(|range, out| out.push(range.start as u8)) {
                encoded += 1;
            }
            (encoded, parts.bytes(), parts.roll().bytes())
        };
        assert!(!parts.are_complete());
        assert_eq!(finish(&mut parts), (3, 3, 3));
        parts.change(PART);
        parts.change(PART + 1);
        assert!(!parts.are_complete() && parts.bytes() == 2);
        assert_eq!(finish(&mut parts), (1, 3, 3));
        parts.change(3 * PART);
        assert_eq!(finish(&mut parts), (1, 4, 4));
        assert!(parts.are_complete());
    }
}
