// Where Drumline differs from Centrifugo on purpose. `scripts/test.sh conformance` fails when an
// unlisted difference appears, and when a listed one is gone. The entries make docs/differences.md.
//
// An entry: section and title of the page, what each server does, the reason, the scripts it concerns
// (a regular expression of their names) and the paths in their transcripts (likewise). An entry
// without `scripts` is about something that no script can show; `why_unseen` says why.

export const SECTIONS = ["Client protocol", "HTTP API", "Proxies", "Configuration", "Commands"];

export const ENTRIES = [
  {
    section: "Client protocol",
    title: "Blank lines between commands",
    centrifugo: "ends the connection with 3501 when a frame holds an empty line before a command.",
    drumline: "skips empty lines.",
    reason: "an empty line holds no command, and a client that joins commands with newlines may add one.",
    scripts: /^JSON text: (newline at the start|two newlines between)$/,
  },
  {
    section: "Client protocol",
    title: "Keys in another case",
    centrifugo: "accepts JSON keys in any case, as Go's decoder does.",
    drumline: "accepts keys as the protocol spells them; another spelling is an unknown field.",
    reason: "no SDK sends them, and comparing without regard to case costs time for each key.",
    scripts: /^JSON text: upper-case key$/,
  },
  {
    section: "Client protocol",
    title: "Content-Type of streams",
    centrifugo: "answers http_stream and uni_http_stream with Go's guess `text/plain; charset=utf-8`, and "
      + "event streams with a charset.",
    drumline: "answers `application/json`, and `text/event-stream` without a charset.",
    reason: "the body is JSON lines; both types define UTF-8, so a charset adds nothing. SDKs ignore the type.",
    scripts: /^(http_stream|sse|uni_http_stream|uni_sse|origin:|client setting: pings of uni_sse)/,
    paths: /\.head\.type$/,
  },
  {
    section: "Client protocol",
    title: "Event ids of uni_sse",
    centrifugo: "sends no `id` lines.",
    drumline: "sends an `id` line before a publication of a channel with recovery.",
    reason: "a browser's EventSource that lost its connection returns with Last-Event-ID and gets what it missed.",
    scripts: /^uni_sse: /,
    paths: /\.eventIds$/,
  },
  {
    section: "Client protocol",
    title: "Bodies of refused HTTP requests",
    centrifugo: "answers with an empty body or Go's standard text, and with CORS headers also to requests "
      + "without an Origin.",
    drumline: "answers with one line of text that names the cause, and sends CORS headers only to requests "
      + "with an Origin. Allowed methods are listed per transport.",
    reason: "the person who reads the answer learns what to change.",
    scripts: /^(request|disabled): /,
    paths: /\.(body|headers\.[-a-z]+)$/,
  },
  {
    section: "Client protocol",
    title: "Status of refused WebSocket upgrades",
    centrifugo: "answers 400 to a POST and to another version of the protocol.",
    drumline: "answers 405 to a POST, and 426 with the supported version as RFC 6455 asks.",
    reason: "the exact status tells a proxy or a person what is wrong.",
    scripts: /^request: websocket (POST|of another version)$/,
    paths: /\.status$/,
  },
  {
    section: "Client protocol",
    title: "Health endpoint",
    centrifugo: "serves `/health` only with `health.enabled`.",
    drumline: "serves `/health` unless `health.enabled` is false.",
    reason: "load balancers and the server's own tests need it, and it tells nothing about the users.",
    scripts: /^request: health$/,
  },
  {
    section: "Client protocol",
    title: "Reason of close code 1009",
    centrifugo: "closes with an empty reason when a message exceeds the limit.",
    drumline: "closes with the reason `message size limit exceeded`.",
    reason: "the reason reaches the application's log.",
    scripts: /^socket: message (of|over) 65536 bytes$/,
    paths: /\.end\.reason$/,
  },
  {
    section: "Client protocol",
    title: "Publications that are not JSON",
    centrifugo: "accepts them in every channel and disconnects each JSON subscriber with 3506.",
    drumline: "accepts them only in channels with `publication_data_format: binary`, which JSON clients "
      + "cannot subscribe to; elsewhere the publisher gets error 107, which names the option.",
    reason: "a publisher must not be able to disconnect subscribers.",
    scripts: /^socket: protobuf: data that is not JSON for a JSON subscriber$/,
  },
  {
    section: "Client protocol",
    title: "Null as information about a connection",
    centrifugo: "carries `conn_info: null` for the claim `info: null`.",
    drumline: "leaves the field out.",
    reason: "null says that there is no information, as the absent claim does.",
    scripts: /^claim: info null$/,
  },
  {
    section: "Client protocol",
    title: "Expired token in sub_refresh",
    centrifugo: "answers success to an expired subscription token, after which the subscription does not "
      + "expire (mended in 6.9.6, which disconnects with 3006).",
    drumline: "disconnects with 3006.",
    reason: "an expired token must not prolong a subscription.",
    scripts: /^sub_refresh: expired$/,
  },
  {
    section: "Client protocol",
    title: "Order of replies and pushes",
    centrifugo: "answers the commands of a connection one after the other, and pushes a client's own "
      + "publication before the reply to it.",
    drumline: "may answer a command before an earlier one that waits for another shard, and may send a "
      + "push before or after a reply. Publications of a channel stay in order, and follow the reply to "
      + "the subscribe command.",
    reason: "clients match replies by id; waiting would delay commands that need no other shard.",
    scripts: /^order of replies: /,
    paths: /\.replies\[/,
  },
  {
    section: "Client protocol",
    title: "`cf_connect` of sse",
    centrifugo: "takes any number of commands.",
    drumline: "takes exactly one connect command first, otherwise 400; streams reject "
      + "`Sec-Fetch-Mode: navigate` with 403, and a request with two Origin headers is rejected.",
    reason: "a link to a stream would use the cookies of the user who follows it.",
    why_unseen: "a navigation is the browser's; the wire tests send these requests.",
  },
  {
    section: "Client protocol",
    title: "A node that becomes full",
    centrifugo: "admits a client beyond `client.connection_limit` that upgraded before the node was full.",
    drumline: "closes the client with 3013, and the SDK reconnects.",
    reason: "the limit bounds memory.",
    why_unseen: "it needs a race between two upgrades; the wire tests force it.",
  },
  {
    section: "Client protocol",
    title: "uni_websocket clients that answer no ping",
    centrifugo: "drops the socket without a close frame.",
    drumline: "closes with 3012.",
    reason: "the client and the metrics learn the cause.",
    why_unseen: "it takes as long as the ping interval; the wire tests have it.",
  },
];
