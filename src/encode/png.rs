//! PNG files: 8-bit RGB, fast compression, and what the picture was made from in text chunks.

use png::text_metadata::{ITXtChunk, TEXtChunk};
use png::{BitDepth, ColorType, Compression, Encoder, EncodingError, Writer};

use crate::job::Picture;

/// Why a picture could not be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Sides and bytes do not fit, or a side is zero.
    #[error("{bytes} bytes are no picture of {width} x {height}: {reason}")]
    Picture {
        /// Pixels from left to right.
        width: u32,
        /// Pixels from top to bottom.
        height: u32,
        /// Bytes there were.
        bytes: usize,
        /// What the encoder said.
        reason: EncodingError,
    },
    /// A keyword is not 1 to 79 characters of Latin-1.
    #[error("a PNG cannot hold a text named {keyword:?}: {reason}")]
    Text {
        /// The keyword.
        keyword: String,
        /// What the encoder said.
        reason: EncodingError,
    },
}

/// Writes a PNG with `text` as pairs of keyword and content, before the pixels, in this order.
///
/// A content becomes a `tEXt` chunk if Latin-1 can hold it, which every reader understands, and else an uncompressed
/// `iTXt` chunk. U+0000, which neither may contain (PNG, third edition, 11.3.3), becomes U+FFFD.
///
/// # Errors
/// [`EncodeError`] for a picture without pixels, for bytes that are not three a pixel, and for a keyword that PNG does not allow.
pub fn png(picture: &Picture, text: &[(&str, &str)]) -> Result<Vec<u8>, EncodeError> {
    let &Picture { width, height, ref pixels } = picture;
    let wrong = |reason| EncodeError::Picture { width, height, bytes: pixels.len(), reason };
    let mut file = Vec::with_capacity(pixels.len() / 2);
    let mut encoder = Encoder::new(&mut file, width, height);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    // fdeflate: a thirtieth of the time of zlib's default level or less, for 2 to 9 % more bytes.
    encoder.set_compression(Compression::Fast);
    let mut writer = encoder.write_header().map_err(wrong)?;
    for &(keyword, content) in text {
        write_text(&mut writer, keyword, content)
            .map_err(|reason| EncodeError::Text { keyword: keyword.to_owned(), reason })?;
    }
    writer.write_image_data(pixels).map_err(wrong)?;
    writer.finish().map_err(wrong)?;
    Ok(file)
}

fn write_text(writer: &mut Writer<&mut Vec<u8>>, keyword: &str, content: &str) -> Result<(), EncodingError> {
    let content = content.replace('\0', "\u{fffd}");
    // What PNG lets a tEXt chunk hold: printable Latin-1 and line feeds.
    let plain = |c: char| matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{ff}');
    if content.chars().all(plain) {
        writer.write_text_chunk(&TEXtChunk::new(keyword, content))
    } else {
        writer.write_text_chunk(&ITXtChunk::new(keyword, content))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    /// A picture, its Latin-1 texts and its UTF-8 texts.
    type ReadBack = (Picture, Vec<(String, String)>, Vec<(String, String)>);

    fn read_back(file: &[u8]) -> ReadBack {
        let mut reader = ::png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        let info = reader.info();
        assert_eq!((info.color_type, info.bit_depth), (ColorType::Rgb, BitDepth::Eight));
        let latin = info.uncompressed_latin1_text.iter().map(|chunk| (chunk.keyword.clone(), chunk.text.clone()));
        let utf8 = info.utf8_text.iter().map(|chunk| (chunk.keyword.clone(), chunk.get_text().unwrap()));
        (Picture { width: info.width, height: info.height, pixels }, latin.collect(), utf8.collect())
    }

    fn picture(width: u32, height: u32) -> Picture {
        let pixels = (0..3 * width * height).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        Picture { width, height, pixels }
    }

    fn pair(keyword: &str, content: &str) -> (String, String) {
        (keyword.to_owned(), content.to_owned())
    }

    #[test]
    fn texts_take_the_plainest_chunk_that_holds_them() {
        let texts = [
            ("parameters", "a café at night\nSteps: 20"),
            ("latentd", "{\"prompt\":\"日本 👍\"}"),
            ("bell", "\u{7}"),
            ("nul", "a\0b"),
            ("empty", ""),
        ];
        let (_, latin, utf8) = read_back(&png(&picture(2, 3), &texts).unwrap());
        assert_eq!(latin, [pair("parameters", texts[0].1), pair("empty", "")]);
        assert_eq!(utf8, [pair("latentd", texts[1].1), pair("bell", "\u{7}"), pair("nul", "a\u{fffd}b")]);
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        for (width, height, bytes) in [(0, 4, 0), (4, 0, 0), (4, 4, 47), (4, 4, 49), (4, 4, 0)] {
            let error = png(&Picture { width, height, pixels: vec![0; bytes] }, &[]).unwrap_err();
            let said = format!("{bytes} bytes are no picture of {width} x {height}");
            assert!(error.to_string().starts_with(&said), "{error}");
        }
    }

    #[test]
    fn a_keyword_must_fit_a_chunk() {
        let long = "k".repeat(80);
        for (keyword, content) in [("", "x"), (&*long, "x"), ("日本", "x"), (&*long, "日本")] {
            let error = png(&picture(1, 1), &[(keyword, content)]).unwrap_err();
            assert!(error.to_string().contains(&format!("{keyword:?}")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_picture_comes_back(
            (width, height) in (1..40_u32, 1..40_u32),
            seed in any::<u32>(),
            flat in any::<bool>(),
            content in "(.|\\n){0,60}",
        ) {
            let byte = |i: u32| if flat { seed } else { (i ^ seed).wrapping_mul(2_654_435_761) >> 24 };
            let drawn = Picture { width, height, pixels: (0..3 * width * height).map(|i| byte(i) as u8).collect() };
            let (read, latin, utf8) = read_back(&png(&drawn, &[("parameters", &content)]).unwrap());
            prop_assert_eq!(read, drawn);
            prop_assert_eq!([latin, utf8].concat(), vec![pair("parameters", &content.replace('\0', "\u{fffd}"))]);
        }
    }
}
