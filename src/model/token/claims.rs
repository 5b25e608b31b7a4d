//! Claims of tokens: parsed without copying, then converted to owned values.
//!
//! Owns the names and types of the claims. Never checks a signature: the caller has verified it.
//! The invariant: a known claim that has the wrong type or occurs twice makes the token invalid.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::payload_fields::{NotBase64, PayloadFields, json_text};
use crate::wire::lenient_json::{self, Text};

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// The text is not a token, no configured key signed it, or a claim is invalid.
    Invalid,
    /// The token has expired, or is not valid yet.
    Expired,
    /// The key set lacks the token's key, or no key set was given: fetch the key set again.
    NoKey,
}

/// Maximum number of channels in a token.
const CHANNELS_MAX: usize = 10_000;

/// The claims of a connection token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectClaims {
    /// User ID; empty: an anonymous client.
    pub user: String,
    /// ID of the token; empty: none.
    pub jti: String,
    /// Time at which the token was issued, as Unix time in seconds.
    pub issued_at: Option<u64>,
    /// Expiry of the connection unless it is refreshed, as Unix time in seconds.
    pub expires: Option<u64>,
    /// Information for other clients in the channels: JSON text, or the bytes of `b64info`.
    pub info: Option<Box<[u8]>>,
    /// JSON text that requests to the backend include.
    pub meta: Option<Box<[u8]>>,
    /// Channels to which the server subscribes the client: distinct, in the order of the token.
    pub subs: Vec<(String, SubscribeOptions)>,
}

/// The claims of a subscription token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscribeClaims {
    /// User ID that the token is for.
    pub user: String,
    /// Channel that the token is for; never empty.
    pub channel: String,
    /// Client ID that the token is for; empty: all clients of the user.
    pub client: String,
    /// ID of the token; empty: none.
    pub jti: String,
    /// Time at which the token was issued, as Unix time in seconds.
    pub issued_at: Option<u64>,
    /// Expiry of the subscription unless it is refreshed, as Unix time in seconds.
    pub expires: Option<u64>,
    /// Options of the subscription.
    pub options: SubscribeOptions,
}

/// Options of one subscription. `None`: the option of the channel applies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// Information for other clients in the channel: JSON text, or the bytes of `b64info`.
    pub info: Option<Box<[u8]>>,
    /// Data for the client, sent with the reply: JSON text, or the bytes of `b64data`.
    pub data: Option<Box<[u8]>>,
    /// Include the client in the channel's presence.
    pub presence: Option<bool>,
    /// Publish join and leave pushes for the client.
    pub join_leave: Option<bool>,
    /// Send join and leave pushes of others to the client without a request.
    pub force_push_join_leave: Option<bool>,
    /// Check the position of the client without a request.
    pub force_positioning: Option<bool>,
    /// Allow recovery to the client without a request.
    pub force_recovery: Option<bool>,
}

/// The claims of both kinds of token. Claims that only one kind knows stay raw until that kind is
/// read, because an application may use their names for other purposes in the other kind.
#[derive(Deserialize)]
pub(super) struct Claims<'a> {
    #[serde(borrow, default, deserialize_with = "lenient_json::text")]
    sub: Cow<'a, str>,
    #[serde(borrow)]
    jti: Option<Text<'a>>,
    #[serde(borrow)]
    iss: Option<Text<'a>>,
    #[serde(borrow)]
    aud: Option<Audience<'a>>,
    #[serde(default, deserialize_with = "date")]
    exp: Option<Seconds>,
    #[serde(default, deserialize_with = "date")]
    nbf: Option<Seconds>,
    #[serde(default, deserialize_with = "date")]
    iat: Option<Seconds>,
    expire_at: Option<Seconds>,
    #[serde(borrow)]
    channel: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient_json::payload")]
    info: Option<&'a RawValue>,
    #[serde(borrow)]
    b64info: Option<Text<'a>>,
    #[serde(borrow)]
    channels: Option<&'a RawValue>,
    #[serde(borrow)]
    subs: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "lenient_json::payload")]
    meta: Option<&'a RawValue>,
    #[serde(borrow)]
    client: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "lenient_json::payload")]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    b64data: Option<&'a RawValue>,
    #[serde(borrow, rename = "override")]
    overrides: Option<&'a RawValue>,
}

impl<'a> Claims<'a> {
    /// Parses the JSON text of a token's payload.
    pub(super) fn parse(payload: &'a [u8]) -> Result<Claims<'a>, TokenError> {
        object(payload)
    }

    /// The `sub` claim; empty: none.
    pub(super) fn subject(&self) -> &str {
        &self.sub
    }

    /// The `iss` claim; empty: none.
    pub(super) fn issuer(&self) -> &str {
        self.iss.as_ref().map_or("", |Text(issuer)| issuer)
    }

    /// The `channel` claim; empty: none.
    pub(super) fn channel(&self) -> &str {
        self.channel.as_ref().map_or("", |Text(channel)| channel)
    }

    /// The strings of the `aud` claim.
    pub(super) fn audiences(&self) -> impl Iterator<Item = &str> {
        self.aud.iter().flat_map(|Audience(texts)| texts.iter().map(|Text(text)| &**text))
    }

    /// Refuses a token that has expired (`exp`) or is not valid yet (`nbf`).
    pub(super) fn check_time(&self, now: u64) -> Result<(), TokenError> {
        let expired = self.exp.is_some_and(|Seconds(end)| end <= now as f64);
        let early = self.nbf.is_some_and(|Seconds(start)| start > now as f64);
        if expired || early { Err(TokenError::Expired) } else { Ok(()) }
    }

    /// The claims of a connection token of `user`.
    pub(super) fn connect(self, user: String) -> Result<ConnectClaims, TokenError> {
        let expires = self.expires();
        let payloads =
            PayloadFields { info: self.info, b64info: self.b64info, ..PayloadFields::default() };
        Ok(ConnectClaims {
            user,
            expires,
            issued_at: self.iat.map(Seconds::whole),
            info: payloads.info()?,
            meta: self.meta.map(json_text),
            subs: subs(self.subs, self.channels)?,
            jti: owned(self.jti),
        })
    }

    /// The claims of a subscription token of `user`.
    pub(super) fn subscribe(self, user: String) -> Result<SubscribeClaims, TokenError> {
        let expires = self.expires();
        let payloads = PayloadFields {
            info: self.info,
            b64info: self.b64info,
            data: self.data,
            b64data: typed(self.b64data)?,
        };
        let overrides = self.overrides.map(|raw| object(raw.get().as_bytes())).transpose()?;
        Ok(SubscribeClaims {
            user,
            channel: owned(self.channel),
            client: owned(typed(self.client)?),
            jti: owned(self.jti),
            issued_at: self.iat.map(Seconds::whole),
            expires,
            options: options(&payloads, overrides.unwrap_or_default())?,
        })
    }

    /// Expiry of the connection or subscription: `expire_at` (0 or less: no expiry), otherwise
    /// `exp`.
    fn expires(&self) -> Option<u64> {
        self.expire_at
            .map_or(self.exp, |at| Some(at).filter(|Seconds(at)| *at > 0.0))
            .map(Seconds::whole)
    }
}

/// Parses the text of a JSON object.
pub(super) fn object<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, TokenError> {
    lenient_json::read_object(text).map_err(|_| TokenError::Invalid)
}

/// The user ID in the claim `name`; empty: the token lacks that claim. Accepts integers, because
/// some issuers number their users.
pub(super) fn user_of(payload: &[u8], name: &str) -> Result<String, TokenError> {
    let claims: HashMap<Text<'_>, &RawValue> = object(payload)?;
    let Some(value) = claims.get(&Text(name.into())) else { return Ok(String::new()) };
    let number = value.get().strip_prefix('-').unwrap_or(value.get());
    if number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(value.get().to_owned());
    }
    let user = serde_json::from_str::<Option<String>>(value.get());
    user.map(Option::unwrap_or_default).map_err(|_| TokenError::Invalid)
}

/// Parses a raw claim.
fn typed<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Result<Option<T>, TokenError> {
    raw.map(|raw| serde_json::from_str(raw.get())).transpose().map_err(|_| TokenError::Invalid)
}

fn owned(text: Option<Text<'_>>) -> String {
    text.map(|Text(text)| text.into_owned()).unwrap_or_default()
}

/// Reads the options of a subscription from the text of an object that holds them among its fields.
pub(crate) fn subscribe_options(text: &str) -> Result<SubscribeOptions, TokenError> {
    let OverrideField { overrides } = object(text.as_bytes())?;
    options(&object(text.as_bytes())?, overrides.unwrap_or_default())
}

/// The channels of `subs` with their options. If `subs` is absent or empty, the channels of
/// `channels` with default options.
pub(crate) fn subs(
    subs: Option<&RawValue>,
    channels: Option<&RawValue>,
) -> Result<Vec<(String, SubscribeOptions)>, TokenError> {
    match typed(subs)? {
        Some(Subs(entries)) if !entries.is_empty() => {
            if entries.len() > CHANNELS_MAX {
                return Err(TokenError::Invalid);
            }
            let read = |(channel, options): (Cow<'_, str>, Option<&RawValue>)| {
                let options =
                    options.map(|options| subscribe_options(options.get())).transpose()?;
                Ok((channel.into_owned(), options.unwrap_or_default()))
            };
            entries.into_iter().map(read).collect()
        }
        _ => {
            let channels: Vec<Option<Text<'_>>> = typed(channels)?.unwrap_or_default();
            let mut channels: Vec<Text<'_>> = channels.into_iter().flatten().collect();
            if channels.len() > CHANNELS_MAX {
                return Err(TokenError::Invalid);
            }
            let mut seen = HashSet::new();
            channels.retain(|Text(channel)| !channel.is_empty() && seen.insert(channel.clone()));
            let channels = channels.into_iter();
            Ok(channels.map(|Text(channel)| (channel.into_owned(), Default::default())).collect())
        }
    }
}

impl From<NotBase64> for TokenError {
    fn from(_: NotBase64) -> TokenError {
        TokenError::Invalid
    }
}

/// The `override` field of a subscription's options; [`PayloadFields`] reads the other fields.
#[derive(Default, Deserialize)]
#[serde(default)]
struct OverrideField {
    #[serde(rename = "override", deserialize_with = "lenient_json::object")]
    overrides: Option<OverrideFields>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OverrideFields {
    #[serde(deserialize_with = "lenient_json::object")]
    presence: Option<Override>,
    #[serde(deserialize_with = "lenient_json::object")]
    join_leave: Option<Override>,
    #[serde(deserialize_with = "lenient_json::object")]
    force_push_join_leave: Option<Override>,
    #[serde(deserialize_with = "lenient_json::object")]
    force_positioning: Option<Override>,
    #[serde(deserialize_with = "lenient_json::object")]
    force_recovery: Option<Override>,
}

#[derive(Deserialize)]
struct Override {
    #[serde(default, deserialize_with = "lenient_json::nullable")]
    value: bool,
}

fn options(
    payloads: &PayloadFields<'_>,
    overrides: OverrideFields,
) -> Result<SubscribeOptions, TokenError> {
    let value = |given: Option<Override>| given.map(|given| given.value);
    Ok(SubscribeOptions {
        info: payloads.info()?,
        data: payloads.data()?,
        presence: value(overrides.presence),
        join_leave: value(overrides.join_leave),
        force_push_join_leave: value(overrides.force_push_join_leave),
        force_positioning: value(overrides.force_positioning),
        force_recovery: value(overrides.force_recovery),
    })
}

/// Unix time in seconds, with or without a fraction.
#[derive(Clone, Copy)]
struct Seconds(f64);

impl Seconds {
    /// The time without its fraction; 0: the time is negative.
    fn whole(self) -> u64 {
        self.0 as u64
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_f64(Number { quoted: false })
    }
}

/// Reads Unix seconds that may be in quotes.
fn date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Seconds>, D::Error> {
    struct Date(Seconds);
    impl<'de> Deserialize<'de> for Date {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_any(Number { quoted: true }).map(Date)
        }
    }
    let date = Option::<Date>::deserialize(deserializer)?;
    Ok(date.map(|Date(seconds)| seconds))
}

struct Number {
    /// Whether to accept a number in quotes.
    quoted: bool,
}

impl Visitor<'_> for Number {
    type Value = Seconds;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a number of seconds")
    }

    fn visit_u64<E>(self, number: u64) -> Result<Seconds, E> {
        Ok(Seconds(number as f64))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Seconds, E> {
        Ok(Seconds(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Seconds, E> {
        Ok(Seconds(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Seconds, E> {
        let number = text.parse().ok().filter(|number: &f64| self.quoted && number.is_finite());
        number.map(Seconds).ok_or_else(|| E::custom("a string is not a number of seconds"))
    }
}

/// The `aud` claim: one string, or a list of strings.
struct Audience<'a>(Vec<Text<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Audience<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Texts<'a> {
            type Value = Audience<'a>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string or a list of strings")
            }

            fn visit_str<E>(self, text: &str) -> Result<Audience<'a>, E> {
                Ok(Audience(vec![Text(Cow::Owned(text.to_owned()))]))
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Audience<'a>, E> {
                Ok(Audience(vec![Text(Cow::Borrowed(text))]))
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Audience<'a>, S::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element()? {
                    texts.push(text);
                }
                Ok(Audience(texts))
            }
        }
        deserializer.deserialize_any(Texts(PhantomData))
    }
}

/// Channels and the text of their options, in the order given; a `null` counts as no options.
struct Subs<'a>(Vec<(Cow<'a, str>, Option<&'a RawValue>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Subs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SubsVisitor<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for SubsVisitor<'a> {
            type Value = Subs<'a>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of channels")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Subs<'a>, M::Error> {
                let mut seen = HashSet::new();
                let mut entries = Vec::new();
                while let Some((Text(channel), options)) = map.next_entry()? {
                    if !seen.insert(channel.clone()) {
                        return Err(M::Error::custom("a channel occurs twice"));
                    }
                    entries.push((channel, options));
                }
                Ok(Subs(entries))
            }
        }
        deserializer.deserialize_map(SubsVisitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(payload: &str) -> Result<ConnectClaims, TokenError> {
        Claims::parse(payload.as_bytes())?.connect("ann".to_owned())
    }

    fn subscribe(payload: &str) -> Result<SubscribeClaims, TokenError> {
        Claims::parse(payload.as_bytes())?.subscribe("ann".to_owned())
    }

    fn text(bytes: &Option<Box<[u8]>>) -> Option<&str> {
        bytes.as_ref().map(|bytes| std::str::from_utf8(bytes).unwrap())
    }

    #[test]
    fn a_connection_token_with_all_claims() {
        let found = connect(
            r#"{"sub":"x","jti":"one","iat":5,"exp":10,"info":{"a": "\u00e4" },"meta":{"b":[1, 2]},
                "subs":{"z":{"info":1},"a":null,"\u006d":{}},"channels":["unused"],
                "client":5,"override":1,"b64data":{},"data":[],"other":null}"#,
        )
        .unwrap();
        assert_eq!((&*found.user, &*found.jti), ("ann", "one"));
        assert_eq!((found.issued_at, found.expires), (Some(5), Some(10)));
        assert_eq!(text(&found.info), Some(r#"{"a": "\u00e4" }"#));
        assert_eq!(text(&found.meta), Some(r#"{"b":[1, 2]}"#));
        let names: Vec<&str> = found.subs.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["z", "a", "m"]);
        assert_eq!(text(&found.subs[0].1.info), Some("1"));
        assert_eq!(found.subs[1].1, SubscribeOptions::default());
    }

    #[test]
    fn info_and_data_are_json_or_base64() {
        for (claims, expected) in [
            (r#"{}"#, Ok(None)),
            (r#"{"info":null}"#, Ok(Some("null"))),
            (r#"{"b64info":"eyJh\r\nIjox\nfQ==\n"}"#, Ok(Some(r#"{"a":1}"#))),
            (r#"{"b64info":"\n"}"#, Ok(None)),
            (r#"{"info":"i"}"#, Ok(Some("\"i\""))),
            (r#"{"info":{"a":1.0}}"#, Ok(Some(r#"{"a":1.0}"#))),
            (r#"{"b64info":"eyJhIjoxfQ=="}"#, Ok(Some(r#"{"a":1}"#))),
            (r#"{"info":2,"b64info":"eyJhIjoxfQ=="}"#, Ok(Some(r#"{"a":1}"#))),
            (r#"{"info":2,"b64info":""}"#, Ok(Some("2"))),
            (r#"{"info":2,"b64info":null}"#, Ok(Some("2"))),
            (r#"{"b64info":"eyJhIjoxfQ"}"#, Err(TokenError::Invalid)),
            (r#"{"b64info":"*"}"#, Err(TokenError::Invalid)),
            (r#"{"b64info":{}}"#, Err(TokenError::Invalid)),
        ] {
            let found = connect(claims);
            assert_eq!(found.as_ref().map(|claims| text(&claims.info)), expected.as_ref().copied());
            let found = connect(&format!(r#"{{"subs":{{"a":{claims}}}}}"#));
            let of_sub = found.as_ref().map(|claims| text(&claims.subs[0].1.info));
            assert_eq!(of_sub, expected.as_ref().copied(), "{claims}");
            let found = subscribe(claims);
            let options = found.as_ref().map(|claims| text(&claims.options.info));
            assert_eq!(options, expected.as_ref().copied(), "{claims}");
            let found = subscribe(&claims.replace("info", "data"));
            let options = found.as_ref().map(|claims| text(&claims.options.data));
            assert_eq!(options, expected.as_ref().copied(), "{claims}");
        }
    }

    #[test]
    fn a_connection_token_names_channels_by_subs_or_by_channels() {
        let names = |claims: &str| {
            let found = connect(claims)?;
            Ok(found.subs.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(" "))
        };
        for (claims, expected) in [
            (r#"{"channels":["b","a","b","c"]}"#, Ok("b a c")),
            (r#"{"channels":null}"#, Ok("")),
            (r#"{"channels":[]}"#, Ok("")),
            (r#"{"channels":["b"],"subs":{}}"#, Ok("b")),
            (r#"{"channels":["b"],"subs":null}"#, Ok("b")),
            (r#"{"channels":5,"subs":{"c":{}}}"#, Ok("c")),
            (r#"{"channels":"b"}"#, Err(TokenError::Invalid)),
            (r#"{"channels":[null,"a",null,""]}"#, Ok("a")),
            (r#"{"subs":{"a":null,"b":{}}}"#, Ok("a b")),
            (r#"{"subs":{"b":[]}}"#, Err(TokenError::Invalid)),
            (r#"{"subs":[]}"#, Err(TokenError::Invalid)),
            (r#"{"subs":{"b":{"override":[]}}}"#, Err(TokenError::Invalid)),
            (r#"{"channels":[5]}"#, Err(TokenError::Invalid)),
            (r#"{"subs":["b"]}"#, Err(TokenError::Invalid)),
            (r#"{"subs":{"b":5}}"#, Err(TokenError::Invalid)),
            (r#"{"subs":{"b":{},"b":{}}}"#, Err(TokenError::Invalid)),
            (r#"{"subs":{"b":{"override":5}}}"#, Err(TokenError::Invalid)),
        ] {
            assert_eq!(names(claims), expected.map(str::to_owned), "{claims}");
        }
    }

    #[test]
    fn a_token_with_too_many_channels_is_invalid() {
        for (count, expected) in
            [(CHANNELS_MAX, Ok(CHANNELS_MAX)), (CHANNELS_MAX + 1, Err(TokenError::Invalid))]
        {
            let list =
                |each: fn(usize) -> String| (0..count).map(each).collect::<Vec<_>>().join(",");
            let channels =
                format!(r#"{{"channels":[{}]}}"#, list(|number| format!("\"{number}\"")));
            assert_eq!(connect(&channels).map(|claims| claims.subs.len()), expected);
            let subs = format!(r#"{{"subs":{{{}}}}}"#, list(|number| format!("\"{number}\":{{}}")));
            assert_eq!(connect(&subs).map(|claims| claims.subs.len()), expected);
        }
    }

    #[test]
    fn overrides_replace_channel_options() {
        let options = SubscribeOptions::default;
        for (overrides, expected) in [
            ("null", options()),
            ("{}", options()),
            (r#"{"presence":null,"other":{"value":true}}"#, options()),
            (
                r#"{"presence":{"value":true},"join_leave":{"value":false}}"#,
                SubscribeOptions { presence: Some(true), join_leave: Some(false), ..options() },
            ),
            (
                r#"{"force_push_join_leave":{"value":true},"force_positioning":{}}"#,
                SubscribeOptions {
                    force_push_join_leave: Some(true),
                    force_positioning: Some(false),
                    ..options()
                },
            ),
            (
                r#"{"force_recovery":{"value":true}}"#,
                SubscribeOptions { force_recovery: Some(true), ..options() },
            ),
        ] {
            let claims = format!(r#"{{"override":{overrides}}}"#);
            assert_eq!(subscribe(&claims).unwrap().options, expected, "{overrides}");
            let found = connect(&format!(r#"{{"subs":{{"a":{claims}}}}}"#)).unwrap();
            assert_eq!(found.subs[0].1, expected, "{overrides}");
        }
        for overrides in [
            "5",
            "[]",
            r#"{"presence":[true]}"#,
            r#"{"presence":true}"#,
            r#"{"presence":{"value":"true"}}"#,
        ] {
            let claims = format!(r#"{{"override":{overrides}}}"#);
            assert_eq!(subscribe(&claims), Err(TokenError::Invalid), "{overrides}");
        }
    }

    #[test]
    fn a_subscription_token_with_all_claims() {
        let found = subscribe(
            r#"{"channel":"ne\u0077s","client":"c","jti":"one","iat":5,"exp":10,"info":1,
                "b64data":"MQ==","subs":5,"channels":5,"meta":5,"override":{"presence":{}}}"#,
        );
        let expected = SubscribeClaims {
            user: "ann".into(),
            channel: "news".into(),
            client: "c".into(),
            jti: "one".into(),
            issued_at: Some(5),
            expires: Some(10),
            options: SubscribeOptions {
                info: Some(b"1".as_slice().into()),
                data: Some(b"1".as_slice().into()),
                presence: Some(false),
                ..SubscribeOptions::default()
            },
        };
        assert_eq!(found, Ok(expected));
        for claims in [r#"{"client":5}"#, r#"{"channel":5}"#, r#"{"jti":5}"#, r#"{"jti":"a\q"}"#] {
            assert_eq!(subscribe(claims), Err(TokenError::Invalid), "{claims}");
        }
    }

    #[test]
    fn an_empty_channel_claim_counts_as_none() {
        for (claims, expected) in [
            (r#"{"channel":"a"}"#, "a"),
            (r#"{"channel":""}"#, ""),
            (r#"{"channel":null}"#, ""),
            (r#"{}"#, ""),
        ] {
            assert_eq!(Claims::parse(claims.as_bytes()).unwrap().channel(), expected);
        }
    }
}
