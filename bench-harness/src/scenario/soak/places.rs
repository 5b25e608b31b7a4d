//! Pressure on descriptors: more clients than the server has slots, and more HTTP connections than
//! its ports may have.
//!
//! Owns the connections of an episode. Never keeps them. Invariant: the number of clients that the
//! server takes when it is empty is measured in the same way before and after the soak.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::activity::Tally;
use super::scene::Scene;
use super::sizes::{HTTP_PLACES, INTERNAL_PLACES};
use crate::dense::{Channels, Mode};
use crate::dialect::Drumline;
use crate::random::Random;
use crate::scenario::hostile::HostileClient;

pub(super) const FULL: &str = "clients refused by a full server";
pub(super) const MADE_ROOM: &str = "HTTP connections closed for others";

/// Clients that come one after the other when the places are counted. The server keeps fewer slots
/// free for sockets that it refuses.
const LAST: u64 = 100;

/// Clients on every slot that is free, and some more.
pub(super) fn slots(scene: &Scene<'_>, random: &mut Random, tally: &mut Tally) -> Result<()> {
    let mode = Mode::Subscribe(Channels::Rooms(scene.sizes.rooms));
    let dense = scene.dense(&Drumline, scene.sizes.places, mode)?;
    tally.add(FULL, dense.ramp()?.refused);
    std::thread::sleep(Duration::from_millis(random.within(100..=1_000)));
    dense.stop()
}

/// The clients that an empty server takes. The last of them come one after the other: of sockets
/// that come at once, a full server may take one more or less.
pub(super) fn count(scene: &Scene<'_>) -> Result<u64> {
    let mode = Mode::Subscribe(Channels::Distinct);
    let dense = scene.dense(&Drumline, scene.sizes.places - LAST, mode)?;
    let up = dense.ramp()?.up;
    let mut last = Vec::new();
    while let Ok(client) = HostileClient::connected(scene.public) {
        last.push(client);
        ensure!(
            last.len() as u64 <= LAST,
            "a server with {} slots took more clients",
            scene.sizes.places
        );
    }
    dense.stop()?;
    Ok(up + last.len() as u64)
}

/// HTTP connections that stay open, on both ports.
pub(super) fn http(scene: &Scene<'_>, random: &mut Random, tally: &mut Tally) -> Result<()> {
    let public = (scene.public, HTTP_PLACES);
    let internal = (scene.server.control(), INTERNAL_PLACES);
    for (address, places) in [public, internal] {
        let mut idle: Vec<HostileClient> = Vec::new();
        for _ in 0..places + places / 2 {
            match kept_alive(address) {
                Ok(client) => idle.push(client),
                Err(_) => tally.add("HTTP connections refused", 1),
            }
        }
        std::thread::sleep(Duration::from_millis(random.within(50..=500)));
        let closed = idle.iter_mut().map(HostileClient::is_closed).filter(|closed| *closed).count();
        tally.add(MADE_ROOM, closed as u64);
    }
    Ok(())
}

/// A connection that the control plane has answered on.
fn kept_alive(address: SocketAddr) -> Result<HostileClient> {
    let mut client = HostileClient::dial(address)?;
    client.write(b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let head = client.response()?;
    ensure!(head.starts_with(b"HTTP/1.1 404"), "answered {:?}", String::from_utf8_lossy(&head));
    Ok(client)
}

/// The places for HTTP connections of the internal port, by what is still open when more have come.
pub(super) fn internal(scene: &Scene<'_>) -> Result<u64> {
    let connect = |_| kept_alive(scene.server.control());
    let clients: Result<Vec<HostileClient>> = (0..INTERNAL_PLACES * 2).map(connect).collect();
    let mut clients = clients.context("the internal port refuses HTTP connections")?;
    std::thread::sleep(Duration::from_millis(100));
    Ok(clients.iter_mut().map(|client| u64::from(!client.is_closed())).sum())
}
