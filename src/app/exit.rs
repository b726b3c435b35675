//! What the process ends with.

use std::process::ExitCode;

/// Exit codes; those beyond 1 follow `sysexits.h` and the shells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// What was asked for is done.
    Done,
    /// The job failed, or there was none that could be read.
    Failed,
    /// The command line or the configuration is wrong, or asks for what this build does not have.
    Usage,
    /// The queue can never work.
    Unavailable,
    /// A bug.
    Bug,
    /// This process can do no more, and another in its place can.
    Restart,
    /// Interrupted from the keyboard.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 64,
            Exit::Unavailable => 69,
            Exit::Bug => 70,
            Exit::Restart => 75,
            Exit::Interrupted => 130,
        })
    }
}
