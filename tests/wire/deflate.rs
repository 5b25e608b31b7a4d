//! permessage-deflate: negotiation, what is compressed, and invalid compressed input.

use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush};

use crate::common::{
    Client, Server, UNI_WEBSOCKET, WEBSOCKET, client_frame, upgrade_request, without_publisher,
};

const ON: [&str; 4] = ["--websocket.compression", "--uni_websocket.compression", "--shards", "1"];
const ANSWER: &str = "\r\nSec-WebSocket-Extensions: permessage-deflate; \
                      server_no_context_takeover; client_no_context_takeover\r\n";
/// First bytes of frames: compressed text, its first fragment, a last fragment.
const COMPRESSED: u8 = 0xc1;
const FIRST: u8 = 0x41;
const LAST: u8 = 0x80;

/// Upgrades on a path with this extension offer. Returns the client and the head of the answer.
fn open(server: &Server, path: &str, offer: &str) -> (Client, String) {
    let mut client = Client::dial(server);
    let offer = format!("\r\nSec-WebSocket-Extensions: {offer}\r\n\r\n");
    client.send_raw(upgrade_request(path).replace("\r\n\r\n", &offer).as_bytes());
    let head = client.read_head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    (client, head)
}

/// A client with compression, connected and subscribed to `news`.
fn subscribed(server: &Server) -> Client {
    let (mut client, head) = open(server, WEBSOCKET, "permessage-deflate; client_max_window_bits");
    assert!(head.contains(ANSWER), "{head}");
    client.send(concat!(
        r#"{"id":1,"connect":{}}"#,
        "\n",
        r#"{"id":2,"subscribe":{"channel":"news"}}"#
    ));
    assert!(client.text().starts_with(r#"{"id":1,"connect":"#));
    assert_eq!(client.text(), r#"{"id":2,"subscribe":{}}"#);
    client
}

/// Compresses a message as a client does.
fn deflate(message: &[u8]) -> Vec<u8> {
    let mut out = vec![0; message.len() + 100];
    let mut state = Deflate::new(6, false, 15);
    state.compress(message, &mut out, DeflateFlush::SyncFlush).unwrap();
    out.truncate(state.total_out() as usize - 4);
    out
}

/// Decompresses a message as a client does.
fn inflate(payload: &[u8]) -> String {
    let mut out = vec![0; 100_000];
    let mut state = Inflate::new(false, 15);
    let whole = [payload, &[0, 0, 0xff, 0xff]].concat();
    state.decompress(&whole, &mut out, InflateFlush::SyncFlush).unwrap();
    assert_eq!(state.total_in() as usize, whole.len());
    out.truncate(state.total_out() as usize);
    String::from_utf8(out).unwrap()
}

fn publish(data: &str) -> String {
    format!(r#"{{"publish":{{"channel":"news","data":"{data}"}},"id":3}}"#)
}

fn push(data: &str) -> String {
    format!(r#"{{"push":{{"channel":"news","pub":{{"data":"{data}"}}}}}}"#)
}

#[test]
fn compression_needs_the_setting_and_the_clients_offer() {
    let off = Server::start(&[]);
    let on = Server::start(&ON);
    for path in [WEBSOCKET, UNI_WEBSOCKET] {
        let (_, head) = open(&off, path, "permessage-deflate");
        assert!(!head.contains("Extensions"), "{head}");
        let (_, head) = open(&on, path, "x-other, permessage-deflate");
        assert!(head.contains(ANSWER), "{head}");
        let (_, head) = open(&on, path, "permessage-deflate; server_max_window_bits=9");
        assert!(!head.contains("Extensions"), "{head}");
        let offers = "x-other\r\nSec-WebSocket-Extensions: permessage-deflate";
        assert!(open(&on, path, offers).1.contains(ANSWER));
    }
}

#[test]
fn a_publication_is_compressed_for_clients_that_negotiated_it() {
    let server = Server::start(&[&ON[..], &["--websocket.compression_min_size", "200"]].concat());
    let (mut one, mut two) = (subscribed(&server), subscribed(&server));
    let mut plain = Client::subscribed(&server, "news");
    let (mut uni, _) = open(&server, UNI_WEBSOCKET, "permessage-deflate");
    uni.send(r#"{"subs":{"news":{}}}"#);
    assert!(uni.text().starts_with(r#"{"connect":"#));
    let long = "a quote ".repeat(50);
    plain.send(&publish(&long));
    let (first, same) = (one.frame().unwrap(), two.frame().unwrap());
    assert_eq!((first.0, first.1.len() < 200), (COMPRESSED, true));
    assert_eq!(first, same, "made once");
    assert_eq!(without_publisher(&inflate(&first.1)), push(&long));
    assert_eq!(plain.text(), r#"{"id":3,"publish":{}}"#);
    assert_eq!(plain.push(), push(&long));
    let (kind, payload) = uni.frame().unwrap();
    assert_eq!(kind, COMPRESSED);
    assert_eq!(format!(r#"{{"push":{}}}"#, without_publisher(&inflate(&payload))), push(&long));
    one.send(r#"{"id":4,"unsubscribe":{"channel":"news"}}"#);
    assert_eq!(one.text(), r#"{"id":4,"unsubscribe":{}}"#);
    plain.send(&publish("short"));
    assert_eq!(two.push(), push("short"));
}

#[test]
fn compressed_publications_join_into_one_message() {
    let joins =
        ["--uni_websocket.join_push_messages", "--uni_websocket.compression_min_size", "99"];
    let server = Server::start(&[&ON[..], &joins].concat());
    let mut uni = open(&server, UNI_WEBSOCKET, "permessage-deflate").0;
    uni.send(r#"{"subs":{"news":{}}}"#);
    assert!(uni.text().starts_with(r#"{"connect":"#));
    let mut publisher = Client::subscribed(&server, "news");
    let data = ["short", &"a quote ".repeat(50), "short again", "and again", &"x".repeat(2_000)];
    publisher.send(&data.map(publish).join("\n"));
    let (first, payload) = uni.frame().unwrap();
    let sizes = data.map(str::len).iter().sum::<usize>();
    assert_eq!((first, payload.len() < sizes / 2), (COMPRESSED, true));
    let text = inflate(&payload);
    let pushes = text.lines().map(|line| without_publisher(&format!(r#"{{"push":{line}}}"#)));
    assert_eq!(pushes.collect::<Vec<_>>(), data.map(push));
}

#[test]
fn subscribers_with_different_filters_get_the_same_frame() {
    let flags = ["--channel.without_namespace.allow_tags_filter"];
    let server = Server::start(&[&ON[..], &flags].concat());
    let mut all: Vec<Client> = ["a", "b"]
        .iter()
        .map(|tag| {
            let (mut client, _) = open(&server, WEBSOCKET, "permessage-deflate");
            let filter = format!(r#"{{"key":"k","cmp":"neq","val":"{tag}"}}"#);
            client.send(&format!(
                "{{\"id\":1,\"connect\":{{}}}}\n\
                 {{\"id\":2,\"subscribe\":{{\"channel\":\"news\",\"tf\":{filter}}}}}"
            ));
            client.text();
            assert_eq!(client.text(), r#"{"id":2,"subscribe":{}}"#);
            client
        })
        .collect();
    let mut publisher = Client::connected(&server);
    for data in ["one ".repeat(30), "two ".repeat(40)] {
        publisher.send(&publish(&data));
        for client in &mut all {
            let (kind, payload) = client.frame().unwrap();
            assert_eq!(kind, COMPRESSED);
            assert_eq!(without_publisher(&inflate(&payload)), push(&data));
        }
    }
}

#[test]
fn compressed_client_frames_are_read() {
    let server = Server::start(&ON);
    let mut client = subscribed(&server);
    let command = publish(&"x".repeat(60_000));
    client.send_raw(&client_frame(COMPRESSED, &deflate(command.as_bytes())));
    assert_eq!(client.text(), r#"{"id":3,"publish":{}}"#, "what is one's own is as it is");
    let (kind, payload) = client.frame().unwrap();
    assert_eq!(kind, COMPRESSED);
    assert_eq!(without_publisher(&inflate(&payload)), push(&"x".repeat(60_000)));
    let packed = deflate(publish("in parts").as_bytes());
    client.send_raw(&client_frame(FIRST, &packed[..9]));
    client.send_raw(&client_frame(0x89, b"between"));
    client.send_raw(&client_frame(0, &packed[9..12]));
    client.send_raw(&client_frame(LAST, &packed[12..]));
    assert_eq!(client.frame().unwrap(), (0x8a, b"between".to_vec()));
    assert_eq!(client.text(), r#"{"id":3,"publish":{}}"#);
    let (kind, payload) = client.frame().unwrap();
    assert_eq!((kind, without_publisher(&inflate(&payload))), (COMPRESSED, push("in parts")));
}

#[test]
fn large_compressed_input_is_read_over_several_turns() {
    let server = Server::start(&ON);
    let mut client = subscribed(&server);
    let mut frames = Vec::new();
    for id in 10..400 {
        let blank = " ".repeat(10_000);
        let command =
            format!(r#"{{"id":{id},{blank}"publish":{{"channel":"other","data":{id}}}}}"#);
        frames.extend(client_frame(COMPRESSED, &deflate(command.as_bytes())));
    }
    client.send_raw(&frames);
    for id in 10..400 {
        assert_eq!(client.text(), format!(r#"{{"id":{id},"publish":{{}}}}"#));
    }
}

#[test]
fn invalid_compressed_input_closes_with_its_code() {
    let server = Server::start(&ON);
    let bomb = deflate(&vec![b' '; 1 << 20]);
    assert!(bomb.len() < 2000);
    let blocks = [0, 0, 0, 0xff, 0xff].repeat(1000);
    let deep = deflate(format!(r#"{{"id":3,"rpc":{}"#, "[".repeat(60_000)).as_bytes());
    let (large, malformed) =
        ((1009, "message size limit exceeded"), "malformed compressed message");
    for (frames, (code, reason)) in [
        (client_frame(COMPRESSED, &bomb), large),
        (client_frame(COMPRESSED, &blocks), large),
        (client_frame(COMPRESSED, &vec![0; 70_000]), large),
        (client_frame(COMPRESSED, b"\xff\xff"), (1002, malformed)),
        (client_frame(COMPRESSED, b""), (1002, malformed)),
        (client_frame(COMPRESSED, &deflate(b"\xff")), (1007, "invalid utf-8")),
        (client_frame(COMPRESSED, &deflate(b"nonsense")), (3501, "bad request")),
        (client_frame(COMPRESSED, &deep), (3501, "bad request")),
        (client_frame(0xc9, b"ping"), (1002, "reserved bit set")),
        (client_frame(0xca, b"pong"), (1002, "reserved bit set")),
        (client_frame(0xc8, b"\x03\xe8"), (1002, "reserved bit set")),
        (client_frame(0xa1, b"{}"), (1002, "reserved bit set")),
        (
            [client_frame(FIRST, b"a"), client_frame(0xc0, b"b")].concat(),
            (1002, "reserved bit set"),
        ),
    ] {
        let mut client = subscribed(&server);
        client.send_raw(&frames);
        assert_eq!(client.closed(), (code, reason.to_owned()), "{frames:?}");
    }
    let mut client = Client::connected(&server);
    client.send_raw(&client_frame(COMPRESSED, &deflate(b"{}")));
    assert_eq!(client.closed(), (1002, "reserved bit set".to_owned()), "not agreed upon");
}

#[test]
fn input_of_a_closing_client_is_ignored() {
    let server = Server::start(&ON);
    let mut client = subscribed(&server);
    client.send(r#"{"id":3}"#);
    client.send_raw(&client_frame(COMPRESSED, &deflate(publish("late").as_bytes())));
    assert_eq!(client.closed(), (3501, "bad request".to_owned()));
}
