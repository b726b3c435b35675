//! Bytes as hexadecimal digits, two a byte, and back.

/// As digits, in small letters.
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    bytes.as_ref().iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// From exactly as many digits as `N` bytes have, in letters of either size.
pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let mut bytes = [0; N];
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    for (byte, &[high, low]) in bytes.iter_mut().zip(pairs) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = ((digit(high)? << 4) | digit(low)?) as u8;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_two_digits_each_and_come_back() {
        assert_eq!(encode([0, 0x0f, 0xa5, 0xff]), "000fa5ff");
        assert_eq!(encode([]), "");
        assert_eq!(decode("000fA5ff"), Some([0, 0x0f, 0xa5, 0xff]));
        for wrong in ["", "00", "000fa5f", "000fa5ff0", "000fa5ff00", "000fa5fg", "+00fa5ff", "éé"] {
            assert_eq!(decode::<4>(wrong), None, "{wrong}");
        }
    }
}
