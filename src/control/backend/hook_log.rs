//! The hook events on disk that are not delivered: written as they come, and delivered after the
//! next start.
//!
//! Owns a thread that writes, and the records. Never delays the delivery of an event. The
//! invariants: an event is removed from disk only when it is delivered or dropped; what waits for
//! the thread is bounded, and an event that finds no room is not written.

use std::collections::BTreeMap;
use std::mem;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use prost::Message;

use crate::config::Config;
use crate::model::backend::{BackendContext, ProxyEvent, ProxyRequest, Upstream};
use crate::store::entry_log::{EntryLog, NotKept};
use crate::store::folder;
use crate::wire::http::Transport;
use crate::wire::protocol::Wire;

/// Maximum number of events that wait for the thread.
const WAITING_MAX: usize = 16_384;
/// Pause between two syncs. A kill of the process loses nothing that is written.
const SYNC_PAUSE: Duration = Duration::from_secs(1);

/// A hook event, as it is written.
#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(string, tag = "1")]
    client: String,
    #[prost(string, tag = "2")]
    user: String,
    #[prost(string, tag = "3")]
    transport: String,
    #[prost(bool, tag = "4")]
    is_protobuf: bool,
    #[prost(message, repeated, tag = "5")]
    headers: Vec<Header>,
    #[prost(message, repeated, tag = "6")]
    emulated: Vec<Header>,
    #[prost(bytes = "vec", optional, tag = "7")]
    meta: Option<Vec<u8>>,
    /// The channel; `None`: the client has disconnected.
    #[prost(string, optional, tag = "8")]
    channel: Option<String>,
    #[prost(uint32, tag = "9")]
    code: u32,
    #[prost(string, tag = "10")]
    reason: String,
    /// When the event was queued, in milliseconds of unix time.
    #[prost(uint64, tag = "11")]
    since: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// A hook event that a start has found.
pub struct RestoredEvent {
    /// Its entry in the log.
    pub entry: Entry,
    /// When it was queued, in milliseconds of unix time.
    pub since: u64,
    /// The request; `None`: the configuration has no hook for it any more.
    pub request: Option<ProxyRequest>,
}

impl Record {
    /// The record of an event; `None`: the request is not a hook event.
    fn new(request: &ProxyRequest, since: u64) -> Option<Self> {
        let (channel, code, reason) = match &request.event {
            ProxyEvent::Disconnect { code, reason } => (None, u32::from(*code), reason),
            ProxyEvent::Unsubscribe { channel, code, reason } => {
                (Some(channel.to_string()), *code, reason)
            }
            _ => return None,
        };
        let context = request.context.as_deref();
        let header = |name: &str, value: &[u8]| Header { name: name.into(), value: value.into() };
        let of_http = context.into_iter().flat_map(|context| &context.headers);
        let emulated = context.into_iter().flat_map(|context| &context.emulated);
        Some(Record {
            client: request.client.clone(),
            user: request.user.to_string(),
            transport: request.transport.name().to_owned(),
            is_protobuf: request.wire == Wire::Protobuf,
            headers: of_http.map(|(name, value)| header(name, value)).collect(),
            emulated: emulated.map(|(name, value)| header(name, value.as_bytes())).collect(),
            meta: context.and_then(|context| context.meta.as_deref()).map(<[u8]>::to_vec),
            channel,
            code,
            reason: reason.to_string(),
            since,
        })
    }

    /// The request to the hook of this configuration; `None`: there is none.
    fn request(self, hook: impl Fn(Option<&str>) -> Option<Upstream>) -> Option<ProxyRequest> {
        let upstream = hook(self.channel.as_deref())?;
        let reason = self.reason.into();
        let event = match self.channel {
            Some(channel) => {
                ProxyEvent::Unsubscribe { channel: channel.into(), code: self.code, reason }
            }
            None => ProxyEvent::Disconnect { code: u16::try_from(self.code).ok()?, reason },
        };
        let text = |value| String::from_utf8(value).ok().map(String::into_boxed_str);
        let headers = self.headers.into_iter();
        let emulated = self.emulated.into_iter();
        let context = BackendContext {
            headers: headers.map(|one| (one.name.into(), one.value.into())).collect(),
            emulated: emulated
                .filter_map(|one| Some((one.name.into(), text(one.value)?)))
                .collect(),
            meta: self.meta.map(Into::into),
        };
        let transport = Transport::ALL.into_iter().find(|one| one.name() == self.transport);
        Some(ProxyRequest {
            upstream,
            client: self.client,
            user: self.user.into(),
            transport: transport.unwrap_or(Transport::WebSocket),
            wire: if self.is_protobuf { Wire::Protobuf } else { Wire::Json },
            context: (!context.is_empty()).then(|| Arc::new(context)),
            event,
            charge: None,
        })
    }
}

/// Identifies an event for [`HookLog::remove`]: counts the events of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry(u64);

/// What the thread has to do.
#[derive(Default)]
struct Desk {
    /// Number of the next event.
    next: u64,
    added: Vec<(Entry, Record)>,
    removed: Vec<Entry>,
    is_stopping: bool,
}

struct Shared {
    desk: Mutex<Desk>,
    bell: Condvar,
    not_kept: Arc<AtomicU64>,
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        // No step leaves the desk half changed.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The hook events on disk.
pub struct HookLog {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl HookLog {
    /// Opens the log in the folder of the store, and starts its thread. Returns the events that
    /// were not delivered, in their order. `None`: the kernel starts no thread, which is logged.
    pub fn open(
        folder: &Path,
        config: &Config,
        not_kept: Arc<AtomicU64>,
    ) -> Option<(Self, Vec<RestoredEvent>)> {
        let bytes_max = config.store.log_max_bytes as u64;
        let (log, found) = EntryLog::open(folder, folder::HOOK_EVENTS, bytes_max);
        let disconnect_hook = config.hub_settings(0).proxies.disconnect_hook;
        let namespaces = config.namespaces();
        let hook = |channel: Option<&str>| match channel {
            None => disconnect_hook,
            Some(channel) => namespaces.of(channel).ok()?.unsubscribe_hook,
        };
        let mut numbers = BTreeMap::new();
        let mut restored = Vec::with_capacity(found.len());
        for (entry, (number, bytes)) in (0..).map(Entry).zip(found) {
            numbers.insert(entry, number);
            let record = Record::decode(&*bytes).unwrap_or_default();
            let (since, request) = (record.since, record.request(hook));
            restored.push(RestoredEvent { entry, since, request });
        }
        let desk = Desk { next: numbers.len() as u64, ..Desk::default() };
        let shared = Arc::new(Shared { desk: Mutex::new(desk), bell: Condvar::new(), not_kept });
        let writer = Writer { shared: shared.clone(), log, numbers, fault: None };
        let started = thread::Builder::new().name("hook-log".into()).spawn(|| writer.run());
        let refused = |error| {
            let cause = format_args!("cannot start the thread that writes hook events: {error}");
            tracing::error!(target: "hooks", "{cause}; raise the limit on threads (`ulimit -u`)");
        };
        let thread = Mutex::new(Some(started.map_err(refused).ok()?));
        Some((HookLog { shared, thread }, restored))
    }

    /// Has an event written; `None`: it will not be.
    pub fn add(&self, request: &ProxyRequest, since: u64) -> Option<Entry> {
        let mut desk = self.shared.desk();
        let has_room = desk.added.len() < WAITING_MAX;
        let Some(record) = Record::new(request, since).filter(|_| has_room) else {
            self.shared.not_kept.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let entry = Entry(desk.next);
        desk.next += 1;
        desk.added.push((entry, record));
        drop(desk);
        self.shared.bell.notify_one();
        Some(entry)
    }

    /// Removes an event that was delivered or dropped.
    pub fn remove(&self, entry: Entry) {
        self.shared.desk().removed.push(entry);
        self.shared.bell.notify_one();
    }

    /// Writes and syncs what waits, and ends the thread. Blocks.
    pub fn finish(&self) {
        self.shared.desk().is_stopping = true;
        self.shared.bell.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A panic of the thread ends the process, except in a test.
        let _ = thread.map(JoinHandle::join);
    }
}

/// The thread that writes.
struct Writer {
    shared: Arc<Shared>,
    log: EntryLog,
    /// The numbers of the events on disk.
    numbers: BTreeMap<Entry, u64>,
    /// The fault that was logged last.
    fault: Option<String>,
}

impl Writer {
    fn run(mut self) {
        let mut sync_at: Option<Instant> = None;
        loop {
            let desk = self.wait(sync_at);
            if !desk.added.is_empty() || !desk.removed.is_empty() {
                sync_at = sync_at.or_else(|| Some(Instant::now() + SYNC_PAUSE));
            }
            self.write(desk.added, desk.removed);
            if desk.is_stopping || sync_at.is_some_and(|at| at <= Instant::now()) {
                let synced = self.log.sync();
                self.tell(synced.map_err(NotKept::Io));
                sync_at = None;
            }
            if desk.is_stopping {
                return;
            }
        }
    }

    /// Waits for work, for the stop, or until `sync_at`.
    fn wait(&self, sync_at: Option<Instant>) -> Desk {
        let is_idle =
            |desk: &mut Desk| desk.added.is_empty() && desk.removed.is_empty() && !desk.is_stopping;
        let desk = self.shared.desk();
        let mut desk = match sync_at {
            None => self.shared.bell.wait_while(desk, is_idle),
            Some(at) => {
                let pause = at.saturating_duration_since(Instant::now());
                match self.shared.bell.wait_timeout_while(desk, pause, is_idle) {
                    Ok((desk, _)) => Ok(desk),
                    Err(error) => Err(PoisonError::new(error.into_inner().0)),
                }
            }
        }
        .unwrap_or_else(PoisonError::into_inner);
        let (added, removed) = (mem::take(&mut desk.added), mem::take(&mut desk.removed));
        Desk { added, removed, ..*desk }
    }

    fn write(&mut self, added: Vec<(Entry, Record)>, mut removed: Vec<Entry>) {
        removed.sort_unstable();
        for (entry, record) in added {
            // It was delivered before it was written.
            if removed.binary_search(&entry).is_ok() {
                continue;
            }
            match self.log.add(&record.encode_to_vec()) {
                Ok(number) => _ = self.numbers.insert(entry, number),
                Err(cause) => {
                    self.shared.not_kept.fetch_add(1, Ordering::Relaxed);
                    self.tell(Err(cause));
                }
            }
        }
        for entry in removed {
            if let Some(number) = self.numbers.remove(&entry) {
                let done = self.log.remove(number);
                self.tell(done.map_err(NotKept::Io));
            }
        }
    }

    /// Logs a fault once, and again after a success.
    fn tell(&mut self, outcome: Result<(), NotKept>) {
        let (cause, cure) = match outcome {
            Ok(()) => return self.fault = None,
            Err(NotKept::Full) => ("the log is full".to_owned(), "raise store.log_max_bytes"),
            Err(NotKept::Io(error)) => (error.to_string(), "free space, or check the disk"),
        };
        if self.fault.as_ref() != Some(&cause) {
            tracing::error!(
                target: "hooks",
                "cannot write hook events to store.path, so a crash loses or repeats them: \
                 {cause}; {cure}"
            );
            self.fault = Some(cause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(client: &str, event: ProxyEvent) -> ProxyRequest {
        ProxyRequest {
            upstream: Upstream(3),
            client: client.to_owned(),
            user: "56".into(),
            transport: Transport::Sse,
            wire: Wire::Protobuf,
            context: Some(Arc::new(BackendContext {
                headers: vec![("h".into(), [0xff].as_slice().into())],
                emulated: vec![("e".into(), "v".into())],
                meta: Some(b"{}".as_slice().into()),
            })),
            event,
            charge: None,
        }
    }

    fn disconnect(client: &str) -> ProxyRequest {
        event(client, ProxyEvent::Disconnect { code: 3000, reason: "gone".into() })
    }

    fn opened(folder: &Path) -> (HookLog, Vec<String>, Arc<AtomicU64>) {
        let not_kept = Arc::<AtomicU64>::default();
        let (config, count) = (Config::default(), not_kept.clone());
        let (log, found) = HookLog::open(folder, &config, count).unwrap();
        assert!(found.iter().all(|one| one.since == 7 && one.request.is_none()), "no hooks");
        (log, found.iter().map(|one| format!("{:?}", one.entry)).collect(), not_kept)
    }

    #[test]
    fn events_are_found_until_they_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (log, _, not_kept) = opened(folder.path());
        let entries: Vec<Entry> =
            (0..100).map(|nth| log.add(&disconnect(&nth.to_string()), 7).unwrap()).collect();
        entries[..90].iter().for_each(|entry| log.remove(*entry));
        log.finish();
        let (log, found, _) = opened(folder.path());
        assert_eq!((found.len(), not_kept.load(Ordering::Relaxed)), (10, 0));
        log.remove(Entry(3));
        let _ = log.add(&disconnect("x"), 7);
        log.finish();
        assert_eq!(opened(folder.path()).1.len(), 10);
        assert!(log.add(&event("x", ProxyEvent::Refresh), 7).is_none(), "it is no hook event");
    }

    #[test]
    fn a_record_has_all_of_an_event() {
        let channel = "c".into();
        let left = ProxyEvent::Unsubscribe { channel, code: 2000, reason: "r".into() };
        for request in [disconnect("a"), event("a", left)] {
            let record = Record::decode(&*Record::new(&request, 7).unwrap().encode_to_vec());
            let again = record.unwrap().request(|_| Some(Upstream(3)));
            assert_eq!(format!("{:?}", again.unwrap()), format!("{request:?}"));
        }
        let record = Record::new(&disconnect("a"), 7).unwrap();
        assert!(record.request(|_| None).is_none());
    }
}
