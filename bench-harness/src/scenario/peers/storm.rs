//! Reconnect storm of a target: all connections are cut and reconnect at once, without and with
//! missed publications.
//!
//! Owns the numbers of `storm` and `recovery`. Never restarts the target.
//! Invariant: with a target that supports recovery, every connection must receive every
//! publication that it missed.

use std::time::Instant;

use anyhow::{Result, bail};

use super::quantities::{BACK, CLIENT_CPU_CLIENT, CPU_CLIENT, LOST, WHOLE};
use super::scenarios::{BYTES, LARGE, MISSED, Scenario};
use super::turn::{PATIENCE, SETTLE, Turn, client, own};
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
            let told = format!("{WHOLE} does not apply: recovers no messages in this harness");
            self.tables.remark(Scenario::Storm, &told);
            return Ok(());
        };
        self.tables.remark(Scenario::Storm, &format!("recovers {}", recovery.by));
        self.recover(Scenario::Storm)
    }

    /// Cuts all connections and gives the target time to notice.
    fn cut(&mut self) -> Result<()> {
        self.dense.cut()?;
        std::thread::sleep(SETTLE);
        self.peer.alive()
    }

    /// Every connection receives one publication, is cut, misses some and recovers them.
    pub(super) fn recover(&mut self, scenario: Scenario) -> Result<()> {
        let Some(Recovery { dialect, api, .. }) = self.peer.adapter().recovery() else {
            return Ok(());
        };
        let (missed, bytes) = match scenario {
            Scenario::Recovery => LARGE,
            _ => (MISSED, BYTES),
        };
        // The connections of the previous step end first.
        self.cut()?;
        let plan = client(self.bench, self.peer, (dialect, scenario.stage()), self.plan);
        let again = Dense::start(plan, self.bench.clock)?;
        again.track()?;
        std::mem::replace(&mut self.dense, again).stop()?;
        let ramp = self.dense.ramp()?;
        self.up(ramp)?;
        let heard = self.deliver(burst(1, bytes, &api))?;
        self.lost(scenario, &heard.recorder.deliveries, "before the cut in ");
        self.cut()?;
        let to = self.peer.publish_address();
        let (_, expected, published) =
            self.bench.send(to, &self.dense, burst(missed, bytes, &api))?;
        if let Some(refusal) = published.refusal {
            bail!("a publication was refused: {refusal}");
        }
        let (server, own_before, begun) = (self.peer.sample()?, own()?, Instant::now());
        let ramp = self.dense.come_back(true)?;
        self.up(ramp)?;
        self.dense.await_delivered(expected, PATIENCE);
        let whole = begun.elapsed();
        let server = self.peer.sample()?.since(&server)?;
        let client = own()?.since(&own_before)?;
        let recorder = self.dense.finish(expected)?;
        let lost = self.lost(scenario, &recorder.deliveries, "");
        self.set(scenario, LOST, lost as f64);
        if lost == 0 {
            self.set(scenario, WHOLE, whole.as_nanos() as f64);
            self.set(scenario, CPU_CLIENT, server.cpu_ns_per(ramp.up)?);
            self.set(scenario, CLIENT_CPU_CLIENT, client.cpu_ns_per(ramp.up)?);
        }
        Ok(())
    }
}

fn burst(messages: u64, bytes: usize, api: &Api) -> Burst {
    Burst { api: api.clone(), ..Burst::to_all(messages, Data::Filled(bytes), 1) }
}
