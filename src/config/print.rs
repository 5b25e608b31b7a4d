//! Prints the configuration: a commented TOML file, the defaults as JSON, a Markdown description.
//!
//! Owns no state. Never reads a configured value. The invariant: each of the three texts contains
//! every key once, and the two files can be loaded.

use std::fmt::Write as _;

use super::key::Key;
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

/// Example of a table in this list, for the commented file.
fn example(list: &str) -> &'static str {
    match list {
        "proxies" => PROXY,
        "rpc.namespaces" => RPC_NAMESPACE,
        _ => NAMESPACE,
    }
}

/// A commented `drumline.toml` that contains every key with its default value.
pub fn template() -> String {
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
            _ => _ = writeln!(text, "#{name} = {}", key.default),
        }
    }
    text
}

/// All default values as a JSON file.
pub fn default_json() -> String {
    let text = serde_json::to_string_pretty(&Config::default());
    text.expect("every value of a configuration can be written as JSON") + "\n"
}

/// Every key with its default, environment variable and description, in Markdown.
pub fn document() -> String {
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
    for key in keys() {
        let section = key.split().0;
        if open != Some(section) {
            let title = if section.is_empty() { "Top level" } else { section };
            _ = write!(text, "\n## {title}\n\n| key | default | variable | description |\n");
            text.push_str("|---|---|---|---|\n");
            open = Some(section);
        }
        text.push_str(&row(key));
    }
    text
}

fn row(key: &Key) -> String {
    let cells = [
        format!("`{}`", key.path),
        format!("`{}`", key.default),
        format!("`{}`", key.variable()),
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
    fn the_default_json_loads_and_the_document_describes_every_key() {
        assert_eq!(load_as("config.json", &default_json()), Config::default());
        let text = document();
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
