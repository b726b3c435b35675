//! The PNG files of `latentd run`: what they are called, and that none is lost to another.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;

/// Bytes of a prompt that go into a file's name; file systems take 255 in all.
const MAX_NAME: usize = 80;

/// Makes `folder` if need be, and sees that files can be written there, before hours are spent on them.
pub(super) fn prepare(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let probe = folder.join(format!(".latentd-{}", process::id()));
    fs::write(&probe, [])?;
    fs::remove_file(probe)
}

/// Writes `{stem}.png` into `folder`, which is made if need be, under a name that no file has yet.
pub(super) fn create(folder: &Path, stem: &str, png: &[u8]) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let mut name = format!("{stem}.png");
    for attempt in 2_u64.. {
        let path = folder.join(&name);
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(mut file) => return file.write_all(png).map(|()| path),
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => name = format!("{stem}-{attempt}.png"),
            Err(cause) => return Err(cause),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Writes `{id}_{index}.png` into `folder`, which is made if need be, over what an earlier run may have left.
pub(super) fn replace(folder: &Path, id: &str, index: usize, png: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join(format!("{}_{index}.png", file_name(id))), png)
}

/// A prompt as part of a file's name: letters and digits of any script, in lower case, words joined by hyphens.
pub(super) fn slug(prompt: &str) -> String {
    let mut slug = String::new();
    for c in prompt.chars().flat_map(char::to_lowercase) {
        if c.is_alphanumeric() {
            if slug.len() + c.len_utf8() > MAX_NAME {
                break;
            }
            slug.push(c);
        } else if (c.is_whitespace() || c.is_ascii_punctuation() || matches!(c, '–' | '—')) && c != '\'' {
            // What is left, such as accents that stand alone, vanishes without parting a word.
            if !slug.is_empty() && !slug.ends_with('-') {
                slug.push('-');
            }
        }
    }
    slug.truncate(slug.trim_end_matches('-').len());
    if slug.is_empty() { "image".to_owned() } else { slug }
}

/// A job's id as part of a file's name: whatever it holds, it names a file in this folder and no other.
fn file_name(id: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    id.chars().map(safe).take(MAX_NAME).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_prompt_becomes_a_readable_name() {
        for (prompt, name) in [
            ("a red apple", "a-red-apple"),
            ("  A (Red) apple, 8k!!", "a-red-apple-8k"),
            ("don't panic", "dont-panic"),
            ("Äpfel in Œuvre", "äpfel-in-œuvre"),
            ("nai\u{308}ve", "naive"),
            ("赤いリンゴ", "赤いリンゴ"),
            ("🍎", "image"),
            ("", "image"),
            ("../../etc/passwd", "etc-passwd"),
            ("red—apple", "red-apple"),
        ] {
            assert_eq!(slug(prompt), name, "{prompt}");
        }
        assert_eq!(slug(&"word ".repeat(100)).len(), 79);
    }

    #[test]
    fn an_id_stays_in_its_folder() {
        assert_eq!(file_name("../a/b c-1_u1.x"), ".._a_b_c-1_u1.x");
    }

    #[test]
    fn no_file_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("new/folder");
        let names: Vec<PathBuf> = (0..3_u8).map(|byte| create(&inner, "a-7", &[byte]).unwrap()).collect();
        assert_eq!(names, ["a-7.png", "a-7-2.png", "a-7-3.png"].map(|name| inner.join(name)));
        assert_eq!(fs::read(&names[0]).unwrap(), [0]);
    }

    #[test]
    fn a_folder_is_made_and_nothing_is_left_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("new/folder");
        prepare(&inner).unwrap();
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 0);
        fs::write(folder.path().join("file"), []).unwrap();
        assert!(prepare(&folder.path().join("file")).is_err() && prepare(Path::new("/proc/none")).is_err());
    }

    proptest! {
        #[test]
        fn any_prompt_names_one_file(prompt: String) {
            let slug = slug(&prompt);
            prop_assert!(!slug.is_empty() && slug.len() <= MAX_NAME);
            prop_assert!(slug.chars().all(|c| c.is_alphanumeric() || c == '-'), "{}", slug);
        }
    }
}
