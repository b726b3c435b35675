//! The rules of the house that no compiler checks, as tests. Each names file, line and reason of every breach at once.

mod graph;
mod items;
mod layers;
mod lex;
mod log_fields;
mod names;
mod paths;
mod text;
mod words;

use std::fs;
use std::path::Path;

use layers::Place;
use lex::{Shipped, code_only, without_tests};

/// A text file of the repository; its path has `/` between folders.
struct File {
    path: String,
    text: String,
}

impl File {
    fn is(&self, extension: &str) -> bool {
        self.path.rsplit_once('.').is_some_and(|(_, found)| found == extension)
    }
}

/// All text files but those that git ignores.
fn repository() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ignored = fs::read_to_string(root.join(".gitignore")).unwrap_or_default();
    let ignored: Vec<&str> = ignored.lines().chain(["/.git"]).collect();
    let mut files = Vec::new();
    collect(root, "", &ignored, &mut files);
    assert!(files.iter().any(|file| file.path == "src/main.rs"), "{} is no checkout of latentd", root.display());
    files
}

fn collect(folder: &Path, prefix: &str, ignored: &[&str], files: &mut Vec<File>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if ignored.iter().any(|pattern| matches(pattern, &path)) {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect(&entry.path(), &format!("{path}/"), ignored, files),
            Ok(kind) if kind.is_file() => {
                // What is not UTF-8 is a picture or a weight.
                files.extend(fs::read_to_string(entry.path()).ok().map(|text| File { path, text }));
            }
            _ => {}
        }
    }
}

/// The part of .gitignore's language that ours uses: `/here`, `/here*`, `/*.here`, `anywhere/`.
fn matches(pattern: &str, path: &str) -> bool {
    let pattern = pattern.trim_end_matches('/');
    let (pattern, name) = match pattern.strip_prefix('/') {
        Some(rooted) => (rooted, path),
        None => (pattern, path.rsplit('/').next().unwrap_or(path)),
    };
    match pattern.split_once('*') {
        Some((start, end)) => {
            name.len() >= pattern.len() - 1 && name.starts_with(start) && name.ends_with(end) && !name.contains('/')
        }
        None => name == pattern && !pattern.is_empty(),
    }
}

/// Rust files with the code that ships; a file that is only compiled for tests has none.
fn rust(files: &[File]) -> Vec<(&File, String)> {
    let read: Vec<(&File, Shipped)> =
        files.iter().filter(|file| file.is("rs")).map(|file| (file, without_tests(&code_only(&file.text)))).collect();
    let only_tests: Vec<String> = read
        .iter()
        .flat_map(|(file, shipped)| {
            let folder = file.path.strip_suffix("mod.rs").map_or_else(
                || file.path.trim_end_matches(".rs").to_owned(),
                |folder| folder.trim_end_matches('/').to_owned(),
            );
            shipped.test_modules.iter().map(move |module| format!("{folder}/{module}"))
        })
        .collect();
    let for_tests = |path: &str| {
        only_tests
            .iter()
            .any(|module| path.strip_prefix(module.as_str()).is_some_and(|rest| rest.starts_with(['.', '/'])))
    };
    read.into_iter()
        .map(|(file, shipped)| (file, if for_tests(&file.path) { String::new() } else { shipped.code }))
        .collect()
}

fn none(faults: impl IntoIterator<Item = String>) {
    let faults: Vec<String> = faults.into_iter().collect();
    assert!(faults.is_empty(), "{} breaches of the house's rules:\n{}", faults.len(), faults.join("\n"));
}

/// The text of the file at `path`, which must be there: a rule about a file that is gone would hold for ever.
fn file<'a>(files: &'a [File], path: &str) -> &'a str {
    let found = files.iter().find(|file| file.path == path);
    assert!(found.is_some(), "there is no {path}");
    found.map_or("", |file| &file.text)
}

#[test]
fn modules_keep_to_their_layers() {
    let files = repository();
    let dependencies: Vec<String> =
        text::dependencies(file(&files, "Cargo.toml")).iter().map(|(name, _)| name.replace('-', "_")).collect();
    assert!(dependencies.iter().any(|name| name == "serde"), "no dependencies were read from Cargo.toml");
    let rust = rust(&files);
    let placed = || rust.iter().filter_map(|(file, code)| Some((Place::of(&file.path)?, code.as_str())));
    none(placed().flat_map(|(place, code)| layers::faults(&place, code, &dependencies)));
    none(layers::circles(&placed().collect::<Vec<_>>()));
}

#[test]
fn files_are_in_no_circle() {
    let files = repository();
    let rust = rust(&files);
    let placed: Vec<_> = rust.iter().filter_map(|(file, code)| Some((Place::of(&file.path)?, code.as_str()))).collect();
    none(graph::circles(&placed));
}

#[test]
fn names_have_one_meaning() {
    let files = repository();
    let rust = rust(&files);
    let source: Vec<_> = rust
        .iter()
        .filter(|(file, _)| file.path.starts_with("src/"))
        .map(|(file, code)| (file.path.as_str(), code.as_str()))
        .collect();
    none(names::shared(&source));
    let hidden: Vec<String> = source.iter().flat_map(|(path, code)| names::hidden(path, code)).collect();
    none(hidden);
}

#[test]
fn log_fields_have_one_spelling() {
    let files = repository();
    let allowed = log_fields::allowed(file(&files, "docs/logging.md"));
    let mut unused = allowed.clone();
    let mut faults = Vec::new();
    let rust = rust(&files);
    for (file, code) in rust.iter().filter(|(file, _)| file.path.starts_with("src/")) {
        let (found, used) = log_fields::faults(&file.path, code, &allowed);
        faults.extend(found);
        unused.retain(|field| !used.contains(field));
    }
    faults.extend(unused.iter().map(|field| format!("docs/logging.md: no line has the field {field}")));
    none(faults);
}

#[test]
fn files_are_short_and_say_what_they_hold() {
    let files = repository();
    // A file of tests is held to the same length; only the tests at the end of a file of code are not counted.
    none(files.iter().filter(|file| file.is("rs")).flat_map(|file| {
        let code = without_tests(&code_only(&file.text)).code;
        text::header(&file.path, &file.text).into_iter().chain(text::length(&file.path, &code))
    }));
}

#[test]
fn nothing_is_put_off() {
    let files = repository();
    let data = |file: &&File| file.is("json") || file.is("txt") || file.is("lock");
    none(files.iter().filter(|file| !data(file)).flat_map(|file| text::words(&file.path, &file.text)));
    let code = files.iter().filter(|file| file.is("rs")).map(|file| (file, code_only(&file.text)));
    none(code.flat_map(|(file, code)| text::undone(&file.path, &code)));
}

#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    none(repository().iter().filter(|file| file.is("md")).flat_map(|page| {
        let lost = text::links(&page.text)
            .into_iter()
            .filter(|(_, link)| text::target(&page.path, link).is_some_and(|target| !root.join(target).exists()));
        lost.map(|(line, link)| format!("{}:{line}: {link} does not exist", page.path)).collect::<Vec<_>>()
    }));
}

#[test]
fn dependencies_are_pinned_and_explained() {
    let files = repository();
    none(
        text::dependencies(file(&files, "Cargo.toml"))
            .into_iter()
            .filter_map(|(name, line)| text::dependency(name, line)),
    );
}

#[test]
fn changelog_and_map_are_kept() {
    let files = repository();
    none(text::changelog(file(&files, "CHANGELOG.md")));
    let mut folders: Vec<&str> =
        files.iter().filter_map(|file| Some(file.path.strip_prefix("src/")?.split_once('/')?.0)).collect();
    folders.sort_unstable();
    folders.dedup();
    none(folders.into_iter().filter_map(|folder| text::map(file(&files, text::MAP), folder)));
}

#[test]
#[should_panic(expected = "there is no a.md")]
fn a_file_that_is_gone_is_a_fault() {
    file(&[File { path: "b.md".into(), text: String::new() }], "a.md");
}

#[test]
fn ignored_files_are_left_out() {
    for (pattern, path) in
        [("/target", "target"), ("/.venv*", ".venv-parity"), ("/*.png", "a.png"), ("__pycache__/", "a/b/__pycache__")]
    {
        assert!(matches(pattern, path), "{pattern} {path}");
    }
    for (pattern, path) in [
        ("/target", "src/target"),
        ("/.venv*", "a/.venv"),
        ("/*.png", "a/b.png"),
        ("/*.png", ".pn"),
        ("", "a"),
        ("/", "a"),
    ] {
        assert!(!matches(pattern, path), "{pattern} {path}");
    }
}
