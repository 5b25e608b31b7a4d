//! Publishers over HTTP with pipelining: a request goes out when it is due, before earlier ones are
//! answered.
//!
//! Owns the bound of unanswered requests. Never waits for an answer below that bound. Invariant:
//! every request is answered once and in order, so the answers are counted and not matched.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt, OwnedReadHalf, Splitable};
use monoio::net::TcpStream;

use super::api::{Api, Post};
use super::http;
use super::load::Load;
use super::pace::Pace;
use super::published::Published;
use crate::clock::RunClock;

/// Bytes of one read: the answers to some hundred requests.
const READ_BYTES: usize = 65_536;
/// Maximum bytes of one write.
const WRITE_BYTES: usize = 65_536;
/// Maximum wait for a free place among the unanswered requests, and for the last answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// Counts shared by the writing and the reading task.
#[derive(Default)]
struct Answers {
    confirmed: u64,
    refused: u64,
    refusal: Option<String>,
    /// Why no further answer comes.
    end: Option<String>,
    /// Waits for an answer.
    waker: Option<Waker>,
}

impl Answers {
    fn count(&self) -> u64 {
        self.confirmed + self.refused
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Publishes the messages of one publisher.
pub(super) async fn one(load: Rc<Load>, publisher: u64, clock: RunClock) -> Result<Published> {
    let mut published = Published::new(&clock)?;
    let Api::Http(post) = &load.api else { return Ok(published) };
    let stream = http::connect(load.server).await?;
    let (input, mut output) = stream.into_split();
    let answers = Rc::new(RefCell::new(Answers::default()));
    let reader = monoio::spawn(read(input, post.has_envelope(), answers.clone()));
    let pace = Pace::new(clock)?;
    let mut messages = load.of(publisher).peekable();
    while let Some(first) = messages.next() {
        pace.until(first.stamp.due_ns).await?;
        answered(&answers, (published.sent + 1).saturating_sub(post.in_flight)).await?;
        let mut requests = Vec::new();
        http::request(&load, post, &first, &mut requests);
        published.note(&clock, first.stamp.due_ns)?;
        let now_ns = clock.now_ns();
        while requests.len() < WRITE_BYTES && has_room(&answers, &published, post) {
            let Some(message) = messages.next_if(|next| next.stamp.due_ns <= now_ns) else { break };
            http::request(&load, post, &message, &mut requests);
            published.note(&clock, message.stamp.due_ns)?;
        }
        let (written, _) = output.write_all(requests).await;
        written.context("cannot write to the HTTP API")?;
    }
    answered(&answers, published.sent).await?;
    output.shutdown().await.context("cannot end a connection")?;
    drop(reader);
    let mut answers = answers.borrow_mut();
    published.confirmed = answers.confirmed;
    published.refusal = answers.refusal.take();
    Ok(published)
}

fn has_room(answers: &RefCell<Answers>, published: &Published, post: &Post) -> bool {
    published.sent - answers.borrow().count() < post.in_flight
}

/// Waits until `count` requests are answered.
async fn answered(answers: &RefCell<Answers>, count: u64) -> Result<()> {
    let wait = poll_fn(|context| {
        let mut answers = answers.borrow_mut();
        if answers.count() >= count {
            return Poll::Ready(Ok(()));
        }
        if let Some(end) = &answers.end {
            return Poll::Ready(Err(anyhow!("{end}")));
        }
        answers.waker = Some(context.waker().clone());
        Poll::Pending
    });
    let waited = monoio::time::timeout(PATIENCE, wait).await;
    waited.map_err(|_| anyhow!("the HTTP API has not answered a publisher for {PATIENCE:?}"))?
}

/// Counts answers until the connection ends.
async fn read(input: OwnedReadHalf<TcpStream>, envelope: bool, answers: Rc<RefCell<Answers>>) {
    let end = read_all(input, envelope, &answers).await;
    let mut answers = answers.borrow_mut();
    answers.end = end.err().map(|error| format!("{error:#}"));
    answers.wake();
}

async fn read_all(
    mut input: OwnedReadHalf<TcpStream>,
    envelope: bool,
    answers: &RefCell<Answers>,
) -> Result<()> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; READ_BYTES]);
    loop {
        let (read, filled) = input.read(buffer).await;
        let read = read.context("cannot read from the HTTP API")?;
        ensure!(read > 0, "the HTTP API closed a kept-alive connection");
        bytes.extend_from_slice(filled.get(..read).unwrap_or_default());
        buffer = filled;
        let used = take(&bytes, envelope, &mut answers.borrow_mut())?;
        bytes.drain(..used);
        answers.borrow_mut().wake();
    }
}

/// Counts the complete answers at the front of `bytes`. Returns their length.
fn take(bytes: &[u8], envelope: bool, answers: &mut Answers) -> Result<usize> {
    let mut used = 0;
    while let Some((end, refusal)) = http::next_answer(&bytes[used..], envelope)? {
        used += end;
        match refusal {
            None => answers.confirmed += 1,
            Some(refusal) => {
                answers.refused += 1;
                answers.refusal.get_or_insert(refusal);
            }
        }
    }
    Ok(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complete_answers_are_counted_and_a_partial_one_waits() {
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        let error = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"error\":1}";
        let text = format!("{ok}{error}{ok}{}", &ok[..20]);
        let mut answers = Answers::default();
        let used = take(text.as_bytes(), true, &mut answers).unwrap();
        assert_eq!(used, text.len() - 20);
        assert_eq!((answers.confirmed, answers.refused), (2, 1));
        assert!(answers.refusal.unwrap().contains("{\"error\":1}"));
    }
}
