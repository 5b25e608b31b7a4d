//! What the admin page does: it searches channels, publishes and disconnects.
//!
//! Owns no state. The invariant: an answer is bounded, however many channels, clients and
//! publications there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::load::subscribers;
use crate::control::api::operator::{CallFailure, Operator};
use crate::link::Link;
use crate::model::glob::is_glob;
use crate::model::message::Scope;

/// Channels in the answer to a search.
const FOUND_MAX: usize = 50;
/// A channel with more clients than this is answered without a list of them.
const CLIENTS_MAX: u64 = 100;
/// Publications of a history.
const PUBLICATIONS: usize = 20;
/// Characters of a publication's data, or of a client's info.
const TEXT_MAX: usize = 4096;

/// Results of the API.
#[derive(Deserialize)]
struct Stats {
    num_clients: u64,
    num_users: u64,
}

#[derive(Deserialize)]
struct Present {
    presence: BTreeMap<String, PresentClient>,
}

#[derive(Deserialize)]
struct PresentClient {
    user: String,
    conn_info: Option<Box<RawValue>>,
    chan_info: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Past {
    publications: Vec<PastPublication>,
    offset: u64,
    epoch: String,
}

#[derive(Deserialize)]
struct PastPublication {
    data: Box<RawValue>,
    offset: u64,
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

/// Search for channels whose names match a glob.
#[derive(Deserialize)]
pub(super) struct Search {
    pattern: String,
}

/// Question about one channel.
#[derive(Deserialize)]
pub(super) struct Look {
    channel: Arc<str>,
}

/// Publication to a channel.
#[derive(Deserialize)]
pub(super) struct Publish {
    channel: String,
    data: Box<RawValue>,
}

/// Disconnect of a user, or of one client.
#[derive(Deserialize)]
pub(super) struct Disconnect {
    #[serde(default)]
    user: String,
    #[serde(default)]
    client: String,
}

fn busy() -> CallFailure {
    (100, "the node is overloaded: a shard did not answer in time".to_owned())
}

/// Channels with subscribers whose names match, at most [`FOUND_MAX`].
pub(super) async fn search(link: &Link, Search { pattern }: Search) -> Result<Value, CallFailure> {
    if !is_glob(&pattern) {
        return Err((107, "the pattern is not valid; use `*` for any characters".to_owned()));
    }
    let scope = Scope::Matching { pattern: Some(pattern), most: FOUND_MAX + 1 };
    let found = subscribers(link, scope).await.map_err(|_| busy())?;
    let more = found.len() > FOUND_MAX;
    let found = found.into_iter().take(FOUND_MAX);
    // Shards stop counting at the maximum, so a channel may have more subscribers elsewhere.
    let names: Vec<Arc<str>> = found.map(|(name, _)| name).collect();
    let counted = subscribers(link, Scope::Named(names.into())).await.map_err(|_| busy())?;
    let rows =
        counted.iter().map(|(name, number)| json!({ "channel": name, "subscribers": number }));
    Ok(json!({ "channels": rows.collect::<Vec<_>>(), "more": more }))
}

/// Subscribers, presence and history of a channel.
pub(super) async fn look(
    link: &Link,
    operator: &Operator,
    Look { channel }: Look,
) -> Result<Value, CallFailure> {
    let scope = Scope::Named([channel.clone()].into());
    let counted = subscribers(link, scope).await.map_err(|_| busy())?;
    let presence = presence(operator, &channel).await;
    let request = json!({ "channel": channel, "limit": PUBLICATIONS, "reverse": true });
    let history = operator.call::<Past>("history", &request.to_string()).await;
    Ok(json!({
        "channel": channel,
        "subscribers": counted.get(&channel).copied().unwrap_or_default(),
        "presence": presence.unwrap_or_else(failure),
        "history": history.map_or_else(failure, past),
    }))
}

fn failure((code, text): CallFailure) -> Value {
    json!({ "error": text, "code": code })
}

/// Numbers of clients and users, and the clients if they are few.
async fn presence(operator: &Operator, channel: &str) -> Result<Value, CallFailure> {
    let request = json!({ "channel": channel }).to_string();
    let Stats { num_clients, num_users } = operator.call("presence_stats", &request).await?;
    let mut list = Vec::new();
    if num_clients <= CLIENTS_MAX {
        let Present { presence } = operator.call("presence", &request).await?;
        let clients = presence.into_iter().take(CLIENTS_MAX as usize);
        list.extend(clients.map(|(client, info)| {
            let text = |info: Option<Box<RawValue>>| info.map(|info| shortened(info.get()));
            json!({
                "client": client,
                "user": info.user,
                "conn_info": text(info.conn_info),
                "chan_info": text(info.chan_info),
            })
        }));
    }
    Ok(json!({
        "clients": num_clients,
        "users": num_users,
        "list": list,
        "listed": num_clients <= CLIENTS_MAX,
    }))
}

/// A history as the page shows it: the data of each publication as JSON text.
fn past(history: Past) -> Value {
    let rows = history.publications.into_iter().map(|publication| {
        json!({
            "offset": publication.offset,
            "data": shortened(publication.data.get()),
            "tags": publication.tags,
        })
    });
    json!({
        "offset": history.offset,
        "epoch": history.epoch,
        "publications": rows.collect::<Vec<_>>(),
    })
}

/// The beginning of a text that is too long to show.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

/// Publishes to a channel.
pub(super) async fn publish(operator: &Operator, body: Publish) -> Result<Value, CallFailure> {
    let Publish { channel, data } = body;
    let request = format!("{{\"channel\":{},\"data\":{data}}}", json!(channel));
    let result = operator.call("publish", &request).await?;
    tracing::info!(target: "admin", "published {} bytes to {channel:?}", data.get().len());
    Ok(result)
}

/// Disconnects the connections of a user, or one client.
pub(super) async fn disconnect(
    operator: &Operator,
    body: Disconnect,
) -> Result<Value, CallFailure> {
    let Disconnect { user, client } = body;
    if user.is_empty() && client.is_empty() {
        return Err((107, "name a user, or the ID of a client".to_owned()));
    }
    let request = json!({ "user": user, "client": client }).to_string();
    let result = operator.call("disconnect", &request).await?;
    let one = if client.is_empty() { String::new() } else { format!(", client {client:?}") };
    tracing::info!(target: "admin", "disconnected user {user:?}{one}");
    Ok(result)
}
