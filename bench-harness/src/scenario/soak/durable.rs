//! Durable channels: what a publisher was told is on disk, and what a removal was told is gone.
//!
//! Owns the channels of an episode. Never uses a channel twice. Invariant: a history that lacks an
//! acknowledged publication, or has a removed one, is a fault.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::activity::Tally;
use super::scene::{Scene, name};
use super::sizes::{HISTORY_SECONDS, KEPT_EACH};
use super::storms;
use crate::random::Random;

pub(super) const STORED: &str = "durable publications acknowledged";
pub(super) const READ: &str = "durable histories read";
pub(super) const REMOVED: &str = "durable histories removed";
pub(super) const RECOVERED: &str = "clients returned to durable channels";

/// Maximum bytes of a publication: the store's tables in memory are full and written within a
/// minute, so that they are as full in one window of memory as in another.
const BYTES: u64 = 48 << 10;
/// A history may be compared until so long after its last publication.
const COMPARABLE: Duration = Duration::from_secs(HISTORY_SECONDS / 2);
/// Code of an error that may be gone at the next attempt.
const TEMPORARY: u64 = 100;

/// Publications to some channels, or clients that recover.
pub(super) fn episode(scene: &Scene<'_>, random: &mut Random, tally: &mut Tally) -> Result<()> {
    if tally.episode % 2 == 1 {
        let channel = name("durable:storm", random);
        tally.add(RECOVERED, storms::recover(scene, random, &channel)?);
        return Ok(());
    }
    for _ in 0..random.within(2..=8) {
        store(scene, random, tally)?;
    }
    Ok(())
}

/// Publishes to a channel and reads its history.
fn store(scene: &Scene<'_>, random: &mut Random, tally: &mut Tally) -> Result<()> {
    let channel = name("durable:stored", random);
    let (mut last, mut at) = (None, Instant::now());
    for number in 0..random.within(1..=KEPT_EACH * 2) {
        let text = "x".repeat(random.within(1..=BYTES) as usize);
        let body = format!(
            "{{\"channel\":\"{channel}\",\"data\":{{\"number\":{number},\"text\":\"{text}\"}}}}"
        );
        let Some(result) = ask(scene, tally, "publish", &body)? else { continue };
        (last, at) = (Some((result["offset"].as_u64(), number)), Instant::now());
        tally.add(STORED, 1);
    }
    let Some((offset, number)) = last else { return Ok(()) };
    let body = format!("{{\"channel\":\"{channel}\",\"limit\":1,\"reverse\":true}}");
    let history = ask(scene, tally, "history", &body)?;
    // After that time the history may have ended.
    let Some(history) = history.filter(|_| at.elapsed() < COMPARABLE) else { return Ok(()) };
    let has = |one: &Value| {
        one["offset"].as_u64() == offset && one["data"]["number"].as_u64() == Some(number)
    };
    let publications = history["publications"].as_array().context("a history of publications")?;
    ensure!(
        publications.iter().any(has),
        "{channel}: publication {number} with offset {offset:?} is not in {:.300}",
        history.to_string()
    );
    tally.add(READ, 1);
    if random.one_in(2) && ask(scene, tally, "history_remove", &body_of(&channel))?.is_some() {
        let Some(history) = ask(scene, tally, "history", &body)? else { return Ok(()) };
        let left = history["publications"].as_array().map_or(0, Vec::len);
        ensure!(left == 0, "{channel}: {left} publications are there after their removal");
        tally.add(REMOVED, 1);
    }
    Ok(())
}

fn body_of(channel: &str) -> String {
    format!("{{\"channel\":\"{channel}\"}}")
}

/// The result of a request; `None` if the server has no place for it, or answers that it may
/// succeed later.
fn ask(scene: &Scene<'_>, tally: &mut Tally, method: &str, body: &str) -> Result<Option<Value>> {
    let Some(text) = scene.api(method, body)? else {
        tally.add("calls without a place", 1);
        return Ok(None);
    };
    let (_, answer) = text.split_once("\r\n\r\n").context("an answer without a head")?;
    let mut answer: Value = serde_json::from_str(answer).context("an answer of the API")?;
    if answer["error"]["code"].as_u64() == Some(TEMPORARY) {
        tally.add("calls answered with a temporary error", 1);
        return Ok(None);
    }
    match answer.get_mut("result") {
        Some(result) => Ok(Some(result.take())),
        None => bail!("{method} with {body:.200} was answered {text:.300}"),
    }
}
