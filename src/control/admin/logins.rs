//! Logins: how many passwords are checked at once, and how often an address may be wrong.
//!
//! Owns the counts. The invariants: at most [`HASHES_MAX`] hashes are computed at once, and at most
//! [`WAITING_MAX`] logins wait for that; an attempt that is refused without a check does not count.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::base::password::PasswordHash;

/// Hashes computed at once. Each takes the memory that the hash in the configuration names.
const HASHES_MAX: usize = 2;
/// Logins that wait for or have their check.
const WAITING_MAX: usize = 10;
/// Wrong passwords of an address in a window.
pub(super) const FAILURES_MAX: u32 = 5;
/// Length of a window.
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses whose failures are counted; the oldest one is dropped for a new one.
const ADDRESSES_MAX: usize = 1024;

/// The result of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    Wrong,
    /// Too many wrong passwords came from this address: try again after this many seconds.
    LockedOut(u64),
    /// Too many logins wait for their check.
    Busy,
}

struct Failures {
    since: Instant,
    count: u32,
}

/// The password, and the logins in progress.
pub(super) struct Logins {
    hash: PasswordHash,
    places: Arc<Semaphore>,
    hashes: Arc<Semaphore>,
    failures: Mutex<HashMap<IpAddr, Failures>>,
}

impl Logins {
    /// Logins with the password of this hash.
    pub(super) fn new(hash: PasswordHash) -> Self {
        let (places, hashes) = (Semaphore::new(WAITING_MAX), Semaphore::new(HASHES_MAX));
        Logins {
            hash,
            places: Arc::new(places),
            hashes: Arc::new(hashes),
            failures: Mutex::default(),
        }
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<IpAddr, Failures>> {
        // After a panic elsewhere the table is consistent: each change is one entry.
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks a password that came from this address.
    pub(super) async fn check(&self, address: IpAddr, password: Vec<u8>) -> Verdict {
        let address = counted(address);
        let Ok(place) = self.places.clone().try_acquire_owned() else { return Verdict::Busy };
        // Counted before the check, so that attempts at once do not exceed the maximum.
        if let Err(seconds) = self.begin(address) {
            return Verdict::LockedOut(seconds);
        }
        let Ok(permit) = self.hashes.clone().acquire_owned().await else { return Verdict::Busy };
        let hash = self.hash.clone();
        // The permits move along: the check goes on if the client hangs up meanwhile.
        let checked = tokio::task::spawn_blocking(move || {
            let _permits = (place, permit);
            hash.verifies(&password)
        });
        match checked.await {
            Ok(true) => {
                self.failures().remove(&address);
                Verdict::Right
            }
            Ok(false) => Verdict::Wrong,
            Err(_) => Verdict::Busy,
        }
    }

    /// Counts an attempt. `Err`: the address has none left for this many seconds.
    fn begin(&self, address: IpAddr) -> Result<(), u64> {
        let (now, mut failures) = (Instant::now(), self.failures());
        failures.retain(|_, counted| now < counted.since + WINDOW);
        if failures.len() >= ADDRESSES_MAX && !failures.contains_key(&address) {
            let oldest = failures.iter().min_by_key(|(_, counted)| counted.since);
            let oldest = oldest.map(|(address, _)| *address);
            oldest.map(|oldest| failures.remove(&oldest));
        }
        let counted = failures.entry(address).or_insert(Failures { since: now, count: 0 });
        if counted.count >= FAILURES_MAX {
            let left = (counted.since + WINDOW).duration_since(now);
            return Err(left.as_secs() + 1);
        }
        counted.count += 1;
        Ok(())
    }
}

/// The address that failures count for: an IPv4 address, or the network of an IPv6 address.
fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX)))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::password;

    fn logins() -> Logins {
        Logins::new(PasswordHash::parse(&password::hash(b"right").unwrap()).unwrap())
    }

    #[tokio::test]
    async fn an_address_with_many_wrong_passwords_is_locked_out_for_a_while() {
        let logins = logins();
        let check = async |address: &str, password: &str| {
            logins.check(address.parse().unwrap(), password.into()).await
        };
        for _ in 0..3 {
            for _ in 0..FAILURES_MAX - 1 {
                assert_eq!(check("10.0.0.1", "wrong").await, Verdict::Wrong);
            }
            assert_eq!(check("10.0.0.1", "right").await, Verdict::Right, "success forgives");
        }
        for nth in 0..FAILURES_MAX {
            assert_eq!(check(&format!("fd00::{nth}"), "wrong").await, Verdict::Wrong);
        }
        assert!(matches!(check("fd00::9", "right").await, Verdict::LockedOut(1..=60)));
        assert_eq!(check("fd00:0:0:1::1", "right").await, Verdict::Right, "another network");
        assert_eq!(check("10.0.0.1", "right").await, Verdict::Right);
        for counted in logins.failures().values_mut() {
            counted.since -= WINDOW;
        }
        assert_eq!(check("fd00::9", "right").await, Verdict::Right, "the window is over");
    }

    #[tokio::test]
    async fn more_logins_than_places_are_refused_and_do_not_count() {
        let logins = Arc::new(logins());
        let hold = logins.hashes.clone().acquire_many_owned(HASHES_MAX as u32).await.unwrap();
        let attempt = |nth: usize| {
            let logins = logins.clone();
            let address = IpAddr::from([10, 0, 1, nth as u8]);
            tokio::spawn(async move { logins.check(address, b"right".to_vec()).await })
        };
        let waiting: Vec<_> = (0..WAITING_MAX).map(attempt).collect();
        tokio::task::yield_now().await;
        assert_eq!(attempt(99).await.unwrap(), Verdict::Busy);
        assert_eq!(logins.failures().len(), WAITING_MAX, "the refused one is not counted");
        drop(hold);
        for waiting in waiting {
            assert_eq!(waiting.await.unwrap(), Verdict::Right);
        }
        assert_eq!(logins.places.available_permits(), WAITING_MAX);
        assert!(logins.failures().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_addresses_that_are_counted_are_bounded() {
        let logins = logins();
        for nth in 0..3 * ADDRESSES_MAX as u32 {
            logins.begin(IpAddr::from(nth.to_be_bytes())).unwrap();
        }
        assert_eq!(logins.failures().len(), ADDRESSES_MAX);
    }
}
