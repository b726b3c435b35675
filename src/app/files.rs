//! How many files this process may have open: sockets are files, too.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the soft limit to the hard one: the usual 1024 is from a time when `select` could not name more. Returns what holds; `None` is any
/// number.
pub(super) fn raise() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    let soft = limit.current;
    limit.current = limit.maximum;
    if setrlimit(Resource::Nofile, limit).is_err() {
        limit.current = soft;
    }
    limit.current
}

/// Connections that a gateway may take with so many files: the rest is for its queue and for those whom it calls.
pub(super) fn connections(files: Option<u64>) -> usize {
    /// What one process serves well, whatever is allowed.
    const MAX_CONNECTIONS: u64 = 16 * 1024;
    let files = files.unwrap_or(u64::MAX);
    (files - (files / 4).min(512)).min(MAX_CONNECTIONS) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum;
        assert_eq!(raise(), hard);
        assert_eq!(getrlimit(Resource::Nofile).current, hard);
    }

    #[test]
    fn a_gateway_takes_fewer_connections_than_there_are_files() {
        for (files, most) in
            [(Some(64), 48), (Some(1024), 768), (Some(4096), 3584), (Some(1 << 20), 16384), (None, 16384)]
        {
            assert_eq!(connections(files), most, "{files:?}");
        }
    }
}
