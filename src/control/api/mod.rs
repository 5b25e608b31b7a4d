//! The HTTP API for backends: the methods, requests, results and error codes of Centrifugo.
//!
//! Owns the API key, the revocations and the node's name. Never keeps state of a channel.

mod batch;
mod channels;
mod description;
mod feed_commands;
mod reply;
mod info;
mod methods;
mod node;
pub mod operator;
mod publish;
mod reading;
mod routes;
mod snapshots;
mod schema;
mod tokens;
mod users;

pub use self::batch::reads;
pub use self::description::document;
pub use self::feed_commands::feed_commands;
pub use self::methods::METHODS;
pub use self::node::NodeState;
pub use self::routes::{BODY_TIMEOUT, router};

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Router;

    use super::batch::BATCH_MAX;
    use super::node::NodeState;
    use super::routes::router;
    use crate::base::memory::{MemoryBudgets, MemoryLimits};
    use crate::base::metrics::Metrics;
    use crate::base::sys::Clock;
    use crate::config::Config;
    use crate::engine::bus::Bus;
    use crate::link::Link;
    use crate::model::message::{Message, Post, Published, RANKS, Rank, Surveyed};
    use crate::model::names::Names;
    use crate::wire::protocol::{Epoch, Position};
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tokio::sync::Notify;
    use tower::ServiceExt;

    /// Two threads that answer as shards do. Publications get an offset, unless the name of their
    /// channel begins with `plain`. Requests about the channel `mute` get no answer.
    fn link(capacity: usize) -> Arc<Link> {
        let bell = Arc::new(Notify::new());
        let rung = bell.clone();
        let bus = Bus::new(2, 1, [capacity; RANKS], Box::new(move || rung.notify_one())).unwrap();
        for shard in 0..2 {
            let mut line = bus.port(shard);
            let control = bus.control();
            std::thread::spawn(move || {
                let mut offset = 0;
                loop {
                    for rank in Rank::SERVED {
                        while let Some(message) = line.take(rank) {
                            if let Some(answer) = answered(message, &mut offset) {
                                line.send(control, answer);
                            }
                            line.wake_receivers();
                        }
                    }
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            });
        }
        let metrics: Arc<[Arc<Metrics>]> = (0..2).map(|_| Arc::default()).collect();
        metrics[0].clients.set(3);
        metrics[1].clients.set(4);
        let budgets = MemoryBudgets::new(&MemoryLimits::all(0), 2);
        Arc::new(Link::new(bus, Names::new([7; 16], 2), metrics, budgets, (bell, Clock::new())))
    }

    fn answered(message: Message, offset: &mut u64) -> Option<Message> {
        match message {
            Message::Publish(publish) if &*publish.channel == "mute" => None,
            Message::Publish(publish) => {
                *offset += 1;
                let position = Position { offset: *offset, epoch: Epoch::parse("abcdefgh") };
                let position = Some(position).filter(|_| !publish.channel.starts_with("plain"));
                let reply_to = publish.reply_to;
                let published = Published { reply_to, outcome: Ok(position), publication: None };
                Some(Message::Published(Box::new(published)))
            }
            Message::Survey(survey) => {
                let channels = vec![("a".into(), 2), ("b".into(), 1)];
                Some(Message::Surveyed(Box::new(Surveyed { tag: survey.tag, channels })))
            }
            Message::Order(request) => Some(Message::Ordered(request.tag)),
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
        router(&Arc::new(config), &link, &Arc::new(NodeState::new(&link, super::METHODS)))
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
    async fn only_the_right_key_gives_access() {
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
        // One right key suffices, whatever keys the other places contain.
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
        check(Request::get("/api/other"), 404).await;
        let open = start(Config::default(), 64);
        let (status, _) =
            send(&open, info().header("X-API-Key", "").body("{}".into()).unwrap()).await;
        assert_eq!(status, 401, "without a configured key no request has access");
    }

    #[tokio::test]
    async fn publish_answers_with_a_position_or_an_error() {
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
        let long = format!(r#"{{"channel":"{}","data":1}}"#, "c".repeat(4_097));
        check(&long, 200, r#"{"error":{"code":107,"#).await;
        check("{", 400, "invalid request body").await;
        check(r#"{"channel":1}"#, 400, "invalid request body").await;
        let (_, text) = post(&start(config(), 64), "publish", r#"{"channel":"k","data":1}"#).await;
        assert_eq!(text, placed);
    }

    #[tokio::test]
    async fn a_broadcast_keeps_the_order_of_its_channels() {
        // With inboxes of one message every request waits for room. None is lost.
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
        let error = r#"{"error":{"code":107,"message":"bad request"}}"#;
        let (_, text) = post(&router, "broadcast", r#"{"channels":["a","a:b"]}"#).await;
        assert_eq!(text, format!(r#"{{"result":{{"responses":[{error},{error}]}}}}"#));
    }

    #[tokio::test]
    async fn the_error_about_too_much_data_names_the_key() {
        let mut config = config();
        config.client.queue_max_size = 10;
        let router = start(config, 64);
        let data = r#""data":"more than 10 bytes""#;
        for (method, body) in [
            ("publish", format!(r#"{{"channel":"plain",{data}}}"#)),
            ("broadcast", format!(r#"{{"channels":["plain"],{data}}}"#)),
        ] {
            let (_, text) = post(&router, method, &body).await;
            let told =
                r#""code":107,"message":"bad request: data is larger than client.queue_max_"#;
            assert!(text.contains(told), "{method}: {text}");
        }
    }

    #[tokio::test]
    async fn a_version_epoch_is_bounded() {
        let router = start(config(), 64);
        let told = r#""code":107,"message":"bad request: version_epoch is longer than 256 bytes""#;
        for (length, is_refused) in [(256, false), (257, true)] {
            let epoch = "e".repeat(length);
            let fields = format!(r#""data":1,"version":1,"version_epoch":"{epoch}""#);
            let publish = format!(r#"{{"channel":"plain",{fields}}}"#);
            let broadcast = format!(r#"{{"channels":["plain"],{fields}}}"#);
            let batch =
                format!(r#"{{"commands":[{{"publish":{publish}}},{{"broadcast":{broadcast}}}]}}"#);
            let single = [("publish", publish, 1), ("broadcast", broadcast, 1)];
            for (method, body, publications) in single.into_iter().chain([("batch", batch, 2)]) {
                let (_, text) = post(&router, method, &body).await;
                let expected = if is_refused { publications } else { 0 };
                assert_eq!(text.matches(told).count(), expected, "{method}: {text}");
                assert_eq!(text.contains("error"), is_refused, "{method}: {text}");
            }
        }
    }

    #[tokio::test]
    async fn commands_that_name_their_method_are_answered_as_in_centrifugo() {
        let router = start(config(), 64);
        let check = async |body: &str, status: u16, expected: &str| {
            let request = Request::post("/api").header("X-API-Key", "secret");
            let (found, text) = send(&router, request.body(body.to_owned().into()).unwrap()).await;
            assert_eq!((found, text.as_str()), (status, expected), "{body}");
        };
        let bad = r#"{"error":{"code":107,"message":"bad request"}}"#;
        let publish = r#""method":"publish","params":{"channel":"plain","data":1}"#;
        check(&format!("{{{publish}}}"), 200, r#"{"result":{}}"#).await;
        check(&format!(r#"{{"id":3,{publish}}}"#), 200, r#"{"id":3,"result":{}}"#).await;
        let two = format!("{{\"id\":1,{publish}}}\n{{\"method\":\"publish\"}}");
        check(&two, 200, &format!("{{\"id\":1,\"result\":{{}}}}\n{bad}")).await;
        check("{}", 200, bad).await;
        let unknown = "a command names an unknown method\n";
        check(r#"{"method":"bogus"}"#, 400, unknown).await;
        let none = "the request has no command; send an object with method and params\n";
        check("", 400, none).await;
    }

    #[tokio::test]
    async fn null_counts_as_absent_and_an_array_is_not_an_object() {
        let router = start(config(), 64);
        let check = async |method: &str, body: &str, status: u16, expected: &str| {
            let (found, text) = post(&router, method, body).await;
            assert_eq!(found, status, "{method} {body}: {text}");
            assert!(text.starts_with(expected), "{method} {body}: {text}");
        };
        let nothing = r#"{"channel":"plain","data":1,"tags":null,"delta":null,"version":null}"#;
        check("publish", nothing, 200, r#"{"result":{}}"#).await;
        check("channels", r#"{"pattern":null}"#, 200, r#"{"result":{"channels":{"a""#).await;
        check("channels", r#"{"pattern":"{a,c}"}"#, 200, r#"{"result":{"channels":{"a""#).await;
        check("channels", r#"{"pattern":"["}"#, 200, r#"{"error":{"code":107"#).await;
        let no_value = r#"{"channel":"plain","data":1,"tags":{"a":null}}"#;
        check("publish", no_value, 200, r#"{"result":{}}"#).await;
        let no_value = r#"{"user":"u","channel":"plain","override":{"presence":{}}}"#;
        check("subscribe", no_value, 200, r#"{"result":{}}"#).await;
        check("channels", "[null]", 400, "invalid request body for this method: an object").await;
        check("history", r#"{"channel":"a","since":[1,"e"]}"#, 400, "invalid request body").await;
        check("rpc", r#"{"method":"m","params":1}"#, 200, r#"{"error":{"code":104,"#).await;
        check("rpc", "{}", 200, r#"{"error":{"code":107,"#).await;
        check("other", "{}", 404, "").await;
    }

    #[tokio::test]
    async fn a_batch_with_an_unreadable_command_runs_no_command() {
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
        let (_, text) = post(&router, "batch", r#"{"commands":[{"publish":null},null]}"#).await;
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
        let code = |at: usize| answer["replies"][at]["error"]["code"].as_u64();
        assert_eq!([code(0), code(1)], [Some(104), Some(107)], "{text}");
        let (_, text) = post(&router, "batch", "{}").await;
        assert_eq!(text, r#"{"replies":[]}"#);
        let before = offset(&router).await;
        let malformed = format!(r#"{{"commands":[{publish},{{"publish":{{"channel":1}}}}]}}"#);
        assert_eq!(post(&router, "batch", &malformed).await.0, 400);
        let many = vec![publish; BATCH_MAX + 1].join(",");
        let (status, text) = post(&router, "batch", &format!(r#"{{"commands":[{many}]}}"#)).await;
        assert!(status == 400 && text.contains("split the batch"), "{text}");
        assert_eq!(offset(&router).await, before + 1, "the refused batches published nothing");
    }

    /// Offset of a new publication.
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
    async fn a_request_without_an_answer_in_time_is_an_error() {
        let router = start(config(), 64);
        let (status, text) = post(&router, "publish", r#"{"channel":"mute","data":1}"#).await;
        assert_eq!((status, text.contains("\"code\":100")), (200, true), "{text}");
    }
}
