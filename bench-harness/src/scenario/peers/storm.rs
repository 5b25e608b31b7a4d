//! Reconnect storm of a target: all connections are cut and reconnect at once, without and with
//! missed publications.
//!
//! Owns the numbers of `storm`. Never restarts the target. Invariant: with a target that supports
//! recovery, every connection must receive every publication that it missed.

use std::time::Instant;

use anyhow::{Result, bail};

use super::quantities::{BACK, LOST, WHOLE};
use super::scenarios::{BYTES, MISSED, Scenario, Stage};
use super::turn::{PATIENCE, SETTLE, Turn, client};
use crate::dense::Dense;
use crate::publish::Api;
use crate::scenario::Burst;
use crate::target::Recovery;
use crate::wire::Data;

impl Turn<'_> {
    /// Reconnects all connections, then again with recovery if the target supports it.
    pub(super) fn storm(&mut self) -> Result<()> {
        self.cut()?;
        let ramp = self.dense.come_back(false)?;
        self.up(ramp)?;
        self.set(Scenario::Storm, BACK, ramp.took.as_nanos() as f64);
        let Some(recovery) = self.peer.adapter().recovery() else {
            let told = format!("{WHOLE} does not apply: it keeps no messages");
            self.tables.remark(Scenario::Storm, &told);
            return Ok(());
        };
        self.tables.remark(Scenario::Storm, &format!("recovers {}", recovery.by));
        self.recover(recovery)
    }

    /// Cuts all connections and gives the target time to notice.
    fn cut(&mut self) -> Result<()> {
        self.dense.cut()?;
        std::thread::sleep(SETTLE);
        self.peer.alive()
    }

    /// Every connection receives one publication, is cut, misses some and recovers them.
    fn recover(&mut self, recovery: Recovery) -> Result<()> {
        let Recovery { dialect, api, .. } = recovery;
        // The connections of the previous step end first.
        self.cut()?;
        let plan = client(self.bench, self.peer, (dialect, Stage::Storm), self.plan);
        let again = Dense::start(plan, self.bench.clock)?;
        again.track()?;
        std::mem::replace(&mut self.dense, again).stop()?;
        let ramp = self.dense.ramp()?;
        self.up(ramp)?;
        let heard = self.deliver(burst(1, &api))?;
        self.lost(Scenario::Storm, &heard.recorder.deliveries, "before the cut in ");
        self.cut()?;
        let to = self.peer.publish_address();
        let (_, expected, published) = self.bench.send(to, &self.dense, burst(MISSED, &api))?;
        if let Some(refusal) = published.refusal {
            bail!("a publication was refused: {refusal}");
        }
        let begun = Instant::now();
        let ramp = self.dense.come_back(true)?;
        self.up(ramp)?;
        self.dense.await_delivered(expected, PATIENCE);
        let whole = begun.elapsed();
        let recorder = self.dense.finish(expected)?;
        let lost = self.lost(Scenario::Storm, &recorder.deliveries, "");
        self.set(Scenario::Storm, LOST, lost as f64);
        if lost == 0 {
            self.set(Scenario::Storm, WHOLE, whole.as_nanos() as f64);
        }
        Ok(())
    }
}

fn burst(messages: u64, api: &Api) -> Burst {
    Burst { api: api.clone(), ..Burst::to_all(messages, Data::Filled(BYTES), 1) }
}
