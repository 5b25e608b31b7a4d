//! The article's server: it answers each request with the article's response head and a price.
//!
//! Owns its socket and thread. Never parses more of a request than its end.

use std::net::Ipv4Addr;
use std::sync::PoisonError;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::article::RESPONSE_HEAD;
use super::feed::Latest;
use super::service::Service;
use crate::wire;

/// Starts the server on a port of its own.
pub(super) fn start(latest: Latest) -> Result<Service> {
    Service::start("servlet", async || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context("the servlet cannot listen")?;
        let address = listener.local_addr().context("the servlet has no address")?;
        Ok((address, serve(listener, latest)))
    })
}

async fn serve(listener: TcpListener, latest: Latest) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(answer(stream, latest.clone()));
    }
}

/// Answers until the client closes the connection.
async fn answer(mut stream: TcpStream, latest: Latest) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut heard = Vec::with_capacity(2048);
    loop {
        while let Some(head) = wire::head_bytes(&heard) {
            heard.drain(..head);
            let response = response(&latest.lock().unwrap_or_else(PoisonError::into_inner));
            stream.write_all(&response).await.ok()?;
        }
        if stream.read_buf(&mut heard).await.ok()? == 0 {
            return None;
        }
    }
}

/// The response with this price.
fn response(price: &[u8]) -> Vec<u8> {
    let head = RESPONSE_HEAD.replace("{}", &price.len().to_string());
    [head.as_bytes(), price].concat()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::SocketAddr;
    use std::sync::{Arc, Mutex};

    use super::super::article::{PATH, REQUEST_HEADERS, WIRE_BYTES};
    use super::*;

    #[test]
    fn a_request_and_its_response_have_the_bytes_of_the_article() {
        let latest: Latest = Arc::new(Mutex::new(vec![b'x'; 21]));
        let service = start(latest.clone()).unwrap();
        let mut stream = std::net::TcpStream::connect(service.address()).unwrap();
        let request = format!("GET {PATH} HTTP/1.1\r\n{REQUEST_HEADERS}\r\n");
        for letter in *b"xy" {
            *latest.lock().unwrap() = vec![letter; 21];
            stream.write_all(request.as_bytes()).unwrap();
            let mut response = vec![0; WIRE_BYTES as usize - request.len() + 21];
            stream.read_exact(&mut response).unwrap();
            assert!(response.starts_with(b"HTTP/1.1 200 OK\r\nX-Powered-By: Servlet/2.5\r\n"));
            assert!(response.ends_with(&[letter; 21]));
        }
        drop(service);
        let address: SocketAddr = stream.peer_addr().unwrap();
        assert!(std::net::TcpStream::connect(address).is_err(), "it has ended");
    }
}
