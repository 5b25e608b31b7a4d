//! The certificates of a port: served, watched and replaced while the port runs.
//!
//! Owns the sources and what was read from them. The invariants: handshakes see the old
//! certificates or the new ones, never a mixture; a source that cannot be used changes nothing.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::{Certificate, Validity, duration, now};
use super::client_authority::{ClientAuthority, verifier};
use super::fingerprint::{Fingerprint, fingerprint};
use super::issued::Issued;
use super::pem::PemSource;
use super::served::Served;
use crate::base::failure::Failure;
use crate::config::ServerTls;
use crate::wire::tls::handshake::ACME;

/// What a port reads its certificates from.
#[derive(Clone)]
struct Sources {
    /// Certificate and key; the first pair is the default.
    pairs: Vec<(PemSource, PemSource)>,
    /// Authority of client certificates.
    client_ca: Option<PemSource>,
}

impl Sources {
    fn new(place: &str, options: &ServerTls) -> Self {
        let pair = |place: &str, certificate: &str, key: &str| {
            (
                PemSource::new(format!("{place}.cert_pem"), certificate),
                PemSource::new(format!("{place}.key_pem"), key),
            )
        };
        let first = (!options.cert_pem.is_empty())
            .then(|| pair(place, &options.cert_pem, options.key_pem.reveal()));
        let others = options.certificates.iter().map(|one| {
            let place = format!("{place}.certificates {:?}", one.name);
            pair(&place, &one.cert_pem, one.key_pem.reveal())
        });
        let client_ca = &options.client_ca_pem;
        Sources {
            pairs: first.into_iter().chain(others).collect(),
            client_ca: (!client_ca.is_empty())
                .then(|| PemSource::new(format!("{place}.client_ca_pem"), client_ca)),
        }
    }

    /// The state of every file.
    fn fingerprints(&self) -> Vec<Fingerprint> {
        let pairs = self.pairs.iter().flat_map(|(certificate, key)| [certificate, key]);
        pairs.chain(&self.client_ca).filter_map(PemSource::file).map(fingerprint).collect()
    }

    fn read(&self) -> Result<Served, Failure> {
        let read = |(certificate, key): &(PemSource, PemSource)| {
            Certificate::read(certificate, key).map(Arc::new)
        };
        Ok(Served::new(self.pairs.iter().map(read).collect::<Result<_, _>>()?))
    }
}

/// What the last look at the files found.
#[derive(Default)]
struct Watch {
    seen: Vec<Fingerprint>,
    /// Cause of the last failure, until the sources can be used again.
    failed: Option<String>,
}

/// The certificates of a port.
pub struct CertificateStore {
    place: String,
    sources: RwLock<Sources>,
    served: RwLock<Arc<Served>>,
    clients: Option<Arc<ClientAuthority>>,
    issued: Option<Arc<Issued>>,
    watch: Mutex<Watch>,
}

impl std::fmt::Debug for CertificateStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CertificateStore({})", self.place)
    }
}

impl CertificateStore {
    /// Reads the certificates of the section at `place`.
    ///
    /// # Errors
    /// A certificate or key cannot be used.
    pub fn new(place: &str, options: &ServerTls) -> Result<Self, Failure> {
        let sources = Sources::new(place, options);
        let seen = sources.fingerprints();
        let served = sources.read()?;
        let clients = sources.client_ca.as_ref().map(verifier).transpose()?;
        Ok(CertificateStore {
            place: place.to_owned(),
            sources: RwLock::new(sources),
            served: RwLock::new(Arc::new(served)),
            clients: clients.map(|verifier| Arc::new(ClientAuthority::new(verifier))),
            issued: None,
            watch: Mutex::new(Watch { seen, failed: None }),
        })
    }

    /// The same store with certificates that an ACME authority issues.
    #[must_use]
    pub fn with_issued(self, issued: Arc<Issued>) -> Self {
        CertificateStore { issued: Some(issued), ..self }
    }

    /// The authority of client certificates, if clients need one.
    pub(super) fn clients(&self) -> Option<Arc<ClientAuthority>> {
        self.clients.clone()
    }

    /// Reads every source again. Returns whether the certificates have changed.
    ///
    /// # Errors
    /// A source cannot be used. The old certificates are served as before.
    pub fn reload(&self) -> Result<bool, Failure> {
        let sources = self.sources.read().unwrap_or_else(PoisonError::into_inner).clone();
        self.apply(sources)
    }

    /// Reads the certificates of other options and serves them. Returns whether they differ.
    ///
    /// # Errors
    /// They cannot be used, or need a restart. The old certificates are served as before.
    pub fn replace(&self, options: &ServerTls) -> Result<bool, Failure> {
        let sources = Sources::new(&self.place, options);
        if sources.client_ca.is_some() != self.clients.is_some() {
            return Err(Failure::new(
                format!("{}.client_ca_pem was set or removed", self.place),
                "restart the server to change whether clients need a certificate",
            ));
        }
        self.apply(sources)
    }

    fn apply(&self, sources: Sources) -> Result<bool, Failure> {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        watch.seen = sources.fingerprints();
        let read = sources
            .read()
            .and_then(|served| Ok((served, sources.client_ca.as_ref().map(verifier).transpose()?)));
        let (served, authority) = read.inspect_err(|refused| {
            watch.failed = Some(refused.cause.clone());
        })?;
        watch.failed = None;
        if let (Some(clients), Some(authority)) = (&self.clients, authority) {
            clients.replace(authority);
        }
        let old = self.served();
        let same = old.certificates().len() == served.certificates().len()
            && old
                .certificates()
                .iter()
                .zip(served.certificates())
                .all(|(old, new)| old.key.cert == new.key.cert);
        *self.sources.write().unwrap_or_else(PoisonError::into_inner) = sources;
        *self.served.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(served);
        Ok(!same)
    }

    /// Reads the sources again if a file has changed, or if they could not be used before. Returns
    /// what is new: certificates that are served from now on, or why they are not.
    pub fn poll(&self) -> Option<Result<(), Failure>> {
        let sources = self.sources.read().unwrap_or_else(PoisonError::into_inner).clone();
        let seen = sources.fingerprints();
        let failed = {
            let watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
            if watch.seen == seen && watch.failed.is_none() {
                return None;
            }
            watch.failed.clone()
        };
        match self.apply(sources) {
            Ok(changed) => (changed || failed.is_some()).then_some(Ok(())),
            // Told once for each cause.
            Err(refused) => (failed.as_ref() != Some(&refused.cause)).then_some(Err(refused)),
        }
    }

    fn served(&self) -> Arc<Served> {
        self.served.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the files cannot be used, so that older certificates are served.
    pub fn is_failing(&self) -> bool {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner).failed.is_some()
    }

    /// The validity of the certificate that expires first.
    pub fn first_to_expire(&self) -> Option<Validity> {
        let issued = self.issued.as_ref().and_then(|issued| issued.first_to_expire());
        let served = self.served().first_to_expire();
        served.into_iter().chain(issued).min_by_key(|found| found.not_after)
    }

    /// A host for which a certificate is served, the default one if there is one. Empty: no
    /// certificate names a host without a wildcard.
    pub fn host(&self) -> String {
        let served = self.served();
        let names = served.certificates().iter().flat_map(|one| &one.names);
        let named = names.map(String::as_str).find(|name| !name.starts_with('*'));
        let issued = self.issued.as_ref().map(|issued| issued.default_host());
        named.or(issued).unwrap_or_default().to_owned()
    }

    /// Seconds until the last of the certificates becomes valid; 0 or less: all are valid.
    pub fn early(&self) -> i64 {
        let served = self.served();
        let starts = served.certificates().iter().map(|one| one.validity.not_before);
        starts.max().map_or(0, |start| start - now())
    }

    /// Key of the section, for logs.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The names of the certificates and their remaining time, for logs.
    pub fn describe(&self) -> String {
        let served = self.served();
        let one = |certificate: &Arc<Certificate>| {
            let names = match certificate.names.is_empty() {
                true => "a certificate without names".to_owned(),
                false => certificate.names.join(", "),
            };
            match certificate.validity.not_before - now() {
                early @ 1.. => format!("{names} (not valid for another {})", duration(early)),
                _ => format!(
                    "{names} (expires in {})",
                    duration(certificate.validity.not_after - now())
                ),
            }
        };
        served.certificates().iter().map(one).collect::<Vec<_>>().join("; ")
    }

    /// Every file that is watched.
    pub fn files(&self) -> Vec<std::path::PathBuf> {
        let sources = self.sources.read().unwrap_or_else(PoisonError::into_inner);
        let pairs = sources.pairs.iter().flat_map(|(certificate, key)| [certificate, key]);
        let files = pairs.chain(&sources.client_ca).filter_map(PemSource::file);
        files.map(Path::to_path_buf).collect()
    }
}

impl ResolvesServerCert for CertificateStore {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let (name, schemes) = (hello.server_name(), hello.signature_schemes());
        let find = || self.served().find(name, schemes).map(|one| one.key.clone());
        let Some(issued) = &self.issued else { return find() };
        if hello.alpn().is_some_and(|mut offered| offered.any(|one| one == ACME)) {
            return issued.challenge(name?);
        }
        issued.find(name).or_else(find).or_else(|| issued.any())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use std::time::{Duration, SystemTime};

    use rcgen::{CertificateParams, KeyPair};
    use rustls::SignatureScheme;

    use super::*;

    /// Every algorithm that the pairs of the tests sign with.
    const SCHEMES: [SignatureScheme; 1] = [SignatureScheme::ECDSA_NISTP256_SHA256];

    /// A certificate and its key, in PEM.
    pub struct Pair {
        /// The certificate, signed by its own key.
        pub certificate: String,
        /// The key.
        pub key: String,
    }

    /// A valid pair for these hosts.
    pub fn pair(hosts: &[&str]) -> Pair {
        signed(params(hosts))
    }

    /// A pair that expired two days ago.
    pub fn expired(hosts: &[&str]) -> Pair {
        let mut params = params(hosts);
        params.not_after = (SystemTime::now() - Duration::from_secs(2 * 86_400 + 60)).into();
        signed(params)
    }

    fn params(hosts: &[&str]) -> CertificateParams {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        CertificateParams::new(hosts).unwrap()
    }

    fn signed(params: CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Pair { certificate, key: key.serialize_pem() }
    }

    struct Files {
        folder: tempfile::TempDir,
    }

    impl Files {
        fn new(pair: &Pair) -> Self {
            let files = Files { folder: tempfile::tempdir().unwrap() };
            files.write(pair);
            files
        }

        fn path(&self, name: &str) -> String {
            self.folder.path().join(name).display().to_string()
        }

        fn write(&self, pair: &Pair) {
            fs::write(self.path("a.crt"), &pair.certificate).unwrap();
            fs::write(self.path("a.key"), &pair.key).unwrap();
        }

        fn options(&self) -> ServerTls {
            ServerTls {
                enabled: true,
                cert_pem: self.path("a.crt"),
                key_pem: self.path("a.key").into(),
                ..ServerTls::default()
            }
        }

        fn store(&self) -> CertificateStore {
            CertificateStore::new("http_server.tls", &self.options()).unwrap()
        }
    }

    /// The names of the certificate that a client gets.
    fn served(store: &CertificateStore, name: Option<&str>) -> Vec<String> {
        store.served().find(name, &SCHEMES).unwrap().names.clone()
    }

    #[test]
    fn a_certificate_that_is_not_valid_yet_is_served_and_noticed() {
        let mut params = params(&["*.a.test", "a.test"]);
        params.not_before = (SystemTime::now() + Duration::from_secs(3 * 86_400 + 60)).into();
        let files = Files::new(&signed(params));
        let store = CertificateStore::new("tls", &files.options()).unwrap();
        assert!((3 * 86_400..3 * 86_400 + 62).contains(&store.early()), "{}", store.early());
        assert!(store.describe().contains("not valid for another 3 days"), "{}", store.describe());
        assert_eq!(store.host(), "a.test", "no wildcard");
        let now = Files::new(&pair(&[]));
        let now = CertificateStore::new("tls", &now.options()).unwrap();
        assert!(now.early() <= 0 && now.host().is_empty());
        let validity = now.first_to_expire().unwrap();
        assert_eq!(validity.lifetime(), validity.not_after - validity.not_before);
    }

    #[test]
    fn a_client_gets_the_certificate_of_the_name_that_it_sends() {
        let files = Files::new(&pair(&["a.test"]));
        let mut options = files.options();
        for (name, hosts) in [("b", &["b.test", "*.b.test"][..]), ("c", &["x.b.test"])] {
            let Pair { certificate, key } = pair(hosts);
            let key_pem = data_encoding::BASE64.encode(key.as_bytes()).into();
            let entry =
                crate::config::Certificate { name: name.into(), cert_pem: certificate, key_pem };
            options.certificates.push(entry);
        }
        let store = CertificateStore::new("http_server.tls", &options).unwrap();
        for (name, hosts) in [
            (None, "a.test"),
            (Some("a.test"), "a.test"),
            (Some("unknown.test"), "a.test"),
            (Some("b.test"), "b.test, *.b.test"),
            (Some("y.b.test"), "b.test, *.b.test"),
            (Some("x.b.test"), "x.b.test"),
            (Some("z.y.b.test"), "a.test"),
            (Some("test"), "a.test"),
        ] {
            assert_eq!(served(&store, name).join(", "), hosts, "{name:?}");
        }
        // A client that verifies none of the keys learns so from the handshake.
        let other = [SignatureScheme::ED25519];
        assert!(store.served().find(None, &other).is_some());
        assert_eq!(store.files().len(), 2, "text is not a file");
        assert!(store.describe().starts_with("a.test (expires in "), "{}", store.describe());
    }

    #[test]
    fn a_pair_that_is_replaced_one_file_after_the_other_is_served_when_both_fit() {
        let files = Files::new(&pair(&["old.test"]));
        let store = files.store();
        assert!(store.poll().is_none(), "nothing has changed");
        let new = pair(&["new.test"]);
        fs::write(files.path("a.crt"), &new.certificate).unwrap();
        let refused = store.poll().unwrap().unwrap_err();
        assert!(refused.cause.contains("does not belong to the certificate"), "{refused}");
        assert!(store.poll().is_none(), "told once");
        assert_eq!(served(&store, None), ["old.test"]);
        fs::write(files.path("a.key"), &new.key[..40]).unwrap();
        let refused = store.poll().unwrap().unwrap_err();
        assert!(refused.cause.contains("cut off"), "{refused}");
        fs::write(files.path("a.key"), &new.key).unwrap();
        assert_eq!(store.poll(), Some(Ok(())));
        assert_eq!(served(&store, None), ["new.test"]);
        assert!(store.poll().is_none());
        fs::remove_file(files.path("a.key")).unwrap();
        assert!(store.poll().unwrap().unwrap_err().cause.contains("cannot be read"));
        assert_eq!(served(&store, None), ["new.test"]);
        files.write(&new);
        assert_eq!(store.poll(), Some(Ok(())), "the same pair is back");
        assert_eq!(store.reload(), Ok(false));
    }

    #[test]
    fn a_link_that_is_swapped_by_a_rename_is_noticed() {
        let (old, new) = (pair(&["old.test"]), pair(&["new.test"]));
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, pair) in [("v1", &old), ("v2", &new)] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("tls.crt"), &pair.certificate).unwrap();
            fs::write(at(name).join("tls.key"), &pair.key).unwrap();
        }
        let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, at(name)).unwrap();
        link("v1", "..data");
        link("..data/tls.crt", "tls.crt");
        link("..data/tls.key", "tls.key");
        let options = ServerTls {
            cert_pem: at("tls.crt").display().to_string(),
            key_pem: at("tls.key").display().to_string().into(),
            ..ServerTls::default()
        };
        let store = CertificateStore::new("http_server.tls", &options).unwrap();
        assert_eq!(served(&store, None), ["old.test"]);
        link("v2", "..new");
        fs::rename(at("..new"), at("..data")).unwrap();
        assert_eq!(store.poll(), Some(Ok(())));
        assert_eq!(served(&store, None), ["new.test"]);
    }

    #[test]
    fn a_certificate_that_cannot_be_served_is_refused_with_its_cause() {
        let (good, other) = (pair(&["a.test"]), pair(&["a.test"]));
        let expired = expired(&["a.test"]);
        let encrypted =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let cut = &good.certificate[..good.certificate.len() / 2];
        let files = Files::new(&good);
        for (certificate, key, cause) in [
            ("", good.key.as_str(), "a.crt is empty"),
            (good.certificate.as_str(), " \n", "a.key is empty"),
            ("nonsense", &good.key, "contains no certificate"),
            (cut, &good.key, "cut off or damaged"),
            (&good.certificate, "nonsense", "contains no private key"),
            (&good.certificate, encrypted, "encrypted key"),
            (&good.certificate, &other.key, "does not belong to the certificate in"),
            (&good.key, &good.certificate, "contains a private key and no certificate"),
            (&good.certificate, &good.certificate, "contains a certificate and no private key"),
            (&expired.certificate, &expired.key, "the certificate expired 2 days ago"),
        ] {
            fs::write(files.path("a.crt"), certificate).unwrap();
            fs::write(files.path("a.key"), key).unwrap();
            let refused = CertificateStore::new("tls", &files.options()).unwrap_err();
            assert!(refused.cause.contains(cause), "{refused}");
            assert!(refused.cause.contains(&files.path("a.")), "{refused}");
        }
        for (path, cause) in [
            (files.path("none"), "cannot be read: No such file"),
            (files.path(""), "is a folder"),
            ("/dev/zero".to_owned(), "is not a regular file"),
            ("QUJD".repeat(100), "neither PEM text nor the path of a PEM file"),
        ] {
            let options = ServerTls { key_pem: path.as_str().into(), ..files.options() };
            files.write(&good);
            let refused = CertificateStore::new("tls", &options).unwrap_err();
            assert!(refused.cause.contains(cause), "{refused}");
            assert!(refused.cause.starts_with("tls.key_pem"), "{refused}");
        }
    }
}
