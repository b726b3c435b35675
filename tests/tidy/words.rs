//! Rules about prose: sentences of the documentation are short, and what pages name and link to exists.

use std::path::Path;

use crate::{File, none, repository, text};

/// Words that a sentence may have.
const MOST_WORDS: usize = 35;

/// The median of a page's sentences is below this.
const MEDIAN_WORDS: usize = 20;

/// Words for which a plain verb serves.
const ODD: [&str; 3] = ["nobody", "any more", "anew"];

/// Pages that hold to it, beside those of `docs/`.
const PAGES: [&str; 3] = ["README.md", "CONTRIBUTING.md", "models/README.md"];

/// Pages of figures and of generated tables, which do not.
const TABLES: [&str; 2] = ["docs/configuration.md", "docs/performance.md"];

/// Whether a page's sentences are to be short.
fn is_prose(path: &str) -> bool {
    path.starts_with("docs/") && !TABLES.contains(&path) || PAGES.contains(&path)
}

/// A sentence of a page.
struct Sentence {
    /// Where it begins, from 1.
    line: usize,
    words: usize,
    /// Whether it stands in a table or a heading, where words are few.
    terse: bool,
}

/// Sentences outside of code blocks. A heading, an item of a list and a cell of a table each end one.
fn sentences(page: &str) -> Vec<Sentence> {
    let mut found = Vec::new();
    let mut open: Option<Sentence> = None;
    let (mut last, mut code) = (0, false);
    for (number, line) in text::prose(page) {
        let text = line.trim_start();
        let table = text.starts_with('|');
        let item = text.starts_with("* ")
            || text.starts_with("- ")
            || text.split_once(". ").is_some_and(|(n, _)| n.parse::<u8>().is_ok());
        let after_code = number > last + 1;
        last = number;
        if after_code || text.is_empty() || table || item || text.starts_with('#') {
            found.extend(open.take());
            code = false;
        }
        let terse = table || text.starts_with('#');
        for word in text.split_whitespace() {
            if table && word == "|" {
                found.extend(open.take());
                continue;
            }
            // A piece of code is one word, whatever is in it.
            let inside = code;
            code ^= word.matches('`').count() % 2 == 1;
            if !inside && word.contains(char::is_alphanumeric) {
                open.get_or_insert(Sentence { line: number, words: 0, terse }).words += 1;
            }
            if !code && word.trim_end_matches([')', '*', '"', '`', '_']).ends_with(['.', '!', '?']) {
                found.extend(open.take());
            }
        }
        if terse {
            found.extend(open.take());
        }
    }
    found.extend(open);
    found
}

/// What is wrong with a page's sentences.
fn faults(path: &str, page: &str) -> Vec<String> {
    let found = sentences(page);
    let long = found.iter().filter(|sentence| sentence.words > MOST_WORDS);
    let mut faults: Vec<String> = long
        .map(|Sentence { line, words, .. }| format!("{path}:{line}: a sentence of {words} words, {MOST_WORDS} at most"))
        .collect();
    let mut prose: Vec<usize> =
        found.iter().filter(|sentence| !sentence.terse).map(|sentence| sentence.words).collect();
    prose.sort_unstable();
    if let Some(median) = prose.get(prose.len() / 2).filter(|median| **median >= MEDIAN_WORDS) {
        faults.push(format!("{path}: half of its sentences have {median} words or more, {MEDIAN_WORDS} are too many"));
    }
    faults
}

/// Odd words of a page's prose, code apart.
fn odd(path: &str, page: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, line) in text::prose(page) {
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join(" ").to_lowercase();
        let words: Vec<&str> = prose.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        let text = format!(" {} ", words.join(" "));
        let found = ODD.iter().filter(|word| text.contains(&format!(" {word} ")));
        faults.extend(found.map(|word| format!("{path}:{number}: {word}: say it with a plain verb")));
    }
    faults
}

/// What GitHub calls the headings of a page in links.
fn anchors(page: &str) -> Vec<String> {
    let headings = text::prose(page).map(|(_, line)| line).filter(|line| line.starts_with('#'));
    let slug = |heading: &str| {
        let kept = heading.trim_start_matches('#').trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    headings.map(slug).collect()
}

/// Links of a page to a heading that is not there.
fn lost(page: &File, files: &[File]) -> Vec<String> {
    let links = text::links(&page.text).into_iter().filter_map(|(line, link)| {
        let anchor = link.split_once('#')?.1.to_owned();
        let path = text::target(&page.path, &link).unwrap_or_else(|| page.path.clone());
        let found = files.iter().find(|file| file.path == path && file.is("md"))?;
        (!link.contains("://") && !anchors(&found.text).contains(&anchor))
            .then(|| format!("{}:{line}: {link}: there is no such heading", page.path))
    });
    links.collect()
}

/// Folders whose paths pages name from the root.
const ROOTS: [&str; 8] = ["src/", "tests/", "scripts/", "examples/", "native/", "fuzz/", "handler-tests/", "deploy/"];

/// Pieces of code in a page's prose, each with its line.
fn code(page: &str) -> Vec<(usize, &str)> {
    text::prose(page)
        .flat_map(|(number, line)| line.split('`').skip(1).step_by(2).map(move |code| (number, code)))
        .collect()
}

/// The path that a piece of code begins with, if it is one of this repository without a pattern in it.
fn named_path(code: &str) -> Option<&str> {
    let path = code.split_whitespace().next()?.trim_end_matches('/');
    let rooted = ROOTS.iter().any(|root| path.starts_with(root));
    (rooted && !path.contains(['*', '…', '{', '<'])).then_some(path)
}

/// Names of a piece of code that is a type, as in `Engine`, or something of one, as in `Record::start`.
fn named_items(code: &str) -> Vec<&str> {
    let names: Vec<&str> = code.split("::").collect();
    let name =
        |name: &&str| name.starts_with(char::is_alphabetic) && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    let camel = |name: &str| name.starts_with(char::is_uppercase) && name.contains(char::is_lowercase);
    if names.iter().all(name) && names.iter().any(|name| camel(name)) { names } else { Vec::new() }
}

#[test]
fn pages_name_files_and_types_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = repository();
    let pages = files.iter().filter(|file| file.is("md") && (is_prose(&file.path) || TABLES.contains(&&*file.path)));
    let sources: Vec<_> = files.iter().filter(|file| file.is("rs") || file.is("py")).collect();
    let known = |item: &str| {
        sources.iter().any(|file| file.text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == item))
    };
    none(pages.flat_map(|page| {
        let explains = page.path.starts_with("docs/architecture/");
        let faults = code(&page.text).into_iter().flat_map(|(line, code)| {
            let path = named_path(code).filter(|path| !root.join(path).exists());
            let items = if explains { named_items(code) } else { Vec::new() };
            let items = items.into_iter().filter(|item| !known(item));
            path.into_iter()
                .chain(items)
                .map(|lost| format!("{}:{line}: there is no {lost}", page.path))
                .collect::<Vec<_>>()
        });
        faults.collect::<Vec<_>>()
    }));
}

#[test]
fn paths_and_types_are_found_in_prose() {
    assert_eq!(code("a `b c` d\n```\n`e`\n```\n`f`"), [(1, "b c"), (5, "f")]);
    for (code, expected) in [
        ("src/job/", Some("src/job")),
        ("scripts/gpu/run OUT", Some("scripts/gpu/run")),
        ("tests/sdk/test_*.py", None),
        ("crates/src/x", None),
    ] {
        assert_eq!(named_path(code), expected, "{code}");
    }
    for (code, expected) in
        [("Record::start", &["Record", "start"][..]), ("Engine", &["Engine"]), ("HEUN", &[]), ("x = Y", &[])]
    {
        assert_eq!(named_items(code), expected, "{code}");
    }
}

#[test]
fn links_lead_to_headings() {
    let files = repository();
    none(files.iter().filter(|file| file.is("md")).flat_map(|page| lost(page, &files)));
}

#[test]
fn headings_are_named_as_in_links() {
    let page = "# The gateway's *queue*\n```\n# no heading\n```\n## How to add …\n### 10 images, `a_b`-c\n";
    assert_eq!(anchors(page), ["the-gateways-queue", "how-to-add-", "10-images-a_b-c"]);
    let file = |text: &str| File { path: "a.md".into(), text: text.into() };
    let page = file("# One\n\n[a](#one) [b](a.md#two)\n");
    assert_eq!(lost(&page, &[file(&page.text)]), ["a.md:3: a.md#two: there is no such heading"]);
}

#[test]
fn sentences_are_short() {
    let files = repository();
    let pages: Vec<_> = files.iter().filter(|file| file.is("md") && is_prose(&file.path)).collect();
    assert!(pages.len() > 20, "{} pages were found", pages.len());
    none(pages.iter().flat_map(|page| faults(&page.path, &page.text).into_iter().chain(odd(&page.path, &page.text))));
}

#[test]
fn sentences_are_told_apart() {
    let page = "# A title\n\nOne two. Three\nfour (five.) `a b. c` six\n\n* seven\n* [eight](nine.b) ten.\n\n| a b | c |\n|---|---|\n```\nx y z\n```\nv1.5 is one: so; on\n";
    let words: Vec<(usize, usize, bool)> =
        sentences(page).into_iter().map(|Sentence { line, words, terse }| (line, words, terse)).collect();
    assert_eq!(
        words,
        [
            (1, 2, true),
            (3, 2, false),
            (3, 3, false),
            (4, 2, false),
            (6, 1, false),
            (7, 2, false),
            (9, 2, true),
            (9, 1, true),
            (14, 5, false)
        ]
    );
}

#[test]
fn odd_words_are_found_outside_of_code() {
    assert_eq!(
        odd("a.md", "It begins `anew`.\n```\nnobody\n```\nIs it any\nmore? Nobody-\n"),
        ["a.md:6: nobody: say it with a plain verb"]
    );
    assert_eq!(odd("a.md", "It is not there any more."), ["a.md:1: any more: say it with a plain verb"]);
}

#[test]
fn long_sentences_are_found() {
    let page = |words: usize| format!("Short.\n\n{}.\n\nShort.\n", vec!["word"; words].join(" "));
    assert_eq!(faults("a.md", &page(MOST_WORDS)), [""; 0]);
    assert_eq!(faults("a.md", &page(MOST_WORDS + 1)), ["a.md:3: a sentence of 36 words, 35 at most"]);
    let even = vec!["word"; MEDIAN_WORDS].join(" ");
    assert_eq!(faults("a.md", &even), ["a.md: half of its sentences have 20 words or more, 20 are too many"]);
}
