//! What a command says to whoever started it: results on stdout, complaints on stderr.

use std::fmt::Display;
use std::io::{self, Write};

use super::exit::Exit;

/// Tells a person what is wrong with the command line or the configuration, and how the process ends then.
pub(super) fn usage(fault: &impl Display) -> Exit {
    complain(fault);
    Exit::Usage
}

/// Tells a person what is wrong.
pub(super) fn complain(fault: &impl Display) {
    // A closed stderr leaves the exit code to tell it.
    let _ = writeln!(io::stderr(), "latentd: {fault}");
}

/// Prints a result.
pub(super) fn say(result: &impl Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{result}")?;
    stdout.flush()
}
