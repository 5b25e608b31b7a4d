//! Memory pressure: incomplete messages, history, tags filters.
//!
//! Owns what is sent. Never sends what one client alone may not send. Invariant: what the clients
//! of an episode send together is more than a budget of the server.

use std::time::Duration;

use anyhow::Result;

use super::activity::Tally;
use super::scene::Scene;
use super::sizes::{KEPT_BYTES, KEPT_EACH};
use crate::random::Random;
use crate::scenario::hostile::{HostileClient, filtered, fragment, short_frame};

pub(super) const INCOMPLETE: &str = "incomplete messages";
pub(super) const KEPT: &str = "publications into the history";
pub(super) const ACCEPTED: &str = "filters accepted";
pub(super) const REFUSED: &str = "filters refused";

/// Clients with filters, and filters of each.
const FILTERING: u64 = 5;
const FILTERS: u64 = 8;
/// Code of an error: a limit is exceeded.
const LIMIT_EXCEEDED: &str = "\"code\":106";

/// Clients that send messages without an end, and wait.
pub(super) fn unread(scene: &Scene<'_>, random: &mut Random, tally: &mut Tally) -> Result<()> {
    let mut clients = Vec::new();
    for _ in 0..scene.sizes.fragments {
        let message = if random.one_in(2) { fragment() } else { short_frame() };
        let Ok(mut client) = HostileClient::open(scene.public, "") else { continue };
        // The server may close it while it writes.
        if client.write(&message).is_ok() {
            tally.add(INCOMPLETE, 1);
        }
        clients.push(client);
    }
    std::thread::sleep(Duration::from_millis(random.within(200..=1_500)));
    Ok(())
}

/// Publications to more channels than the server keeps streams, or of more bytes than the history
/// has room for.
pub(super) fn history(scene: &Scene<'_>, random: &mut Random, tally: &mut Tally) -> Result<()> {
    let (channels, each) = match tally.episode % 2 {
        0 => (scene.sizes.kept_channels, 2),
        _ => (scene.sizes.few_channels(), KEPT_EACH),
    };
    let first = random.number();
    let name = |nth: u64| format!("\"kept:history-{:x}\"", first.wrapping_add(nth));
    let names: Vec<String> = (0..channels).map(name).collect();
    let (names, data) = (names.join(","), "x".repeat(KEPT_BYTES));
    let body = format!("{{\"channels\":[{names}],\"data\":\"{data}\"}}");
    for _ in 0..each {
        if scene.api("broadcast", &body)?.is_some() {
            tally.add(KEPT, channels);
        }
    }
    Ok(())
}

/// Clients with filters that are all different.
pub(super) fn filters(scene: &Scene<'_>, random: &mut Random, tally: &mut Tally) -> Result<()> {
    let (mut held, first) = (Vec::new(), random.number() >> 16);
    for nth in 0..FILTERING {
        // The slots may all be in use.
        let Ok(mut client) = HostileClient::connected(scene.public) else { continue };
        for filter in 0..FILTERS {
            let number = first + nth * FILTERS + filter;
            let request = filtered(&format!("filtered:{filter}"), number);
            let answer = client.ask(&format!("{{\"id\":2,\"subscribe\":{request}}}"));
            let Ok(answer) = answer else { break };
            let is_refused = answer.contains(LIMIT_EXCEEDED);
            tally.add(if is_refused { REFUSED } else { ACCEPTED }, 1);
        }
        held.push(client);
    }
    std::thread::sleep(Duration::from_millis(random.within(100..=1_000)));
    Ok(())
}
