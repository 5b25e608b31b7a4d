//! The command line: parses commands and flags, and calls the function of the command.
//!
//! Owns the flags, which derive from the table of configuration keys. Never does the work of a
//! command itself.

use std::fs::Permissions;
use std::io::{BufRead as _, ErrorKind, IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use clap_complete::Shell;

use drumline::base::crash;
use drumline::base::failure::Failure;
use drumline::base::log;
use drumline::base::password;
use drumline::base::sys;
use drumline::config::{self, FileFormat, Loaded, Sources, ValueKind};
use drumline::control::reload::socket;
use drumline::model::message::TokenPurpose;
use drumline::model::token::{self, TokenError};
use drumline::process::preflight::{self, Severity};
use drumline::process::server;
use drumline::store::tools::archive::Counts;
use drumline::store::tools::{self, Told};

/// Exit status of a command that failed, and of a server that cannot start.
const FAILED: u8 = 2;
/// Exit status when the reader of stdout has closed the pipe: what a shell reports for SIGPIPE.
const READER_GONE: u8 = 141;
/// Maximum time to write the last log lines before the process exits.
const LAST_LINES: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    crash::install();
    let matches = command().get_matches();
    let (name, matches) = matches.subcommand().unwrap_or(("serve", &matches));
    let done = match name {
        "check" => check(matches),
        "checkconfig" => check_config(matches),
        "checksubtoken" => check_token(matches, TokenPurpose::Subscription),
        "checktoken" => check_token(matches, TokenPurpose::Connection),
        "completion" => complete(matches),
        "configdoc" => say(config::document(text(matches, "section"))),
        "defaultconfig" => default_config(matches),
        "defaultenv" => say(config::default_environment()),
        "genconfig" => generate(matches),
        "gensubtoken" => make_token(matches, TokenPurpose::Subscription),
        "gentoken" => make_token(matches, TokenPurpose::Connection),
        "man" => man_pages(matches),
        "hash-password" => hash_password(),
        "version" => say(format!("drumline {}\n", env!("CARGO_PKG_VERSION"))),
        "reload" => reload(matches),
        "store" => store(matches),
        _ => serve(matches),
    };
    let code = done.unwrap_or_else(|Failure { cause, cure }| {
        log::text(format!("drumline: {cause}\n  cure: {cure}\n"));
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
            "Configuration file [default: the first that exists of {}]",
            config::FILES.join(", ")
        ))
        .global(true);
    let connections = Arg::new("connections")
        .long("connections")
        .value_name("N")
        .default_value(server::CONNECTIONS.to_string())
        .value_parser(value_parser!(u64))
        .help("Number of connections that this machine has to hold");
    let file = Arg::new("file").value_name("FILE").value_parser(value_parser!(PathBuf));
    Command::new("drumline")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A push engine for Linux: WebSocket connections by the million")
        .after_help(KEYS_HELP)
        .subcommand(
            Command::new("serve")
                .about("Run the server (the default command)")
                .args(config::keys().iter().map(listed_flag)),
        )
        .subcommand(
            Command::new("check")
                .about("Report how many connections this machine can hold, and what limits them")
                .arg(connections),
        )
        .subcommand(
            Command::new("checkconfig")
                .about("Check a configuration file, with the environment and flags")
                .arg(file.help("File to check, if --config does not name it"))
                .arg(option("strict", 's').help("Fail if a key or variable has no effect")),
        )
        .subcommand(Command::new("checktoken").about("Verify a connection token").arg(token()))
        .subcommand(Command::new("checksubtoken").about("Verify a subscription token").arg(token()))
        .subcommand(Command::new("gentoken").about("Print a new connection token").args([
            user(),
            ttl(),
            quiet(),
        ]))
        .subcommand(Command::new("gensubtoken").about("Print a new subscription token").args([
            user(),
            ttl(),
            channel(),
            quiet(),
        ]))
        .subcommand(Command::new("hash-password").about(
            "Print the hash of a password for admin.password; asks for it, or reads it from stdin",
        ))
        .subcommand(
            Command::new("reload")
                .about("Reload the configuration of the running server and wait for the outcome")
                .arg(pid()),
        )
        .subcommand(store_command())
        .subcommands(printing_commands())
        .subcommand(Command::new("version").about("Print the version"))
        .arg(config)
        .args(config::keys().iter().map(|key| flag(key).hide(true)))
        .args(config::foreign_flags().map(foreign_flag))
}

/// The commands about the store of durable channels.
fn store_command() -> Command {
    let path = Arg::new("path")
        .long("path")
        .value_name("FOLDER")
        .value_parser(value_parser!(PathBuf))
        .global(true)
        .help("Folder of the store [default: store.path of the configuration]");
    let file = Arg::new("file").value_name("FILE").value_parser(value_parser!(PathBuf));
    let file = file.required(true);
    let export = file.clone().help("New file to write the export to; `-`: stdout");
    Command::new("store")
        .about("Check, count, export or import the store of durable channels")
        .subcommand_required(true)
        .arg(path)
        .subcommand(
            Command::new("check")
                .about("Read every record of the store, also while a server uses it"),
        )
        .subcommand(
            Command::new("stats")
                .about("Count the records of the store, also while a server uses it"),
        )
        .subcommand(
            Command::new("export")
                .about("Write all streams to a file, also while a server uses the store")
                .arg(export),
        )
        .subcommand(
            Command::new("import")
                .about("Read an export into a new folder, or into a store without its channels")
                .arg(file.help("File that `drumline store export` wrote")),
        )
}

/// The commands that print or write texts about the configuration.
fn printing_commands() -> [Command; 6] {
    let folder = Arg::new("folder").value_name("FOLDER").value_parser(value_parser!(PathBuf));
    let shell = Arg::new("shell").value_parser(value_parser!(Shell)).required(true);
    [
        Command::new("completion")
            .about("Print a completion script for a shell")
            .arg(shell.help("Shell to print the script for")),
        Command::new("configdoc")
            .about("Print a description of every key as Markdown")
            .arg(section())
            .arg(option("markdown", 'm').help("Print Markdown (always so)")),
        Command::new("defaultconfig")
            .about("Print the default configuration, or write it to the --config file")
            .arg(option("dry-run", 'd').help("Print the file instead of writing it")),
        Command::new("defaultenv").about("Print every environment variable with its default"),
        Command::new("genconfig")
            .about("Print a commented configuration file, or write one to the --config file"),
        Command::new("man")
            .about("Write the manual pages")
            .arg(folder.required(true).help("Existing folder to write the pages to")),
    ]
}

/// Where the configuration keys are documented: the end of `drumline --help`.
const KEYS_HELP: &str = "\
Every configuration key is also a flag (--http_server.port 9000) and an environment variable
(DRUMLINE_HTTP_SERVER_PORT=9000).
  drumline serve --help                     lists the keys by section
  drumline configdoc                        describes every key, default and variable
  drumline genconfig --config drumline.toml writes a commented configuration file";

fn token() -> Arg {
    Arg::new("token").value_name("TOKEN").required(true).help("Token to verify")
}

fn user() -> Arg {
    Arg::new("user")
        .long("user")
        .short('u')
        .value_name("USER")
        .default_value("")
        .help("User ID in the token; empty: an anonymous user")
}

fn pid() -> Arg {
    Arg::new("pid")
        .long("pid")
        .value_name("PID")
        .value_parser(value_parser!(u32))
        .help("Process ID of the server [default: $MAINPID, or the only server that runs]")
}

fn ttl() -> Arg {
    Arg::new("ttl")
        .long("ttl")
        .short('t')
        .value_name("SECONDS")
        .default_value("604800")
        .allow_negative_numbers(true)
        .value_parser(value_parser!(i64))
        .help("Lifetime of the token; negative: it does not expire")
}

/// An option without a value.
fn option(name: &'static str, short: char) -> Arg {
    Arg::new(name).long(name).short(short).action(ArgAction::SetTrue)
}

fn quiet() -> Arg {
    option("quiet", 'q').help("Print the token without a line break")
}

fn section() -> Arg {
    Arg::new("section")
        .long("section")
        .short('s')
        .value_name("SECTION")
        .default_value("")
        .help("Describe only keys that begin with this text")
}

/// The text of an argument; empty if it is not given.
fn text<'a>(matches: &'a ArgMatches, name: &str) -> &'a str {
    matches.get_one::<String>(name).map_or("", String::as_str)
}

fn channel() -> Arg {
    Arg::new("channel")
        .long("channel")
        .short('s')
        .value_name("CHANNEL")
        .required(true)
        .help("Channel that the token allows to subscribe to")
}

/// The flag of a configuration key as `drumline serve --help` lists it: under its section, with
/// the first sentence of its description.
fn listed_flag(key: &config::Key) -> Arg {
    let heading = key.path.rsplit_once('.').map_or("Top level", |(section, _)| section);
    let sentence = key.doc.split_once(". ").map_or(key.doc, |(first, _)| first);
    flag(key)
        .help(format!("{} [default: {}]", sentence.trim_end_matches('.'), key.default))
        .help_heading(heading.to_owned())
}

/// A flag of Centrifugo without a counterpart. It is accepted so that commands written for
/// Centrifugo work; `config::load` decides about its value.
fn foreign_flag((path, is_switch): (&'static str, bool)) -> Arg {
    let flag = Arg::new(path).long(path).action(ArgAction::Set).global(true).hide(true);
    if is_switch { switch(flag) } else { flag }
}

/// A flag whose value can be left out: `--client.insecure` means true.
fn switch(flag: Arg) -> Arg {
    flag.value_name("true|false").num_args(0..=1).require_equals(true).default_missing_value("true")
}

/// Short names of flags, as in Centrifugo.
const SHORT: [(&str, char); 2] = [("http_server.address", 'a'), ("http_server.port", 'p')];

/// The flag of a configuration key: `--http_server.port 8000`.
fn flag(key: &config::Key) -> Arg {
    let short = SHORT.iter().find(|(path, _)| *path == key.path).map(|(_, short)| *short);
    let flag = Arg::new(&key.path).long(&key.path).action(ArgAction::Set).global(true);
    let flag = flag.short(short);
    match key.kind {
        ValueKind::Switch => switch(flag),
        ValueKind::Number => flag.value_name("N"),
        ValueKind::Text | ValueKind::Secret => flag.value_name("TEXT"),
        ValueKind::Address => flag.value_name("URL"),
        ValueKind::List => flag.value_name("LIST"),
        ValueKind::Duration => flag.value_name("TIME"),
        ValueKind::Map | ValueKind::Tables | ValueKind::Transforms | ValueKind::Responses => {
            flag.value_name("JSON")
        }
    }
}

/// Runs the server. A reload reads the file and the file `.env` again; the environment and the
/// flags of a process do not change.
fn serve(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let matches = matches.clone();
    server::serve(Arc::new(move || load(&matches))).map(|()| ExitCode::SUCCESS)
}

/// Exit status 0: the server has reloaded its configuration; 2: it has not.
fn reload(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let given = matches.get_one("pid").copied();
    let pid = given.or_else(|| std::env::var("MAINPID").ok()?.parse().ok());
    let report = socket::request(pid)?;
    say(format!("configuration reloaded: {report}\n"))
}

/// Exit status 0: done; 1: the check has found faults; 2: it failed.
fn store(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let Some((name, matches)) = matches.subcommand() else { return Ok(ExitCode::from(FAILED)) };
    let path = match matches.get_one::<PathBuf>("path") {
        Some(path) => path.clone(),
        None => load(matches)?.config.store.path.into(),
    };
    if path.as_os_str().is_empty() {
        return Err(Failure::new(
            "no store is named",
            "set store.path, or name a folder by --path",
        ));
    }
    let file = matches.try_get_one::<PathBuf>("file").ok().flatten().cloned().unwrap_or_default();
    let counted = |what: &str, counts: Counts| {
        let Counts { streams, publications, keys, values } = counts;
        let others = if values > 0 { format!(", {values} other values") } else { String::new() };
        format!(
            "{what} {streams} streams, {publications} publications, {keys} idempotency keys{others}\n"
        )
    };
    match name {
        "check" => {
            let Told { text, is_sound } = tools::check(&path)?;
            say_and_end(&text, if is_sound { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
        "stats" => say(tools::stats(&path)?.text),
        "import" => say(counted("imported", tools::import(&path, &file)?)),
        _ if file.as_os_str() == "-" => {
            let output = log::data_output().map_err(|error| {
                let cause = format!("cannot write to stdout: {error}");
                Failure::new(cause, "raise the limit on descriptors")
            })?;
            tools::export(&path, output).map(|_| ExitCode::SUCCESS)
        }
        _ => say(counted("exported", tools::export_file(&path, &file)?)),
    }
}

fn load(matches: &ArgMatches) -> Result<Loaded, Failure> {
    config::load(&sources(matches)?)
}

/// The file that --config names, the environment with the file `.env`, and the flags.
fn sources(matches: &ArgMatches) -> Result<Sources, Failure> {
    let given = |path: &str| {
        let value = matches.get_one::<String>(path)?;
        Some((path.to_owned(), value.clone()))
    };
    let own = config::keys().iter().map(|key| key.path.as_str());
    let paths = own.chain(config::foreign_flags().map(|(path, _)| path));
    Ok(Sources {
        file: matches.get_one::<PathBuf>("config").cloned(),
        environment: config::environment_with_file(
            std::env::vars_os(),
            Path::new(config::DOT_ENV),
        )?,
        flags: paths.filter_map(given).collect(),
    })
}

/// Exit status 0: no finding; 1: fewer connections than wanted, or advice; 2: it cannot serve.
fn check(matches: &ArgMatches) -> Result<ExitCode, Failure> {
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

/// Exit status 0: the file is valid; 2: it is not.
fn check_config(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let file = matches.get_one("file").or_else(|| matches.get_one("config")).cloned();
    let loaded = config::load(&Sources { file, ..sources(matches)? })?;
    let source = loaded.file.ok_or_else(|| Failure {
        cause: format!("no configuration file: found none of {}", config::FILES.join(", ")),
        cure: "name the file: `drumline checkconfig FILE`".into(),
    })?;
    for warning in &loaded.warnings {
        log::text(format!("drumline: {warning}\n"));
    }
    if matches.get_flag("strict") && loaded.has_unknown {
        return Err(Failure {
            cause: format!("{source} or the environment has keys without effect"),
            cure: "remove the keys that the warning names".into(),
        });
    }
    say(format!("{source} is valid\n"))
}

fn of_token(cause: String) -> Failure {
    Failure { cause, cure: "see client.token in `drumline configdoc`".into() }
}

/// Prints a token signed with the configuration's secret.
fn make_token(matches: &ArgMatches, purpose: TokenPurpose) -> Result<ExitCode, Failure> {
    let config = load(matches)?.config;
    let ttl = matches.get_one("ttl").copied().unwrap_or(-1i64);
    let ttl = u64::try_from(ttl).ok();
    let (user, settings, now) =
        (text(matches, "user"), config.token_settings(purpose), unix_time());
    let made = match purpose {
        TokenPurpose::Connection => token::make_connection(&settings, user, ttl, now),
        TokenPurpose::Subscription => {
            token::make_subscription(&settings, user, text(matches, "channel"), ttl, now)
        }
    };
    let end = if matches.get_flag("quiet") { "" } else { "\n" };
    say(made.map_err(of_token)? + end)
}

/// Exit status 0: the server accepts the token; 2: it rejects the token.
fn check_token(matches: &ArgMatches, purpose: TokenPurpose) -> Result<ExitCode, Failure> {
    let tokens = load(matches)?.config.tokens();
    let token = matches.get_one::<String>("token").map_or("", String::as_str);
    let (claims, now) = match purpose {
        TokenPurpose::Connection => {
            let claims = tokens.connection.connection(token, unix_time(), None);
            (claims.map(|claims| (claims.user, claims.expires)), unix_time())
        }
        TokenPurpose::Subscription => {
            let claims = tokens.subscription.subscription(token, unix_time(), None);
            (claims.map(|claims| (claims.user, claims.expires)), unix_time())
        }
    };
    match claims {
        Ok((user, expires)) => {
            let user =
                if user.is_empty() { "anonymous user".to_owned() } else { format!("user {user}") };
            let holds = match expires {
                Some(end) => format!("expires in {} s", end.saturating_sub(now)),
                None => "does not expire".to_owned(),
            };
            say(format!("valid: {user}, {holds}\n"))
        }
        Err(TokenError::Expired) => Err(of_token("token is expired or not yet valid".into())),
        Err(TokenError::NoKey) => {
            Err(of_token("cannot verify the token: only a server loads the key set".into()))
        }
        Err(TokenError::Invalid) => {
            Err(of_token("invalid token: wrong signature, claims or format".into()))
        }
    }
}

/// Prints the hash of the password that stdin contains, or that is typed at a terminal.
fn hash_password() -> Result<ExitCode, Failure> {
    let refused = |cause: String| Failure {
        cause: format!("cannot hash the password: {cause}"),
        cure: "give one line: `drumline hash-password <FILE`".into(),
    };
    let mut line = String::new();
    let most = password::PASSWORD_MAX as u64 + 2;
    let stdin = std::io::stdin();
    let hidden = if stdin.is_terminal() {
        log::text("Password: ");
        log::flush(LAST_LINES);
        sys::hide_typing(&stdin).ok()
    } else {
        None
    };
    let read = stdin.lock().take(most).read_line(&mut line);
    drop(hidden);
    read.map_err(|error| refused(error.to_string()))?;
    let typed = line.trim_end_matches(['\r', '\n']);
    if typed.is_empty() {
        return Err(refused("it is empty".into()));
    }
    say(password::hash(typed.as_bytes()).map_err(refused)? + "\n")
}

fn unix_time() -> u64 {
    sys::unix_millis() / 1000
}

fn generate(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    match matches.get_one::<PathBuf>("config") {
        Some(file) => save(file, &config::generated(FileFormat::of(file))?),
        None => say(config::template()),
    }
}

/// Writes or prints the defaults in the format of the --config file.
fn default_config(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    match matches.get_one::<PathBuf>("config") {
        Some(file) if !matches.get_flag("dry-run") => {
            save(file, &config::default_file(FileFormat::of(file)))
        }
        Some(file) => say(config::default_file(FileFormat::of(file))),
        None => say(config::default_file(FileFormat::Json)),
    }
}

/// Prints a completion script.
fn complete(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let shell = matches.get_one::<Shell>("shell").copied().unwrap_or(Shell::Bash);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "drumline", &mut script);
    say(String::from_utf8_lossy(&script).into_owned())
}

/// Writes a manual page for the program and for each of its commands.
fn man_pages(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let folder = matches.get_one::<PathBuf>("folder").cloned().unwrap_or_default();
    clap_mangen::generate_to(command(), &folder).map(|()| ExitCode::SUCCESS).map_err(|error| {
        Failure {
            cause: format!("cannot write manual pages to {}: {error}", folder.display()),
            cure: "name an existing folder that can be written".into(),
        }
    })
}

/// Writes the output of a command to a new file.
fn save(file: &Path, text: &str) -> Result<ExitCode, Failure> {
    write_new(file, text).map(|()| ExitCode::SUCCESS).map_err(|error| Failure {
        cause: format!("cannot write {}: {error}", file.display()),
        cure: "choose a new file name in an existing folder".into(),
    })
}

/// Prints the output of a command.
fn say(text: String) -> Result<ExitCode, Failure> {
    say_and_end(&text, ExitCode::SUCCESS)
}

/// Prints the output of a command, which exits with this status if the output was written.
fn say_and_end(text: &str, code: ExitCode) -> Result<ExitCode, Failure> {
    match log::print(text) {
        Ok(()) => Ok(code),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::from(READER_GONE)),
        Err(error) => Err(Failure {
            cause: format!("cannot write to stdout: {error}"),
            cure: "redirect it to a file or device that has room".into(),
        }),
    }
}

/// Writes a new file that only its owner can read, because it will contain keys. The file is
/// written completely or not at all.
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
