//! Prints the configuration: a commented TOML file, the defaults as JSON, a Markdown description.
//!
//! Owns no state. Never reads a configured value. The invariant: each text about defaults contains
//! every key once, and every file can be loaded.

use std::fmt::Write as _;

use data_encoding::BASE64URL_NOPAD;
use serde::Serialize;
use serde_json::{Value, json};

use crate::base::sys;

use super::error::{Error, error};
use super::file::FileFormat;
use super::key::{Key, variable};
use super::keys::keys;
use super::sections::Config;
use super::value_kind::ValueKind;

/// Example of a namespace for the commented file. Every key has a value other than its default.
const NAMESPACE: &str = "[[channel.namespaces]]
name = \"chat\"
presence = true
history_size = 100
history_ttl = \"300s\"
force_recovery = true
allow_subscribe_for_client = true
allow_publish_for_subscriber = true
";

const RPC_NAMESPACE: &str = "[[rpc.namespaces]]
name = \"chat\"
proxy_enabled = true
";

const PROXY: &str = "[[proxies]]
name = \"chat\"
endpoint = \"http://localhost:3000/chat\"
";

const CONSUMER: &str = "[[consumers]]
name = \"prices\"
enabled = true
type = \"rabbitmq\"
[consumers.rabbitmq]
url = \"amqp://localhost:5672\"
queue = \"prices\"
exchange = \"stocks\"
bindings = [\"price.#\"]
[consumers.rabbitmq.publication_data_mode]
enabled = true
channel_template = \"stock:{routing_key.1}\"
";

/// What follows the name of the list.
const CERTIFICATE: &str = "
name = \"shop\"
cert_pem = \"/etc/drumline/shop.crt\"
key_pem = \"/etc/drumline/shop.key\"
";

const LISTENER: &str = "[[http_server.listeners]]
name = \"local\"
unix_socket = \"/run/drumline/edge.sock\"
";

/// Example of a table in this list, for the commented file.
fn example(list: &str) -> String {
    let known = match list {
        "proxies" => PROXY,
        "rpc.namespaces" => RPC_NAMESPACE,
        "consumers" => CONSUMER,
        "http_server.listeners" => LISTENER,
        "channel.namespaces" => NAMESPACE,
        _ => return format!("[[{list}]]{CERTIFICATE}"),
    };
    known.to_owned()
}

/// A commented `drumline.toml` that contains every key with its default value.
pub fn template() -> String {
    template_with(&[])
}

/// The commented file, in which these keys have values.
fn template_with(values: &[(&str, String)]) -> String {
    let mut text = String::from(
        "# Drumline configuration: every key with its description and its default value.\n\
         # An environment variable (DRUMLINE_HTTP_SERVER_PORT=8000) overrides this file, and a\n\
         # flag (--http_server.port 8000) overrides both.\n",
    );
    let mut open = "";
    for key in keys() {
        let (section, name) = key.split();
        if section != open {
            _ = write!(text, "\n[{section}]\n");
            open = section;
        }
        _ = writeln!(text, "# {}", key.doc);
        match key.kind {
            ValueKind::Tables => {
                example(&key.path).lines().for_each(|line| _ = writeln!(text, "# {line}"));
            }
            _ => match values.iter().find(|(path, _)| *path == key.path) {
                Some((_, value)) => _ = writeln!(text, "{name} = \"{value}\""),
                None => _ = writeln!(text, "#{name} = {}", key.default),
            },
        }
    }
    text
}

/// A file to start with in this format: a secret for tokens and an API key, both random. The TOML
/// file also lists every key in comments.
///
/// # Errors
/// The system has no random numbers.
pub fn generated(format: FileFormat) -> Result<String, Error> {
    let secret = || {
        let random = sys::random::<48>().map_err(|refused| {
            error(format!("cannot generate a secret: {refused}"), "run it again")
        })?;
        Ok(BASE64URL_NOPAD.encode(&random))
    };
    let (token, api) = (secret()?, secret()?);
    let file = json!({
        "client": { "allowed_origins": [], "token": { "hmac_secret_key": &token } },
        "http_api": { "key": &api },
    });
    let values = [("client.token.hmac_secret_key", token), ("http_api.key", api)];
    Ok(match format {
        FileFormat::Toml => template_with(&values),
        FileFormat::Json => json_text(&file),
        FileFormat::Yaml => yaml_text("", &file),
    })
}

/// All default values as a file in this format.
pub fn default_file(format: FileFormat) -> String {
    let config = Config::default();
    let value = || {
        serde_json::to_value(&config)
            .expect("every value of a configuration can be written as JSON")
    };
    match format {
        FileFormat::Toml => {
            toml::to_string(&config).expect("every value of a configuration can be written as TOML")
        }
        // Not by way of a JSON value, which would sort the keys.
        FileFormat::Json => json_text(&config),
        FileFormat::Yaml => yaml_text("", &value()),
    }
}

fn json_text(value: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(value);
    text.expect("every value of a configuration can be written as JSON") + "\n"
}

/// A table as YAML. Values other than tables are written as in JSON, which YAML contains.
fn yaml_text(indent: &str, value: &Value) -> String {
    let mut text = String::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        let is_section = value.as_object().is_some_and(|table| !table.is_empty());
        _ = match is_section {
            true => write!(text, "{indent}{name}:\n{}", yaml_text(&format!("{indent}  "), value)),
            false => writeln!(text, "{indent}{name}: {value}"),
        };
    }
    text
}

/// All environment variables with the default values, one a line, as in a file `.env`.
pub fn default_environment() -> String {
    let mut text = String::new();
    for key in keys() {
        let value = match &key.default {
            toml::Value::String(value) => value.clone(),
            toml::Value::Array(_) => String::new(),
            toml::Value::Table(_) => "{}".to_owned(),
            other => other.to_string(),
        };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte);
        let is_plain = value.bytes().all(is_plain);
        _ = match is_plain && !value.is_empty() {
            true => writeln!(text, "{}={value}", key.variable()),
            false => writeln!(text, "{}='{value}'", key.variable()),
        };
    }
    text
}

/// Every key whose path begins with `section`, with its default, environment variable and
/// description, in Markdown.
pub fn document(section: &str) -> String {
    let mut text = String::from(
        "# Configuration\n\n\
         Every key can be set in a configuration file (in its section), as an environment\n\
         variable, and as a flag: `--http_server.port 8000`. A flag overrides the environment,\n\
         and the environment overrides the file. The prefix `CENTRIFUGO_` works for variables\n\
         too; a variable that starts with `DRUMLINE_` overrides it.\n\n\
         A namespace has a `name` and the keys of `channel.without_namespace`. A variable that\n\
         contains the name of a namespace sets one of its keys:\n\
         `DRUMLINE_CHANNEL_NAMESPACES_CHAT_PRESENCE=true`. In TOML:\n\n",
    );
    _ = writeln!(text, "```toml\n{NAMESPACE}```");
    let mut open = None;
    for key in keys().iter().filter(|key| key.path.starts_with(section)) {
        let section = key.split().0;
        if open != Some(section) {
            let title = if section.is_empty() { "Top level" } else { section };
            _ = write!(text, "\n## {title}\n\n| key | default | variable | description |\n");
            text.push_str("|---|---|---|---|\n");
            open = Some(section);
        }
        text.push_str(&row(key, &key.path, &key.variable()));
    }
    if "consumers".starts_with(section) || section.starts_with("consumers") {
        document_consumer(&mut text);
    }
    text
}

/// Adds the keys of a consumer, which have no section of their own.
fn document_consumer(text: &mut String) {
    _ = write!(text, "\n## A consumer\n\n```toml\n{CONSUMER}```\n\n");
    text.push_str("| key | default | variable | description |\n|---|---|---|---|\n");
    let consumers = keys().iter().find(|key| key.path == "consumers");
    for key in consumers.map_or(&[][..], |key| &key.options) {
        let name = format!("DRUMLINE_CONSUMERS_NAME_{}", variable(&key.path));
        text.push_str(&row(key, &format!("consumers[].{}", key.path), &name));
    }
}

fn row(key: &Key, path: &str, variable: &str) -> String {
    let cells = [
        format!("`{path}`"),
        format!("`{}`", key.default),
        format!("`{variable}`"),
        key.doc.to_owned(),
    ];
    format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::config::{Namespace, Sources, load};

    /// Loads a file that has this name and text.
    fn load_as(name: &str, text: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let file: PathBuf = folder.path().join(Path::new(name));
        std::fs::write(&file, text).unwrap();
        load(&Sources { file: Some(file), ..Sources::default() }).unwrap().config
    }

    #[test]
    fn the_configuration_page_of_the_book_is_current() {
        let page = include_str!("../../docs/src/configuration.md");
        let cure = "run `cargo run -- configdoc >docs/src/configuration.md`";
        assert!(page == document(""), "docs/src/configuration.md is stale: {cure}");
    }

    #[test]
    fn the_template_contains_every_key_with_its_default() {
        let text = template();
        let uncommented: String = text
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        assert_eq!(load_as("drumline.toml", &uncommented), Config::default());
        for key in keys() {
            assert!(text.contains(key.doc) && !key.doc.is_empty(), "{}", key.path);
        }
        let mut variables: Vec<_> = keys().iter().map(Key::variable).collect();
        variables.sort_unstable();
        variables.dedup();
        assert_eq!(variables.len(), keys().len(), "no two keys share a variable");
    }

    #[test]
    fn the_example_namespace_of_the_template_loads() {
        let lines = template();
        let example: Vec<&str> = lines
            .lines()
            .skip_while(|line| *line != "# [[channel.namespaces]]")
            .map_while(|line| line.strip_prefix("# "))
            .collect();
        let loaded = load_as("drumline.toml", &example.join("\n"));
        let [Namespace { name, options }] = &loaded.channel.namespaces[..] else {
            panic!("{:?}", loaded.channel.namespaces)
        };
        assert_eq!((name.as_str(), options.history_size), ("chat", 100));
        assert!(options.presence && options.force_recovery);
    }

    #[test]
    fn the_example_of_every_list_is_one_of_that_list_and_loads() {
        let lists = keys().iter().filter(|key| matches!(key.kind, ValueKind::Tables));
        let mut count = 0;
        for list in lists {
            let example = example(&list.path);
            assert!(example.starts_with(&format!("[[{}]]\n", list.path)), "{example}");
            // The example of RPC namespaces uses the proxy of the section.
            let proxy = "[rpc.proxy]\nendpoint = \"http://localhost:3000/rpc\"\n";
            load_as("drumline.toml", &format!("{proxy}{example}"));
            count += 1;
        }
        assert!(count >= 7, "{count} lists");
    }

    #[test]
    fn variables_of_the_default_values_load_from_the_environment_and_from_a_file() {
        let text = default_environment();
        assert_eq!(text.lines().count(), keys().len());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(".env");
        std::fs::write(&file, &text).unwrap();
        let environment = crate::config::environment_with_file([], &file).unwrap();
        assert_eq!(environment.len(), keys().len());
        let file = Some(PathBuf::from("/dev/null"));
        let loaded = load(&Sources { file, environment, ..Sources::default() }).unwrap();
        assert_eq!(loaded.config, Config::default());
        assert!(!loaded.has_unknown);
    }

    #[test]
    fn every_default_file_loads_and_the_document_describes_every_key() {
        for (name, format) in [
            ("config.json", FileFormat::Json),
            ("config.yaml", FileFormat::Yaml),
            ("config.toml", FileFormat::Toml),
        ] {
            assert_eq!(load_as(name, &default_file(format)), Config::default(), "{name}");
            let config = load_as(name, &generated(format).unwrap());
            let other = load_as(name, &generated(format).unwrap());
            let secrets = |config: &Config| {
                let token = &config.client.token.hmac_secret_key;
                [token.reveal().to_owned(), config.http_api.key.reveal().to_owned()]
            };
            let [token, api] = secrets(&config);
            assert!(token.len() == 64 && api.len() == 64 && token != api, "{name}");
            assert_ne!([token, api], secrets(&other), "{name}");
        }
        let text = document("");
        let part = document("client.token");
        assert!(part.contains("`client.token.audience`") && !part.contains("`client.insecure`"));
        for key in keys() {
            let cell = format!("| `{}` |", key.path);
            assert_eq!(text.matches(&cell).count(), 1, "{}", key.path);
            assert!(text.contains(&key.variable()), "{}", key.path);
        }
        let titles: Vec<_> = text.lines().filter(|line| line.starts_with("## ")).collect();
        let mut once = titles.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), titles.len(), "{titles:?}");
    }
}
