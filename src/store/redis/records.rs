//! What Redis has of jobs and workers, read.

use crate::queue::{Claim, Record, Transition};

use super::super::StoreError;
use super::super::shared::WorkerView;
use super::write::StoredJob;

/// A job as it is read: version, score, record, claim. The first three are missing if it is not there.
pub(super) type Raw = (Option<String>, Option<u64>, Option<String>, Option<String>);

/// What is there of a job, read.
pub(super) fn stored_job((version, score, record, claim): Raw) -> Result<Option<StoredJob>, StoreError> {
    let (Some(version), Some(score), Some(record)) = (version, score, record) else { return Ok(None) };
    let record = read(&record, claim.as_deref())?;
    Ok(Some(StoredJob { version, score, record, taken: claim.is_some() }))
}

/// A job's record, as it is since a claim, if there is one beside it.
pub(super) fn read(record: &str, claim: Option<&str>) -> Result<Record, StoreError> {
    let why = |why: &dyn std::fmt::Display| StoreError::Failed(format!("what it has of a job cannot be read: {why}"));
    let mut record: Record = serde_json::from_str(record).map_err(|error| why(&error))?;
    if let Some(claim) = claim {
        let claim: Claim = serde_json::from_str(claim).map_err(|error| why(&error))?;
        if record.start(&claim) == Transition::Unchanged {
            return Err(why(&format_args!("{} was handed out, and cannot have been", record.id)));
        }
    }
    Ok(record)
}

/// A view as the hash has it.
pub(super) fn view((name, seen): (String, String)) -> Option<WorkerView> {
    let (gateway, worker) = name.split_once(' ')?;
    Some(WorkerView { gateway: gateway.to_owned(), worker: worker.to_owned(), seen: Some(seen) })
}
