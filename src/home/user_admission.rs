//! Admission of a connection within the connection limit of its user, decided by the user's home.
//!
//! Owns nothing. Never closes a connection: the connection's shard does.

use crate::home::{Home, reserve_all};
use crate::model::message::{Admit, Admitted, Message, Post};

impl Home {
    /// Decides whether a user may have one more connection. Informs the connection's shard and the
    /// shard of the connection that it replaces.
    pub(super) fn admit(&mut self, post: &mut impl Post, admit: Admit) -> Result<(), Message> {
        let replaced = self.users.replaced(admit.user, self.user_limit);
        let reply_to = admit.address.shard;
        let other = replaced.map(|address| address.shard).filter(|shard| *shard != reply_to);
        let recipients = 1 << reply_to | other.map_or(0, |shard| 1 << shard);
        if reserve_all(post, recipients).is_err() {
            return Err(Message::Admit(admit));
        }
        let admits = self.users.admit(admit.user, admit.address, self.user_limit);
        let newcomer = Some((admit.address, admits));
        let own = replaced.filter(|_| other.is_none());
        post.send(reply_to, Message::Admitted(Admitted { newcomer, replaced: own }));
        if let Some(other) = other {
            post.send(other, Message::Admitted(Admitted { newcomer: None, replaced }));
        }
        Ok(())
    }
}
