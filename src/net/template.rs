//! URLs with places for ids, as the RunPod protocol hands them to workers.

use std::fmt::{self, Write};

use reqwest::Url;

/// A URL in the making: text with places such as `$ID`.
#[derive(Clone, PartialEq, Eq)]
pub struct Template(String);

/// A text becomes no URL that could be called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidUrl(String);

impl Template {
    /// A template of this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether the text has `part`.
    pub fn has(&self, part: &str) -> bool {
        self.0.contains(part)
    }

    /// With the first `part` exchanged for another.
    #[must_use]
    pub fn exchange(&self, part: &str, other: &str) -> Self {
        Self(self.0.replacen(part, other, 1))
    }

    /// With `value` in every `place`. What would end a part of a path is escaped; ids as queues make them have none of it.
    #[must_use]
    pub fn fill(&self, place: &str, value: &str) -> Self {
        Self(self.0.replace(place, &escaped(value, "-_.~:@,+=")))
    }

    /// With one more parameter, after `?` or `&` as is due.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        let join = match (self.0.contains('?'), self.0.ends_with(['?', '&'])) {
            (false, _) => "?",
            (true, false) => "&",
            (true, true) => "",
        };
        Self(format!("{}{join}{name}={}", self.0, escaped(value, "-_.~")))
    }

    /// The URL.
    ///
    /// # Errors
    /// It is none of a host that speaks http or https; the message names no secret.
    pub fn url(&self) -> Result<Url, InvalidUrl> {
        let url: Url = self.0.parse().map_err(|cause| InvalidUrl(format!("it is no URL: {cause}")))?;
        match url.scheme() {
            "http" | "https" => Ok(url),
            other => Err(InvalidUrl(format!("{other}: is neither http nor https"))),
        }
    }
}

/// The URL that others begin with: one that could be called, and with nothing in it that they would lose or tell. A slash at its end is
/// left out: what follows begins with one.
///
/// # Errors
/// As for [`Template::url`]; or it has more than scheme, host, port and path.
pub fn base(text: &str) -> Result<Url, InvalidUrl> {
    let mut url = Template::new(text).url()?;
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    let bare =
        url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    if bare { Ok(url) } else { Err(InvalidUrl("it has a user, a password, a query or a fragment".into())) }
}

/// `text` with all but letters, digits and `plain` as `%XX`.
fn escaped(text: &str, plain: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || plain.as_bytes().contains(&byte) {
            escaped.push(byte.into());
        } else {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// The host alone: paths and queries can hold secrets.
impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Template").field(&super::host(&self.0)).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn parameters_follow_what_is_there() {
        let with = |text: &str| Template::new(text).with("a", "b,c").with("d", "1").0;
        assert_eq!(with("http://h/p"), "http://h/p?a=b%2Cc&d=1");
        assert_eq!(with("http://h/p?"), "http://h/p?a=b%2Cc&d=1");
        assert_eq!(with("http://h/p?gpu=RTX+4090"), "http://h/p?gpu=RTX+4090&a=b%2Cc&d=1");
        assert_eq!(with("http://h/p?gpu=x&"), "http://h/p?gpu=x&a=b%2Cc&d=1");
    }

    #[test]
    fn places_are_filled_and_an_id_stays_inside_of_its_place() {
        let template = Template::new("http://h/$ID/x/$ID?gpu=$ID");
        assert_eq!(template.fill("$ID", "sync-1_a").0, "http://h/sync-1_a/x/sync-1_a?gpu=sync-1_a");
        assert_eq!(Template::new("http://h/$ID?g").fill("$ID", "a/b?c#d%é").0, "http://h/a%2Fb%3Fc%23d%25%C3%A9?g");
    }

    #[test]
    fn what_is_no_url_is_told_without_its_secrets() {
        for text in ["JOB_DONE_URL", "", "http://", "ftp://h/s3cret", "http://h:s3cret/x"] {
            let why = Template::new(text).url().unwrap_err().to_string();
            assert!(!why.contains("s3cret"), "{why}");
        }
        for text in [
            "http://me:s3cret@h",
            "http://s3cret@h",
            "http://h?s3cret",
            "http://h#s3cret",
            "h/s3cret",
            "file:///s3cret",
        ] {
            let why = base(text).unwrap_err().to_string();
            assert!(!why.contains("s3cret"), "{why}");
        }
        for (text, url) in [
            ("http://h:1/x", "http://h:1/x"),
            ("http://h/x//", "http://h/x"),
            ("http://h", "http://h/"),
            ("http://h//", "http://h/"),
        ] {
            assert_eq!(base(text).unwrap().as_str(), url);
        }
        let url = Template::new("http://me:pa55@h:1/s3cret?s3cret");
        assert!(url.url().is_ok());
        assert_eq!(format!("{url:?}"), "Template(Some(\"h:1\"))");
    }
}
