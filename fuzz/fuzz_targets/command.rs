//! The commands of a frame, in every encoding: never a panic, always an end, and what is left
//! starts where it says.
#![no_main]

use drumline::wire::protocol::command::Request;
use drumline::wire::protocol::{json, protobuf};
use libfuzzer_sys::fuzz_target;

macro_rules! read_as {
    ($encoding:ident, $frame:expr) => {{
        let frame: &[u8] = $frame;
        let mut commands = $encoding::Commands::new(frame);
        let mut consumed = 0;
        let mut count = 0;
        while let Some(Ok(command)) = commands.next() {
            assert!(commands.consumed() > consumed && commands.consumed() <= frame.len());
            consumed = commands.consumed();
            count += 1;
            if let Some(Request::Publish(publish)) = &command.request
                && let Some(data) = &publish.data
            {
                assert!(!data.is_empty());
            }
            // The rest of the frame, kept for later, reads as it would have here.
            if count == 3 {
                let mut rest = $encoding::Commands::new(&frame[consumed..]);
                let later = rest.next().map(|command| command.map(|command| command.id).ok());
                let now = commands.next().map(|command| command.map(|command| command.id).ok());
                assert_eq!(later, now);
                break;
            }
        }
    }};
}

fuzz_target!(|frame: &[u8]| {
    read_as!(json, frame);
    read_as!(protobuf, frame);
    let _ = protobuf::read_emulation(frame);
});
