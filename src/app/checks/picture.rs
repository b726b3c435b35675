//! A picture, as small as there is one, to see that the engine draws.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::timeout;

use crate::engine::Event;
use crate::engine::host::Host;
use crate::job::{Img2Img, Offer, OfferedModel, Refine, Size, Spec, validate};

/// For one: a device that hangs answers nothing at all.
const TIMEOUT: Duration = Duration::from_mins(10);

/// Draws a picture of `size` in one step with `model`; how long it took.
///
/// # Errors
/// Why there is none.
pub async fn draw(host: &Host, model: &OfferedModel, size: Size) -> Result<Duration, String> {
    let began = Instant::now();
    match timeout(TIMEOUT, drawn(host, model, size)).await {
        Ok(drawn) => drawn.map(|()| began.elapsed()),
        Err(_) => Err(format!("a picture of one step is not there after {} s", TIMEOUT.as_secs())),
    }
}

async fn drawn(host: &Host, model: &OfferedModel, size: Size) -> Result<(), String> {
    let Size { width, height } = size;
    let input =
        json!({"prompt": "a test", "width": width, "height": height, "num_inference_steps": 1, "scheduler": "DDIM"});
    let defaults = model.defaults.clone().with_inpaints(false);
    let offer = Offer { models: vec![OfferedModel::new(&model.name, defaults)], ..Offer::default() };
    let spec = validate(&input, &offer, 0).map_err(|cause| cause.to_string())?;
    // One step of a refiner, too, if there is one.
    let refine = spec.refine.map(|refine| Refine { steps: 1, strength: 1.0, ..refine });
    // What repaints alone is given all of a picture to repaint.
    let spec = Spec { refine, ..spec }.with_start(model.defaults.inpaints.then(|| Img2Img::blank(size)));
    let mut events = host.submit(spec).await.map_err(|cause| cause.to_string())?;
    let mut images = 0;
    loop {
        match events.next().await {
            Some(Event::Image { .. }) => images += 1,
            Some(Event::Finished(_)) if images == 1 => return Ok(()),
            Some(Event::Finished(_)) => return Err(format!("{images} pictures came of one")),
            Some(Event::Failed(cause)) => return Err(cause.to_string()),
            Some(Event::Admitted { .. } | Event::Progress(_) | Event::Preview(_)) => {}
            None => return Err("the engine ended without a word; the log says why".to_owned()),
        }
    }
}
