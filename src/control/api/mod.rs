//! The HTTP API for backends: Centrifugo's methods, shapes and codes.
//!
//! Owns the key and the node's name. Never keeps a channel. The invariant: whatever a request
//! that is authorised and well-formed asks, the answer is `result` or `error`, by HTTP 200 unless
//! the statuses of HTTP were asked for.

mod channels;
mod description;
mod info;
mod methods;
mod publish;
mod tokens;
mod users;

pub use self::description::document;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use schemars::JsonSchema;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::base::sys;
use crate::config::Config;
use crate::link::{Busy, Link};
use crate::model::auth::ApiKey;
use crate::model::namespaces::{Namespaces, Options};
use crate::model::revocation::Revocations;
use crate::wire::http::query_value;
use crate::wire::protocol;

use self::info::Samples;
pub use self::methods::METHODS;
use self::methods::{Command, read_object};

/// Bytes of a request body.
const BODY_MAX: usize = 16 << 20;
/// How long a request body may take.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Commands of one batch.
const BATCH_MAX: usize = 10_000;

/// Why something was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Error", deny_unknown_fields)]
pub struct Fault {
    /// 100 internal server error, 102 unknown channel, 104 not found, 106 limit exceeded, 107 bad
    /// request, 108 not available, 112 unrecoverable position.
    code: u32,
    /// The same in words.
    message: &'static str,
}

impl From<protocol::Error> for Fault {
    fn from(error: protocol::Error) -> Self {
        Fault { code: error.code, message: error.message }
    }
}

impl From<Busy> for Fault {
    fn from(_: Busy) -> Self {
        protocol::Error::INTERNAL.into()
    }
}

impl Fault {
    /// There is no such method.
    const NOT_FOUND: Fault = Fault { code: 104, message: "not found" };

    /// The request makes no sense.
    fn bad_request() -> Self {
        protocol::Error::BAD_REQUEST.into()
    }

    /// The status of HTTP that says about the same.
    fn status(self) -> StatusCode {
        match self.code {
            102 | 104 => StatusCode::NOT_FOUND,
            107 | 108 => StatusCode::BAD_REQUEST,
            112 => StatusCode::RANGE_NOT_SATISFIABLE,
            113 => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// How every method answers.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "{T}OrError")]
enum Outcome<T> {
    Result(T),
    Error(Fault),
}

impl<T> From<Result<T, Fault>> for Outcome<T> {
    fn from(result: Result<T, Fault>) -> Self {
        match result {
            Ok(result) => Outcome::Result(result),
            Err(fault) => Outcome::Error(fault),
        }
    }
}

/// Why a request cannot be carried out.
#[derive(Debug)]
enum Refused {
    /// There is no such method.
    Unknown,
    /// It cannot be read.
    Malformed(serde_json::Error),
}

impl From<serde_json::Error> for Refused {
    fn from(error: serde_json::Error) -> Self {
        Refused::Malformed(error)
    }
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unknown => Fault::NOT_FOUND,
            Refused::Malformed(_) => Fault::bad_request(),
        }
    }
}

/// The API of a node.
pub struct Api {
    config: Arc<Config>,
    namespaces: Arc<Namespaces>,
    key: ApiKey,
    link: Arc<Link>,
    /// The tokens that count no more, as every shard is told.
    revocations: Mutex<Arc<Revocations>>,
    started: Instant,
    samples: Samples,
    uid: String,
    name: String,
}

/// The API's routes.
pub fn router(config: &Arc<Config>, link: &Arc<Link>) -> Router {
    if config.http_api.disabled {
        return Router::new();
    }
    let api = Arc::new(Api {
        config: config.clone(),
        namespaces: config.namespaces(),
        key: config.api_key(),
        link: link.clone(),
        revocations: Mutex::default(),
        started: Instant::now(),
        samples: Samples::new(link),
        uid: uid().unwrap_or_default(),
        name: name(config),
    });
    let prefix = &config.http_api.handler_prefix;
    Router::new()
        .route(prefix, any(call_named))
        .route(&format!("{prefix}/{{method}}"), any(call))
        .with_state(api)
}

fn uid() -> io::Result<String> {
    Ok(format!("{:032x}", u128::from_ne_bytes(sys::random()?)))
}

fn name(config: &Config) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{}", host.trim(), config.http_server.port)
}

async fn call(
    State(api): State<Arc<Api>>,
    verb: Method,
    Path(method): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let body = match api.open(&verb, query.as_deref(), &headers, body).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    if method == "batch" {
        return match api.batch(&body).await {
            Ok(result) => axum::Json(result).into_response(),
            Err(refused) => refused.into_response(),
        };
    }
    let command = match Command::read(&method, &body) {
        Ok(command) => command,
        Err(refused) => return refused.into_response(),
    };
    match api.run(command).await {
        Err(fault) if api.answers_by_status(&headers) => {
            (fault.status(), axum::Json(fault)).into_response()
        }
        result => axum::Json(Outcome::from(result)).into_response(),
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Refused::Unknown => StatusCode::NOT_FOUND.into_response(),
            Refused::Malformed(error) => {
                let text = format!("the body is no request of this method: {error}\n");
                (StatusCode::BAD_REQUEST, text).into_response()
            }
        }
    }
}

/// A command that names its method itself, as older libraries send it; one a line.
#[derive(Debug, Deserialize)]
struct Named {
    method: String,
    #[serde(default)]
    params: Option<Box<RawValue>>,
}

async fn call_named(
    State(api): State<Arc<Api>>,
    verb: Method,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let body = match api.open(&verb, query.as_deref(), &headers, body).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let mut lines = Vec::new();
    for command in serde_json::Deserializer::from_slice(&body).into_iter::<Named>() {
        let Named { method, params } = match command {
            Ok(command) if lines.len() < BATCH_MAX => command,
            Ok(_) => {
                let text = format!("more than {BATCH_MAX} commands: send them in parts\n");
                return (StatusCode::BAD_REQUEST, text).into_response();
            }
            Err(error) => {
                let text = format!("the body is no list of commands: {error}\n");
                return (StatusCode::BAD_REQUEST, text).into_response();
            }
        };
        let params = params.as_ref().map_or("{}", |params| params.get());
        let result = match Command::read(&method, params.as_bytes()) {
            Ok(command) => api.run(command).await,
            Err(refused) => Err(refused.into()),
        };
        lines.push(raw_text(&Outcome::from(result)).get().to_owned());
    }
    ([(header::CONTENT_TYPE, "application/json")], lines.join("\n")).into_response()
}

/// Reads a body, of a bounded length and in a bounded time.
async fn read(body: Body) -> Result<Bytes, Response> {
    match timeout(BODY_TIMEOUT, to_bytes(body, BODY_MAX)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => {
            let text = "the body is over 16 MiB, or broke off: send it in smaller parts\n";
            Err((StatusCode::PAYLOAD_TOO_LARGE, text).into_response())
        }
        Err(_) => {
            let text = "the body did not come within 30 s: send it at once\n";
            Err((StatusCode::REQUEST_TIMEOUT, text).into_response())
        }
    }
}

/// Several commands in one request.
#[derive(Debug, Deserialize, JsonSchema)]
struct Batch {
    /// Each under its method's name.
    #[schemars(with = "Option<Vec<description::BatchCommand>>", length(max = BATCH_MAX))]
    commands: Option<Vec<BTreeMap<String, Box<RawValue>>>>,
    /// Whether they are carried out at the same time rather than one behind the other.
    parallel: Option<bool>,
}

/// The answers to a batch, in the order of its commands.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct BatchResult {
    /// Each result under its method's name, or an error.
    #[schemars(with = "Vec<description::BatchReply>")]
    replies: Vec<BTreeMap<String, Box<RawValue>>>,
}

/// A command of a batch under its method's name, or why there is none.
type BatchedCommand = (String, Result<Command, Fault>);

/// Whether a body is a request of `method`: what the fuzzers ask.
pub fn reads(method: &str, body: &[u8]) -> bool {
    match method {
        "batch" => read_batch(body).is_ok(),
        _ => Command::read(method, body).is_ok(),
    }
}

/// The commands of a batch, and whether they are carried out in parallel.
fn read_batch(body: &[u8]) -> Result<(Vec<BatchedCommand>, bool), Refused> {
    let Batch { commands, parallel } = read_object(body)?;
    let commands = commands.unwrap_or_default();
    if commands.len() > BATCH_MAX {
        let cause = format!("more than {BATCH_MAX} commands: send them in parts");
        return Err(serde_json::Error::custom(cause).into());
    }
    let commands = commands.into_iter().map(only_one).collect::<Result<_, _>>()?;
    Ok((commands, parallel.unwrap_or_default()))
}

fn raw_text(value: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("answers have only keys that are texts")
}

impl Api {
    /// The body of a request that may be made.
    async fn open(
        &self,
        verb: &Method,
        query: Option<&str>,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Bytes, Response> {
        if verb != Method::POST {
            let allow = [(header::ALLOW, "POST")];
            return Err((StatusCode::METHOD_NOT_ALLOWED, allow).into_response());
        }
        if !self.lets_in(headers, query.unwrap_or_default()) {
            let text = "X-API-Key is missing or wrong: it is http_api.key of the configuration\n";
            return Err((StatusCode::UNAUTHORIZED, text).into_response());
        }
        read(body).await
    }

    /// Whether errors are to be told by HTTP's statuses.
    fn answers_by_status(&self, headers: &HeaderMap) -> bool {
        let asked = headers.get("x-centrifugo-error-mode").and_then(|mode| mode.to_str().ok());
        asked.unwrap_or(&self.config.http_api.error_mode) == "transport"
    }

    /// Carries several out, in order or at the same time; none unless all can be read.
    async fn batch(&self, body: &[u8]) -> Result<BatchResult, Refused> {
        let (commands, parallel) = read_batch(body)?;
        let one = async |(method, command): BatchedCommand| {
            let result = match command {
                Ok(command) => self.run(command).await,
                Err(fault) => Err(fault),
            };
            match result {
                Ok(result) => BTreeMap::from([(method, result)]),
                Err(fault) => BTreeMap::from([("error".to_owned(), raw_text(&fault))]),
            }
        };
        if parallel {
            let replies = futures_util::future::join_all(commands.into_iter().map(one)).await;
            return Ok(BatchResult { replies });
        }
        let mut replies = Vec::with_capacity(commands.len());
        for command in commands {
            replies.push(one(command).await);
        }
        Ok(BatchResult { replies })
    }

    /// Options of a channel that a request names.
    fn options(&self, channel: &str) -> Result<&Options, Fault> {
        Ok(self.namespaces.of(channel)?)
    }
}

/// The one command that an object of a batch holds, and its method. What is known must be read;
/// what is unknown is told in its place.
fn only_one(commands: BTreeMap<String, Box<RawValue>>) -> Result<BatchedCommand, Refused> {
    let mut known = Vec::new();
    for (method, params) in commands {
        match Command::read(&method, params.get().as_bytes()) {
            Ok(command) => known.push((method, Ok(command))),
            Err(Refused::Unknown) => {}
            Err(malformed) => return Err(malformed),
        }
    }
    let unnamed = |fault| (String::new(), Err(fault));
    Ok(match known.len() {
        0 => unnamed(Fault::NOT_FOUND),
        1 => known.remove(0),
        _ => unnamed(Fault::bad_request()),
    })
}

/// What has no result but that it went through.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Empty {}

/// An object, and no array of its fields.
fn object<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let Some(text) = Option::<Box<RawValue>>::deserialize(deserializer)? else { return Ok(None) };
    read_object(text.get().as_bytes()).map(Some).map_err(D::Error::custom)
}

/// `null` is a value too.
fn raw<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

// ---- who may ---------------------------------------------------------------------------------

impl Api {
    /// Whether any of the places that may hold a key holds the right one, as in Centrifugo.
    fn lets_in(&self, headers: &HeaderMap, query: &str) -> bool {
        self.key.opens_for(None)
            || given_keys(headers, query).any(|key| self.key.opens_for(Some(&key)))
    }
}

/// Every key that a request gives: in `X-API-Key`, behind `apikey` in `Authorization`, and as
/// `api_key` in the query.
fn given_keys<'a>(headers: &'a HeaderMap, query: &str) -> impl Iterator<Item = Cow<'a, str>> {
    let own = headers.get_all("x-api-key").iter().filter_map(|key| key.to_str().ok());
    let authorizations = headers.get_all(header::AUTHORIZATION).iter();
    let authorizations = authorizations.filter_map(|value| {
        let (scheme, key) = value.to_str().ok()?.trim_start().split_once([' ', '\t'])?;
        scheme.eq_ignore_ascii_case("apikey").then_some(key.trim())
    });
    let asked = query_value(query, "api_key").map(Cow::Owned);
    own.chain(authorizations).map(Cow::Borrowed).chain(asked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::memory::{Budgets, Limits};
    use crate::base::metrics::Metrics;
    use crate::engine::bus::Bus;
    use crate::model::message::{Message, Post, Published, RANKS, Rank, Surveyed};
    use crate::model::names::Names;
    use crate::wire::protocol::{Epoch, Position};
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tokio::sync::Notify;
    use tower::ServiceExt;

    /// Two threads that answer as shards do: what is published there has an offset, unless its
    /// channel begins with `plain`; `mute` channels are never answered.
    fn link(capacity: usize) -> Arc<Link> {
        let bell = Arc::new(Notify::new());
        let rung = bell.clone();
        let bus = Bus::new(2, 1, [capacity; RANKS], Box::new(move || rung.notify_one())).unwrap();
        for shard in 0..2 {
            let mut line = bus.line(shard);
            let control = bus.control();
            std::thread::spawn(move || {
                let mut offset = 0;
                loop {
                    for rank in Rank::SERVED {
                        while let Some(message) = line.take(rank) {
                            if let Some(answer) = answered(message, &mut offset) {
                                line.send(control, answer);
                            }
                            line.ring();
                        }
                    }
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            });
        }
        let metrics: Arc<[Arc<Metrics>]> = (0..2).map(|_| Arc::default()).collect();
        metrics[0].clients.set(3);
        metrics[1].clients.set(4);
        let budgets = Budgets::new(&Limits::all(0), 2);
        Arc::new(Link::new(bus, Names::new([7; 16], 2), metrics, budgets, bell))
    }

    fn answered(message: Message, offset: &mut u64) -> Option<Message> {
        match message {
            Message::Publish(publish) if &*publish.channel == "mute" => None,
            Message::Publish(publish) => {
                *offset += 1;
                let position = Position { offset: *offset, epoch: Epoch::parse("abcdefgh") };
                let position = Some(position).filter(|_| !publish.channel.starts_with("plain"));
                let asker = publish.asker;
                let published = Published { asker, position, publication: None };
                Some(Message::Published(Box::new(published)))
            }
            Message::Survey(survey) => {
                let channels = vec![("a".into(), 2), ("b".into(), 1)];
                Some(Message::Surveyed(Box::new(Surveyed { tag: survey.tag, channels })))
            }
            other => panic!("{other:?}"),
        }
    }

    fn config() -> Config {
        let mut config = Config::default();
        config.http_api.key = "secret".into();
        config
    }

    fn start(config: Config, capacity: usize) -> Router {
        let link = link(capacity);
        let dispatched = link.clone();
        tokio::spawn(async move { dispatched.dispatch(|_| {}, |_| {}, |_| {}).await });
        router(&Arc::new(config), &link)
    }

    async fn send(router: &Router, request: Request<Body>) -> (u16, String) {
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn post(router: &Router, method: &str, body: &str) -> (u16, String) {
        let request = Request::post(format!("/api/{method}")).header("X-API-Key", "secret");
        send(router, request.body(body.to_owned().into()).unwrap()).await
    }

    #[tokio::test]
    async fn only_the_key_opens() {
        let router = start(config(), 64);
        let check = async |request: axum::http::request::Builder, status: u16| {
            let (found, body) = send(&router, request.body("{}".into()).unwrap()).await;
            assert_eq!(found, status, "{body}");
            assert!(status != 401 || body.contains("http_api.key"), "{body}");
        };
        let info = || Request::post("/api/info");
        check(info(), 401).await;
        check(info().header("X-API-Key", "wrong!"), 401).await;
        check(info().header("X-API-Key", "secre"), 401).await;
        check(info().header("X-API-Key", "secret"), 200).await;
        check(info().header("Authorization", "apikey secret"), 200).await;
        check(info().header("Authorization", "Bearer secret"), 401).await;
        check(Request::post("/api/info?api_key=secret"), 200).await;
        check(Request::post("/api/info?a=b&api_key=%73ecret"), 200).await;
        check(info().header("Authorization", "ApiKey\tsecret"), 200).await;
        check(info().header("Authorization", "apikey  secret "), 200).await;
        check(info().header("Authorization", "apikey secret secret"), 401).await;
        check(info().header("Authorization", "apikeysecret"), 401).await;
        // Any place that holds the right key opens, whatever stands in the others.
        let asked = || Request::post("/api/info?api_key=secret");
        check(asked().header("Authorization", "Basic dXNlcjpwYXNz"), 200).await;
        check(asked().header("X-API-Key", ""), 200).await;
        check(asked().header("X-API-Key", "wrong!"), 200).await;
        let keyed = || info().header("X-API-Key", "secret");
        check(keyed().header("Authorization", "apikey wrong"), 200).await;
        check(info().header("X-API-Key", "").header("Authorization", "apikey secret"), 200).await;
        let wrong = Request::post("/api/info?api_key=wrong").header("X-API-Key", "wrong");
        check(wrong.header("Authorization", "apikey wrong"), 401).await;
        check(Request::get("/api/info?api_key=secret"), 405).await;
        check(Request::post("/api/other?api_key=secret"), 404).await;
        let open = start(Config::default(), 64);
        let (status, _) =
            send(&open, info().header("X-API-Key", "").body("{}".into()).unwrap()).await;
        assert_eq!(status, 401, "no key configured opens for no key");
    }

    #[tokio::test]
    async fn publish_answers_with_place_or_error() {
        let router = start(config(), 64);
        let check = async |body: &str, status: u16, expected: &str| {
            let (found, text) = post(&router, "publish", body).await;
            assert_eq!(found, status, "{body}: {text}");
            assert!(text.starts_with(expected), "{body}: {text}");
        };
        let bad = r#"{"error":{"code":107,"message":"bad request"}}"#;
        let unknown = r#"{"error":{"code":102,"message":"unknown channel"}}"#;
        check(r#"{"channel":"plain","data":{"a":[1]}}"#, 200, r#"{"result":{}}"#).await;
        let placed = r#"{"result":{"offset":1,"epoch":"abcdefgh"}}"#;
        check(r#"{"channel":"kept","data":null,"later":true}"#, 200, r#"{"result":{"offset":"#)
            .await;
        check(
            r#"{"channel":"plain","b64data":"e30=","skip_history":true}"#,
            200,
            r#"{"result":{}}"#,
        )
        .await;
        check(r#"{"channel":"plain","b64data":"?"}"#, 200, bad).await;
        let not_json = r#"{"error":{"code":107,"message":"bad request: data is not JSON; set pub"#;
        check(r#"{"channel":"plain","b64data":"e3s="}"#, 200, not_json).await;
        check(r#"{"channel":"plain"}"#, 200, bad).await;
        check(r#"{"channel":"","data":1}"#, 200, bad).await;
        check(r#"{"channel":"a:b","data":1}"#, 200, unknown).await;
        let long = format!(r#"{{"channel":"{}","data":1}}"#, "c".repeat(256));
        check(&long, 200, bad).await;
        check("{", 400, "the body is no request").await;
        check(r#"{"channel":1}"#, 400, "the body is no request").await;
        let (_, text) = post(&start(config(), 64), "publish", r#"{"channel":"k","data":1}"#).await;
        assert_eq!(text, placed);
    }

    #[tokio::test]
    async fn a_broadcast_keeps_the_order_of_its_channels() {
        // Inboxes of one message: everything has to wait for room, and nothing is lost.
        let router = start(config(), 1);
        let channels: Vec<String> =
            (0..40).map(|n| format!("\"{}\"", ["plain", "", "a:b", "kept"][n % 4])).collect();
        let body = format!(r#"{{"channels":[{}],"data":{{}}}}"#, channels.join(","));
        let (status, text) = post(&router, "broadcast", &body).await;
        assert_eq!(status, 200);
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
        let responses = answer["result"]["responses"].as_array().unwrap();
        assert_eq!(responses.len(), 40);
        for four in responses.chunks(4) {
            assert_eq!(four[0], serde_json::json!({"result": {}}));
            assert_eq!(four[1]["error"]["code"], 107);
            assert_eq!(four[2]["error"]["code"], 102);
            assert!(four[3]["result"]["offset"].is_u64(), "{text}");
        }
        let (_, text) = post(&router, "broadcast", r#"{"channels":[],"data":1}"#).await;
        assert!(text.contains("107"));
    }

    #[tokio::test]
    async fn what_stands_for_nothing_is_nothing_and_an_array_is_no_object() {
        let router = start(config(), 64);
        let check = async |method: &str, body: &str, status: u16, expected: &str| {
            let (found, text) = post(&router, method, body).await;
            assert_eq!(found, status, "{method} {body}: {text}");
            assert!(text.starts_with(expected), "{method} {body}: {text}");
        };
        let nothing = r#"{"channel":"plain","data":1,"tags":null,"delta":null,"version":null}"#;
        check("publish", nothing, 200, r#"{"result":{}}"#).await;
        check("channels", r#"{"pattern":null}"#, 200, r#"{"result":{"channels":{"a""#).await;
        check("channels", "[null]", 400, "the body is no request of this method: an object").await;
        check("history", r#"{"channel":"a","since":[1,"e"]}"#, 400, "the body is no").await;
        check("rpc", r#"{"method":"m","params":1}"#, 200, r#"{"error":{"code":104,"#).await;
        check("rpc", "{}", 200, r#"{"error":{"code":107,"#).await;
        check("other", "{}", 404, "").await;
    }

    #[tokio::test]
    async fn a_batch_is_carried_out_as_a_whole_or_not_at_all() {
        let router = start(config(), 64);
        let publish = r#"{"publish":{"channel":"kept","data":1}}"#;
        for parallel in [true, false] {
            let body = format!(
                r#"{{"commands":[{publish},{{"nothing":{{}}}},{{"publish":{{}},"info":{{}}}},
                   {{"publish":{{"channel":"a:b","data":1}}}}],"parallel":{parallel}}}"#
            );
            let (status, text) = post(&router, "batch", &body).await;
            assert_eq!(status, 200, "{text}");
            let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
            let replies = answer["replies"].as_array().unwrap();
            assert!(replies[0]["publish"]["offset"].is_u64(), "{text}");
            let codes: Vec<_> =
                replies[1..].iter().map(|reply| reply["error"]["code"].as_u64()).collect();
            assert_eq!(codes, [Some(104), Some(107), Some(102)], "{text}");
        }
        let (_, text) = post(&router, "batch", "{}").await;
        assert_eq!(text, r#"{"replies":[]}"#);
        let before = offset(&router).await;
        let malformed = format!(r#"{{"commands":[{publish},{{"publish":{{"channel":1}}}}]}}"#);
        assert_eq!(post(&router, "batch", &malformed).await.0, 400);
        let many = vec![publish; BATCH_MAX + 1].join(",");
        let (status, text) = post(&router, "batch", &format!(r#"{{"commands":[{many}]}}"#)).await;
        assert!(status == 400 && text.contains("in parts"), "{text}");
        assert_eq!(offset(&router).await, before + 1, "nothing was published in between");
    }

    /// Where a publication goes that is published now.
    async fn offset(router: &Router) -> u64 {
        let (_, text) = post(router, "publish", r#"{"channel":"kept","data":1}"#).await;
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
        answer["result"]["offset"].as_u64().unwrap()
    }

    #[tokio::test]
    async fn channels_and_info_add_up_over_shards() {
        let router = start(config(), 64);
        let (_, text) = post(&router, "channels", r#"{"pattern":"*"}"#).await;
        let expected = r#"{"result":{"channels":{"a":{"num_clients":4},"b":{"num_clients":2}}}}"#;
        assert_eq!(text, expected);
        let (_, text) = post(&router, "info", "{}").await;
        assert!(text.contains(r#""num_clients":7,"num_users":0"#), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_answered_in_time_is_an_error() {
        let router = start(config(), 64);
        let (status, text) = post(&router, "publish", r#"{"channel":"mute","data":1}"#).await;
        assert_eq!((status, text.contains("\"code\":100")), (200, true), "{text}");
    }
}
