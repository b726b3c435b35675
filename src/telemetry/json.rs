//! Log lines for machines: one JSON object each, beginning as those of the RunPod SDK do.

use std::fmt;

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::registry::LookupSpan;

use super::truncate::truncate;

/// `requestId` (the job, or null), `message`, `level`; then the line's own fields and its time. The message of a job of a batch begins with that.
pub(super) struct JsonFormat;

impl<S: Subscriber + for<'a> LookupSpan<'a>, N: for<'a> FormatFields<'a> + 'static> FormatEvent<S, N> for JsonFormat {
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Fields { id, batch, mut message, others } = fields;
        if let (Value::String(batch), Value::String(text)) = (batch, &mut message) {
            *text = truncate(&format!("[batchId={batch}] {text}")).into_owned();
        }
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut line = Map::new();
        line.insert("requestId".into(), id);
        line.insert("message".into(), message);
        line.insert("level".into(), event.metadata().level().as_str().into());
        line.extend(others);
        line.insert("time".into(), time.into());
        writeln!(writer, "{}", Value::Object(line))
    }
}

/// What an event says.
#[derive(Default)]
struct Fields {
    id: Value,
    batch: Value,
    message: Value,
    others: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match field.name() {
            "id" => self.id = value,
            "batch" => self.batch = value,
            "message" => self.message = value,
            name => drop(self.others.insert(name.to_owned(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, truncate(&format!("{value:?}")).into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, truncate(value).into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, json!(value));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use tracing::info;
    use tracing::subscriber::with_default;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_begins_as_the_sdk_s_does() {
        let log = Log::default();
        let writer = log.clone();
        let lines = tracing_subscriber::fmt().event_format(JsonFormat).with_writer(move || writer.clone()).finish();
        with_default(lines, || {
            info!(id = "j1", batch = Some("b1"), n = 5, "Started.");
            info!(id = "j\n2", batch = None::<&str>, "Finished.");
            info!(jobs = 2, "of several");
        });
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let starts = [
            r#"{"requestId":"j1","message":"[batchId=b1] Started.","level":"INFO","n":5,"time":""#,
            r#"{"requestId":"j\n2","message":"Finished.","level":"INFO","time":""#,
            r#"{"requestId":null,"message":"of several","level":"INFO","jobs":2,"time":""#,
        ];
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() == 3 && lines.iter().zip(starts).all(|(line, start)| line.starts_with(start)), "{text}");
    }
}
