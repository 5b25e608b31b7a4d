//! The HTTP API for backends: Centrifugo's methods, shapes and codes.
//!
//! Owns the key and the node's name. Never keeps a channel. The invariant: whatever a request
//! that is authorised and well-formed asks, the answer is HTTP 200 with `result` or `error`.

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
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use tokio::time::timeout;

use crate::auth::ApiKey;
use crate::config::Config;
use crate::control::link::{Busy, Link, Pending};
use crate::message::Published;
use crate::sys;

/// Bytes of a request body.
const BODY_MAX: usize = 16 << 20;
/// How long a request body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a publication at most: past it every subscriber would be closed as slow.
const fn publication_max(config: &Config) -> usize {
    config.client.queue_max_size
}

/// An error of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    code: u32,
    message: &'static str,
}

impl Fault {
    /// Something failed here; the request may be tried again.
    pub const INTERNAL: Fault = Fault { code: 100, message: "internal server error" };
    /// No such namespace.
    pub const UNKNOWN_CHANNEL: Fault = Fault { code: 102, message: "unknown channel" };
    /// The request makes no sense.
    pub const BAD_REQUEST: Fault = Fault { code: 107, message: "bad request" };
}

impl From<Busy> for Fault {
    fn from(_: Busy) -> Self {
        Fault::INTERNAL
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

/// The API of a node.
pub struct Api {
    config: Arc<Config>,
    key: ApiKey,
    link: Arc<Link>,
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
        key: config.api_key(),
        link: link.clone(),
        started: Instant::now(),
        uid: uid().unwrap_or_default(),
        name: name(config),
    });
    Router::new()
        .route(&format!("{}/{{method}}", config.http_api.handler_prefix), any(call))
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
    if verb != Method::POST {
        return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "POST")]).into_response();
    }
    if !api.lets_in(&headers, query.as_deref().unwrap_or_default()) {
        let text = "X-API-Key is missing or wrong: it is http_api.key of the configuration\n";
        return (StatusCode::UNAUTHORIZED, text).into_response();
    }
    let body = match read(body).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    match method.as_str() {
        "publish" => answer(&body, async |request| api.publish(request).await).await,
        "broadcast" => answer(&body, async |request| api.broadcast(request).await).await,
        "channels" => answer(&body, async |request| api.channels(request).await).await,
        "info" => answer(&body, async |request| api.info(request)).await,
        _ => StatusCode::NOT_FOUND.into_response(),
    }
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

/// Reads a request, lets `method` answer it, and writes that down.
async fn answer<Q: DeserializeOwned, A: Serialize>(
    body: &[u8],
    method: impl AsyncFnOnce(Q) -> Result<A, Fault>,
) -> Response {
    let request = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => {
            let text = format!("the body is no request of this method: {error}\n");
            return (StatusCode::BAD_REQUEST, text).into_response();
        }
    };
    axum::Json(Outcome::from(method(request).await)).into_response()
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

// ---- publish and broadcast -------------------------------------------------------------------

/// A publication: JSON, or base64 of it, into one channel or several.
#[derive(Debug, Deserialize)]
struct Publish {
    #[serde(default)]
    channel: Arc<str>,
    #[serde(default)]
    channels: Vec<Arc<str>>,
    #[serde(default, deserialize_with = "raw")]
    data: Option<Box<RawValue>>,
    #[serde(default)]
    b64data: String,
    #[serde(default)]
    skip_history: bool,
}

/// `null` is a value too.
fn raw<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

impl Publish {
    /// The JSON text of it.
    fn text(&self, max: usize) -> Result<Box<[u8]>, Fault> {
        let text = match &self.data {
            _ if !self.b64data.is_empty() => {
                let bytes = data_encoding::BASE64.decode(self.b64data.as_bytes());
                let bytes = bytes.map_err(|_| Fault::BAD_REQUEST)?;
                serde_json::from_slice::<&RawValue>(&bytes).map_err(|_| Fault::BAD_REQUEST)?;
                bytes
            }
            Some(data) => data.get().as_bytes().to_vec(),
            None => return Err(Fault::BAD_REQUEST),
        };
        if text.len() > max { Err(Fault::BAD_REQUEST) } else { Ok(text.into()) }
    }
}

#[derive(Debug, Serialize)]
struct PublishResult {
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<String>,
}

impl From<Published> for PublishResult {
    fn from(published: Published) -> Self {
        let position = published.position;
        PublishResult {
            offset: position.map(|position| position.offset),
            epoch: position.map(|position| position.epoch.as_str().to_owned()),
        }
    }
}

#[derive(Debug, Serialize)]
struct BroadcastResult {
    responses: Vec<Outcome<PublishResult>>,
}

impl Api {
    async fn publish(&self, request: Publish) -> Result<PublishResult, Fault> {
        let data = request.text(publication_max(&self.config))?;
        let pending = self.post(&request.channel, data, request.skip_history).await?;
        Ok(pending.published().await?.into())
    }

    /// Everything is sent before the first answer is waited for.
    async fn broadcast(&self, request: Publish) -> Result<BroadcastResult, Fault> {
        if request.channels.is_empty() {
            return Err(Fault::BAD_REQUEST);
        }
        let data = request.text(publication_max(&self.config))?;
        let mut posted = Vec::with_capacity(request.channels.len());
        for channel in &request.channels {
            posted.push(self.post(channel, data.clone(), request.skip_history).await);
        }
        let mut responses = Vec::with_capacity(posted.len());
        for pending in posted {
            responses.push(settle(pending).await.into());
        }
        Ok(BroadcastResult { responses })
    }

    async fn post(
        &self,
        channel: &Arc<str>,
        data: Box<[u8]>,
        skip_history: bool,
    ) -> Result<Pending, Fault> {
        if channel.is_empty() || channel.len() > self.config.channel.max_length {
            return Err(Fault::BAD_REQUEST);
        }
        if channel.contains(':') {
            return Err(Fault::UNKNOWN_CHANNEL);
        }
        Ok(self.link.publish(channel, data, skip_history).await?)
    }
}

async fn settle(pending: Result<Pending, Fault>) -> Result<PublishResult, Fault> {
    Ok(pending?.published().await?.into())
}

// ---- channels and info -----------------------------------------------------------------------

#[derive(Debug, Deserialize)]
struct Channels {
    #[serde(default)]
    pattern: String,
}

#[derive(Debug, Serialize)]
struct ChannelsResult {
    channels: BTreeMap<Arc<str>, ChannelInfo>,
}

#[derive(Debug, Default, Serialize)]
struct ChannelInfo {
    num_clients: u32,
}

#[derive(Debug, Deserialize)]
struct Info {}

#[derive(Debug, Serialize)]
struct InfoResult {
    nodes: [NodeInfo; 1],
}

#[derive(Debug, Serialize)]
struct NodeInfo {
    uid: String,
    name: String,
    version: &'static str,
    num_clients: u64,
    num_users: u64,
    num_channels: u64,
    num_subs: u64,
    uptime: u64,
}

impl Api {
    async fn channels(&self, request: Channels) -> Result<ChannelsResult, Fault> {
        let pattern = Some(request.pattern).filter(|pattern| !pattern.is_empty());
        let mut asked = Vec::new();
        for shard in self.link.shards() {
            asked.push(self.link.survey(shard, pattern.clone()).await?);
        }
        let mut channels: BTreeMap<Arc<str>, ChannelInfo> = BTreeMap::new();
        for pending in asked {
            for (channel, subscribers) in pending.surveyed().await?.channels {
                channels.entry(channel).or_default().num_clients += subscribers;
            }
        }
        Ok(ChannelsResult { channels })
    }

    fn info(&self, _: Info) -> Result<InfoResult, Fault> {
        let node = NodeInfo {
            uid: self.uid.clone(),
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION"),
            num_clients: self.link.sum(|metrics| metrics.clients.get()),
            // Without tokens no client has a user.
            num_users: 0,
            num_channels: self.link.sum(|metrics| metrics.channels.get()),
            num_subs: self.link.sum(|metrics| metrics.subscriptions.get()),
            uptime: self.started.elapsed().as_secs(),
        };
        Ok(InfoResult { nodes: [node] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Bus;
    use crate::channels::Names;
    use crate::message::{Message, Post, RANKS, Rank, Surveyed};
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
        tokio::spawn(async move { dispatched.dispatch(|_| {}).await });
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
        check(r#"{"channel":"plain","b64data":"e3s="}"#, 200, bad).await;
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
