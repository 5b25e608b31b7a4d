//! Deltas: one that was made gives its target back, and any bytes are applied or refused.
#![no_main]

use drumline::wire::delta::{TARGET_MAX, apply, create};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // The first two bytes say where the source ends.
    let Some((cut, documents)) = input.split_first_chunk::<2>() else { return };
    let cut = usize::from(u16::from_be_bytes(*cut)) % (documents.len() + 1);
    let (source, target) = documents.split_at(cut);
    let mut delta = Vec::new();
    create(source, target, &mut delta);
    assert_eq!(apply(source, &delta).as_deref(), Ok(target));
    assert!(delta.len() <= target.len() + 20);
    assert!(std::str::from_utf8(target).is_err() || std::str::from_utf8(&delta).is_ok());
    // The same bytes as a delta of another's making.
    if let Ok(made) = apply(source, target) {
        assert!(made.len() <= TARGET_MAX);
    }
});
