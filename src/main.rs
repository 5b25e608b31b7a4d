//! The command line: what was asked for is handed to whoever does it.
//!
//! Owns the flags, which come from the table of configuration keys. Never decides anything else.

use std::fs::Permissions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use drumline::base::crash;
use drumline::base::log;
use drumline::base::sys;
use drumline::config::{self, Format, Kind, Loaded, Sources};
use drumline::model::message::Purpose;
use drumline::model::token::{self, Refusal};
use drumline::process::preflight::{self, Severity};
use drumline::process::server::{self, Fatal};

/// Exit status where something keeps the server from starting.
const FAILED: u8 = 2;
/// Exit status where the reader of stdout has gone: what a shell reports after a SIGPIPE.
const READER_GONE: u8 = 141;
/// How long the last log lines may take.
const LAST_LINES: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    crash::install();
    let matches = command().get_matches();
    let (name, matches) = matches.subcommand().unwrap_or(("serve", &matches));
    let done = match name {
        "check" => check(matches),
        "checkconfig" => check_config(matches),
        "checksubtoken" => check_token(matches, Purpose::Subscription),
        "checktoken" => check_token(matches, Purpose::Connection),
        "configdoc" => say(config::document()),
        "defaultconfig" => say(config::default_json()),
        "genconfig" => generate(matches),
        "gensubtoken" => make_token(matches, Purpose::Subscription),
        "gentoken" => make_token(matches, Purpose::Connection),
        "version" => say(format!("drumline {}\n", env!("CARGO_PKG_VERSION"))),
        _ => load(matches).and_then(server::serve).map(|()| ExitCode::SUCCESS),
    };
    let code = done.unwrap_or_else(|fatal| {
        log::text(format!("drumline: {fatal}\n"));
        ExitCode::from(FAILED)
    });
    log::flush(LAST_LINES);
    code
}

fn command() -> Command {
    let config = Arg::new("config")
        .long("config")
        .short('c')
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help(format!(
            "Configuration file; where none is named the first that is there of {}",
            config::FILES.join(", ")
        ))
        .global(true);
    let connections = Arg::new("connections")
        .long("connections")
        .value_name("N")
        .default_value(server::CONNECTIONS.to_string())
        .value_parser(value_parser!(u64))
        .help("Connections that the box is meant to hold");
    let file = Arg::new("file").value_name("FILE").value_parser(value_parser!(PathBuf));
    Command::new("drumline")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A push engine for Linux: WebSocket connections by the million")
        .subcommand(Command::new("serve").about("Serve (the default)"))
        .subcommand(Command::new("check").about("Say what this box can hold").arg(connections))
        .subcommand(
            Command::new("checkconfig")
                .about("Say whether a configuration file is fine, flags and environment aside")
                .arg(file.help("The file, if --config does not name it")),
        )
        .subcommand(
            Command::new("checktoken").about("Say what a connection token is worth").arg(token()),
        )
        .subcommand(
            Command::new("checksubtoken")
                .about("Say what a subscription token is worth")
                .arg(token()),
        )
        .subcommand(Command::new("configdoc").about("Describe every key, in Markdown"))
        .subcommand(Command::new("defaultconfig").about("Print the default configuration as JSON"))
        .subcommand(Command::new("genconfig").about("Write a commented configuration"))
        .subcommand(Command::new("gentoken").about("Make a connection token").args([user(), ttl()]))
        .subcommand(Command::new("gensubtoken").about("Make a subscription token").args([
            user(),
            ttl(),
            channel(),
        ]))
        .subcommand(Command::new("version").about("Say which version this is"))
        .arg(config)
        .args(config::keys().iter().map(flag))
}

fn token() -> Arg {
    Arg::new("token").value_name("TOKEN").required(true).help("The token")
}

fn user() -> Arg {
    Arg::new("user")
        .long("user")
        .short('u')
        .value_name("USER")
        .default_value("")
        .help("Whom it is for; empty: nobody in particular")
}

fn ttl() -> Arg {
    Arg::new("ttl")
        .long("ttl")
        .short('t')
        .value_name("SECONDS")
        .default_value("604800")
        .allow_negative_numbers(true)
        .value_parser(value_parser!(i64))
        .help("How long it holds; negative: for ever")
}

fn channel() -> Arg {
    Arg::new("channel")
        .long("channel")
        .short('s')
        .value_name("CHANNEL")
        .required(true)
        .help("The channel that it opens")
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
        Kind::Text | Kind::Secret => flag.value_name("TEXT"),
        Kind::Address => flag.value_name("URL"),
        Kind::List => flag.value_name("LIST"),
        Kind::Duration => flag.value_name("TIME"),
        Kind::Map | Kind::Tables => flag.value_name("JSON"),
    }
}

fn load(matches: &ArgMatches) -> Result<Loaded, Fatal> {
    let given = |key: &config::Key| {
        let value = matches.get_one::<String>(&key.path)?;
        Some((key.path.clone(), value.clone()))
    };
    let sources = Sources {
        file: matches.get_one::<PathBuf>("config").cloned(),
        environment: config::environment(std::env::vars_os())?,
        flags: config::keys().iter().filter_map(given).collect(),
    };
    Ok(config::load(&sources)?)
}

/// 0: all is well; 1: fewer connections than wanted, or slower than could be; 2: it cannot run.
fn check(matches: &ArgMatches) -> Result<ExitCode, Fatal> {
    let config = load(matches)?.config;
    let connections = matches.get_one("connections").copied().unwrap_or(server::CONNECTIONS);
    let report = preflight::survey(&server::request(&config, connections));
    let code = match report.findings().iter().map(|finding| finding.severity).max() {
        Some(Severity::Fatal) => ExitCode::from(FAILED),
        Some(Severity::Limit | Severity::Advice) => ExitCode::from(1),
        None => ExitCode::SUCCESS,
    };
    say_and_end(&report.to_string(), code)
}

/// 0: the file is fine; 2: it cannot be used.
fn check_config(matches: &ArgMatches) -> Result<ExitCode, Fatal> {
    let file = matches.get_one("file").or_else(|| matches.get_one("config")).cloned();
    let loaded = config::load(&Sources { file, ..Sources::default() })?;
    let source = loaded.file.ok_or_else(|| Fatal {
        cause: format!("there is none of {}", config::FILES.join(", ")),
        cure: "name the file: `drumline checkconfig FILE`".into(),
    })?;
    for warning in &loaded.warnings {
        log::text(format!("drumline: {warning}\n"));
    }
    say(format!("{source} is fine\n"))
}

fn of_token(cause: String) -> Fatal {
    Fatal { cause, cure: "see client.token in `drumline configdoc`".into() }
}

/// Prints a token signed with the configuration's secret.
fn make_token(matches: &ArgMatches, purpose: Purpose) -> Result<ExitCode, Fatal> {
    let config = load(matches)?.config;
    let text = |name: &str| matches.get_one::<String>(name).map_or("", String::as_str);
    let ttl = matches.get_one("ttl").copied().unwrap_or(-1i64);
    let ttl = u64::try_from(ttl).ok();
    let (user, settings, now) = (text("user"), config.token_settings(purpose), unix_time());
    let made = match purpose {
        Purpose::Connection => token::make_connection(&settings, user, ttl, now),
        Purpose::Subscription => {
            token::make_subscription(&settings, user, text("channel"), ttl, now)
        }
    };
    say(made.map_err(of_token)? + "\n")
}

/// 0: the server would take the token; 2: it would not.
fn check_token(matches: &ArgMatches, purpose: Purpose) -> Result<ExitCode, Fatal> {
    let tokens = load(matches)?.config.tokens();
    let token = matches.get_one::<String>("token").map_or("", String::as_str);
    let (claims, now) = match purpose {
        Purpose::Connection => {
            let claims = tokens.connection.connection(token, unix_time(), None);
            (claims.map(|claims| (claims.user, claims.expires)), unix_time())
        }
        Purpose::Subscription => {
            let claims = tokens.subscription.subscription(token, unix_time(), None);
            (claims.map(|claims| (claims.user, claims.expires)), unix_time())
        }
    };
    match claims {
        Ok((user, expires)) => {
            let user = if user.is_empty() { "nobody in particular".to_owned() } else { user };
            let holds = match expires {
                Some(end) => format!("for {} s more", end.saturating_sub(now)),
                None => "for ever".to_owned(),
            };
            say(format!("valid: for {user}, {holds}\n"))
        }
        Err(Refusal::Expired) => Err(of_token("the token's time is over, or has not come".into())),
        Err(Refusal::NoKey) => {
            Err(of_token("its key is in a key set that only a server has".into()))
        }
        Err(Refusal::Invalid) => {
            Err(of_token("the token is not valid: signature, claims or form are wrong".into()))
        }
    }
}

fn unix_time() -> u64 {
    sys::unix_millis() / 1000
}

fn generate(matches: &ArgMatches) -> Result<ExitCode, Fatal> {
    let text = config::template();
    let Some(file) = matches.get_one::<PathBuf>("config") else { return say(text) };
    if Format::of(file) != Format::Toml {
        return Err(Fatal {
            cause: format!("{} would not be read as what it is: TOML", file.display()),
            cure: "name it drumline.toml; `drumline defaultconfig` prints JSON".into(),
        });
    }
    write_new(file, &text).map(|()| ExitCode::SUCCESS).map_err(|error| Fatal {
        cause: format!("{} cannot be written: {error}", file.display()),
        cure: "name a file that is not there yet, in a folder that is".into(),
    })
}

/// Prints the output of a command.
fn say(text: String) -> Result<ExitCode, Fatal> {
    say_and_end(&text, ExitCode::SUCCESS)
}

/// Prints the output of a command that ends with this status if all of it is written.
fn say_and_end(text: &str, code: ExitCode) -> Result<ExitCode, Fatal> {
    match log::print(text) {
        Ok(()) => Ok(code),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::from(READER_GONE)),
        Err(error) => Err(Fatal {
            cause: format!("cannot write to stdout: {error}"),
            cure: "write to a file or device that has room".into(),
        }),
    }
}

/// Writes a new file, whole or not at all, that its owner alone may read: keys go into it.
fn write_new(file: &Path, text: &str) -> std::io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut new = tempfile::Builder::new()
        .prefix(".drumline-")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(folder.unwrap_or(Path::new(".")))?;
    new.write_all(text.as_bytes())?;
    new.as_file().sync_all()?;
    new.persist_noclobber(file).map_err(|refused| refused.error)?;
    Ok(())
}
