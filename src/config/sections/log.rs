//! Section about log lines.
//!
//! Owns its keys. Never writes a line.

use std::collections::BTreeMap;

use super::section::section;

section! {
    /// Log lines: levels, format and file.
    Log {
        /// Least severe lines that are logged: `error`, `warn`, `info`, `debug` or `trace`. `fatal`
        /// and `none`: no lines; a failure that ends the server is always written to stderr.
        level: String = "info".to_owned(),
        /// File to append log lines to. The server opens it again after SIGHUP, `drumline reload`
        /// or its removal. Empty: stderr.
        file: String = String::new(),
        /// Format of log lines: `text`, or `json` for a JSON object per line.
        format: String = "text".to_owned(),
        /// Log a line for each connect and disconnect of a client, in the part `access`, whatever
        /// `level` is. The lines contain user ids and IP addresses.
        access: bool = false,
        /// Maximum number of log lines per second of each kind, which is a place in the code that
        /// logs. Further lines are left out and counted, and the next line of the kind has their
        /// number as `suppressed`. Lines of the access log have no limit. 0: no limit.
        rate: usize = 100,
        /// Levels of single parts of the server, instead of `level`: a table such as
        /// `{ tls = "debug" }`. The parts are acme, admin, api, backend, config, control, feeds,
        /// hooks, http, log, reload, store, tls, tokens and traces. As a flag or variable: the same
        /// as JSON.
        levels: BTreeMap<String, String> = BTreeMap::new(),
    }
}
