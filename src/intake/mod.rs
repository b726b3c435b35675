//! Images in: what a job names becomes pixels of the job's size, or the job fails with the field, the host and the reason.

mod decode;
mod fault;
mod inline;
mod jpeg;
mod resize;
mod webp;

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::try_join;

use crate::blocking::caught;
use crate::hex;
use crate::job::{Code, Contract, ImageSource, Img2Img, JobError, LoadedImage, Mask, Sides, Size, Spec, StartImage};
use crate::net::{self, Client, FetchError, Reason};
use fault::ImageFault;

/// Images that are decoded at the same time, over all jobs: each can take 11 bytes a pixel.
const DECODERS: usize = 2;

/// What one image may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntakeLimits {
    /// Bytes of the file.
    pub bytes: u64,
    /// Pixels, before it is resized.
    pub pixels: u64,
    /// Time to fetch it.
    pub time: Duration,
}

/// Brings in the images that jobs name.
#[derive(Debug, Clone)]
pub struct Intake {
    client: Client,
    limits: IntakeLimits,
    decoders: Arc<Semaphore>,
}

impl Intake {
    /// Fetches with `client`, within `limits`.
    pub fn new(client: Client, limits: IntakeLimits) -> Self {
        Self { client, limits, decoders: Arc::new(Semaphore::new(DECODERS)) }
    }

    /// Brings in what `spec`, a job of this contract, begins from, both images at once; with warnings about what was changed. Where the
    /// contract has it so, the size of the job is from then on that of its image. Dropping the future ends the fetches.
    ///
    /// # Errors
    /// `image_fetch_failed` or `image_invalid`, with the field at fault.
    pub async fn bring(
        &self,
        mut spec: Spec<ImageSource>,
        contract: Contract,
    ) -> Result<(Spec, Vec<String>), JobError> {
        let (Some(Img2Img { image, strength, mask }), Some(StartImage { field, sets_size, .. })) =
            (spec.start.take(), contract.table().start)
        else {
            return Ok((spec.with_start(None), Vec::new()));
        };
        let fit = if sets_size { Fit::Own(contract.sides()) } else { Fit::To(spec.size) };
        let ((image, warning), mask) = match mask {
            None => (self.one(field, image, fit).await?, None),
            // One file serves as both.
            Some(mask) if mask.image == image => {
                let image = self.one(field, image, fit).await?;
                let mask = Mask { image: image.0.clone(), repaint: mask.repaint, paste: mask.paste };
                (image, Some(mask))
            }
            Some(mask) => {
                // The mask is as large as the picture, whose size only its own file may tell.
                let (image, file) = try_join!(self.one(field, image, fit), self.fetch("mask", mask.image))?;
                let (other, _) = self.read(file, Fit::To(size_of(&image.0))).await?;
                (image, Some(Mask { image: other, repaint: mask.repaint, paste: mask.paste }))
            }
        };
        spec.size = size_of(&image);
        let start = Img2Img { image, strength, mask };
        Ok((spec.with_start(Some(start)), warning.into_iter().collect()))
    }

    async fn one(
        &self,
        field: &'static str,
        named: ImageSource,
        fit: Fit,
    ) -> Result<(LoadedImage, Option<String>), JobError> {
        self.read(self.fetch(field, named).await?, fit).await
    }

    async fn fetch(&self, field: &'static str, named: ImageSource) -> Result<ImageFile, JobError> {
        let IntakeLimits { bytes, time, .. } = self.limits;
        Ok(match named {
            ImageSource::Url(url) => {
                let file = self.client.fetch(&url, net::FetchLimits { bytes, time }).await;
                let file = file.map_err(|cause| not_fetched(field, &cause))?;
                ImageFile { field, host: net::host(&url), content: Content::Bytes(file) }
            }
            ImageSource::Inline(text) => ImageFile { field, host: None, content: Content::Base64(text) },
        })
    }

    /// The image in a file, and what is to be said of how it was scaled.
    async fn read(&self, file: ImageFile, fit: Fit) -> Result<(LoadedImage, Option<String>), JobError> {
        let IntakeLimits { bytes, pixels, .. } = self.limits;
        let ImageFile { field, host, content } = file;
        let read = self.decoding(move || match content {
            Content::Bytes(file) => read(&file, fit, pixels),
            Content::Base64(text) => read(&inline::decode(&text, bytes)?, fit, pixels),
        });
        let (image, scaled) = read.await.map_err(|fault| invalid(field, host.as_deref(), &fault))?;
        Ok((image, scaled.map(|scaled| format!("{field} {scaled}"))))
    }

    /// Runs `work` where it may take its time. It keeps its permit until it ends, even if its job is gone.
    async fn decoding<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ImageFault> + Send + 'static,
    ) -> Result<T, ImageFault> {
        let place = Arc::clone(&self.decoders).acquire_owned().await;
        let done = caught(move || {
            let done = work();
            drop(place);
            done
        });
        // A decoder that panics is one that met a file it cannot read.
        done.await.unwrap_or(Err(ImageFault::Broken("the decoder failed".into())))
    }
}

/// A file at hand that should be an image.
struct ImageFile {
    /// The field that names it.
    field: &'static str,
    /// Whence it was fetched.
    host: Option<String>,
    content: Content,
}

enum Content {
    Bytes(Vec<u8>),
    Base64(String),
}

/// How large an image is to be.
#[derive(Debug, Clone, Copy)]
enum Fit {
    /// As the job says.
    To(Size),
    /// As it is, in sides that may be.
    Own(Sides),
}

fn size_of(LoadedImage { picture, .. }: &LoadedImage) -> Size {
    Size { width: picture.width, height: picture.height }
}

/// From a file to what a job begins from, and what was done to an image whose own size may not be.
fn read(file: &[u8], fit: Fit, pixels: u64) -> Result<(LoadedImage, Option<String>), ImageFault> {
    let picture = decode::decode(file, pixels)?;
    let (width, height) = picture.dimensions();
    let (size, scaled) = match fit {
        Fit::To(size) => (size, false),
        Fit::Own(sides) => sides.of_image(Size { width, height }),
    };
    let picture = resize::resize(picture, size)?;
    let scaled = scaled.then(|| {
        let Size { width: to_width, height: to_height } = size;
        format!("has {width} x {height} pixels and is scaled to {to_width} x {to_height}")
    });
    let sha256 = hex::encode(Sha256::digest(file));
    Ok((LoadedImage { picture: Arc::new(picture), sha256 }, scaled))
}

fn not_fetched(field: &str, cause: &FetchError) -> JobError {
    let setting = match cause.reason {
        Reason::TooLarge(_) => " (images.max_bytes)",
        Reason::Deadline(_) => " (images.timeout)",
        _ => "",
    };
    let message = format!("{field} cannot be fetched: {cause}{setting}");
    JobError { code: Code::ImageFetchFailed, message, field: Some(field.into()) }
}

fn invalid(field: &str, host: Option<&str>, fault: &ImageFault) -> JobError {
    let from = host.map(|host| format!(" from {host}")).unwrap_or_default();
    let message = format!("{field}{from} cannot be used: {fault}");
    JobError { code: Code::ImageInvalid, message, field: Some(field.into()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::net::Guard;

    #[tokio::test]
    async fn a_decoder_that_panics_fails_its_job_and_gives_its_place_back() {
        let limits = IntakeLimits { bytes: 1, pixels: 1, time: Duration::from_secs(1) };
        let intake = Intake::new(Client::new(Guard::default()).unwrap(), limits);
        for _ in 0..=DECODERS {
            let failed = intake.decoding::<()>(|| panic!("a decoder has a bug")).await;
            assert_eq!(failed, Err(ImageFault::Broken("the decoder failed".into())));
        }
        assert_eq!(intake.decoding(|| Ok(7)).await, Ok(7));
    }
}
