//! URLs as anybody may see them: without passwords, nor what their queries hold of keys.

use reqwest::Url;

/// What stands in the place of a secret.
const HIDDEN: &str = "***";

/// Parts of names of parameters whose values are secret.
const SECRETS: [&str; 8] = ["token", "secret", "pass", "pwd", "sign", "credential", "auth", "key"];

/// `url` with its user, its password and the values of parameters that sound like secrets hidden. All else is as it was written, because
/// a template is no URL yet. What is none, or has an `@` where no user ends, may be a password cut in two, and is hidden as a whole.
pub fn shown(url: &str) -> String {
    let (place, rest) = url.split_at(url.find(['?', '#']).unwrap_or(url.len()));
    let rest: String = rest.split_inclusive(['?', '&', '#']).map(parameter).collect();
    let told = nameless(place) + &rest;
    let named = told.parse::<Url>().ok().filter(Url::has_host);
    match named.map(|named| (named.username().to_owned(), named.password().is_some())) {
        Some((user, false)) if told.matches('@').count() == usize::from(user == HIDDEN) => told,
        _ if url.contains(['@', '?']) => HIDDEN.to_owned(),
        _ => url.to_owned(),
    }
}

/// Everything before a query, without user and password.
fn nameless(place: &str) -> String {
    let begin = place.find("//").map_or(0, |scheme| scheme + 2);
    let end = place[begin..].find(['/', '\\']).map_or(place.len(), |path| begin + path);
    place[begin..end]
        .rfind('@')
        .map_or_else(|| place.to_owned(), |user| format!("{}{HIDDEN}{}", &place[..begin], &place[begin + user..]))
}

/// A parameter of a query or a fragment, with what separates it from the next.
fn parameter(part: &str) -> String {
    let bare = part.trim_end_matches(['?', '&', '#']);
    let secret = |name: &str| SECRETS.iter().any(|secret| name.to_ascii_lowercase().contains(secret)) || name == "sig";
    match bare.split_once('=') {
        Some((name, value)) if secret(name) && !value.is_empty() => format!("{name}={HIDDEN}{}", &part[bare.len()..]),
        _ => part.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::shown;

    #[test]
    fn what_is_no_secret_stays_as_it_was_written() {
        for url in [
            "",
            "nowhere",
            "http://h:8000/v2/e",
            "https://h/job-take/$ID?gpu=RTX+4090&job_in_progress=0",
            "http://[::1]:9/a%40b?x#y",
            "http://h?token=",
        ] {
            assert_eq!(shown(url), url);
        }
    }

    #[test]
    fn secrets_are_hidden() {
        for (url, expected) in [
            ("http://me:s3cret@h:1/p?gpu=x", "http://***@h:1/p?gpu=x"),
            ("http://s3cret@h/$ID", "http://***@h/$ID"),
            ("https://me:s3@cret@[::1]/", "https://***@[::1]/"),
            ("http://h/?gpu=x&api_key=s3cret&Token=s3cret#f", "http://h/?gpu=x&api_key=***&Token=***#f"),
            ("http://h/?X-Amz-Signature=s3cret&sig=s3cret", "http://h/?X-Amz-Signature=***&sig=***"),
            // None of these is a URL of a host as it stands.
            ("me:s3cret@h:4317", "***"),
            ("http://me:s3/cret@h", "***"),
            ("http:me:s3cret@h", "***"),
            ("//me:s3cret@h/p", "***"),
            ("http://me:/s3cret@h", "***"),
            ("http://me:?s3cret@h", "***"),
            ("http://h/?mail=a@s3cret", "***"),
            ("http://h/#access_token=s3cret&x=y", "http://h/#access_token=***&x=y"),
            ("h/p?token=s3cret", "***"),
        ] {
            assert_eq!(shown(url), expected, "{url}");
        }
    }

    proptest! {
        /// Whatever a password is made of.
        #[test]
        fn no_password_is_shown(before in ".{0,9}", after in ".{0,9}") {
            let url = format!("http://me:{before}s3cret{after}@host/path");
            prop_assert!(!shown(&url).contains("s3cret"), "{} {}", url, shown(&url));
        }
    }
}
