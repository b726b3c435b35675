//! The text format that every scraper reads, from the newer one that the library writes.

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// The content type of [`text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All of a registry in the text format of Prometheus, version 0.0.4.
pub fn text(registry: &Registry) -> String {
    let mut open = String::new();
    // Writing to a string cannot fail; what could be written is worth more than an error.
    let _ = encode(&mut open, registry);
    classic(&open)
}

/// Prometheus text 0.0.4 from OpenMetrics 1.0: a counter is declared by the name that its samples have, and there are no `# UNIT`
/// and `# EOF`.
fn classic(open: &str) -> String {
    let counters: Vec<&str> =
        open.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut text = String::with_capacity(open.len());
    for line in open.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
        let mut words = line.splitn(4, ' ');
        match [words.next(), words.next(), words.next(), words.next()] {
            [Some("#"), Some(kind), Some(name), Some(rest)] if counters.contains(&name) => {
                text.extend(["# ", kind, " ", name, "_total ", rest]);
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_declared_as_they_are_written() {
        let open = "# HELP a_jobs Jobs that ended.\n# TYPE a_jobs counter\na_jobs_total{x=\"# TYPE\"} 1\n\
                    # HELP a_jobs_s Time of a_jobs.\n# TYPE a_jobs_s histogram\n# UNIT a_jobs_s s\na_jobs_s_sum 0.5\n# EOF\n";
        let classic = classic(open);
        assert_eq!(
            classic,
            "# HELP a_jobs_total Jobs that ended.\n# TYPE a_jobs_total counter\na_jobs_total{x=\"# TYPE\"} 1\n\
             # HELP a_jobs_s Time of a_jobs.\n# TYPE a_jobs_s histogram\na_jobs_s_sum 0.5\n"
        );
    }
}
