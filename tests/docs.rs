//! Pages of `docs/` that follow from something else. `UPDATE_DOCS=1 cargo test --release --test integration docs::` writes them.

#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::fs;
use std::path::Path;

use latentd::job::Contract;

/// A setting as the commented defaults have it.
struct Setting<'a> {
    key: String,
    default: &'a str,
    /// What the comment above it says; of several settings under one comment, the first has it.
    says: String,
}

/// Settings by section, in their order; the first has no name.
fn sections(defaults: &str) -> Vec<(&str, Vec<Setting<'_>>)> {
    let mut sections = vec![("", Vec::new())];
    let (mut says, mut last) = (String::new(), "");
    for line in defaults.lines() {
        if let Some(text) = line.strip_prefix("# ") {
            if !last.starts_with('#') {
                says.clear();
            }
            says.push(' ');
            says.push_str(text);
        } else if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            sections.push((name, Vec::new()));
        } else if let Some((key, default)) = line.split_once(" = ") {
            let (section, settings) = sections.last_mut().unwrap();
            let key = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
            settings.push(Setting { key, default, says: std::mem::take(&mut says).trim().to_owned() });
        }
        last = line;
    }
    sections
}

fn configuration(defaults: &str) -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         Every setting, from [the commented defaults](../src/config/default.toml) in the binary. Flags win over variables, those over the\n\
         RunPod variables that have a meaning here (named where they have), those over a file (`--config`, `LATENTD_CONFIG`, else\n\
         `./latentd.toml`), and that over the defaults. `latentd config show` prints what holds on a machine and where it came from.\n\
         An unknown key, an unknown `LATENTD_*` variable and an impossible value are errors, all told at once.\n",
    );
    for (section, settings) in sections(defaults) {
        if !section.is_empty() {
            write!(page, "\n## {section}\n").unwrap();
        }
        page.push_str("\n| key | variable | default | meaning |\n|---|---|---|---|\n");
        for Setting { key, default, says } in settings {
            // A list of tables is for the file alone.
            let variable = format!("`LATENTD_{}`", key.to_uppercase().replace('.', "__"));
            let variable = if key == "models" { "" } else { &variable };
            let says = if says.is_empty() { "as above" } else { &says.replace('|', "\\|") };
            writeln!(page, "| `{key}` | {variable} | `{default}` | {says} |").unwrap();
        }
    }
    page
}

#[test]
fn the_configuration_page_is_that_of_the_defaults() {
    let defaults = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/default.toml");
    is_written("configuration.md", &configuration(&fs::read_to_string(defaults).unwrap()));
}

/// Whether `page` is what is written in `docs/`, where it is written first if that was asked for.
#[expect(clippy::disallowed_methods, reason = "a test is told by a variable to write")]
fn is_written(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap();
    let differs = page.lines().zip(written.lines()).find(|(ours, theirs)| ours != theirs);
    assert!(
        page == written,
        "UPDATE_DOCS=1 cargo test --release --test integration docs:: writes docs/{name}; {differs:?}"
    );
}

#[test]
fn the_fields_of_a_job_are_those_of_the_contracts() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/jobs.md");
    let mut page = fs::read_to_string(path).unwrap();
    for contract in Contract::ALL {
        let [begin, end] = ["begin", "end"].map(|mark| format!("<!-- {mark} {contract} -->\n"));
        let (before, rest) = page.split_once(&begin).unwrap();
        let (_, after) = rest.split_once(&end).unwrap();
        page = format!("{before}{begin}{}{end}{after}", contract.markdown());
    }
    is_written("jobs.md", &page);
}

#[test]
fn the_document_of_the_api_is_that_of_the_gateway() {
    let document = serde_json::to_string_pretty(&latentd::gateway::openapi(&[])).unwrap();
    is_written("openapi.json", &format!("{document}\n"));
}

#[test]
fn a_comment_belongs_to_the_settings_below_it() {
    let defaults = "# A file.\n\n# One,\n# and more.\na = 1\n\n[s]\n# Two.\nb = []\nc = \"\"\n";
    let page = configuration(defaults);
    assert!(page.contains("| `a` | `LATENTD_A` | `1` | One, and more. |\n\n## s\n"), "{page}");
    assert!(
        page.ends_with("| `s.b` | `LATENTD_S__B` | `[]` | Two. |\n| `s.c` | `LATENTD_S__C` | `\"\"` | as above |\n"),
        "{page}"
    );
}

/// Texts of all files below a folder that may print something.
fn sources(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    entries
        .map(|path| if path.is_dir() { sources(&path) } else { fs::read_to_string(path).unwrap_or_default() })
        .collect()
}

/// Words with one space between them and no line breaks of Rust's texts.
fn flat(text: &str) -> String {
    text.replace("\\\n", "").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_message_of_the_troubleshooting_page_is_one_that_we_print() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let printed = flat(&(sources(&root.join("src")) + &sources(&root.join("scripts"))));
    let page = fs::read_to_string(root.join("docs/troubleshooting.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let messages: Vec<&str> = rows.filter_map(|row| Some(row.split_once('`')?.0)).collect();
    assert!(messages.len() > 30, "{}", messages.len());
    for message in messages {
        for piece in message.split('…').map(str::trim).filter(|piece| piece.len() > 4) {
            assert!(printed.contains(&flat(piece)), "{message:?}: nothing prints {piece:?}");
        }
    }
}
