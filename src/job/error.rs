//! Why a job is refused or fails, in words for clients.

use std::borrow::Cow;
use std::fmt;

use super::code::Code;

/// Why a job failed: all that a client sees.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct JobError {
    /// The same for programs.
    pub code: Code,
    /// A sentence for people.
    pub message: String,
    /// The input field at fault, if one is.
    pub field: Option<String>,
}

impl JobError {
    /// The client or a signal ended the job.
    pub fn cancelled() -> Self {
        Self { code: Code::Cancelled, message: "the job was cancelled".into(), field: None }
    }

    /// The engine stopped under the job; another engine can run it again.
    pub fn engine_lost(reason: &str) -> Self {
        Self {
            code: Code::EngineLost,
            message: format!("the engine was lost while the job ran: {reason}"),
            field: None,
        }
    }
}

/// Complaints that a client reads at most: an input can have a million keys at fault.
const MAX_COMPLAINTS: usize = 20;

/// Bytes of a word of the client's that are said again in a complaint.
const ECHOED_BYTES: usize = 100;

/// A client's own word as a complaint says it: of a long one, how it begins.
pub(super) fn cut(word: &str) -> Cow<'_, str> {
    if word.len() <= ECHOED_BYTES {
        return word.into();
    }
    format!("{}…", &word[..word.floor_char_boundary(ECHOED_BYTES)]).into()
}

/// One thing that is wrong with a job's input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// The key at fault, of a long one how it begins; `input` when it is the input itself.
    pub field: String,
    /// The sentence a client reads.
    pub text: String,
    /// What it may do about it.
    pub hint: Option<String>,
}

/// What is wrong with a job's input, one complaint a field: the first 20, and how many more there are. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Complaints {
    told: Vec<Complaint>,
    more: usize,
}

impl Complaints {
    /// `Err` with the complaints, or `Ok` when there are none.
    pub(super) fn check(complaints: impl Iterator<Item = Complaint>) -> Result<(), Self> {
        let mut complaints = complaints.fuse();
        let told: Vec<Complaint> = complaints.by_ref().take(MAX_COMPLAINTS).collect();
        if told.is_empty() { Ok(()) } else { Err(Self { told, more: complaints.count() }) }
    }

    /// These, and as many more, too many to read one by one.
    #[must_use]
    pub fn and(self, more: usize) -> Self {
        Self { more: self.more + more, ..self }
    }

    /// The complaints in the order in which a client reads them.
    pub fn iter(&self) -> impl Iterator<Item = &Complaint> {
        self.told.iter()
    }

    /// What a client may do about each of those for which something can be said, as `field: hint`.
    pub fn hints(&self) -> Vec<String> {
        let hint = |complaint: &Complaint| Some(format!("{}: {}", complaint.field, complaint.hint.as_ref()?));
        self.iter().filter_map(hint).collect()
    }

    /// The sentences alone: what the wire calls `errors`. The last says how many are not told, if any are not.
    pub fn texts(&self) -> Vec<String> {
        let more = (self.more > 0).then(|| format!("and {} more.", self.more));
        self.iter().map(|complaint| complaint.text.clone()).chain(more).collect()
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
        Self { told: vec![complaint], more: 0 }
    }
}

impl From<Complaints> for JobError {
    fn from(complaints: Complaints) -> Self {
        let field = match complaints.told.as_slice() {
            [only] => Some(only.field.clone()),
            _ => None,
        };
        Self { code: Code::InvalidInput, message: complaints.to_string(), field }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn complaint(field: &str) -> Complaint {
        Complaint { field: field.into(), text: format!("{field} is wrong."), hint: None }
    }

    fn all(fields: &[&str]) -> Complaints {
        Complaints::check(fields.iter().map(|field| complaint(field))).unwrap_err()
    }

    #[test]
    fn complaints_are_joined_in_order() {
        let both = all(&["width", "seed"]);
        assert_eq!(both.to_string(), "width is wrong.; seed is wrong.");
        assert_eq!(both.texts(), ["width is wrong.", "seed is wrong."]);
        assert_eq!(Complaints::check(std::iter::empty()), Ok(()));
    }

    #[test]
    fn of_many_complaints_the_first_are_told_and_the_others_counted() {
        let texts = all(&["x"; 1000]).and(7).texts();
        assert_eq!((texts.len(), &*texts[20]), (21, "and 987 more."));
        assert_eq!(all(&["x"; 20]).texts().len(), 20, "none is left to count");
    }

    #[test]
    fn a_long_word_is_cut_between_two_letters() {
        assert_eq!(cut("word"), "word");
        assert_eq!(cut(&"é".repeat(60)), format!("{}…", "é".repeat(50)));
        assert_eq!(cut(&format!("x{}", "é".repeat(60))), format!("x{}…", "é".repeat(49)));
    }

    #[test]
    fn a_job_error_names_the_field_only_when_it_is_one() {
        assert_eq!(JobError::from(Complaints::from(complaint("seed"))).field.as_deref(), Some("seed"));
        assert_eq!(JobError::from(all(&["width", "seed"])).field, None);
    }
}
