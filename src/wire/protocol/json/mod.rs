//! The JSON encoding: parses commands without copying and writes replies directly into the output.
//!
//! Owns no state. Never parses a payload: client data passes through as JSON text. Newlines are
//! removed, because a newline ends a reply.

mod bodies;
mod publication;
mod read;
mod text;
mod write;

pub use self::publication::{
    Data, PING, PUSH_CLOSE, PUSH_OPEN, PublicationFields, PublicationRanges, renamed, write_object,
    write_presence_change, write_publication,
};
pub use self::read::{Commands, PlainPublish, is_json, is_too_deep, read_emulation};
pub use self::text::write_number;
pub use self::write::{
    write_history, write_member, write_presence, write_published, write_push, write_reply,
    write_stats,
};

#[cfg(test)]
mod tests {

    use super::super::command::Request;
    use super::super::reply::{
        ClientInfo, ConnectResult, HistoryResult, PresenceList, PresenceStats, Push, Reply,
        SubscribeResult, Ttl,
    };
    use super::super::write::presence_list;
    use super::super::{Epoch, Error, Position, VERSION, Wire};
    use super::read::DEPTH_MAX;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nesting_depth_ignores_brackets_inside_strings() {
        let nested = |levels: usize, within: &str| {
            format!("{}{within}{}", "[{\"a\":".repeat(levels), "}]".repeat(levels))
        };
        let check = |text: &str, expected| {
            assert!(is_json(text.as_bytes()), "{text}");
            assert_eq!(is_too_deep(text.as_bytes()), expected, "{text}");
        };
        check(&nested(DEPTH_MAX / 2, "1"), false);
        check(&nested(DEPTH_MAX / 2, "[]"), true);
        check(&nested(20_000, "1"), true);
        check(&format!("[{}1]", "[[]],".repeat(2000)), false);
        check(&format!("\"{}\"", "[".repeat(5000)), false);
        check(&format!("\"\\\"{}\\\\\"", "[".repeat(5000)), false);
        check(&nested(DEPTH_MAX / 2, &format!("\"\\\\{}\"", "[".repeat(99))), false);
    }

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn first(text: &str) -> Request<'_> {
        Commands::new(text.as_bytes()).next().unwrap().unwrap().request.unwrap()
    }

    #[test]
    fn a_number_replaces_any_channel_name() {
        for name in ["c", "", "quo\"te", "back\\", "\\\"", "\u{1}\n\u{e9}", "\",\"pub\":{}"] {
            let named = text(|out| {
                write_publication(name, Data::Plain(b"\"c\""), &PublicationFields::default(), out);
            });
            let renamed = String::from_utf8(renamed(named.as_bytes(), 305)).unwrap();
            assert_eq!(renamed, r#"{"id":305,"pub":{"data":"c"}}"#, "{name:?}");
        }
    }

    #[test]
    fn commands_of_a_frame_come_in_order() {
        let frame = b"{\"id\":1,\"connect\":{\"name\":\"js\"},\"new\":[]}\n{\"id\":2,\"subscribe\":{\"channel\":\"a\\u0062\"}}\n{}\n";
        let mut commands = Commands::new(frame);
        let first = commands.next().unwrap().unwrap();
        assert_eq!(first.id, 1);
        assert!(matches!(first.request, Some(Request::Connect(connect)) if connect.name == "js"));
        let second = commands.next().unwrap().unwrap();
        assert!(matches!(second.request, Some(Request::Subscribe(join)) if join.channel == "ab"));
        let consumed = commands.consumed();
        assert_eq!(&frame[consumed..], b"\n{}\n");
        let third = commands.next().unwrap().unwrap();
        assert!(third.id == 0 && third.request.is_none());
        assert!(commands.next().is_none());
    }

    #[test]
    fn the_first_request_in_protocol_order_is_used() {
        let both = first(r#"{"id":1,"refresh":{},"publish":{},"history":{}}"#);
        assert!(matches!(both, Request::Publish(_)));
        let ping = first(r#"{"id":1,"subscribe":{},"ping":{}}"#);
        assert!(matches!(ping, Request::Ping));
    }

    #[test]
    fn data_may_be_null_or_missing() {
        let check = |data: &str, expected: Option<&str>| {
            let command = format!("{{\"id\":1,\"publish\":{{\"channel\":\"c\"{data}}}}}");
            let Request::Publish(request) = first(&command) else { panic!("{command}") };
            assert_eq!(request.data.as_deref(), expected.map(str::as_bytes));
        };
        check("", None);
        check(",\"data\":null", Some("null"));
        check(",\"data\":{\"a\": 1}", Some("{\"a\": 1}"));
    }

    #[test]
    fn replies_have_the_documented_shape() {
        let check = |id, reply: &Reply<'_>, expected: &str| {
            assert_eq!(text(|out| write_reply(id, reply, out)), expected);
        };
        let connected =
            ConnectResult { client: "id", ping: 25, pong: true, ..ConnectResult::default() };
        let body =
            format!("{{\"client\":\"id\",\"version\":\"{VERSION}\",\"ping\":25,\"pong\":true}}");
        check(1, &Reply::Connect(&connected), &format!("{{\"id\":1,\"connect\":{body}}}"));
        let plain = SubscribeResult::default();
        check(2, &Reply::Subscribe(&plain), "{\"id\":2,\"subscribe\":{}}");
        let position = Position { offset: 7, epoch: Epoch::parse("abcdefgh") };
        let recovered = SubscribeResult {
            recoverable: true,
            positioned: true,
            was_recovering: true,
            recovered: true,
            position: Some(position),
            publications: vec![b"{\"data\":1,\"offset\":8}".into()],
            expires: Some(Ttl(60)),
            data: Some(b"[1,\n2]"),
            delta: true,
            number: 12,
        };
        check(
            3,
            &Reply::Subscribe(&recovered),
            "{\"id\":3,\"subscribe\":{\"expires\":true,\"ttl\":60,\"recoverable\":true,\
             \"epoch\":\"abcdefgh\",\"publications\":[{\"data\":1,\"offset\":8}],\
             \"recovered\":true,\"offset\":7,\"positioned\":true,\"data\":[1,2],\
             \"was_recovering\":true,\"delta\":true,\"id\":12}}",
        );
        check(
            4,
            &Reply::Error(Error::INTERNAL),
            "{\"id\":4,\"error\":{\"code\":100,\"message\":\"internal server error\",\"temporary\":true}}",
        );
        check(5, &Reply::Publish, "{\"id\":5,\"publish\":{}}");
        check(6, &Reply::Unsubscribe, "{\"id\":6,\"unsubscribe\":{}}");
        let info = ClientInfo { user: "u".into(), client: "c".into(), ..ClientInfo::default() };
        check(
            7,
            &Reply::Presence(&presence_list(Wire::Json, &[info])),
            "{\"id\":7,\"presence\":{\"presence\":{\"c\":{\"user\":\"u\",\"client\":\"c\"}}}}",
        );
        check(
            8,
            &Reply::Presence(&PresenceList::default()),
            "{\"id\":8,\"presence\":{\"presence\":{}}}",
        );
        check(
            9,
            &Reply::PresenceStats(PresenceStats::default()),
            "{\"id\":9,\"presence_stats\":{\"num_clients\":0,\"num_users\":0}}",
        );
        let nothing = HistoryResult { position, ..HistoryResult::default() };
        check(
            10,
            &Reply::History(&nothing),
            "{\"id\":10,\"history\":{\"publications\":[],\"epoch\":\"abcdefgh\",\"offset\":7}}",
        );
        check(11, &Reply::Refresh(None), "{\"id\":11,\"refresh\":{}}");
        let lease = Some(Ttl(9));
        check(
            12,
            &Reply::SubRefresh(lease),
            "{\"id\":12,\"sub_refresh\":{\"expires\":true,\"ttl\":9}}",
        );
    }

    #[test]
    fn backend_replies_have_the_documented_shape() {
        let check = |id, reply: &Reply<'_>, expected: &str| {
            assert_eq!(text(|out| write_reply(id, reply, out)), expected);
        };
        check(13, &Reply::Rpc(Some(b"{\n}")), "{\"id\":13,\"rpc\":{\"data\":{}}}");
        check(14, &Reply::Rpc(None), "{\"id\":14,\"rpc\":{}}");
        let (code, message) = (1000, "a \"word\"");
        check(
            15,
            &Reply::Refused { code, message, temporary: false },
            "{\"id\":15,\"error\":{\"code\":1000,\"message\":\"a \\\"word\\\"\"}}",
        );
    }

    #[test]
    fn pushes_have_the_documented_shape() {
        let check = |push: &Push<'_>, expected: &str| {
            assert_eq!(text(|out| write_push(push, out)), expected);
        };
        let subs = vec![("c", SubscribeResult::default())];
        let connected = ConnectResult { client: "id", subs, ..ConnectResult::default() };
        check(
            &Push::Connect(&connected),
            &format!(
                "{{\"connect\":{{\"client\":\"id\",\"version\":\"{VERSION}\",\"subs\":{{\"c\":{{}}}}}}}}"
            ),
        );
        let subscribed = SubscribeResult { recoverable: true, ..SubscribeResult::default() };
        check(
            &Push::Subscribe { channel: "a\"b", subscribed: &subscribed },
            "{\"channel\":\"a\\\"b\",\"subscribe\":{\"recoverable\":true}}",
        );
        check(
            &Push::Unsubscribe { channel: "c", code: 2000, reason: "r" },
            "{\"channel\":\"c\",\"unsubscribe\":{\"code\":2000,\"reason\":\"r\"}}",
        );
        check(
            &Push::Disconnect { code: 3001, reason: "shutdown" },
            "{\"disconnect\":{\"code\":3001,\"reason\":\"shutdown\"}}",
        );
        check(&Push::Refresh(Some(Ttl(5))), "{\"refresh\":{\"expires\":true,\"ttl\":5}}");
    }

    #[test]
    fn a_publication_has_no_newline_and_returns_its_ranges() {
        let mut out = b"x".to_vec();
        let details = PublicationFields { offset: Some(3), ..PublicationFields::default() };
        let data = Data::Plain(b"{\n\"k\":1}");
        let places = write_publication("a\"b", data, &details, &mut out);
        assert_eq!(
            &out[1..],
            b"{\"channel\":\"a\\\"b\",\"pub\":{\"data\":{\"k\":1},\"offset\":3}}"
        );
        assert_eq!(&out[places.object], b"{\"data\":{\"k\":1},\"offset\":3}");
        assert_eq!(&out[places.data], b"{\"k\":1}");
        let patch = text(|out| _ = write_object(Data::Patch("a\"b"), &details, out));
        assert_eq!(patch, "{\"data\":\"a\\\"b\",\"offset\":3,\"delta\":true}");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut commands = Commands::new(&bytes);
            while let Some(Ok(_)) = commands.next() {}
        }
    }
}
