//! New settings of a running shard.
//!
//! Owns no state: the control plane puts the settings into [`NextSettings`]. The message that
//! announces them comes over the bus, so commands before it follow the old settings and commands
//! after it the new ones. The invariant: subscriptions keep what they were granted, connections
//! their ping times, and slots, rings and memory budgets stay as they were at the start.
//!
//! [`NextSettings`]: crate::hub::NextSettings

use std::sync::Arc;

use crate::hub::settings::HubSettings;
use crate::hub::shard_state::Hub;

impl Hub {
    /// The settings in force.
    pub fn settings(&self) -> &HubSettings {
        &self.settings
    }

    /// Takes the new settings, and answers when they are in force. The compressors, the slots and
    /// the memory budgets exist since the start, so their settings stay.
    pub(super) fn reconfigure(&mut self, tag: u64) {
        if let Some(next) = self.next_settings.take() {
            let kept = &self.settings;
            let settings = HubSettings {
                slots: kept.slots,
                tls: kept.tls.clone(),
                compression: kept.compression,
                uni_compression: kept.uni_compression,
                budgets: kept.budgets,
                backlog_bytes: kept.backlog_bytes,
                hands_over_calls: kept.hands_over_calls,
                ..(*next).clone()
            };
            self.connections.command_rates.set_limit(settings.command_limit, settings.slots);
            self.home.reconfigure(settings.homes.clone(), settings.user_limit);
            self.ping_plans.change(settings.ping_times());
            self.settings = Arc::new(settings);
        }
        self.orders.applied(tag);
    }
}
