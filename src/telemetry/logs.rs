//! Logs go to stderr, as text for people or as one JSON object a line; stdout belongs to results.

use std::fmt::{self, Debug};
use std::io::{self, IsTerminal};

use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, registry};

use super::Traces;
use super::json::JsonFormat;
use super::truncate::truncate;
use crate::config::{LogConfig, LogLevel};

/// Begins to log, and to trace where there is a collector, for the whole process. A second call changes nothing.
pub fn init(log: LogConfig, traces: Option<&Traces>) {
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false);
    let lines = lines.fmt_fields(debug_fn(field).delimited(" "));
    let lines = if log.json {
        lines.event_format(JsonFormat).boxed()
    } else if io::stderr().is_terminal() {
        lines.boxed()
    } else {
        lines.with_ansi(false).boxed()
    };
    let level = filter(log.level);
    // Spans belong to traces: a line says by itself what it is about.
    let events = filter_fn(move |metadata| metadata.is_event() && *metadata.level() <= level);
    let lines = lines.with_filter(events.with_max_level_hint(level));
    // Someone who logs already, as a test may, keeps their logs.
    let _ = registry().with(lines).with(traces.map(Traces::layer)).try_init();
}

/// As people read it: a message as it is, what belongs to it by name.
fn field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    let value = format!("{value:?}");
    match field.name() {
        "message" => write!(writer, "{}", truncate(&value)),
        name => write!(writer, "{name}={}", truncate(&value)),
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Trace => LevelFilter::TRACE,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Off => LevelFilter::OFF,
    }
}
