//! This program once more, as a child that takes orders.
//!
//! Owns the child, its end, and the lines between the two. Never knows what an order means.
//! Invariant: every order is answered with one line, and no child outlives its owner.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::account::ProcessSample;

/// What a child says once it takes orders.
const READY: &str = "ready";
/// What ends it.
pub const QUIT: &str = "quit";

/// The running child.
pub struct Subprocess {
    /// The command that it was started with.
    name: &'static str,
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Subprocess {
    /// Starts this program with a command, and waits until it takes orders.
    pub fn start(name: &'static str, arguments: &[String]) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut child = Command::new(program)
            .arg(name)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start the {name}'s process"))?;
        let orders = child.stdin.take().with_context(|| format!("{name}: no standard input"))?;
        let output = child.stdout.take().with_context(|| format!("{name}: no standard output"))?;
        let mut process =
            Subprocess { name, child, orders, answers: BufReader::new(output).lines() };
        let ready = process.answer()?;
        ensure!(ready == READY, "the {name} said `{ready}` instead of `{READY}`");
        Ok(process)
    }

    /// Its processor time and memory so far.
    pub fn sample(&self) -> Result<ProcessSample> {
        ProcessSample::of_tree(self.child.id())
    }

    /// Gives an order; [`Subprocess::answer`] waits for it.
    pub fn order(&mut self, order: &str) -> Result<()> {
        let told = || format!("the {} takes no orders: it has ended", self.name);
        writeln!(self.orders, "{order}").with_context(told)
    }

    /// The answer to the last order.
    pub fn answer(&mut self) -> Result<String> {
        let told = || format!("the {} has ended: see its error above", self.name);
        let line = self.answers.next().with_context(told)?;
        line.with_context(|| format!("cannot read from the {}", self.name))
    }

    /// Ends the child.
    pub fn stop(mut self) -> Result<()> {
        self.order(QUIT)?;
        let status = self.child.wait().with_context(|| format!("waiting for the {}", self.name))?;
        ensure!(status.success(), "the {} ended with {status}", self.name);
        Ok(())
    }
}

impl Drop for Subprocess {
    fn drop(&mut self) {
        // After an error elsewhere; one that has been waited for refuses the signal.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says in the child that it takes orders.
pub fn ready() -> Result<()> {
    answer(READY)
}

/// Answers an order in the child.
pub fn answer(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("cannot answer")
}
