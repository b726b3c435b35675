//! Files that came inside a job, in base64.

use base64::engine::general_purpose::GeneralPurposeConfig;
use base64::engine::{DecodePaddingMode, Engine, Simd};

use super::fault::ImageFault;

/// Takes either alphabet of RFC 4648, with or without padding, white space anywhere.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);

/// The file that `text` is, if it has no more than `most` bytes.
pub(super) fn decode(text: &str, most: u64) -> Result<Vec<u8>, ImageFault> {
    let standard = |letter| match letter {
        b'-' => b'+',
        b'_' => b'/',
        other => other,
    };
    let letters: Vec<u8> = text.bytes().filter(|letter| !letter.is_ascii_whitespace()).map(standard).collect();
    // Four letters are three bytes; up to two letters are padding.
    if (letters.len() / 4 * 3).saturating_sub(2) as u64 > most {
        return Err(ImageFault::TooLarge(most));
    }
    Simd::standard(LENIENT).decode(letters).map_err(|cause| ImageFault::Base64(cause.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_base64_is_told() {
        for text in ["A", "AA=A", "====", "AAAA=AAA"] {
            assert!(matches!(decode(text, 100), Err(ImageFault::Base64(_))), "{text}");
        }
    }

    #[test]
    fn a_large_file_is_refused_before_it_is_decoded() {
        assert_eq!(decode(&"AAAA".repeat(4), 12), Ok(vec![0; 12]));
        assert_eq!(decode("AAAAAA==", 4), Ok(vec![0; 4]));
        assert_eq!(decode(&"AAAA".repeat(5), 12), Err(ImageFault::TooLarge(12)));
    }

    proptest! {
        #[test]
        fn every_way_of_writing_is_read(file in prop::collection::vec(any::<u8>(), 0..200), every in 1_usize..9) {
            let plain = Simd::standard(base64::engine::general_purpose::PAD).encode(&file);
            let url = plain.replace('+', "-").replace('/', "_");
            let broken: Vec<String> = plain.as_bytes().chunks(every).map(|line| String::from_utf8(line.to_vec()).unwrap()).collect();
            for text in [plain.trim_end_matches('='), url.trim_end_matches('='), &url, &plain, &broken.join("\r\n ")] {
                prop_assert_eq!(decode(text, 200), Ok(file.clone()), "{}", text);
            }
        }
    }
}
