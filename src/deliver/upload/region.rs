//! The region that a storage's host belongs to. A signature names it.

/// Where no other is known; storage that has no regions takes it.
const DEFAULT_REGION: &str = "us-east-1";

/// The region of `host`, as far as hosts of its kind say it.
///
/// Unlike the RunPod SDK's, it knows hosts without a bucket (`s3.REGION.…`), the older `s3-REGION`, and hosts that begin with the
/// region.
pub(super) fn region(host: &str) -> String {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let labels: Vec<&str> = host.split('.').collect();
    // REGION.digitaloceanspaces.com, perhaps with a bucket before it.
    for provider in ["digitaloceanspaces.com", "linodeobjects.com", "vultrobjects.com"] {
        if let Some(before) = host.strip_suffix(provider).and_then(|before| before.strip_suffix('.')) {
            return before.rsplit('.').next().unwrap_or(DEFAULT_REGION).to_owned();
        }
    }
    if host.ends_with(".r2.cloudflarestorage.com") {
        return "auto".into();
    }
    // From the right: a bucket's name may have any labels.
    let mut found = labels.iter().enumerate().rev().filter_map(|(at, label)| {
        let next = |at: usize| labels.get(at + 1).copied();
        match label.strip_prefix("s3")? {
            "" | "-fips" if next(at) == Some("dualstack") => next(at + 1),
            "" | "-fips" => next(at),
            "-accelerate" | "-accesspoint" | "-website" => None,
            older => older.strip_prefix('-'),
        }
    });
    // `s3.amazonaws.com` is the host of the oldest region.
    let region = found.find(|region| is_region(region));
    region.unwrap_or(DEFAULT_REGION).to_owned()
}

/// Letters, digits and a hyphen within: `eu-west-1`, `us-west-004`, `fr-par`, `gra`. What ends a host is none.
fn is_region(label: &str) -> bool {
    let tail = ["amazonaws", "com", "net", "io", "cloud", "local", "internal", "scw", "wasabisys", "backblazeb2"];
    !label.is_empty() && label.bytes().any(|byte| byte.is_ascii_alphabetic()) && !tail.contains(&label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_say_their_regions() {
        for (host, expected) in [
            ("mybucket.s3.us-west-2.amazonaws.com", "us-west-2"),
            ("s3.us-west-2.amazonaws.com", "us-west-2"),
            ("S3.EU-West-1.amazonaws.com.", "eu-west-1"),
            ("s3-eu-west-1.amazonaws.com", "eu-west-1"),
            ("b.s3-eu-west-1.amazonaws.com", "eu-west-1"),
            ("s3.dualstack.us-west-2.amazonaws.com", "us-west-2"),
            ("s3-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
            ("s3.cn-north-1.amazonaws.com.cn", "cn-north-1"),
            ("s3.amazonaws.com", "us-east-1"),
            ("mybucket.s3.amazonaws.com", "us-east-1"),
            ("mybucket.s3-accelerate.amazonaws.com", "us-east-1"),
            ("my.s3.bucket.s3.eu-west-1.amazonaws.com", "eu-west-1"),
            ("nyc3.digitaloceanspaces.com", "nyc3"),
            ("mybucket.nyc3.digitaloceanspaces.com", "nyc3"),
            ("us-east-1.linodeobjects.com", "us-east-1"),
            ("acct.r2.cloudflarestorage.com", "auto"),
            ("s3.us-west-004.backblazeb2.com", "us-west-004"),
            ("s3.eu-central-1.wasabisys.com", "eu-central-1"),
            ("s3.wasabisys.com", "us-east-1"),
            ("s3.fr-par.scw.cloud", "fr-par"),
            ("s3.gra.io.cloud.ovh.net", "gra"),
            ("minio", "us-east-1"),
            ("s3.local", "us-east-1"),
            ("s3", "us-east-1"),
            ("127.0.0.1", "us-east-1"),
            ("[::1]", "us-east-1"),
            ("storage.googleapis.com", "us-east-1"),
            ("", "us-east-1"),
        ] {
            assert_eq!(region(host), expected, "{host}");
        }
    }
}
