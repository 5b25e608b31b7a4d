//! Answers of proxies and key sets, from fake backends.

use data_encoding::BASE64URL_NOPAD;
use drumline::base::sys;
use serde_json::{Value, json};

use crate::access::Started;
use crate::common::backend::Backend;
use crate::common::{API_KEY, Client, WEBSOCKET, upgrade_request, wait_for};

/// A server with every proxy enabled and `backend` as its endpoint, with more flags.
fn server(backend: &Backend, more: &[&str]) -> Started {
    let mut flags = vec![format!("--http_api.key={API_KEY}")];
    for section in ["client.proxy.connect", "channel.proxy.subscribe", "channel.proxy.publish"] {
        let path = section.rsplit('.').next().unwrap();
        flags.push(format!("--{section}.endpoint={}", backend.url(path)));
    }
    flags.push(format!("--rpc.proxy.endpoint={}", backend.url("rpc")));
    flags.push("--client.proxy.connect.enabled".to_owned());
    flags.push("--rpc.without_namespace.proxy_enabled".to_owned());
    flags.push("--channel.without_namespace.subscribe_proxy_enabled".to_owned());
    flags.push("--channel.without_namespace.publish_proxy_enabled".to_owned());
    for flag in more {
        let key = flag.split('=').next().unwrap();
        flags.retain(|own| own.split('=').next() != Some(key));
        flags.push((*flag).to_owned());
    }
    Started::with(&[], &flags.iter().map(String::as_str).collect::<Vec<_>>())
}

const CONNECT: &str = r#"{"id":1,"connect":{}}"#;

fn failed(id: u32) -> String {
    format!(
        r#"{{"id":{id},"error":{{"code":100,"message":"internal server error","temporary":true}}}}"#
    )
}

fn opened(server: &Started) -> Client {
    Client::open(server.address, WEBSOCKET)
}

fn connected(server: &Started) -> Client {
    let mut client = opened(server);
    let reply = client.ask(CONNECT);
    assert!(reply.starts_with(r#"{"id":1,"connect":{"#), "{reply}");
    client
}

fn subscribe(channel: &str) -> String {
    json!({"id": 2, "subscribe": {"channel": channel}}).to_string()
}

#[test]
fn a_backend_answer_with_an_array_as_result_is_an_error() {
    let backend = Backend::start();
    let server = server(&backend, &[]);
    for answer in [r#"{"result":[]}"#, "[]", r#"{"result":""}"#, r#"{"error":[]}"#] {
        backend.answer("connect", answer);
        assert_eq!(opened(&server).ask(CONNECT), failed(1), "{answer}");
    }
    backend.answer("connect", r#"{"result":{"user":"ann"}}"#);
    let mut client = connected(&server);
    for path in ["subscribe", "publish", "rpc"] {
        backend.answer(path, r#"{"result":[]}"#);
    }
    assert_eq!(client.ask(&subscribe("x")), failed(2));
    assert_eq!(client.ask(r#"{"id":3,"publish":{"channel":"x","data":1}}"#), failed(3));
    assert_eq!(client.ask(r#"{"id":4,"rpc":{"data":1}}"#), failed(4));
}

#[test]
fn an_unreadable_backend_answer_is_logged_with_its_cause_and_without_values() {
    let backend = Backend::start();
    let server = server(&backend, &[]);
    backend.answer("connect", r#"{"result":{"user":"hunter2","expire_at":"hunter2"}}"#);
    for _ in 0..20 {
        assert_eq!(opened(&server).ask(CONNECT), failed(1));
    }
    backend.answer("connect", r#"{"result":{}}"#);
    backend.answer("rpc", r#"{"result":{"b64data":"hunter2!"}}"#);
    assert_eq!(connected(&server).ask(r#"{"id":4,"rpc":{"data":1}}"#), failed(4));
    let line = |method: &str, cause: &str| {
        format!("{method} request to {} failed: {cause}", backend.url(method))
    };
    let connect = line("connect", "the result is invalid type: string, expected i64");
    let rpc = line("rpc", "b64data of the result is not base64");
    wait_for("the lines of the log", || server.text("stderr").contains(&rpc).then_some(()));
    let told = server.stop();
    assert_eq!(told.matches(&connect).count(), 1, "once in a while: {told}");
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn a_redirect_of_the_backend_is_an_error_whose_log_line_names_the_cure() {
    let backend = Backend::start();
    let server = server(&backend, &[]);
    backend.answer("other", r#"{"result":{"user":"ann"}}"#);
    backend.status("connect", &format!("307 Elsewhere\r\nLocation: {}", backend.url("other")));
    assert_eq!(opened(&server).ask(CONNECT), failed(1));
    assert_eq!(backend.asked("other").len(), 0, "the redirect is not followed");
    let line = "with a redirect (307 Temporary Redirect), which is not followed; set endpoint to";
    wait_for("the line of the log", || server.text("stderr").contains(line).then_some(()));
}

#[test]
fn a_status_of_the_backend_becomes_the_configured_error_or_disconnect() {
    let backend = Backend::start();
    let transforms = r#"[{"status_code":404,"to_error":{"code":4004,"message":"none","temporary":true}},
                         {"status_code":403,"to_disconnect":{"code":4403,"reason":"out"}}]"#;
    let server = server(
        &backend,
        &[&format!("--client.proxy.connect.http.status_to_code_transforms={transforms}")],
    );
    backend.status("connect", "404 Not Found");
    let expected = r#"{"id":1,"error":{"code":4004,"message":"none","temporary":true}}"#;
    assert_eq!(opened(&server).ask(CONNECT), expected);
    backend.status("connect", "500 Broken");
    assert_eq!(opened(&server).ask(CONNECT), failed(1));
    backend.status("connect", "403 Forbidden");
    let mut client = opened(&server);
    client.send(CONNECT);
    assert_eq!(client.closed(), (4403, "out".to_owned()));
}

#[test]
fn headers_that_the_server_sets_itself_are_not_passed_to_the_backend() {
    let backend = Backend::start();
    let names = "--client.proxy.connect.http_headers=X-A Content-Type Host Connection Upgrade";
    let server = server(&backend, &[names]);
    backend.answer("connect", r#"{"result":{"user":"ann"}}"#);
    let mut client = Client::dial(server.address);
    let more = "\r\nX-A: a\r\nContent-Type: b\r\n";
    client.send_raw(upgrade_request(WEBSOCKET).replacen("\r\n", more, 1).as_bytes());
    assert!(client.read_head().starts_with("HTTP/1.1 101 "));
    assert!(client.ask(CONNECT).starts_with(r#"{"id":1,"connect":{"#));
    let asked = &backend.asked("connect")[0].headers;
    let header = |name: &str| asked.get(name).map(String::as_str);
    assert_eq!(header("x-a"), Some("a"));
    assert_eq!(header("content-type"), Some("application/json"));
    assert_eq!(header("host"), Some(&*format!("127.0.0.1:{}", backend.port)));
    assert_eq!(header("upgrade"), None);
    let told = "Content-Type in client.proxy.connect, Host in client.proxy.connect";
    assert!(server.text("stderr").contains(told));
}

#[test]
fn null_in_an_answer_counts_as_absent_or_is_a_payload() {
    let backend = Backend::start();
    let server = server(&backend, &["--channel.without_namespace.presence"]);
    backend.answer(
        "connect",
        concat!(
            r#"{"result":{"user":"ann","expire_at":null,"channels":null,"subs":null,"#,
            r#""info":null,"b64info":null,"data":null,"b64data":null},"error":null}"#
        ),
    );
    let mut client = opened(&server);
    assert!(client.ask(CONNECT).contains(r#","data":null"#));
    backend.answer("subscribe", r#"{"result":{"expire_at":null,"override":null}}"#);
    assert_eq!(client.ask(&subscribe("x")), r#"{"id":2,"subscribe":{}}"#);
    let nulls = r#"{"result":{"skip_history":null,"tags":null,"version":null,"data":null}}"#;
    backend.answer("publish", nulls);
    client.send(r#"{"id":3,"publish":{"channel":"x","data":1}}"#);
    let mut said = [client.text(), client.text()];
    said.sort();
    assert_eq!(said[0], r#"{"id":3,"publish":{}}"#);
    assert!(said[1].contains(r#""pub":{"data":null,"info":{"user":"ann""#), "{}", said[1]);
    assert!(said[1].contains(r#""conn_info":null"#), "{}", said[1]);
    backend.answer("rpc", r#"{"result":{"data":null}}"#);
    assert_eq!(client.ask(r#"{"id":4,"rpc":{}}"#), r#"{"id":4,"rpc":{"data":null}}"#);
}

#[test]
fn base64_with_line_ends_is_accepted() {
    let backend = Backend::start();
    let server = server(&backend, &[]);
    let lines = "eyJk\\r\\nIjox\\r\\nfQ==\\r\\n";
    backend.answer("connect", &format!(r#"{{"result":{{"b64data":"{lines}"}}}}"#));
    let mut client = opened(&server);
    assert!(client.ask(CONNECT).contains(r#","data":{"d":1}"#));
    backend.answer("subscribe", &format!(r#"{{"result":{{"b64data":"{lines}"}}}}"#));
    assert_eq!(client.ask(&subscribe("x")), r#"{"id":2,"subscribe":{"data":{"d":1}}}"#);
    let mut api = Client::dial(server.address);
    for (method, body) in [
        ("publish", format!(r#"{{"channel":"x","b64data":"{lines}"}}"#)),
        ("broadcast", format!(r#"{{"channels":["x"],"b64data":"{lines}"}}"#)),
    ] {
        let length = body.len();
        let head = format!("POST /api/{method} HTTP/1.1\r\nHost: {}\r\n", server.address);
        let head = format!("{head}X-API-Key: {API_KEY}\r\nContent-Length: {length}\r\n\r\n");
        api.send_raw((head + &body).as_bytes());
        let head = api.read_head();
        let answer = api.read_body(&head);
        assert!(answer.starts_with(r#"{"result":{"#), "{answer}");
        assert_eq!(client.text(), r#"{"push":{"channel":"x","pub":{"data":{"d":1}}}}"#);
    }
}

#[test]
fn credentials_in_a_backend_url_are_sent_as_basic_authorization() {
    let backend = Backend::start();
    backend.answer("connect", r#"{"result":{"user":"ann"}}"#);
    backend.answer("rpc", r#"{"result":{}}"#);
    let with_user = |path: &str| {
        let host = format!("127.0.0.1:{}", backend.port);
        format!("http://b%40b:hun%2Fter2@{host}/{path}")
    };
    let server = server(
        &backend,
        &[
            &format!("--client.proxy.connect.endpoint={}", with_user("connect")),
            &format!("--rpc.proxy.endpoint={}", with_user("rpc")),
            r#"--rpc.proxy.http.static_headers={"Authorization":"Bearer x"}"#,
        ],
    );
    connected(&server).ask(r#"{"id":4,"rpc":{}}"#);
    let asked = &backend.asked("connect")[0];
    assert_eq!(asked.headers["authorization"], "Basic YkBiOmh1bi90ZXIy");
    assert_eq!(asked.headers["host"], format!("127.0.0.1:{}", backend.port));
    assert_eq!(backend.asked("rpc")[0].headers["authorization"], "Bearer x");
    backend.answer("connect", "");
    assert_eq!(opened(&server).ask(CONNECT), failed(1));
    wait_for("a line of the log", || {
        server.text("stderr").contains("connect request").then_some(())
    });
    let told = server.stop();
    assert!(!told.contains("ter2") && !told.contains("YkBi"), "{told}");
}

#[test]
fn a_past_expiry_from_a_backend_grants_nothing() {
    let backend = Backend::start();
    let server = server(&backend, &[]);
    let past = json!({"result": {"user": "ann", "expire_at": 1}}).to_string();
    backend.answer("connect", &past);
    let expired = |id: u32| format!(r#"{{"id":{id},"error":{{"code":110,"message":"expired"}}}}"#);
    assert_eq!(opened(&server).ask(CONNECT), expired(1));
    backend.answer("connect", r#"{"result":{"user":"ann"}}"#);
    backend.answer("subscribe", &past);
    let mut client = connected(&server);
    assert_eq!(client.ask(&subscribe("x")), expired(2));
    backend.answer("subscribe", r#"{"result":{}}"#);
    assert_eq!(client.ask(&subscribe("x")), r#"{"id":2,"subscribe":{}}"#);
}

/// A client of the user `ann` whose connection expires within seconds. On a slow machine the expiry
/// can pass before the server reads it and refuses the client: then a later expiry is tried.
fn connected_until_soon(backend: &Backend, server: &Started) -> Client {
    for seconds in [2, 4, 8, 16] {
        let end = sys::unix_millis() / 1000 + seconds;
        backend
            .answer("connect", &json!({"result": {"user": "ann", "expire_at": end}}).to_string());
        let mut client = opened(server);
        if client.ask(CONNECT).starts_with(r#"{"id":1,"connect":{"#) {
            return client;
        }
    }
    panic!("the server refuses an expiry that is 16 s ahead");
}

#[test]
fn a_refresh_without_a_later_expiry_closes_the_connection() {
    let backend = Backend::start();
    let endpoint = format!("--client.proxy.refresh.endpoint={}", backend.url("refresh"));
    let server = server(&backend, &["--client.proxy.refresh.enabled", &endpoint]);
    for answer in [
        r#"{"result":{}}"#,
        r#"{"result":{"expire_at":0}}"#,
        r#"{"result":null}"#,
        "{}",
        r#"{"result":{"expire_at":1}}"#,
        r#"{"result":{"info":1}}"#,
    ] {
        backend.answer("refresh", answer);
        let mut client = connected_until_soon(&backend, &server);
        assert_eq!(client.closed(), (3005, "connection expired".into()), "{answer}");
    }
    // The connect proxy accepted this client, so the client cannot refresh with a token.
    backend.answer("connect", r#"{"result":{"user":"ann"}}"#);
    let mut client = connected(&server);
    client.send(r#"{"id":3,"refresh":{"token":"x"}}"#);
    assert_eq!(client.closed(), (3501, "bad request".into()));
}

#[test]
fn the_info_of_a_refresh_answer_reaches_presence() {
    let backend = Backend::start();
    let endpoint = format!("--client.proxy.refresh.endpoint={}", backend.url("refresh"));
    let presence = "--channel.without_namespace.presence";
    let key = "--channel.without_namespace.allow_presence_for_client";
    let flags = ["--client.proxy.refresh.enabled", &endpoint, presence, key];
    let server = server(&backend, &flags);
    backend.answer("subscribe", r#"{"result":{}}"#);
    let end = sys::unix_millis() / 1000 + 1000;
    let renewed = json!({"result": {"expire_at": end, "info": {"renewed": true}}});
    backend.answer("refresh", &renewed.to_string());
    let mut client = connected_until_soon(&backend, &server);
    assert_eq!(client.ask(&subscribe("a")), r#"{"id":2,"subscribe":{}}"#);
    wait_for("the new info in presence", || {
        let presence = client.ask(r#"{"id":3,"presence":{"channel":"a"}}"#);
        presence.contains(r#""conn_info":{"renewed":true}"#).then_some(())
    });
}

#[test]
fn user_limited_channels_do_not_ask_the_subscribe_proxy() {
    let backend = Backend::start();
    let server = server(&backend, &["--channel.without_namespace.allow_user_limited_channels"]);
    backend.answer("connect", r#"{"result":{"user":"u1"}}"#);
    backend.answer("subscribe", r#"{"result":{}}"#);
    let mut client = connected(&server);
    let denied = r#"{"id":2,"error":{"code":103,"message":"permission denied"}}"#;
    for channel in ["a#u2", "a#", "a#u2,u3"] {
        assert_eq!(client.ask(&subscribe(channel)), denied, "{channel}");
    }
    assert_eq!(client.ask(&subscribe("a#u2,u1")), r#"{"id":2,"subscribe":{}}"#);
    assert_eq!(backend.asked("subscribe").len(), 0);
    assert_eq!(client.ask(&subscribe("a")), r#"{"id":2,"subscribe":{}}"#);
    assert_eq!(backend.asked("subscribe").len(), 1);
}

#[test]
fn a_connect_proxy_that_names_the_user_decides_the_server_side_subscriptions() {
    let backend = Backend::start();
    let server = server(
        &backend,
        &[
            "--client.allow_anonymous_connect_without_token",
            "--channel.without_namespace.subscribe_proxy_enabled=false",
            "--channel.without_namespace.allow_subscribe_for_client",
            "--channel.without_namespace.allow_subscribe_for_anonymous",
            concat!(
                r#"--channel.namespaces=[{"name":"asked","subscribe_proxy_enabled":true,"#,
                r#""allow_subscribe_for_client":true,"allow_subscribe_for_anonymous":true}]"#
            ),
        ],
    );
    let own = r#"{"id":1,"connect":{"subs":{"x":{},"y":{},"asked:z":{}}}}"#;
    for (answer, joined) in [
        (r#"{"result":{"user":"ann"}}"#, &[][..]),
        (r#"{"result":{}}"#, &[]),
        (r#"{"result":{"user":"ann","channels":["x"]}}"#, &["x"]),
        // An answer without a result makes the client anonymous. It joins the channels open to
        // everybody, but no channel with a subscribe proxy.
        ("{}", &["x", "y"]),
    ] {
        backend.answer("connect", answer);
        let reply: Value = serde_json::from_str(&opened(&server).ask(own)).unwrap();
        let subs = reply["connect"]["subs"].as_object().cloned().unwrap_or_default();
        let mut found: Vec<&str> = subs.keys().map(String::as_str).collect();
        found.sort_unstable();
        assert_eq!(found, joined, "{answer}: {reply}");
    }
}

/// A set of public keys, and tokens of `ann` signed with them.
fn samples() -> Value {
    serde_json::from_str(include_str!("../../src/model/token/samples.json")).unwrap()
}

#[test]
fn tokens_of_known_keys_are_verified_while_a_key_set_is_fetched() {
    let samples = samples();
    let backend = Backend::start();
    backend.answer("keys", &samples["set"].to_string());
    let flag = format!("--client.token.jwks_public_endpoint={}", backend.url("keys"));
    let server = Started::with(&[], &[&flag]);
    let connect = |token: &str| json!({"id": 1, "connect": {"token": token}}).to_string();
    let known = |algorithm: &str| {
        let token = samples["tokens"][algorithm].as_str().unwrap();
        let reply = opened(&server).ask(&connect(token));
        assert!(reply.starts_with(r#"{"id":1,"connect":{"client""#), "{reply}");
    };
    known("RS256");
    // {"alg":"RS256","kid":"n"}
    let unknown = connect("eyJhbGciOiJSUzI1NiIsImtpZCI6Im4ifQ.e30.AA");
    // In the pause between two fetches the key may be newer than the set: the error is temporary,
    // so the client tries again.
    let reply = opened(&server).ask(&unknown);
    assert!(reply.contains(r#""code":100"#) && reply.contains(r#""temporary":true"#), "{reply}");
    assert_eq!(backend.asked("keys").len(), 1);
    // After the pause the server fetches the set once for all clients. The backend waits.
    backend.hold(true);
    let mut waiting = wait_for("the next fetch", || {
        let mut client = opened(&server);
        client.send(&unknown);
        (backend.asked("keys").len() > 1).then_some(client)
    });
    known("RS256");
    let attempts = backend.asked("keys").len();
    assert!(attempts < 4, "a token of a known key waited for a whole fetch: {attempts}");
    for _ in 0..20 {
        known("ES256");
    }
    let attempts = backend.asked("keys").len();
    assert!(attempts <= 4, "attempts of one fetch: {attempts}");
    backend.hold(false);
    assert!(waiting.frame().is_some(), "it is answered");
    known("ES384");
    assert!(backend.asked("keys").len() <= 5);
}

/// A key of a tenant: its set, and tokens signed with it. All tenants use the same key ID.
struct Tenant(aws_lc_rs::signature::EcdsaKeyPair);

impl Tenant {
    fn new() -> Tenant {
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
        Tenant(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn set(&self) -> String {
        use aws_lc_rs::signature::KeyPair;
        let point = self.0.public_key().as_ref();
        let [x, y] = [&point[1..33], &point[33..65]].map(|part| BASE64URL_NOPAD.encode(part));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "k", "x": x, "y": y}]})
            .to_string()
    }

    fn token(&self, issuer: &str) -> String {
        let header = BASE64URL_NOPAD.encode(br#"{"alg":"ES256","kid":"k"}"#);
        let claims = json!({"sub": "ann", "iss": issuer}).to_string();
        let message = format!("{header}.{}", BASE64URL_NOPAD.encode(claims.as_bytes()));
        let random = aws_lc_rs::rand::SystemRandom::new();
        let signature = self.0.sign(&random, message.as_bytes()).unwrap();
        format!("{message}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
    }
}

#[test]
fn the_issuer_of_a_token_selects_its_key_set() {
    let (backend, one, two) = (Backend::start(), Tenant::new(), Tenant::new());
    backend.answer("keys-one", &one.set());
    backend.answer("keys-two", &two.set());
    let flags = [
        format!("--client.token.jwks_public_endpoint={}", backend.url("keys-{{tenant}}")),
        "--client.token.issuer_regex=^https://id/(?P<tenant>one|two)$".to_owned(),
    ];
    let server = Started::with(&[], &[&flags[0], &flags[1]]);
    let connect = |token: &str| {
        let mut client = opened(&server);
        client.send(&json!({"id": 1, "connect": {"token": token}}).to_string());
        client
    };
    for (tenant, name) in [(&one, "one"), (&two, "two")] {
        let reply = connect(&tenant.token(&format!("https://id/{name}"))).text();
        assert!(reply.starts_with(r#"{"id":1,"connect":{"client""#), "{name}: {reply}");
    }
    // The other tenant's key has the same ID and verifies nothing here.
    assert_eq!(connect(&two.token("https://id/one")).closed().0, 3500);
    // Other issuers lead nowhere.
    for issuer in ["https://id/three", "https://id/one/../two", "https://evil/?https://id/one"] {
        assert_eq!(connect(&one.token(issuer)).closed().0, 3500, "{issuer}");
    }
    assert_eq!((backend.asked("keys-one").len(), backend.asked("keys-two").len()), (1, 1));
    assert!(backend.asked("keys-three").is_empty() && backend.asked("keys-").is_empty());
}
