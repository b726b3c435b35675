//! PNG, JPEG and WebP files to upright pixels without alpha, within limits that hold before anything is allocated.
//!
//! Colours are taken as they are: profiles and gamma are not applied, as in Pillow.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, ImageBuffer, ImageDecoder, ImageFormat, ImageReader, Limits, Rgb, RgbImage};

use super::fault::ImageFault;
use super::{jpeg, webp};

/// Pixels on a side: a WebP has at most half as many, and no photograph more.
const MAX_SIDE: u32 = 32_768;

/// What a decoder may allocate beside the picture: rows, and metadata such as colour profiles, which come compressed.
const DECODER_MEMORY: u64 = 64 << 20;

/// Decodes `file`, if it has no more than `most` pixels; of an animation the first frame.
pub(super) fn decode(file: &[u8], most: u64) -> Result<RgbImage, ImageFault> {
    let format = format(file)?;
    if format == ImageFormat::WebP
        && let Some((width, height)) = webp::too_large(file, most)
    {
        return Err(ImageFault::Pixels { width, height, most });
    }
    let mut reader = ImageReader::with_format(Cursor::new(file), format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(DECODER_MEMORY);
    reader.limits(limits);
    let broken = |cause: image::ImageError| ImageFault::Broken(cause.to_string());
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > most {
        return Err(ImageFault::Pixels { width, height, most });
    }
    if ![width, height].iter().all(|side| (1..=MAX_SIDE).contains(side)) {
        return Err(ImageFault::Side { width, height, most: MAX_SIDE });
    }
    if !is_whole(file, format) {
        return Err(ImageFault::Truncated);
    }
    // An orientation that cannot be read is none.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut upright = DynamicImage::ImageRgb8(flatten(DynamicImage::from_decoder(decoder).map_err(broken)?));
    upright.apply_orientation(orientation);
    Ok(upright.into_rgb8())
}

fn format(file: &[u8]) -> Result<ImageFormat, ImageFault> {
    match image::guess_format(file) {
        Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP)) => Ok(format),
        _ if file.is_empty() => Err(ImageFault::Empty),
        _ => Err(ImageFault::Kind(kind(file))),
    }
}

/// What a file that is no picture probably is.
fn kind(file: &[u8]) -> &'static str {
    match file {
        [b'G', b'I', b'F', b'8', ..] => "a GIF",
        [b'B', b'M', ..] => "a BMP",
        [b'I', b'I', b'*', 0, ..] | [b'M', b'M', 0, b'*', ..] => "a TIFF",
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => "an AVIF, HEIC or video",
        [0x1f, 0x8b, ..] => "compressed by gzip",
        [b'%', b'P', b'D', b'F', ..] => "a PDF",
        _ => match file.trim_ascii_start() {
            [b'<', ..] => "a web page or SVG",
            [b'{' | b'[', ..] => "JSON",
            _ => "something else",
        },
    }
}

fn is_whole(file: &[u8], format: ImageFormat) -> bool {
    match format {
        ImageFormat::Jpeg => jpeg::is_whole(file),
        ImageFormat::WebP => webp::is_whole(file),
        // The decoder of PNG says so itself.
        _ => true,
    }
}

/// Lays a picture on white.
fn flatten(picture: DynamicImage) -> RgbImage {
    match picture {
        DynamicImage::ImageLumaA8(grey) => onto_white(&grey, |[l, a]| ([l; 3], a)),
        DynamicImage::ImageRgba8(colour) => onto_white(&colour, |[r, g, b, a]| ([r, g, b], a)),
        DynamicImage::ImageLumaA16(grey) => onto_white(&grey, |[l, a]| ([eight(l); 3], eight(a))),
        DynamicImage::ImageRgba16(colour) => onto_white(&colour, |[r, g, b, a]| ([r, g, b].map(eight), eight(a))),
        DynamicImage::ImageLuma16(grey) => onto_white(&grey, |[l]| ([eight(l); 3], 255)),
        DynamicImage::ImageRgb16(colour) => onto_white(&colour, |colour| (colour.map(eight), 255)),
        opaque => opaque.into_rgb8(),
    }
}

fn onto_white<P, const N: usize>(
    picture: &ImageBuffer<P, Vec<P::Subpixel>>,
    split: impl Fn([P::Subpixel; N]) -> ([u8; 3], u8),
) -> RgbImage
where
    P: image::Pixel,
{
    let (width, height) = picture.dimensions();
    let (pixels, _) = picture.as_raw().as_chunks::<N>();
    let flat = pixels.iter().flat_map(|pixel| {
        let (colour, alpha) = split(*pixel);
        colour.map(|value| over_white(value, alpha))
    });
    let mut bytes = Vec::with_capacity(3 * pixels.len());
    bytes.extend(flat);
    ImageBuffer::<Rgb<u8>, _>::from_raw(width, height, bytes).unwrap_or_default()
}

/// Pillow's blend of a value with white: the quotient by 255, rounded.
fn over_white(value: u8, alpha: u8) -> u8 {
    let sum = u32::from(value) * u32::from(alpha) + 255 * (255 - u32::from(alpha)) + 128;
    (((sum >> 8) + sum) >> 8) as u8
}

/// Sixteen bits to the nearest eight.
fn eight(value: u16) -> u8 {
    ((u32::from(value) + 128) / 257) as u8
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::slice;

    use proptest::prelude::*;

    use super::*;

    const MANY: u64 = 50_000_000;

    fn goldens() -> Vec<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images");
        let all = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<PathBuf> =
            all.filter(|path| path.is_file() && !path.to_str().unwrap().ends_with(".rgb.png")).collect();
        files.sort();
        files
    }

    /// How far a reading may be from Pillow's: the standard leaves decoders of JPEG room for rounding, and for how colour is
    /// brought to full resolution. All else is exact.
    fn tolerance(name: &str) -> u8 {
        match name {
            "progressive.jpg" | "restarts.jpg" | "rgb420.jpg" => 3,
            _ if name.contains(".jpg") => 2,
            _ => 0,
        }
    }

    /// Every colour type, animations, orientations, against Pillow.
    #[test]
    fn files_of_every_kind_are_read_as_pillow_reads_them() {
        let files = goldens();
        assert_eq!(files.len(), 37);
        let mut wrong = Vec::new();
        for path in files {
            let name = path.file_name().unwrap().to_str().unwrap();
            let expected = image::open(path.with_file_name(format!("{name}.rgb.png"))).unwrap().into_rgb8();
            let read = decode(&fs::read(&path).unwrap(), MANY).unwrap();
            assert_eq!(read.dimensions(), expected.dimensions(), "{name}");
            let differences = || read.as_raw().iter().zip(expected.as_raw()).map(|(a, b)| a.abs_diff(*b));
            let most = differences().max().unwrap();
            let mean = differences().map(f64::from).sum::<f64>() / read.as_raw().len() as f64;
            if most > tolerance(name) {
                wrong.push(format!("{name}: {most}, mean {mean:.3}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
    fn golden(name: &str) -> Vec<u8> {
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images").join(name)).unwrap()
    }

    fn chunk(name: &[u8], data: &[u8]) -> Vec<u8> {
        // The checksum is that of the reader that is under test.
        let mut sum = flate2::Crc::new();
        sum.update(name);
        sum.update(data);
        [&(data.len() as u32).to_be_bytes()[..], name, data, &sum.sum().to_be_bytes()].concat()
    }

    /// A PNG in 8-bit RGB of this size by its header, with these chunks after it.
    fn png(width: u32, height: u32, chunks: &[Vec<u8>]) -> Vec<u8> {
        let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
        [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(b"IHDR", &header), chunks.concat(), chunk(b"IEND", &[])].concat()
    }

    fn deflated(length: usize) -> Vec<u8> {
        use std::io::Write;
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        for _ in 0..length.div_ceil(1 << 20) {
            encoder.write_all(&vec![0; 1 << 20]).unwrap();
        }
        encoder.finish().unwrap()
    }

    #[test]
    fn what_claims_too_many_pixels_is_refused_by_its_header() {
        let tiny = chunk(b"IDAT", &deflated(1));
        let pixels = |width, height| Err(ImageFault::Pixels { width, height, most: MANY });
        let side = |width, height| Err(ImageFault::Side { width, height, most: MAX_SIDE });
        for (file, expected) in [
            (png(50_000, 50_000, slice::from_ref(&tiny)), pixels(50_000, 50_000)),
            // Its decoder refuses a row of that length before we are asked.
            (
                png(0x7fff_ffff, 0x7fff_ffff, slice::from_ref(&tiny)),
                Err(ImageFault::Broken("Memory limit exceeded".into())),
            ),
            (png(1, 100_000, slice::from_ref(&tiny)), side(1, 100_000)),
            (png(100_000, 1, &[tiny]), side(100_000, 1)),
        ] {
            assert_eq!(decode(&file, MANY).map(|read| read.dimensions()), expected.map(|()| (0, 0)));
        }
        // A frame that is larger than the file's header says.
        let mut webp = golden("lossy-alpha.webp");
        let at = webp.windows(4).position(|name| name == b"VP8 ").unwrap() + 14;
        webp[at..at + 4].copy_from_slice(&[0xff, 0x3f, 0xff, 0x3f]);
        assert_eq!(decode(&webp, MANY).unwrap_err(), ImageFault::Pixels { width: 16383, height: 16383, most: MANY });
        let mut jpeg = golden("progressive.jpg");
        let at = jpeg.windows(2).position(|marker| marker == [0xff, 0xc2]).unwrap() + 5;
        jpeg[at..at + 4].copy_from_slice(&[0xff; 4]);
        assert_eq!(decode(&jpeg, MANY).unwrap_err(), ImageFault::Pixels { width: 65535, height: 65535, most: MANY });
    }

    #[test]
    fn metadata_that_swells_is_not_swallowed() {
        let bomb = deflated(1 << 30);
        assert!(bomb.len() < 2 << 20);
        let tiny = chunk(b"IDAT", &deflated(4));
        let profile = chunk(b"iCCP", &[b"icc\0\0", &bomb[..]].concat());
        let text = chunk(b"zTXt", &[b"Comment\0\0", &bomb[..]].concat());
        // Refused or passed over, but neither kept nor waited for.
        for file in [png(1, 1, &[profile, tiny.clone()]), png(1, 1, &[text, tiny])] {
            if let Ok(read) = decode(&file, MANY) {
                assert_eq!(read.dimensions(), (1, 1));
            }
        }
        // Rows beyond the last are not a picture's.
        let rows = png(1, 1, &[chunk(b"IDAT", &bomb)]);
        assert!(decode(&rows, MANY).is_ok_and(|read| read.as_raw() == &[0; 3]));
    }

    #[test]
    fn what_is_cut_short_is_no_picture() {
        for name in ["rgb8.png", "rgb444.jpg", "progressive.jpg", "lossless.webp", "lossy-alpha.webp", "animated.webp"]
        {
            let file = golden(name);
            for end in (0..file.len() - 20).step_by(7) {
                assert!(decode(&file[..end], MANY).is_err(), "{name} up to {end} of {}", file.len());
            }
        }
    }

    #[test]
    fn what_is_no_picture_is_told_by_what_it_is() {
        for (file, expected) in [
            (&b""[..], "it is empty"),
            (b"<!doctype html>", "it is no PNG, JPEG or WebP file but a web page or SVG"),
            (b"\n {\"error\": 1}", "it is no PNG, JPEG or WebP file but JSON"),
            (b"GIF89a", "it is no PNG, JPEG or WebP file but a GIF"),
            (b"\0\0\0 ftypavif", "it is no PNG, JPEG or WebP file but an AVIF, HEIC or video"),
            (b"\x7fELF", "it is no PNG, JPEG or WebP file but something else"),
        ] {
            assert_eq!(decode(file, MANY).unwrap_err().to_string(), expected);
        }
        assert!(matches!(decode(b"\x89PNG\r\n\x1a\n", MANY), Err(ImageFault::Broken(_))));
        assert!(matches!(decode(b"\xff\xd8\xff", MANY), Err(ImageFault::Broken(_))));
        assert!(matches!(decode(b"RIFF\xff\xff\xff\xffWEBPVP8X\xff\xff\xff\xff", MANY), Err(ImageFault::Broken(_))));
    }

    proptest! {
        /// Real files with bytes changed and ends cut get far into the decoders.
        #[test]
        fn no_file_makes_it_panic(
            which in any::<prop::sample::Index>(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
            end in any::<prop::sample::Index>(),
            whole in any::<bool>(),
        ) {
            let mut file = fs::read(which.get(&goldens())).unwrap();
            for (at, byte) in changes {
                *at.get_mut(&mut file) = byte;
            }
            let end = if whole { file.len() } else { end.index(file.len()) };
            if let Ok(read) = decode(&file[..end], 1_000_000) {
                prop_assert!(read.width() * read.height() <= 1_000_000);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(kind in 0..4_usize, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let heads: [&[u8]; 4] = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\xff\x01\0\0WEBPVP8 "];
            let _ = decode(&[heads[kind], &bytes].concat(), 1_000_000);
        }
    }
}
