//! Centrifugo: Drumline's own protocol and HTTP API, so nothing but the server differs.
//!
//! Owns its adapters, one as it comes and one tuned. Never uses an option of the paid edition.
//! Invariant: channels have the same options as Drumline's.

use anyhow::Result;

use super::drumline::Drumline;
use super::{Adapter, HISTORY, Launch, MEMBERS, Recovery, SILENT_SECONDS, TargetOptions};
use crate::dialect::Dialect;
use crate::publish::Api;
use crate::server::API_KEY;

/// How Centrifugo is configured.
#[derive(Debug)]
pub(super) enum Centrifugo {
    /// With its defaults.
    AsItComes,
    /// For little memory per connection.
    Tuned,
}

/// The variables that tune it: the write buffers of idle connections return to a pool, and the
/// buffers are small.
const TUNED: [(&str, &str); 3] = [
    ("CENTRIFUGO_WEBSOCKET_USE_WRITE_BUFFER_POOL", "true"),
    ("CENTRIFUGO_WEBSOCKET_READ_BUFFER_SIZE", "512"),
    ("CENTRIFUGO_WEBSOCKET_WRITE_BUFFER_SIZE", "512"),
];

impl Adapter for Centrifugo {
    fn name(&self) -> &'static str {
        match self {
            Centrifugo::AsItComes => "centrifugo",
            Centrifugo::Tuned => "centrifugo-tuned",
        }
    }

    fn about(&self) -> &'static str {
        match self {
            Centrifugo::AsItComes => {
                "Centrifugo 6.9.1 with its defaults, JSON, publications by HTTP, GOMAXPROCS as many \
                 as the workers of the others"
            }
            Centrifugo::Tuned => {
                "the same with websocket.use_write_buffer_pool, websocket.read_buffer_size 512 and \
                 websocket.write_buffer_size 512"
            }
        }
    }

    fn dialect(&self) -> &'static dyn Dialect {
        Drumline.dialect()
    }

    fn api(&self) -> Api {
        Drumline.api()
    }

    fn pings(&self) -> bool {
        true
    }

    fn answers_requests(&self) -> bool {
        true
    }

    fn recovery(&self) -> Option<Recovery> {
        Drumline.recovery()
    }

    fn launch(&self, options: &TargetOptions) -> Result<Launch> {
        let program = options.made("centrifugo/centrifugo")?;
        let ping = options.ping_seconds.unwrap_or(SILENT_SECONDS);
        let mut environment: Vec<(String, String)> = [
            ("CENTRIFUGO_HTTP_SERVER_ADDRESS", "127.0.0.1".to_owned()),
            ("CENTRIFUGO_HTTP_SERVER_PORT", options.port.to_string()),
            ("CENTRIFUGO_HTTP_API_KEY", API_KEY.to_owned()),
            ("CENTRIFUGO_CLIENT_INSECURE", "true".to_owned()),
            ("CENTRIFUGO_CLIENT_PING_INTERVAL", format!("{ping}s")),
            ("CENTRIFUGO_CLIENT_PONG_TIMEOUT", format!("{}s", ping - 1)),
            ("CENTRIFUGO_LOG_LEVEL", "error".to_owned()),
            ("GOMAXPROCS", options.workers.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec();
        let mut channel: Vec<&str> = Vec::new();
        if options.recovers {
            channel.extend(HISTORY);
        }
        if options.members {
            channel.extend(MEMBERS);
        }
        environment.extend(channel.into_iter().filter_map(|option| {
            let (key, value) = option.split_once('=')?;
            let key = key.to_ascii_uppercase();
            Some((format!("CENTRIFUGO_CHANNEL_WITHOUT_NAMESPACE_{key}"), value.to_owned()))
        }));
        if let Some(tls) = &options.tls {
            // Without `tls_external` the internal port, which publishers use, has TLS too.
            let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
            environment.extend(
                [
                    ("CENTRIFUGO_HTTP_SERVER_TLS_ENABLED", "true".to_owned()),
                    ("CENTRIFUGO_HTTP_SERVER_TLS_CERT_PEM", path(&tls.certificate)),
                    ("CENTRIFUGO_HTTP_SERVER_TLS_KEY_PEM", path(&tls.key)),
                    ("CENTRIFUGO_HTTP_SERVER_TLS_EXTERNAL", "true".to_owned()),
                    ("CENTRIFUGO_HTTP_SERVER_INTERNAL_PORT", options.publish_port.to_string()),
                ]
                .map(|(name, value)| (name.to_owned(), value)),
            );
        }
        if matches!(self, Centrifugo::Tuned) {
            environment.extend(TUNED.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        Ok(Launch { program, arguments: Vec::new(), environment })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    #[test]
    fn only_the_tuned_one_has_other_buffers_and_both_have_the_options_of_the_channel() {
        let peers = tempfile::tempdir().unwrap();
        fs::create_dir(peers.path().join("centrifugo")).unwrap();
        fs::write(peers.path().join("centrifugo/centrifugo"), "").unwrap();
        let options = TargetOptions {
            server: PathBuf::new(),
            server_arguments: Vec::new(),
            peers: peers.path().to_owned(),
            dir: PathBuf::new(),
            port: 8000,
            publish_port: 8000,
            workers: 2,
            ping_seconds: None,
            recovers: true,
            members: false,
            tls: None,
        };
        let of = |target: Centrifugo| target.launch(&options).unwrap().environment;
        let (plain, tuned) = (of(Centrifugo::AsItComes), of(Centrifugo::Tuned));
        assert_eq!(tuned[..plain.len()], plain);
        assert_eq!(tuned.len(), plain.len() + TUNED.len());
        let kept = ("CENTRIFUGO_CHANNEL_WITHOUT_NAMESPACE_HISTORY_SIZE", "100");
        assert!(plain.contains(&(kept.0.to_owned(), kept.1.to_owned())), "{plain:?}");
        assert!(!plain.iter().any(|(name, _)| name.ends_with("PRESENCE")), "{plain:?}");
    }
}
