//! Declaration of sections: a macro generates the type, the defaults and the list of keys.
//!
//! Owns the macros and the trait that lists keys. Never names a section.

use std::any::TypeId;
use std::collections::BTreeMap;

use crate::base::secret::{Address, Secret};
use crate::config::duration::ConfigDuration;
use crate::config::key::Key;
use crate::config::response_transforms::ResponseTransform;
use crate::config::status_transforms::StatusTransform;
use crate::config::value_kind::ValueKind;

/// A section of the configuration, or the value of a key. It lists its keys.
pub(in crate::config) trait Node {
    fn describe(&self, path: &str, doc: &'static str, keys: &mut Vec<Key>);

    /// Adds the paths of the keys whose values differ in `other`.
    fn differences(&self, other: &Self, path: &str, found: &mut Vec<String>);
}

/// The paths of the keys whose values differ in two sections of one kind.
pub(in crate::config) fn differences<T: Node>(one: &T, other: &T) -> Vec<String> {
    let mut found = Vec::new();
    one.differences(other, "", &mut found);
    found
}

/// All keys of a section, in the order of their declaration.
pub(in crate::config) fn describe(node: &impl Node) -> Vec<Key> {
    let mut keys = Vec::new();
    node.describe("", "", &mut keys);
    keys
}

/// Declares a section with its keys. The part after `..` is a section whose keys belong to this
/// section too.
macro_rules! section {
    (
        $(#[$meta:meta])*
        $name:ident {
            $($(#[doc = $doc:literal])+ $field:ident: $type:ty = $default:expr,)*
            $(.. $(#[doc = $part_doc:literal])+ $part:ident: $part_type:ty)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct $name {
            $($(#[doc = $doc])+ pub $field: $type,)*
            $($(#[doc = $part_doc])+ #[serde(flatten)] pub $part: $part_type,)?
        }

        impl Default for $name {
            fn default() -> Self {
                $name { $($field: $default,)* $($part: <$part_type>::default(),)? }
            }
        }

        impl $crate::config::sections::section::Node for $name {
            fn describe(
                &self,
                path: &str,
                _doc: &'static str,
                keys: &mut Vec<$crate::config::key::Key>,
            ) {
                $(self.$field.describe(
                    // The keyword `type` is spelled `r#type` as a field.
                    &$crate::config::key::join(path, stringify!($field).trim_start_matches("r#")),
                    concat!($($doc),+).trim_ascii(),
                    keys,
                );)*
                $(self.$part.describe(path, "", keys);)?
            }

            fn differences(&self, other: &Self, path: &str, found: &mut Vec<String>) {
                $(self.$field.differences(
                    &other.$field,
                    &$crate::config::key::join(path, stringify!($field).trim_start_matches("r#")),
                    found,
                );)*
                $(self.$part.differences(&other.$part, path, found);)?
            }
        }
    };
}
pub(super) use section;

/// Allows sections to have keys whose value is a list of named tables of these types.
macro_rules! tables {
    ($($type:ty),*) => {
        $(impl $crate::config::sections::section::Node for Vec<$type> {
            fn describe(
                &self,
                path: &str,
                doc: &'static str,
                keys: &mut Vec<$crate::config::key::Key>,
            ) {
                use $crate::config::sections::section::describe;
                let options = describe(&<$type>::default());
                let key = $crate::config::key::Key {
                    path: path.to_owned(),
                    doc,
                    kind: $crate::config::value_kind::ValueKind::Tables,
                    default: toml::Value::Array(Vec::new()),
                    most: 0,
                    options,
                };
                keys.push(key);
            }

            fn differences(&self, other: &Self, path: &str, found: &mut Vec<String>) {
                if self != other {
                    found.push(path.to_owned());
                }
            }
        })*
    };
}
pub(super) use tables;

/// Implements [`Node`] for the types of plain values, with the kind of each type.
macro_rules! values {
    ($($type:ty: $kind:ident,)*) => {
        $(impl Node for $type {
            fn describe(&self, path: &str, doc: &'static str, keys: &mut Vec<Key>) {
                let default = toml::Value::try_from(self).expect("a value of TOML's kinds");
                let (most, options) = (most::<$type>(), Vec::new());
                keys.push(Key {
                    path: path.to_owned(),
                    doc,
                    kind: ValueKind::$kind,
                    default,
                    most,
                    options,
                });
            }

            fn differences(&self, other: &Self, path: &str, found: &mut Vec<String>) {
                if self != other {
                    found.push(path.to_owned());
                }
            }
        })*
    };
}

/// The largest number that a key of this type accepts. TOML cannot write numbers above `i64::MAX`.
fn most<T: 'static>() -> u64 {
    let small = TypeId::of::<T>() == TypeId::of::<u16>();
    if small { u16::MAX.into() } else { i64::MAX as u64 }
}

values! {
    bool: Switch,
    u16: Number,
    u64: Number,
    usize: Number,
    String: Text,
    Vec<String>: List,
    Secret: Secret,
    Address: Address,
    BTreeMap<String, Secret>: Map,
    BTreeMap<String, String>: Map,
    Vec<StatusTransform>: Transforms,
    Vec<ResponseTransform>: Responses,
    ConfigDuration: Duration,
}
