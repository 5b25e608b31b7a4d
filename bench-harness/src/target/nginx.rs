//! Plain nginx, from Debian: files, and one fixed answer.
//!
//! Owns its adapter and configuration. Never writes the files that it serves. Invariant: nginx
//! reads a file anew for each request, so a client gets the latest content.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Adapter, Launch, TargetOptions, installed};
use crate::dialect::{Dialect, Subscriber};
use crate::publish::{Api, Post};

/// Path of the fixed answer.
pub const FIXED: &str = "/fixed";

/// Serves the files of the folder `prices` in its directory, for clients that poll.
#[derive(Debug)]
pub struct Nginx {
    /// The fixed answer.
    pub fixed: &'static str,
}

impl Dialect for Nginx {
    fn path(&self, who: &Subscriber<'_>) -> String {
        format!("/{}", who.channel)
    }
}

impl Adapter for Nginx {
    fn name(&self) -> &'static str {
        "nginx"
    }

    fn about(&self) -> &'static str {
        "nginx, Debian's, one process per worker, files in memory"
    }

    fn dialect(&self) -> &'static dyn Dialect {
        &Nginx { fixed: "" }
    }

    fn api(&self) -> Api {
        Api::Http(Post::bare("/{}"))
    }

    fn launch(&self, options: &TargetOptions) -> Result<Launch> {
        launch(options, &self.configuration(options))
    }
}

/// Writes the configuration into the directory of a target, and starts Debian's nginx with it.
///
/// # Errors
/// nginx is not installed, or the file cannot be written.
pub(super) fn launch(options: &TargetOptions, configuration: &str) -> Result<Launch> {
    let program = installed(&["/usr/sbin/nginx"], "Debian's nginx")?;
    let path = options.dir.join("nginx.conf");
    fs::write(&path, configuration).with_context(|| format!("cannot write {}", path.display()))?;
    let told = |path: &Path| path.to_string_lossy().into_owned();
    let arguments = vec![
        "-p".to_owned(),
        told(&options.dir),
        "-c".to_owned(),
        told(&path),
        "-e".to_owned(),
        told(&options.dir.join("error.log")),
    ];
    Ok(Launch { program, arguments, environment: Vec::new() })
}

impl Nginx {
    /// Without logs, ETags and file caches.
    fn configuration(&self, options: &TargetOptions) -> String {
        let (dir, port, workers) = (options.dir.display(), options.port, options.workers);
        let fixed = self.fixed.replace('\'', "");
        format!(
            "daemon off;
user root;
worker_processes {workers};
worker_rlimit_nofile 20000;
pid {dir}/nginx.pid;
error_log {dir}/error.log error;
events {{ worker_connections 19000; }}
http {{
    access_log off;
    tcp_nodelay on;
    etag off;
    server_tokens off;
    keepalive_timeout 3600s;
    keepalive_time 24h;
    keepalive_requests 1000000000;
    default_type application/json;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    server {{
        listen 127.0.0.1:{port} reuseport backlog=8192;
        root {dir}/prices;
        location = {FIXED} {{ return 200 '{fixed}'; }}
    }}
}}
"
        )
    }
}
