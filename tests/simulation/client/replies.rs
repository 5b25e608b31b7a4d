//! The checks of each reply and push against what the client sent and received before.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Asked, Client, Outstanding, View};
use crate::ledger::Ledger;

impl Client {
    pub(super) fn text(
        &mut self,
        payload: &[u8],
        ledger: &mut Ledger,
        now: usize,
    ) -> Result<(), String> {
        let value: Value = serde_json::from_slice(payload)
            .map_err(|error| format!("{error} in {}", String::from_utf8_lossy(payload)))?;
        let checked = if value.as_object().is_some_and(|object| object.is_empty()) {
            Ok(())
        } else if let Some(id) = value["id"].as_u64() {
            self.reply(id, &value, ledger, now)
        } else if value["connect"].is_object() {
            self.connect_push(&value["connect"], ledger, now)
        } else if self.uni {
            match value["disconnect"].is_object() {
                true => Ok(()),
                false => self.push(&value, ledger),
            }
        } else if let Some(code) = value["push"]["disconnect"]["code"].as_u64() {
            self.close(&(code as u16).to_be_bytes())
        } else {
            self.push(&value["push"], ledger)
        };
        checked.map_err(|error| format!("{error}; got {value}"))
    }

    fn reply(
        &mut self,
        id: u64,
        value: &Value,
        ledger: &mut Ledger,
        now: usize,
    ) -> Result<(), String> {
        let at = self.outstanding.iter().position(|asked| asked.id == id);
        let Some(asked) = at.and_then(|at| self.outstanding.remove(at)) else {
            return Err("a reply to nothing".into());
        };
        let Outstanding { channel, asked, .. } = asked;
        let before = self.outstanding.iter().any(|other| other.id < id && other.channel == channel);
        if before {
            return Err("a reply out of order".into());
        }
        match asked {
            Asked::Connect(_) if value["connect"].is_object() => {
                self.connected = true;
                let told = |name: &str| value["connect"][name].as_str().map(str::to_owned);
                self.session = told("session").zip(told("node"));
            }
            Asked::Subscribe(_) if self.views[channel].subscribed => {
                if value["error"]["code"] != 105 {
                    return Err("subscribed twice".into());
                }
            }
            Asked::Subscribe(since) if value["subscribe"].is_object() => {
                self.subscribed(channel, since, &value["subscribe"], ledger, now)?;
            }
            Asked::Unsubscribe if value["unsubscribe"].is_object() => {
                self.views[channel].subscribed = false;
            }
            Asked::Publish(n) if value["publish"].is_object() => {
                ledger.acknowledged(channel, self.number, n);
            }
            Asked::Stats if value["presence_stats"].is_object() => {
                self.counted = value["presence_stats"]["num_clients"].as_u64();
            }
            other => return Err(format!("a reply that does not fit {other:?}")),
        }
        Ok(())
    }

    fn connect_push(
        &mut self,
        value: &Value,
        ledger: &mut Ledger,
        now: usize,
    ) -> Result<(), String> {
        if !self.uni || std::mem::replace(&mut self.connected, true) {
            return Err("a connect push too many".into());
        }
        let told = value["subs"].as_object().map_or(0, |subs| subs.len());
        if told != self.wanted.len() {
            return Err(format!("not the wanted channels {:?}", self.wanted));
        }
        for (channel, since) in self.wanted.clone() {
            let answer = &value["subs"][format!("c{channel}")];
            if !answer.is_object() {
                return Err(format!("no c{channel}"));
            }
            self.subscribed(channel, since, answer, ledger, now)?;
        }
        Ok(())
    }

    fn subscribed(
        &mut self,
        channel: usize,
        since: Option<u64>,
        answer: &Value,
        ledger: &mut Ledger,
        now: usize,
    ) -> Result<(), String> {
        let recovered = answer["recovered"] == true;
        let offset = answer["offset"].as_u64().unwrap_or(0);
        let epoch = answer["epoch"].as_str().unwrap_or("").to_owned();
        let missed = answer["publications"].as_array().cloned().unwrap_or_default();
        if !recovered && !missed.is_empty() {
            return Err("publications though not recovered".into());
        }
        if recovered && since != Some(offset) {
            return Err("recovered from another offset".into());
        }
        if self.history == epoch.is_empty() || (answer["was_recovering"] == true) != since.is_some()
        {
            return Err("not what was asked for".into());
        }
        ledger.epoch(channel, &epoch)?;
        let view = &mut self.views[channel];
        let number = answer["id"].as_u64().unwrap_or(0);
        *view = View { subscribed: true, since: now, number, epoch, offset, seen: BTreeMap::new() };
        missed.iter().try_for_each(|publication| self.publication(channel, publication, ledger))
    }

    /// The channel of a push, by its number if it has one, otherwise by its name.
    fn named(&self, push: &Value) -> Result<Option<usize>, String> {
        let name = push["channel"].as_str().unwrap_or("");
        let Some(number) = push["id"].as_u64() else {
            let channel = name.strip_prefix('c').and_then(|digits| digits.parse().ok());
            let view = channel.and_then(|channel: usize| self.views.get(channel));
            let numbered = view.is_some_and(|view| view.subscribed && view.number != 0);
            return if numbered { Err("not by its number".into()) } else { Ok(channel) };
        };
        let has_it = |view: &View| view.subscribed && view.number == number && number != 0;
        let mut channels = (0..self.views.len()).filter(|channel| has_it(&self.views[*channel]));
        match (channels.next(), channels.next()) {
            (Some(channel), None) if name.is_empty() => Ok(Some(channel)),
            _ => Err("a number of no channel, or of two".into()),
        }
    }

    fn push(&mut self, push: &Value, ledger: &mut Ledger) -> Result<(), String> {
        let channel = self.named(push)?;
        match channel {
            Some(channel) if channel < self.views.len() && push["pub"].is_object() => {
                self.publication(channel, &push["pub"], ledger)
            }
            Some(_) if push["join"].is_object() || push["leave"].is_object() => Ok(()),
            _ => Err("an unknown push".into()),
        }
    }

    fn publication(
        &mut self,
        channel: usize,
        publication: &Value,
        ledger: &mut Ledger,
    ) -> Result<(), String> {
        let view = &mut self.views[channel];
        if !view.subscribed {
            return Err(format!("a publication of c{channel}, which is not subscribed"));
        }
        let data = &publication["data"];
        let (Some(publisher), Some(n)) = (data["p"].as_u64(), data["n"].as_u64()) else {
            return Err("a publication that nobody sent".into());
        };
        let publisher = publisher as usize;
        if let Some(offset) = publication["offset"].as_u64() {
            if offset != view.offset + 1 {
                return Err(format!("offset {offset} behind {}", view.offset));
            }
            view.offset = offset;
            ledger.placed(channel, offset, (publisher, n))?;
        } else if self.history {
            return Err("a publication without offset".into());
        }
        if let Some(before) = view.seen.insert(publisher, n)
            && n != before + 1
        {
            return Err(format!("number {n} of publisher {publisher} behind {before}"));
        }
        ledger.sent(channel, publisher, n)
    }
}
