//! Who is at the other end of a connection: whose share of the memory a request takes, and whether it waits for some.
//!
//! Known to all that runs on the connection's task, so that handlers need not hand it on. What runs elsewhere is for no client.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::serve::activity::{ConnectionActivity, MemoryWait};

tokio::task_local! {
    static PEER: Peer;
}

#[derive(Debug, Clone)]
struct Peer {
    address: Option<IpAddr>,
    activity: ConnectionActivity,
    client: Arc<Mutex<ClientId>>,
}

/// Whom a share belongs to. The default is no client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct ClientId {
    /// The digest of its key, where there are keys.
    pub(super) key: Option<[u8; 32]>,
    /// Where it asks from. Not of users with keys: they may ask from anywhere. Workers mostly have one key together.
    pub(super) address: Option<IpAddr>,
}

impl ClientId {
    /// One that is known by such a text.
    pub(super) fn named(text: &str) -> Self {
        Self { key: Some(Sha256::digest(text).into()), address: None }
    }
}

/// What a network gives to one customer: an IPv4 address, or the first half of an IPv6 address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// Runs what is on a connection from there. It is of its address until [`identify`] says more.
pub(super) async fn on_connection<T>(
    address: Option<IpAddr>,
    activity: ConnectionActivity,
    work: impl Future<Output = T>,
) -> T {
    let address = address.map(network);
    let client = Arc::new(Mutex::new(ClientId { key: None, address }));
    PEER.scope(Peer { address, activity, client }, work).await
}

/// Runs what is for a client, and on no connection.
pub(super) async fn on_behalf_of<T>(client: ClientId, work: impl Future<Output = T>) -> T {
    let (activity, client) = (ConnectionActivity::default(), Arc::new(Mutex::new(client)));
    let peer = Peer { address: None, activity, client };
    PEER.scope(peer, work).await
}

/// Whose the current request is.
pub(super) fn client() -> ClientId {
    PEER.try_with(|peer| *peer.client.lock().unwrap_or_else(PoisonError::into_inner)).unwrap_or_default()
}

/// Where the current request comes from.
pub(super) fn address() -> Option<IpAddr> {
    PEER.try_with(|peer| peer.address).ok().flatten()
}

/// Says whose the current request is.
pub(super) fn identify(client: ClientId) {
    // Outside of a connection there is no share.
    let _ = PEER.try_with(|peer| *peer.client.lock().unwrap_or_else(PoisonError::into_inner) = client);
}

/// Until the guard is dropped the current request waits for memory: it is as if its peer were to move.
pub(super) fn waits_for_memory() -> Option<MemoryWait> {
    PEER.try_with(|peer| peer.activity.waits_for_memory()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_customer_of_a_network_is_one_client() {
        for (one, other, same) in [
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("2001:db8::1", "2001:db8::ffff:1:2:3", true),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
        ] {
            assert_eq!(network(one.parse().unwrap()) == network(other.parse().unwrap()), same, "{one} {other}");
        }
    }
}
