//! What the process ends with.

use std::ffi::c_int;
use std::io::{self, Write};

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

#[expect(unsafe_code, reason = "POSIX's _exit, which takes any number")]
unsafe extern "C" {
    safe fn _exit(code: c_int) -> !;
}

impl Exit {
    /// Ends the process at once. What C++ libraries do at an orderly end is left out: they would take down what an engine computes with that
    /// was let go of in the middle of an evaluation, and the process would end by a crash.
    pub fn end(self) -> ! {
        // Nothing else does it then. A client that has hung up needs no answer.
        let _ = io::stdout().flush();
        _exit(self.code())
    }

    fn code(self) -> c_int {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 64,
            Self::Unavailable => 69,
            Self::Bug => 70,
            Self::Restart => 75,
            Self::Interrupted => 130,
        }
    }
}
