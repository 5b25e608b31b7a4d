//! The commands of a frame: never a panic, always an end, and what is left starts where it says.
#![no_main]

use drumline::protocol::json::Commands;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    let mut commands = Commands::new(frame);
    let mut consumed = 0;
    let mut ids = Vec::new();
    while let Some(Ok(command)) = commands.next() {
        assert!(commands.consumed() > consumed && commands.consumed() <= frame.len());
        consumed = commands.consumed();
        ids.push(command.id);
        if let Some(publish) = &command.publish
            && let Some(data) = publish.data
        {
            assert!(!data.get().is_empty());
        }
        // The rest of the frame, kept for later, reads as it would have here.
        if ids.len() == 3 {
            let mut rest = Commands::new(&frame[consumed..]);
            let later = rest.next().map(|command| command.map(|command| command.id).ok());
            let now = commands.next().map(|command| command.map(|command| command.id).ok());
            assert_eq!(later, now);
            return;
        }
    }
});
