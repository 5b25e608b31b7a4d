//! Data of publications: JSON strings of random letters, which no store can compress to little.
//!
//! Owns the generator. Never repeats a record within a run. Invariant: a record is a JSON string
//! of exactly [`BYTES`] bytes.

use fastrand::Rng;

/// Bytes of a record, with its quotes.
pub(super) const BYTES: usize = 128;
/// The letters: six bits each.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A generator of records.
pub(super) struct Records {
    random: Rng,
    record: [u8; BYTES],
}

impl Records {
    /// Records of this seed.
    pub fn new(seed: u64) -> Self {
        Records { random: Rng::with_seed(seed), record: [b'"'; BYTES] }
    }

    /// The next record.
    pub fn next_record(&mut self) -> &[u8; BYTES] {
        self.named("")
    }

    /// The next record, which begins with `name` and a space.
    pub fn named(&mut self, name: &str) -> &[u8; BYTES] {
        let body = &mut self.record[1..BYTES - 1];
        let start = if name.is_empty() { 0 } else { name.len() + 1 };
        for letters in body[start..].chunks_mut(10) {
            let mut bits = self.random.u64(..);
            for letter in letters {
                *letter = LETTERS[(bits & 63) as usize];
                bits >>= 6;
            }
        }
        if start > 0 {
            body[..name.len()].copy_from_slice(name.as_bytes());
            body[name.len()] = b' ';
        }
        &self.record
    }
}

/// The name of a record that [`Records::named`] made; `None`: it has none.
pub(super) fn name(record: &str) -> Option<&str> {
    record.trim_start_matches('"').split_once(' ').map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_json_strings_that_differ_and_keep_their_names() {
        let mut records = Records::new(7);
        let first = *records.next_record();
        let second = *records.next_record();
        assert_ne!(first, second);
        let text: String = serde_json::from_slice(&first).unwrap();
        assert_eq!(text.len(), BYTES - 2);
        assert_eq!(name(&text), None);
        let named = String::from_utf8(records.named("p3-17").to_vec()).unwrap();
        assert_eq!(name(&named), Some("p3-17"));
        assert_eq!(name(&serde_json::from_str::<String>(&named).unwrap()), Some("p3-17"));
    }
}
