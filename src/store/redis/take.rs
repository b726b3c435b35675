//! Handing out jobs, and reading those that were handed out.

use std::time::Duration;

use redis::{Script, ScriptInvocation};

use crate::queue::JobState;

use super::super::json;
use super::super::{ClaimRequest, ClaimedJob, StoreError, TakenJobs};
use super::RedisStore;
use super::keys::{self, EndpointKeys};
use super::records::read;
use super::write::{millis, version};

/// Jobs that the script looks at before others may ask Redis.
const SCAN_LIMIT: usize = 512;

/// What the script is asked.
struct TakeCall<'a> {
    keys: EndpointKeys<'a>,
    request: &'a ClaimRequest,
    claim: &'a str,
    /// What the versions begin with that jobs get.
    version: String,
    most: usize,
    bytes: usize,
    from: usize,
    /// For how long the first sign of a job is waited for.
    lost: Duration,
}

/// The place to go on at, whether there may be more, of each job that is handed out its record, input and rest, and how many bytes the next
/// one has, if it has too many.
type TakeReply = (usize, bool, Vec<(String, Option<Vec<u8>>, Option<Vec<u8>>)>, Option<usize>);

impl TakeCall<'_> {
    /// As the script takes it; `again`, if it may have run already.
    fn by<'s>(&self, script: &'s Script, again: bool) -> Result<ScriptInvocation<'s>, StoreError> {
        let Self { keys, request, claim, version, most, bytes, from, lost } = self;
        let mut take = script.key(keys.line(JobState::InQueue));
        take.key(keys.line(JobState::InProgress)).key(keys.held(&request.claim.worker)).key(keys.due());
        take.arg(keys.jobs()).arg(most).arg(from).arg(SCAN_LIMIT).arg(millis(request.claim.at)).arg(claim).arg(version);
        take.arg(keys::events())
            .arg(json(&keys.0)?)
            .arg(u64::try_from(lost.as_millis()).unwrap_or(u64::MAX))
            .arg(again)
            .arg(bytes);
        Ok(take)
    }
}

impl RedisStore {
    /// Hands out jobs from the head of the line.
    pub(super) async fn hand_out(
        &self,
        keys: EndpointKeys<'_>,
        request: &ClaimRequest,
    ) -> Result<TakenJobs, StoreError> {
        let claim = json(&request.claim)?;
        let (mut handed, mut large) = (Vec::new(), None);
        let (mut from, mut behind, mut bytes) = (0, true, request.max_bytes);
        while behind && handed.len() < request.max_jobs {
            let lost = if request.claim.sends_heartbeats { self.rules.lost_after } else { Duration::MAX };
            let most = request.max_jobs - handed.len();
            let ask = TakeCall { keys, request, claim: &claim, version: version(), most, bytes, from, lost };
            let answer: Result<TakeReply, _> =
                self.connection.run_or(&ask.by(&self.take, false)?, &ask.by(&self.take, true)?).await;
            match answer {
                Ok((next, more, jobs, too_large)) => {
                    (from, behind, large) = (next, more, too_large);
                    for (record, input, rest) in jobs {
                        let record = read(&record, Some(&claim))?;
                        let (input, rest) = (input.unwrap_or_default().into(), rest.unwrap_or_default().into());
                        let job = ClaimedJob { record, input, rest };
                        bytes = bytes.saturating_sub(job.bytes());
                        handed.push(job);
                    }
                }
                Err(error) if handed.is_empty() => return Err(error),
                // What was handed out goes to its worker.
                Err(_) => break,
            }
        }
        // Behind others it waits for the next take.
        let large = large.filter(|_| handed.is_empty());
        Ok((handed, large))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Store;
    use super::super::super::contract::{EP, claim_request, ids, submit};
    use super::super::super::redis_server::Server;
    use super::*;

    #[tokio::test]
    async fn who_asks_again_because_the_answer_was_lost_gets_the_same_jobs() {
        let server = Server::start(&[]);
        let (store, keys) = (RedisStore::on(&server).await, EndpointKeys(EP));
        submit(&store, &["a", "b", "c", "d"]).await;
        assert_eq!(ids(&store.take(EP, claim_request("w", 1, 1)).await.unwrap().0), ["a"]);
        let (request, claim) = (claim_request("w", 2, 2), json(&claim_request("w", 2, 2).claim).unwrap());
        let lost = store.rules.lost_after;
        let ask = || TakeCall {
            keys,
            request: &request,
            claim: &claim,
            version: version(),
            most: 2,
            bytes: usize::MAX,
            from: 0,
            lost,
        };
        let taken = async |ask: &TakeCall<'_>, again: bool| {
            let (.., jobs, _): TakeReply = store.connection.run(&ask.by(&store.take, again).unwrap()).await.unwrap();
            let ids = jobs.into_iter().map(|(record, input, _)| {
                assert!(input.is_some());
                read(&record, Some(&claim)).unwrap().id
            });
            ids.collect::<Vec<_>>()
        };
        let unheard = ask();
        for again in [false, true, true] {
            assert_eq!(taken(&unheard, again).await, ["b", "c"]);
        }
        assert_eq!(store.held_by(EP, "w").await.unwrap(), ["a", "b", "c"]);
        assert_eq!(taken(&ask(), true).await, ["d"], "it was not heard before");
    }
}
