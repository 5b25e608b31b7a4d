//! Filters by tags: a subscriber receives only publications whose tags match its filter.
//!
//! Owns the rules of filters and their compiled form. Never knows a subscription or a publication.
//! The invariant: a compiled filter is well-formed and within the bounds, so matching cannot fail
//! and takes bounded time, and equal filters have equal bytes.
//!
//! Source of names and rules: centrifugal/protocol (`FilterNode`) and centrifugal/centrifuge
//! (`internal/filter`). For an absent tag, `neq` and `nex` hold, `in` and `nin` treat the tag as
//! empty text, and no other comparison holds. Numbers are decimals of any size, compared exactly. A
//! tag that is not a number matches no numeric comparison. Unlike Centrifuge, this server refuses a
//! filter whose numeric comparison has an operand that is not a number: it would never match.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::Deserialize;

use crate::base::memory::Charge;
use crate::wire::lenient_json;

const NODES_MAX: usize = 100;
const DEPTH_MAX: usize = 16;
const VALUES_MAX: usize = 100;
const TEXT_MAX: usize = 16 << 10;

// Lengths in a compiled filter have two bytes. The sum bounds the bytes of all nodes and texts.
const _: () = assert!(TEXT_MAX + 5 * NODES_MAX + 2 * VALUES_MAX <= u16::MAX as usize);

/// A node of a filter, as clients send it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct FilterNode {
    /// `and`, `or` or `not`; empty for a comparison.
    #[serde(deserialize_with = "lenient_json::nullable")]
    pub op: String,
    /// Name of the tag to compare.
    #[serde(deserialize_with = "lenient_json::nullable")]
    pub key: String,
    /// Comparison operator, such as `eq`.
    #[serde(deserialize_with = "lenient_json::nullable")]
    pub cmp: String,
    /// Value to compare with.
    #[serde(deserialize_with = "lenient_json::nullable")]
    pub val: String,
    /// Values to compare with for `in` and `nin`.
    #[serde(deserialize_with = "lenient_json::nullable")]
    pub vals: Vec<String>,
    /// Operands of `and`, `or` or `not`.
    #[serde(deserialize_with = "lenient_json::nullable")]
    pub nodes: Vec<FilterNode>,
}

/// A compiled filter: one allocation, which clones share.
///
/// The bytes are a sequence of nodes. A node is the index of its test, the length of its body and
/// the body. The body of `and`, `or` and `not` is a sequence of nodes. The body of a comparison is
/// the key as a text (length and bytes) and the operand, which fills the rest of the node. For `in`
/// and `nin` the operand is a sequence of texts.
#[derive(Clone, Debug)]
pub struct Filter(pub(super) Arc<Compiled>);

#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) bytes: Box<[u8]>,
    /// Counts the filter in the memory budget until it is dropped.
    #[expect(dead_code, reason = "only its drop has an effect")]
    pub(super) charge: Option<Charge>,
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.bytes == other.0.bytes
    }
}

impl Eq for Filter {}

impl Hash for Filter {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.bytes.hash(state);
    }
}

/// The test of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    All,
    Any,
    Not,
    Equal,
    Unequal,
    In,
    NotIn,
    Exists,
    Missing,
    Starts,
    Ends,
    Contains,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Tests and their names. A compiled filter stores the index of a test in this table.
const TESTS: [(&str, Test); 16] = [
    ("and", Test::All),
    ("or", Test::Any),
    ("not", Test::Not),
    ("eq", Test::Equal),
    ("neq", Test::Unequal),
    ("in", Test::In),
    ("nin", Test::NotIn),
    ("ex", Test::Exists),
    ("nex", Test::Missing),
    ("sw", Test::Starts),
    ("ew", Test::Ends),
    ("ct", Test::Contains),
    ("lt", Test::Less),
    ("lte", Test::LessOrEqual),
    ("gt", Test::Greater),
    ("gte", Test::GreaterOrEqual),
];

/// Number of tests at the beginning of the table that join nodes; the others compare tags.
const JOINING: usize = 3;

/// Compiles a filter. The error describes for humans why the filter is invalid.
pub fn compile(node: &FilterNode) -> Result<Filter, String> {
    let mut compiler = Compiler::default();
    compiler.node(node, 1)?;
    Ok(Filter(Arc::new(Compiled { bytes: compiler.bytes.into(), charge: None })))
}

#[derive(Default)]
struct Compiler {
    bytes: Vec<u8>,
    nodes: usize,
    values: usize,
    text: usize,
}

impl Compiler {
    fn node(&mut self, node: &FilterNode, depth: usize) -> Result<(), String> {
        self.nodes += 1;
        if self.nodes > NODES_MAX || depth > DEPTH_MAX {
            return Err(format!("a filter has at most {NODES_MAX} nodes, {DEPTH_MAX} deep"));
        }
        let joins = !node.op.is_empty();
        let name = if joins { &node.op } else { &node.cmp };
        let index = TESTS.iter().position(|(known, _)| known == name);
        let Some(index) = index.filter(|index| (*index < JOINING) == joins) else {
            let shown: String = name.chars().take(20).collect();
            return Err(format!("unknown {}: {shown:?}", if joins { "op" } else { "cmp" }));
        };
        self.bytes.extend([index as u8, 0, 0]);
        let start = self.bytes.len();
        match TESTS[index].1 {
            Test::Not if node.nodes.len() != 1 => {
                return Err("not requires exactly one node".into());
            }
            _ if joins && node.nodes.is_empty() => {
                return Err(format!("{name} requires at least one node"));
            }
            _ if joins => node.nodes.iter().try_for_each(|node| self.node(node, depth + 1))?,
            test => self.comparison(node, test)?,
        }
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start - 2..start].copy_from_slice(&length.to_le_bytes());
        Ok(())
    }

    fn comparison(&mut self, node: &FilterNode, test: Test) -> Result<(), String> {
        let FilterNode { key, cmp, val, vals, .. } = node;
        let takes = match test {
            Test::In | Test::NotIn => (false, true),
            Test::Exists | Test::Missing => (false, false),
            _ => (true, false),
        };
        if key.is_empty() && takes != (false, false) {
            return Err(format!("{cmp} requires a key"));
        }
        if takes != (!val.is_empty(), !vals.is_empty()) {
            let takes = match takes {
                (true, _) => "val and no vals",
                (_, true) => "vals and no val",
                _ => "neither val nor vals",
            };
            return Err(format!("{cmp} takes {takes}"));
        }
        self.values += vals.len();
        let texts = [key, val].into_iter().chain(vals);
        self.text += texts.map(String::len).sum::<usize>();
        if self.values > VALUES_MAX || self.text > TEXT_MAX {
            return Err(format!(
                "a filter has at most {VALUES_MAX} vals, {TEXT_MAX} bytes of text"
            ));
        }
        self.text(key.as_bytes());
        vals.iter().for_each(|value| self.text(value.as_bytes()));
        if test.is_numeric() {
            let number = Number::parse(val.as_bytes());
            number.ok_or(format!("{cmp} takes a number"))?.write(&mut self.bytes);
        } else {
            self.bytes.extend_from_slice(val.as_bytes());
        }
        Ok(())
    }

    fn text(&mut self, text: &[u8]) {
        self.bytes.extend((text.len() as u16).to_le_bytes());
        self.bytes.extend_from_slice(text);
    }
}

impl Filter {
    /// Whether a publication with these tags matches.
    pub fn matches(&self, tags: &[(Box<str>, Box<str>)]) -> bool {
        nodes(&self.0.bytes).all(|(test, body)| test.holds(body, tags))
    }
}

/// Splits off a text: a length and that number of bytes.
fn split_text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u16::from_le_bytes(*length).into())
}

/// Iterates over a sequence of nodes.
fn nodes(mut bytes: &[u8]) -> impl Iterator<Item = (Test, &[u8])> {
    std::iter::from_fn(move || {
        let (index, rest) = bytes.split_first()?;
        let (body, rest) = split_text(rest)?;
        bytes = rest;
        Some((TESTS.get(usize::from(*index))?.1, body))
    })
}

/// Iterates over a sequence of texts.
fn texts(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (text, rest) = split_text(bytes)?;
        bytes = rest;
        Some(text)
    })
}

impl Test {
    fn is_numeric(self) -> bool {
        matches!(self, Test::Less | Test::LessOrEqual | Test::Greater | Test::GreaterOrEqual)
    }

    fn holds(self, body: &[u8], tags: &[(Box<str>, Box<str>)]) -> bool {
        match self {
            Test::All => nodes(body).all(|(test, body)| test.holds(body, tags)),
            Test::Any => nodes(body).any(|(test, body)| test.holds(body, tags)),
            Test::Not => !nodes(body).any(|(test, body)| test.holds(body, tags)),
            _ => {
                let (key, operand) = split_text(body).unwrap_or_default();
                let found = tags.iter().find(|(name, _)| name.as_bytes() == key);
                self.compares(found.map(|(_, value)| &**value), operand)
            }
        }
    }

    /// Whether the comparison holds for a tag's value; `None`: the tag is absent.
    fn compares(self, value: Option<&str>, operand: &[u8]) -> bool {
        let is_listed = |value: &str| texts(operand).any(|text| text == value.as_bytes());
        match (self, value) {
            (Test::In, _) => is_listed(value.unwrap_or_default()),
            (Test::NotIn, _) => !is_listed(value.unwrap_or_default()),
            (_, None) => matches!(self, Test::Unequal | Test::Missing),
            (Test::Exists, Some(_)) => true,
            (Test::Equal, Some(value)) => value.as_bytes() == operand,
            (Test::Unequal, Some(value)) => value.as_bytes() != operand,
            (Test::Starts, Some(value)) => value.as_bytes().starts_with(operand),
            (Test::Ends, Some(value)) => value.as_bytes().ends_with(operand),
            (Test::Contains, Some(value)) => {
                std::str::from_utf8(operand).is_ok_and(|operand| value.contains(operand))
            }
            (_, Some(value)) => {
                let numbers = (Number::parse(value.as_bytes()), Number::parse(operand));
                let (Some(value), Some(operand)) = numbers else { return false };
                self.admits(value.compare(&operand))
            }
        }
    }

    /// Whether a numeric comparison holds for this ordering of the tag and the operand.
    fn admits(self, ordering: Ordering) -> bool {
        match self {
            Test::Less => ordering.is_lt(),
            Test::LessOrEqual => ordering.is_le(),
            Test::Greater => ordering.is_gt(),
            Test::GreaterOrEqual => ordering.is_ge(),
            _ => false,
        }
    }
}

/// A decimal number as digits, exact for any size.
#[derive(Debug)]
struct Number<'a> {
    negative: bool,
    /// Digits before the point, without leading zeros.
    whole: &'a [u8],
    /// Digits after the point, without trailing zeros.
    fraction: &'a [u8],
}

impl<'a> Number<'a> {
    /// Parses an optional sign, digits, and optionally a point with 1 to 19 digits; at most 200
    /// bytes.
    fn parse(text: &'a [u8]) -> Option<Self> {
        let (signed, unsigned) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let point = unsigned.iter().position(|byte| *byte == b'.');
        let (whole, fraction) = unsigned.split_at(point.unwrap_or(unsigned.len()));
        let fraction = fraction.strip_prefix(b".").unwrap_or(fraction);
        let fits = point.is_none() || (1..=19).contains(&fraction.len());
        let mut all = whole.iter().chain(fraction);
        if text.len() > 200 || whole.is_empty() || !fits || !all.all(u8::is_ascii_digit) {
            return None;
        }
        let is_not_zero = |byte: &u8| *byte != b'0';
        let start = whole.iter().position(is_not_zero).unwrap_or(whole.len());
        let end = fraction.iter().rposition(is_not_zero).map_or(0, |last| last + 1);
        let (whole, fraction) = (&whole[start..], &fraction[..end]);
        let negative = signed && !(whole.is_empty() && fraction.is_empty());
        Some(Number { negative, whole, fraction })
    }

    /// Appends the canonical form of the number.
    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.negative.then_some(b'-'));
        out.extend(self.whole.is_empty().then_some(b'0'));
        out.extend_from_slice(self.whole);
        out.extend((!self.fraction.is_empty()).then_some(b'.'));
        out.extend_from_slice(self.fraction);
    }

    fn compare(&self, other: &Number<'_>) -> Ordering {
        fn size<'a>(number: &Number<'a>) -> (usize, &'a [u8], &'a [u8]) {
            (number.whole.len(), number.whole, number.fraction)
        }
        let sizes = size(self).cmp(&size(other));
        match (self.negative, other.negative) {
            (false, false) => sizes,
            (true, true) => sizes.reverse(),
            (one, other) => other.cmp(&one),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Tags = Vec<(Box<str>, Box<str>)>;

    fn parsed(text: &str) -> Result<Filter, String> {
        compile(&serde_json::from_str(text).unwrap())
    }

    /// Tags written as `name=value name=value`.
    fn tags(text: &str) -> Tags {
        let pair = |word: &str| {
            let (name, value) = word.split_once('=').unwrap();
            (name.into(), value.into())
        };
        text.split_whitespace().map(pair).collect()
    }

    /// A comparison written as `key cmp val val`.
    fn comparison(text: &str) -> FilterNode {
        let mut words = text.split(' ').map(str::to_owned);
        let mut next = || words.next().unwrap();
        let (key, cmp) = (next(), next());
        let vals: Vec<String> = words.collect();
        match &*cmp {
            "in" | "nin" => FilterNode { key, cmp, vals, ..FilterNode::default() },
            _ => FilterNode { key, cmp, val: vals.concat(), ..FilterNode::default() },
        }
    }

    fn joined(op: &str, nodes: Vec<FilterNode>) -> FilterNode {
        FilterNode { op: op.into(), nodes, ..FilterNode::default() }
    }

    #[test]
    fn comparisons_hold_for_their_tags_only() {
        let check = |filter: &str, given: &str, expected: bool| {
            let compiled = compile(&comparison(filter)).unwrap();
            assert_eq!(compiled.matches(&tags(given)), expected, "{filter}: {given}");
            let opposite = compile(&joined("not", vec![comparison(filter)])).unwrap();
            assert_eq!(opposite.matches(&tags(given)), !expected, "not {filter}: {given}");
        };
        // Filter, matching tags, other tags.
        let table: [(&str, &[&str], &[&str]); 13] = [
            ("a eq x", &["a=x", "b=y a=x"], &["a=y", "b=x", "", "a=", "a=xx", "a=X"]),
            ("a neq x", &["a=y", "b=x", "", "a=xx"], &["a=x", "b=y a=x"]),
            ("a in x yy", &["a=x", "a=yy"], &["a=y", "a=", "", "b=x", "a=xyy"]),
            ("a nin x yy", &["a=y", "a=", "", "b=x", "a=xyy"], &["a=x", "a=yy"]),
            ("a ex", &["a=", "a=x", "b=y a=x"], &["", "b=a", "aa=x"]),
            ("a nex", &["", "b=a", "aa=x"], &["a=", "a=x", "b=y a=x"]),
            ("a sw xy", &["a=xy", "a=xyz"], &["a=x", "a=zxy", "a=", "", "b=xy"]),
            ("a ew xy", &["a=xy", "a=zxy"], &["a=x", "a=xyz", "a=", "", "b=xy"]),
            ("a ct xy", &["a=xy", "a=zxyz"], &["a=x", "a=xzy", "a=", "", "b=xy"]),
            ("a gt 42", &["a=100", "a=42.01"], &["a=42", "a=-100", "a=x", "a=", "", "a=1e9"]),
            ("a gte 42", &["a=42", "a=42.00000001"], &["a=41.99999999", "a=10", "a=x", ""]),
            ("a lt 42", &["a=10", "a=-100"], &["a=42", "a=100", "a=x", "a=", ""]),
            ("a lte 42", &["a=42.0", "a=10", "a=+042"], &["a=42.1", "a=100", "a=x", ""]),
        ];
        for (filter, matching, others) in table {
            matching.iter().for_each(|given| check(filter, given, true));
            others.iter().for_each(|given| check(filter, given, false));
        }
        // `in` and `nin` treat an absent tag as empty text.
        check("a in  x", "", true);
        check("a nin  x", "", false);
        // A key may be any text. It may be empty for `ex` and `nex`.
        check(" ex", "a=x", false);
        check(" ex", "=x", true);
        check("ключ ct ю", "ключ=люк", true);
    }

    #[test]
    fn numbers_are_compared_exactly_and_written_canonically() {
        let ordered = [
            "-1000000000000000000000000000000000000000000000000000000000000000000.5",
            "-100",
            "-20",
            "-19.99",
            "-19.9",
            "-0.0000000000000000001",
            "0",
            "0.0000000000000000001",
            "0.5",
            "0.51",
            "0.6",
            "1",
            "9",
            "10",
            "10.01",
            "10.1",
            "9007199254740992",
            "9007199254740993",
            "340282366920938463463374607431768211456",
        ];
        for (place, one) in ordered.iter().enumerate() {
            for (other_place, other) in ordered.iter().enumerate() {
                let number = |text: &'static str| Number::parse(text.as_bytes()).unwrap();
                assert_eq!(number(one).compare(&number(other)), place.cmp(&other_place), "{one}");
            }
        }
        let check = |text: &str, expected: Option<&str>| {
            let found = Number::parse(text.as_bytes()).map(|number| {
                let mut out = Vec::new();
                number.write(&mut out);
                String::from_utf8(out).unwrap()
            });
            assert_eq!(found.as_deref(), expected, "{text}");
        };
        for same in ["7", "+7", "007", "7.0", "7.000", "+0007.0"] {
            check(same, Some("7"));
        }
        for zero in ["0", "-0", "+0", "0.0", "-00.00"] {
            check(zero, Some("0"));
        }
        check("-0.50", Some("-0.5"));
        check("123.4567890123456789012", Some("123.4567890123456789012"));
        let no = ["", "+", "-", ".", ".5", "-.5", "5.", "1.2.3", "1e3", "0x1", "--1", "+-1", " 1"];
        let no =
            no.into_iter().chain(["1 ", "1,5", "NaN", "inf", "1_0", "٣", "1.01234567890123456789"]);
        no.for_each(|text| check(text, None));
        check(&"9".repeat(200), Some(&"9".repeat(200)));
        check(&"9".repeat(201), None);
    }

    #[test]
    fn and_or_and_not_combine_nodes() {
        let filter = r#"{"op":"or","nodes":[
            {"op":"and","nodes":[{"key":"env","cmp":"eq","val":"prod"},
                                 {"key":"region","cmp":"in","vals":["us","eu"]}]},
            {"op":"and","nodes":[{"key":"tier","cmp":"neq","val":"bronze"},
                                 {"op":"not","nodes":[{"key":"debug","cmp":"ex"}]},
                                 {"key":"price","cmp":"gte","val":"99.50"}]}]}"#;
        let filter = parsed(filter).unwrap();
        let check =
            |given: &str, expected| assert_eq!(filter.matches(&tags(given)), expected, "{given}");
        check("env=prod region=us", true);
        check("env=prod region=asia", false);
        check("env=prod region=asia price=99.5", true);
        check("price=100 tier=bronze", false);
        check("price=100 tier=silver debug=1", false);
        check("debug=1 env=prod region=eu", true);
        check("", false);
    }

    #[test]
    fn invalid_filters_are_refused_with_a_short_error() {
        let check = |text: &str| {
            let found = parsed(text);
            assert!(found.as_ref().is_err_and(|error| error.len() < 100), "{text}: {found:?}");
        };
        let leaf = r#"{"key":"a","cmp":"ex"}"#;
        check("{}");
        check(r#"{"key":"a"}"#);
        check(r#"{"key":"a","cmp":"and"}"#);
        check(r#"{"key":"a","cmp":"like","val":"x"}"#);
        check(r#"{"key":"a","cmp":"starts","val":"x"}"#);
        check(r#"{"cmp":"eq","val":"x"}"#);
        check(r#"{"cmp":"in","vals":["x"]}"#);
        for cmp in ["eq", "neq", "sw", "ew", "ct", "lt", "lte", "gt", "gte"] {
            check(&format!(r#"{{"key":"a","cmp":"{cmp}"}}"#));
            check(&format!(r#"{{"key":"a","cmp":"{cmp}","vals":["1"]}}"#));
            check(&format!(r#"{{"key":"a","cmp":"{cmp}","val":"1","vals":["1"]}}"#));
        }
        for cmp in ["in", "nin"] {
            check(&format!(r#"{{"key":"a","cmp":"{cmp}"}}"#));
            check(&format!(r#"{{"key":"a","cmp":"{cmp}","vals":[]}}"#));
            check(&format!(r#"{{"key":"a","cmp":"{cmp}","val":"1"}}"#));
        }
        for cmp in ["ex", "nex"] {
            check(&format!(r#"{{"key":"a","cmp":"{cmp}","val":"1"}}"#));
            check(&format!(r#"{{"key":"a","cmp":"{cmp}","vals":["1"]}}"#));
        }
        for cmp in ["lt", "lte", "gt", "gte"] {
            check(&format!(r#"{{"key":"a","cmp":"{cmp}","val":"ten"}}"#));
        }
        check(r#"{"op":"and"}"#);
        check(r#"{"op":"or","nodes":[]}"#);
        check(r#"{"op":"not"}"#);
        check(&format!(r#"{{"op":"not","nodes":[{leaf},{leaf}]}}"#));
        check(&format!(r#"{{"op":"eq","nodes":[{leaf}]}}"#));
        check(&format!(r#"{{"op":"{}","nodes":[{leaf}]}}"#, "x".repeat(5000)));
        check(&format!(r#"{{"op":"and","nodes":[{leaf},{{}}]}}"#));
    }

    #[test]
    fn filters_over_the_bounds_are_refused() {
        let check = |node: FilterNode, expected: bool| {
            let compiled = compile(&node);
            assert_eq!(compiled.is_ok(), expected, "{:?}", compiled.err());
            if let Ok(filter) = compiled {
                filter.matches(&tags("a=x"));
            }
        };
        let leaf = || comparison("a ex");
        check(joined("or", vec![leaf(); NODES_MAX - 1]), true);
        check(joined("or", vec![leaf(); NODES_MAX]), false);
        let nested = |depth| (1..depth).fold(leaf(), |node, _| joined("not", vec![node]));
        check(nested(DEPTH_MAX), true);
        check(nested(DEPTH_MAX + 1), false);
        let among = |count| FilterNode { vals: vec!["v".into(); count], ..comparison("a in") };
        check(joined("and", vec![among(1), among(VALUES_MAX - 1)]), true);
        check(joined("and", vec![among(1), among(VALUES_MAX)]), false);
        let long = |length| FilterNode { val: "v".repeat(length), ..comparison("a eq") };
        check(joined("and", vec![long(1), long(TEXT_MAX - 3)]), true);
        check(joined("and", vec![long(1), long(TEXT_MAX - 2)]), false);
        // All bounds at once.
        let mut all = vec![leaf(); NODES_MAX - 3];
        all.extend([among(VALUES_MAX), long(TEXT_MAX - NODES_MAX - VALUES_MAX)]);
        check(joined("and", all), true);
    }

    #[test]
    fn null_fields_count_as_absent() {
        let plain = parsed(r#"{"key":"a","cmp":"eq","val":"x"}"#);
        let full = r#"{"op":null,"key":"a","cmp":"eq","val":"x","vals":null,"nodes":null,"more":{"op":1}}"#;
        assert_eq!(plain, parsed(full));
        assert!(serde_json::from_str::<FilterNode>(r#"{"val":1}"#).is_err());
    }

    #[test]
    fn equal_filters_have_equal_bytes_and_hashes() {
        use std::hash::{BuildHasher, RandomState};
        let state = RandomState::new();
        let check = |one: &str, other: &str, expected: bool| {
            let one = compile(&comparison(one)).unwrap();
            let other = compile(&comparison(other)).unwrap();
            assert_eq!(one == other, expected);
            assert_eq!(state.hash_one(&one) == state.hash_one(&other), expected);
        };
        check("a eq x", "a eq x", true);
        check("a eq x", "a neq x", false);
        check("a eq x", "ax eq x", false);
        check("a gt 7", "a gt +7.0", true);
        check("a eq 7", "a eq +7.0", false);
        check("a in x y", "a in xy", false);
    }

    fn any_node() -> impl Strategy<Value = FilterNode> {
        let one_of = proptest::sample::select::<&str>;
        let names = TESTS[JOINING..].iter().map(|(name, _)| *name).collect::<Vec<_>>();
        let (keys, numbers) = (vec!["a", "b", "x", "1"], vec!["0", "1", "-2.5", "-3.0"]);
        let texts = vec!["a", "b", "1", "-2.5", "x"];
        let leaf = (one_of(names), one_of(keys), one_of(texts), one_of(numbers));
        let leaf = leaf.prop_map(|(cmp, key, text, number)| match cmp {
            "ex" | "nex" => comparison(&format!("{key} {cmp}")),
            "lt" | "lte" | "gt" | "gte" => comparison(&format!("{key} {cmp} {number}")),
            "in" | "nin" => comparison(&format!("{key} {cmp} {text} {number}")),
            _ => comparison(&format!("{key} {cmp} {text}")),
        });
        leaf.prop_recursive(6, 40, 4, |inner| {
            let op = proptest::sample::select(vec!["and", "or", "not"]);
            (op, proptest::collection::vec(inner, 1..5)).prop_map(|(op, mut nodes)| {
                nodes.truncate(if op == "not" { 1 } else { 4 });
                joined(op, nodes)
            })
        })
    }

    /// The rules, evaluated on the uncompiled filter.
    fn expected(node: &FilterNode, tags: &[(Box<str>, Box<str>)]) -> bool {
        let mut below = node.nodes.iter().map(|node| expected(node, tags));
        match &*node.op {
            "and" => return below.all(|it| it),
            "or" => return below.any(|it| it),
            "not" => return !below.any(|it| it),
            _ => {}
        }
        let found = tags.iter().find(|(name, _)| **name == *node.key).map(|(_, value)| &**value);
        let value = found.unwrap_or_default();
        let number = |text: &str| text.parse::<f64>().ok();
        let order = number(value).partial_cmp(&number(&node.val));
        let order = order.filter(|_| number(value).is_some());
        match &*node.cmp {
            "eq" => found == Some(&*node.val),
            "neq" => found != Some(&*node.val),
            "in" => node.vals.iter().any(|it| it == value),
            "nin" => !node.vals.iter().any(|it| it == value),
            "ex" => found.is_some(),
            "nex" => found.is_none(),
            "sw" => value.starts_with(&node.val),
            "ew" => value.ends_with(&node.val),
            "ct" => value.contains(&node.val),
            "lt" => order.is_some_and(Ordering::is_lt),
            "lte" => order.is_some_and(Ordering::is_le),
            "gt" => order.is_some_and(Ordering::is_gt),
            _ => order.is_some_and(Ordering::is_ge),
        }
    }

    proptest! {
        #[test]
        fn a_compiled_filter_matches_like_its_tree(node in any_node()) {
            let compiled = compile(&node);
            if let Err(error) = &compiled {
                prop_assert!(error.contains("at most"), "{error}");
            }
            if let Ok(filter) = compiled {
                for given in ["", "a=1", "a= b=x", "a=-3 b=ax", "b=1 a=a x=x", "1=-2.5 a=b"] {
                    prop_assert_eq!(filter.matches(&tags(given)), expected(&node, &tags(given)));
                }
            }
        }

        #[test]
        fn a_parsed_number_keeps_its_value_when_written(text in "[-+0-9.]{0,24}") {
            if let Some(number) = Number::parse(text.as_bytes()) {
                let mut again = Vec::new();
                number.write(&mut again);
                let read = Number::parse(&again).unwrap();
                prop_assert_eq!(read.compare(&number), Ordering::Equal);
                let close = text.parse::<f64>().unwrap() - str::from_utf8(&again).unwrap().parse::<f64>().unwrap();
                prop_assert_eq!(close, 0.0);
            }
        }
    }
}
