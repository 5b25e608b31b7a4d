//! Admission within the connection limit of a user: the home of the user admits a connection before
//! its connect is answered, and is informed when the connection is gone.

use crate::base::work_budget::cost;
use crate::hub::command_failure::InboxFull;
use crate::hub::connections::Admission;
use crate::hub::paused_input::PauseReason;
use crate::hub::shard_state::Hub;
use crate::model::message::{Admit, Admitted, Message, Post, Rank};
use crate::wire::protocol::Disconnect;

impl Hub {
    /// The initial state of the admission of a connection.
    pub(super) fn initial_admission(&self, slot: u32) -> Admission {
        let named = !self.connections[slot].user().is_empty();
        if named && self.settings.user_limit.counts() {
            Admission::Unasked
        } else {
            Admission::Admitted
        }
    }

    /// Continues the admission of a held connect; returns whether it is admitted.
    pub(super) fn is_admitted(&mut self, post: &mut impl Post, slot: u32) -> bool {
        let hold = self.connections[slot].hold as usize;
        let must_ask = self
            .connections
            .holds
            .get(hold)
            .is_some_and(|hold| hold.admission == Admission::Unasked);
        if must_ask && self.ask_admission(post, slot).is_err() {
            self.pause(slot, PauseReason::Blocked);
        }
        // The connection may have been refused, which drops its hold.
        let hold = self.connections[slot].hold as usize;
        self.connections.holds.get(hold).is_some_and(|hold| hold.admission == Admission::Admitted)
    }

    fn ask_admission(&mut self, post: &mut impl Post, slot: u32) -> Result<(), InboxFull> {
        let user = self.names.hash(self.connections[slot].user());
        // The home must get earlier departures of the user before the new connection.
        self.send_departures(post);
        if self.departures.iter().any(|departure| departure.user == user) {
            return Err(InboxFull);
        }
        let admit = Admit { user, address: self.address(slot) };
        let home = self.names.home(user);
        if !post.reserve(home, Rank::Request) {
            return Err(InboxFull);
        }
        let hold = self.connections[slot].hold as usize;
        self.connections.holds[hold].admission = Admission::Requested;
        self.connections[slot].flags.set_admitted(true);
        post.send(home, Message::Admit(admit));
        Ok(())
    }

    /// Handles the decision of a home. The connections that it refers to may be gone.
    pub(super) fn admission_answered(&mut self, Admitted { newcomer, replaced }: Admitted) {
        if let Some(address) = replaced
            && self.connection(address.slot, address.generation).is_some()
        {
            self.disconnect(address.slot, Disconnect::CONNECTION_LIMIT);
        }
        let Some((address, admits)) = newcomer else { return };
        let Some(connection) = self.connection(address.slot, address.generation) else { return };
        let hold = connection.hold as usize;
        let Some(hold) = self.connections.holds.get_mut(hold) else { return };
        if admits {
            hold.admission = Admission::Admitted;
            self.pause(address.slot, PauseReason::Ready);
        } else {
            self.disconnect(address.slot, Disconnect::CONNECTION_LIMIT);
        }
    }

    /// Sends departures to the homes of users, while inboxes have room.
    pub(super) fn send_departures(&mut self, post: &mut impl Post) {
        while !self.departures.is_empty() && !self.is_spent() {
            self.budget.charge(cost::MESSAGE);
            let Some(departure) = self.departures.front() else { return };
            let home = self.names.home(departure.user);
            if post.reserve(home, Rank::Request) {
                post.send(home, Message::Depart(departure.clone()));
            } else {
                return;
            }
            self.departures.pop_front();
        }
    }
}
