//! Server on monoio: one runtime per thread, two tasks per connection with a queue between them.
//! The first thread forwards publications to the others through socket pairs.
//!
//! Owns the topics of each thread. Never shares memory between threads. Invariant: each thread
//! encodes a frame once, and each subscriber's task writes it separately.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream as Pipe;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use futures_channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures_util::StreamExt;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt, OwnedWriteHalf, Splitable};
use monoio::net::{ListenerOpts, TcpListener, TcpStream, UnixStream};
use tungstenite::handshake::derive_accept_key;

use super::options::{BACKLOG, Options};
use crate::wire::head_bytes;

/// Bytes of a connection's buffer.
const READ_BYTES: usize = 1024;
/// First byte of a text frame.
const TEXT: u8 = 0x81;
/// A whole ping frame.
const PING: [u8; 2] = [0x89, 0];

type Frame = Rc<Vec<u8>>;

/// The subscribers of one thread by topic.
#[derive(Default)]
struct Topics {
    next: u64,
    members: HashMap<String, HashMap<u64, UnboundedSender<Frame>>>,
}

impl Topics {
    fn subscribe(&mut self, topic: &str) -> (u64, UnboundedReceiver<Frame>) {
        let (sender, receiver) = unbounded();
        self.next += 1;
        self.members.entry(topic.to_owned()).or_default().insert(self.next, sender);
        (self.next, receiver)
    }

    fn leave(&mut self, topic: &str, member: u64) {
        if let Some(members) = self.members.get_mut(topic) {
            members.remove(&member);
            if members.is_empty() {
                self.members.remove(topic);
            }
        }
    }

    fn publish(&self, topic: &str, payload: &[u8]) {
        let Some(members) = self.members.get(topic) else { return };
        send(members, frame(payload));
    }

    fn ping(&self) {
        self.members.values().for_each(|members| send(members, PING.to_vec()));
    }
}

fn send(members: &HashMap<u64, UnboundedSender<Frame>>, frame: Vec<u8>) {
    let frame = Rc::new(frame);
    for member in members.values() {
        // One that is leaving takes no more.
        let _ = member.unbounded_send(frame.clone());
    }
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![TEXT];
    match payload.len() {
        short @ 0..=125 => frame.push(short as u8),
        medium @ 126..=0xffff => {
            frame.push(126);
            frame.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            frame.push(127);
            frame.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// A thread's own state.
#[derive(Clone)]
struct Thread {
    topics: Rc<RefCell<Topics>>,
    /// Toward the other threads; only the first one has them.
    others: Rc<Vec<UnboundedSender<Frame>>>,
}

/// Serves until it is ended.
pub fn serve(options: &Options) -> Result<()> {
    let mut far = Vec::new();
    let mut threads = Vec::new();
    for _ in 1..options.workers {
        let (near, other) = Pipe::pair().context("cannot make a pair of sockets")?;
        far.push(near);
        let (port, ping_seconds) = (options.port, options.ping_seconds);
        threads.push(std::thread::spawn(move || {
            runtime(async move {
                let topics = Rc::default();
                let thread = Thread { topics, others: Rc::default() };
                monoio::spawn(forwarded(UnixStream::from_std(other)?, thread.topics.clone()));
                monoio::spawn(ping(ping_seconds, thread.topics.clone()));
                accept(port, thread, subscriber).await
            })
        }));
    }
    let (port, publish_port, ping_seconds) =
        (options.port, options.publish_port, options.ping_seconds);
    runtime(async move {
        let others = far.into_iter().map(|pipe| Ok(forward(UnixStream::from_std(pipe)?)));
        let others = Rc::new(others.collect::<Result<Vec<_>>>()?);
        let thread = Thread { topics: Rc::default(), others };
        monoio::spawn(accept(publish_port, thread.clone(), publisher));
        monoio::spawn(ping(ping_seconds, thread.topics.clone()));
        accept(port, thread, subscriber).await
    })?;
    for thread in threads {
        thread.join().map_err(|_| anyhow!("a thread panicked"))??;
    }
    Ok(())
}

fn runtime(main: impl Future<Output = Result<()>>) -> Result<()> {
    let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
        .enable_timer()
        .build()
        .context("cannot set up a ring")?;
    runtime.block_on(main)
}

/// Pings all subscribers of a thread, again and again; without an interval nobody.
async fn ping(seconds: Option<u64>, topics: Rc<RefCell<Topics>>) {
    let Some(seconds) = seconds else { return };
    loop {
        monoio::time::sleep(Duration::from_secs(seconds)).await;
        topics.borrow().ping();
    }
}

/// A task for every connection to a port.
async fn accept<F>(port: u16, thread: Thread, serve: fn(TcpStream, Thread) -> F) -> Result<()>
where
    F: Future<Output = Result<()>> + 'static,
{
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let options = ListenerOpts::new().backlog(BACKLOG as i32);
    let listener = TcpListener::bind_with_config(address, &options)
        .with_context(|| format!("cannot listen on {address}"))?;
    loop {
        let (stream, _) = listener.accept().await.context("cannot accept")?;
        stream.set_nodelay(true)?;
        monoio::spawn(serve(stream, thread.clone()));
    }
}

/// Reads more into `bytes`; false at the end.
async fn more(stream: &mut impl AsyncReadRent, bytes: &mut Vec<u8>) -> Result<bool> {
    let (read, buffer) = stream.read(vec![0; READ_BYTES]).await;
    let read = read?;
    bytes.extend_from_slice(&buffer[..read]);
    Ok(read > 0)
}

/// The path of a request, and the value of one of its header fields (named in lower case).
fn parse(head: &[u8], field: &str) -> Result<(String, Option<String>)> {
    let text = std::str::from_utf8(head)?;
    let mut lines = text.lines();
    let path = lines.next().and_then(|line| line.split(' ').nth(1)).context("no path")?;
    let value = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case(field).then(|| value.trim().to_owned())
    });
    Ok((path.to_owned(), value))
}

async fn subscriber(mut stream: TcpStream, thread: Thread) -> Result<()> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(head) = head_bytes(&bytes) {
            break head;
        }
        ensure!(more(&mut stream, &mut bytes).await?, "closed before the upgrade");
    };
    let (path, key) = parse(&bytes[..head], "sec-websocket-key")?;
    let key = derive_accept_key(key.context("no upgrade")?.as_bytes());
    let topic = path.trim_start_matches('/');
    let (member, queue) = thread.topics.borrow_mut().subscribe(topic);
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {key}\r\n\r\n"
    );
    let (written, _) = stream.write_all(answer.into_bytes()).await;
    let (mut input, output) = stream.into_split();
    if written.is_ok() {
        monoio::spawn(write(output, queue));
        // What clients send after the upgrade says nothing; their end does.
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let (read, again) = input.read(buffer).await;
            if !matches!(read, Ok(read) if read > 0) {
                break;
            }
            buffer = again;
        }
    }
    thread.topics.borrow_mut().leave(topic, member);
    Ok(())
}

async fn write(mut output: OwnedWriteHalf<TcpStream>, mut queue: UnboundedReceiver<Frame>) {
    while let Some(frame) = queue.next().await {
        let (written, _) = output.write_all(frame).await;
        if written.is_err() {
            return;
        }
    }
}

async fn publisher(mut stream: TcpStream, thread: Thread) -> Result<()> {
    let mut bytes = Vec::new();
    loop {
        while let Some(head) = head_bytes(&bytes) {
            let (path, length) = parse(&bytes[..head], "content-length")?;
            let end = head + length.context("no Content-Length")?.parse::<usize>()?;
            if bytes.len() < end {
                break;
            }
            let Some(topic) = path.strip_prefix("/publish/") else { bail!("no such path") };
            let payload = &bytes[head..end];
            thread.topics.borrow().publish(topic, payload);
            let parcel = Rc::new(parcel(topic, payload));
            thread.others.iter().for_each(|other| {
                // The other thread lives as long as the process.
                let _ = other.unbounded_send(parcel.clone());
            });
            bytes.drain(..end);
            let (written, _) =
                stream.write_all(&b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"[..]).await;
            written?;
        }
        if !more(&mut stream, &mut bytes).await? {
            return Ok(());
        }
    }
}

/// A publication on its way to another thread: both lengths, topic, payload.
fn parcel(topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut parcel = (topic.len() as u32).to_le_bytes().to_vec();
    parcel.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    parcel.extend_from_slice(topic.as_bytes());
    parcel.extend_from_slice(payload);
    parcel
}

/// Topic, payload and bytes in all of the parcel at the front; `None`: not whole.
fn unpack(bytes: &[u8]) -> Option<(&str, &[u8], usize)> {
    let length = |at: usize| {
        let four = bytes.get(at..at + 4)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*four) as usize)
    };
    let topic = 8 + length(0)?;
    let end = topic + length(4)?;
    let payload = bytes.get(topic..end)?;
    Some((std::str::from_utf8(&bytes[8..topic]).ok()?, payload, end))
}

/// A task that writes to another thread.
fn forward(mut pipe: UnixStream) -> UnboundedSender<Frame> {
    let (sender, mut queue) = unbounded::<Frame>();
    monoio::spawn(async move {
        while let Some(parcel) = queue.next().await {
            let (written, _) = pipe.write_all(parcel).await;
            if written.is_err() {
                return;
            }
        }
    });
    sender
}

/// Publishes what comes from the first thread.
async fn forwarded(mut pipe: UnixStream, topics: Rc<RefCell<Topics>>) -> Result<()> {
    let mut bytes = Vec::new();
    while more(&mut pipe, &mut bytes).await? {
        let mut used = 0;
        while let Some((topic, payload, whole)) = unpack(&bytes[used..]) {
            topics.borrow().publish(topic, payload);
            used += whole;
        }
        bytes.drain(..used);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parcels_and_frames() {
        let parcel = parcel("news", b"abc");
        assert_eq!(unpack(&parcel), Some(("news", &b"abc"[..], parcel.len())));
        assert_eq!(unpack(&parcel[..parcel.len() - 1]), None);
        assert_eq!(unpack(&parcel[..3]), None);
        assert_eq!(frame(b"abc"), [0x81, 3, b'a', b'b', b'c']);
        assert_eq!(frame(&[0; 200])[..4], [0x81, 126, 0, 200]);
    }

    #[test]
    fn heads() {
        let head = b"POST /publish/a HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n";
        let (path, length) = parse(head, "content-length").unwrap();
        assert_eq!((path.as_str(), length.as_deref()), ("/publish/a", Some("7")));
    }
}
