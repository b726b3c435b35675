//! What the frames of a WebP say of themselves: a lossy frame is decoded at its own size, whatever the file's header says.

/// Width and height of the first lossy frame with more than `most` pixels, if there is one (RFC 9649, 2.5; RFC 6386, 9.1).
pub(super) fn too_large(file: &[u8], most: u64) -> Option<(u32, u32)> {
    lossy(file.get(12..)?).find(|(width, height)| u64::from(*width) * u64::from(*height) > most)
}

/// Whether there are as many bytes as the header says.
pub(super) fn is_whole(file: &[u8]) -> bool {
    let declared = file.get(4..).and_then(|rest| rest.first_chunk()).map(|size| u32::from_le_bytes(*size));
    declared.is_some_and(|size| file.len() as u64 >= 8 + u64::from(size))
}

/// Sizes of lossy frames, those of an animation too.
fn lossy(chunks: &[u8]) -> impl Iterator<Item = (u32, u32)> {
    let mut rest = chunks;
    std::iter::from_fn(move || {
        loop {
            let (head, after) = rest.split_first_chunk::<8>()?;
            let [a, b, c, d, size @ ..] = *head;
            let size = u32::from_le_bytes(size) as usize;
            match &[a, b, c, d] {
                // Into the frame: its own chunks follow 16 bytes of header.
                b"ANMF" => rest = after.get(16..)?,
                name => {
                    rest = after.get(size.saturating_add(size % 2)..).unwrap_or_default();
                    if let (b"VP8 ", Some(&[w0, w1, h0, h1])) = (name, after.get(6..).and_then(|at| at.first_chunk())) {
                        // The upper two bits scale, which no decoder does.
                        let side = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
                        return Some((side(w0, w1), side(h0, h1)));
                    }
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn chunk(name: &[u8], data: &[u8]) -> Vec<u8> {
        let padding = &[0][..data.len() % 2];
        [name, &(data.len() as u32).to_le_bytes(), data, padding].concat()
    }

    fn frame(width: u16, height: u16) -> Vec<u8> {
        let header = [&[0x10, 0, 0, 0x9d, 1, 0x2a][..], &width.to_le_bytes(), &height.to_le_bytes()].concat();
        chunk(b"VP8 ", &header)
    }

    fn file(chunks: &[Vec<u8>]) -> Vec<u8> {
        chunk(b"RIFF", &[b"WEBP".to_vec(), chunks.concat()].concat())
    }

    #[test]
    fn a_frame_is_found_wherever_it_is() {
        let odd = chunk(b"ICCP", &[0; 3]);
        let animated = chunk(b"ANMF", &[vec![0; 16], chunk(b"ALPH", &[1; 5]), frame(16383, 16383)].concat());
        for chunks in [
            vec![frame(16383, 16383)],
            vec![odd.clone(), frame(16383, 0x8000 | 16383)],
            vec![chunk(b"VP8X", &[0; 10]), animated],
            vec![frame(8, 8), frame(16383, 16383)],
        ] {
            assert_eq!(too_large(&file(&chunks), 1_000_000), Some((16383, 16383)));
        }
        assert_eq!(too_large(&file(&[odd, frame(1000, 1000)]), 1_000_000), None);
    }

    #[test]
    fn what_is_cut_short_is_noticed() {
        let whole = file(&[frame(8, 8)]);
        assert!(is_whole(&whole) && is_whole(&[&whole[..], b"and more"].concat()));
        for end in 0..whole.len() {
            assert!(!is_whole(&whole[..end]), "{end}");
            too_large(&whole[..end], 1);
        }
    }
}
