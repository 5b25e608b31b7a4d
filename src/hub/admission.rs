//! How many connections a user may have: each is admitted by its user's home before its connect is
//! answered, and the home is told when it is gone.

use crate::base::budget::cost;
use crate::hub::Hub;
use crate::hub::commands::NoRoom;
use crate::hub::connections::Stage;
use crate::hub::waiting::Pause;
use crate::model::message::{Admit, Admitted, Depart, Message, Post, Rank};
use crate::wire::protocol::Disconnect;

impl Hub {
    /// Where the admission of a connection begins.
    pub(super) fn admission(&self, slot: u32) -> Stage {
        let named = !self.connections[slot].user().is_empty();
        if named && self.settings.user_limit.counts() { Stage::RingRequests } else { Stage::Done }
    }

    /// Goes on with the admission of a held connection, as far as there is room; returns whether
    /// it is admitted.
    pub(super) fn is_admitted(&mut self, post: &mut impl Post, slot: u32) -> bool {
        let hold = self.connections[slot].hold as usize;
        let ring_requests = self
            .connections
            .holds
            .get(hold)
            .is_some_and(|hold| hold.admission == Stage::RingRequests);
        if ring_requests && self.ask_admission(post, slot).is_err() {
            self.pause(slot, Pause::Blocked);
        }
        // It may have been refused, and its hold is gone.
        let hold = self.connections[slot].hold as usize;
        self.connections.holds.get(hold).is_some_and(|hold| hold.admission == Stage::Done)
    }

    fn ask_admission(&mut self, post: &mut impl Post, slot: u32) -> Result<(), NoRoom> {
        let user = self.names.hash(self.connections[slot].user());
        // Its home must hear who is gone before it hears who comes.
        self.tell_departures(post);
        if self.departures.iter().any(|departure| departure.user == user) {
            return Err(NoRoom);
        }
        let admit = Admit { user, address: self.address(slot) };
        let home = self.names.home(user);
        if !post.reserve(home, Rank::Request) {
            return Err(NoRoom);
        }
        let hold = self.connections[slot].hold as usize;
        self.connections.holds[hold].admission = Stage::Asked;
        self.connections[slot].flags.set_admitted(true);
        post.send(home, Message::Admit(admit));
        Ok(())
    }

    /// A home has decided; who is meant may be gone.
    pub(super) fn admitted(&mut self, Admitted { newcomer, replaced }: Admitted) {
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
            hold.admission = Stage::Done;
            self.pause(address.slot, Pause::Ready);
        } else {
            self.disconnect(address.slot, Disconnect::CONNECTION_LIMIT);
        }
    }

    /// A connection's user is forgotten: the user's home is to know.
    pub(super) fn note_departure(&mut self, slot: u32, user: u64) {
        let address = self.address(slot);
        let flags = &mut self.connections[slot].flags;
        if flags.admitted() {
            flags.set_admitted(false);
            self.departures.push_back(Depart { user, address });
        }
    }

    /// Tells homes of users who is gone, as far as there is room.
    pub(super) fn tell_departures(&mut self, post: &mut impl Post) {
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
