//! The checks of each reply and push against what the client sent and received before.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Asked, Client, Outstanding, Since, UNAVAILABLE, View};
use crate::ledger::{Known, Ledger};

impl Client {
    pub(super) fn text(&mut self, payload: &[u8], ledger: &mut Ledger) -> Result<(), String> {
        trace!("  client {} gets {}", self.number, String::from_utf8_lossy(payload));
        ledger.note(payload);
        let value: Value = serde_json::from_slice(payload)
            .map_err(|error| format!("{error} in {}", String::from_utf8_lossy(payload)))?;
        let checked = if value.as_object().is_some_and(|object| object.is_empty()) {
            Ok(())
        } else if let Some(id) = value["id"].as_u64() {
            self.reply(id, &value, ledger)
        } else if value["connect"].is_object() {
            self.connect_push(&value["connect"], ledger)
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

    fn reply(&mut self, id: u64, value: &Value, ledger: &mut Ledger) -> Result<(), String> {
        let at = self.outstanding.iter().position(|asked| asked.id == id);
        let Some(asked) = at.and_then(|at| self.outstanding.remove(at)) else {
            return Err("a reply to nothing".into());
        };
        let Outstanding { channel, asked, known, .. } = asked;
        // The reply to a publication waits for the disk, and a refusal does not.
        let is_ordered =
            |asked: &Asked| !ledger.terms.durable || !matches!(asked, Asked::Publish(_));
        let earlier = |other: &&Outstanding| other.id < id && other.channel == channel;
        let mut earlier = self.outstanding.iter().filter(earlier);
        if is_ordered(&asked) && earlier.any(|other| is_ordered(&other.asked)) {
            return Err("a reply out of order".into());
        }
        let is_unavailable = ledger.terms.durable && value["error"]["code"] == UNAVAILABLE;
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
                self.subscribed(channel, (since, known), &value["subscribe"], ledger)?;
            }
            Asked::Subscribe(_) if is_unavailable => {}
            Asked::Unsubscribe if value["unsubscribe"].is_object() => {
                self.views[channel].subscribed = false;
            }
            Asked::Publish(n) if value["publish"].is_object() => {
                ledger.acknowledged(channel, (self.number, n))?;
            }
            Asked::Publish(n) if is_unavailable => ledger.refused(channel, (self.number, n))?,
            Asked::Stats if value["presence_stats"].is_object() => {
                self.counted = value["presence_stats"]["num_clients"].as_u64();
            }
            other => return Err(format!("a reply that does not fit {other:?}")),
        }
        Ok(())
    }

    fn connect_push(&mut self, value: &Value, ledger: &mut Ledger) -> Result<(), String> {
        if !self.uni || std::mem::replace(&mut self.connected, true) {
            return Err("a connect push too many".into());
        }
        let told = value["subs"].as_object().map_or(0, |subs| subs.len());
        if told != self.wanted.len() {
            return Err(format!("not the wanted channels {:?}", self.wanted));
        }
        for (channel, since, known) in self.wanted.clone() {
            let answer = &value["subs"][format!("c{channel}")];
            if !answer.is_object() {
                return Err(format!("no c{channel}"));
            }
            self.subscribed(channel, (since, known), answer, ledger)?;
        }
        Ok(())
    }

    fn subscribed(
        &mut self,
        channel: usize,
        (since, known): (Option<Since>, Known),
        answer: &Value,
        ledger: &mut Ledger,
    ) -> Result<(), String> {
        let recovered = answer["recovered"] == true;
        let offset = answer["offset"].as_u64().unwrap_or(0);
        let epoch = answer["epoch"].as_str().unwrap_or("").to_owned();
        let missed = answer["publications"].as_array().cloned().unwrap_or_default();
        if !recovered && !missed.is_empty() {
            return Err("publications though not recovered".into());
        }
        if recovered && since.as_ref().is_none_or(|(_, since)| *since != offset) {
            return Err("recovered from another offset".into());
        }
        if ledger.terms.history == epoch.is_empty()
            || (answer["was_recovering"] == true) != since.is_some()
        {
            return Err("not what was asked for".into());
        }
        let top = offset + missed.len() as u64;
        if ledger.terms.history {
            ledger.position(channel, (&epoch, top), known)?;
        }
        match since {
            Some((asked, _)) if recovered && asked != epoch => {
                return Err(format!("recovered from epoch {asked}"));
            }
            Some((asked, since)) if !recovered && asked == epoch && !self.manners.may_be_slow => {
                ledger.not_recovered(channel, since, top)?;
            }
            _ => {}
        }
        let (view, since) = (&mut self.views[channel], ledger.step);
        let number = answer["id"].as_u64().unwrap_or(0);
        *view = View { subscribed: true, since, number, epoch, offset, seen: BTreeMap::new() };
        for publication in &missed {
            self.publication(channel, publication, ledger)?;
            ledger.is_kept(channel, self.views[channel].offset, known)?;
        }
        Ok(())
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
        } else if ledger.terms.history {
            return Err("a publication without offset".into());
        }
        if let Some(before) = view.seen.insert(publisher, n) {
            ledger.passed_over(channel, (publisher, n), before)?;
        }
        ledger.sent(channel, (publisher, n))
    }
}
