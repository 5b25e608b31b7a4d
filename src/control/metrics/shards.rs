//! Families that come from the counters of the shards, summed over all shards.
//!
//! Owns no state. Never asks a shard. The size of what it makes does not depend on the number of
//! shards or connections.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::family::{Family, FamilyKind};
use super::names::Names;
use crate::base::counter::{CodeCounters, Counter};
use crate::base::histogram::{
    COMMANDS as COMMAND_BOUNDS, DURATIONS, Histogram, HistogramSnapshot, Layout, NUMBERS,
};
use crate::base::metrics::{
    Action, COMMANDS, ClientCounters, FrameType, Labelled, MessageCounter, MetricKind, Metrics,
};
use crate::wire::http::Transport;

/// Labels of a client, as Centrifugo has them. It knows no names of clients by default.
const CLIENT: [&str; 2] = ["unnamed", "unregistered"];
const VERSION: [&str; 2] = ["unversioned", "unregistered"];
const ENCODINGS: [&str; 2] = ["json", "protobuf"];

/// The counters of all shards.
#[derive(Clone, Copy)]
pub struct Shards<'a> {
    /// The counters of each shard.
    pub metrics: &'a [Arc<Metrics>],
    /// The names of the families.
    pub names: &'a Names,
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

impl Shards<'_> {
    fn sum(&self, of: impl Fn(&Metrics) -> &Counter) -> f64 {
        self.metrics.iter().map(|metrics| of(metrics).get()).fold(0, u64::wrapping_add) as f64
    }

    fn histogram(
        &self,
        layout: &'static Layout,
        of: impl Fn(&Labelled) -> &Histogram,
    ) -> HistogramSnapshot {
        HistogramSnapshot::of(layout, self.metrics.iter().map(|metrics| of(&metrics.by)))
    }

    fn codes(&self, of: impl Fn(&Labelled) -> &CodeCounters) -> BTreeMap<Option<u64>, u64> {
        let mut codes = BTreeMap::new();
        for (code, count) in self.metrics.iter().flat_map(|metrics| of(&metrics.by).list()) {
            *codes.entry(code).or_default() += count;
        }
        codes
    }

    fn counter(&self, name: &str, help: &str, labels: &'static [&'static str]) -> Family {
        Family::new(self.names.full(name), help, FamilyKind::Counter, labels)
    }

    fn gauge(&self, name: &str, help: &str, labels: &'static [&'static str]) -> Family {
        Family::new(self.names.full(name), help, FamilyKind::Gauge, labels)
    }

    fn histograms(&self, name: &str, help: &str, labels: &'static [&'static str]) -> Family {
        Family::new(self.names.full(name), help, FamilyKind::Histogram, labels)
    }

    /// Every counter without labels, under Drumline's own names.
    pub fn plain(&self) -> Vec<Family> {
        let lists: Vec<_> = self.metrics.iter().map(|metrics| metrics.list()).collect();
        let none = Metrics::default().list();
        let family = |(at, (name, help, kind, _)): (usize, &(&str, &str, MetricKind, u64))| {
            let values = lists.iter().filter_map(|list| list.get(at)).map(|(.., value)| *value);
            let value = match kind {
                MetricKind::Largest => values.max().unwrap_or(0),
                MetricKind::Total | MetricKind::Gauge => values.fold(0, u64::wrapping_add),
            };
            let suffix = if *kind == MetricKind::Total { "_total" } else { "" };
            let name = self.names.full(&format!("{name}{suffix}"));
            Family::new(name, help, (*kind).into(), &[]).with_number(value as f64)
        };
        none.iter().enumerate().map(family).collect()
    }

    /// The families with Centrifugo's names.
    pub fn of_centrifugo(&self) -> Vec<Family> {
        [self.node(), self.clients(), self.transports()].concat()
    }

    fn node(&self) -> Vec<Family> {
        let one = |name, help, of: fn(&Metrics) -> &Counter| {
            self.gauge(name, help, &[]).with_number(self.sum(of))
        };
        let actions = Action::LABELS.iter().enumerate().map(|(at, action)| {
            let count = self.sum(|metrics| metrics.by.actions.get(at).unwrap_or(&metrics.sockets));
            (words(&[action, ""]), count)
        });
        let messages = |name, help| {
            let numbers = [
                ("join", self.sum(|metrics| &metrics.by.joins_and_leaves[0])),
                ("leave", self.sum(|metrics| &metrics.by.joins_and_leaves[1])),
                ("publication", self.sum(|metrics| &metrics.publications)),
            ];
            let numbers = numbers.map(|(kind, number)| (words(&["", kind]), number));
            self.counter(name, help, &["channel_namespace", "type"]).with_numbers(numbers)
        };
        let limit = "Connections refused with HTTP status 503.";
        let filtered = "Publications that tags filters kept from subscribers, once per group of \
                        subscribers with equal filters.";
        let laps = "Time in which the node gave publications to the subscribers of a channel on a \
                    shard that get the same bytes.";
        vec![
            one("node_num_clients", "Connected clients.", |metrics| &metrics.clients),
            one(
                "node_num_users",
                "Users with a connection. A user with connections on several shards counts once \
                 per shard.",
                |metrics| &metrics.users,
            ),
            one("node_num_subscriptions", "Subscriptions, including pending ones.", |metrics| {
                &metrics.subscriptions
            }),
            one("node_num_channels", "Channels of the node.", |metrics| &metrics.channels),
            self.gauge("node_num_nodes", "Nodes of the cluster.", &[]).with_number(1.0),
            self.gauge("node_build", "Version of the running server, as a label.", &["version"])
                .with_numbers([(words(&[env!("CARGO_PKG_VERSION")]), 1.0)]),
            self.counter("node_client_connection_limit", limit, &[])
                .with_number(self.sum(|metrics| &metrics.refused)),
            self.counter("node_action_count", "Actions.", &["action", "channel_namespace"])
                .with_numbers(actions.filter(|(_, count)| *count > 0.0)),
            messages("node_messages_sent_count", "Messages that entered the node's channels."),
            messages("node_messages_received_count", "Messages that left the node's channels."),
            self.counter("node_tags_filter_dropped_publications", filtered, &["channel_namespace"])
                .with_numbers([(words(&[""]), self.sum(|metrics| &metrics.filtered))]),
            self.histograms(
                "node_broadcast_duration_seconds",
                laps,
                &["channel_namespace", "type"],
            )
            .with_histograms([(
                words(&["", "publication"]),
                self.histogram(&DURATIONS, |by| &by.laps),
            )]),
        ]
    }

    /// Counts of clients by Centrifugo's labels. Those of `json` and of `protobuf` clients are one.
    fn by_client(&self, of: fn(&Labelled) -> &[ClientCounters]) -> Vec<(Vec<String>, f64)> {
        let mut found = Vec::new();
        for (at, transport) in Transport::ALL.iter().enumerate() {
            for (named, client) in CLIENT.iter().enumerate() {
                for (versioned, version) in VERSION.iter().enumerate() {
                    let number: f64 = (0..ENCODINGS.len())
                        .map(|wire| {
                            self.sum(|metrics| &of(&metrics.by)[at][wire][named][versioned])
                        })
                        .sum();
                    found.push((words(&["", client, version, transport.name()]), number));
                }
            }
        }
        found
    }

    fn clients(&self) -> Vec<Family> {
        let mut families = self.connections();
        families.push(self.reply_errors());
        families.extend(self.ends());
        families.extend(self.recoveries());
        families.push(self.pings());
        families.push(self.commands());
        families
    }

    fn connections(&self) -> Vec<Family> {
        const CONNECTION: &[&str] =
            &["accept_protocol", "client_name", "client_version", "transport"];
        const SUBSCRIPTION: &[&str] = &["channel_namespace", "client_name"];
        let accepted = self.by_client(|by| &by.connections_accepted);
        // As in Centrifugo, a series begins with the first client.
        let was_used: Vec<bool> = accepted.iter().map(|(_, number)| *number > 0.0).collect();
        let used = |numbers: Vec<(Vec<String>, f64)>| {
            let numbers = numbers.into_iter().zip(was_used.clone());
            numbers.filter(|(_, used)| *used).map(|(number, _)| number).collect::<Vec<_>>()
        };
        let subscriptions = |of: fn(&Labelled) -> &[Counter; 2]| {
            [0, 1].map(|named| {
                (words(&["", CLIENT[named]]), self.sum(|metrics| &of(&metrics.by)[named]))
            })
        };
        vec![
            self.counter("client_connections_accepted", "Accepted clients.", CONNECTION)
                .with_numbers(used(accepted)),
            self.gauge("client_connections_inflight", "Connected clients.", CONNECTION)
                .with_numbers(used(self.by_client(|by| &by.connections_inflight))),
            self.counter(
                "client_subscriptions_accepted",
                "Subscriptions that clients got.",
                SUBSCRIPTION,
            )
            .with_numbers(subscriptions(|by| &by.subscriptions_accepted)),
            self.gauge(
                "client_subscriptions_inflight",
                "Subscriptions of connected clients.",
                SUBSCRIPTION,
            )
            .with_numbers(subscriptions(|by| &by.subscriptions_inflight)),
        ]
    }

    fn ends(&self) -> [Family; 2] {
        let disconnects = self.codes(|by| &by.disconnects).into_iter();
        let unsubscribes = self.codes(|by| &by.unsubscribes).into_iter();
        [
            self.counter("client_num_server_disconnects", "Disconnects by the server.", &["code"])
                .with_numbers(
                    disconnects.map(|(code, count)| (vec![code_label(code)], count as f64)),
                ),
            self.counter(
                "client_num_server_unsubscribes",
                "Unsubscribes by the server.",
                &["channel_namespace", "code"],
            )
            .with_numbers(
                unsubscribes
                    .map(|(code, count)| (vec![String::new(), code_label(code)], count as f64)),
            ),
        ]
    }

    fn recoveries(&self) -> Vec<Family> {
        let recoveries = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(recovered, some)| {
            let said = ["no", "yes"];
            let count = self.sum(|metrics| &metrics.by.recoveries[recovered][some]);
            (words(&["", said[some], said[recovered]]), count)
        });
        let mut families = vec![
            self.counter(
                "client_recover",
                "Recoveries, by whether they succeeded.",
                &["channel_namespace", "has_recovered_publications", "recovered"],
            )
            .with_numbers(recoveries.into_iter().filter(|(_, count)| *count > 0.0)),
        ];
        if self.names.has_recovered_publications() {
            let found = self.histogram(&NUMBERS, |by| &by.recovered_publications);
            families.push(
                self.histograms(
                    "client_recovered_publications",
                    "Publications that a successful recovery sent.",
                    &["channel_namespace"],
                )
                .with_histograms([(words(&[""]), found)]),
            );
        }
        families
    }

    fn pings(&self) -> Family {
        let pings = Transport::ALL.iter().enumerate().map(|(at, transport)| {
            (words(&[transport.name()]), self.histogram(&COMMAND_BOUNDS, |by| &by.pings[at]))
        });
        self.histograms(
            "client_ping_pong_duration_seconds",
            "Time between a ping and the pong of the client.",
            &["transport"],
        )
        .with_histograms(pings.filter(|(_, found)| found.count() > 0))
    }

    fn commands(&self) -> Family {
        let commands = FrameType::ALL.iter().take(COMMANDS).enumerate();
        let commands = commands.map(|(at, command)| {
            let found = self.histogram(&COMMAND_BOUNDS, |by| &by.commands[at]);
            (words(&["", command.label()]), found)
        });
        self.histograms(
            "client_command_duration_seconds_histogram",
            "Time from the pass of the event loop that read a command to the end of the pass that \
             wrote its reply.",
            &["channel_namespace", "method"],
        )
        .with_histograms(commands)
    }

    fn reply_errors(&self) -> Family {
        let errors = self.codes(|by| &by.reply_errors).into_iter().map(|(key, count)| {
            let method = key.and_then(|key| FrameType::ALL.get((key >> 16) as usize));
            let method = method.map_or("other", |method| method.label());
            let code = code_label(key.map(|key| key & 0xffff));
            (vec![String::new(), code, method.to_owned()], count as f64)
        });
        let labels = &["channel_namespace", "code", "method"];
        self.counter("client_num_reply_errors", "Error replies to clients.", labels)
            .with_numbers(errors)
    }

    fn transports(&self) -> Vec<Family> {
        const LABELS: &[&str] = &["channel_namespace", "frame_type", "transport"];
        let messages = |name, help, of: fn(&MessageCounter) -> &Counter, sent: bool| {
            let mut numbers = Vec::new();
            for (at, transport) in Transport::ALL.iter().enumerate() {
                for frame_type in FrameType::ALL {
                    let number = self.sum(|metrics| {
                        let by = &metrics.by;
                        let all = if sent { &by.sent } else { &by.received };
                        of(&all[at][*frame_type as usize])
                    });
                    if number > 0.0 {
                        numbers.push((words(&["", frame_type.label(), transport.name()]), number));
                    }
                }
            }
            self.counter(name, help, LABELS).with_numbers(numbers)
        };
        let closes = self.codes(|by| &by.closes).into_iter().map(|(key, count)| {
            let transport = key.and_then(|key| Transport::ALL.get((key >> 16) as usize));
            let transport = transport.map_or("other", |transport| transport.name());
            let code = code_label(key.map(|key| key & 0xffff));
            (vec![code, transport.to_owned()], count as f64)
        });
        vec![
            messages("transport_messages_sent", "Messages to clients.", |one| &one.messages, true),
            messages(
                "transport_messages_sent_size",
                "Bytes of messages to clients.",
                |one| &one.bytes,
                true,
            ),
            messages(
                "transport_messages_received",
                "Messages of clients.",
                |one| &one.messages,
                false,
            ),
            messages(
                "transport_messages_received_size",
                "Bytes of messages of clients, without framing.",
                |one| &one.bytes,
                false,
            ),
            self.counter(
                "transport_outgoing_close_count",
                "Close frames to clients.",
                &["code", "transport"],
            )
            .with_numbers(closes),
        ]
    }

    /// The families with labels that only Drumline has.
    pub fn own(&self) -> Vec<Family> {
        let mut connections = Vec::new();
        for (at, transport) in Transport::ALL.iter().enumerate() {
            for (wire, encoding) in ENCODINGS.iter().enumerate() {
                let number = self.sum_all(|by| by.connections_inflight[at][wire].as_flattened());
                connections.push((words(&[encoding, transport.name()]), number));
            }
        }
        let [write, passes] = [
            self.histogram(&DURATIONS, |by| &by.publish_to_write),
            self.histogram(&DURATIONS, |by| &by.passes),
        ];
        vec![
            self.gauge(
                "connections",
                "Connected clients by transport and encoding.",
                &["protocol", "transport"],
            )
            .with_numbers(connections),
            self.histograms(
                "publish_to_write_seconds",
                "Time from the acceptance of a publish request to the end of the pass that wrote \
                 the publication to a subscriber, once per delivery.",
                &[],
            )
            .with_histograms([(Vec::new(), write)]),
            self.histograms(
                "pass_duration_seconds",
                "Duration of a worker's passes over its shards, an upper bound of the length of \
                 each turn in them.",
                &[],
            )
            .with_histograms([(Vec::new(), passes)]),
        ]
    }

    fn sum_all(&self, of: impl Fn(&Labelled) -> &[Counter]) -> f64 {
        let counters = self.metrics.iter().flat_map(|metrics| of(&metrics.by));
        counters.map(Counter::get).fold(0, u64::wrapping_add) as f64
    }
}

/// The label of a code; of those that found no counter of their own `other`.
fn code_label(code: Option<u64>) -> String {
    code.map_or_else(|| "other".to_owned(), |code| code.to_string())
}
