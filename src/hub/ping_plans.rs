//! Ping times: those of new connections, and those that earlier connections were told.
//!
//! Owns the different times in use and how many connections have each. The invariant: the times of
//! a connection never change, because its client expects pings at the interval that it was told.

/// When a connection gets pings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PingTimes {
    /// Milliseconds between pings.
    pub interval: u64,
    /// Milliseconds within which a pong must follow; `None`: no pong is required.
    pub pong: Option<u64>,
}

/// A connection without ping times.
pub const NO_PLAN: u8 = u8::MAX;

/// Ping times, and the number of connections that have them.
#[derive(Clone, Copy, Debug)]
struct PingPlan {
    times: PingTimes,
    connections: usize,
}

/// The ping times of a shard.
#[derive(Debug)]
pub struct PingPlans {
    plans: Vec<PingPlan>,
    /// Index of the plan of new connections.
    current: u8,
}

impl PingPlans {
    /// Gives these times to every new connection.
    pub fn new(times: PingTimes) -> Self {
        PingPlans { plans: vec![PingPlan { times, connections: 0 }], current: 0 }
    }

    /// Gives these times to new connections. While earlier connections have 255 different times,
    /// new connections keep the present ones.
    pub fn change(&mut self, times: PingTimes) {
        let found = self.plans.iter().position(|plan| plan.times == times);
        let free = || self.plans.iter().position(|plan| plan.connections == 0);
        match found.or_else(free) {
            Some(at) => {
                if let Some(plan) = self.plans.get_mut(at) {
                    plan.times = times;
                }
                self.current = at as u8;
            }
            None if self.plans.len() < usize::from(NO_PLAN) => {
                self.current = self.plans.len() as u8;
                self.plans.push(PingPlan { times, connections: 0 });
            }
            None => {}
        }
    }

    /// Gives a connection the present times; returns the index of its plan.
    pub fn join(&mut self) -> u8 {
        if let Some(plan) = self.plans.get_mut(usize::from(self.current)) {
            plan.connections += 1;
        }
        self.current
    }

    /// Ends the use of a plan by a connection.
    pub fn leave(&mut self, plan: u8) {
        if let Some(plan) = self.plans.get_mut(usize::from(plan)) {
            plan.connections = plan.connections.saturating_sub(1);
        }
    }

    /// Times of a connection with this plan; without one, those of new connections.
    pub fn of(&self, plan: u8) -> PingTimes {
        let plan = self.plans.get(usize::from(plan));
        plan.unwrap_or(&self.plans[usize::from(self.current)]).times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(interval: u64) -> PingTimes {
        PingTimes { interval, pong: None }
    }

    #[test]
    fn connections_keep_their_times_and_unused_plans_are_used_again() {
        let mut plans = PingPlans::new(times(1));
        let first = plans.join();
        plans.change(times(2));
        let second = plans.join();
        assert_eq!((plans.of(first), plans.of(second)), (times(1), times(2)));
        assert_eq!(plans.of(NO_PLAN), times(2));
        plans.change(times(1));
        assert_eq!(plans.join(), first, "equal times are one plan");
        plans.leave(second);
        plans.change(times(3));
        assert_eq!((plans.join(), plans.plans.len()), (second, 2));
        assert_eq!(plans.of(second), times(3));
    }

    #[test]
    fn the_number_of_plans_is_bounded() {
        let mut plans = PingPlans::new(times(0));
        let joined: Vec<u8> = (0..300)
            .map(|interval| {
                plans.change(times(interval));
                plans.join()
            })
            .collect();
        assert_eq!(plans.plans.len(), usize::from(NO_PLAN));
        assert_eq!(joined.last(), Some(&(NO_PLAN - 1)), "the latest that has a place");
        assert!(joined.iter().all(|plan| *plan != NO_PLAN));
        plans.leave(joined[7]);
        plans.change(times(1000));
        assert_eq!(plans.of(plans.current), times(1000));
    }
}
