//! What S3 checks of a request: the signature in its URL, computed as the documentation of Signature Version 4 says.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// What is wrong with the signature in the query of `target`; `None` if it is right.
pub(crate) fn fault(method: &str, target: &str, header: impl Fn(&str) -> String, secret: &str) -> Option<String> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut query: BTreeMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    let Some(told) = query.remove("X-Amz-Signature") else { return Some("no signature".into()) };
    let get =
        |name: &str| query.get(name).map(|value| value.replace("%2F", "/").replace("%3B", ";")).unwrap_or_default();
    if get("X-Amz-Algorithm") != "AWS4-HMAC-SHA256" {
        return Some(format!("algorithm {}", get("X-Amz-Algorithm")));
    }
    let credential = get("X-Amz-Credential");
    let (_, scope) = credential.split_once('/')?;
    let signed = get("X-Amz-SignedHeaders");
    let headers = signed.split(';').fold(String::new(), |all, name| format!("{all}{name}:{}\n", header(name)));
    let pairs: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let canonical = format!("{method}\n{path}\n{}\n{headers}\n{signed}\nUNSIGNED-PAYLOAD", pairs.join("&"));
    let date = get("X-Amz-Date");
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
    let key = scope.split('/').fold(format!("AWS4{secret}").into_bytes(), |key, part| mac(&key, part));
    let right = hex(&mac(&key, &to_sign));
    (told != right).then(|| format!("signature {told}, not {right} of {to_sign}"))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

/// The example of a presigned URL in the documentation of S3.
#[test]
fn the_check_itself_agrees_with_the_documentation() {
    let query = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
                 &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
                 &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
    let host = |_: &str| "examplebucket.s3.amazonaws.com".to_owned();
    let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    assert_eq!(fault("GET", &format!("/test.txt?{query}"), host, secret), None);
    assert!(fault("PUT", &format!("/test.txt?{query}"), host, secret).is_some());
}
