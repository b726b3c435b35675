//! A server that is there and takes no writes, and one whose place another takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use redis::{Client, FromRedisValue};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::super::super::StoreEvent;
use super::super::super::contract::{EP, at, claim_request, end, ids, job, output, submit};
use super::super::super::redis_server::Server;
use super::super::*;
use super::{folder, why};

/// For servers to agree.
const SOON: Duration = Duration::from_mins(1);

/// Asks a server itself.
async fn tell<T: FromRedisValue>(server: &Server, words: &str) -> T {
    let mut db = Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    words.for_each(|word| {
        command.arg(word);
    });
    command.query_async(&mut db).await.unwrap()
}

/// Waits until it is so.
async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !so().await {
        assert!(begun.elapsed() < SOON, "{what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until `INFO` has this line.
async fn says(server: &Server, line: &str) {
    until(line, async || tell::<String>(server, "INFO everything").await.lines().any(|found| found == line)).await;
}

/// A replica that has all.
async fn replica(of: &Server) -> Server {
    let replica = Server::start(&["--replicaof", &format!("127.0.0.1 {}", of.port())]);
    says(&replica, "master_link_status:up").await;
    replica
}

/// A Sentinel that alone decides, of the Redis `first` by the name of `main`; and where its settings are.
fn sentinel(first: &Server) -> (Server, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("sentinel.conf");
    let monitor = format!("sentinel monitor main 127.0.0.1 {} 1\n", first.port());
    let lines = "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n";
    std::fs::write(&settings, monitor + lines).unwrap();
    (Server::start(&[settings.to_str().unwrap(), "--sentinel"]), folder)
}

/// A name that leads new connections elsewhere: its port, and where to.
async fn name(tasks: &mut JoinSet<()>, to: &Server) -> (String, Arc<AtomicU16>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}/0", listener.local_addr().unwrap());
    let port = Arc::new(AtomicU16::new(to.port()));
    let leads = port.clone();
    tasks.spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((mut from, _)) = listener.accept().await {
            let port = leads.load(Ordering::Relaxed);
            open.spawn(async move {
                let mut to = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                copy_bidirectional(&mut from, &mut to).await
            });
        }
    });
    (url, port)
}

#[tokio::test]
async fn a_name_that_leads_to_another_server_is_looked_up_again() {
    let mut tasks = JoinSet::new();
    let first = Server::start(&[]);
    let second = replica(&first).await;
    let (url, leads) = name(&mut tasks, &first).await;
    let store = RedisStore::open(&url, Rules::default()).await.unwrap();
    submit(&store, &["a", "b"]).await;
    tell::<u64>(&first, "WAIT 1 10000").await;
    // No connection is closed thereby.
    tell::<()>(&second, "REPLICAOF NO ONE").await;
    tell::<()>(&first, &format!("REPLICAOF 127.0.0.1 {}", second.port())).await;
    assert!(store.submit(EP, job("c", false, at(1))).await.is_err());
    let error = why(store.ready().await);
    assert!(error.contains("it takes no writes: ") && error.contains("READONLY"), "{error}");
    assert!(store.read(EP, "a").await.unwrap().is_some(), "what can be read is read");
    let mut events = store.subscribe();
    leads.store(second.port(), Ordering::Relaxed);
    until("it is found", async || store.submit(EP, job("c", false, at(1))).await.is_ok()).await;
    store.ready().await.unwrap();
    assert_eq!(ids(&store.take(EP, claim_request("w", 9, 1)).await.unwrap().0), ["a", "b", "c"]);
    assert_eq!(timeout(SOON, events.next()).await.unwrap(), Some(StoreEvent::Lagged));
    // At once, now that the last look was a while ago.
    sleep(Duration::from_millis(1100)).await;
    says(&first, "master_link_status:up").await;
    tell::<()>(&first, "REPLICAOF NO ONE").await;
    tell::<()>(&second, &format!("REPLICAOF 127.0.0.1 {}", first.port())).await;
    leads.store(first.port(), Ordering::Relaxed);
    store.change(EP, "a", end("w", true, 2), output("[1]"), None).await.unwrap();
    assert_eq!(store.counts(EP).await.unwrap().completed, 1);
}

#[tokio::test]
async fn who_refuses_writes_is_not_ready_and_is_used_when_it_takes_them_again() {
    let server = Server::start(&["--save", "3600 1"]);
    let store = RedisStore::on(&server).await;
    submit(&store, &["a"]).await;
    let refuses = async |code: &str| {
        for error in [why(store.submit(EP, job("b", false, at(1))).await), why(store.ready().await)] {
            assert!(error.contains("it takes no writes: ") && error.contains(code), "{error}");
        }
        assert!(store.take(EP, claim_request("w", 1, 1)).await.is_err());
        assert!(store.read(EP, "a").await.unwrap().is_some());
    };
    tell::<()>(&server, "CONFIG SET min-replicas-to-write 1").await;
    refuses("NOREPLICAS").await;
    tell::<()>(&server, "CONFIG SET min-replicas-to-write 0").await;
    store.ready().await.unwrap();
    // Its snapshot cannot get its name.
    let snapshot = folder(&store).await.join("dump.rdb");
    std::fs::create_dir(&snapshot).unwrap();
    tell::<()>(&server, "BGSAVE").await;
    says(&server, "rdb_last_bgsave_status:err").await;
    refuses("MISCONF").await;
    std::fs::remove_dir(&snapshot).unwrap();
    tell::<()>(&server, "BGSAVE").await;
    says(&server, "rdb_last_bgsave_status:ok").await;
    submit(&store, &["b"]).await;
    assert_eq!(ids(&store.take(EP, claim_request("w", 9, 1)).await.unwrap().0), ["a", "b"]);
}

#[tokio::test]
async fn who_refuses_writes_is_connected_to_again_once_a_second() {
    let server = Server::start(&[]);
    let store = RedisStore::on(&server).await;
    tell::<()>(&server, "CONFIG SET min-replicas-to-write 1").await;
    let connections = async || {
        let info: String = tell(&server, "INFO stats").await;
        let line = info.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
        line.unwrap().parse::<u64>().unwrap()
    };
    let before = connections().await;
    let begun = Instant::now();
    for _ in 0..200 {
        why(store.ready().await);
    }
    let most = 2 + begun.elapsed().as_secs();
    assert!(connections().await - before <= most, "one a second, and ours");
}

#[tokio::test]
async fn sentinels_say_where_it_is_and_where_it_has_gone() {
    let mut first = Server::start(&[]);
    let second = replica(&first).await;
    let (sentinel, _settings) = sentinel(&first);
    until("it knows the replica", async || {
        tell::<Vec<redis::Value>>(&sentinel, "SENTINEL REPLICAS main").await.len() == 1
    })
    .await;
    // The first of them is not there.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let open = |name: &str| {
        let url = format!("redis+sentinel://{nobody},127.0.0.1:{}/{name}", sentinel.port());
        async move { RedisStore::open(&url, Rules::default()).await }
    };
    let error = why(open("other").await);
    assert!(error.contains("no Sentinel knows \"other\""), "{error}");
    let store = open("main").await.unwrap();
    submit(&store, &["a"]).await;
    tell::<u64>(&first, "WAIT 1 10000").await;
    first.kill();
    assert!(why(store.submit(EP, job("b", false, at(1))).await).contains("\"main\" of the Sentinels"));
    until("another is found", async || store.submit(EP, job("b", false, at(1))).await.is_ok()).await;
    assert_eq!(ids(&store.take(EP, claim_request("w", 9, 1)).await.unwrap().0), ["a", "b"]);
    assert_eq!(tell::<Vec<redis::Value>>(&second, "ROLE").await[0], redis::Value::BulkString(b"master".to_vec()));
}
