//! Feeds against Debian's real RabbitMQ: `scripts/test.sh feeds`.
//!
//! Runs its cases one after the other against one broker, which the cases kill, freeze and restart.
//! `cargo test --test feeds -- NAME` runs the cases whose name contains NAME. A case per entry of
//! the public reports about consumers: a broker that falls silent, a queue that is deleted while it
//! is consumed, an acknowledgement that takes too long, a poison message among good ones.

#![allow(missing_docs, clippy::unwrap_used)]

mod broker;
mod cases;
mod node;
mod relay;

#[path = "../common/mod.rs"]
mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use broker::Broker;

/// Maximum time of a case.
const CASE: Duration = Duration::from_secs(240);

/// A case: its name and its body.
pub struct Case {
    name: &'static str,
    run: for<'a> fn(&'a mut Broker) -> Pin<Box<dyn Future<Output = ()> + 'a>>,
}

/// Lists cases by the names of their functions.
macro_rules! cases {
    ($($module:ident::$name:ident),* $(,)?) => {
        [$($crate::Case {
            name: stringify!($name),
            run: |broker| Box::pin(super::cases::$module::$name(broker)),
        }),*]
    };
}

mod list {
    //! All cases, in the order in which they run.

    pub const CASES: [crate::Case; 29] = cases![
        end_to_end::a_message_reaches_a_subscriber,
        all_with_tls::ports_acme_key_set_backend_and_broker_use_tls_in_one_process,
        end_to_end::wrong_credentials_end_the_start_and_show_no_secret,
        end_to_end::bad_messages_are_logged_with_consumer_id_and_cause,
        end_to_end::a_broker_that_is_not_there_does_not_end_the_start,
        modes::publications_are_addressed_by_headers_and_template,
        modes::api_commands_are_run,
        modes::messages_that_cannot_be_read_are_set_aside_and_the_feed_goes_on,
        order::messages_of_a_channel_stay_in_order_while_the_node_is_overloaded,
        order::a_command_runs_after_the_messages_before_it,
        delivery::a_repeated_message_is_published_once,
        delivery::an_overloaded_node_stops_the_broker_and_loses_nothing,
        delivery::large_messages_that_wait_stop_the_reading_and_none_is_lost,
        delivery::a_stopped_feed_leaves_nothing_unacknowledged,
        poison::a_poison_message_among_good_ones_in_a_quorum_queue_is_set_aside,
        poison::dead_letters_go_to_the_configured_exchange_with_their_cause,
        poison::dead_letters_that_no_queue_takes_stay_until_one_does,
        poison::a_rejected_message_follows_the_policy_of_its_queue,
        refused::a_queue_with_other_arguments_ends_the_start,
        refused::an_exchange_of_another_type_ends_the_start,
        refused::a_stream_ends_the_start,
        refused::a_broker_that_speaks_another_version_ends_the_start,
        refused::certificates_that_nobody_trusts_end_the_start,
        lost::a_virtual_host_that_does_not_exist_is_waited_for,
        lost::a_queue_that_is_deleted_while_it_is_consumed_is_waited_for,
        lost::a_frozen_broker_is_noticed_within_two_heartbeats,
        lost::dropped_packets_are_noticed_within_two_heartbeats,
        lost::an_acknowledgement_that_takes_too_long_costs_no_message,
        lost::killed_brokers_lose_no_confirmed_message,
    ];
}

fn main() -> ExitCode {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let chosen = list::CASES
        .iter()
        .filter(|case| filter.as_ref().is_none_or(|filter| case.name.contains(filter.as_str())));
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().unwrap()
    };
    let mut broker = runtime().block_on(Broker::start());
    let (mut passed, mut failed) = (0, Vec::new());
    for case in chosen {
        let began = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| {
            let runtime = runtime();
            let done = runtime
                .block_on(async { tokio::time::timeout(CASE, (case.run)(&mut broker)).await });
            runtime.shutdown_timeout(Duration::from_secs(1));
            done.expect("the case takes too long");
        }));
        let seconds = began.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                passed += 1;
                println!("test {} ... ok ({seconds:.1} s)", case.name);
            }
            Err(_) => {
                println!("test {} ... FAILED ({seconds:.1} s)", case.name);
                failed.push(case.name);
                // The next case needs a broker that runs.
                broker = runtime().block_on(Broker::start());
            }
        }
    }
    drop(broker);
    println!("{failed:?}");
    println!("feeds: {passed} passed, {} failed", failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
