//! A job's events on their way from the engine's thread to whoever waits for the job: one sender, one receiver.
//!
//! The sender never waits, and a slow receiver costs nothing: progress and previews are values that the next one overwrites. All else is
//! kept in order: the warnings, each image, and the end. So the channel holds at most as many events as the job has images, and four.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Event, Picture, Progress};

/// One end for the engine's thread, one for whoever waits.
pub(super) fn channel() -> (JobEventSender, JobEvents) {
    let shared = Arc::new(Shared::default());
    (JobEventSender(Arc::clone(&shared)), JobEvents(shared))
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    changed: Notify,
}

/// What was sent and not yet received.
#[derive(Debug, Default)]
struct Pending {
    kept: VecDeque<Event>,
    preview: Option<Picture>,
    progress: Option<Progress>,
    sender_is_gone: bool,
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        // Each change is made in one step, so it is whole even after a panic.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    fn next(&mut self) -> Option<Event> {
        let preview = |pending: &mut Self| pending.preview.take().map(Event::Preview);
        let progress = |pending: &mut Self| pending.progress.take().map(Event::Progress);
        self.kept.pop_front().or_else(|| preview(self)).or_else(|| progress(self))
    }
}

/// Sends the events of one job. Dropping it ends them.
#[derive(Debug)]
pub(super) struct JobEventSender(Arc<Shared>);

impl JobEventSender {
    /// Has the receiver get `event`, unless another progress or preview overtakes it.
    pub(super) fn send(&self, event: Event) {
        let mut pending = self.0.pending();
        match event {
            Event::Progress(progress) => pending.progress = Some(progress),
            Event::Preview(picture) => pending.preview = Some(picture),
            event => pending.kept.push_back(event),
        }
        drop(pending);
        self.0.changed.notify_one();
    }

    /// Whether the receiver is gone, which cancels the job.
    pub(super) fn is_closed(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl Drop for JobEventSender {
    fn drop(&mut self) {
        self.0.pending().sender_is_gone = true;
        self.0.changed.notify_one();
    }
}

/// What a job inside the engine has to tell. Dropping it cancels the job, at the latest after the evaluation that runs.
#[derive(Debug)]
pub struct JobEvents(Arc<Shared>);

impl JobEvents {
    /// The next event: [`Event::Admitted`] first, then images as they are done, then [`Event::Finished`] or [`Event::Failed`]. The latest preview
    /// and the latest progress come when none of these waits, so they may come after the end. `None` when nothing follows, or the engine has
    /// stopped. Nothing is lost if this is dropped before it is ready.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            {
                let mut pending = self.0.pending();
                let event = pending.next();
                if event.is_some() || pending.sender_is_gone {
                    return event;
                }
            }
            self.0.changed.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineTimings;

    fn picture(value: u8) -> Picture {
        Picture { width: 1, height: 1, pixels: vec![value; 3] }
    }

    fn names(events: &[Event]) -> Vec<String> {
        let name = |event: &Event| match event {
            Event::Admitted { .. } => "admitted".to_owned(),
            Event::Progress(progress) => format!("progress {}", progress.done),
            Event::Preview(picture) => format!("preview {}", picture.pixels[0]),
            Event::Image { index, .. } => format!("image {index}"),
            Event::Finished(_) => "finished".to_owned(),
            Event::Failed(cause) => cause.code.to_string(),
        };
        events.iter().map(name).collect()
    }

    async fn received(mut events: JobEvents) -> Vec<Event> {
        let mut received = Vec::new();
        while let Some(event) = events.next().await {
            received.push(event);
        }
        received
    }

    #[tokio::test]
    async fn a_slow_receiver_gets_every_image_and_the_latest_progress() {
        let (sender, events) = channel();
        sender.send(Event::Admitted { waited: std::time::Duration::ZERO, warnings: Vec::new() });
        for done in 0..100_u8 {
            sender.send(Event::Progress(Progress { done: done.into(), total: 100 }));
            sender.send(Event::Preview(picture(done)));
            if done % 40 == 0 {
                sender.send(Event::Image { index: u32::from(done) / 40, seed: 0, picture: picture(0) });
            }
        }
        sender.send(Event::Finished(EngineTimings::default()));
        assert_eq!(events.0.pending().kept.len(), 5, "what is overtaken takes no room");
        drop(sender);
        let expected = ["admitted", "image 0", "image 1", "image 2", "finished", "preview 99", "progress 99"];
        assert_eq!(names(&received(events).await), expected);
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_each_event_and_by_the_end() {
        let (sender, mut events) = channel();
        let waits = tokio::task::yield_now;
        for done in 0..3 {
            let send = async {
                waits().await;
                sender.send(Event::Progress(Progress { done, total: 3 }));
            };
            let (event, ()) = tokio::join!(events.next(), send);
            assert_eq!(names(&[event.unwrap()]), [format!("progress {done}")]);
        }
        let end = async move {
            waits().await;
            drop(sender);
        };
        let (event, ()) = tokio::join!(events.next(), end);
        assert!(event.is_none());
    }

    #[test]
    fn a_sender_knows_that_its_receiver_is_gone() {
        let (sender, events) = channel();
        assert!(!sender.is_closed());
        drop(events);
        assert!(sender.is_closed());
    }
}
