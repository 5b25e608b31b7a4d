//! Growing and shrinking of buffers whose capacity stays close to their length.
//!
//! Owns nothing. A vector that grows by itself doubles its capacity and keeps it. In the many
//! buffers that peers make grow, the spare capacity would be memory that no peer has sent.

/// The capacity may exceed the length by the length divided by this number.
const SPARE: usize = 8;
/// The capacity may exceed the length by this number of bytes, however short the buffer is.
const SPARE_BYTES: usize = 64;

/// Appends bytes and reserves little more room than they need. Returns the number of bytes copied,
/// which includes the existing bytes if the buffer had to move.
pub fn append(bytes: &mut Vec<u8>, more: &[u8]) -> usize {
    let moved = reserve(bytes, more.len());
    bytes.extend_from_slice(more);
    moved + more.len()
}

/// Reserves room for `more` bytes and little more. Returns the number of existing bytes that had to
/// move.
pub fn reserve(bytes: &mut Vec<u8>, more: usize) -> usize {
    let needed = bytes.len() + more;
    if needed <= bytes.capacity() {
        return 0;
    }
    bytes.reserve_exact(more + needed / SPARE);
    bytes.len()
}

/// Frees the capacity that exceeds the allowed spare capacity.
pub fn trim(bytes: &mut Vec<u8>) {
    if bytes.capacity() - bytes.len() > bytes.len() / SPARE + SPARE_BYTES {
        bytes.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capacity_exceeds_the_length_by_an_eighth_at_most() {
        let mut bytes = Vec::new();
        let mut moves = 0;
        for _ in 0..1000 {
            let before = bytes.capacity();
            let copied = append(&mut bytes, &[7; 1000]);
            let moved = bytes.capacity() != before;
            assert_eq!(copied, if moved { bytes.len() } else { 1000 });
            moves += usize::from(bytes.capacity() != before);
            assert!(bytes.capacity() <= bytes.len() + bytes.len() / SPARE);
        }
        assert!((1..100).contains(&moves), "{moves}");
        bytes.truncate(500_000);
        trim(&mut bytes);
        assert_eq!((bytes.len(), bytes.capacity()), (500_000, 500_000));
        bytes.clear();
        trim(&mut bytes);
        assert_eq!(bytes.capacity(), 0);
    }
}
