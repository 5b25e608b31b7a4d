//! The admin page: its rules, and its settings for the control plane.
//!
//! Owns the rules between its keys. Never serves a page. The invariant: the page is only on the
//! internal port, or on a server that listens on loopback.

use super::error::{Error, error};
use super::sections::Config;
use crate::base::listeners::ListenAddress;
use crate::base::password::{HashFault, PasswordHash};

/// What to do about a password that is not a hash.
const MAKE_HASH: &str = "print its hash with `drumline hash-password`, and set the key to the hash";

impl Config {
    /// Hash of the password of the admin page; `None`: the page is disabled.
    pub fn admin_password(&self) -> Option<PasswordHash> {
        let password = self.admin.password.reveal();
        self.admin.enabled.then(|| PasswordHash::parse(password).ok()).flatten()
    }

    /// Path of the admin page, which ends with a slash.
    pub fn admin_path(&self) -> String {
        format!("{}/", self.admin.handler_prefix.trim_end_matches('/'))
    }

    /// Gives the path of the page of an open server to the admin page if both would have it and
    /// only the admin page was asked for.
    pub(super) fn give_admin_the_start_page(&mut self, flags: &[(String, String)]) {
        let is_asked_for = flags.iter().any(|(path, _)| path == "page.enabled");
        if self.admin.enabled && self.admin_path() == "/" && !is_asked_for {
            self.page.enabled = false;
        }
    }

    /// Checks the keys of the admin page.
    pub(super) fn check_admin(&self) -> Result<(), Error> {
        let (admin, server) = (&self.admin, &self.http_server);
        if !admin.enabled {
            return Ok(());
        }
        if admin.password.is_empty() {
            return Err(error("admin.password is not set, but admin.enabled is true", MAKE_HASH));
        }
        match PasswordHash::parse(admin.password.reveal()) {
            Err(HashFault::Form) => {
                return Err(error("admin.password is not an argon2 hash", MAKE_HASH));
            }
            Err(HashFault::Cost) => {
                let cause = "admin.password: the hash takes too much memory or time to verify";
                return Err(error(cause, "make it with `drumline hash-password`"));
            }
            Ok(_) => {}
        }
        let minutes = admin.session_ttl.millis() / 60_000;
        if !(1..=30 * 24 * 60).contains(&minutes) {
            let cause = format!("admin.session_ttl is {}", admin.session_ttl);
            return Err(error(cause, "use a duration from 1m to 720h"));
        }
        // A Unix socket counts as public, because a proxy serves others through it.
        let is_loopback = |address: &ListenAddress| match address {
            ListenAddress::Tcp(address) => address.ip().is_loopback(),
            ListenAddress::Unix { .. } => false,
        };
        let is_local = self.listen_addresses().is_ok_and(|all| all.iter().all(is_loopback));
        // A proxy before a loopback address serves others through it.
        let is_proxied = self.entrances().iter().any(|entrance| entrance.proxy_protocol)
            || !server.trusted_proxies.is_empty();
        if server.internal_port == 0 && (!is_local || is_proxied) {
            return Err(error(
                "admin.enabled is true, but the public port would serve the admin page",
                "set http_server.internal_port, or listen on loopback addresses only, without a \
                 proxy",
            ));
        }
        Ok(())
    }

    /// Checks that the admin page takes no path of another endpoint.
    pub(super) fn check_admin_paths(&self, others: &[(&str, &String)]) -> Result<(), Error> {
        if !self.admin.enabled {
            return Ok(());
        }
        let page = self.admin_path();
        let is_plain = page.starts_with('/')
            && page.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte));
        if !is_plain {
            return Err(error(
                format!(
                    "admin.handler_prefix: `{}` is not a valid path",
                    self.admin.handler_prefix
                ),
                "start it with a slash, and use letters, digits and `-_.~` only",
            ));
        }
        let bare = page.trim_end_matches('/');
        let folder = format!("{bare}/admin");
        let takes = |path: &str| {
            let path = path.trim_end_matches('/');
            path == bare || path == folder || path.starts_with(&format!("{folder}/"))
        };
        // The API only takes POST at its own path, so it can share `/` with the page.
        let api = |section: &str, path: &str| section == "http_api" && path == "/";
        let taken = others.iter().find(|(section, path)| takes(path) && !api(section, path));
        let taken = taken.map(|(section, _)| format!("{section}.handler_prefix"));
        let start_page = (self.page.enabled && bare.is_empty()).then(|| "page.enabled".to_owned());
        match taken.or(start_page) {
            Some(key) => Err(error(
                format!("admin.handler_prefix: {key} needs a path of the admin page"),
                "set admin.handler_prefix to another path, such as `/ops`",
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use crate::base::password;
    use crate::config::{Config, Error, Sources, load};

    fn load_flags(flags: &[(&str, &str)]) -> Result<Config, Error> {
        let flags = flags.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect();
        let file = Some(PathBuf::from("/dev/null"));
        load(&Sources { file, flags, ..Sources::default() }).map(|loaded| loaded.config)
    }

    #[test]
    fn the_admin_page_needs_a_hash_and_a_port_that_clients_do_not_reach() {
        let hash = password::hash(b"hunter2").unwrap();
        let (on, set) = (("admin.enabled", "true"), ("admin.password", hash.as_str()));
        let inside = ("http_server.internal_port", "9000");
        let here = ("http_server.address", "127.0.0.1");
        let further = r#"[{"name":"all","address":"0.0.0.0","port":8001}]"#;
        let refused = |flags: &[(&str, &str)]| load_flags(flags).unwrap_err().to_string();
        for (flags, cause) in [
            (vec![on, inside], "admin.password is not set"),
            (vec![on, inside, ("admin.password", "hunter2")], "not an argon2 hash"),
            (vec![on, set], "the public port would serve the admin page"),
            (vec![on, set, ("http_server.address", "10.0.0.1")], "the public port would serve"),
            (
                vec![on, set, here, ("http_server.listeners", further)],
                "the public port would serve",
            ),
            (vec![on, set, here, ("http_server.proxy_protocol", "true")], "the public port would"),
            (vec![on, set, here, ("http_server.trusted_proxies", "::1")], "the public port would"),
            (vec![on, set, inside, ("page.enabled", "true")], "page.enabled needs a path"),
            (vec![on, set, inside, ("health.handler_prefix", "/")], "health.handler_prefix needs"),
            (vec![on, set, inside, ("sse.handler_prefix", "/admin/x")], "sse.handler_prefix needs"),
            (vec![on, set, inside, ("admin.session_ttl", "3s")], "admin.session_ttl is 3s"),
            (vec![on, set, inside, ("admin.handler_prefix", "admin")], "admin.handler_prefix"),
            (vec![on, set, inside, ("admin.handler_prefix", "/metrics")], "admin.handler_prefix"),
        ] {
            let told = refused(&flags);
            assert!(told.contains(cause) && !told.contains("hunter2"), "{flags:?}: {told}");
        }
        let told = refused(&[on, inside, ("admin.password", "hunter2")]);
        assert!(told.contains("drumline hash-password"), "{told}");
        let off = load_flags(&[("admin.password", "hunter2")]).unwrap();
        assert!(off.admin_password().is_none(), "a page that is off needs no hash");
        let inside = load_flags(&[on, set, inside]).unwrap();
        assert!(inside.admin_password().unwrap().verifies(b"hunter2"));
        assert_eq!(inside.admin_path(), "/");
        let local = [on, set, ("http_server.address", "::1"), ("admin.handler_prefix", "/ops/")];
        assert_eq!(load_flags(&local).unwrap().admin_path(), "/ops/");
    }

    #[test]
    fn the_admin_page_of_an_open_server_takes_the_place_of_the_start_page() {
        let hash = password::hash(b"hunter2").unwrap();
        let open = |flags: &[(&str, &str)]| {
            let flags = flags.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect();
            load(&Sources { flags, ..Sources::default() }).map(|loaded| {
                assert!(loaded.access.is_open());
                loaded.config
            })
        };
        let (on, set) = (("admin.enabled", "true"), ("admin.password", hash.as_str()));
        let told = open(&[on]).unwrap_err().to_string();
        assert!(told.contains("password") && told.contains("drumline hash-password"), "{told}");
        let config = open(&[on, set]).unwrap();
        assert!(config.admin_path() == "/" && !config.page.enabled);
        let apart = open(&[on, set, ("admin.handler_prefix", "/ops")]).unwrap();
        assert!(apart.admin_path() == "/ops/" && apart.page.enabled);
        let both = open(&[on, set, ("page.enabled", "true")]).unwrap_err().to_string();
        assert!(both.contains("page.enabled needs a path of the admin page"), "{both}");
    }
}
