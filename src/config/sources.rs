//! Where values come from, besides the defaults.
//!
//! Owns what the sources gave, as text. Never shows a value.

use std::fmt;
use std::path::PathBuf;

/// Where values come from, besides the defaults; later ones win.
#[derive(Clone, Default)]
pub struct Sources {
    /// The file that `--config` names.
    pub file: Option<PathBuf>,
    /// The environment, names and values.
    pub environment: Vec<(String, String)>,
    /// Flags: the key's path and its value.
    pub flags: Vec<(String, String)>,
}

impl fmt::Debug for Sources {
    /// Says nothing of values: some are secrets.
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
