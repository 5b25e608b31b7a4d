//! How a scenario connects its clients.
//!
//! Owns no state. Never closes a connection. Invariant: a refused or lost connection is a fault.

use anyhow::Result;

use super::Bench;
use crate::dense::{Dense, Mode, Plan, Ramp};
use crate::dialect::{self, Dialect};
use crate::tls::Client;

impl Bench {
    /// Connects the dense client. Refused and lost connections are faults.
    pub fn connect(&mut self, connections: u64, port: u16, mode: Mode) -> Result<(Dense, Ramp)> {
        self.connect_as(&dialect::Drumline, connections, port, mode)
    }

    /// Like [`Bench::connect`], with clients of another dialect.
    pub fn connect_as(
        &mut self,
        dialect: &'static dyn Dialect,
        connections: u64,
        port: u16,
        mode: Mode,
    ) -> Result<(Dense, Ramp)> {
        self.connect_with(Plan { dialect, ..self.plan(connections, port, mode) })
    }

    /// Like [`Bench::connect`], over TLS if there is TLS.
    pub fn connect_over(
        &mut self,
        tls: Option<&Client>,
        connections: u64,
        port: u16,
        mode: Mode,
    ) -> Result<(Dense, Ramp)> {
        self.connect_with(Plan { tls: tls.cloned(), ..self.plan(connections, port, mode) })
    }

    fn connect_with(&mut self, plan: Plan) -> Result<(Dense, Ramp)> {
        let dense = Dense::start(plan, self.clock)?;
        let ramp = self.ramp(&dense)?;
        Ok((dense, ramp))
    }

    /// Connects all clients and tracks the position of the channel from the first answer on.
    pub fn connect_tracked(&mut self, port: u16, mode: Mode) -> Result<(Dense, Ramp)> {
        let dense = Dense::start(self.plan(self.connections, port, mode), self.clock)?;
        dense.track()?;
        let ramp = self.ramp(&dense)?;
        Ok((dense, ramp))
    }

    /// The clients of the scenario's own dialect.
    pub(super) fn plan(&self, connections: u64, port: u16, mode: Mode) -> Plan {
        Plan {
            connections,
            port,
            one_address: false,
            dialect: &dialect::Drumline,
            in_flight: self.common.in_flight,
            mode,
            tls: None,
            quiet: false,
        }
    }

    fn ramp(&mut self, dense: &Dense) -> Result<Ramp> {
        let ramp = dense.ramp()?;
        if ramp.refused > 0 {
            let causes = dense.counters().causes();
            self.fault(format!("{} connections never came up: {causes:?}", ramp.refused));
        }
        self.check_standing(dense, "while connecting");
        Ok(ramp)
    }

    /// Records a fault if connections were lost.
    pub fn check_standing(&mut self, dense: &Dense, when: &str) {
        let lost = dense.counters().lost();
        if lost > 0 {
            let codes = dense.counters().codes();
            self.fault(format!("{lost} connections lost {when}, by close code: {codes:?}"));
        }
    }
}
