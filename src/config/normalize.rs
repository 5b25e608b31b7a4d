//! Brings equivalent values of a loaded configuration into one form.
//!
//! Owns no state. Never refuses a value. The invariant: two configurations that mean the same have
//! the same ports and paths.

use super::sections::Config;

impl Config {
    /// Removes slashes at the end of paths, and an internal port that is the public one.
    pub(super) fn normalize(&mut self) {
        let server = &mut self.http_server;
        let is_same_address = ["", server.address.as_str()].contains(&&*server.internal_address);
        if is_same_address && server.internal_port == server.port {
            server.internal_port = 0;
        }
        for path in [
            &mut self.http_api.handler_prefix,
            &mut self.websocket.handler_prefix,
            &mut self.uni_websocket.handler_prefix,
            &mut self.http_stream.handler_prefix,
            &mut self.sse.handler_prefix,
            &mut self.uni_http_stream.handler_prefix,
            &mut self.uni_sse.handler_prefix,
            &mut self.long_polling.handler_prefix,
            &mut self.polling.handler_prefix,
            &mut self.emulation.handler_prefix,
            &mut self.prometheus.handler_prefix,
            &mut self.health.handler_prefix,
            &mut self.swagger.handler_prefix,
        ] {
            path.truncate(path.trim_end_matches('/').len());
            if path.is_empty() {
                path.push('/');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use crate::config::{Config, Error, Sources, load};

    fn load_flags(flags: &[(&str, &str)]) -> Result<Config, Error> {
        let flags = flags.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect();
        let file = Some(PathBuf::from("/dev/null"));
        load(&Sources { file, flags, ..Sources::default() }).map(|loaded| loaded.config)
    }

    /// The path of the publish method on the shards.
    fn publish_path(config: &Config) -> Option<String> {
        let paths = config.routes();
        let mut paths = paths.iter().map(|route| route.path.clone());
        paths.find(|path| path.ends_with("/publish"))
    }

    #[test]
    fn paths_are_the_same_with_and_without_a_slash_at_their_end() {
        for (given, kept, publish) in [
            ("/api", "/api", "/api/publish"),
            ("/api/", "/api", "/api/publish"),
            ("/a/b//", "/a/b", "/a/b/publish"),
            ("/", "/", "/publish"),
            ("", "/", "/publish"),
        ] {
            let config = load_flags(&[("http_api.handler_prefix", given)]).unwrap();
            assert_eq!(config.http_api.handler_prefix, kept, "{given:?}");
            assert_eq!(publish_path(&config).as_deref(), Some(publish), "{given:?}");
        }
        let refused = load_flags(&[("health.handler_prefix", "/api/")]).unwrap_err();
        assert!(refused.cause.contains("are the same"), "{refused}");
        let page = ("page.enabled", "true");
        assert!(load_flags(&[("http_api.handler_prefix", "/"), page]).is_ok());
        let refused = load_flags(&[("websocket.handler_prefix", ""), page]).unwrap_err();
        assert!(refused.cause.starts_with("websocket.handler_prefix is `/`"), "{refused}");
    }

    #[test]
    fn the_api_is_on_the_public_port_without_an_internal_port_or_with_external() {
        let check = |flags: &[(&str, &str)], internal_port: u16, is_public: bool| {
            let config = load_flags(flags).unwrap();
            assert_eq!(config.http_server.internal_port, internal_port, "{flags:?}");
            assert_eq!(publish_path(&config).is_some(), is_public, "{flags:?}");
        };
        check(&[], 0, true);
        check(&[("http_server.internal_port", "8000")], 0, true);
        check(&[("http_server.internal_port", "9000")], 9000, false);
        check(&[("http_server.internal_port", "9000"), ("http_api.external", "true")], 9000, true);
        let address = ("http_server.address", "127.0.0.1");
        let same = ("http_server.internal_address", "127.0.0.1");
        check(&[("http_server.internal_port", "8000"), address, same], 0, true);
        let other = ("http_server.internal_address", "127.0.0.2");
        let refused = load_flags(&[("http_server.internal_port", "8000"), address, other]);
        assert!(refused.unwrap_err().cause.contains("internal_port are the same"));
    }
}
