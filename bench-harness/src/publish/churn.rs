//! Clients that join and leave a channel repeatedly.
//!
//! Owns their sockets. Never publishes. Invariant: a join and a leave count only when the server
//! has answered both.

use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};

use super::running::{Running, spawn};
use super::socket::{Receiver, Sender, open};
use crate::wire::{self, Line};

/// Commands per frame, half of them joins. Many commands make the cost of the socket small.
const COMMANDS: u64 = 40;

/// The clients that join and leave, and their load.
#[derive(Debug, Clone)]
pub struct Churn {
    /// The server.
    pub server: SocketAddr,
    /// The channel.
    pub channel: String,
    /// Clients. They connect one after the other and then work at the same time.
    pub clients: u64,
    /// Frames of each client; each has [`Churn::JOINS`] joins, and a leave behind each.
    pub frames: u64,
}

impl Churn {
    /// Joins of a frame.
    pub const JOINS: u64 = COMMANDS / 2;

    /// Joins of all, each with its leave.
    pub fn joins(&self) -> u64 {
        self.clients * self.frames * Self::JOINS
    }

    /// Starts the clients on a thread of their own, which ends when the server has answered all.
    pub fn start(self) -> Result<Running<()>> {
        spawn("churn", move || async move {
            let mut tasks = Vec::new();
            for _ in 0..self.clients {
                let (sender, mut receiver) = open(self.server, "{\"id\":1,\"connect\":{}}").await?;
                receiver.replies(1).await.context("a client cannot connect")?;
                let (channel, frames) = (self.channel.clone(), self.frames);
                tasks.push(monoio::spawn(one(sender, receiver, channel, frames)));
            }
            for task in tasks {
                task.await?;
            }
            Ok(())
        })
    }
}

async fn one(sender: Sender, mut receiver: Receiver, channel: String, frames: u64) -> Result<()> {
    for frame in 0..frames {
        let first = 2 + frame * COMMANDS;
        sender.send(commands(first, &channel)?).await?;
        for id in first..first + COMMANDS {
            answer(&mut receiver, id).await?;
        }
    }
    Ok(())
}

/// The commands of a frame, from this number on.
fn commands(first: u64, channel: &str) -> Result<String> {
    let mut text = String::new();
    for id in first..first + COMMANDS {
        let verb = if (id - first).is_multiple_of(2) { "subscribe" } else { "unsubscribe" };
        let end = if id + 1 < first + COMMANDS { "\n" } else { "" };
        write!(text, "{{\"id\":{id},\"{verb}\":{{\"channel\":\"{channel}\"}}}}{end}")?;
    }
    Ok(text)
}

/// Waits for the answer to command `id`; pushes before it are ignored.
async fn answer(receiver: &mut Receiver, id: u64) -> Result<()> {
    loop {
        let line = receiver.line().await?.context("the server closed before it answered")?;
        match wire::line(&line) {
            Line::Reply(of, _) if u64::from(of) == id => return Ok(()),
            Line::Push(_) => {}
            _ => bail!("command {id} was answered `{}`", String::from_utf8_lossy(&line)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_join_has_its_leave() {
        let text = commands(2, "all").unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len() as u64, COMMANDS);
        assert_eq!(lines[0], "{\"id\":2,\"subscribe\":{\"channel\":\"all\"}}");
        assert_eq!(lines[1], "{\"id\":3,\"unsubscribe\":{\"channel\":\"all\"}}");
        let joins = lines.iter().filter(|line| line.contains("\"subscribe\"")).count() as u64;
        assert_eq!(joins, Churn::JOINS);
    }
}
