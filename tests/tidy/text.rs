//! Rules about text: length, first lines, words, machine paths, links, dependencies, changelog, map.

use crate::lex::tokens;

/// Code lines that a file may have, comments and the tests at its end apart.
const LONGEST: usize = 300;

/// Words that put work off. In two pieces, so that this file does not hold them.
const PUT_OFF: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Macros and attributes that leave something undone.
const UNDONE: [([&str; 3], &str); 5] = [
    (["todo", "!", "("], "not done"),
    (["unimplemented", "!", "("], "not done"),
    (["dbg", "!", "("], "left from debugging"),
    (["#", "[", "ignore"], "a test that does not run"),
    (["allow", "(", "dead_code"], "code that nobody uses"),
];

/// Roots of paths that exist on one person's machine. In two pieces, as above.
const MACHINES: [&str; 6] = [
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/Us", "ers/"),
    concat!("/wo", "rk/"),
    concat!("/t", "mp/"),
    concat!("C:", "\\"),
];

/// `//!` on the first line, where a reader looks.
pub(crate) fn header(path: &str, source: &str) -> Option<String> {
    let says =
        source.lines().next().and_then(|line| line.strip_prefix("//! ")).is_some_and(|text| !text.trim().is_empty());
    (!says).then(|| format!("{path}:1: the first line of a file says what it holds: `//! …`"))
}

/// Too many lines of code.
pub(crate) fn length(path: &str, code: &str) -> Option<String> {
    let lines = code.lines().filter(|line| !line.trim().is_empty()).count();
    (lines > LONGEST).then(|| format!("{path}: {lines} lines of code, {LONGEST} at most: split it by what it does"))
}

/// Work that was put off in words, and paths of somebody's machine.
pub(crate) fn words(path: &str, text: &str) -> Vec<String> {
    let put_off = |line: &str| {
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.find(|word| PUT_OFF.contains(word)).map(|word| format!("{word} puts work off: do it, or open an issue"))
    };
    let machine = |line: &str| {
        let own = MACHINES.iter().find(|root| {
            line.match_indices(**root)
                .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-/}~".contains(c)))
        });
        own.map(|root| format!("{root} is a path of one machine"))
    };
    let faults = text.lines().enumerate().flat_map(|(index, line)| {
        let faults = put_off(line).into_iter().chain(machine(line));
        faults.map(move |why| format!("{path}:{}: {why}", index + 1)).collect::<Vec<_>>()
    });
    faults.collect()
}

/// Work that was put off in code.
pub(crate) fn undone(path: &str, code: &str) -> Vec<String> {
    let tokens = tokens(code);
    let faults = tokens.windows(3).filter_map(|window| {
        let (pattern, why) = UNDONE.iter().find(|(pattern, _)| window.iter().map(|token| token.text).eq(*pattern))?;
        let line = code[..window[0].at].matches('\n').count() + 1;
        Some(format!("{path}:{line}: {}: {why}", pattern.concat()))
    });
    faults.collect()
}

/// Lines of a Markdown page outside of fenced code blocks, each with its number, from 1.
pub(crate) fn prose(page: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    (1..).zip(page.lines()).filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fence && !fenced
    })
}

/// Targets of the links of a Markdown page, each with its line, code left out.
pub(crate) fn links(page: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    for (number, line) in prose(page) {
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        let inline = prose.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
        let defined = prose.strip_prefix('[').and_then(|rest| rest.split_once("]: ")).map(|(_, target)| target);
        links.extend(inline.chain(defined).map(|target| (number, target.trim().to_owned())));
    }
    links
}

/// The file that a link on `page` leads to, relative to the repository; `None` for links that leave it.
pub(crate) fn target(page: &str, link: &str) -> Option<String> {
    let file = link.split('#').next().unwrap_or_default();
    if file.is_empty() || link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in file.split('/') {
        match part {
            "." | "" => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Dependencies of a manifest: name and line of text.
pub(crate) fn dependencies(manifest: &str) -> Vec<(&str, &str)> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]");
        } else if inside && !line.starts_with('#') {
            found.extend(line.split_once('=').map(|(name, _)| (name.trim(), line)));
        }
    }
    found
}

/// A dependency is exact, and says why it is there.
pub(crate) fn dependency(name: &str, line: &str) -> Option<String> {
    let reason = line.rsplit_once("# ").is_some_and(|(_, why)| !why.trim().is_empty());
    let exact = line.contains("\"=");
    (!(reason && exact)).then(|| format!("Cargo.toml: {name} needs an exact version (\"=1.2.3\") and a reason (# …)"))
}

/// The changelog has a place for what comes next.
pub(crate) fn changelog(text: &str) -> Option<String> {
    let unreleased = text.lines().any(|line| line.starts_with("## ") && line.contains("Unreleased"));
    (!unreleased).then(|| "CHANGELOG.md: there is no `## Unreleased`".to_owned())
}

/// The page with the map.
pub(crate) const MAP: &str = "docs/architecture/00-overview.md";

/// The map names every folder of `src`.
pub(crate) fn map(page: &str, folder: &str) -> Option<String> {
    let named = page.contains(&format!("`{folder}/")) || page.contains(&format!(" {folder}/"));
    (!named).then(|| format!("{MAP}: the map lacks src/{folder}/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_begins_with_what_it_holds() {
        assert_eq!(header("a.rs", "//! Jobs.\nuse x;"), None);
        for source in ["", "use x;", "\n//! Jobs.", "// Jobs.", "//!", "//!  \n"] {
            assert!(header("a.rs", source).is_some(), "{source:?}");
        }
    }

    #[test]
    fn blank_lines_do_not_make_a_file_long() {
        assert_eq!(length("a.rs", &"x;\n\n   \n".repeat(LONGEST)), None);
        let fault = length("a.rs", &"x;\n".repeat(LONGEST + 1));
        assert!(fault.is_some_and(|fault| fault.starts_with("a.rs: 301 lines")));
    }

    #[test]
    fn words_that_put_off_are_found_whole() {
        let text = PUT_OFF.map(|word| format!("done\n// {word}: later")).join("\n");
        assert_eq!(words("a.rs", &text).len(), PUT_OFF.len());
        assert!(words("a.rs", &text)[0].starts_with("a.rs:2: "));
        assert_eq!(
            words("a.md", &PUT_OFF.map(|word| format!("{word}S x{word} {}", word.to_lowercase())).join(" ")),
            [""; 0]
        );
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        for root in MACHINES {
            for text in [format!("cd {root}me"), format!("\"{root}\""), format!("[x]({root}x)"), format!("{root}x")] {
                assert_eq!(words("a.md", &text).len(), 1, "{text}");
            }
            assert_eq!(words("a.md", &format!("target{root}x ..{root} ~{root}")), [""; 0]);
        }
    }

    #[test]
    fn undone_code_is_found() {
        for (pattern, why) in UNDONE {
            let pattern = pattern.concat();
            assert_eq!(undone("a.rs", &format!("a b c\n{pattern} d")), [format!("a.rs:2: {pattern}: {why}")]);
        }
        for code in ["", "x", "fn todo() {}", "dbg != x", "ignore", "allow(unused)"] {
            assert_eq!(undone("a.rs", code), [""; 0], "{code}");
        }
    }

    #[test]
    fn links_are_found_outside_of_code() {
        let page = "See [a](b.md#c), ![d](e/f.png \"g\") and `[h](i)`.\n```\n[j](k)\n```\n[l]: m.md\n[n][l]";
        let targets = links(page);
        assert_eq!(targets, [(1, "b.md#c".to_owned()), (1, "e/f.png".to_owned()), (5, "m.md".to_owned())]);
    }

    #[test]
    fn targets_are_relative_to_their_page() {
        for (page, link, expected) in [
            ("README.md", "docs/a.md#b", Some("docs/a.md")),
            ("docs/x/a.md", "../b.md", Some("docs/b.md")),
            ("docs/a.md", "./b/", Some("docs/b")),
            ("a.md", "../b.md", Some("../b.md")),
            ("a.md", "#here", None),
            ("a.md", "https://example.org/x", None),
            ("a.md", "mailto:a@example.org", None),
        ] {
            assert_eq!(target(page, link).as_deref(), expected, "{page}: {link}");
        }
    }

    #[test]
    fn dependencies_are_exact_and_have_a_reason() {
        let manifest = "[package]\nversion = \"1\"\n[dependencies]\n# Why.\na = \"=1.0\" # why\n[target.x.dev-dependencies]\nb = \"1\"\n[lints]\nc = 1";
        let found = dependencies(manifest);
        assert_eq!(found.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(dependency("a", "a = \"=1.0\" # why"), None);
        assert_eq!(dependency("a", "a = { version = \"=1.0\", features = [\"b\"] } # why"), None);
        for line in ["a = \"1.0\" # why", "a = \"=1.0\"", "a = \"=1.0\" # ", "a = { git = \"b\" } # why"] {
            assert!(dependency("a", line).is_some(), "{line}");
        }
    }

    #[test]
    fn changelog_and_map_are_read() {
        assert_eq!(changelog("# Changelog\n\n## Unreleased\n"), None);
        assert!(changelog("# Changelog\nUnreleased\n## 1.0").is_some());
        assert_eq!(map("    job/   what", "job"), None);
        assert_eq!(map("the `job/` folder", "job"), None);
        assert!(map("subjob/ job", "job").is_some());
    }
}
