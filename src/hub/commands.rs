//! Commands: which of them a client may send now, and their dispatch.

use crate::base::metrics::FrameType;
use crate::hub::command_failure::{CommandFailure, StopReason};
use crate::hub::connections::{NONE, Phase};
use crate::hub::shard_state::Hub;
use crate::model::message::Post;
use crate::wire::protocol::Disconnect;
use crate::wire::protocol::command::{Command, Request};

const BAD_REQUEST: StopReason = StopReason::Disconnect(Disconnect::BAD_REQUEST);

impl Hub {
    /// Runs one command. On an `Err` other than a disconnect, nothing has changed.
    pub(super) fn command(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        command: &Command<'_>,
    ) -> Result<(), StopReason> {
        let connection = &self.connections[slot];
        if connection.hold != NONE {
            return Err(StopReason::Wait);
        }
        if connection.flags.connect_refused() {
            return Err(BAD_REQUEST);
        }
        let connected = connection.phase == Phase::Connected;
        let began = match self.connections.awaited_answers.get(&slot) {
            // The command may no longer need the answer. A later one must not get it.
            Some(None) => return Err(StopReason::Wait),
            Some(Some(_)) => connection.stamp,
            None => self.stamp(),
        };
        self.answering = (frame_type(command), began);
        match &command.request {
            Some(Request::Connect(request)) if !connected && command.id != 0 => {
                self.connect(post, slot, command.id, request)
            }
            _ if !connected => Err(BAD_REQUEST),
            Some(Request::Send) => Err(StopReason::Disconnect(Disconnect::NOT_AVAILABLE)),
            _ if command.id == 0 => self.pong(slot),
            Some(Request::Connect(_) | Request::Ping) | None => Err(BAD_REQUEST),
            Some(request) => self.request(post, slot, command.id, request),
        }
    }

    fn request(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        id: u32,
        request: &Request<'_>,
    ) -> Result<(), StopReason> {
        let result = match request {
            Request::Subscribe(request) => self.subscribe(post, slot, id, request),
            Request::Unsubscribe(request) => self.unsubscribe(slot, id, &request.channel),
            Request::Publish(request) => self.publish(post, slot, id, request),
            Request::Presence(request) => self.presence(post, slot, id, &request.channel),
            Request::PresenceStats(request) => self.stats(post, slot, id, &request.channel),
            Request::History(request) => self.history(post, slot, id, request),
            Request::SubRefresh(request) => self.sub_refresh(post, slot, id, request),
            Request::Refresh(request) => self.refresh(post, slot, id, request),
            Request::Rpc(request) => self.rpc(post, slot, id, request),
            Request::Connect(_) | Request::Ping | Request::Send => Err(BAD_REQUEST.into()),
        };
        // A command that is retried keeps the outcome of its lookup.
        let again = matches!(
            result,
            Err(CommandFailure::Stop(StopReason::Room | StopReason::Wait | StopReason::Turn))
        );
        if !again {
            self.use_up_answer(slot);
        }
        match result {
            Ok(()) | Err(CommandFailure::Answered) => Ok(()),
            Err(CommandFailure::Stop(stop)) => Err(stop),
            Err(CommandFailure::Error(error)) => {
                self.reply_error(slot, id, error);
                Ok(())
            }
        }
    }

    fn pong(&mut self, slot: u32) -> Result<(), StopReason> {
        let flags = &mut self.connections[slot].flags;
        if !flags.pong_due() || flags.frame_pings() {
            return Err(BAD_REQUEST);
        }
        flags.set_pong_due(false);
        self.count_pong(slot);
        Ok(())
    }
}

/// The type of a command, for metrics.
pub(super) fn frame_type(command: &Command<'_>) -> FrameType {
    match &command.request {
        Some(Request::Connect(_)) => FrameType::Connect,
        Some(Request::Send) => FrameType::Send,
        Some(Request::Ping) => FrameType::ClientPong,
        _ if command.id == 0 => FrameType::ClientPong,
        Some(Request::Subscribe(_)) => FrameType::Subscribe,
        Some(Request::Unsubscribe(_)) => FrameType::Unsubscribe,
        Some(Request::Publish(_)) => FrameType::Publish,
        Some(Request::Presence(_)) => FrameType::Presence,
        Some(Request::PresenceStats(_)) => FrameType::PresenceStats,
        Some(Request::History(_)) => FrameType::History,
        Some(Request::Rpc(_)) => FrameType::Rpc,
        Some(Request::Refresh(_)) => FrameType::Refresh,
        Some(Request::SubRefresh(_)) => FrameType::SubRefresh,
        None => FrameType::Unknown,
    }
}
