//! The fields of log lines: each is spelled as docs/logging.md has it.

use std::collections::BTreeSet;

use crate::lex::tokens;

/// Macros that write a line.
const MACROS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// The fields in the first column of the page's tables.
pub(crate) fn allowed(page: &str) -> BTreeSet<&str> {
    let fields = page.split_once("## Fields").map_or("", |(_, rest)| rest.split("\n## ").next().unwrap_or_default());
    let cells = fields.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

/// Fields of `code`, in which literals are `_`, that are not allowed, as complaints; and the fields that are used.
pub(crate) fn faults<'a>(path: &str, code: &'a str, allowed: &BTreeSet<&str>) -> (Vec<String>, BTreeSet<&'a str>) {
    let tokens = tokens(code);
    let text = |index: usize| tokens.get(index).map_or("", |token| token.text);
    let (mut faults, mut used) = (Vec::new(), BTreeSet::new());
    for index in 0..tokens.len() {
        if !MACROS.contains(&text(index)) || text(index + 1) != "!" || text(index + 2) != "(" {
            continue;
        }
        let mut at = index + 3;
        while let Some((field, next)) = field(&text, at) {
            used.insert(field);
            if !allowed.contains(field) {
                let line = code[..tokens[at].at].matches('\n').count() + 1;
                faults.push(format!("{path}:{line}: the field {field} is not in docs/logging.md"));
            }
            at = next;
        }
    }
    (faults, used)
}

/// The field that begins at a token, and where the next argument begins; `None` at the message, or where it is over.
fn field<'a>(text: &impl Fn(usize) -> &'a str, at: usize) -> Option<(&'a str, usize)> {
    let name = text(at + usize::from(matches!(text(at), "%" | "?")));
    if name.is_empty() || name == ")" || name.chars().all(|letter| letter == '_') {
        return None;
    }
    let (mut depth, mut end) = (0_usize, at);
    loop {
        match text(end) {
            "" => return None,
            "(" | "[" | "{" => depth += 1,
            ")" if depth == 0 => return Some((name, end)),
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            "," if depth == 0 => return Some((name, end + 1)),
            _ => {}
        }
        end += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lex::code_only;

    #[test]
    fn fields_are_those_of_the_page() {
        let page = "| `no` |\n## Fields\n| field | holds |\n|---|---|\n| `id` | a job |\n| `ms`, `bytes` | numbers |\n## Spans\n| `x` |";
        let allowed = allowed(page);
        assert_eq!(allowed.iter().copied().collect::<Vec<_>>(), ["bytes", "id", "ms"]);
        let code = code_only(
            "info!(id, ms = f(a, b), \"text {x}\", x);\nwarn!(%cause, bytes = a.len(), \"t\"); error!(\"only\"); x.info!(a)",
        );
        let (faults, used) = faults("a.rs", &code, &allowed);
        assert_eq!(faults[0], "a.rs:2: the field cause is not in docs/logging.md");
        assert!(["bytes", "cause", "id", "ms"].iter().all(|field| used.contains(field)), "{used:?}");
    }
}
