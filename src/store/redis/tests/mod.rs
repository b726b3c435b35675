//! What is Redis' own: several gateways, restarts, a memory that is full. What all stores do, `contract` has.

mod failovers;
mod jobs;
mod opening;
mod outages;
mod requests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::super::redis_server::Server;
use super::*;

impl RedisStore {
    /// On a server of a test's own.
    pub(in super::super) async fn on(server: &Server) -> Self {
        Self::open(&server.url(), Rules::default()).await.unwrap()
    }

    /// With rules of its own.
    pub(in super::super) async fn by(rules: Rules, server: &Server) -> Self {
        Self::open(&server.url(), rules).await.unwrap()
    }

    /// How many keys there are.
    async fn size(&self) -> usize {
        let (size,): (usize,) = self.connection.ask(pipe().cmd("DBSIZE")).await.unwrap();
        size
    }

    /// Forgets everything.
    pub(in super::super) async fn erase(&self) {
        let _: () = self.connection.ask(pipe().cmd("FLUSHALL").ignore()).await.unwrap();
    }
}

/// In it is what a server keeps.
async fn folder(store: &RedisStore) -> PathBuf {
    let (found,): (BTreeMap<String, String>,) =
        store.connection.ask(pipe().cmd("CONFIG").arg("GET").arg("dir")).await.unwrap();
    found["dir"].clone().into()
}

/// The error of a store that fails.
fn why<T: std::fmt::Debug>(done: Result<T, StoreError>) -> String {
    match done {
        Err(StoreError::Failed(why) | StoreError::NoSpace(why)) => why,
        done => panic!("{done:?}"),
    }
}
