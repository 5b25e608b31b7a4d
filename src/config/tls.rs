//! Checks of TLS sections: what can be known without reading a file.
//!
//! Owns the rules. Never reads a certificate.

use super::error::{Error, error};
use super::sections::{ClientTls, HttpServer, ServerTls, TlsAutocert};

/// Returns an error unless the condition holds.
fn must(holds: bool, cause: impl Into<String>, cure: impl Into<String>) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(error(cause, cure)) }
}

impl HttpServer {
    /// Whether the public port is served with TLS: there are certificates of files or of an
    /// authority.
    pub(super) fn has_tls(&self) -> bool {
        self.tls.enabled || self.tls_autocert.enabled
    }
}

/// Checks that a certificate and its key are set together.
fn check_pair(place: &str, has_certificate: bool, has_key: bool) -> Result<(), Error> {
    must(
        has_certificate == has_key,
        format!("{place}: only one of cert_pem and key_pem is set"),
        "set both or neither",
    )
}

/// Checks TLS of both ports.
pub(super) fn check_ports(server: &HttpServer) -> Result<(), Error> {
    check_port("http_server.tls", &server.tls)?;
    check_port("http_server.internal_tls", &server.internal_tls)?;
    check_autocert(&server.tls_autocert)
}

fn check_autocert(options: &TlsAutocert) -> Result<(), Error> {
    if !options.enabled {
        return Ok(());
    }
    let place = "http_server.tls_autocert";
    must(
        !options.host_whitelist.is_empty(),
        format!("{place}.host_whitelist is empty"),
        "list the names of the hosts: certificates are not requested for every name that a client \
         sends",
    )?;
    for host in &options.host_whitelist {
        must(
            is_host(host) && host.parse::<std::net::IpAddr>().is_err() && !host.is_empty(),
            format!("{place}.host_whitelist: {host:?} is not the name of a host"),
            "give names such as push.example.com, without scheme, port and wildcard",
        )?;
    }
    must(
        !options.cache_dir.is_empty(),
        format!("{place}.cache_dir is empty"),
        "name a folder that the server may write to: without it, every restart would request new \
         certificates, and authorities limit their number",
    )?;
    must(
        options.directory_url.starts_with("https://"),
        format!("{place}.directory_url: {:?} is not an https URL", options.directory_url),
        "use the URL of the directory of your authority, or remove the key",
    )
}

fn check_port(place: &str, tls: &ServerTls) -> Result<(), Error> {
    check_pair(place, !tls.cert_pem.is_empty(), !tls.key_pem.is_empty())?;
    for certificate in &tls.certificates {
        must(
            !certificate.cert_pem.is_empty() && !certificate.key_pem.is_empty(),
            format!("{place}.certificates {:?}: cert_pem or key_pem is empty", certificate.name),
            "set both",
        )?;
    }
    must(
        !tls.enabled || !tls.cert_pem.is_empty() || !tls.certificates.is_empty(),
        format!("{place}: it is enabled, but cert_pem and key_pem are empty"),
        "name the files of a certificate and its key, or set enabled to false",
    )?;
    must(
        tls.client_ca_pem.is_empty() || tls.session_ticket_key_file.is_empty(),
        format!("{place}: client_ca_pem and session_ticket_key_file are both set"),
        "remove session_ticket_key_file: clients with certificates get no session tickets",
    )
}

/// Checks TLS of connections to a backend.
pub(super) fn check_client(place: &str, tls: &ClientTls) -> Result<(), Error> {
    check_pair(place, !tls.cert_pem.is_empty(), !tls.key_pem.is_empty())?;
    must(
        tls.server_name.is_empty() || is_host(&tls.server_name),
        format!("{place}.server_name: {:?} is not the name of a host", tls.server_name),
        "give the name in the certificate, without scheme and port",
    )
}

/// Whether a text may be the name or address of a host.
fn is_host(text: &str) -> bool {
    text.parse::<std::net::IpAddr>().is_ok()
        || text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

/// The warnings about sections that have no effect.
pub(super) fn warnings(server: &HttpServer) -> Vec<String> {
    let HttpServer { tls, internal_tls, .. } = server;
    let mut found = Vec::new();
    if internal_tls.enabled && server.internal_port == 0 {
        found.push(
            "http_server.internal_tls has no effect, because http_server.internal_port is not set; \
             set it, or set http_server.internal_tls.enabled to false"
                .to_owned(),
        );
    }
    for (section, port, options, is_off) in [
        ("tls", "public", tls, !server.has_tls()),
        ("internal_tls", "internal", internal_tls, !internal_tls.enabled),
    ] {
        if is_off && !(options.cert_pem.is_empty() && options.certificates.is_empty()) {
            found.push(format!(
                "the certificates of http_server.{section} are not used on the {port} port, because \
                 http_server.{section}.enabled is false; set it to true, or remove the certificates"
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use crate::config::{Loaded, Sources, load};

    fn load_flags(flags: &[(&str, &str)]) -> Result<Loaded, crate::config::Error> {
        let flags = flags.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect();
        let file = Some(PathBuf::from("/dev/null"));
        load(&Sources { file, flags, ..Sources::default() })
    }

    #[test]
    fn an_incomplete_tls_section_is_refused_with_its_cure() {
        let enabled = ("http_server.tls.enabled", "true");
        let certificate = ("http_server.tls.cert_pem", "a");
        let key = ("http_server.tls.key_pem", "b");
        let authority = ("http_server.tls.client_ca_pem", "c");
        let tickets = ("http_server.tls.session_ticket_key_file", "d");
        let more = ("http_server.tls.certificates", r#"[{"name":"aa","cert_pem":"a"}]"#);
        for (flags, cause) in [
            (&[enabled][..], "it is enabled, but cert_pem and key_pem are empty"),
            (&[certificate], "only one of cert_pem and key_pem"),
            (&[enabled, key], "only one of cert_pem and key_pem"),
            (&[more], "certificates \"aa\": cert_pem or key_pem is empty"),
            (&[certificate, key, authority, tickets], "are both set"),
        ] {
            let refused = load_flags(flags).unwrap_err();
            assert!(refused.cause.contains(cause), "{refused}");
        }
        assert!(load_flags(&[enabled, certificate, key]).is_ok());
        let autocert = |key: &'static str, value| {
            let enabled = ("http_server.tls_autocert.enabled", "true");
            let host = ("http_server.tls_autocert.host_whitelist", "a.test b.test");
            let cache = ("http_server.tls_autocert.cache_dir", "/tmp/a");
            load_flags(&[enabled, host, cache, (key, value)])
        };
        let loaded = autocert("http_server.tls_autocert.email", "a@b.test").unwrap();
        assert!(loaded.config.hub_settings(0).entrances[0].tls, "the public port is not plain");
        for (key, value) in [
            ("http_server.tls_autocert.host_whitelist", ""),
            ("http_server.tls_autocert.host_whitelist", "*.a.test"),
            ("http_server.tls_autocert.host_whitelist", "10.0.0.1"),
            ("http_server.tls_autocert.cache_dir", ""),
            ("http_server.tls_autocert.directory_url", "http://a.test"),
        ] {
            let refused = autocert(key, value).unwrap_err();
            assert!(refused.cause.starts_with(key), "{refused}");
        }
        let twice = r#"[{"name":"aa","cert_pem":"a","key_pem":"b"},{"name":"aa","cert_pem":"a","key_pem":"b"}]"#;
        let refused = load_flags(&[("http_server.tls.certificates", twice)]).unwrap_err();
        assert!(refused.cause.contains("certificates[1] \"aa\""), "{refused}");
    }

    #[test]
    fn a_section_without_effect_is_named_in_a_warning() {
        let flags = [
            ("http_server.internal_tls.enabled", "true"),
            ("http_server.internal_tls.cert_pem", "a"),
            ("http_server.internal_tls.key_pem", "b"),
        ];
        let named = |loaded: Loaded| {
            loaded.warnings.iter().any(|warning| warning.starts_with("http_server.internal_tls"))
        };
        assert!(named(load_flags(&flags).unwrap()));
        let port = ("http_server.internal_port", "9000");
        assert!(!named(load_flags(&[&flags[..], &[port]].concat()).unwrap()));
    }

    #[test]
    fn certificates_of_a_section_that_is_not_enabled_are_named_in_a_warning() {
        let told = |flags: &[(&str, &str)]| {
            let warnings = load_flags(flags).unwrap().warnings;
            let unused = warnings.iter().filter(|told| told.contains("are not used on the"));
            unused.cloned().collect::<Vec<_>>()
        };
        for section in ["http_server.tls", "http_server.internal_tls"] {
            let [certificate, key, enabled] =
                ["cert_pem", "key_pem", "enabled"].map(|key| format!("{section}.{key}"));
            let pair = [(certificate.as_str(), "a"), (key.as_str(), "b")];
            let unused = told(&pair);
            assert!(
                unused.len() == 1 && unused[0].contains(&format!("{section}.enabled is false"))
            );
            assert!(told(&[&pair[..], &[(enabled.as_str(), "true")]].concat()).is_empty());
        }
    }
}
