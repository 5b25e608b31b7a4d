//! Publishers over WebSocket.
//!
//! Owns one socket per publisher. Never waits for a reply before it sends. Invariant: every
//! publication has a command number of its own and every reply is counted, so a refusal is
//! reported.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::load::{Load, Message};
use super::pace::Pace;
use super::published::Published;
use super::socket::{Receiver, open};
use crate::clock::RunClock;
use crate::wire::{self, Data, Line};

/// Maximum wait for the last replies.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Replies {
    confirmed: u64,
    refused: u64,
    refusal: Option<String>,
}

pub(super) async fn one(load: Rc<Load>, publisher: u64, clock: RunClock) -> Result<Published> {
    let mut published = Published::new(&clock)?;
    let mut messages = load.of(publisher).peekable();
    if messages.peek().is_none() {
        return Ok(published);
    }
    let (sender, mut receiver) = open(load.server, "{\"id\":1,\"connect\":{}}").await?;
    receiver.replies(1).await.context("a publisher cannot connect")?;
    let replies = Rc::new(RefCell::new(Replies::default()));
    let reader = monoio::spawn(count(receiver, replies.clone()));
    let pace = Pace::new(clock)?;
    let mut text = String::new();
    let mut id = 1;
    while let Some(first) = messages.next() {
        text.clear();
        pace.until(first.stamp.due_ns).await?;
        command(&mut id, &first, load.data, &mut text)?;
        published.note(&clock, first.stamp.due_ns)?;
        for _ in 1..load.per_frame {
            let Some(message) = messages.next() else { break };
            text.push('\n');
            command(&mut id, &message, load.data, &mut text)?;
            published.note(&clock, message.stamp.due_ns)?;
        }
        sender.send(text.clone()).await?;
    }
    await_replies(&replies, published.sent).await;
    sender.end().await?;
    drop(reader);
    let mut replies = replies.borrow_mut();
    published.confirmed = replies.confirmed;
    published.refusal = replies.refusal.take();
    Ok(published)
}

/// Appends a publish command.
fn command(id: &mut u64, message: &Message, data: Data, text: &mut String) -> Result<()> {
    *id += 1;
    let mut payload = Vec::new();
    data.write(&message.stamp, &mut payload);
    let data = String::from_utf8(payload).map_err(|_| anyhow!("a payload is text"))?;
    let channel = &message.channel;
    write!(text, "{{\"id\":{id},\"publish\":{{\"channel\":\"{channel}\",\"data\":{data}}}}}")?;
    Ok(())
}

/// Counts replies until the connection ends.
async fn count(mut receiver: Receiver, replies: Rc<RefCell<Replies>>) {
    loop {
        let line = receiver.line().await;
        let mut replies = replies.borrow_mut();
        match line {
            Ok(Some(line)) => match wire::line(&line) {
                Line::Reply(..) => replies.confirmed += 1,
                Line::Error(error) => {
                    replies.refused += 1;
                    let told = || String::from_utf8_lossy(error).into_owned();
                    replies.refusal.get_or_insert_with(told);
                }
                _ => {}
            },
            Ok(None) => return,
            Err(error) => {
                replies.refusal.get_or_insert_with(|| format!("{error:#}"));
                return;
            }
        }
    }
}

async fn await_replies(replies: &RefCell<Replies>, sent: u64) {
    let step = Duration::from_millis(5);
    for _ in 0..PATIENCE.as_millis() / step.as_millis() {
        let done = {
            let replies = replies.borrow();
            replies.confirmed + replies.refused >= sent
        };
        if done {
            return;
        }
        monoio::time::sleep(step).await;
    }
}
