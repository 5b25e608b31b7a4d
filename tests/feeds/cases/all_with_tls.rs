//! One process with TLS on every side at once: both ports, the public one with certificates of an
//! ACME authority, and backend, key set and broker.

use std::net::TcpStream;

use serde_json::{Value, json};

use super::options;
use crate::broker::Broker;
use crate::common::backend::Backend;
use crate::common::certificates::{Authority, connect, converse, get};
use crate::common::pebble::{Pebble, PebbleFolder};
use crate::common::{Server, WEBSOCKET, client_frame, free_port, upgrade_request, wait_for};

/// Lifetime of the certificates in seconds. The server renews one after two thirds of it.
const LIFETIME: u32 = 15;

/// The flags of a server that uses all of them.
fn flags(
    broker: &Broker,
    pebble: &PebbleFolder,
    own: &Authority,
    backend: &Backend,
) -> Vec<String> {
    let pair = own.issue("localhost");
    std::fs::write(pebble.path("internal.crt"), &pair.certificate).unwrap();
    std::fs::write(pebble.path("internal.key"), &pair.key).unwrap();
    let amqps = json!({
        "url": format!("amqps://localhost:{}", broker.tls_port),
        "tls": {"server_ca_pem": broker.authority()},
    });
    let consumers = json!([{
        "name": "all", "enabled": true, "type": "rabbitmq",
        "rabbitmq": options(broker, "all-with-tls", amqps),
    }]);
    let url = |path: &str| format!("https://localhost:{}/{path}", backend.port);
    let mut flags = pebble.flags("all");
    let more = [
        ("http_server.internal_tls.enabled", "true".to_owned()),
        ("http_server.internal_tls.cert_pem", pebble.path("internal.crt")),
        ("http_server.internal_tls.key_pem", pebble.path("internal.key")),
        ("client.token.jwks_public_endpoint", url("keys")),
        ("rpc.proxy.endpoint", url("rpc")),
        ("rpc.proxy.http.tls.enabled", "true".to_owned()),
        ("rpc.proxy.http.tls.server_ca_pem", pebble.path("ca.crt")),
        ("rpc.without_namespace.proxy_enabled", "true".to_owned()),
        ("channel.without_namespace.allow_subscribe_for_client", "true".to_owned()),
        ("consumers", consumers.to_string()),
        ("shards", "2".to_owned()),
    ];
    flags.extend(more.map(|(key, value)| format!("--{key}={value}")));
    flags
}

pub async fn ports_acme_key_set_backend_and_broker_use_tls_in_one_process(broker: &mut Broker) {
    let own = Authority::new();
    let folder = PebbleFolder::new(&own, LIFETIME);
    let _pebble = Pebble::start(&folder);
    let trust = folder.trusting(&own);
    let samples: Value =
        serde_json::from_str(include_str!("../../../src/model/token/samples.json")).unwrap();
    let backend = Backend::start_with_tls(&own.issue("localhost"));
    backend.answer("keys", &samples["set"].to_string());
    backend.answer("rpc", r#"{"result":{"data":"done"}}"#);
    let flags = flags(broker, &folder, &own, &backend);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut server = Server::launch_on(&flags, folder.tls, free_port(), |command| {
        command.env("SSL_CERT_FILE", folder.path("ca.crt"));
    });
    wait_for("the server", || TcpStream::connect(server.internal_address()).ok());
    let open = || connect(server.address(), "localhost", &trust).ok();
    let mut client = wait_for("a certificate of the authority", open);
    let first = client.conn.peer_certificates().unwrap().to_vec();
    // The key set decides about the token.
    converse(&mut client, upgrade_request(WEBSOCKET).as_bytes(), "HTTP/1.1 101 ").unwrap();
    let mut ask = |command: &Value, reply: &str| {
        let frame = client_frame(0x81, command.to_string().as_bytes());
        converse(&mut client, &frame, reply).unwrap()
    };
    let token = &samples["tokens"]["ES256"];
    ask(&json!({"id": 1, "connect": {"token": token}}), r#""connect":{"client""#);
    let subscribe = json!({"id": 2, "subscribe": {"channel": "news"}});
    ask(&subscribe, r#"{"id":2,"subscribe":{}}"#);
    let rpc = json!({"id": 3, "rpc": {"method": "a"}});
    ask(&rpc, r#"{"id":3,"rpc":{"data":"done"}}"#);
    // The internal port has a certificate of its own.
    let mut internal = connect(server.internal_address(), "localhost", &own.client(None)).unwrap();
    let mut metrics = || get(&mut internal, "/metrics").unwrap().1;
    wait_for("the feed", || {
        metrics().contains(r#"consumers_up{consumer_name="all"} 1"#).then_some(())
    });
    let publisher = broker.client().await;
    publisher.publish("", "all-with-tls", "m1", "1").await;
    // The queue's name is the routing key, which names the channel; nobody is subscribed to it.
    publisher
        .channel
        .queue_bind(
            "all-with-tls".into(),
            "amq.direct".into(),
            "news".into(),
            Default::default(),
            Default::default(),
        )
        .await
        .unwrap();
    publisher.publish("amq.direct", "news", "m2", "\"from the broker\"").await;
    ask(&json!({"id": 4, "rpc": {"method": "a"}}), "from the broker");
    wait_for("a renewed certificate", || {
        let again = open()?;
        (again.conn.peer_certificates()? != &first[..]).then_some(())
    });
    assert!(metrics().contains(r#"messages_processed_total{consumer_name="all"} 2"#));
    ask(&json!({"id": 5, "unsubscribe": {"channel": "news"}}), r#"{"id":5,"unsubscribe":{}}"#);
    server.signal_stop();
    assert!(server.wait().success());
}
