//! Bodies that speak for a stream's client: never a panic, and no session is found that was not
//! given out.
#![no_main]

use drumline::model::ids::Ids;
use drumline::wire::protocol::{json, protobuf};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let ids = Ids::new([7; 16]);
    let requests = [json::read_emulation(body).ok(), protobuf::read_emulation(body).ok()];
    for request in requests.into_iter().flatten() {
        assert!(request.data.len() <= body.len());
        if let Some(address) = ids.find(&request.session) {
            assert_eq!(ids.session(address), request.session);
        }
    }
});
