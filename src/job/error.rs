//! Why a job is refused or fails, in words for clients.

use std::fmt;

/// Why a job failed: all that a client sees.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct JobError {
    /// A stable word for programs.
    pub code: &'static str,
    /// A sentence for people.
    pub message: String,
    /// The input field at fault, if one is.
    pub field: Option<String>,
}

impl JobError {
    /// The client or a signal ended the job.
    pub fn cancelled() -> Self {
        Self { code: "cancelled", message: "the job was cancelled".into(), field: None }
    }

    /// The engine stopped under the job; another engine can run it again.
    pub fn engine_lost(reason: &str) -> Self {
        Self { code: "engine_lost", message: format!("the engine was lost while the job ran: {reason}"), field: None }
    }
}

/// One thing that is wrong with a job's input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// The key at fault; `input` when it is the input itself.
    pub field: String,
    /// The sentence a client reads.
    pub text: String,
}

/// Everything that is wrong with a job's input, one complaint a field. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Complaints(Vec<Complaint>);

impl Complaints {
    /// `Err` with the complaints, or `Ok` when there are none.
    pub(super) fn check(complaints: Vec<Complaint>) -> Result<(), Self> {
        if complaints.is_empty() { Ok(()) } else { Err(Self(complaints)) }
    }

    /// The complaints in the order in which a client reads them.
    pub fn iter(&self) -> impl Iterator<Item = &Complaint> {
        self.0.iter()
    }

    /// The sentences alone: what the wire calls `errors`.
    pub fn texts(&self) -> Vec<String> {
        self.iter().map(|complaint| complaint.text.clone()).collect()
    }
}

/// The sentences joined by `; `, for places where an error is one string.
impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.texts().join("; "))
    }
}

impl From<Complaint> for Complaints {
    fn from(complaint: Complaint) -> Self {
        Self(vec![complaint])
    }
}

impl From<Complaints> for JobError {
    fn from(complaints: Complaints) -> Self {
        let field = match complaints.0.as_slice() {
            [only] => Some(only.field.clone()),
            _ => None,
        };
        Self { code: "invalid_input", message: complaints.to_string(), field }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(field: &str) -> Complaint {
        Complaint { field: field.into(), text: format!("{field} is wrong.") }
    }

    #[test]
    fn complaints_are_joined_in_order() {
        let both = Complaints(vec![complaint("width"), complaint("seed")]);
        assert_eq!(both.to_string(), "width is wrong.; seed is wrong.");
        assert_eq!(both.texts(), ["width is wrong.", "seed is wrong."]);
    }

    #[test]
    fn a_job_error_names_the_field_only_when_it_is_one() {
        assert_eq!(JobError::from(Complaints::from(complaint("seed"))).field.as_deref(), Some("seed"));
        assert_eq!(JobError::from(Complaints(vec![complaint("width"), complaint("seed")])).field, None);
    }
}
