//! Logs go to stderr, as text for people or as one JSON object a line; stdout belongs to results.

use std::fmt::{self, Debug};
use std::io::{self, IsTerminal};

use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

use super::cut::cut;
use super::json::Lines;
use crate::config::{Level, Log};

/// Begins to log, for the whole process. A second call changes nothing.
pub fn init(log: Log) {
    let lines = tracing_subscriber::fmt().with_max_level(filter(log.level)).with_writer(io::stderr).with_target(false);
    let lines = lines.fmt_fields(debug_fn(field).delimited(" "));
    // Someone who logs already, as a test may, keeps their logs.
    let _ = if log.json {
        lines.event_format(Lines).try_init()
    } else if io::stderr().is_terminal() {
        lines.try_init()
    } else {
        lines.with_ansi(false).try_init()
    };
}

/// As people read it: a message as it is, what belongs to it by name.
fn field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    let value = format!("{value:?}");
    match field.name() {
        "message" => write!(writer, "{}", cut(&value)),
        name => write!(writer, "{name}={}", cut(&value)),
    }
}

fn filter(level: Level) -> LevelFilter {
    match level {
        Level::Trace => LevelFilter::TRACE,
        Level::Debug => LevelFilter::DEBUG,
        Level::Info => LevelFilter::INFO,
        Level::Warn => LevelFilter::WARN,
        Level::Error => LevelFilter::ERROR,
        Level::Off => LevelFilter::OFF,
    }
}
