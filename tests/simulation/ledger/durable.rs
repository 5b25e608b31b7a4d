//! The rules of durable channels: what may be missing, and why.
//!
//! Owns no state of its own: it is in [`Ledger`]. Never excuses more than retention, removals and
//! requests without an answer can have caused.

use super::{Channel, Known, Ledger, Outcome, Placed, Published, Range, Source};
use crate::random::Random;

impl Channel {
    /// Removals without an answer have happened or not; they happen no more.
    pub(super) fn crashed(&mut self, step: usize) {
        if std::mem::take(&mut self.open_removals) > 0 {
            self.removed_before = step + 1;
        }
    }

    /// Whether a removal may have taken a publication.
    fn may_be_removed(&self, published: &Published) -> bool {
        self.open_removals > 0 || published.at < self.removed_before
    }
}

impl Range {
    pub const ALL: Range = Range { limit: 100_000, since: None, reverse: false };

    /// A random part of a history that ends at `top` or later.
    pub fn random(top: u64, random: &mut Random) -> Self {
        let since = random.one_in(2).then(|| random.between(0, top as usize) as u64);
        Range { limit: random.pick(&[1, 2, 5, 100]), since, reverse: random.one_in(2) }
    }

    /// The offsets that it may have, of a history that ends at `top`.
    fn offsets(self, top: u64) -> std::ops::Range<u64> {
        match (self.since, self.reverse) {
            (None, _) => 1..top + 1,
            // As in Centrifugo, nothing lies before an offset that is not next.
            (Some(since), true) if since > top + 1 => 1..1,
            (Some(since), true) => 1..since.max(1),
            (Some(since), false) => since + 1..(top + 1).max(since + 1),
        }
    }
}

impl Ledger {
    /// A removal of the history of a channel is requested.
    pub fn removing(&mut self, channel: usize) -> Known {
        self.channels[channel].open_removals += 1;
        self.known(channel)
    }

    /// The answer to a removal: `done`, or that it failed.
    pub fn removed(&mut self, channel: usize, known: Known, done: bool) {
        let step = self.step;
        let found = &mut self.channels[channel];
        found.open_removals -= 1;
        found.removed_before = step + 1;
        if done
            && let Some(life) = known.lives.checked_sub(1).and_then(|at| found.lives.get_mut(at))
        {
            life.removals.push((known.top, step));
        }
    }

    /// A publication is in the answer to a request: no removal that was acknowledged before the
    /// request has taken it.
    pub fn is_kept(&self, channel: usize, offset: u64, known: Known) -> Result<(), String> {
        let removals = self.channels[channel].lives.last().map(|life| &life.removals);
        let is_gone = |(through, at): &(u64, usize)| offset <= *through && *at <= known.step;
        match removals.is_some_and(|removals| removals.iter().any(is_gone)) {
            true => Err(format!("offset {offset} of c{channel} was removed and is back")),
            false => Ok(()),
        }
    }

    fn may_have_expired(&self, published: &Published) -> bool {
        self.clock.longest_since(published.since) >= self.terms.ttl
    }

    /// Whether the stream of a channel may have ended.
    pub(super) fn may_have_ended(&self, channel: usize) -> bool {
        let index = self.channels[channel].lives.len();
        if !self.terms.durable {
            return false;
        }
        let of_life = |published: &&Published| published.place.is_some_and(|(at, _)| at == index);
        let publications = self.channels[channel].publications.values();
        let newest = publications.clone().filter(of_life).map(|published| published.since).max();
        // Those without a place belong to this stream or to the next one.
        let oldest = publications.filter(|published| published.place.is_none());
        match newest.or(oldest.map(|published| published.since).min()) {
            Some(moment) => self.clock.longest_since(moment) >= self.terms.meta_ttl,
            // The epoch of a stream without publications follows from how the last one ended.
            None => index > 1,
        }
    }

    /// Whether the publication at an offset may be missing, below the offset `top`.
    fn may_be_gone(&self, channel: usize, offset: u64, top: u64) -> bool {
        let found = &self.channels[channel];
        let is_gone = |published: &Published| {
            found.may_be_removed(published) || self.may_have_expired(published)
        };
        if offset + self.terms.size as u64 <= top {
            return true;
        }
        let place = found.lives.last().and_then(|life| life.places.get(&offset));
        match place.and_then(|what| found.publications.get(what)) {
            Some(published) => is_gone(published),
            // One of those whose places nobody has seen.
            None => {
                let unplaced = found.publications.values().filter(|one| one.place.is_none());
                let candidates =
                    unplaced.filter(|one| one.outcome != Outcome::Refused(self.process));
                candidates.clone().count() == 0 || candidates.into_iter().any(is_gone)
            }
        }
    }

    /// A recovery from `since` failed, and the stream is at `top`: retention must be the reason.
    pub fn not_recovered(&self, channel: usize, since: u64, top: u64) -> Result<(), String> {
        if !self.terms.durable {
            return Ok(());
        }
        let error = || format!("nothing excuses that c{channel} lost {since}..={top}");
        let Some(missed) = top.checked_sub(since) else { return Err(error()) };
        // No publication of the simulation takes more bytes.
        let is_large = missed as usize * 1_000 > self.terms.answer_bytes;
        let is_long = missed as usize > self.terms.recovery_limit;
        let is_gone = || (since + 1..=top).any(|offset| self.may_be_gone(channel, offset, top));
        (is_large || is_long || is_gone()).then_some(()).ok_or_else(error)
    }

    /// An idempotency key on disk names the place of its publication, if anybody has seen either.
    pub fn check_key(&self, (epoch, offset): (&str, u64), what: Source) -> Result<(), String> {
        let lives = self.channels.iter().flat_map(|channel| &channel.lives);
        let known =
            lives.filter(|life| life.epoch == epoch).find_map(|life| life.places.get(&offset));
        match known {
            Some(known) if *known != what => {
                Err(format!("the key of {what:?} names offset {offset}, which is {known:?}"))
            }
            _ => Ok(()),
        }
    }

    /// A part of the history of a channel, as an answer has it.
    pub fn history(
        &mut self,
        channel: usize,
        (range, mut found): (Range, Vec<Placed>),
        (epoch, top): (&str, u64),
        known: Known,
    ) -> Result<(), String> {
        self.position(channel, (epoch, top), known)?;
        if range.reverse {
            found.reverse();
        }
        let wanted = range.offsets(top);
        let mut last = 0;
        for (offset, what) in &found {
            if *offset <= last || !wanted.contains(offset) || found.len() > range.limit {
                return Err(format!("{found:?} is not in order, or not {range:?} at {top}"));
            }
            last = *offset;
            self.sent(channel, *what)?;
            self.placed(channel, *offset, *what)?;
            self.is_kept(channel, *offset, known)?;
        }
        if !self.terms.durable {
            return Ok(());
        }
        // Up to the limit, nothing is left out.
        let due = match (&found[..], found.len() < range.limit) {
            (_, true) => wanted,
            ([], false) => return Ok(()),
            ([(first, _), ..], false) if range.reverse => *first..wanted.end,
            (_, false) => wanted.start..last,
        };
        let has = |offset: u64| found.binary_search_by_key(&offset, |(at, _)| *at).is_ok();
        let places = self.channels[channel].lives.last().map(|life| &life.places);
        let missing = places
            .into_iter()
            .flat_map(|places| places.range(due.clone()))
            .find(|(offset, _)| !has(**offset) && !self.may_be_gone(channel, **offset, top));
        if let Some((offset, what)) = missing {
            return Err(format!("offset {offset} of c{channel}, {what:?}, is missing at {top}"));
        }
        match range == Range::ALL {
            true => self.acknowledged_are_there(channel, known),
            false => Ok(()),
        }
    }

    /// Publications that were acknowledged before a request have a place, unless so many may have
    /// come later that retention has taken them unseen.
    fn acknowledged_are_there(&self, channel: usize, known: Known) -> Result<(), String> {
        let found = &self.channels[channel];
        let acknowledged = |published: &Published| match published.outcome {
            Outcome::Acknowledged(step) => step < known.step,
            _ => false,
        };
        for (what, published) in &found.publications {
            let is_due = published.place.is_none()
                && acknowledged(published)
                && !found.may_be_removed(published)
                && !self.may_have_expired(published);
            if !is_due {
                continue;
            }
            let before = |other: &Published| match other.outcome {
                Outcome::Acknowledged(step) => step < published.at,
                _ => false,
            };
            let later = found.publications.values().filter(|other| !before(other)).count();
            // It counts itself.
            if later <= self.terms.size {
                return Err(format!("{what:?}, acknowledged in c{channel}, is nowhere"));
            }
        }
        Ok(())
    }
}
