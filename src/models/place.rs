//! Where a file lies inside of a model's folder, and never outside of it, whoever named it.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes of a path, and of one of its names with what is added to it: what every file system takes.
const PATH_BYTES: usize = 1024;
const NAME_BYTES: usize = 200;

/// A path below a folder, with `/` between its names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelativePath(String);

impl RelativePath {
    /// Reads a path. It may have no name that is empty, hidden or `..`, nor anything that a terminal or another system takes for
    /// something else.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |name: &str| {
            !name.is_empty()
                && name.len() <= NAME_BYTES
                && !name.starts_with('.')
                && !name.chars().any(|c| c.is_control() || matches!(c, '\\' | ':'))
        };
        (text.len() <= PATH_BYTES && text.split('/').all(plain)).then(|| Self(text.to_owned()))
    }

    /// The path as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folder inside of the model, if it is in one, and the file's name.
    pub fn parts(&self) -> (Option<&str>, &str) {
        self.0.rsplit_once('/').map_or((None, &self.0), |(folder, name)| (Some(folder), name))
    }

    /// The path of the file when the model lies in `folder`.
    pub fn within(&self, folder: &Path) -> PathBuf {
        folder.join(&self.0)
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for RelativePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RelativePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom(format!("{text:?} is no path inside of a model")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_inside() {
        for text in ["a", "unet/a.safetensors", "a b/c", "é", "a..b/c", "-a"] {
            let place = RelativePath::parse(text);
            assert_eq!(place.as_ref().map(RelativePath::as_str), Some(text));
            assert!(place.is_some_and(|place| place.within(Path::new("/m")).starts_with("/m")));
        }
        let long = "a".repeat(NAME_BYTES + 1);
        for text in
            ["", "/a", "a/", "a//b", "..", "../a", "a/../b", "a/..", ".", ".git/x", "a\\b", "C:a", "a\nb", &long]
        {
            assert_eq!(RelativePath::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_place_has_a_folder_and_a_name() {
        let parts = |text| RelativePath::parse(text).map(|place| place.parts().1.to_owned());
        assert_eq!((parts("a/b/c"), parts("c")), (Some("c".into()), Some("c".into())));
    }
}
