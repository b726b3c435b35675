//! Logs go to stderr, as text for people or as one JSON object a line; stdout belongs to results.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;

use super::json::Lines;
use crate::config::{Level, Log};

/// Begins to log, for the whole process. A second call changes nothing.
pub fn init(log: Log) {
    let lines = tracing_subscriber::fmt().with_max_level(filter(log.level)).with_writer(io::stderr).with_target(false);
    // Someone who logs already, as a test may, keeps their logs.
    let _ = if log.json {
        lines.event_format(Lines).try_init()
    } else if io::stderr().is_terminal() {
        lines.try_init()
    } else {
        lines.with_ansi(false).try_init()
    };
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
