//! A child process of this program that carries out orders.
//!
//! Owns the child, its end, and the lines in both directions. Never interprets an order. Invariant:
//! the child answers every order with one line, and no child outlives its owner.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::account::ProcessSample;

/// The line that a child writes when it is ready for orders.
const READY: &str = "ready";
/// The order that ends a child.
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
    /// Starts this program with the command `name` and waits until the child is ready for orders.
    pub fn start(name: &'static str, arguments: &[String]) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut child = Command::new(program)
            .arg(name)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start the {name} process"))?;
        let orders = child.stdin.take().with_context(|| format!("{name}: no standard input"))?;
        let output = child.stdout.take().with_context(|| format!("{name}: no standard output"))?;
        let mut process =
            Subprocess { name, child, orders, answers: BufReader::new(output).lines() };
        let ready = process.answer()?;
        ensure!(ready == READY, "the {name} process wrote `{ready}` instead of `{READY}`");
        Ok(process)
    }

    /// Its processor time and memory so far.
    pub fn sample(&self) -> Result<ProcessSample> {
        ProcessSample::of_tree(self.child.id())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let told = || format!("cannot signal the {} process", self.name);
        kill_process(Pid::from_child(&self.child), signal).with_context(told)
    }

    /// Gives an order; [`Subprocess::answer`] waits for it.
    pub fn order(&mut self, order: &str) -> Result<()> {
        let told = || format!("cannot give the {} process an order: it has ended", self.name);
        writeln!(self.orders, "{order}").with_context(told)
    }

    /// The answer to the last order.
    pub fn answer(&mut self) -> Result<String> {
        let told = || format!("the {} process has ended: see its error above", self.name);
        let line = self.answers.next().with_context(told)?;
        line.with_context(|| format!("cannot read from the {} process", self.name))
    }

    /// Ends the child.
    pub fn stop(mut self) -> Result<()> {
        self.order(QUIT)?;
        let status = self
            .child
            .wait()
            .with_context(|| format!("cannot wait for the {} process", self.name))?;
        ensure!(status.success(), "the {} process ended with {status}", self.name);
        Ok(())
    }
}

impl Drop for Subprocess {
    fn drop(&mut self) {
        // Kills the child after an error elsewhere. After a wait there is no process to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reports, in the child, that it is ready for orders.
pub fn ready() -> Result<()> {
    answer(READY)
}

/// Answers an order in the child.
pub fn answer(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .context("cannot write an answer to standard output")
}
