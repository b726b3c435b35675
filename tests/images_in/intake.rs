//! From what a job says to pixels, or to an error that says whose fault it is.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use latentd::app::run::{RenderContext, perform};
use latentd::engine::host::Host;
use latentd::intake::{Intake, IntakeLimits};
use latentd::job::{
    Code, Contract, ImageSource, Img2Img, JobError, JobRequest, Mask, Offer, OfferedModel, Shade, Spec,
};
use serde_json::json;
use tokio::join;
use tokio_util::sync::CancellationToken;

use crate::images_in::fetch::client;
use crate::images_in::server::{Server, Then, ok, status};

fn golden(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images").join(name)).unwrap()
}

fn intake() -> Intake {
    Intake::new(client("127.0.0.1/32"), IntakeLimits { bytes: 5000, pixels: 1000, time: Duration::from_secs(30) })
}

/// A job that begins from these.
fn spec(image: &str, mask: Option<&str>) -> Spec<ImageSource> {
    let named = |text: &str| ImageSource::from_text(text).unwrap();
    let mask = mask.map(|mask| Mask { image: named(mask), repaint: Shade::White, paste: true });
    latentd::engine::fake::spec(1, 1).with_start(Some(Img2Img { image: named(image), strength: 0.5, mask }))
}

async fn bring(image: &str, mask: Option<&str>) -> Result<Img2Img, JobError> {
    Ok(intake().bring(spec(image, mask), Contract::Sd1).await?.0.start.unwrap())
}

#[tokio::test]
async fn images_come_in_at_the_job_s_size_with_the_hash_of_their_file() {
    let server = Server::start(|_, _| ok(&golden("exif6.jpg"))).await;
    let inline = BASE64_STANDARD.encode(golden("rgba8.png"));
    let start =
        bring(&server.url("/i.jpg?signature=1"), Some(&format!("data:image/png;base64,{inline}"))).await.unwrap();
    let mask = start.mask.unwrap();
    assert_eq!((start.strength, mask.repaint, mask.paste), (0.5, Shade::White, true));
    // As sha256sum(1) has it.
    let jpeg = "e320e25fb60bf177176c6d4b31f960557846f3865a8f3fab7c2169fe836ece4b";
    let png = "51552a15fc170b9d9ef3eb578b75700ac3e24039979b2f5ed334e86a710f9669";
    for (brought, hash) in [(&start.image, jpeg), (&mask.image, png)] {
        let picture = &brought.picture;
        assert_eq!((picture.width, picture.height, picture.pixels.len()), (128, 128, 3 * 128 * 128));
        assert_eq!(brought.sha256, hash);
    }
    assert_ne!(start.image.picture, mask.image.picture);
}

#[tokio::test]
async fn where_the_image_sets_the_size_its_mask_is_brought_to_it() {
    let png = |width: u32, height: u32| {
        let picture =
            image::RgbImage::from_fn(width, height, |x, _| image::Rgb([if x < width / 2 { 0 } else { 255 }; 3]));
        let mut file = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut file, image::ImageFormat::Png).unwrap();
        file.into_inner()
    };
    let limits = IntakeLimits { bytes: 50_000, pixels: 100_000, time: Duration::from_secs(30) };
    let intake = Intake::new(client("127.0.0.1/32"), limits);
    for (image, mask, size, warned) in [
        ((80, 100), (80, 100), (80, 96), false),
        ((80, 100), (33, 17), (80, 96), false),
        ((64, 128), (300, 300), (64, 128), false),
        ((20, 30), (40, 30), (64, 96), true),
    ] {
        let inline = |(width, height)| BASE64_STANDARD.encode(png(width, height));
        let server = Server::start(move |_, _| ok(&png(mask.0, mask.1))).await;
        for mask in [inline(mask), server.url("/mask.png")] {
            let (spec, warnings) = intake.bring(spec(&inline(image), Some(&mask)), Contract::Sdxl).await.unwrap();
            let start = spec.start.unwrap();
            let mask = start.mask.unwrap();
            assert_eq!((spec.size.width, spec.size.height), size);
            for picture in [&start.image.picture, &mask.image.picture] {
                assert_eq!((picture.width, picture.height), size);
            }
            // Its left half is black and its right half white, whatever size it had.
            let row: Vec<bool> = mask.repainted()[..size.0 as usize].to_vec();
            let middle = size.0 as usize / 2;
            assert!(
                row[..middle - 4].iter().all(|white| !white) && row[middle + 4..].iter().all(|white| *white),
                "{row:?}"
            );
            assert_eq!(warnings.len(), usize::from(warned), "{warnings:?}");
        }
    }
}

#[tokio::test]
async fn a_job_without_images_asks_nobody() {
    let plain = latentd::engine::fake::spec(1, 1).with_start::<ImageSource>(None);
    for contract in Contract::ALL {
        let brought = intake().bring(plain.clone(), *contract).await.unwrap();
        assert_eq!(brought, (latentd::engine::fake::spec(1, 1), Vec::new()));
    }
}

#[tokio::test]
async fn what_is_named_twice_is_fetched_once() {
    let server = Server::start(|_, _| ok(&golden("rgb8.png"))).await;
    let url = server.url("/both.png");
    let start = bring(&url, Some(&url)).await.unwrap();
    assert!(Arc::ptr_eq(&start.image.picture, &start.mask.unwrap().image.picture));
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn both_images_are_fetched_at_once() {
    // One after the other, the first would have to run out of time.
    let silent = Server::start(|_, _| (Vec::new(), Then::Silence)).await;
    let gone = Server::start(|_, _| status("404 Not Found")).await;
    let error = bring(&silent.url("/"), Some(&gone.url("/"))).await.unwrap_err();
    assert_eq!(error.field.as_deref(), Some("mask"));
}

#[tokio::test]
async fn an_error_names_field_host_and_reason() {
    let server = Server::start(|_, path| match path {
        "/gone" => status("404 Not Found"),
        "/page?s3cret" => ok(b"<!doctype html><title>Log in</title>"),
        "/large" => ok(&[0; 5001]),
        _ => ok(&golden("rgb8.png")[..100]),
    })
    .await;
    let host = server.address;
    let png = BASE64_STANDARD.encode(golden("rgb8.png"));
    let large = "AAAA".repeat(2000);
    for (image, mask, code, field, message) in [
        (
            &*server.url("/gone"),
            None,
            Code::ImageFetchFailed,
            "init_image",
            format!("init_image cannot be fetched: {host}: it answered 404 Not Found"),
        ),
        (
            &png,
            Some(&*server.url("/large")),
            Code::ImageFetchFailed,
            "mask",
            format!("mask cannot be fetched: {host}: the file has more than 5000 bytes (images.max_bytes)"),
        ),
        (
            &server.url("/page?s3cret"),
            None,
            Code::ImageInvalid,
            "init_image",
            format!("init_image from {host} cannot be used: it is no PNG, JPEG or WebP file but a web page or SVG"),
        ),
        (
            "AAAA",
            None,
            Code::ImageInvalid,
            "init_image",
            "init_image cannot be used: it is no PNG, JPEG or WebP file but something else".into(),
        ),
        (
            &large,
            None,
            Code::ImageInvalid,
            "init_image",
            "init_image cannot be used: the file has more than 5000 bytes (images.max_bytes)".into(),
        ),
        (
            &png,
            Some("A"),
            Code::ImageInvalid,
            "mask",
            "mask cannot be used: it is not valid base64: Invalid input length: 1".into(),
        ),
    ] {
        let error = bring(image, mask).await.unwrap_err();
        assert_eq!((error.code, error.field.as_deref()), (code, Some(field)));
        assert_eq!(error.message, message);
    }
    let cut = bring(&server.url("/cut"), None).await.unwrap_err();
    assert_eq!(cut.code, Code::ImageInvalid);
    assert!(cut.message.starts_with(&format!("init_image from {host} cannot be used: the file is ")), "{cut}");
}

#[tokio::test]
async fn an_interrupt_ends_a_fetch() {
    let server = Server::start(|_, _| (Vec::new(), Then::Silence)).await;
    let cancel = CancellationToken::new();
    let context = RenderContext {
        offer: Offer { models: vec![OfferedModel::new("m", Contract::Sd1)], ..Offer::default() },
        entropy: 1,
        log_prompts: false,
        intake: intake(),
    };
    let request = JobRequest { id: "j".into(), input: json!({"prompt": "p", "init_image": server.url("/")}) };
    let start = async |_| -> Result<Host, _> { Err(JobError::engine_lost("it was started").into()) };
    let (outcome, ()) = join!(perform(request, &context, start, cancel.clone(), |_| ()), async {
        // Always ready, so that the paused clock stands still.
        while server.asked().is_empty() {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    });
    assert_eq!(outcome.result.unwrap_err().error.code, Code::Cancelled);
}
