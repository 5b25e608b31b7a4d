//! nginx with nchan, from Debian.
//!
//! Owns its adapter and configuration. Never keeps more messages than a burst has: messages that a
//! worker has not taken yet wait in the channel's buffer. Invariant: nchan subscribes the client
//! before it answers the upgrade.

use anyhow::Result;

use super::{Adapter, Launch, Recovery, TargetOptions, TlsFiles, installed, nginx};
use crate::dialect::{Dialect, Subscriber};
use crate::publish::{Api, Post};
use crate::wire::Position;

#[derive(Debug)]
/// nginx with nchan.
pub struct Nchan;

impl Dialect for Nchan {
    fn path(&self, who: &Subscriber<'_>) -> String {
        format!("/subscribe/{}", who.channel)
    }
}

/// With the id before every message: a second, which is the position's epoch here, and a number
/// within it.
#[derive(Debug)]
struct Numbered;

impl Dialect for Numbered {
    fn path(&self, who: &Subscriber<'_>) -> String {
        let path = Nchan.path(who);
        match who.position {
            Some(Position { epoch, offset }) => format!("{path}?last_event_id={epoch}:{offset}"),
            None => path,
        }
    }

    fn headers(&self) -> &'static str {
        "Sec-WebSocket-Protocol: ws+meta.nchan\r\n"
    }

    fn note(&self, heard: &[u8], position: &mut Position) {
        let line = heard.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let id = std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix("id: "));
        let parts = id.and_then(|id| id.trim_end().split_once(':'));
        if let Some((second, Ok(offset))) = parts.map(|(second, nth)| (second, nth.parse())) {
            *position = Position { epoch: second.to_owned(), offset };
        }
    }
}

impl Adapter for Nchan {
    fn name(&self) -> &'static str {
        "nchan"
    }

    fn about(&self) -> &'static str {
        "nginx with nchan, Debian's, one process per worker, publications by HTTP"
    }

    fn dialect(&self) -> &'static dyn Dialect {
        &Nchan
    }

    fn api(&self) -> Api {
        Api::Http(Post::bare("/publish/{}"))
    }

    fn pings(&self) -> bool {
        true
    }

    fn recovery(&self) -> Option<Recovery> {
        let by = "from the channel's message buffer, by the last message's id";
        Some(Recovery { by, dialect: &Numbered, api: self.api() })
    }

    fn launch(&self, options: &TargetOptions) -> Result<Launch> {
        let modules = [
            "/usr/lib/nginx/modules/ngx_nchan_module.so",
            "/usr/share/nginx/modules/ngx_nchan_module.so",
        ];
        let module = installed(&modules, "Debian's libnginx-mod-nchan")?;
        nginx::launch(options, &configuration(options, &module.to_string_lossy()))
    }
}

/// The listeners; with TLS, publishers have one without it.
fn listen(options: &TargetOptions) -> String {
    let (port, publish) = (options.port, options.publish_port);
    let Some(TlsFiles { certificate, key }) = &options.tls else {
        return format!("        listen 127.0.0.1:{port} reuseport backlog=8192;");
    };
    let (certificate, key) = (certificate.display(), key.display());
    format!(
        "        listen 127.0.0.1:{port} ssl reuseport backlog=8192;
        listen 127.0.0.1:{publish} reuseport backlog=8192;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.3;
        ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
        ssl_ecdh_curve X25519;"
    )
}

fn configuration(options: &TargetOptions, module: &str) -> String {
    let (dir, workers) = (options.dir.display(), options.workers);
    // 0: none.
    let ping_seconds = options.ping_seconds.unwrap_or(0);
    let listen = listen(options);
    let kept = if options.recovers { "600s" } else { "10s" };
    format!(
        "load_module {module};
daemon off;
worker_processes {workers};
worker_rlimit_nofile 20000;
pid {dir}/nginx.pid;
error_log {dir}/error.log error;
events {{ worker_connections 19000; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_timeout 3600s;
    keepalive_time 24h;
    keepalive_requests 1000000000;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    nchan_shared_memory_size 512m;
    server {{
{listen}
        location ~ ^/subscribe/(.+)$ {{
            nchan_subscriber websocket longpoll;
            nchan_channel_id $1;
            nchan_subscriber_timeout 0;
            nchan_websocket_ping_interval {ping_seconds};
            nchan_subscriber_first_message newest;
        }}
        location ~ ^/publish/(.+)$ {{
            nchan_publisher http;
            nchan_channel_id $1;
            nchan_message_buffer_length 200;
            nchan_message_timeout {kept};
        }}
    }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_noted_and_asked_from() {
        let mut position = Position::default();
        Numbered.note(b"id: 1700000000:3\ncontent-type: text/plain\n\n{}", &mut position);
        assert_eq!(position, Position { epoch: "1700000000".to_owned(), offset: 3 });
        Numbered.note(b"{\"t\":1}", &mut position);
        assert_eq!(position.offset, 3);
        let who = Subscriber { index: 0, channel: "all", position: Some(&position) };
        assert_eq!(Numbered.path(&who), "/subscribe/all?last_event_id=1700000000:3");
        let new = Subscriber { position: None, ..who };
        assert_eq!(Numbered.path(&new), "/subscribe/all");
    }
}
