//! Requests to the backend about clients, and its answers.
//!
//! Owns the names of the JSON fields, which are those of Centrifugo ("Proxy events to the
//! backend"). Never sends a request. The invariant: an invalid answer is a failure as a whole; no
//! part of the answer takes effect.

mod answer;
mod failure;
mod request;
mod upstream;

pub use self::answer::{
    AnswerError, ConnectAnswer, ProxyAnswer, PublishAnswer, RefreshAnswer, answer,
};
pub use self::failure::ProxyFailure;
pub use self::request::{BackendContext, ProxyEvent, ProxyRequest};
pub use self::upstream::{ContextFields, RpcUpstreams, Upstream, Upstreams};

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::token::SubscribeOptions;
    use crate::wire::http::Transport;
    use crate::wire::protocol::command::ConnectRequest;
    use crate::wire::protocol::{Error, Wire};

    fn request(event: ProxyEvent) -> ProxyRequest {
        ProxyRequest {
            upstream: Upstream(0),
            client: "c1".to_owned(),
            user: "56".into(),
            transport: Transport::WebSocket,
            wire: Wire::Json,
            context: None,
            event,
            charge: None,
        }
    }

    fn text(request: &ProxyRequest, binary: bool, meta: bool) -> String {
        String::from_utf8(request.body(binary, meta).unwrap()).unwrap()
    }

    fn subscribe() -> ProxyEvent {
        ProxyEvent::Subscribe { channel: "chat:index".into(), data: Some(b"[1]".as_slice().into()) }
    }

    fn publish() -> ProxyEvent {
        ProxyEvent::Publish { channel: "c".into(), data: b"1".as_slice().into() }
    }

    fn connect() -> ProxyEvent {
        ProxyEvent::connect(&ConnectRequest::default())
    }

    #[test]
    fn requests_have_the_documented_fields() {
        let head = r#"{"client":"c1","transport":"websocket","protocol":"json","#;
        let check = |event, rest: &str| {
            let expected = format!(r#"{head}"encoding":"json",{rest}}}"#);
            assert_eq!(text(&request(event), false, false), expected);
        };
        check(ProxyEvent::Refresh, r#""user":"56""#);
        check(subscribe(), r#""user":"56","channel":"chat:index","data":[1]"#);
        check(publish(), r#""user":"56","channel":"c","data":1"#);
        check(ProxyEvent::SubRefresh { channel: "c".into() }, r#""user":"56","channel":"c""#);
        let call = ProxyEvent::Rpc { method: "m".into(), data: None };
        check(call, r#""user":"56","method":"m""#);
        let gone = ProxyEvent::Disconnect { code: 3000, reason: "gone".into() };
        check(gone, r#""user":"56","code":3000,"reason":"gone""#);
        let left = ProxyEvent::Unsubscribe { channel: "c".into(), code: 0, reason: "".into() };
        check(left, r#""user":"56","channel":"c","code":0,"reason":"""#);
        let asked: ConnectRequest<'_> =
            serde_json::from_str(r#"{"name":"js","data":{"a":1},"subs":{"x":{}}}"#).unwrap();
        check(ProxyEvent::connect(&asked), r#""name":"js","channels":["x"],"data":{"a":1}"#);
    }

    #[test]
    fn binary_payloads_are_sent_as_base64_or_refused() {
        let binary = ProxyEvent::Publish { channel: "c".into(), data: [0xff].as_slice().into() };
        let mut request = request(binary);
        assert_eq!(request.body(false, false), Err(ProxyFailure::Payload));
        assert!(text(&request, true, false).ends_with(r#""b64data":"/w=="}"#));
        assert!(text(&request, true, false).contains(r#""encoding":"binary""#));
        let meta = Some(br#"{"k":1}"#.as_slice().into());
        request.context = Some(Arc::new(BackendContext { meta, ..BackendContext::default() }));
        assert!(text(&request, true, true).ends_with(r#","meta":{"k":1}}"#));
        assert!(!text(&request, true, false).contains("meta"));
    }

    #[test]
    fn a_connect_answer_contains_the_claims_of_a_token() {
        let body = br#"{"result":{"user":"56","expire_at":9,"b64info":"eyJhIjoxfQ==",
            "data":{"x":1},"channels":["a","b"],"subs":{"b":{"data":2}},"meta":{"m":1}}}"#;
        let Ok(ProxyAnswer::Connect(Some(found))) = answer(&connect(), body) else { panic!() };
        let ConnectAnswer { claims, data } = *found;
        assert_eq!((claims.user.as_str(), claims.expires), ("56", Some(9)));
        assert_eq!(claims.info.as_deref(), Some(br#"{"a":1}"#.as_slice()));
        assert_eq!(claims.meta.as_deref(), Some(br#"{"m":1}"#.as_slice()));
        assert_eq!(data.as_deref(), Some(br#"{"x":1}"#.as_slice()));
        let named: Vec<_> = claims.subs.iter().map(|(channel, _)| channel.as_str()).collect();
        assert_eq!(named, ["b", "a"]);
        assert_eq!(answer(&connect(), b"{}"), Ok(ProxyAnswer::Connect(None)));
    }

    #[test]
    fn errors_and_disconnects_take_precedence_over_results() {
        let check = |body: &str, expected: ProxyFailure| {
            let expected = Err(AnswerError::Rejected(expected));
            assert_eq!(answer(&subscribe(), body.as_bytes()), expected, "{body}");
        };
        let error = |temporary| ProxyFailure::Error { code: 403, message: "no".into(), temporary };
        check(r#"{"error":{"code":403,"message":"no"},"result":{}}"#, error(false));
        check(r#"{"error":{"code":403,"message":"no","temporary":true}}"#, error(true));
        let close = ProxyFailure::Disconnect { code: 4500, reason: "bye".into() };
        check(r#"{"error":{"code":1},"disconnect":{"code":4500,"reason":"bye"}}"#, close);
        let close = ProxyFailure::Disconnect { code: 4500, reason: "".into() };
        check(r#"{"error":null,"disconnect":{"code":4500,"reason":null}}"#, close);
        let error = ProxyFailure::Error { code: 7, message: "".into(), temporary: false };
        check(r#"{"error":{"code":7,"message":null,"temporary":null}}"#, error);
    }

    #[test]
    fn the_cause_of_an_unreadable_answer_contains_no_value_of_the_answer() {
        for (body, cause) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("[]", "invalid type: sequence, expected an object"),
            ("null", "invalid type: null, expected an object"),
            ("{\"result\":1}", "the result is invalid type: integer, expected an object"),
            ("{\"result\":[]}", "the result is invalid type: sequence, expected an object"),
            ("{\"result\":{\"override\":[]}}", "override of a subscription in the result"),
            ("{\"result\":{\"override\":{\"presence\":[]}}}", "override of a subscription"),
            ("{\"error\":[]}", "invalid type: sequence, expected an object"),
            ("{\"error\":{}}", "the error has no code above 0"),
            ("{\"disconnect\":{}}", "the disconnect has no code from 3000 to 4999"),
            ("{\"disconnect\":{\"code\":1005}}", "the disconnect has no code from 3000 to 4999"),
            ("{\"result\":{\"b64data\":\"s3cret?\"}}", "data or override of a subscription"),
            ("{\"result\":{\"expire_at\":\"s3cret\"}}", "invalid type: string, expected i64"),
            ("{\"result\":{}} s3cret", "trailing characters"),
        ] {
            let Err(AnswerError::Unreadable(found)) = answer(&subscribe(), body.as_bytes()) else {
                panic!("{body} is valid");
            };
            assert!(found.contains(cause) && !found.contains("s3cret"), "{body}: {found}");
        }
        for event in [connect(), publish(), ProxyEvent::Rpc { method: "".into(), data: None }] {
            for body in ["{\"result\":[]}", "{\"result\":{\"b64data\":\"s3cret?\"}}"] {
                let found = answer(&event, body.as_bytes());
                assert!(matches!(found, Err(AnswerError::Unreadable(_))), "{body}: {found:?}");
            }
        }
        for event in [ProxyEvent::Refresh, ProxyEvent::SubRefresh { channel: "c".into() }] {
            let found = answer(&event, b"{\"result\":[]}");
            assert!(matches!(found, Err(AnswerError::Unreadable(_))), "{found:?}");
        }
    }

    #[test]
    fn null_is_an_absent_field_but_a_present_payload() {
        let null = || Some(b"null".as_slice().into());
        let body = br#"{"result":{"user":null,"expire_at":null,"channels":[null,"a"],"subs":null,
            "info":null,"b64info":null,"data":null,"b64data":null,"meta":null}}"#;
        let Ok(ProxyAnswer::Connect(Some(found))) = answer(&connect(), body) else { panic!() };
        let ConnectAnswer { claims, data } = *found;
        assert_eq!((claims.user.as_str(), claims.expires), ("", None));
        assert_eq!((claims.info, claims.meta, data), (null(), null(), null()));
        assert_eq!(claims.subs, [("a".to_owned(), SubscribeOptions::default())]);
        let body = br#"{"result":{"subs":{"a":null,"b":{"info":null,"data":null,"b64info":null,
            "override":{"presence":{"value":null},"join_leave":null}}}}}"#;
        let Ok(ProxyAnswer::Connect(Some(found))) = answer(&connect(), body) else { panic!() };
        let options = SubscribeOptions {
            info: null(),
            data: null(),
            presence: Some(false),
            ..SubscribeOptions::default()
        };
        let [(_, first), (_, second)] = &*found.claims.subs else { panic!() };
        assert_eq!((first, second), (&SubscribeOptions::default(), &options));
        let body = br#"{"result":{"expire_at":null,"override":null,"b64data":null}}"#;
        let expected = ProxyAnswer::Subscribe(SubscribeOptions::default(), None);
        assert_eq!(answer(&subscribe(), body), Ok(expected));
        let body = br#"{"result":{"skip_history":null,"tags":{"a":null},"idempotency_key":null,
            "delta":null,"version":null,"version_epoch":null,"b64data":null}}"#;
        let tags = [("a".into(), "".into())].into();
        let expected = PublishAnswer { tags, ..PublishAnswer::default() };
        assert_eq!(answer(&publish(), body), Ok(ProxyAnswer::Publish(Box::new(expected))));
        // For a publish, JSON takes precedence over base64, and `null` is JSON.
        let body = br#"{"result":{"data":null,"b64data":"MQ=="}}"#;
        let expected = PublishAnswer { data: null(), ..PublishAnswer::default() };
        assert_eq!(answer(&publish(), body), Ok(ProxyAnswer::Publish(Box::new(expected))));
        let call = ProxyEvent::Rpc { method: "".into(), data: None };
        let one = Some(b"1".as_slice().into());
        assert_eq!(answer(&call, body), Ok(ProxyAnswer::Rpc(one)));
        assert_eq!(answer(&call, br#"{"result":{"data":null}}"#), Ok(ProxyAnswer::Rpc(null())));
    }

    #[test]
    fn a_version_epoch_of_an_answer_is_bounded() {
        let result = |length: usize| {
            let epoch = "e".repeat(length);
            let body = format!(r#"{{"result":{{"version":1,"version_epoch":"{epoch}"}}}}"#);
            answer(&publish(), body.as_bytes())
        };
        assert!(result(256).is_ok());
        let cause = "version_epoch of the result is longer than 256 bytes".to_owned();
        assert_eq!(result(257), Err(AnswerError::Unreadable(cause)));
    }

    #[test]
    fn base64_may_contain_line_ends() {
        let body = br#"{"result":{"b64data":"eyJk\r\nIjox\r\nfQ==\r\n","b64info":"MQ==\n"}}"#;
        let data = Some(br#"{"d":1}"#.as_slice().into());
        let info = Some(b"1".as_slice().into());
        let Ok(ProxyAnswer::Connect(Some(found))) = answer(&connect(), body) else { panic!() };
        assert_eq!((&found.data, &found.claims.info), (&data, &info));
        let options = SubscribeOptions { data: data.clone(), info, ..SubscribeOptions::default() };
        assert_eq!(answer(&subscribe(), body), Ok(ProxyAnswer::Subscribe(options, None)));
        let permission = PublishAnswer { data: data.clone(), ..PublishAnswer::default() };
        assert_eq!(answer(&publish(), body), Ok(ProxyAnswer::Publish(Box::new(permission))));
        let call = ProxyEvent::Rpc { method: "".into(), data: None };
        assert_eq!(answer(&call, body), Ok(ProxyAnswer::Rpc(data)));
    }

    #[test]
    fn results_of_all_events_but_connect() {
        let check = |event: &ProxyEvent, result: &str, expected: ProxyAnswer| {
            let body = format!("{{\"result\":{result}}}");
            assert_eq!(answer(event, body.as_bytes()), Ok(expected), "{result}");
        };
        let options = SubscribeOptions { presence: Some(true), ..SubscribeOptions::default() };
        let result = r#"{"expire_at":7,"override":{"presence":{"value":true}}}"#;
        check(&subscribe(), result, ProxyAnswer::Subscribe(options, Some(7)));
        check(&subscribe(), "null", ProxyAnswer::Subscribe(SubscribeOptions::default(), None));
        let renewed = RefreshAnswer { expires: Some(7), ..RefreshAnswer::default() };
        check(&ProxyEvent::Refresh, r#"{"expire_at":7}"#, ProxyAnswer::Refresh(Some(renewed)));
        check(&ProxyEvent::Refresh, r#"{"expired":true}"#, ProxyAnswer::Refresh(None));
        check(&ProxyEvent::Refresh, "null", ProxyAnswer::Refresh(None));
        let data = Some(b"2".as_slice().into());
        let tags = [("a".into(), "b".into())].into();
        let permission =
            PublishAnswer { data, skip_history: true, tags, ..PublishAnswer::default() };
        let result = r#"{"data":2,"skip_history":true,"tags":{"a":"b"}}"#;
        check(&publish(), result, ProxyAnswer::Publish(Box::new(permission)));
        let call = ProxyEvent::Rpc { method: "".into(), data: None };
        check(&call, r#"{"data":[]}"#, ProxyAnswer::Rpc(Some(b"[]".as_slice().into())));
        check(&call, "{}", ProxyAnswer::Rpc(None));
    }

    #[test]
    fn the_namespace_of_a_method_selects_its_backend() {
        let named = [("on".into(), Some(Upstream(2))), ("off".into(), None)].into();
        let calls = RpcUpstreams { without: Some(Upstream(1)), named, boundary: ":".into() };
        let check = |method, expected| assert_eq!(calls.upstream(method), expected, "{method}");
        check("", Ok(Upstream(1)));
        check("on:x", Ok(Upstream(2)));
        check("off:x", Err(Error::NOT_AVAILABLE));
        check("other:x", Err(Error::METHOD_NOT_FOUND));
        assert_eq!(RpcUpstreams::default().upstream("a:b"), Err(Error::NOT_AVAILABLE));
    }
}
