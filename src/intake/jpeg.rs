//! Whether a JPEG is whole: the decoder fills in what is missing, and a picture that is half grey is not what was asked for.

/// Whether the markers of `file` lead from its start to an end of image (ITU-T T.81, annex B).
pub(super) fn is_whole(file: &[u8]) -> bool {
    let mut at = 2;
    loop {
        // Anything may stand between a segment and the next marker; compressed data has no marker but restarts.
        let Some(found) = file.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == 0xff)) else {
            return false;
        };
        at += found + 1;
        match file.get(at) {
            Some(0xd9) => return true,
            // A stuffed zero, a restart, an escape, a start within (a thumbnail is inside of a segment): no length follows.
            Some(0x00 | 0x01 | 0xd0..=0xd8) => at += 1,
            Some(0xff) => {}
            Some(_) => {
                let Some(&[high, low]) = file.get(at + 1..).and_then(|rest| rest.first_chunk()) else { return false };
                at += 1 + usize::from(u16::from_be_bytes([high, low])).max(2);
            }
            None => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_must_be_there() {
        let segment = [0xff, 0xe1, 0, 6, 0xff, 0xd9, 1, 2]; // a thumbnail's end is not the image's
        let scan = [0xff, 0xda, 0, 3, 1, 5, 0xff, 0, 7, 0xff, 0xd0, 8];
        let whole = [&[0xff, 0xd8][..], &segment, &scan, &[0xff, 0xff, 0xd9], b"and more"].concat();
        assert!(is_whole(&whole));
        for end in 0..whole.len() - 8 {
            assert!(!is_whole(&whole[..end]), "{end}");
        }
    }
}
