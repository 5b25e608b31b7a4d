//! Buffers that take little more memory than they hold.
//!
//! Owns nothing. A vector that grows by itself doubles, and keeps what it once needed: for the
//! many buffers that peers make grow, that is memory which no peer has sent.

/// A buffer may be larger by this part of what it holds.
const SPARE: usize = 8;
/// A buffer may be larger by so many bytes, however little it holds.
const SPARE_BYTES: usize = 64;

/// Appends bytes, and makes little more room than they need. Returns how many bytes were copied:
/// where there was no room, those before them too.
pub fn append(bytes: &mut Vec<u8>, more: &[u8]) -> usize {
    let needed = bytes.len() + more.len();
    let grows = needed > bytes.capacity();
    if grows {
        bytes.reserve_exact(more.len() + needed / SPARE);
    }
    bytes.extend_from_slice(more);
    if grows { needed } else { more.len() }
}

/// Gives memory back that is not needed.
pub fn trim(bytes: &mut Vec<u8>) {
    if bytes.capacity() - bytes.len() > bytes.len() / SPARE + SPARE_BYTES {
        bytes.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_takes_little_more_than_it_holds() {
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
