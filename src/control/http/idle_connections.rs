//! Idle HTTP connections of the control plane: when each became idle, and which one is closed next.
//!
//! Owns the lists of idle connections, oldest first. Never touches a socket: it tells the task of a
//! connection to close it. The invariant: a connection is in at most one list, and in no list while
//! it is busy.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::base::connection_limits::ConnectionLimits;
use crate::base::current::Current;

/// Time for a request head during which the connection is not closed in favour of another one.
const HEAD_GRACE: Duration = Duration::from_secs(1);
/// Minimum and maximum pause between two checks for late connections.
const CHECK_PAUSE_MIN: Duration = Duration::from_millis(20);
const CHECK_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Idle times of connections.
#[derive(Clone, Copy, Debug)]
pub struct IdleTimes {
    /// Maximum time for a request head to arrive.
    pub head: Duration,
    /// Maximum time between two requests of a client that has sent the API key.
    pub idle: Duration,
    /// Maximum time between two requests of any other client.
    pub anonymous: Duration,
}

/// Lists of connections that are not busy, in the order in which they are closed for new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    /// Idle connections of clients that have not sent the API key.
    Anonymous,
    /// Idle connections of clients that have sent the API key.
    Authenticated,
    /// Connections on which a request head is arriving.
    Reading,
}

const LISTS: [List; 3] = [List::Anonymous, List::Authenticated, List::Reading];

/// A connection in a list.
struct ListEntry {
    since: Instant,
    /// [`Output::taken`] when the connection entered the list.
    taken: u64,
    output: Arc<Output>,
    /// Do not upgrade it while the lists are locked: dropping a connection locks them.
    connection: Weak<HttpConnection>,
}

/// Progress of a connection's output.
#[derive(Default)]
struct Output {
    /// The kernel has not taken all output.
    unsent: AtomicBool,
    /// Number of times that the kernel has taken output.
    taken: AtomicU64,
}

#[derive(Default)]
struct Lists {
    /// Number of the next entry. Numbers grow, so the first entry of a list is the oldest.
    next: u64,
    entries: [BTreeMap<u64, ListEntry>; LISTS.len()],
}

/// The lists of the connections of one port.
pub struct IdleConnections {
    times: Current<IdleTimes>,
    lists: Mutex<Lists>,
}

/// State of one connection.
pub struct HttpConnection {
    idle_connections: Arc<IdleConnections>,
    /// Limits that count the connection.
    limits: Arc<ConnectionLimits>,
    /// List and number of the entry; `None`: the connection is busy.
    place: Mutex<Option<(List, u64)>>,
    authenticated: AtomicBool,
    /// The next byte of input begins a request head.
    idle: AtomicBool,
    output: Arc<Output>,
    endless: Notify,
    close_requested: Notify,
}

/// After a panic elsewhere the lists are consistent: each change is one insertion or removal.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl IdleConnections {
    /// No connections yet.
    pub fn new(times: IdleTimes) -> Self {
        IdleConnections { times: Current::new(times), lists: Mutex::default() }
    }

    /// Changes the times, also of connections that are idle already.
    pub fn set_times(&self, times: IdleTimes) {
        self.times.set(times);
    }

    /// Adds a connection. Its first request head is `awaited`, or already read.
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

    /// Closes the connection that has been idle longest and whose output the kernel has taken.
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

    /// Closes connections whose time is over, as long as the process runs.
    pub async fn close_late_connections(self: Arc<Self>) {
        loop {
            let IdleTimes { head, idle, anonymous } = *self.times.get();
            let shortest = idle.min(anonymous).min(head);
            sleep((shortest / 8).clamp(CHECK_PAUSE_MIN, CHECK_PAUSE_MAX)).await;
            let now = Instant::now();
            for list in LISTS {
                while let Some((connection, number)) = self.first_late(list, now) {
                    connection.close_late(number);
                }
            }
        }
    }

    /// The first connection of a list whose time is over, and the number of its entry.
    fn first_late(&self, list: List, now: Instant) -> Option<(Arc<HttpConnection>, u64)> {
        let times = self.times.get();
        let limit = match list {
            List::Reading => times.head,
            List::Anonymous => times.anonymous,
            List::Authenticated => times.idle,
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
    /// Puts the connection into a list, or removes it from its list.
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

    /// Notes that a request begins.
    pub fn begin_request(self: &Arc<Self>) {
        self.idle.store(false, Ordering::Relaxed);
        self.enlist(None);
    }

    /// Notes that a request was answered. The kernel may not have taken the answer yet.
    pub fn end_request(self: &Arc<Self>) {
        self.output.unsent.store(true, Ordering::Relaxed);
        let authenticated = self.authenticated.load(Ordering::Relaxed);
        self.enlist(Some(if authenticated { List::Authenticated } else { List::Anonymous }));
        self.idle.store(true, Ordering::Relaxed);
    }

    /// Notes that input arrived.
    pub fn note_input(self: &Arc<Self>) {
        if self.idle.swap(false, Ordering::Relaxed) {
            self.enlist(Some(List::Reading));
        }
    }

    /// Notes that there is output.
    pub fn note_output_pending(&self) {
        self.output.unsent.store(true, Ordering::Relaxed);
    }

    /// Notes that the kernel has taken some output.
    pub fn note_output_taken(&self) {
        self.output.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that the kernel has taken all output.
    pub fn note_output_flushed(&self) {
        // A connection that came while all others were busy found no idle one to close.
        if self.output.unsent.swap(false, Ordering::Relaxed) && self.limits.control_is_nearly_full()
        {
            self.idle_connections.close_longest_idle();
        }
    }

    /// Notes that the client has sent the API key.
    pub fn set_authenticated(&self) {
        self.authenticated.store(true, Ordering::Relaxed);
    }

    /// Whether a request is being answered.
    pub fn is_busy(&self) -> bool {
        lock(&self.place).is_none()
    }

    /// Closes the connection if it is still in the entry of this number, unless it takes output.
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

    /// Tells the task of the connection to close it, unless the connection is busy. A request may
    /// arrive before the task acts.
    fn request_close(&self) {
        let mut place = lock(&self.place);
        if let Some((list, number)) = *place {
            lock(&self.idle_connections.lists).entries[list as usize].remove(&number);
            *place = Some((list, u64::MAX));
            self.close_requested.notify_one();
        }
    }

    /// Waits until the connection must be closed.
    pub async fn close_requested(&self) {
        self.close_requested.notified().await;
    }

    /// Notes that the current answer has no end.
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
        let times = IdleTimes { head: 10 * SECOND, idle: 60 * SECOND, anonymous: 5 * SECOND };
        Arc::new(IdleConnections::new(times))
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
    async fn idle_connections_are_closed_after_their_idle_time() {
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
    async fn a_connection_that_takes_output_is_not_idle() {
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
    async fn the_longest_idle_connection_is_closed_first_and_those_without_api_key_before_others() {
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
        assert_eq!(order, [2, 1, 0], "busy connections and connections with unsent output stay");
        assert!(!is_close_requested(&unsent));
        drop(unsent);
        assert!(all[..3].iter().all(|connection| !connection.is_busy()));
        drop(all);
        assert!(lock(&idle_connections.lists).entries.iter().all(BTreeMap::is_empty));
    }
}
