//! nginx with nchan, from Debian.
//!
//! Owns its adapter and configuration. Never keeps more messages than a burst has: those that a
//! worker has not taken yet wait there. Invariant: the answer to the upgrade says that the channel
//! is subscribed to.

use std::fs;

use anyhow::{Context, Result};

use super::{Adapter, Launch, Place, installed};
use crate::dialect::Dialect;
use crate::publish::{Api, Post};

#[derive(Debug)]
pub(super) struct Nchan;

impl Dialect for Nchan {
    fn path(&self, channel: &str) -> String {
        format!("/subscribe/{channel}")
    }
}

impl Adapter for Nchan {
    fn name(&self) -> &'static str {
        "nchan"
    }

    fn about(&self) -> &'static str {
        "nginx with nchan, Debian's, a process a worker, published to by HTTP"
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

    fn launch(&self, place: &Place) -> Result<Launch> {
        let program = installed(&["/usr/sbin/nginx"], "Debian's nginx")?;
        let modules = [
            "/usr/lib/nginx/modules/ngx_nchan_module.so",
            "/usr/share/nginx/modules/ngx_nchan_module.so",
        ];
        let module = installed(&modules, "Debian's libnginx-mod-nchan")?;
        let path = place.dir.join("nginx.conf");
        let text = configuration(place, &module.to_string_lossy());
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        let told = |path: &std::path::Path| path.to_string_lossy().into_owned();
        let arguments = vec![
            "-p".to_owned(),
            told(&place.dir),
            "-c".to_owned(),
            told(&path),
            "-e".to_owned(),
            told(&place.dir.join("error.log")),
        ];
        Ok(Launch { program, arguments, environment: Vec::new() })
    }
}

fn configuration(place: &Place, module: &str) -> String {
    let (dir, port, workers) = (place.dir.display(), place.port, place.workers);
    // 0: none.
    let ping_seconds = place.ping_seconds.unwrap_or(0);
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
        listen 127.0.0.1:{port} reuseport backlog=8192;
        location ~ ^/subscribe/(.+)$ {{
            nchan_subscriber websocket;
            nchan_channel_id $1;
            nchan_subscriber_timeout 0;
            nchan_websocket_ping_interval {ping_seconds};
            nchan_subscriber_first_message newest;
        }}
        location ~ ^/publish/(.+)$ {{
            nchan_publisher http;
            nchan_channel_id $1;
            nchan_message_buffer_length 200;
            nchan_message_timeout 10s;
        }}
    }}
}}
"
    )
}
