//! Counters: the bytes of each page, by the transport that carried them.
//!
//! Owns the counters of the latest pages. Never sees a byte itself. The invariant: at most
//! [`PAGES_MAX`] pages are remembered; the page that is idle longest is forgotten first.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value, json};

/// The transports, as the page names them.
pub const MODES: [&str; 5] = ["polling", "long-polling", "http-stream", "sse", "websocket"];
/// Maximum number of pages.
const PAGES_MAX: usize = 64;
/// Maximum length of the name of a page.
const NAME_MAX: usize = 40;

/// What one page sent and received by one transport.
#[derive(Debug, Default)]
pub struct Traffic {
    requests: AtomicU64,
    up: [AtomicU64; 2],
    down: [AtomicU64; 2],
}

fn add(counters: &[AtomicU64; 2], overhead: u64, body: u64) {
    counters[0].fetch_add(overhead, Relaxed);
    counters[1].fetch_add(body, Relaxed);
}

impl Traffic {
    /// Counts a request.
    pub fn request(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// Counts bytes of the page: headers and framing, and everything else.
    pub fn up(&self, overhead: u64, body: u64) {
        add(&self.up, overhead, body);
    }

    /// Counts bytes of the server: headers and framing, and everything else.
    pub fn down(&self, overhead: u64, body: u64) {
        add(&self.down, overhead, body);
    }

    fn json(&self) -> Value {
        let read = |counters: &[AtomicU64; 2]| counters.each_ref().map(|one| one.load(Relaxed));
        json!({
            "requests": self.requests.load(Relaxed),
            "up": read(&self.up),
            "down": read(&self.down),
        })
    }
}

/// What one page sent and received, by transport.
#[derive(Debug, Default)]
pub struct PageTraffic([Traffic; MODES.len()]);

impl PageTraffic {
    /// By the transport with this index in [`MODES`].
    pub fn by(&self, mode: usize) -> Option<&Traffic> {
        self.0.get(mode)
    }

    /// All of it, as the page reads it.
    pub fn json(&self) -> Value {
        let each = MODES.iter().zip(&self.0);
        Value::Object(
            each.map(|(name, one)| ((*name).to_owned(), one.json())).collect::<Map<_, _>>(),
        )
    }
}

/// The counters of the latest pages.
#[derive(Debug, Default)]
pub struct Pages(Mutex<Vec<(String, Arc<PageTraffic>)>>);

impl Pages {
    /// The counters of a page, which are new for a new name. `None`: no name of a page.
    pub fn of(&self, name: &str) -> Option<Arc<PageTraffic>> {
        let is_name = (1..=NAME_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !is_name {
            return None;
        }
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = pages.iter().position(|(known, _)| known == name);
        let entry = match found {
            Some(at) => pages.remove(at),
            None => (name.to_owned(), Arc::default()),
        };
        let traffic = entry.1.clone();
        if pages.len() == PAGES_MAX {
            pages.remove(0);
        }
        // The latest page is the last.
        pages.push(entry);
        Some(traffic)
    }
}

/// What the generator published.
#[derive(Debug, Default)]
pub struct Published {
    /// Prices that the broker confirmed.
    pub confirmed: AtomicU64,
    /// Prices that the broker refused.
    pub refused: AtomicU64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_that_is_idle_longest_is_forgotten() {
        let pages = Pages::default();
        let mark = |name: &str| pages.of(name).unwrap().by(0).unwrap().request();
        let requests = |name: &str| pages.of(name).unwrap().json()["polling"]["requests"].clone();
        (0..PAGES_MAX).for_each(|nth| mark(&format!("page-{nth}")));
        mark("page-0");
        mark("one-more");
        assert_eq!(requests("page-0"), 2);
        assert_eq!(requests("page-2"), 1);
        assert_eq!(requests("page-1"), 0, "forgotten");
    }

    #[test]
    fn bytes_are_counted_by_transport_and_direction() {
        let pages = Pages::default();
        let traffic = pages.of("a").unwrap();
        traffic.by(4).unwrap().up(1, 2);
        traffic.by(4).unwrap().down(3, 4);
        traffic.by(4).unwrap().down(30, 40);
        let found = pages.of("a").unwrap().json();
        assert_eq!(found["websocket"], json!({"requests": 0, "up": [1, 2], "down": [33, 44]}));
        assert_eq!(found["sse"], json!({"requests": 0, "up": [0, 0], "down": [0, 0]}));
        assert!(traffic.by(MODES.len()).is_none());
    }

    #[test]
    fn names_of_pages_are_short_words() {
        for name in ["", "a b", "../x", "ä", &"a".repeat(NAME_MAX + 1)] {
            assert!(Pages::default().of(name).is_none(), "{name}");
        }
    }
}
