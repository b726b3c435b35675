//! Base64 for pictures in JSON.

use base64::engine::general_purpose::PAD;
use base64::engine::{Engine, Simd};

/// Bare standard base64 with padding (RFC 4648 §4): no data URI, no line breaks.
pub fn base64(bytes: &[u8]) -> String {
    Simd::standard(PAD).encode(bytes)
}

/// The same after `prefix`, that of a data URI.
pub fn base64_after(prefix: &str, bytes: &[u8]) -> String {
    let mut text = String::with_capacity(prefix.len() + bytes.len().div_ceil(3) * 4);
    text.push_str(prefix);
    Simd::standard(PAD).encode_string(bytes, &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::{base64, base64_after};

    /// RFC 4648 §10, and both letters beyond the alphanumeric ones.
    #[test]
    fn is_the_rfcs() {
        let vectors =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (plain, encoded) in vectors {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xfb, 0xef, 0xff]), "++//");
        assert_eq!(base64_after("data:;base64,", b"foob"), "data:;base64,Zm9vYg==");
    }

    /// Long input takes the vectorised way; it must not differ from short input, which does not.
    #[test]
    fn long_input_is_short_input_in_a_row() {
        let bytes: Vec<u8> = (0..3 * 1000_u32).map(|i| (i * i / 8) as u8).collect();
        let pieces: String = bytes.chunks(3).map(base64).collect();
        assert_eq!(base64(&bytes), pieces);
    }
}
