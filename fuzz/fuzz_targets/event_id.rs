//! Event ids that a browser sends back as `Last-Event-ID`: never a panic, and the places that are
//! read of channels are written and read as the same.
#![no_main]

use drumline::wire::event_id::{ChannelEventId, ConnectionEventId, LastEventId};
use libfuzzer_sys::fuzz_target;

fn written(write: impl Fn(&mut Vec<u8>)) -> Option<LastEventId> {
    let mut line = Vec::new();
    write(&mut line);
    let line = String::from_utf8(line).expect("an id is text");
    let id = line.strip_prefix("id: ")?.strip_suffix('\n').expect("a line ends");
    assert!(!id.contains(['\n', '\r']), "one line");
    Some(LastEventId::parse(id).expect("what is written can be read"))
}

fuzz_target!(|input: &str| {
    // Behind the first newline stand names of channels, one a line.
    let (id, channels) = input.split_once('\n').unwrap_or((input, ""));
    let Some(read) = LastEventId::parse(id) else { return };
    let mut trail = ConnectionEventId::default();
    let mut places = Vec::new();
    for (nth, channel) in channels.split('\n').take(16).enumerate() {
        let Some(position) = read.place(channel) else { continue };
        trail.set(channel, nth as u64, position);
        places.push((channel, position));
        if let Some(alone) = written(|out| ChannelEventId { position, channel }.write_line(out)) {
            assert_eq!(alone.place(channel), Some(position));
        }
    }
    let all = written(|out| trail.write_line(out));
    assert_eq!(all.is_some(), !places.is_empty());
    for (channel, position) in places {
        assert_eq!(all.as_ref().and_then(|all| all.place(channel)), Some(position));
    }
});
