//! The stock ticker: a price generator that publishes to RabbitMQ, and the server of the page that
//! shows the prices as Drumline delivers them. `scripts/ticker.sh` starts it with everything else.
//!
//! Owns the command line. Ends with status 0 on SIGINT and SIGTERM.

mod clock;
mod counters;
mod framing;
mod generator;
mod heads;
mod market;
mod peer;
mod relay;
mod server;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use counters::{Pages, Published};
use market::Market;
use server::Shared;

/// Publishes invented stock prices to RabbitMQ and serves the page that shows them.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Address of the page.
    #[arg(long, default_value = "127.0.0.1:8700")]
    listen: SocketAddr,
    /// Address of Drumline, which runs with ticker/drumline.toml.
    #[arg(long, default_value = "127.0.0.1:8701")]
    drumline: SocketAddr,
    /// URL of RabbitMQ.
    #[arg(long, default_value = "amqp://127.0.0.1:8702")]
    broker: String,
    /// Prices per second, all symbols together.
    #[arg(long, default_value_t = 4000.0)]
    rate: f64,
    /// Seconds of trading in a second: the larger, the more the prices move.
    #[arg(long, default_value_t = 60.0)]
    speed: f64,
    /// Seed of the random numbers, which repeats the prices of another run. Random by default.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { listen, drumline, rate, speed, .. } = *arguments;
    ensure!((1.0..=100_000.0).contains(&rate), "--rate is {rate}; use a number from 1 to 100000");
    ensure!(speed > 0.0 && speed <= 1e6, "--speed is {speed}; use a number from 0.001 to 1000000");
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await;
        let listener = listener.with_context(|| {
            format!("cannot listen on {listen}; choose another address with --listen")
        })?;
        let market = Market::new(seed, rate, speed);
        let published = Arc::new(Published::default());
        let shared =
            Shared { drumline, rate, pages: Pages::default(), published: published.clone() };
        eprintln!("page at http://{listen}/, {rate} prices per second, seed {seed}");
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            () = server::serve(listener, Arc::new(shared)) => {}
            () = generator::run(&arguments.broker, market, rate, published) => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok::<(), anyhow::Error>(())
    })?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}
