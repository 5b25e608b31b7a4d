//! The article's server as a process: it answers each request with the article's response head and
//! the latest price, which is posted to it.
//!
//! Owns its sockets and the price. Never parses more of a request than its kind and its end.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::article::RESPONSE_HEAD;
use crate::dialect::{Dialect, Subscriber};
use crate::plain;
use crate::publish::{Api, Post};
use crate::target::{Adapter, Launch, TargetOptions};
use crate::wire;

/// The answer to a posted price.
const TAKEN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// Flags of the process.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Port on 127.0.0.1.
    #[arg(long)]
    port: u16,
    /// Number of threads.
    #[arg(long)]
    workers: usize,
}

/// Starts it.
#[derive(Debug)]
pub(super) struct Servlet;

impl Dialect for Servlet {
    fn path(&self, who: &Subscriber<'_>) -> String {
        format!("/{}", who.channel)
    }
}

impl Adapter for Servlet {
    fn name(&self) -> &'static str {
        "servlet"
    }

    fn about(&self) -> &'static str {
        "the article's response head and the latest price, on tokio"
    }

    fn dialect(&self) -> &'static dyn Dialect {
        &Servlet
    }

    fn api(&self) -> Api {
        Api::Http(Post::bare("/publish/{}"))
    }

    fn launch(&self, options: &TargetOptions) -> Result<Launch> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let arguments = vec![
            "showdown-servlet".to_owned(),
            format!("--port={}", options.port),
            format!("--workers={}", options.workers),
        ];
        Ok(Launch { program, arguments, environment: Vec::new() })
    }
}

/// The latest price of any channel.
type Latest = Arc<Mutex<Vec<u8>>>;

/// Serves until it is ended.
pub fn serve(options: &Options) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.workers)
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(run(options.port))
}

async fn run(port: u16) -> Result<()> {
    accept(plain::listen(port)?, Latest::default()).await
}

async fn accept(listener: TcpListener, latest: Latest) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await.context("the servlet cannot accept")?;
        tokio::spawn(answer(stream, latest.clone()));
    }
}

/// Answers until the client closes the connection.
async fn answer(mut stream: TcpStream, latest: Latest) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut heard = Vec::with_capacity(2048);
    loop {
        while let Some((head, end)) = first_request(&heard) {
            let response = take(&heard[..end], head, &latest);
            heard.drain(..end);
            stream.write_all(&response).await.ok()?;
        }
        if stream.read_buf(&mut heard).await.ok()? == 0 {
            return None;
        }
    }
}

fn is_post(request: &[u8]) -> bool {
    request.starts_with(b"POST ")
}

/// Where the head and the body of the first request end; `None`: the request is incomplete.
fn first_request(heard: &[u8]) -> Option<(usize, usize)> {
    let head = wire::head_bytes(heard)?;
    let mut end = head;
    if is_post(heard) {
        let text = String::from_utf8_lossy(&heard[..head]).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
        end += length?.trim().parse::<usize>().ok()?;
    }
    (heard.len() >= end).then_some((head, end))
}

/// Keeps a posted price, or gives the latest one. Returns the response.
fn take(request: &[u8], head: usize, latest: &Latest) -> Vec<u8> {
    let mut latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
    if is_post(request) {
        *latest = request[head..].to_vec();
        return TAKEN.to_vec();
    }
    let response = RESPONSE_HEAD.replace("{}", &latest.len().to_string());
    [response.as_bytes(), &latest].concat()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::super::article::{PATH, REQUEST_HEADERS, WIRE_BYTES};
    use super::super::service::Service;
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_request_and_its_response_have_the_bytes_of_the_article() {
        let service = Service::start("servlet", async || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let address = listener.local_addr()?;
            let serving = async { drop(accept(listener, Latest::default()).await) };
            Ok((address, serving))
        });
        let address = service.as_ref().unwrap().address();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let request = format!("GET {PATH} HTTP/1.1\r\n{REQUEST_HEADERS}\r\n");
        for letter in *b"xy" {
            let price = [letter; 21];
            stream.write_all(b"POST /publish/all HTTP/1.1\r\nContent-Length: 21\r\n\r\n").unwrap();
            stream.write_all(&price).unwrap();
            let mut taken = [0; TAKEN.len()];
            stream.read_exact(&mut taken).unwrap();
            assert_eq!(taken, TAKEN);
            stream.write_all(request.as_bytes()).unwrap();
            let mut response = vec![0; WIRE_BYTES as usize - request.len() + 21];
            stream.read_exact(&mut response).unwrap();
            assert!(response.starts_with(b"HTTP/1.1 200 OK\r\nX-Powered-By: Servlet/2.5\r\n"));
            assert!(response.ends_with(&price));
        }
    }

    #[test]
    fn a_request_ends_with_its_body() {
        assert_eq!(first_request(b"GET / HTTP/1.1\r\n\r\nGET"), Some((18, 18)));
        let post = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(first_request(post), Some((post.len() - 3, post.len())));
        assert_eq!(first_request(&post[..post.len() - 1]), None);
        assert_eq!(first_request(b"GET / HTTP/1.1\r\n"), None);
    }
}
