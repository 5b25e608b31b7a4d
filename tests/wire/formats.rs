//! Formats of publications: JSON everywhere, bytes only in binary channels.

use crate::common::{Client, Server, WEBSOCKET, upgrade_request};

/// A protocol buffers field of bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 128, "one byte of length");
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

/// A command with its length before it, as a protobuf client sends it.
fn command(id: u8, request: u8, body: &[u8]) -> Vec<u8> {
    let command = [&[1 << 3, id][..], &field(request, body)].concat();
    [&[command.len() as u8], &*command].concat()
}

/// A connected protobuf client.
fn protobuf_client(server: &Server) -> Client {
    let mut client = Client::dial(server);
    let request = upgrade_request(WEBSOCKET)
        .replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: centrifuge-protobuf\r\n\r\n");
    client.send_raw(request.as_bytes());
    assert!(client.read_head().contains("centrifuge-protobuf"));
    ask(&mut client, &command(1, 4, b""));
    client
}

/// Sends a frame of a protobuf client. Returns the answer as text, with invalid UTF-8 replaced.
fn ask(client: &mut Client, command: &[u8]) -> String {
    client.send_raw(&crate::common::client_frame(0x82, command));
    let (first, payload) = client.frame().expect("an answer");
    assert_eq!(first, 0x82, "{payload:?}");
    String::from_utf8_lossy(&payload).into_owned()
}

const NOT_JSON: &str =
    "bad request: data is not JSON; set publication_data_format to binary to allow it";
const BINARY_CHANNEL: &str =
    "bad request: the channel carries binary data; connect with the protobuf protocol";

#[test]
fn bytes_that_are_not_json_are_refused_and_json_subscribers_stay() {
    let server = Server::on_one_port(&[]);
    let mut subscriber = Client::subscribed(&server, "c");
    let mut publisher = protobuf_client(&server);
    let publish = |data: &[u8]| [field(1, b"c"), field(2, data)].concat();
    let answer = ask(&mut publisher, &command(2, 7, &publish(b"\xff\x00")));
    assert!(answer.contains(NOT_JSON), "{answer}");
    let answer = server.api("publish", r#"{"channel":"c","b64data":"/wA="}"#);
    assert!(answer.contains(r#""code":107"#) && answer.contains(NOT_JSON), "{answer}");
    let answer = server.api("broadcast", r#"{"channels":["c"],"b64data":"/wA="}"#);
    assert!(answer.contains(NOT_JSON), "{answer}");
    let answer = ask(&mut publisher, &command(3, 7, &publish(b"{}")));
    assert!(!answer.contains("bad request"), "{answer}");
    assert_eq!(subscriber.push(), r#"{"push":{"channel":"c","pub":{"data":{}}}}"#);
    assert!(subscriber.is_alive());
}

#[test]
fn a_binary_channel_refuses_json_subscribers_and_closes_nobody() {
    let namespaces = r#"[{"name":"bin","publication_data_format":"binary","history_size":9,"history_ttl":"60s"}]"#;
    let server = Server::on_one_port(&["--channel.namespaces", namespaces]);
    let mut json = Client::connected(&server);
    let refused =
        |id: u8| format!(r#"{{"id":{id},"error":{{"code":107,"message":"{BINARY_CHANNEL}"}}}}"#);
    assert_eq!(json.ask(r#"{"id":2,"subscribe":{"channel":"bin:c"}}"#), refused(2));
    let mut subscriber = protobuf_client(&server);
    let answer = ask(&mut subscriber, &command(2, 5, &field(1, b"bin:c")));
    assert!(!answer.contains("bad request"), "{answer}");
    let answer = server.api("publish", r#"{"channel":"bin:c","b64data":"/wA="}"#);
    assert!(answer.contains(r#""offset":1"#), "{answer}");
    let (_, push) = subscriber.frame().expect("the publication");
    assert!(push.windows(2).any(|two| two == b"\xff\x00"), "{push:?}");
    assert_eq!(json.ask(r#"{"id":3,"history":{"channel":"bin:c","limit":5}}"#), refused(3));
    assert!(json.is_alive());
    let mut uni = Client::open(&server, crate::common::UNI_WEBSOCKET);
    uni.send(r#"{"subs":{"bin:c":{}}}"#);
    assert_eq!(uni.closed().0, 3506, "the connect cannot be answered with an error");
}

#[test]
fn publication_formats_apply_to_every_publisher() {
    let namespaces = r#"[{"name":"obj","publication_data_format":"json_object"},
        {"name":"bin","publication_data_format":"binary"}]"#;
    let flags = ["--channel.publication_data_format", "json", "--channel.namespaces", namespaces];
    let server = Server::on_one_port(&flags);
    let publish = |channel: &str, data: &str| {
        server.api("publish", &format!(r#"{{"channel":"{channel}",{data}}}"#))
    };
    let taken = |answer: String| answer == r#"{"result":{}}"#;
    assert!(taken(publish("c", r#""data":1"#)));
    assert!(!taken(publish("c", r#""b64data":"/w==""#)));
    assert!(taken(publish("obj:c", r#""data":{}"#)));
    assert!(!taken(publish("obj:c", r#""data":[]"#)));
    assert!(taken(publish("bin:c", r#""b64data":"/w==""#)));
    assert!(taken(publish("bin:c", r#""data":1"#)));
}
