//! Surveys: the channels with subscribers on this shard, reported to the control plane. A survey
//! walks over all channels of the shard, some in each turn, or looks channels up by name.

use std::sync::Arc;

use crate::base::work_budget::cost;
use crate::hub::bounded_walks::SurveyWalk;
use crate::hub::shard_state::Hub;
use crate::model::glob::glob_matches;
use crate::model::message::{Message, Post, Scope, Survey, Surveyed};

impl Hub {
    /// Begins a survey. The control plane has reserved room for the answer.
    pub(super) fn begin_survey(&mut self, survey: Survey) {
        let found = Surveyed { tag: survey.tag, channels: Vec::new() };
        self.surveys.push_back(SurveyWalk { survey, next: 0, found });
        self.unfinished = true;
    }

    /// Continues surveys. A channel that is removed and added again meanwhile can be reported
    /// twice.
    pub(super) fn continue_surveys(&mut self, post: &mut impl Post) {
        while let Some(mut walk) = self.surveys.pop_front() {
            let end = self.survey_end(&walk);
            while walk.next < end && !walk.is_full() && !self.is_spent() {
                self.budget.charge(cost::LOOK);
                let found = self.surveyed(&walk.survey.scope, walk.next);
                walk.found.channels.extend(found.map(|(name, number)| (name.clone(), number)));
                walk.next += 1;
            }
            if walk.next < end && !walk.is_full() {
                return self.surveys.push_front(walk);
            }
            post.send(self.control, Message::Surveyed(Box::new(walk.found)));
        }
    }

    /// Number of steps of a survey.
    fn survey_end(&self, walk: &SurveyWalk) -> u32 {
        match &walk.survey.scope {
            Scope::Matching { .. } => self.locals.channel_end(),
            Scope::Named(names) => names.len() as u32,
        }
    }

    /// The channel that a step of a survey finds, and the number of its subscribers.
    fn surveyed(&self, scope: &Scope, step: u32) -> Option<(&Arc<str>, u32)> {
        match scope {
            Scope::Matching { pattern, .. } => {
                let matches = |name: &str| {
                    pattern.as_deref().is_none_or(|pattern| glob_matches(pattern, name))
                };
                self.locals.subscriber_count(step).filter(|(name, _)| matches(name))
            }
            Scope::Named(names) => {
                let name = names.get(step as usize)?;
                self.locals.subscribers_of(self.names.hash(name), name)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::tests::{ROOMY, hub, say, subscriber, transmit};
    use crate::model::message::tests::Recorder;

    #[test]
    fn a_survey_finds_channels_by_name_or_at_most_a_number_that_match() {
        let mut hub = hub(ROOMY, ROOMY, ROOMY);
        let slot = subscriber(&mut hub);
        for (nth, name) in ["d1", "d2", "e1"].into_iter().enumerate() {
            let subscribe = format!(r#"{{"id":{},"subscribe":{{"channel":"{name}"}}}}"#, nth + 3);
            say(&mut hub, slot, &subscribe);
        }
        transmit(&mut hub, &[]);
        let mut survey = |scope: Scope| {
            let mut post = Recorder::default();
            hub.handle(&mut post, Message::Survey(Box::new(Survey { tag: 3, scope }))).unwrap();
            hub.send_waiting(&mut post);
            let Some((_, Message::Surveyed(found))) = post.sent.pop() else { panic!("an answer") };
            let mut names: Vec<_> =
                found.channels.iter().map(|(name, number)| (name.to_string(), *number)).collect();
            names.sort_unstable();
            names
        };
        let named = |name: &str| (name.to_owned(), 1);
        let names = ["e1", "none", "c"].map(Arc::from).into();
        assert_eq!(survey(Scope::Named(names)), [named("c"), named("e1")]);
        let matching = |most| Scope::Matching { pattern: Some("d*".to_owned()), most };
        assert_eq!(survey(matching(9)), [named("d1"), named("d2")]);
        assert_eq!(survey(matching(1)).len(), 1);
        assert_eq!(survey(matching(0)).len(), 0);
    }
}
