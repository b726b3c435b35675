//! Which bucket of which storage, and with which keys.

use std::fmt;

use jiff::Timestamp;
use rusty_s3::{Bucket, Credentials, UrlStyle};
use serde_json::Value;

use super::region::region;
use crate::clock::UnixTime;
use crate::config::{self, BucketName, ObjectPath};
use crate::net::{self, Url};

/// A place for images in S3-compatible storage.
#[derive(Clone)]
pub struct UploadTarget {
    /// Whether its endpoint was named by a stranger, and is called under the guard.
    pub(super) guarded: bool,
    endpoint: Url,
    region: String,
    name: Option<BucketName>,
    prefix: Option<ObjectPath>,
    credentials: Credentials,
}

/// Why a place is none. Says which key is at fault, and no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTarget {
    /// Something is not there.
    #[error("{0} is missing: endpointUrl, accessId and accessSecret are texts that are not empty")]
    Missing(&'static str),
    /// The endpoint is none.
    #[error("endpointUrl: {0}")]
    Endpoint(String),
    /// The bucket's name would change the URL.
    #[error("bucketName is none: it is {}", BucketName::ALLOWED)]
    Name,
    /// The folder in it would, too.
    #[error("objectPath is none: it is {}", ObjectPath::ALLOWED)]
    Path,
}

impl UploadTarget {
    /// The operator's: called wherever it is. Without a region, it is read off the endpoint; without a name, it is the month.
    pub fn new(bucket: &config::BucketConfig) -> Self {
        Self {
            guarded: false,
            endpoint: bucket.endpoint_url.clone(),
            region: bucket.region.clone().unwrap_or_else(|| region_of(&bucket.endpoint_url)),
            name: bucket.name.clone(),
            prefix: bucket.prefix.clone(),
            credentials: Credentials::new(bucket.access_key_id.reveal(), bucket.secret_access_key.reveal()),
        }
    }

    /// The one of a job's `s3Config`: called under the guard. `bucketName` and `objectPath`, a folder in it, may be absent; if all are, there is none.
    ///
    /// # Errors
    /// Which key is missing, or is none of its kind.
    pub fn of_job(config: &Value) -> Result<Option<Self>, InvalidTarget> {
        let text = |key: &str| config.get(key).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
        if ["endpointUrl", "accessId", "accessSecret", "bucketName", "objectPath"]
            .into_iter()
            .all(|key| text(key).is_none())
        {
            return Ok(None);
        }
        let demand = |key: &'static str| text(key).ok_or(InvalidTarget::Missing(key));
        let (endpoint, id, secret) = (demand("endpointUrl")?, demand("accessId")?, demand("accessSecret")?);
        let endpoint = net::base(endpoint).map_err(|cause| InvalidTarget::Endpoint(cause.to_string()))?;
        let name = text("bucketName").map(|name| BucketName::parse(name).ok_or(InvalidTarget::Name)).transpose()?;
        let prefix = text("objectPath").map(|path| path.trim_matches('/')).filter(|path| !path.is_empty());
        let prefix = prefix.map(|path| ObjectPath::parse(path).ok_or(InvalidTarget::Path)).transpose()?;
        let (region, credentials) = (region_of(&endpoint), Credentials::new(id, secret));
        Ok(Some(Self { guarded: true, endpoint, region, name, prefix, credentials }))
    }

    /// The endpoint's host, for messages.
    pub(super) fn host(&self) -> String {
        net::host(self.endpoint.as_str()).unwrap_or_default()
    }

    /// The bucket that is meant on the day `now`.
    pub(super) fn bucket(&self, now: UnixTime) -> Result<Bucket, InvalidTarget> {
        let name = self.name.as_ref().map_or_else(|| month(now), |name| name.as_ref().to_owned());
        let bucket = Bucket::new(self.endpoint.clone(), UrlStyle::Path, name, self.region.clone());
        bucket.map_err(|cause| InvalidTarget::Endpoint(cause.to_string()))
    }

    /// What an object of this name is called there.
    pub(super) fn key(&self, name: &str) -> String {
        self.prefix.as_ref().map_or_else(|| name.to_owned(), |prefix| format!("{}/{name}", prefix.as_ref()))
    }

    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
    }
}

/// Names the host, not the keys.
impl fmt::Debug for UploadTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadTarget").field("host", &self.host()).field("name", &self.name).finish_non_exhaustive()
    }
}

fn region_of(endpoint: &Url) -> String {
    region(endpoint.host_str().unwrap_or_default())
}

/// The month in UTC, `MM-YY`: the bucket that the RunPod SDK takes when none is named.
fn month(now: UnixTime) -> String {
    let date = timestamp(now).strftime("%m-%y");
    date.to_string()
}

/// The same date for who signs; the epoch, if it is beyond the calendar.
pub(super) fn timestamp(now: UnixTime) -> Timestamp {
    i64::try_from(now.as_secs())
        .ok()
        .and_then(|secs| Timestamp::from_second(secs).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn the_bucket_of_a_month_has_its_name() {
        for (millis, name) in [
            (0, "01-70"),
            (1_795_000_000_000, "11-26"),
            (1_798_761_599_999, "12-26"),
            (1_798_761_600_000, "01-27"),
            (u64::MAX, "01-70"),
        ] {
            assert_eq!(month(UnixTime::from_millis(millis)), name);
        }
    }

    #[test]
    fn the_bucket_that_a_job_names_is_taken() {
        let mut config = json!({"endpointUrl": " http://minio:9000 ", "accessId": "AK", "accessSecret": "s3cret", "bucketName": "pics"});
        let at = |config: &Value| {
            let target = UploadTarget::of_job(config).unwrap().unwrap();
            assert!(target.guarded);
            target.bucket(UnixTime::from_millis(1_795_000_000_000)).unwrap().base_url().to_string()
        };
        assert_eq!(at(&config), "http://minio:9000/pics/");
        for none in [json!(""), json!(null), json!(5)] {
            config["bucketName"] = none;
            assert_eq!(at(&config), "http://minio:9000/11-26/");
        }
        config["endpointUrl"] = json!("http://minio:9000/s3/");
        assert_eq!(at(&config), "http://minio:9000/s3/11-26/");
        config["endpointUrl"] = json!("https://mine.s3.us-west-2.amazonaws.com");
        assert_eq!(
            at(&config),
            "https://mine.s3.us-west-2.amazonaws.com/11-26/",
            "the month is a folder of that bucket"
        );
        let shown = format!("{:?}", UploadTarget::of_job(&config).unwrap());
        assert!(!shown.contains("s3cret") && !shown.contains("AK") && shown.contains("mine.s3"), "{shown}");
    }

    #[test]
    fn a_job_s_objects_may_lie_in_a_folder() {
        let mut config = json!({"endpointUrl": "http://minio:9000", "accessId": "AK", "accessSecret": "s3cret"});
        for (path, key) in
            [("a/b-1/c.d", "a/b-1/c.d/j_0.png"), (" /a/ ", "a/j_0.png"), ("/", "j_0.png"), ("", "j_0.png")]
        {
            config["objectPath"] = json!(path);
            let target = UploadTarget::of_job(&config).unwrap().unwrap();
            assert_eq!(target.key("j_0.png"), key);
            let url = target.bucket(UnixTime::from_millis(0)).unwrap().object_url(&target.key("j_0.png"));
            assert_eq!(url.path(), format!("/01-70/{key}"));
        }
    }

    #[test]
    fn what_is_no_place_is_told_without_its_values() {
        let with = |key: &str, value: Value| {
            let mut config = json!({"endpointUrl": "http://h", "accessId": "s3cret", "accessSecret": "s3cret"});
            config[key] = value;
            let said = UploadTarget::of_job(&config).unwrap_err().to_string();
            assert!(!said.contains("s3cret"), "{said}");
            said
        };
        for key in ["endpointUrl", "accessId", "accessSecret"] {
            assert!(with(key, json!("")).starts_with(&format!("{key} is missing")));
            assert!(with(key, json!(5)).starts_with(&format!("{key} is missing")));
        }
        for endpoint in ["minio", "http://", "http://a:s3cret@h", "http://h?s3cret"] {
            assert!(with("endpointUrl", json!(endpoint)).starts_with("endpointUrl: it "), "{endpoint}");
        }
        for name in ["a/b", "..", "a?b", "a b", "ä"] {
            assert!(with("bucketName", json!(name)).starts_with("bucketName is none"), "{name}");
        }
        for path in ["a//b", "a/../b", "..", "a?b", "a b", "%2e%2e", "a/.b", &"x".repeat(513)] {
            assert!(with("objectPath", json!(path)).starts_with("objectPath is none"), "{path}");
        }
        for none in [json!([]), json!({}), json!({"accessId": null, "endpointUrl": ""})] {
            assert!(UploadTarget::of_job(&none).unwrap().is_none(), "{none}");
        }
    }
}
