//! The HTTP connections of the control plane: which of them are idle, since when, and which must
//! go.
//!
//! Owns the lists of idle connections, in the order in which they became so. Never touches a
//! socket: a connection's task is told to end it. The invariant: a connection is in one list place
//! most, and in none while it is busy.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::base::connection_limits::ConnectionLimits;

/// How long a connection may take for a request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request head may take although another connection needs the place.
const HEAD_GRACE: Duration = Duration::from_secs(1);
/// Between two looks place who must go, place least and place most.
const CHECK_PAUSE_MIN: Duration = Duration::from_millis(20);
const CHECK_PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long connections may idle.
#[derive(Clone, Copy, Debug)]
pub struct IdleTimes {
    /// Between two requests of a client that has given the API key.
    pub idle: Duration,
    /// Between two requests of any other client.
    pub anonymous: Duration,
}

/// The lists of connections that are not busy, the first to make room first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    /// Idle, of a client that has not given the API key.
    Anonymous,
    /// Idle, of a client that has given the API key.
    Authenticated,
    /// A request head is arriving.
    Reading,
}

const LISTS: [List; 3] = [List::Anonymous, List::Authenticated, List::Reading];

/// A connection in a list.
struct ListEntry {
    since: Instant,
    /// How often the kernel had taken something by then.
    taken: u64,
    output: Arc<Output>,
    /// Never made strong where the lists stay locked: a connection leaves them when it ends.
    connection: Weak<HttpConnection>,
}

/// How far a connection's answer has come.
#[derive(Default)]
struct Output {
    /// Whether some of it has not been taken by the kernel.
    unsent: AtomicBool,
    /// How often the kernel has taken something.
    taken: AtomicU64,
}

#[derive(Default)]
struct Lists {
    /// Numbers grow, so that the first of a list has been there longest.
    next: u64,
    entries: [BTreeMap<u64, ListEntry>; LISTS.len()],
}

/// The connections of one door.
pub struct IdleConnections {
    times: IdleTimes,
    lists: Mutex<Lists>,
}

/// One connection.
pub struct HttpConnection {
    idle_connections: Arc<IdleConnections>,
    /// Where it has its place.
    limits: Arc<ConnectionLimits>,
    /// Where it is listed.
    place: Mutex<Option<(List, u64)>>,
    authenticated: AtomicBool,
    /// Whether the next byte that comes begins a request head.
    idle: AtomicBool,
    output: Arc<Output>,
    endless: Notify,
    close_requested: Notify,
}

/// A panic elsewhere leaves the lists whole: each change of them is one insertion or removal.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl IdleConnections {
    /// Nobody yet.
    pub fn new(times: IdleTimes) -> Self {
        IdleConnections { times, lists: Mutex::default() }
    }

    /// A new connection, whose first request head is `awaited` or there.
    pub fn add(
        self: &Arc<Self>,
        limits: Arc<ConnectionLimits>,
        awaited: bool,
    ) -> Arc<HttpConnection> {
        let connection = Arc::new(HttpConnection {
            idle_connections: self.clone(),
            limits,
            place: Mutex::default(),
            authenticated: AtomicBool::new(false),
            idle: AtomicBool::new(false),
            output: Arc::default(),
            endless: Notify::new(),
            close_requested: Notify::new(),
        });
        if awaited {
            connection.enlist(Some(List::Reading));
        }
        connection
    }

    /// Has the connection go that has been idle longest and has been sent its answer.
    pub fn close_longest_idle(&self) {
        let lists = lock(&self.lists);
        let first = LISTS.into_iter().find_map(|list| {
            let mut entries = lists.entries[list as usize].values();
            entries.find(|entry| {
                let arrives = list == List::Reading && entry.since.elapsed() < HEAD_GRACE;
                !arrives && !entry.output.unsent.load(Ordering::Relaxed)
            })
        });
        let connection = first.and_then(|entry| entry.connection.upgrade());
        drop(lists);
        if let Some(connection) = connection {
            connection.request_close();
        }
    }

    /// Has connections go whose time is over, for as long as the process runs.
    pub async fn close_late_connections(self: Arc<Self>) {
        let shortest = self.times.idle.min(self.times.anonymous).min(HEAD_TIMEOUT);
        let pause = (shortest / 8).clamp(CHECK_PAUSE_MIN, CHECK_PAUSE_MAX);
        loop {
            sleep(pause).await;
            let now = Instant::now();
            for list in LISTS {
                while let Some((connection, number)) = self.first_late(list, now) {
                    connection.close_late(number);
                }
            }
        }
    }

    /// A connection of a list whose time is over, and its number there.
    fn first_late(&self, list: List, now: Instant) -> Option<(Arc<HttpConnection>, u64)> {
        let limit = match list {
            List::Reading => HEAD_TIMEOUT,
            List::Anonymous => self.times.anonymous,
            List::Authenticated => self.times.idle,
        };
        let mut lists = lock(&self.lists);
        let entries = &mut lists.entries[list as usize];
        loop {
            let first = entries.first_entry()?;
            if now.duration_since(first.get().since) < limit {
                return None;
            }
            match first.get().connection.upgrade() {
                Some(connection) => return Some((connection, *first.key())),
                None => drop(first.remove()),
            }
        }
    }
}

impl HttpConnection {
    /// Puts it into a list, or takes it out of all.
    fn enlist(self: &Arc<Self>, list: Option<List>) {
        let mut place = lock(&self.place);
        let mut lists = lock(&self.idle_connections.lists);
        if let Some((list, number)) = place.take() {
            lists.entries[list as usize].remove(&number);
        }
        *place = list.map(|list| {
            let number = lists.next;
            lists.next += 1;
            let taken = self.output.taken.load(Ordering::Relaxed);
            let (output, connection) = (self.output.clone(), Arc::downgrade(self));
            let entry = ListEntry { since: Instant::now(), taken, output, connection };
            lists.entries[list as usize].insert(number, entry);
            (list, number)
        });
    }

    /// A request has come.
    pub fn begin_request(self: &Arc<Self>) {
        self.idle.store(false, Ordering::Relaxed);
        self.enlist(None);
    }

    /// A request was answered; the answer may still have to be sent.
    pub fn end_request(self: &Arc<Self>) {
        self.output.unsent.store(true, Ordering::Relaxed);
        let authenticated = self.authenticated.load(Ordering::Relaxed);
        self.enlist(Some(if authenticated { List::Authenticated } else { List::Anonymous }));
        self.idle.store(true, Ordering::Relaxed);
    }

    /// Bytes of it were read.
    pub fn note_input(self: &Arc<Self>) {
        if self.idle.swap(false, Ordering::Relaxed) {
            self.enlist(Some(List::Reading));
        }
    }

    /// Something is to be sent to it.
    pub fn note_output_pending(&self) {
        self.output.unsent.store(true, Ordering::Relaxed);
    }

    /// The kernel has taken some of it.
    pub fn note_output_taken(&self) {
        self.output.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// The kernel has taken all that was to be sent.
    pub fn note_output_flushed(&self) {
        // Whoever came while all were busy could not have an idle one go.
        if self.output.unsent.swap(false, Ordering::Relaxed) && self.limits.is_tight() {
            self.idle_connections.close_longest_idle();
        }
    }

    /// It has given the API key.
    pub fn set_authenticated(&self) {
        self.authenticated.store(true, Ordering::Relaxed);
    }

    /// Whether a request of it is being answered.
    pub fn is_busy(&self) -> bool {
        lock(&self.place).is_none()
    }

    /// The time is over that it had under this number, unless it still takes an answer.
    fn close_late(self: &Arc<Self>, number: u64) {
        let Some((list, _)) = lock(&self.place).filter(|(_, now)| *now == number) else { return };
        let before = {
            let lists = lock(&self.idle_connections.lists);
            lists.entries[list as usize].get(&number).map(|entry| entry.taken)
        };
        let takes = before.is_some_and(|before| self.output.taken.load(Ordering::Relaxed) > before);
        if takes && self.output.unsent.load(Ordering::Relaxed) {
            self.enlist(Some(list));
        } else {
            self.request_close();
        }
    }

    /// Tells its task to end it, unless it is busy. A request may come before the task does.
    fn request_close(&self) {
        let mut place = lock(&self.place);
        if let Some((list, number)) = *place {
            lock(&self.idle_connections.lists).entries[list as usize].remove(&number);
            *place = Some((list, u64::MAX));
            self.close_requested.notify_one();
        }
    }

    /// Waits until the connection must go.
    pub async fn close_requested(&self) {
        self.close_requested.notified().await;
    }

    /// The answer that it gets goes on for as long as it is there.
    pub fn set_endless(&self) {
        self.endless.notify_one();
    }

    /// Waits for [`HttpConnection::set_endless`].
    pub async fn became_endless(&self) {
        self.endless.notified().await;
    }
}

impl Drop for HttpConnection {
    fn drop(&mut self) {
        if let Some((list, number)) = lock(&self.place).take() {
            lock(&self.idle_connections.lists).entries[list as usize].remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn idle_connections() -> Arc<IdleConnections> {
        Arc::new(IdleConnections::new(IdleTimes { idle: 60 * SECOND, anonymous: 5 * SECOND }))
    }

    fn is_close_requested(connection: &HttpConnection) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        std::pin::pin!(connection.close_requested()).poll(&mut context).is_ready()
    }

    fn idle(idle_connections: &Arc<IdleConnections>) -> Arc<HttpConnection> {
        let connection = idle_connections.add(Arc::default(), true);
        connection.begin_request();
        connection.end_request();
        connection.note_output_flushed();
        connection
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_end_in_their_time() {
        let idle_connections = idle_connections();
        tokio::spawn(idle_connections.clone().close_late_connections());
        let [anonymous, authenticated, busy, reading] = [(); 4].map(|()| idle(&idle_connections));
        authenticated.begin_request();
        authenticated.set_authenticated();
        authenticated.end_request();
        busy.begin_request();
        reading.note_input();
        let ended = |after: u64| {
            let ended = [&anonymous, &authenticated, &busy, &reading]
                .map(|connection| is_close_requested(connection));
            (after, ended)
        };
        sleep(4 * SECOND).await;
        assert_eq!(ended(4), (4, [false; 4]));
        sleep(2 * SECOND).await;
        assert_eq!(ended(6), (6, [true, false, false, false]));
        sleep(5 * SECOND).await;
        assert_eq!(ended(11), (11, [false, false, false, true]));
        sleep(48 * SECOND).await;
        assert_eq!(ended(59), (59, [false; 4]));
        sleep(2 * SECOND).await;
        assert_eq!(ended(61), (61, [false, true, false, false]));
        assert!(busy.is_busy());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_still_takes_its_answer_is_not_idle() {
        let idle_connections = idle_connections();
        tokio::spawn(idle_connections.clone().close_late_connections());
        let [takes, stalls] = [(); 2].map(|()| idle(&idle_connections));
        takes.note_output_pending();
        stalls.note_output_pending();
        for _ in 0..5 {
            assert!(!is_close_requested(&takes));
            takes.note_output_taken();
            sleep(4 * SECOND).await;
        }
        assert!(is_close_requested(&stalls));
        takes.note_output_flushed();
        sleep(11 * SECOND).await;
        assert!(is_close_requested(&takes));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_been_idle_longest_makes_room_and_the_unknown_before_the_known() {
        let idle_connections = idle_connections();
        let all = [(); 4].map(|()| idle(&idle_connections));
        all[0].set_authenticated();
        for connection in [&all[0], &all[1]] {
            connection.begin_request();
            connection.end_request();
            connection.note_output_flushed();
        }
        all[3].begin_request();
        let unsent = idle(&idle_connections);
        unsent.end_request();
        let mut order = Vec::new();
        for _ in 0..4 {
            idle_connections.close_longest_idle();
            let place = all.iter().position(|connection| is_close_requested(connection));
            order.extend(place);
        }
        assert_eq!(order, [2, 1, 0], "neither a busy one nor one that waits for its answer");
        assert!(!is_close_requested(&unsent));
        drop(unsent);
        assert!(all[..3].iter().all(|connection| !connection.is_busy()));
        drop(all);
        assert!(lock(&idle_connections.lists).entries.iter().all(BTreeMap::is_empty));
    }
}
