//! Commands to the lanes of the dense client. A lane has the connections of one ring.
//!
//! Owns the handle that sends a command. Never runs a lane.

use std::os::fd::OwnedFd;
use std::sync::mpsc::Sender;

use super::pings::{PingTally, PingWindow};
use crate::latency::Recorder;

/// A command to a lane.
pub(super) enum Command {
    /// Begin a phase: reset the sequence numbers and start recording.
    Begin(u16, Sender<()>),
    /// End the phase and return its recorder.
    Finish(Sender<Recorder>),
    /// Open a window of pings with this interval, in ms.
    BeginPings(u64, Sender<()>),
    /// Return the pings of the window until this moment, in ms.
    CountPings(PingWindow, u64, Sender<PingTally>),
    /// Close the window of pings.
    EndPings(Sender<()>),
    /// Let stalled connections read again.
    Resume,
    /// Count the connections that are not up yet as refused, with what they wait for as the cause.
    GiveUp(Sender<()>),
    /// Open the connections that were held back.
    OpenRest,
    /// Start to track the position of the shared channel.
    Track,
    /// Let every connection that is up ask for the items of its channel.
    Ask,
    /// Send one more line of a head that does not end, on every connection that began one.
    Drip,
    /// Close every connection from the client side.
    Cut,
    /// Reconnect the connections that were cut. `true`: they request recovery.
    ComeBack(bool),
    /// End the lane.
    Stop,
}

/// Handle to the connections of one ring.
pub(super) struct Lane {
    pub(super) commands: Sender<Command>,
    /// Doorbell of the thread that runs the lane.
    pub(super) bell: OwnedFd,
}

impl Lane {
    /// Sends a command and wakes the thread. Returns false if the lane has ended.
    pub(super) fn tell(&self, command: Command) -> bool {
        let heard = self.commands.send(command).is_ok();
        drumline::base::sys::ring_doorbell(&self.bell);
        heard
    }
}
