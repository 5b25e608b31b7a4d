//! A slow key set endpoint, and tokens signed with known and unknown keys.
//!
//! Owns the signer and the endpoint's thread. Never answers quickly. Invariant: every request for
//! the key set is counted and answered after the same delay.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::signer::Signer;

/// What the endpoint takes to answer: about what the server waits for it.
const SLOW: Duration = Duration::from_millis(900);
/// The key that the set holds.
const KNOWN: &str = "known";
/// The last second that tokens are good for: far off.
const EXPIRES: u64 = 4_000_000_000;

/// The endpoint, which is there until the process ends.
pub struct KeySets {
    signer: Mutex<Signer>,
    address: SocketAddr,
    asked: Arc<AtomicU64>,
}

impl KeySets {
    /// Starts to answer on a port of its own.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let (address, signer) = (listener.local_addr()?, Signer::new()?);
        let asked = Arc::new(AtomicU64::new(0));
        let (counted, set) = (asked.clone(), format!("{{\"keys\":[{}]}}", signer.jwk(KNOWN)));
        std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
            for stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::Relaxed);
                let set = set.clone();
                std::thread::spawn(move || answer(stream, &set));
            }
        })?;
        Ok(KeySets { signer: Mutex::new(signer), address, asked })
    }

    /// Where the set is fetched from.
    pub fn endpoint(&self) -> String {
        format!("http://{}/keys", self.address)
    }

    /// How often it was fetched.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// A connect command with a token of this key; `None`: of the key that the set holds.
    pub fn connect(&self, unknown: Option<u64>) -> Result<String> {
        let kid = unknown.map_or(KNOWN.to_owned(), |nth| format!("unknown-{nth}"));
        let mut signer = self.signer.lock().map_err(|_| anyhow!("the signer panicked"))?;
        let token = signer.token_of(Some(&kid), EXPIRES)?;
        Ok(format!("{{\"id\":1,\"connect\":{{\"token\":\"{token}\"}}}}"))
    }
}

fn answer(mut stream: TcpStream, set: &str) {
    let mut request = [0; 4096];
    // A client that has already disconnected needs no answer.
    if stream.read(&mut request).is_ok_and(|count| count > 0) {
        std::thread::sleep(SLOW);
        let length = set.len();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
        let _ = write!(stream, "{head}Content-Length: {length}\r\n\r\n{set}");
    }
}
