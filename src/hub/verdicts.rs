//! Tokens that take too long to look at are looked at elsewhere, while their connections wait: the
//! command that brought one is run again when the verdict is there.

use crate::hub::Hub;
use crate::hub::commands::Stop;
use crate::message::{Message, Post, Purpose, Rank, Verdict, Verified, Verify};

impl Hub {
    /// What is known of a connection's token, or why the connection has to wait.
    pub(super) fn verdict(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        token: &str,
        purpose: Purpose,
    ) -> Result<Verdict, Stop> {
        match self.verdicts.remove(&slot) {
            Some(Some(verdict)) => return Ok(verdict),
            Some(None) => {}
            None if !post.reserve(self.control, Rank::Ingress) => return Err(Stop::Room),
            None => {
                let verify = Verify { address: self.address(slot), token: token.into(), purpose };
                post.send(self.control, Message::Verify(Box::new(verify)));
            }
        }
        self.verdicts.insert(slot, None);
        Err(Stop::Wait)
    }

    /// A token has been looked at; its connection goes on if it is still there.
    pub(super) fn verified(&mut self, verified: Verified) {
        let Verified { address, verdict } = verified;
        let waits = self.connection(address.slot, address.generation).is_some();
        if let Some(awaited) = self.verdicts.get_mut(&address.slot).filter(|_| waits) {
            *awaited = Some(verdict);
            self.go_on_later(address.slot);
        }
    }

    /// The connection does not wait any more.
    pub(super) fn forget_verdict(&mut self, slot: u32) {
        self.verdicts.remove(&slot);
        self.connects.remove(&slot);
    }
}
