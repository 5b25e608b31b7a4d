//! The harness on the command line.
//!
//! Owns the list of commands. Never measures. Invariant: an error names cause and cure and ends
//! the process with 1.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use drumline_bench::scenario::{self, Common};
use drumline_bench::{bare_tls, baseline, compare, export, plain, results, target, verifier};

/// Load generator and reports for Drumline.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The kernel baseline: memory per socket and CPU per send of the bare kernel.
    #[command(alias = "limit")]
    KernelBaseline(Common),
    /// A million connections: ramp-up, memory, pings, a broadcast, rooms, a channel for each.
    Million(scenario::million::Options),
    /// One publication to one subscriber, at a million connections: by HTTP and by WebSocket.
    OneToOne(scenario::one_to_one::Options),
    /// Kafkorama's published ladder: fan-out to 100 subscribers per channel, at rising rates.
    Ladder(scenario::ladder::Options),
    /// Memory per connection: shared channel, one channel each, tokens, transports, presence.
    Memory(Common),
    /// CPU per delivery of one publication to many, against the kernel baseline.
    Fanout(Common),
    /// CPU per delivery with JSON, Protobuf, deltas and deflate.
    Variants(Common),
    /// Latency of one publication to one subscriber, by HTTP; with --sweep up to the knee.
    Latency(scenario::latency::Options),
    /// Effect of subscribers that stop reading on the latency of other clients.
    Slow(scenario::slow::Options),
    /// Latency of one-to-one publications during a large fan-out.
    Isolation(Common),
    /// Reconnect storm: all connections are cut, reconnect at once and recover missed publications.
    Storm(Common),
    /// Graceful shutdown while publications flow: duration, and what clients see.
    Drain(Common),
    /// One shard and two, and a model of 16 and 64 processors.
    MultiCore(Common),
    /// Thousands of clients with signed tokens connect at once: effect on other clients.
    Flood(Common),
    /// Hostile loads at 2 and 60 shards: longest pass, pings of other clients, memory, health.
    Hostile(scenario::hostile::Options),
    /// Publications per second through the HTTP API, Drumline and nchan in turn.
    Api(scenario::api::Options),
    /// Tokens verified per second on one processor.
    Tokens(Common),
    /// Writes the plot and the histograms (.hgrm, .hlog) of a result file into a folder.
    Export(export::Options),
    /// Compares the latencies of result files and of .hgrm and .hlog files of any tool.
    Compare(compare::Options),
    /// Drumline and other servers in turn, under the same load.
    Peers(scenario::peers::Options),
    /// Polling, long-polling, streaming and WebSocket to the same clients: overhead, latency, cost.
    Showdown(scenario::showdown::Options),
    /// The feed from RabbitMQ beside a bare consumer and the same publications by HTTP.
    Feed(scenario::feed::Options),
    /// Durable publications acknowledged per second, beside Redis Streams and the bare disk.
    Durable(scenario::durable::throughput::Options),
    /// What durability adds to the latency of a publication, beside the disk's own fdatasync.
    DurableLatency(scenario::durable::latency::Options),
    /// Restarts with millions of stored publications, after a clean stop and after kill -9.
    DurableRestart(scenario::durable::restart::Options),
    /// Kills of the server at random moments, on one folder: nothing acknowledged may be lost.
    DurableKill(scenario::durable::kill::Options),
    /// Power cuts at random points, with syncs that work and that do nothing.
    DurablePower(scenario::durable::power::Options),
    /// Durable publications at half the maximum: the longest time without an acknowledgement.
    DurableSteady(scenario::durable::steady::Options),
    /// Two builds of the server in turn: shows whether the newer one is slower or larger.
    Versus(scenario::versus::Options),
    /// What idle shards cost: many shards against few, in turn.
    IdleShards(scenario::idle_shards::Options),
    /// User memory of an idle TLS connection, above a plain one.
    TlsMemory(Common),
    /// A million TLS connections: handshake, connect, subscribe, one broadcast.
    TlsMillion(Common),
    /// CPU per delivery of one publication to many, over TLS and without.
    TlsFanout(scenario::rounds::InRounds),
    /// Full and resumed TLS handshakes per second and core, against a bare rustls accept loop.
    TlsHandshakes(scenario::rounds::InRounds),
    /// Thousands of TLS handshakes at once: effect on established clients.
    TlsStorm(scenario::rounds::InRounds),
    /// Drumline and other servers with TLS in turn.
    PeersTls(scenario::tls::peers::Options),
    /// Thousands of request heads that do not end: effect on established clients.
    Slowloris(scenario::rounds::InRounds),
    /// Reloads of certificate and configuration under load.
    Reload(scenario::reload::Options),
    /// Scrapes of the metrics at a million connections.
    Scrape(Common),
    /// Connects, cuts, storms, stalls and pressure for hours: memory over time, what is left.
    Soak(scenario::soak::Options),
    /// Writes RESULTS.md from all results.
    Report {
        /// Folder of the results.
        #[arg(long, default_value = "bench-harness/results")]
        results: PathBuf,
        /// The file to write.
        #[arg(long, default_value = "RESULTS.md")]
        out: PathBuf,
    },
    /// The bare kernel's process: takes orders on standard input (started by the scenarios).
    #[command(hide = true)]
    BaselineServer(baseline::Options),
    /// Verifies tokens: takes orders on standard input (started by `flood`).
    #[command(hide = true)]
    Verifier(verifier::Options),
    /// Accepts connections and makes their TLS handshakes (started by the scenarios of TLS).
    #[command(hide = true)]
    BareTls(bare_tls::Options),
    /// Holds the clients that are stopped by a signal (started by `soak`).
    #[command(hide = true)]
    SoakClients(scenario::soak::Arguments),
    /// Takes messages from RabbitMQ and acknowledges them (started by `feed`).
    #[command(hide = true)]
    BareConsumer(scenario::feed::Arguments),
    /// A plain broadcast server on monoio (started by `peers`).
    #[command(hide = true)]
    PlainMonoio(plain::Options),
    /// A plain broadcast server on tokio-tungstenite (started by `peers`).
    #[command(hide = true)]
    PlainTokio(plain::Options),
    /// The article's server (started by `showdown`).
    #[command(hide = true)]
    ShowdownServlet(scenario::showdown::servlet::Options),
    /// Becomes a target's process (started by `peers`).
    #[command(hide = true)]
    Child(target::Becoming),
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    match Arguments::parse().command {
        Command::KernelBaseline(common) => scenario::kernel_baseline::run(&common),
        Command::Million(options) => scenario::million::run(&options),
        Command::OneToOne(options) => scenario::one_to_one::run(&options),
        Command::Ladder(options) => scenario::ladder::run(&options),
        Command::Memory(common) => scenario::memory::run(&common),
        Command::Fanout(common) => scenario::fanout::run(&common),
        Command::Latency(options) => scenario::latency::run(&options),
        Command::Slow(options) => scenario::slow::run(&options),
        Command::Isolation(common) => scenario::isolation::run(&common),
        Command::Storm(common) => scenario::storm::run(&common),
        Command::Drain(common) => scenario::drain::run(&common),
        Command::MultiCore(common) => scenario::multi_core::run(&common),
        Command::Variants(common) => scenario::variants::run(&common),
        Command::Flood(common) => scenario::flood::run(&common),
        Command::Hostile(options) => scenario::hostile::run(&options),
        Command::Api(options) => scenario::api::run(&options),
        Command::Tokens(common) => scenario::tokens::run(&common),
        Command::Export(options) => export::run(&options),
        Command::Compare(options) => compare::run(&options),
        Command::Peers(options) => scenario::peers::run(&options),
        Command::Showdown(options) => scenario::showdown::run(&options),
        Command::Feed(options) => scenario::feed::run(&options),
        Command::BareConsumer(arguments) => scenario::feed::serve(&arguments),
        Command::Durable(options) => scenario::durable::throughput::run(&options),
        Command::DurableLatency(options) => scenario::durable::latency::run(&options),
        Command::DurableRestart(options) => scenario::durable::restart::run(&options),
        Command::DurablePower(options) => scenario::durable::power::run(&options),
        Command::DurableKill(options) => scenario::durable::kill::run(&options),
        Command::DurableSteady(options) => scenario::durable::steady::run(&options),
        Command::Versus(options) => scenario::versus::run(&options),
        Command::IdleShards(options) => scenario::idle_shards::run(&options),
        Command::TlsMemory(common) => scenario::tls::memory::run(&common),
        Command::TlsMillion(common) => scenario::tls::million::run(&common),
        Command::TlsFanout(options) => scenario::tls::fanout::run(&options),
        Command::TlsHandshakes(options) => scenario::tls::handshakes::run(&options),
        Command::TlsStorm(options) => scenario::tls::storm::run(&options),
        Command::PeersTls(options) => scenario::tls::peers::run(&options),
        Command::Slowloris(options) => scenario::slowloris::run(&options),
        Command::Reload(options) => scenario::reload::run(&options),
        Command::Scrape(common) => scenario::scrape::run(&common),
        Command::Soak(options) => scenario::soak::run(&options),
        Command::SoakClients(arguments) => scenario::soak::serve(&arguments),
        Command::PlainMonoio(options) => plain::serve_monoio(&options),
        Command::PlainTokio(options) => plain::serve_tokio(&options),
        Command::ShowdownServlet(options) => scenario::showdown::servlet::serve(&options),
        Command::Child(becoming) => target::become_child(&becoming),
        Command::Report { results, out } => results::write(&results, &out),
        Command::BaselineServer(options) => baseline::serve(&options),
        Command::BareTls(options) => bare_tls::serve(&options),
        Command::Verifier(options) => verifier::serve(&options),
    }
}
