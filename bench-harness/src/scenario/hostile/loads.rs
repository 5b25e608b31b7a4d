//! The hostile loads.
//!
//! Owns the bytes that attackers send. Never measures. Invariant: a load runs until the scene's
//! deadline or until its count is reached; attackers that are closed or refused reconnect.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::client::HostileClient;
use super::keys::KeySets;
use super::scene::{FULL, Scene};
use super::watch;
use crate::wire;

/// A load.
pub struct HostileLoad {
    /// Its name.
    pub name: &'static str,
    /// Flags of the server, by the connections of the run.
    pub flags: fn(u64) -> Vec<String>,
    /// Whether API, metrics and health have a port of their own.
    pub internal: bool,
    /// Whether tokens are verified by a slow key set.
    pub keys: bool,
    /// Seconds that it must last at least to do harm.
    pub seconds_min: u64,
    /// Prepares the load, begins it, and goes on until it is over.
    pub run: fn(&mut Scene, Option<&KeySets>) -> Result<()>,
}

const LOAD: HostileLoad = HostileLoad {
    name: "",
    flags: |_| Vec::new(),
    internal: false,
    keys: false,
    seconds_min: 1,
    run: |_, _| Ok(()),
};

/// All of them.
pub const ALL: [HostileLoad; 12] = [
    HostileLoad {
        name: "presence",
        flags: with_presence,
        run: |scene, _| presence(scene, 9_000, 20),
        ..LOAD
    },
    HostileLoad {
        name: "presence-few",
        flags: with_presence,
        run: |scene, _| presence(scene, 4_000, 2),
        ..LOAD
    },
    HostileLoad {
        name: "history",
        flags: |_| recoverable(1_000, 0),
        run: |scene, _| history(scene),
        ..LOAD
    },
    HostileLoad { name: "binary", run: |scene, _| binary(scene), ..LOAD },
    HostileLoad { name: "pongs", run: |scene, _| pongs(scene), ..LOAD },
    HostileLoad { name: "filters", flags: filtering, run: |scene, _| filters(scene), ..LOAD },
    HostileLoad { name: "filter-hoard", flags: filtering, run: |scene, _| hoard(scene), ..LOAD },
    HostileLoad { name: "fragments", run: |scene, _| unfinished(scene, fragment), ..LOAD },
    HostileLoad { name: "short-frames", run: |scene, _| unfinished(scene, short_frame), ..LOAD },
    HostileLoad { name: "idle-http", internal: true, run: |scene, _| idle(scene), ..LOAD },
    // Between two fetches of a set a server pauses for some seconds.
    HostileLoad { name: "unknown-keys", keys: true, seconds_min: 7, run: unknown_keys, ..LOAD },
    HostileLoad {
        name: "empty-streams",
        flags: |connections| recoverable(10, streams_max(connections)),
        run: |scene, _| empty_streams(scene),
        ..LOAD
    },
];

/// Commands of all askers together, in bytes.
const COMMAND_BYTES: usize = 818_000;
/// A message may be so long by default.
const MESSAGE_MAX: usize = 65_536;
/// How long an attacker reads, or keeps still, before it goes and comes again.
const ROUND: Duration = Duration::from_millis(500);
/// Subscribes to empty channels, and the channels with publications.
const EMPTY: u64 = 340_000;
const REAL: u64 = 1_000;
const REAL_PUBLICATIONS: usize = 10;

fn option(text: &str) -> String {
    format!("--channel.without_namespace.{text}")
}

fn with_presence(_: u64) -> Vec<String> {
    ["presence", "allow_presence_for_client", "allow_presence_for_anonymous"].map(option).into()
}

fn filtering(_: u64) -> Vec<String> {
    vec![option("allow_tags_filter")]
}

fn recoverable(size: u64, streams: u64) -> Vec<String> {
    let mut flags = vec![option(&format!("history_size={size}"))];
    flags.extend(["history_ttl=300s", "force_recovery"].map(option));
    flags.extend(["allow_history_for_client", "allow_history_for_anonymous"].map(option));
    if streams > 0 {
        flags.push(format!("--engine.streams_max={streams}"));
    }
    flags
}

/// Fewer streams than there are empty channels.
fn streams_max(connections: u64) -> u64 {
    (EMPTY * connections / FULL / 4).max(100)
}

/// Members of a channel.
fn members(scene: &Scene, count: u64, request: &str) -> Result<Vec<HostileClient>> {
    let one = |nth| {
        HostileClient::subscribed(scene.address, request).with_context(|| format!("member {nth}"))
    };
    (0..count).map(one).collect()
}

/// Attackers send `frame` again and again. Errors are ignored: the server may close an attacker.
fn each_asks(scene: &Scene, askers: u64, frame: &str) {
    let deadline = scene.deadline();
    std::thread::scope(|scope| {
        for nth in 0..askers {
            scope.spawn(move || {
                while Instant::now() < deadline {
                    let _ = ask_and_go(scene.address, frame, nth % 2 == 0);
                }
            });
        }
    });
}

/// Sends all commands at once, reads for one round or waits without reading, then resets.
fn ask_and_go(server: SocketAddr, frame: &str, reads: bool) -> Result<()> {
    let mut client = HostileClient::connected(server)?;
    client.send(frame)?;
    if reads {
        client.drain(Instant::now() + ROUND);
    } else {
        std::thread::sleep(ROUND);
    }
    client.reset()
}

/// As many commands as fit.
fn repeated(bytes: usize, command: impl Fn(usize) -> String) -> String {
    let mut frame = String::new();
    for id in 2.. {
        let next = command(id);
        if frame.len() + next.len() + 1 > bytes.min(MESSAGE_MAX) {
            break;
        }
        if !frame.is_empty() {
            frame.push('\n');
        }
        frame.push_str(&next);
    }
    frame
}

fn presence(scene: &mut Scene, count: u64, askers: u64) -> Result<()> {
    let _members = members(scene, scene.scaled(count), "{\"channel\":\"crowd\"}")?;
    let bytes = COMMAND_BYTES / askers as usize;
    let frame =
        repeated(bytes, |id| format!("{{\"id\":{id},\"presence\":{{\"channel\":\"crowd\"}}}}"));
    scene.begin()?;
    each_asks(scene, askers, &frame);
    Ok(())
}

fn history(scene: &mut Scene) -> Result<()> {
    let mut publisher = HostileClient::connected(scene.address)?;
    let text = "x".repeat(1_000);
    for id in 2..1_002 {
        let answer = publisher.ask(&format!(
            "{{\"id\":{id},\"publish\":{{\"channel\":\"log\",\"data\":\"{text}\"}}}}"
        ))?;
        ensure!(answer.contains("\"publish\""), "a publish was answered `{answer}`");
    }
    let command = |id| format!("{{\"id\":{id},\"history\":{{\"channel\":\"log\",\"limit\":300}}}}");
    let frame = repeated(COMMAND_BYTES / 20, command);
    scene.begin()?;
    each_asks(scene, 20, &frame);
    Ok(())
}

/// A protobuf command that publishes bytes which are no JSON into `crowd`.
fn binary_publish() -> Vec<u8> {
    let request = b"\x0a\x05crowd\x12\x03\xff\xfe\xfd";
    let mut command = vec![0x08, 0x02, 0x3a, request.len() as u8];
    command.extend_from_slice(request);
    command.insert(0, command.len() as u8);
    command
}

/// Bytes that JSON cannot carry, published to JSON subscribers.
fn binary(scene: &mut Scene) -> Result<()> {
    let mut crowd = members(scene, scene.scaled(9_000), "{\"channel\":\"crowd\"}")?;
    scene.begin()?;
    while scene.goes_on() {
        let mut publisher = HostileClient::connected_by_protobuf(scene.address)?;
        for _ in 0..20 {
            publisher.send_frame(wire::BINARY, &binary_publish())?;
            publisher.frame(Duration::from_secs(20))?.context("a publish was not answered")?;
        }
        publisher.drain(Instant::now() + ROUND);
    }
    let closed = crowd.iter_mut().map(HostileClient::is_closed).filter(|closed| *closed).count();
    if closed > 0 {
        scene.faults.push(format!("{closed} JSON subscribers were closed"));
    }
    Ok(())
}

/// All flood pongs and reset at once, then something is published to them.
fn pongs(scene: &mut Scene) -> Result<()> {
    let pongs = {
        let mut frames = Vec::new();
        (0..200).for_each(|_| wire::client_frame(wire::PONG, b"", &mut frames));
        frames
    };
    let mut publisher = HostileClient::connected_by_protobuf(scene.address)?;
    scene.begin()?;
    while scene.goes_on() {
        let mut crowd = members(scene, scene.scaled(4_500), "{\"channel\":\"crowd\"}")?;
        for member in &mut crowd {
            // The server may have closed it.
            let _ = member.write(&pongs);
        }
        crowd.into_iter().try_for_each(HostileClient::reset)?;
        publisher.send_frame(wire::BINARY, &binary_publish())?;
    }
    Ok(())
}

/// A subscribe to `channel` with a filter of some 14 KB, different for each `nth`.
pub fn filtered(channel: &str, nth: u64) -> String {
    let values: Vec<String> =
        (0..100).map(|value| format!("\"{nth:010}-{value:03}-{}\"", "v".repeat(120))).collect();
    let values = values.join(",");
    format!(
        "{{\"channel\":\"{channel}\",\"tf\":{{\"key\":\"k\",\"cmp\":\"in\",\"vals\":[{values}]}}}}"
    )
}

fn filters(scene: &mut Scene) -> Result<()> {
    let holders = scene.scaled(3_000);
    let mut _held = Vec::new();
    for nth in 0..holders {
        let mut client = HostileClient::connected(scene.address)?;
        // Past its budget the server refuses; the others stay.
        client.ask(&format!("{{\"id\":2,\"subscribe\":{}}}", filtered("filtered", nth)))?;
        _held.push(client);
    }
    let joins = scene.scaled(400);
    scene.begin()?;
    let mut nth = holders;
    while scene.goes_on() {
        let mut client = HostileClient::connected(scene.address)?;
        for _ in 0..joins {
            nth += 1;
            client.send(&format!("{{\"id\":2,\"subscribe\":{}}}", filtered("filtered", nth)))?;
            client.ask("{\"id\":3,\"unsubscribe\":{\"channel\":\"filtered\"}}")?;
        }
    }
    Ok(())
}

/// Clients with as many filters as they may have.
fn hoard(scene: &mut Scene) -> Result<()> {
    let clients = scene.scaled(300);
    scene.begin()?;
    let mut held = Vec::new();
    for nth in 0..clients {
        let mut client = HostileClient::connected(scene.address)?;
        for channel in 0..128 {
            let request = filtered(&format!("c{channel}"), nth * 128 + channel);
            if client.ask(&format!("{{\"id\":2,\"subscribe\":{request}}}")).is_err() {
                break;
            }
        }
        held.push(client);
        if !scene.goes_on() && nth > clients / 2 {
            break;
        }
    }
    let groups = held.len();
    scene.remarks.push(format!("{groups} clients with 128 filters each"));
    Ok(())
}

/// A message that lacks its end: 64 KiB of a first fragment.
pub fn fragment() -> Vec<u8> {
    let mut frame = Vec::new();
    wire::client_frame(0x01, &vec![b' '; MESSAGE_MAX - 100], &mut frame);
    frame
}

/// A frame that lacks its last byte.
pub fn short_frame() -> Vec<u8> {
    let mut frame = Vec::new();
    wire::client_frame(wire::TEXT, &vec![b' '; MESSAGE_MAX - 100], &mut frame);
    frame.pop();
    frame
}

/// Clients that send an incomplete message. A closed client reconnects.
fn unfinished(scene: &mut Scene, message: fn() -> Vec<u8>) -> Result<()> {
    let message = message();
    let begun = || -> Result<HostileClient> {
        let mut client = HostileClient::open(scene.address, "")?;
        // The server may close it while it writes.
        let _ = client.write(&message);
        Ok(client)
    };
    let mut clients: Vec<HostileClient> =
        (0..scene.scaled(3_000)).map(|_| begun()).collect::<Result<_>>()?;
    scene.begin()?;
    let mut closed = 0;
    while scene.goes_on() {
        for client in &mut clients {
            if client.is_closed() {
                closed += 1;
                *client = HostileClient::open(scene.address, "")?;
                let _ = client.write(&message);
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    scene.remarks.push(format!("{closed} were closed to make room"));
    Ok(())
}

/// Connections that the control plane has taken and that say nothing more.
fn idle(scene: &mut Scene) -> Result<()> {
    scene.begin()?;
    let mut idle: Vec<HostileClient> = Vec::new();
    let (wanted, mut refused) = (scene.scaled(2_000) as usize, 0);
    while scene.goes_on() {
        idle.retain_mut(|client| !client.is_closed());
        for _ in idle.len()..wanted {
            let ask = || -> Result<HostileClient> {
                let mut client = HostileClient::dial(scene.address)?;
                client.write(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")?;
                client.head()?;
                Ok(client)
            };
            match ask() {
                Ok(client) => idle.push(client),
                Err(_) => refused += 1,
            }
            if !scene.goes_on() {
                break;
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let held = idle.len();
    scene.remarks.push(format!("{held} idle connections at the end, {refused} were refused"));
    Ok(())
}

/// Tokens of keys that are not in the set, beside logins with the one that is.
fn unknown_keys(scene: &mut Scene, keys: Option<&KeySets>) -> Result<()> {
    let keys = keys.context("there is no key set")?;
    let address = scene.address;
    let login = |unknown| -> Result<String> {
        HostileClient::open(address, "")?.ask(&keys.connect(unknown)?)
    };
    let answer = login(None)?;
    ensure!(answer.contains("\"connect\":{"), "a login was answered `{answer}`");
    let warm = keys.asked();
    scene.begin()?;
    let (deadline, login) = (scene.deadline(), &login);
    let (longest, failed) = std::thread::scope(|scope| {
        for nth in 0..20u64 {
            scope.spawn(move || {
                let mut count = 0;
                while Instant::now() < deadline {
                    count += 1;
                    let _ = login(Some(nth << 32 | count));
                }
            });
        }
        let (mut longest, mut failed) = (Duration::ZERO, 0);
        while Instant::now() < deadline {
            let begun = Instant::now();
            let good = login(None).is_ok_and(|answer| answer.contains("\"connect\":{"));
            longest = longest.max(begun.elapsed());
            failed += u64::from(!good);
            std::thread::sleep(Duration::from_millis(20));
        }
        (longest, failed)
    });
    let fetched = keys.asked() - warm;
    let remark = format!("a login with a known key took {longest:?} at most; {fetched} fetches");
    scene.remarks.push(remark);
    // A login that waits for a fetch takes as long as the endpoint does.
    if failed > 0 || longest > Duration::from_millis(800) {
        let told = format!("{failed} logins with a known key failed, the longest took {longest:?}");
        scene.faults.push(told);
    }
    Ok(())
}

/// Anonymous clients subscribe to ever new recoverable channels; what was published stays.
fn empty_streams(scene: &mut Scene) -> Result<()> {
    let real = scene.scaled(REAL);
    let mut publisher = HostileClient::connected(scene.address)?;
    for nth in 0..real {
        for id in 2..2 + REAL_PUBLICATIONS {
            let command = format!(
                "{{\"id\":{id},\"publish\":{{\"channel\":\"real-{nth}\",\"data\":{{\"n\":{id}}}}}}}"
            );
            publisher.ask(&command)?;
        }
    }
    scene.begin()?;
    let each = scene.scaled(EMPTY) / 4;
    let subscribe_all = |client: u64| -> Result<()> {
        let mut attacker = HostileClient::connected(scene.address)?;
        for from in (0..each).step_by(50) {
            let mut commands = Vec::new();
            for nth in from..from + 50 {
                let channel = format!("{{\"channel\":\"empty-{client}-{nth}\"}}");
                commands.push(format!("{{\"id\":{},\"subscribe\":{channel}}}", 2 * nth + 2));
                commands.push(format!("{{\"id\":{},\"unsubscribe\":{channel}}}", 2 * nth + 3));
            }
            attacker.send(&commands.join("\n"))?;
            let last = format!("{{\"id\":{},", 2 * (from + 49) + 3);
            loop {
                let frame = attacker.frame(Duration::from_secs(20))?.context("closed")?;
                if wire::find(&frame, last.as_bytes()).is_some() {
                    break;
                }
            }
        }
        Ok(())
    };
    let subscribe_all = &subscribe_all;
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|nth| scope.spawn(move || subscribe_all(nth))).collect();
        all.into_iter()
            .try_for_each(|one| one.join().map_err(|_| anyhow!("an attacker panicked"))?)
    })?;
    let evicted = scene.metric("drumline_streams_evicted_total")?.unwrap_or_default();
    let mut missing = 0;
    for nth in 0..real {
        let body = format!("{{\"channel\":\"real-{nth}\",\"limit\":100}}");
        let answer = watch::post(scene.control, "history", &body)?;
        missing += usize::from(answer.matches("\"data\":").count() < REAL_PUBLICATIONS);
    }
    scene.remarks.push(format!("{evicted} streams evicted on a shard"));
    if missing > 0 {
        scene.faults.push(format!("{missing} of {real} channels lost their history"));
    }
    Ok(())
}
