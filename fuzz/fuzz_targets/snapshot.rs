//! Files of snapshots: never a panic, whatever their bytes and records are; what the homes get
//! belongs to them, and histories are in order.
#![no_main]

use drumline::model::names::Names;
use drumline::store::snapshot::blocks::BlockWriter;
use drumline::store::snapshot::reader::{Limits, Snapshot};
use drumline::store::snapshot::records::Record;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;

const SHARDS: u8 = 3;

fn read(bytes: &[u8]) {
    let keeps = |channel: &str| !channel.starts_with('-');
    let limits = Limits { shards: SHARDS, now: 1_000, history_bytes: 10_000, keeps: &keeps };
    let Ok(snapshot) = Snapshot::read(bytes, &limits) else { return };
    let (names, entries) = (Names::new(snapshot.secrets.names, SHARDS), snapshot.entries());
    let homes = snapshot.into_homes();
    assert_eq!(homes.iter().map(|home| home.streams.len() as u64).sum::<u64>(), entries.streams);
    for (home, number) in homes.iter().zip(0..) {
        for one in &home.streams {
            assert_eq!(names.home(one.stream.hash), number);
            assert!(keeps(&one.stream.channel));
            assert!(one.publications.iter().all(|one| one.expires > limits.now));
        }
        assert!(home.keys.iter().all(|key| names.home(key.hash) == number));
    }
}

fuzz_target!(|input: &[u8]| {
    read(input);
    // Records of any contents, in blocks whose checksums are right: each is a length and so many
    // bytes.
    let Ok(mut writer) = BlockWriter::new(Vec::new()) else { return };
    let mut input = input;
    while let Some((&[low, high], rest)) = input.split_first_chunk() {
        let (bytes, later) = rest.split_at(rest.len().min(u16::from_le_bytes([low, high]).into()));
        input = later;
        if let Ok(Record { kind: Some(kind) }) = Record::decode(bytes) {
            writer.add(kind).expect("memory takes it");
        }
    }
    read(&writer.finish().expect("memory takes it"));
});
