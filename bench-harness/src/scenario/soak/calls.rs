//! Calls of the HTTP API: every method, and requests that the server must refuse.
//!
//! Owns the requests. Never asks twice. Invariant: a valid request that is answered with an error,
//! and an invalid one that is answered with another status than expected, are faults.

use anyhow::{Result, bail};

use super::activity::Tally;
use super::scene::Scene;
use crate::random::Random;
use crate::server::API_KEY;
use crate::wire::find;

pub(super) const ANSWERED: &str = "calls answered";
pub(super) const REFUSED: &str = "invalid calls refused";

/// Channels with history and presence that calls are about, and users of the storms.
const CHANNELS: u64 = 8;
const KINDS: [&str; 2] = ["kept", "durable"];
const USERS: u64 = 200;
/// Seconds after which a revocation ends.
const REVOKED_SECONDS: u64 = 2;
/// Code of an error that may be gone at the next attempt.
const TEMPORARY: &[u8] = b"\"code\":100,";

/// Some calls, one after the other.
pub(super) fn episode(scene: &Scene<'_>, random: &mut Random, tally: &mut Tally) -> Result<()> {
    for _ in 0..random.within(10..=40) {
        if random.one_in(4) {
            invalid(scene, random, tally)?;
        } else {
            valid(scene, random, tally)?;
        }
    }
    Ok(())
}

fn valid(scene: &Scene<'_>, random: &mut Random, tally: &mut Tally) -> Result<()> {
    let (method, body) = request(scene, random);
    let Some(text) = scene.api(method, &body)? else {
        tally.add("calls without a place", 1);
        return Ok(());
    };
    if find(text.as_bytes(), TEMPORARY).is_some() {
        tally.add("calls answered with a temporary error", 1);
    } else if text.contains("\"error\"") {
        bail!("{method} with {body:.200} was answered {text:.300}");
    } else {
        tally.add(ANSWERED, 1);
    }
    Ok(())
}

/// A valid request: its method and body.
fn request(scene: &Scene<'_>, random: &mut Random) -> (&'static str, String) {
    let kind = random.pick(&KINDS).copied().unwrap_or_default();
    let channel = format!("{kind}:call-{}", random.within(1..=CHANNELS));
    let user = format!("user-{:08}", random.within(0..=USERS));
    let of_channel = format!("{{\"channel\":\"{channel}\"}}");
    let of_user = format!("\"user\":\"{user}\"");
    let until = scene.clock.unix_seconds() + REVOKED_SECONDS;
    match random.within(0..=15) {
        0 => ("info", "{}".to_owned()),
        1 => ("channels", "{\"pattern\":\"kept:*\"}".to_owned()),
        2 => ("presence", of_channel),
        3 => ("presence_stats", of_channel),
        4 => ("history", format!("{{\"channel\":\"{channel}\",\"limit\":10}}")),
        5 => ("history_remove", of_channel),
        6 => ("broadcast", format!("{{\"channels\":[\"{channel}\",\"all\"],\"data\":{{}}}}")),
        7 => ("subscribe", format!("{{{of_user},\"channel\":\"{channel}\"}}")),
        8 => ("unsubscribe", format!("{{{of_user},\"channel\":\"{channel}\"}}")),
        9 => ("disconnect", format!("{{{of_user}}}")),
        10 => ("refresh", format!("{{{of_user},\"expire_at\":{}}}", until + 60)),
        11 => ("revoke_token", format!("{{\"uid\":\"{user}\",\"expire_at\":{until}}}")),
        12 => ("invalidate_user_tokens", format!("{{\"user\":\"none\",\"expire_at\":{until}}}")),
        13 => ("batch", batch(scene, random, &channel)),
        _ => ("publish", format!("{{\"channel\":\"{channel}\",\"data\":{{\"n\":{until}}}}}")),
    }
}

/// Several commands. The publications have idempotency keys if the soak uses them.
fn batch(scene: &Scene<'_>, random: &mut Random, channel: &str) -> String {
    let command = |_| match random.within(0..=2) {
        0 => format!("{{\"history\":{{\"channel\":\"{channel}\",\"limit\":3}}}}"),
        1 => format!("{{\"presence_stats\":{{\"channel\":\"{channel}\"}}}}"),
        _ => {
            let key = match scene.keys {
                true => format!(",\"idempotency_key\":\"{:x}\"", random.number()),
                false => String::new(),
            };
            format!("{{\"publish\":{{\"channel\":\"{channel}\",\"data\":{{}}{key}}}}}")
        }
    };
    let commands: Vec<String> = (0..60).map(command).collect();
    format!("{{\"parallel\":true,\"commands\":[{}]}}", commands.join(","))
}

fn invalid(scene: &Scene<'_>, random: &mut Random, tally: &mut Tally) -> Result<()> {
    let (method, body, key, expected) = match random.within(0..=4) {
        0 => ("info", "{}".to_owned(), "wrong", 401),
        1 => ("no_such_method", "{}".to_owned(), API_KEY, 404),
        2 => ("publish", "{\"channel\":".to_owned(), API_KEY, 400),
        3 => ("history", "[]".to_owned(), API_KEY, 400),
        // The error is in the body: no channel.
        _ => ("publish", "{\"data\":{}}".to_owned(), API_KEY, 200),
    };
    match scene.status(method, &body, key) {
        None | Some((503, _)) => tally.add("calls without a place", 1),
        Some((status, text)) if status == expected => {
            if status == 200 && !text.contains("\"error\"") {
                bail!("{method} with {body:.200} was answered {text:.300}");
            }
            tally.add(REFUSED, 1);
        }
        Some((_, text)) => {
            bail!("{method} with {body:.200} was answered {text:.300}, expected {expected}")
        }
    }
    Ok(())
}
