//! Sources of configured values: a file, environment variables and flags.
//!
//! Owns the texts that the sources give. Never shows a value, because it may be a secret.

use std::fmt;
use std::path::PathBuf;

/// The sources of values besides the defaults. A later field overrides an earlier one.
#[derive(Clone, Default)]
pub struct Sources {
    /// File that `--config` names. `None`: look for one in the working folder.
    pub file: Option<PathBuf>,
    /// Environment variables: name and value.
    pub environment: Vec<(String, String)>,
    /// Flags: path of the key and value.
    pub flags: Vec<(String, String)>,
}

impl fmt::Debug for Sources {
    /// Shows names without values, because some values are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |pairs: &[(String, String)]| {
            pairs.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
        };
        let Sources { file, environment, flags } = self;
        let mut shown = f.debug_struct("Sources");
        shown.field("file", file).field("environment", &names(environment));
        shown.field("flags", &names(flags)).finish()
    }
}
