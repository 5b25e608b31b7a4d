//! A client's frames, compressed or not, arriving in whatever pieces: never a panic, no message
//! over its limit, and the pieces do not matter.
#![no_main]

use drumline::wire::deflate::Inflater;
use drumline::wire::frame::{Fragments, FrameEvent, Violation, decode, write_message, write_pong};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 4096;

/// What a connection makes of `bytes` that come `piece` at a time: everything it was told.
fn told(bytes: &[u8], piece: usize) -> (Vec<u8>, Option<Violation>) {
    let mut inflater = Inflater::default();
    let (mut waiting, mut fragments) = (Vec::new(), Fragments::default());
    let mut log = Vec::new();
    for piece in bytes.chunks(piece) {
        waiting.extend_from_slice(piece);
        loop {
            // A violation may be seen before the frame is whole, but never changes its kind.
            let used = match decode(&mut waiting, &mut fragments, LIMIT, true) {
                Ok(None) => break,
                Ok(Some((used, event))) => {
                    if let Err(violation) = note(&event, &mut inflater, &mut log) {
                        return (log, Some(violation));
                    }
                    used
                }
                Err(violation) => return (log, Some(violation)),
            };
            assert!(used > 0 && used <= waiting.len());
            waiting.drain(..used);
        }
    }
    (log, None)
}

fn note(
    event: &FrameEvent<'_>,
    inflater: &mut Inflater,
    log: &mut Vec<u8>,
) -> Result<(), Violation> {
    match event {
        FrameEvent::Message(kind, payload) => {
            assert!(payload.len() <= LIMIT);
            write_message(*kind, payload, log);
        }
        FrameEvent::Compressed(kind, payload) => {
            let message = inflater.inflate(*kind, payload, LIMIT)?;
            assert!(message.len() <= LIMIT);
            write_message(*kind, &message, log);
            inflater.recycle(message);
        }
        FrameEvent::Ping(payload) => {
            assert!(payload.len() <= 125);
            write_pong(payload, log);
        }
        FrameEvent::Fragment => log.push(b'f'),
        FrameEvent::Pong => log.push(b'p'),
        FrameEvent::Close(code) => log.extend_from_slice(format!("c{code:?}").as_bytes()),
    }
    Ok(())
}

fuzz_target!(|input: &[u8]| {
    let Some((&piece, bytes)) = input.split_first() else { return };
    let whole = told(bytes, usize::MAX);
    let cut = told(bytes, usize::from(piece).max(1));
    assert_eq!(whole, cut);
});
