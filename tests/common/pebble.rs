//! Pebble, the ACME server for tests: its process, its configuration, and the root that it makes.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use drumline::tls::provider::provider;

use super::certificates::{Authority, connect, get};
use super::{free_port, wait_for};

/// What a pebble is started with.
pub struct PebbleFolder {
    folder: tempfile::TempDir,
    directory: u16,
    management: u16,
    /// Port of the challenge http-01.
    pub http: u16,
    /// Port of the challenge tls-alpn-01.
    pub tls: u16,
}

impl PebbleFolder {
    /// Writes the configuration of a pebble whose own certificate is from `own`, and whose
    /// certificates live for `lifetime` seconds.
    pub fn new(own: &Authority, lifetime: u32) -> PebbleFolder {
        let folder = tempfile::tempdir().unwrap();
        let [directory, management, http, tls] = [(); 4].map(|()| free_port());
        let written = PebbleFolder { folder, directory, management, http, tls };
        let pair = own.issue("localhost");
        std::fs::write(written.path("pebble.crt"), &pair.certificate).unwrap();
        std::fs::write(written.path("pebble.key"), &pair.key).unwrap();
        std::fs::write(written.path("ca.crt"), &own.pem).unwrap();
        let config = serde_json::json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{directory}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": written.path("pebble.crt"), "privateKey": written.path("pebble.key"),
            "httpPort": http, "tlsPort": tls, "keyAlgorithm": "ecdsa",
            "retryAfter": {"authz": 1, "order": 1},
            "profiles": {"default": {"description": "short", "validityPeriod": lifetime}},
        }});
        std::fs::write(written.path("pebble.json"), config.to_string()).unwrap();
        written
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Flags of a server that requests certificates for localhost and keeps them in `cache`.
    pub fn flags(&self, cache: &str) -> Vec<String> {
        [
            ("enabled", "true".to_owned()),
            ("host_whitelist", "localhost".to_owned()),
            ("cache_dir", self.path(cache)),
            ("directory_url", format!("https://localhost:{}/dir", self.directory)),
            ("directory_ca_pem", self.path("ca.crt")),
        ]
        .map(|(key, value)| format!("--http_server.tls_autocert.{key}={value}"))
        .into()
    }

    /// A client that trusts the root that the running pebble has made for itself.
    pub fn trusting(&self, own: &Authority) -> Arc<ClientConfig> {
        let management = SocketAddr::from(([127, 0, 0, 1], self.management));
        let mut stream =
            wait_for("pebble", || connect(management, "localhost", &own.client(None)).ok());
        let (_, pem) = get(&mut stream, "/roots/0").unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

/// A running pebble.
pub struct Pebble(Child);

impl Pebble {
    pub fn start(folder: &PebbleFolder) -> Pebble {
        let binary = std::env::var_os("PEBBLE").expect("PEBBLE names the binary");
        let config = folder.path("pebble.json");
        let child = Command::new(binary)
            .args(["-config", &config])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .stdout(Stdio::null())
            .spawn();
        Pebble(child.expect("pebble starts"))
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
