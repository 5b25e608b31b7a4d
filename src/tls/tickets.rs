//! Session tickets: a client that comes back resumes its session, and the server keeps no state.
//!
//! Owns the keys. Never stores a session. The invariants: a key encrypts for at most half a day,
//! and its tickets are accepted for half a day more; with a key file, the keys follow from the file
//! and the time alone, so a restarted server and other nodes accept them.
//!
//! A ticket is the name of its key (16 bytes), a nonce (12 bytes) and the session, sealed with
//! AES-256-GCM-SIV, which tolerates a repeated nonce.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use aws_lc_rs::aead::{
    AES_256_GCM_SIV, Aad, LessSafeKey, MAX_TAG_LEN as TAG, NONCE_LEN, Nonce, UnboundKey,
};
use aws_lc_rs::hkdf;
use data_encoding::HEXLOWER_PERMISSIVE;
use rustls::server::ProducesTickets;

use super::certificate::now;
use crate::base::failure::Failure;
use crate::base::sys;

/// Seconds for which a key encrypts.
const PERIOD: u64 = 12 * 60 * 60;
/// Maximum length of a session in bytes: several times what a name of a server can make of it.
const SESSION_MAX: usize = 2048;
/// Length of a key's name.
const NAME: usize = 16;
/// Bytes of a key, and of a line of the key file.
const KEY: usize = 32;
/// Maximum number of keys in a file.
const FILE_KEYS_MAX: usize = 16;
/// Maximum length of a key file in bytes.
const FILE_MAX: u64 = 64 * 1024;

/// A key that encrypts tickets.
struct TicketKey {
    name: [u8; NAME],
    key: LessSafeKey,
}

impl TicketKey {
    fn new(name: [u8; NAME], key: [u8; KEY]) -> Option<Self> {
        let key = UnboundKey::new(&AES_256_GCM_SIV, &key).ok()?;
        Some(TicketKey { name, key: LessSafeKey::new(key) })
    }

    fn random() -> Option<Self> {
        TicketKey::new(sys::random().ok()?, sys::random().ok()?)
    }

    /// The key that follows from a line of the file for a period.
    fn derived(line: &[u8; KEY], period: u64) -> Option<Self> {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"drumline session tickets");
        let random = salt.extract(line);
        let part = |label: &[u8]| {
            let mut bytes = [0; KEY];
            let info = [label, &period.to_be_bytes()];
            random.expand(&info, hkdf::HKDF_SHA256).ok()?.fill(&mut bytes).ok()?;
            Some(bytes)
        };
        let name = part(b"name")?;
        TicketKey::new(*name.first_chunk()?, part(b"key")?)
    }

    fn seal(&self, session: &[u8]) -> Option<Vec<u8>> {
        let nonce: [u8; NONCE_LEN] = sys::random().ok()?;
        let mut sealed = session.to_vec();
        let (name, nonce_of) = (Aad::from(&self.name), Nonce::assume_unique_for_key(nonce));
        self.key.seal_in_place_append_tag(nonce_of, name, &mut sealed).ok()?;
        Some([&self.name[..], &nonce, &sealed].concat())
    }

    fn open(&self, nonce: [u8; NONCE_LEN], sealed: &[u8]) -> Option<Vec<u8>> {
        let mut session = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let length = self.key.open_in_place(nonce, Aad::from(&self.name), &mut session).ok()?.len();
        session.truncate(length);
        Some(session)
    }
}

/// The keys of a period.
struct Keys {
    period: u64,
    /// Encrypts.
    current: Arc<TicketKey>,
    /// Keys whose tickets are accepted too.
    others: Vec<Arc<TicketKey>>,
}

/// Where keys come from.
enum KeySource {
    /// Random keys, which are forgotten after their time. The instant begins the first period.
    Random(Instant),
    /// Lines of the key file: the first one encrypts.
    File(Vec<[u8; KEY]>),
}

impl KeySource {
    fn period(&self) -> u64 {
        match self {
            KeySource::Random(start) => start.elapsed().as_secs() / PERIOD,
            KeySource::File(_) => now().cast_unsigned() / PERIOD,
        }
    }

    /// The keys of a period after those of `before`.
    fn keys(&self, period: u64, before: Option<&Keys>) -> Option<Keys> {
        match self {
            KeySource::Random(_) => {
                let before = before.filter(|before| before.period + 1 == period);
                let others = before.map(|before| before.current.clone()).into_iter().collect();
                Some(Keys { period, current: Arc::new(TicketKey::random()?), others })
            }
            KeySource::File(lines) => {
                let current = Arc::new(TicketKey::derived(lines.first()?, period)?);
                // The clock of another node may be in the period before or after.
                let near = [period, period.saturating_sub(1), period.saturating_add(1)];
                let keys = |line| near.map(|near| TicketKey::derived(line, near).map(Arc::new));
                let others = lines.iter().flat_map(keys).flatten().collect();
                Some(Keys { period, current, others })
            }
        }
    }
}

/// Makes and reads tickets.
pub struct Tickets {
    source: KeySource,
    keys: RwLock<Arc<Keys>>,
}

impl Tickets {
    /// Tickets with random keys, or with the keys of a file, which is made if it does not exist.
    ///
    /// # Errors
    /// The file cannot be read or made, or has another format.
    pub fn new(place: &str, file: Option<&Path>) -> Result<Self, Failure> {
        let source = match file {
            Some(path) => KeySource::File(read_or_make(place, path)?),
            None => KeySource::Random(Instant::now()),
        };
        Tickets::of(source).ok_or_else(|| {
            Failure::new(format!("{place}: the kernel gives no random bytes"), "restart the server")
        })
    }

    fn of(source: KeySource) -> Option<Self> {
        let keys = source.keys(source.period(), None)?;
        Some(Tickets { source, keys: RwLock::new(Arc::new(keys)) })
    }

    /// The keys of a period.
    fn keys(&self, period: u64) -> Option<Arc<Keys>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        if keys.period == period {
            return Some(keys);
        }
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.period != period {
            *keys = Arc::new(self.source.keys(period, Some(&keys))?);
        }
        Some(keys.clone())
    }

    fn seal(&self, period: u64, session: &[u8]) -> Option<Vec<u8>> {
        let fits = session.len() <= SESSION_MAX;
        fits.then(|| self.keys(period)?.current.seal(session)).flatten()
    }

    fn open(&self, period: u64, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let keys = self.keys(period)?;
        let mut known = std::iter::once(&keys.current).chain(&keys.others);
        let key = known.find(|key| key.name == *name)?;
        (sealed.len() <= SESSION_MAX + TAG).then(|| key.open(*nonce, sealed)).flatten()
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        PERIOD as u32
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        self.seal(self.source.period(), session)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.open(self.source.period(), ticket)
    }
}

/// The keys of a file, which is made with a random key if it does not exist.
fn read_or_make(place: &str, path: &Path) -> Result<Vec<[u8; KEY]>, Failure> {
    let refuse = |error: io::Error| {
        Failure::new(
            format!("{place}: cannot read or make {}: {error}", path.display()),
            "name a file that the server may read, in a folder that it may write to",
        )
    };
    if !path.try_exists().map_err(refuse)? {
        make(path).map_err(refuse)?;
    }
    let mut text = String::new();
    let file = File::open(path).map_err(refuse)?;
    file.take(FILE_MAX).read_to_string(&mut text).map_err(refuse)?;
    parse(&text).map_err(|cause| {
        Failure::new(
            format!("{place}: {}: {cause}", path.display()),
            "write a key of 64 hexadecimal digits on each line: openssl rand -hex 32",
        )
    })
}

/// Makes a key file that only its owner can read. If another process makes it first, that one
/// stays.
fn make(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
    let key: [u8; KEY] = sys::random()?;
    file.write_all(format!("{}\n", HEXLOWER_PERMISSIVE.encode(&key)).as_bytes())?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Err(refused) if refused.error.kind() != io::ErrorKind::AlreadyExists => Err(refused.error),
        _ => Ok(()),
    }
}

/// The keys of a file's text: one per line. Empty lines and lines that begin with `#` do not count.
fn parse(text: &str) -> Result<Vec<[u8; KEY]>, String> {
    let mut keys = Vec::new();
    for (at, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let key = HEXLOWER_PERMISSIVE.decode(line.as_bytes()).ok();
        let key = key.and_then(|key| <[u8; KEY]>::try_from(key).ok());
        keys.push(key.ok_or_else(|| format!("line {} is not a key", at + 1))?);
    }
    match keys.len() {
        0 => Err("it has no key".to_owned()),
        1..=FILE_KEYS_MAX => Ok(keys),
        more => Err(format!("it has {more} keys, but at most {FILE_KEYS_MAX} are used")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_lines(lines: &[[u8; KEY]]) -> Tickets {
        Tickets::of(KeySource::File(lines.to_vec())).unwrap()
    }

    #[test]
    fn a_random_key_encrypts_for_a_period_and_its_tickets_are_accepted_for_another() {
        let tickets = Tickets::new("tls", None).unwrap();
        let ticket = tickets.encrypt(b"session").unwrap();
        assert_eq!(tickets.open(0, &ticket).as_deref(), Some(&b"session"[..]));
        let later = tickets.seal(1, b"later").unwrap();
        assert_ne!(ticket[..NAME], later[..NAME], "the key has changed");
        assert_eq!(tickets.open(1, &ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(tickets.open(2, &ticket), None, "the key is forgotten");
        assert_eq!(tickets.open(2, &later).as_deref(), Some(&b"later"[..]));
        assert_eq!(tickets.open(9, &later), None, "nobody came for several periods");
        assert_eq!(PERIOD * 2, 24 * 60 * 60, "no ticket is older than a day");
    }

    #[test]
    fn keys_of_a_file_survive_a_restart_and_are_shared_by_nodes() {
        let (old, new) = ([1; KEY], [2; KEY]);
        let ticket = of_lines(&[old]).seal(100, b"session").unwrap();
        for period in [99, 100, 101] {
            let opened = of_lines(&[old]).open(period, &ticket);
            assert_eq!(opened.as_deref(), Some(&b"session"[..]), "period {period}");
        }
        assert_eq!(of_lines(&[old]).open(102, &ticket), None, "too old");
        assert_eq!(of_lines(&[new, old]).open(100, &ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(of_lines(&[new]).open(100, &ticket), None, "the operator has removed the key");
        let renewed = of_lines(&[new, old]).seal(100, b"session").unwrap();
        assert_eq!(of_lines(&[old]).open(100, &renewed), None, "the first line encrypts");
    }

    /// Tickets at a time that the test sets.
    #[derive(Debug)]
    struct AtPeriod(Tickets, std::sync::atomic::AtomicU64);

    impl AtPeriod {
        fn period(&self) -> u64 {
            self.1.load(std::sync::atomic::Ordering::Relaxed)
        }
    }

    impl ProducesTickets for AtPeriod {
        fn enabled(&self) -> bool {
            true
        }

        fn lifetime(&self) -> u32 {
            self.0.lifetime()
        }

        fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
            self.0.seal(self.period(), session)
        }

        fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
            self.0.open(self.period(), ticket)
        }
    }

    /// Whether a handshake in memory resumes an earlier session; the client takes its tickets.
    fn resumes(server: &Arc<rustls::ServerConfig>, client: &Arc<rustls::ClientConfig>) -> bool {
        let mut server = rustls::ServerConnection::new(server.clone()).unwrap();
        let name = "a".try_into().unwrap();
        let mut client = rustls::ClientConnection::new(client.clone(), name).unwrap();
        for _ in 0..6 {
            let (mut up, mut down) = (Vec::new(), Vec::new());
            while client.wants_write() {
                client.write_tls(&mut up).unwrap();
            }
            let mut up = &up[..];
            while !up.is_empty() {
                server.read_tls(&mut up).unwrap();
                server.process_new_packets().unwrap();
            }
            while server.wants_write() {
                server.write_tls(&mut down).unwrap();
            }
            let mut down = &down[..];
            while !down.is_empty() {
                client.read_tls(&mut down).unwrap();
                client.process_new_packets().unwrap();
            }
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        client.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    #[test]
    fn a_handshake_resumes_across_one_rotation_of_the_keys_and_not_across_two() {
        use super::super::provider::provider;
        use rustls::version::{TLS12, TLS13};

        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["a".into()]).unwrap();
        let certificate = certificate.self_signed(&key).unwrap().der().clone();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        for tickets in [Tickets::new("tls", None).unwrap(), of_lines(&[[7; KEY]])] {
            let tickets = Arc::new(AtPeriod(tickets, 0.into()));
            let mut server = rustls::ServerConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(
                    vec![certificate.clone()],
                    rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
                )
                .unwrap();
            server.ticketer = tickets.clone();
            server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
            let server = Arc::new(server);
            for version in [&TLS13, &TLS12] {
                let client = rustls::ClientConfig::builder_with_provider(provider())
                    .with_protocol_versions(&[version])
                    .unwrap()
                    .with_root_certificates(roots.clone())
                    .with_no_client_auth();
                let client = Arc::new(client);
                let at = |later: u64| {
                    tickets.1.fetch_add(later, std::sync::atomic::Ordering::Relaxed);
                    resumes(&server, &client)
                };
                assert!(!at(0) && at(0), "{version:?}");
                assert!(at(1), "{version:?}: across a rotation");
                // A resumed session got new tickets.
                assert!(at(1) && !at(2), "{version:?}: across two rotations");
            }
        }
    }

    #[test]
    fn a_changed_or_foreign_ticket_is_refused() {
        let tickets = of_lines(&[[1; KEY]]);
        let ticket = tickets.encrypt(b"session").unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.decrypt(&changed), None, "byte {at}");
            assert_eq!(tickets.decrypt(&ticket[..at]), None, "cut at {at}");
        }
        assert_eq!(tickets.decrypt(&[ticket, vec![0; 1 << 20]].concat()), None);
        assert_eq!(tickets.encrypt(&[0; SESSION_MAX + 1]), None);
    }

    #[test]
    fn a_key_file_is_made_once_and_read_again() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tickets.keys");
        let ticket = Tickets::new("tls", Some(&path)).unwrap().encrypt(b"session").unwrap();
        let again = Tickets::new("tls", Some(&path)).unwrap();
        assert_eq!(again.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let line = "ab".repeat(KEY);
        for (text, cause) in [
            ("", "it has no key"),
            ("# only a comment\n", "it has no key"),
            (&format!("{line}\nabc\n"), "line 2 is not a key"),
            (&format!("{line}\n").repeat(17), "at most 16"),
        ] {
            std::fs::write(&path, text).unwrap();
            let refused = Tickets::new("tls", Some(&path)).unwrap_err();
            assert!(refused.cause.contains(cause), "{refused}");
            assert!(!refused.to_string().contains(&line), "{refused}");
        }
        let refused = Tickets::new("tls", Some(Path::new("/proc/1/none/keys"))).unwrap_err();
        assert!(refused.cause.contains("cannot read or make /proc/1/none/keys"), "{refused}");
    }
}
