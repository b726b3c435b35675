//! Whether there is a GPU, as `device = auto` sees it.

use std::path::Path;

use crate::gpu::draw;

const SMALL: [&str; 6] = ["--model", "miniature", "--set", "width=128", "--set", "height=128"];
const NO_DEVICE: [(&str, &str); 1] = [("IMAGINARY_GPU_COUNT", "0")];

/// Whether this machine has a driver of its own, which finds another GPU, or is broken.
fn has_real_driver() -> bool {
    ["/proc/driver/nvidia/version", "/dev/nvidiactl"].iter().any(|path| Path::new(path).exists())
}

#[test]
fn a_library_of_the_driver_s_that_finds_a_gpu_is_enough() {
    let run = draw(&[], &SMALL);
    run.assert_drew(1);
    assert!(run.log.tells(": kernel "), "{}", run.stderr);
}

#[test]
fn a_library_that_finds_none_is_no_driver() {
    if has_real_driver() {
        return;
    }
    let run = draw(&NO_DEVICE, &[&SMALL[..], &["--set", "num_inference_steps=1"]].concat());
    run.assert_drew(1);
    assert!(!run.log.tells(": kernel "));

    let run = draw(&NO_DEVICE, &[&SMALL[..], &["--device", "cuda"]].concat());
    assert!(!run.succeeded && run.stderr.contains("this machine has no NVIDIA driver"), "{}", run.stderr);
}

#[test]
fn a_gpu_that_is_there_and_asked_for_by_a_wrong_number_is_an_error() {
    let run = draw(&[], &[&SMALL[..], &["--device", "cuda:1"]].concat());
    assert!(!run.succeeded && run.stderr.contains("this machine has 1 GPUs"), "{}", run.stderr);
}
