//! Shares of the open-files limit: how many HTTP connections each port may have, so that
//! descriptors are left for the other port, for requests to backends and for files.
//!
//! Owns no state.

use crate::config::HttpServer;

/// Descriptors of a shard: its ring, its listener and its eventfds.
const PER_SHARD: u64 = 4;
/// Descriptors that the process opens during its start, such as those of the runtime.
const AT_START: u64 = 32;
/// Maximum number of descriptors kept for requests to backends, key sets, DNS lookups and files.
const KEPT_MOST: u64 = 2048;
/// Maximum number of descriptors of a connection: a forwarded HTTP stream uses two.
const PER_CONNECTION: u64 = 2;

/// Lowers the limits on HTTP connections to what the limit on descriptors leaves. `open`
/// descriptors are open before `shards` shards start. Returns whether it lowered a limit.
pub fn fit(server: &mut HttpServer, limit: u64, open: u64, shards: usize) -> bool {
    let fixed = open + PER_SHARD * shards as u64 + AT_START;
    let free = limit.saturating_sub(fixed);
    let kept = (free / 4).min(KEPT_MOST);
    let wanted = (server.connections_max as u64, server.internal_connections_max as u64);
    let internal = wanted.1.min(free / 8).max(1);
    let public = wanted.0.min(free.saturating_sub(kept + internal) / PER_CONNECTION).max(1);
    (server.connections_max, server.internal_connections_max) =
        (public as usize, internal as usize);
    (public, internal) != wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_connections_leave_descriptors_for_other_uses() {
        let shares = |limit, open, shards| {
            let mut server = HttpServer::default();
            let lowered = fit(&mut server, limit, open, shards);
            (lowered, server.connections_max as u64, server.internal_connections_max as u64)
        };
        assert_eq!(shares(1 << 20, 10, 60), (false, 4096, 1024));
        for (limit, shards) in [(256, 1), (1024, 2), (1500, 2), (4096, 60), (65_536, 60)] {
            let (_, public, internal) = shares(limit, 10, shards);
            let fixed = 10 + 4 * shards as u64 + AT_START;
            let left = limit - fixed - 2 * public - internal;
            assert!(left >= ((limit - fixed) / 4).min(KEPT_MOST), "{limit}: {left}");
            assert!(public >= 16 && internal >= 16, "{limit}: {public} {internal}");
        }
        assert_eq!(shares(16, 10, 2), (true, 1, 1));
    }
}
