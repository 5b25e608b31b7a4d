//! The HTTP API for backends: Centrifugo's methods, shapes and codes.
//!
//! Owns the key and the node's name. Never keeps a channel. The invariant: whatever a request
//! that is authorised and well-formed asks, the answer is `result` or `error`, by HTTP 200 unless
//! the statuses of HTTP were asked for.

mod channels;
mod publish;
mod tokens;
mod users;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::auth::ApiKey;
use crate::config::Config;
use crate::control::link::{Busy, Link};
use crate::namespaces::{Namespaces, Options};
use crate::protocol;
use crate::revocation::Revocations;
use crate::sys;

/// Bytes of a request body.
const BODY_MAX: usize = 16 << 20;
/// How long a request body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Commands of one batch.
const BATCH_MAX: usize = 10_000;

/// An error of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    code: u32,
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
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
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

/// Why a request was not carried out.
#[derive(Debug)]
enum Refused {
    /// There is no such method.
    Unknown,
    /// It cannot be read.
    Malformed(serde_json::Error),
    /// It is answered with this.
    Fault(Fault),
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Refused::Fault(fault)
    }
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unknown => protocol::Error::METHOD_NOT_FOUND.into(),
            Refused::Malformed(_) => Fault::bad_request(),
            Refused::Fault(fault) => fault,
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
    let by_status = api.answers_by_status(&headers);
    let result = match method.as_str() {
        "batch" => match read_as(&body) {
            Ok(batch) => return axum::Json(api.batch(batch).await).into_response(),
            Err(refused) => Err(refused),
        },
        method => api.run(method, &body).await,
    };
    match result {
        Err(Refused::Unknown) => StatusCode::NOT_FOUND.into_response(),
        Err(Refused::Malformed(error)) => {
            let text = format!("the body is no request of this method: {error}\n");
            (StatusCode::BAD_REQUEST, text).into_response()
        }
        Err(Refused::Fault(fault)) if by_status => {
            (fault.status(), axum::Json(fault)).into_response()
        }
        Err(Refused::Fault(fault)) => axum::Json(Outcome::<()>::Error(fault)).into_response(),
        Ok(result) => axum::Json(Outcome::Result(result)).into_response(),
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
        let result = api.run(&method, params.as_bytes()).await.map_err(Fault::from);
        lines.push(line(&Outcome::from(result)));
    }
    ([(header::CONTENT_TYPE, "application/json")], lines.join("\n")).into_response()
}

fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("answers have only keys that are texts")
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
#[derive(Debug, Deserialize)]
struct Batch {
    #[serde(default)]
    commands: Vec<std::collections::BTreeMap<String, Box<RawValue>>>,
    #[serde(default)]
    parallel: bool,
}

/// The answers to a batch, each under its method's name or `error`.
#[derive(Debug, Serialize)]
struct BatchResult {
    replies: Vec<std::collections::BTreeMap<String, Box<RawValue>>>,
}

fn raw_text(value: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("answers have only keys that are texts")
}

fn read_as<Q: DeserializeOwned>(body: &[u8]) -> Result<Q, Refused> {
    serde_json::from_slice(body).map_err(Refused::Malformed)
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

    /// Carries one request out; its result as JSON.
    async fn run(&self, method: &str, body: &[u8]) -> Result<Box<RawValue>, Refused> {
        Ok(match method {
            "publish" => raw_text(&self.publish(read_as(body)?).await?),
            "broadcast" => raw_text(&self.broadcast(read_as(body)?).await?),
            "subscribe" => raw_text(&self.subscribe(read_as(body)?).await?),
            "unsubscribe" => raw_text(&self.unsubscribe(read_as(body)?).await?),
            "disconnect" => raw_text(&self.disconnect(read_as(body)?).await?),
            "refresh" => raw_text(&self.refresh(read_as(body)?).await?),
            "revoke_token" => raw_text(&self.revoke_token(read_as(body)?).await?),
            "invalidate_user_tokens" => {
                raw_text(&self.invalidate_user_tokens(read_as(body)?).await?)
            }
            "presence" => self.presence(read_as(body)?).await?,
            "presence_stats" => self.presence_stats(read_as(body)?).await?,
            "history" => self.history(read_as(body)?).await?,
            "history_remove" => raw_text(&self.history_remove(read_as(body)?).await?),
            "channels" => raw_text(&self.channels(read_as(body)?).await?),
            "info" => raw_text(&self.info(read_as(body)?)?),
            _ => return Err(Refused::Unknown),
        })
    }

    /// Carries several out, in order or at the same time; the answers are in order.
    async fn batch(&self, batch: Batch) -> BatchResult {
        let one = async |command: &std::collections::BTreeMap<String, Box<RawValue>>| {
            let Some((method, params)) = command.first_key_value() else {
                return [("error".to_owned(), raw_text(&Fault::bad_request()))].into();
            };
            match self.run(method, params.get().as_bytes()).await {
                Ok(result) => [(method.clone(), result)].into(),
                Err(refused) => [("error".to_owned(), raw_text(&Fault::from(refused)))].into(),
            }
        };
        let commands = batch.commands.iter().take(BATCH_MAX);
        let replies = if batch.parallel {
            futures_util::future::join_all(commands.map(one)).await
        } else {
            let mut replies = Vec::new();
            for command in commands {
                replies.push(one(command).await);
            }
            replies
        };
        BatchResult { replies }
    }

    /// Options of a channel that a request names.
    fn options(&self, channel: &str) -> Result<&Options, Fault> {
        Ok(self.namespaces.of(channel)?)
    }
}

/// What has no result but that it went through.
#[derive(Debug, Serialize)]
struct Empty {}

/// `null` is a value too.
fn raw<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

// ---- who may ---------------------------------------------------------------------------------

impl Api {
    fn lets_in(&self, headers: &HeaderMap, query: &str) -> bool {
        self.key.opens_for(given_key(headers, query))
    }
}

fn given_key<'a>(headers: &'a HeaderMap, query: &'a str) -> Option<&'a str> {
    if let Some(key) = headers.get("x-api-key") {
        return key.to_str().ok();
    }
    if let Some(authorization) = headers.get(header::AUTHORIZATION) {
        let (scheme, key) = authorization.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("apikey").then_some(key.trim());
    }
    query.split('&').find_map(|pair| pair.strip_prefix("api_key="))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Bus;
    use crate::channels::Names;
    use crate::message::{Message, Post, Published, RANKS, Rank, Surveyed};
    use crate::metrics::Metrics;
    use crate::protocol::{Epoch, Position};
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
        Arc::new(Link::new(bus, Names::new([7; 16], 2), metrics, bell))
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
        check(r#"{"channel":"plain","b64data":"e3s="}"#, 200, r#"{"result":{}}"#).await;
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
