//! What `make fuzz` looks into, in every test run: the corpus as it is, and the same few thousand changes of it each time.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRng, TestRunner};

#[allow(unreachable_pub)] // it is a crate of its own for `make fuzz`
#[path = "../fuzz/src/lib.rs"]
mod targets;

/// Changes of each target's corpus.
const CASES: u32 = 3000;

/// What formats of ours turn on.
const WORDS: [&str; 14] = [
    "null",
    "true",
    "-1",
    "1e999",
    "NaN",
    "-Infinity",
    "\"",
    "\\u0000",
    "\\ud83c",
    "[",
    "{\"id\":",
    "\u{ff}",
    "0",
    ",",
];

/// A change of a text at a place in it.
#[derive(Debug, Clone)]
enum Edit {
    Set(Index, u8),
    Insert(Index, &'static str),
    Remove(Index, usize),
    Repeat(Index, usize, usize),
}

impl Edit {
    fn any() -> impl Strategy<Value = Self> {
        prop_oneof![
            (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Self::Set(at, byte)),
            (any::<Index>(), prop::sample::select(&WORDS[..])).prop_map(|(at, word)| Self::Insert(at, word)),
            (any::<Index>(), 1..40_usize).prop_map(|(at, length)| Self::Remove(at, length)),
            (any::<Index>(), 1..20_usize, 2..300_usize).prop_map(|(at, length, times)| Self::Repeat(at, length, times)),
        ]
    }

    fn apply(&self, text: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        let end = |at: usize, length: usize| (at + length).min(text.len());
        match *self {
            Self::Set(at, byte) => {
                let at = at.index(text.len());
                text[at] = byte;
            }
            Self::Insert(at, word) => {
                let at = at.index(text.len());
                text.splice(at..at, word.bytes());
            }
            Self::Remove(at, length) => {
                let at = at.index(text.len());
                text.drain(at..end(at, length));
            }
            Self::Repeat(at, length, times) => {
                let at = at.index(text.len());
                let again = text[at..end(at, length)].repeat(times);
                text.splice(at..at, again);
            }
        }
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{target} has no corpus");
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn try_target(target: &str) {
    let run = targets::TARGETS.iter().find(|(name, _)| *name == target).unwrap().1;
    let seeds = corpus(target);
    for seed in &seeds {
        run(seed);
    }
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(prop::test_runner::RngAlgorithm::ChaCha));
    let changed = (any::<Index>(), vec(Edit::any(), 1..6)).prop_map(move |(seed, edits)| {
        let mut text = seeds[seed.index(seeds.len())].clone();
        for edit in &edits {
            edit.apply(&mut text);
        }
        text
    });
    let tried = runner.run(&changed, |text| {
        run(&text);
        Ok(())
    });
    tried.unwrap();
}

/// A test for each target, so that they run side by side and fail by name.
macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            try_target(stringify!($name));
        })*

        #[test]
        fn every_target_is_tried() {
            let mut known: Vec<_> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(known, [$(stringify!($name)),*]);
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
            let mut built: Vec<_> = fs::read_dir(root).unwrap().map(|file| file.unwrap().path()).collect();
            built.sort();
            known.sort_unstable();
            assert!(built.iter().map(|file| file.file_stem().unwrap()).eq(known));
        }
    };
}

targets! { job_input submission take_answer job_done webhook s3_config url weights picture }
