//! Sections about TLS: certificates of the ports, and how the server connects to others.
//!
//! Owns the keys. Never reads a file. A certificate or key is the path of a PEM file, PEM text, or
//! PEM text in base64.

use crate::base::secret::Secret;

use super::section::{section, tables};

section! {
    /// TLS of a port.
    ServerTls {
        /// Serve this port with TLS.
        enabled: bool = false,
        /// Certificate of the server, followed by its intermediate certificates: the path of a PEM
        /// file, PEM text, or PEM text in base64. The server reads a changed file again without a
        /// restart. Clients that send no server name get this certificate.
        cert_pem: String = String::new(),
        /// Private key of the certificate: the path of a PEM file, PEM text, or PEM text in base64.
        key_pem: Secret = Secret::default(),
        /// Certificates of the authority that signs client certificates: the path of a PEM file,
        /// PEM text, or PEM text in base64. When set, every client must have a certificate of it
        /// (mutual TLS). Empty: clients need no certificate.
        client_ca_pem: String = String::new(),
        /// File with the keys of session tickets: at least one line of 64 hexadecimal digits. The
        /// server creates the file if it does not exist. With the file, clients resume their TLS
        /// sessions after a restart, and at every node that has the same file. Empty: keys are kept
        /// in memory only.
        session_ticket_key_file: String = String::new(),
        /// Further certificates, which clients select by the server name that they send. A list of
        /// tables, each with a `name`, `cert_pem` and `key_pem`. As a flag or variable: the same as
        /// JSON.
        certificates: Vec<Certificate> = Vec::new(),
    }
}

section! {
    /// Certificates from an ACME authority, such as Let's Encrypt.
    TlsAutocert {
        /// Serve the public port with TLS, and get the certificates from the authority.
        enabled: bool = false,
        /// Names of the hosts to get certificates for. Each name must lead to this server.
        host_whitelist: Vec<String> = Vec::new(),
        /// Folder for the account and the certificates. They survive a restart there. The server
        /// makes the folder if it does not exist.
        cache_dir: String = String::new(),
        /// Address for notices of the authority. Empty: none.
        email: String = String::new(),
        /// Name of the host whose certificate clients get that send no server name. Empty: the
        /// certificate of `tls.cert_pem`, or that of the first host.
        server_name: String = String::new(),
        /// Prove the ownership of hosts by http-01 at `http_addr`, instead of tls-alpn-01 at the
        /// public port, which the authority reaches at port 443.
        http: bool = false,
        /// Address for http-01. The authority reaches it at port 80. Requests for other paths are
        /// redirected to https.
        http_addr: String = ":80".to_owned(),
        /// URL of the authority's directory.
        directory_url: String = "https://acme-v02.api.letsencrypt.org/directory".to_owned(),
        /// Certificates of the authority that signs the certificate of the directory: the path of a
        /// PEM file, PEM text, or PEM text in base64. Empty: the authorities that browsers trust.
        directory_ca_pem: String = String::new(),
    }
}

section! {
    /// A certificate for the server names that it contains.
    Certificate {
        /// Name of the entry, which logs and errors show.
        name: String = String::new(),
        /// Certificate, followed by its intermediate certificates: the path of a PEM file, PEM
        /// text, or PEM text in base64.
        cert_pem: String = String::new(),
        /// Private key of the certificate: the path of a PEM file, PEM text, or PEM text in base64.
        key_pem: Secret = Secret::default(),
    }
}

section! {
    /// TLS of connections to a backend.
    ClientTls {
        /// Use the options of this section for an https endpoint. Without it, the server trusts the
        /// authorities that browsers trust, and sends no certificate.
        enabled: bool = false,
        /// Certificate that the server sends as a client: the path of a PEM file, PEM text, or PEM
        /// text in base64. Empty: none.
        cert_pem: String = String::new(),
        /// Private key of the client certificate: the path of a PEM file, PEM text, or PEM text in
        /// base64.
        key_pem: Secret = Secret::default(),
        /// Certificates of the authority that signs the backend's certificate: the path of a PEM
        /// file, PEM text, or PEM text in base64. Empty: the authorities that browsers trust.
        server_ca_pem: String = String::new(),
        /// Name in the backend's certificate. Empty: the host of the endpoint.
        server_name: String = String::new(),
        /// Accept any certificate of the backend. For tests only: anyone between the server and
        /// the backend can read and change the requests.
        insecure_skip_verify: bool = false,
    }
}

tables!(Certificate);
