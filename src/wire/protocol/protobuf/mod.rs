//! The protobuf encoding: prost parses commands, and replies are written directly into the output.
//! Each message is preceded by its length.
//!
//! Owns no state. Never parses a payload: client data passes through unchanged. Invariant: parsing
//! a frame always ends, with commands or with [`Malformed`]. Source of the format:
//! centrifugal/protocol, `client.proto`.

mod replies;
mod requests;
mod fields;

use prost::Message;

use self::fields::{Body, Fields};
use self::replies::{
    ConnectPush, PresenceChange, PublicationBody, PushBody, PushEnvelope, Reason, ReplyEnvelope,
    SubscribePush, TtlBody,
};
use super::command::{Command, EmulationRequest};
use super::json::PublicationFields;
use super::reply::{ClientInfo, Push, Reply};

// ---- reading ---------------------------------------------------------------------------------

/// The bytes are not a message of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl From<prost::DecodeError> for Malformed {
    fn from(_: prost::DecodeError) -> Self {
        Malformed
    }
}

/// An iterator over the commands of a frame.
pub struct Commands<'a> {
    frame: &'a [u8],
    consumed: usize,
    failed: bool,
}

impl<'a> Commands<'a> {
    /// Iterates over the commands of `frame`.
    pub fn new(frame: &'a [u8]) -> Self {
        Commands { frame, consumed: 0, failed: false }
    }

    /// The next command, `None` at the end. An error ends the frame.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<Result<Command<'a>, Malformed>> {
        if self.failed || self.consumed == self.frame.len() {
            return None;
        }
        let command = self.read();
        self.failed = command.is_err();
        Some(command)
    }

    fn read(&mut self) -> Result<Command<'a>, Malformed> {
        let mut rest = &self.frame[self.consumed..];
        let length = prost::decode_length_delimiter(&mut rest)?;
        let (message, rest) = rest.split_at_checked(length).ok_or(Malformed)?;
        let command = requests::Command::decode(message)?;
        self.consumed = self.frame.len() - rest.len();
        Ok(Command { id: command.id, request: command.request() })
    }

    /// Bytes of the frame that the commands returned so far occupy.
    pub fn consumed(&self) -> usize {
        self.consumed
    }
}

/// Parses the body of an emulation request, which has no length prefix.
pub fn read_emulation(body: &[u8]) -> Result<EmulationRequest, Malformed> {
    Ok(EmulationRequest::decode(body)?)
}

// ---- writing ---------------------------------------------------------------------------------

/// Appends a reply.
pub fn write_reply(id: u32, reply: &Reply<'_>, out: &mut Vec<u8>) {
    out.delimited(&ReplyEnvelope { id, reply });
}

fn write_push_field(channel: &str, field: u32, body: impl Body, out: &mut Vec<u8>) {
    out.delimited(&PushEnvelope(PushBody { channel, field, body }));
}

/// Appends a push inside a reply without an id.
pub fn write_push(push: &Push<'_>, out: &mut Vec<u8>) {
    match *push {
        Push::Connect(connected) => write_push_field("", 10, ConnectPush(connected), out),
        Push::Subscribe { channel, subscribed } => {
            write_push_field(channel, 9, SubscribePush(subscribed), out);
        }
        Push::Unsubscribe { channel, code, reason } => {
            write_push_field(channel, 7, Reason { field: 2, code, reason }, out);
        }
        Push::Disconnect { code, reason } => {
            write_push_field("", 11, Reason { field: 1, code: code.into(), reason }, out);
        }
        Push::Refresh(ttl) => write_push_field("", 12, TtlBody { field: 1, ttl }, out),
    }
}

/// Appends a publication object without a length prefix, as replies embed it. `delta`: the data is
/// a delta to the previous publication.
pub fn write_publication_object(
    data: &[u8],
    details: &PublicationFields<'_>,
    delta: bool,
    out: &mut Vec<u8>,
) {
    PublicationBody { data, details, delta }.write(out);
}

/// Appends the push of a publication inside a reply. `delta`: the data is a delta to the previous
/// publication.
pub fn write_publication(
    channel: &str,
    data: &[u8],
    details: &PublicationFields<'_>,
    delta: bool,
    out: &mut Vec<u8>,
) {
    write_push_field(channel, 4, PublicationBody { data, details, delta }, out);
}

/// Appends a member of a channel to a part of a presence list.
pub fn write_member(info: &ClientInfo, out: &mut Vec<u8>) {
    replies::write_member(info, out);
}

/// Appends a join push, or a leave push.
pub fn write_presence_change(channel: &str, joined: bool, info: &ClientInfo, out: &mut Vec<u8>) {
    write_push_field(channel, if joined { 5 } else { 6 }, PresenceChange(info), out);
}

/// A ping of the server and a pong of the client: an empty message with its length.
pub const PING: &[u8] = &[0];

#[cfg(test)]
mod decoded;

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;
    use prost::Message;

    use super::super::command::Request;
    use super::super::reply::{
        ConnectResult, HistoryResult, PresenceList, PresenceStats, SubscribeResult, Ttl,
    };
    use super::super::write::presence_list;
    use super::super::{Epoch, Error, Position, VERSION, Wire};
    use super::*;

    // ---- reading -----------------------------------------------------------------------------

    /// Reads a frame of one command.
    fn read(frame: &[u8]) -> Result<Command<'_>, Malformed> {
        let mut commands = Commands::new(frame);
        let command = commands.next().unwrap()?;
        assert_eq!(commands.consumed(), frame.len());
        assert!(commands.next().is_none());
        Ok(command)
    }

    /// Parses a command that prost has encoded.
    fn read_back(command: requests::Command) -> String {
        format!("{:?}", read(&command.encode_length_delimited_to_vec()).unwrap())
    }

    #[test]
    fn commands_of_a_frame_come_in_order() {
        // {id: 1, connect: {name: "go"}}, {id: 2, subscribe: {channel: "ab"}}, {}
        let frame = b"\x08\x08\x01\x22\x04\x22\x02go\x08\x08\x02\x2a\x04\x0a\x02ab\x00";
        let mut commands = Commands::new(frame);
        let first = commands.next().unwrap().unwrap();
        assert_eq!((first.id, commands.consumed()), (1, 9));
        assert!(matches!(first.request, Some(Request::Connect(connect)) if connect.name == "go"));
        let second = commands.next().unwrap().unwrap();
        assert_eq!((second.id, commands.consumed()), (2, 18));
        let Some(Request::Subscribe(subscribe)) = second.request else { panic!("{second:?}") };
        assert_eq!(subscribe.channel, "ab");
        assert_eq!(&frame[commands.consumed()..], PING);
        let pong = commands.next().unwrap().unwrap();
        assert!(pong.id == 0 && pong.request.is_none());
        assert!(commands.next().is_none());
        assert_eq!(commands.consumed(), frame.len());
        assert!(Commands::new(b"").next().is_none());
    }

    #[test]
    fn every_request_is_read_from_its_field_number() {
        let channel = |field: u8| vec![6, 0x08, 7, field, 3, 0x0a, 1, b'c'];
        let check = |mut frame: Vec<u8>, expected: &str| {
            frame[0] = (frame.len() - 1) as u8;
            let command = read(&frame).unwrap();
            assert_eq!(format!("{command:?}"), format!("Command {{ id: 7, request: {expected} }}"));
        };
        let named = |name: &str| format!("Some({name}(ChannelRequest {{ channel: \"c\" }}))");
        check(channel(0x32), &named("Unsubscribe"));
        check(channel(0x42), &named("Presence"));
        check(channel(0x4a), &named("PresenceStats"));
        check(
            b"\x00\x08\x07\x3a\x06\x0a\x01c\x12\x01\x31".to_vec(),
            "Some(Publish(PublishRequest { channel: \"c\", data: Some([49]), kind: 0 }))",
        );
        check(
            b"\x00\x08\x07\x52\x12\x0a\x01c\x38\x05\x42\x09\x08\xac\x02\x12\x04abcd\x48\x01"
                .to_vec(),
            "Some(History(HistoryRequest { channel: \"c\", limit: 5, since: Some(StreamPosition { \
             offset: 300, epoch: \"abcd\" }), reverse: true }))",
        );
        check(
            b"\x00\x08\x07\x52\x0e\x0a\x01c\x38\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01".to_vec(),
            "Some(History(HistoryRequest { channel: \"c\", limit: -1, since: None, reverse: false \
             }))",
        );
        check(b"\x00\x08\x07\x5a\x00".to_vec(), "Some(Ping)");
        check(b"\x00\x08\x07\x62\x03\x0a\x01\x31".to_vec(), "Some(Send)");
        check(
            b"\x00\x08\x07\x6a\x06\x0a\x01\x31\x12\x01m".to_vec(),
            "Some(Rpc(RpcRequest { method: \"m\", data: Some([49]) }))",
        );
        check(
            b"\x00\x08\x07\x72\x03\x0a\x01t".to_vec(),
            "Some(Refresh(RefreshRequest { token: \"t\" }))",
        );
        check(
            b"\x00\x08\x07\x7a\x06\x0a\x01c\x12\x01t".to_vec(),
            "Some(SubRefresh(SubRefreshRequest { channel: \"c\", token: \"t\" }))",
        );
        check(b"\x00\x08\x07\x82\x01\x00".to_vec(), "None");
    }

    #[test]
    fn all_fields_of_a_subscribe_request_are_read() {
        // Fields 4, 5 and 16 to 19 are not supported and skipped.
        let request = b"\x0a\x01c\x12\x01t\x18\x01\x20\x01\x28\x01\x32\x04abcd\x38\xac\x02\
            \x42\x01d\x48\x01\x50\x01\x58\x01\x62\x06fossil\
            \x6a\x22\x0a\x03and\x32\x0b\x12\x01k\x1a\x02eq\x22\x02v1\
            \x32\x0e\x12\x01k\x1a\x03nin\x2a\x01a\x2a\x01b\
            \x70\x03\x78\x01\x80\x01\x02\x8a\x01\x01x\x90\x01\x05\x98\x01\x01";
        let mut frame = vec![4 + request.len() as u8, 0x08, 1, 0x2a, request.len() as u8];
        frame.extend_from_slice(request);
        let Some(Request::Subscribe(read)) = read(&frame).unwrap().request else { panic!() };
        let leaf = |cmp: &str, val: &str, vals: &[&str]| crate::wire::filter::FilterNode {
            op: String::new(),
            key: "k".into(),
            cmp: cmp.into(),
            val: val.into(),
            vals: vals.iter().map(|val| val.to_string()).collect(),
            nodes: Vec::new(),
        };
        let filter = crate::wire::filter::FilterNode {
            op: "and".into(),
            key: String::new(),
            cmp: String::new(),
            val: String::new(),
            vals: Vec::new(),
            nodes: vec![leaf("eq", "v1", &[]), leaf("nin", "", &["a", "b"])],
        };
        let expected = super::super::command::SubscribeRequest {
            channel: "c".into(),
            token: "t".into(),
            recover: true,
            epoch: "abcd".into(),
            offset: 300,
            data: Some(Cow::Borrowed(b"d")),
            positioned: true,
            recoverable: true,
            join_leave: true,
            delta: "fossil".into(),
            filter: Some(Box::new(filter)),
            flag: 3,
            kind: 1,
        };
        assert_eq!(format!("{read:?}"), format!("{expected:?}"));
    }

    #[test]
    fn a_connect_keeps_its_channels_in_order() {
        // Channels "b" with a position, "a" without a value, "" with one without a key.
        let request = b"\x0a\x01t\x12\x02{}\x1a\x11\x0a\x01b\x12\x0c\x18\x01\x32\x04abcd\x38\x07\
            \x50\x01\x1a\x03\x0a\x01a\x1a\x02\x12\x00\x22\x02go\x2a\x031.0\
            \x32\x06\x0a\x01h\x12\x01v\x38\x01\x42\x01d\x4a\x01p";
        let mut frame = vec![4 + request.len() as u8, 0x08, 1, 0x22, request.len() as u8];
        frame.extend_from_slice(request);
        let Some(Request::Connect(connect)) = read(&frame).unwrap().request else { panic!() };
        assert_eq!((&*connect.token, &*connect.name, &*connect.version), ("t", "go", "1.0"));
        assert_eq!(connect.data.as_deref(), Some(&b"{}"[..]));
        let subs = connect.subs.unwrap().0;
        let names: Vec<&str> = subs.iter().map(|(channel, _)| channel.as_ref()).collect();
        assert_eq!(names, ["b", "a", ""]);
        let position = Position { offset: 7, epoch: Epoch::parse("abcd") };
        assert_eq!(subs[0].1.since(), Some(position));
        assert!(subs[0].1.recoverable && subs[1].1.since().is_none());
    }

    #[test]
    fn missing_fields_are_read_as_absent() {
        let empty = requests::Command {
            id: 1,
            connect: Some(Box::default()),
            ..requests::Command::default()
        };
        assert_eq!(
            read_back(empty),
            "Command { id: 1, request: Some(Connect(ConnectRequest { token: \"\", data: None, \
             subs: None, name: \"\", version: \"\", headers: None })) }"
        );
        let publish = requests::PublishRequest { channel: "c".into(), ..Default::default() };
        let publish = requests::Command { publish: Some(publish), ..Default::default() };
        assert!(read_back(publish).contains("data: None"));
    }

    #[test]
    fn the_first_request_in_protocol_order_is_used() {
        let mut command = requests::Command {
            id: 1,
            connect: Some(Box::default()),
            subscribe: Some(Box::default()),
            unsubscribe: Some(Default::default()),
            publish: Some(Default::default()),
            presence: Some(Default::default()),
            presence_stats: Some(Default::default()),
            history: Some(Default::default()),
            ping: Some(Default::default()),
            send: Some(Default::default()),
            rpc: Some(Default::default()),
            refresh: Some(Default::default()),
            sub_refresh: Some(Default::default()),
        };
        let mut check = |name: &str, remove: fn(&mut requests::Command)| {
            let read = read_back(command.clone());
            assert!(read.contains(&format!("Some({name}")), "{read}");
            remove(&mut command);
        };
        check("Connect(", |command| command.connect = None);
        check("Ping", |command| command.ping = None);
        check("Subscribe(", |command| command.subscribe = None);
        check("Unsubscribe(", |command| command.unsubscribe = None);
        check("Publish(", |command| command.publish = None);
        check("Presence(", |command| command.presence = None);
        check("PresenceStats(", |command| command.presence_stats = None);
        check("History(", |command| command.history = None);
        check("Rpc(", |command| command.rpc = None);
        check("Send", |command| command.send = None);
        check("Refresh(", |command| command.refresh = None);
        check("SubRefresh(", |command| command.sub_refresh = None);
        assert_eq!(read_back(command), "Command { id: 1, request: None }");
    }

    #[test]
    fn malformed_commands_end_the_frame() {
        let check = |frame: &[u8]| {
            let mut commands = Commands::new(frame);
            assert_eq!(commands.next().unwrap().err(), Some(Malformed), "{frame:?}");
            assert_eq!(commands.consumed(), 0);
            assert!(commands.next().is_none());
        };
        check(b"\x01"); // Fewer bytes than the length.
        check(b"\x05\x08\x01"); // As above.
        check(b"\x80"); // A length that does not end.
        check(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"); // The largest length.
        check(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"); // A number over 64 bits.
        check(b"\x01\x08"); // A field without its value.
        check(b"\x02\x0a\x00"); // An id that is bytes.
        check(b"\x02\x00\x00"); // Field 0.
        check(b"\x02\x0f\x00"); // No such wire type.
        check(b"\x04\x2a\x7f\x0a\x00"); // A request longer than the command.
        check(b"\x05\x2a\x03\x0a\x01\xff"); // A channel that is not UTF-8.
        check(b"{\"id\":1}"); // JSON.
        let mut commands = Commands::new(b"\x02\x08\x01\x09\x08");
        assert_eq!(commands.next().unwrap().unwrap().id, 1);
        assert_eq!(commands.next().unwrap().err(), Some(Malformed));
        assert_eq!((commands.consumed(), commands.next().is_none()), (3, true));
    }

    #[test]
    fn filters_nested_too_deep_are_malformed() {
        let frame = |depth: usize| {
            let nest = |node, _| requests::FilterNode { nodes: vec![node], ..Default::default() };
            let filter = (1..depth).fold(requests::FilterNode::default(), nest);
            let subscribe =
                requests::SubscribeRequest { tf: Some(Box::new(filter)), ..Default::default() };
            let command =
                requests::Command { subscribe: Some(Box::new(subscribe)), ..Default::default() };
            command.encode_length_delimited_to_vec()
        };
        assert!(read(&frame(90)).is_ok());
        assert!(read(&frame(110)).is_err());
        // Groups nest by a byte each.
        let mut groups = vec![0xe0, 0x7f];
        groups.resize(2 + 0x3fe0, 0x13);
        assert!(Commands::new(&groups).next().unwrap().is_err());
    }

    #[test]
    fn an_emulation_request_is_read() {
        let expected =
            EmulationRequest { node: "n".into(), session: "s".into(), data: b"\x00".to_vec() };
        assert_eq!(read_emulation(b"\x0a\x01n\x12\x01s\x1a\x01\x00"), Ok(expected));
        assert_eq!(read_emulation(b""), Ok(EmulationRequest::default()));
        assert_eq!(read_emulation(b"\x0a\x02n"), Err(Malformed));
    }

    // ---- writing -----------------------------------------------------------------------------

    fn bytes(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = b"before".to_vec();
        write(&mut out);
        out.split_off(6)
    }

    /// The reply that a client decodes from the written bytes, which must be one reply.
    fn received(write: impl FnOnce(&mut Vec<u8>)) -> decoded::Reply {
        let bytes = bytes(write);
        let mut rest = &bytes[..];
        let reply = decoded::Reply::decode_length_delimited(&mut rest).unwrap();
        assert!(rest.is_empty());
        reply
    }

    fn received_push(write: impl FnOnce(&mut Vec<u8>)) -> decoded::Push {
        let decoded::Reply { push: Some(push), .. } = received(write) else { panic!("no push") };
        push
    }

    fn info() -> ClientInfo {
        ClientInfo {
            user: "u".into(),
            client: "id".into(),
            connection: Some(Box::from(&b"{\"a\":1}"[..])),
            channel: Some(Box::from(&b"2"[..])),
        }
    }

    fn info_received() -> decoded::ClientInfo {
        decoded::ClientInfo {
            user: "u".into(),
            client: "id".into(),
            conn_info: b"{\"a\":1}".to_vec(),
            chan_info: b"2".to_vec(),
        }
    }

    fn position() -> Position {
        Position { offset: 300, epoch: Epoch::parse("abcdefgh") }
    }

    fn subscribed() -> SubscribeResult<'static> {
        let object = |data: &[u8], offset| {
            let details =
                PublicationFields { offset: Some(offset), ..PublicationFields::default() };
            Cow::Owned(bytes(|out| write_publication_object(data, &details, offset == 302, out)))
        };
        SubscribeResult {
            expires: Some(Ttl(60)),
            recoverable: true,
            positioned: true,
            was_recovering: true,
            recovered: true,
            position: Some(position()),
            publications: vec![object(b"1", 301), object(b"", 302), Cow::Borrowed(b"")],
            data: Some(b"{}"),
            delta: true,
            ..SubscribeResult::default()
        }
    }

    fn subscribed_received() -> decoded::SubscribeResult {
        let publication = |data: &[u8], offset, delta| decoded::Publication {
            data: data.to_vec(),
            offset,
            delta,
            ..Default::default()
        };
        decoded::SubscribeResult {
            expires: true,
            ttl: 60,
            recoverable: true,
            epoch: "abcdefgh".into(),
            publications: vec![
                publication(b"1", 301, false),
                publication(b"", 302, true),
                publication(b"", 0, false),
            ],
            recovered: true,
            offset: 300,
            positioned: true,
            data: b"{}".to_vec(),
            was_recovering: true,
            delta: true,
        }
    }

    fn connected() -> ConnectResult<'static> {
        ConnectResult {
            client: "id",
            expires: Some(Ttl(60)),
            data: Some(b"{}"),
            subs: vec![("", SubscribeResult::default()), ("c", subscribed())],
            ping: 25,
            pong: true,
            session: "s",
            node: "n",
            time: Some(1_700_000_000_000),
            unknown_event_id: "",
        }
    }

    #[test]
    fn replies_have_the_documented_bytes() {
        let check = |reply: Reply<'_>, expected: &[u8]| {
            assert_eq!(bytes(|out| write_reply(300, &reply, out)), expected);
        };
        check(Reply::Unsubscribe, b"\x05\x08\xac\x02\x3a\x00");
        check(Reply::Publish, b"\x05\x08\xac\x02\x42\x00");
        check(Reply::Subscribe(&SubscribeResult::default()), b"\x05\x08\xac\x02\x32\x00");
        check(Reply::Presence(&PresenceList::default()), b"\x05\x08\xac\x02\x4a\x00");
        check(Reply::History(&HistoryResult::default()), b"\x05\x08\xac\x02\x5a\x00");
        check(Reply::Refresh(None), b"\x05\x08\xac\x02\x72\x00");
        check(Reply::Refresh(Some(Ttl(9))), b"\x09\x08\xac\x02\x72\x04\x18\x01\x20\x09");
        check(Reply::SubRefresh(Some(Ttl(9))), b"\x09\x08\xac\x02\x7a\x04\x08\x01\x10\x09");
        check(
            Reply::PresenceStats(PresenceStats { clients: 3, users: 2 }),
            b"\x09\x08\xac\x02\x52\x04\x08\x03\x10\x02",
        );
        check(
            Reply::Error(Error { code: 111, message: "wait", temporary: true }),
            b"\x0f\x08\xac\x02\x12\x0a\x08\x6f\x12\x04wait\x18\x01",
        );
        let (code, message) = (111, "wait");
        check(
            Reply::Refused { code, message, temporary: true },
            b"\x0f\x08\xac\x02\x12\x0a\x08\x6f\x12\x04wait\x18\x01",
        );
        check(Reply::Rpc(Some(b"1")), b"\x08\x08\xac\x02\x6a\x03\x0a\x011");
        check(Reply::Rpc(None), b"\x05\x08\xac\x02\x6a\x00");
        // The smallest connect reply has a client id and the server version.
        let mut expected = vec![0, 0x08, 0xac, 0x02, 0x2a, 0, 0x0a, 2, b'i', b'd', 0x12];
        expected.push(VERSION.len() as u8);
        expected.extend_from_slice(VERSION.as_bytes());
        expected[0] = (expected.len() - 1) as u8;
        expected[5] = (expected.len() - 6) as u8;
        check(
            Reply::Connect(&ConnectResult { client: "id", ..ConnectResult::default() }),
            &expected,
        );
    }

    #[test]
    fn prost_decodes_every_reply() {
        let check = |reply: Reply<'_>, expected: decoded::Reply| {
            let expected = decoded::Reply { id: 7, ..expected };
            assert_eq!(received(|out| write_reply(7, &reply, out)), expected);
        };
        let none = decoded::Reply::default;
        let connect = decoded::ConnectResult {
            client: "id".into(),
            version: VERSION.into(),
            expires: true,
            ttl: 60,
            data: b"{}".to_vec(),
            subs: [(String::new(), Default::default()), ("c".into(), subscribed_received())].into(),
            ping: 25,
            pong: true,
            session: "s".into(),
            node: "n".into(),
            time: 1_700_000_000_000,
        };
        check(Reply::Connect(&connected()), decoded::Reply { connect: Some(connect), ..none() });
        let subscribe = Some(subscribed_received());
        check(Reply::Subscribe(&subscribed()), decoded::Reply { subscribe, ..none() });
        let presence =
            [(String::new(), decoded::ClientInfo::default()), ("id".into(), info_received())];
        let presence = Some(decoded::PresenceResult { presence: presence.into() });
        let members = [ClientInfo::default(), info()];
        check(
            Reply::Presence(&presence_list(Wire::Protobuf, &members)),
            decoded::Reply { presence, ..none() },
        );
        let history = Some(decoded::HistoryResult {
            publications: subscribed_received().publications,
            epoch: "abcdefgh".into(),
            offset: 300,
        });
        let publications = subscribed().publications;
        let written = HistoryResult { publications, position: position() };
        check(Reply::History(&written), decoded::Reply { history, ..none() });
        let time = |time| {
            let connected = ConnectResult { time: Some(time), ..ConnectResult::default() };
            received(|out| write_reply(7, &Reply::Connect(&connected), out)).connect.unwrap().time
        };
        assert_eq!([time(-1), time(i64::MIN), time(0)], [-1, i64::MIN, 0]);
    }

    #[test]
    fn prost_decodes_every_push() {
        let check = |push: Push<'_>, expected: decoded::Push| {
            assert_eq!(received_push(|out| write_push(&push, out)), expected);
        };
        let none = decoded::Push::default;
        let connect = decoded::Connect {
            client: "id".into(),
            version: VERSION.into(),
            data: b"{}".to_vec(),
            subs: [(String::new(), Default::default()), ("c".into(), subscribed_received())].into(),
            expires: true,
            ttl: 60,
            ping: 25,
            pong: true,
            session: "s".into(),
            node: "n".into(),
            time: 1_700_000_000_000,
        };
        check(Push::Connect(&connected()), decoded::Push { connect: Some(connect), ..none() });
        let subscribe = Some(decoded::Subscribe {
            recoverable: true,
            epoch: "abcdefgh".into(),
            offset: 300,
            positioned: true,
            data: b"{}".to_vec(),
        });
        check(
            Push::Subscribe { channel: "c", subscribed: &subscribed() },
            decoded::Push { channel: "c".into(), subscribe, ..none() },
        );
        let unsubscribe = Some(decoded::Unsubscribe { code: 2500, reason: "gap".into() });
        check(
            Push::Unsubscribe { channel: "c", code: 2500, reason: "gap" },
            decoded::Push { channel: "c".into(), unsubscribe, ..none() },
        );
        let disconnect = Some(decoded::Disconnect { code: 3001, reason: "shutdown".into() });
        check(
            Push::Disconnect { code: 3001, reason: "shutdown" },
            decoded::Push { disconnect, ..none() },
        );
        let refresh = Some(decoded::Refresh { expires: true, ttl: 9 });
        check(Push::Refresh(Some(Ttl(9))), decoded::Push { refresh, ..none() });
    }

    #[test]
    fn pushes_have_the_documented_bytes() {
        let details = PublicationFields { offset: Some(5), ..PublicationFields::default() };
        assert_eq!(
            bytes(|out| write_publication("c", b"{}", &details, false, out)),
            b"\x0d\x22\x0b\x12\x01c\x22\x06\x22\x02{}\x30\x05"
        );
        assert_eq!(
            bytes(|out| write_publication_object(b"{}", &details, true, out)),
            b"\x22\x02{}\x30\x05\x40\x01"
        );
        let first = PublicationFields {
            offset: Some(1),
            epoch: Epoch::parse("abcdefgh"),
            version: 9,
            ..PublicationFields::default()
        };
        assert_eq!(
            bytes(|out| write_publication_object(b"{}", &first, false, out)),
            b"\x22\x02{}\x30\x01\x72\x08abcdefgh\x80\x01\x09"
        );
        let tags = [("k".into(), "v".into()), ("".into(), "".into())];
        let info = ClientInfo { user: "u".into(), client: "i".into(), ..ClientInfo::default() };
        let details =
            PublicationFields { info: Some(&info), tags: &tags, ..PublicationFields::default() };
        assert_eq!(
            bytes(|out| write_publication_object(b"1", &details, false, out)),
            b"\x22\x011\x2a\x06\x0a\x01u\x12\x01i\x3a\x06\x0a\x01k\x12\x01v\x3a\x04\x0a\x00\x12\x00"
        );
        assert_eq!(
            bytes(|out| write_presence_change("c", true, &info, out)),
            b"\x0f\x22\x0d\x12\x01c\x2a\x08\x0a\x06\x0a\x01u\x12\x01i"
        );
        assert_eq!(
            bytes(|out| write_presence_change("c", false, &info, out)),
            b"\x0f\x22\x0d\x12\x01c\x32\x08\x0a\x06\x0a\x01u\x12\x01i"
        );
        assert_eq!(decoded::Reply::default().encode_length_delimited_to_vec(), PING);
    }

    #[test]
    fn a_join_push_has_all_client_info() {
        let joined = received_push(|out| write_presence_change("c", true, &info(), out));
        let change = Some(decoded::PresenceChange { info: Some(info_received()) });
        let expected = decoded::Push { channel: "c".into(), join: change, ..Default::default() };
        assert_eq!(joined, expected);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut commands = Commands::new(&bytes);
            let mut consumed = 0;
            while let Some(Ok(_)) = commands.next() {
                prop_assert!(commands.consumed() > consumed);
                consumed = commands.consumed();
            }
            prop_assert!(commands.next().is_none() && commands.consumed() == consumed);
            let _ = read_emulation(&bytes);
        }

        #[test]
        fn arbitrary_request_bytes_never_panic(
            request in 4_u8..16,
            bytes in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            let mut frame = vec![bytes.len() as u8 + 4, 0x08, 1, request << 3 | 2, bytes.len() as u8];
            frame.extend_from_slice(&bytes);
            let mut commands = Commands::new(&frame);
            let is_valid = commands.next().unwrap().is_ok();
            prop_assert_eq!(commands.consumed(), if is_valid { frame.len() } else { 0 });
        }

        #[test]
        fn prost_decodes_every_publication(
            channel in ".{0,200}",
            data in proptest::collection::vec(any::<u8>(), 0..400),
            user in proptest::option::of(".{0,20}"),
            offset in proptest::option::of(1_u64..),
            tags in proptest::collection::hash_map(".{0,8}", ".{0,130}", 0..4),
            delta: bool,
        ) {
            let info = user.map(|user| ClientInfo { user: user.into(), ..info() });
            let written: Vec<(Box<str>, Box<str>)> = tags
                .iter()
                .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
                .collect();
            let details = PublicationFields {
                info: info.as_ref(),
                offset,
                tags: &written,
                ..PublicationFields::default()
            };
            let expected = decoded::Publication {
                data: data.clone(),
                info: info.as_ref().map(|info| decoded::ClientInfo {
                    user: info.user.to_string(),
                    ..info_received()
                }),
                offset: offset.unwrap_or(0),
                tags,
                delta,
            };
            let object = bytes(|out| write_publication_object(&data, &details, delta, out));
            prop_assert_eq!(&decoded::Publication::decode(&object[..]).unwrap(), &expected);
            let push = received_push(|out| write_publication(&channel, &data, &details, delta, out));
            let expected =
                decoded::Push { channel, publication: Some(expected), ..Default::default() };
            prop_assert_eq!(push, expected);
        }
    }
}
