//! What a job brings reaches the GPU without its being waited for, and attention is computed by the library that the settings name.

use std::path::Path;

use crate::gpu::{Run, draw};

const STEPS: &str = "num_inference_steps=8";

fn with_attention(choice: &str) -> Run {
    draw(&[("LATENTD_CUDA__ATTENTION", choice)], &["--model", "emoji", "--dtype", "f16", "--set", STEPS])
}

/// Pixels, a mask, noise of an encoder, times and tokens: a copy from memory that the GPU does not reach by itself is a fault in its log.
#[test]
fn an_image_and_a_mask_are_copied_by_way_of_pinned_memory() {
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images/rgb444.jpg");
    let (image, mask) = (format!("init_image=@{}", image.display()), format!("mask=@{}", image.display()));
    let size = ["--set", "width=128", "--set", "height=128", "--set", "prompt_strength=0.8"];
    let inputs = ["--model", "miniature", "--dtype", "f16", "--set", STEPS, "--set", &image, "--set", &mask];
    draw(&[], &[&inputs[..], &size].concat()).assert_drew(1);
}

#[test]
fn flash_attention_computes_all_of_it_unless_it_is_told_otherwise() {
    let run = with_attention("flash");
    run.assert_drew(1);
    assert!(run.log.capture(1).unwrap().keys().any(|what| what.contains("flash_fwd")), "no FlashAttention");
    assert_eq!(run.told("cuDNN does not attend"), 0, "cuDNN was asked");
}

/// cuDNN of the imaginary GPU has no plan for any shape, as a real one has none for some.
#[test]
fn a_shape_that_cudnn_has_no_plan_for_is_computed_by_flash_attention() {
    for (choice, warnings) in [("cudnn", 1), ("auto", 0)] {
        let run = with_attention(choice);
        run.assert_drew(1);
        assert_eq!(run.told("WARN"), warnings, "{choice}: {}", run.stderr);
        assert!(
            run.log.capture(1).unwrap().keys().any(|what| what.contains("flash_fwd")),
            "{choice}: no FlashAttention"
        );
    }
}

/// libtorch remembers of its first convolution whether there was a CUDA half: it must be there by then, for a GPU that is used later.
#[test]
fn an_engine_on_the_processor_opens_the_cuda_half_where_there_is_a_driver() {
    let run = draw(&[], &["--model", "miniature", "--device", "cpu", "--dtype", "f32", "--set", STEPS]);
    run.assert_drew(1);
    assert!(
        run.log.tells("a library registers its kernels"),
        "libtorch's kernels were never registered: its CUDA half was not opened"
    );
}
