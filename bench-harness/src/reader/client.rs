//! One client: its socket, its requests and what it reads.
//!
//! Owns the socket. Never decides what counts.

use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::TcpStream;

use super::shape::{Shape, part};
use super::tally::Shared;
use super::way::{Request, Way, note_headers};
use crate::wire::Position;

const READ_BYTES: usize = 2048;

/// Runs a client until the runtime ends.
pub(super) async fn client(shared: Rc<Shared>, index: u64) {
    let channel = shared.plan.channels.of(index);
    let mut client = Client {
        channel,
        index,
        stream: None,
        shape: Shape::Head,
        rest: Vec::new(),
        buffer: vec![0; READ_BYTES],
        position: Position::default(),
        is_up: false,
        shared: shared.clone(),
    };
    let ended = match shared.plan.way {
        Way::Polling => client.poll().await,
        Way::LongPolling | Way::LongPollingNchan => client.poll_long().await,
        Way::HttpStream | Way::Sse | Way::WebSocket | Way::UniWebSocket => client.listen().await,
    };
    if let Err(error) = ended {
        shared.fail(index, &error);
    }
}

struct Client {
    shared: Rc<Shared>,
    index: u64,
    channel: String,
    stream: Option<TcpStream>,
    shape: Shape,
    /// Read and not taken.
    rest: Vec<u8>,
    buffer: Vec<u8>,
    /// Of the last price, for long polls.
    position: Position,
    is_up: bool,
}

impl Client {
    /// Polls at regular times, each client at its own.
    async fn poll(&mut self) -> Result<()> {
        let (interval_ns, clients) = (self.shared.plan.interval_ns, self.shared.plan.clients);
        let now_ns = self.shared.clock.now_ns();
        let mut due_ns = now_ns - now_ns % interval_ns + interval_ns * self.index / clients;
        let request = self.request(None);
        self.exchange(&request).await?;
        loop {
            while due_ns <= self.shared.clock.now_ns() {
                due_ns += interval_ns;
            }
            if self.shared.is_over() {
                return Ok(());
            }
            monoio::time::sleep(self.shared.clock.until(due_ns)).await;
            self.exchange(&request).await?;
        }
    }

    /// Asks for what comes after the last price, again and again.
    async fn poll_long(&mut self) -> Result<()> {
        while !self.shared.is_over() {
            let known = !self.position.epoch.is_empty();
            let request = self.request(known.then_some(&self.position));
            self.exchange(&request).await?;
        }
        Ok(())
    }

    /// Sends the request that opens a stream and reads to its end.
    async fn listen(&mut self) -> Result<()> {
        let request = self.request(None);
        self.exchange(&request).await?;
        anyhow::bail!("the server ended the stream")
    }

    fn request(&self, position: Option<&Position>) -> Request {
        let plan = &self.shared.plan;
        plan.way.request((&plan.path, &plan.headers), &self.channel, position)
    }

    /// Sends a request and reads until its response ends, by its length or with the connection.
    async fn exchange(&mut self, request: &Request) -> Result<()> {
        if self.stream.is_none() {
            let stream = TcpStream::connect_addr(self.shared.plan.server).await;
            let stream = stream.context("cannot connect")?;
            stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
            self.stream = Some(stream);
            (self.shape, self.rest) = (Shape::Head, Vec::new());
        }
        self.shared.sent(request.head.len(), request.body.len());
        self.write([&request.head[..], &request.body].concat()).await?;
        if self.shared.plan.way == Way::LongPollingNchan {
            // The head comes with the next price.
            self.come_up();
        }
        loop {
            if self.take()? {
                return Ok(());
            }
            if self.shape == Shape::Frames && !self.is_up {
                self.come_up();
                let hello = self.shared.plan.way.hello(&self.channel);
                self.write(hello).await?;
            }
            let stream = self.stream.as_mut().context("not connected")?;
            let (read, buffer) = stream.read(std::mem::take(&mut self.buffer)).await;
            self.buffer = buffer;
            let read = read.context("cannot read")?;
            if read == 0 {
                let ended = self.shape == Shape::Lines && self.shared.plan.way == Way::LongPolling;
                ensure!(ended, "the server closed the connection");
                self.stream = None;
                return Ok(());
            }
            self.rest.extend_from_slice(&self.buffer[..read]);
        }
    }

    async fn write(&mut self, bytes: Vec<u8>) -> Result<()> {
        let stream = self.stream.as_mut().context("not connected")?;
        let (written, _) = stream.write_all(bytes).await;
        written.context("cannot write")?;
        Ok(())
    }

    /// Takes the complete parts that were read. Returns whether a response ended.
    fn take(&mut self) -> Result<bool> {
        let mut used = 0;
        let mut ended = false;
        while let Some(part) = part(self.shared.plan.way, self.shape, &self.rest[used..])? {
            let message = &self.rest[used..][part.message.clone()];
            self.shared.received(self.index, &part, message)?;
            match self.shared.plan.way {
                Way::LongPolling => self.position.update(message),
                Way::LongPollingNchan if self.shape == Shape::Head => {
                    note_headers(&self.rest[used..used + part.used], &mut self.position);
                }
                _ => {}
            }
            used += part.used;
            self.shape = part.next;
            if self.shape != Shape::Frames {
                self.come_up();
            }
            if part.last {
                ended = true;
                break;
            }
        }
        self.rest.drain(..used);
        Ok(ended)
    }

    /// Counts this client as up, once.
    fn come_up(&mut self) {
        if !std::mem::replace(&mut self.is_up, true) {
            self.shared.window.come_up();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::window::Window;
    use super::super::{ReaderPlan, read};
    use super::*;
    use crate::clock::RunClock;
    use crate::dense::Channels;
    use crate::wire::Stamp;

    /// Answers each request of one connection with a price.
    fn serve(listener: TcpListener, requests: usize) {
        let (mut stream, _) = listener.accept().unwrap();
        for sequence in 1..=requests as u32 {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap() == 0 {
                    return;
                }
                head.extend(byte);
            }
            let mut price = Vec::new();
            Stamp { due_ns: 1, phase: 1, sequence }.write(48, &mut price);
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", price.len());
            stream.write_all(&[answer.as_bytes(), &price].concat()).unwrap();
        }
        std::thread::sleep(Duration::from_secs(2));
    }

    #[test]
    fn a_client_polls_at_its_times_and_counts_all_bytes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let plan = ReaderPlan {
            server: listener.local_addr().unwrap(),
            way: Way::Polling,
            clients: 1,
            channels: Channels::Shared("all".into()),
            path: "/price".into(),
            headers: "Host: a\r\n".into(),
            interval_ns: 10_000_000,
            bytes: 48,
        };
        let server = std::thread::spawn(move || serve(listener, 1000));
        let (clock, window) = (RunClock::start(), Arc::new(Window::default()));
        window.set(clock.now_ns(), clock.now_ns() + 500_000_000);
        let reading = read(plan, clock, window.clone()).unwrap();
        let readings = reading.outcome().unwrap();
        let counts = readings.counts;
        assert_eq!(window.up(), 1);
        assert!(counts.prices >= 5, "{counts:?}");
        assert_eq!((counts.fresh, counts.skipped), (counts.prices, 0));
        let head = "GET /price HTTP/1.1\r\nHost: a\r\n\r\n".len() as u64;
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 48\r\n\r\n".len() as u64;
        assert_eq!(counts.framing, counts.requests * head + counts.prices * answer);
        assert_eq!((counts.envelope, counts.payload), (0, counts.prices * 48));
        reading.end().unwrap();
        server.join().unwrap();
    }
}
