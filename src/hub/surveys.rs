//! Surveys: the channels with subscribers on this shard, reported to the control plane. A survey
//! walks over all channels of the shard, some in each turn.

use crate::base::work_budget::cost;
use crate::hub::bounded_walks::SurveyWalk;
use crate::hub::shard_state::Hub;
use crate::model::glob::glob_matches;
use crate::model::message::{Message, Post, Survey, Surveyed};

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
            while walk.next < self.locals.channel_end() && !self.is_spent() {
                self.budget.charge(cost::LOOK);
                let found = self.locals.subscriber_count(walk.next);
                let pattern = walk.survey.pattern.as_deref();
                let matching = found
                    .filter(|(name, _)| pattern.is_none_or(|pattern| glob_matches(pattern, name)));
                walk.found.channels.extend(matching.map(|(name, number)| (name.clone(), number)));
                walk.next += 1;
            }
            if walk.next < self.locals.channel_end() {
                return self.surveys.push_front(walk);
            }
            post.send(self.control, Message::Surveyed(Box::new(walk.found)));
        }
    }
}
