//! The command line: what was asked for is handed to whoever does it.
//!
//! Owns the flags, which come from the table of configuration keys. Never decides anything else.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use drumline::config::{self, Kind, Loaded, Sources};
use drumline::preflight::{self, Request, Severity};
use drumline::server::{self, Fatal};

/// Exit status where something keeps the server from starting.
const FAILED: u8 = 2;

fn main() -> ExitCode {
    let matches = command().get_matches();
    let (name, matches) = matches.subcommand().unwrap_or(("serve", &matches));
    let done = match name {
        "check" => check(matches),
        "genconfig" => generate(matches).map(|()| ExitCode::SUCCESS),
        "version" => {
            println!("drumline {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
        _ => load(matches).and_then(server::serve).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|fatal| {
        eprintln!("drumline: {fatal}");
        ExitCode::from(FAILED)
    })
}

fn command() -> Command {
    let config = Arg::new("config")
        .long("config")
        .short('c')
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("Configuration file; drumline.toml where none is named and it is there")
        .global(true);
    let connections = Arg::new("connections")
        .long("connections")
        .value_name("N")
        .default_value(server::CONNECTIONS.to_string())
        .value_parser(value_parser!(u64))
        .help("Connections that the box is meant to hold");
    Command::new("drumline")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A push engine for Linux: WebSocket connections by the million")
        .subcommand(Command::new("serve").about("Serve (the default)"))
        .subcommand(Command::new("check").about("Say what this box can hold").arg(connections))
        .subcommand(Command::new("genconfig").about("Write a commented configuration"))
        .subcommand(Command::new("version").about("Say which version this is"))
        .arg(config)
        .args(config::keys().iter().map(flag))
}

/// The flag of a configuration key: `--http_server.port 8000`.
fn flag(key: &config::Key) -> Arg {
    let flag = Arg::new(&key.path)
        .long(&key.path)
        .help(format!("{} [default: {}]", key.doc, key.default))
        .help_heading("Configuration")
        .hide_short_help(true)
        .action(ArgAction::Set)
        .global(true);
    match key.kind {
        // `--client.insecure` alone says true.
        Kind::Switch => flag
            .value_name("true|false")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
        Kind::Number => flag.value_name("N"),
        Kind::Text => flag.value_name("TEXT"),
        Kind::List => flag.value_name("LIST"),
        Kind::Duration => flag.value_name("TIME"),
    }
}

fn load(matches: &ArgMatches) -> Result<Loaded, Fatal> {
    let given = |key: &config::Key| {
        let value = matches.get_one::<String>(&key.path)?;
        Some((key.path.clone(), value.clone()))
    };
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let sources = Sources {
        file: matches.get_one::<PathBuf>("config").cloned(),
        environment: std::env::vars_os().filter_map(text).collect(),
        flags: config::keys().iter().filter_map(given).collect(),
    };
    Ok(config::load(&sources)?)
}

/// 0: all is well; 1: fewer connections than wanted, or slower than could be; 2: it cannot run.
fn check(matches: &ArgMatches) -> Result<ExitCode, Fatal> {
    let config = load(matches)?.config;
    let connections = matches.get_one("connections").copied().unwrap_or(server::CONNECTIONS);
    let request = Request { shards: config.shards, port: config.http_server.port, connections };
    let report = preflight::survey(&request);
    print!("{report}");
    Ok(match report.findings().iter().map(|finding| finding.severity).max() {
        Some(Severity::Fatal) => ExitCode::from(FAILED),
        Some(Severity::Limit | Severity::Advice) => ExitCode::from(1),
        None => ExitCode::SUCCESS,
    })
}

fn generate(matches: &ArgMatches) -> Result<(), Fatal> {
    let text = config::template();
    let Some(file) = matches.get_one::<PathBuf>("config") else {
        print!("{text}");
        return Ok(());
    };
    write_new(file, &text).map_err(|error| Fatal {
        cause: format!("{} cannot be written: {error}", file.display()),
        cure: "name a file that is not there yet, in a folder that is".into(),
    })
}

fn write_new(file: &Path, text: &str) -> std::io::Result<()> {
    OpenOptions::new().write(true).create_new(true).open(file)?.write_all(text.as_bytes())
}
