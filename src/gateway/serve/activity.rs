//! Whose turn it is on a connection, and what moves on it: when the gateway closes, strangers that do not move are waited for no longer than a
//! moment, and what moves keeps its time.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Error;
use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::min_rate::MinRate;

/// What a peer has to move within that time when it is its turn, in bytes. Less is a trick, or nothing.
pub(super) const MIN_PROGRESS: (u64, Duration) = (8 * 1024, Duration::from_secs(3));

/// After so long even what moves is cut off: it can go on for as long as its peer likes.
const MAX_CLOSING_TIME: Duration = Duration::from_secs(20);

/// Of one connection.
#[derive(Debug, Clone, Default)]
pub(in crate::gateway) struct ConnectionActivity(Arc<ActivityState>);

/// The answer of a connection waits for memory until this is dropped.
#[derive(Debug)]
pub(in crate::gateway) struct MemoryWait(ConnectionActivity);

impl Drop for MemoryWait {
    fn drop(&mut self) {
        self.0.0.waits_for_memory.store(false, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct ActivityState {
    ours: AtomicBool,
    /// An answer waits for memory that peers hold: it is no work that others have to wait for.
    waits_for_memory: AtomicBool,
    moved: AtomicU64,
}

impl ConnectionActivity {
    /// The gateway works on an answer.
    pub(super) fn working(&self) {
        self.0.ours.store(true, Ordering::Relaxed);
    }

    /// The peer is to send, or to read.
    pub(super) fn waiting_for_peer(&self) {
        self.0.ours.store(false, Ordering::Relaxed);
    }

    /// There is something to read, for which the peer has time from now on.
    pub(super) fn answer_ready(&self) {
        if self.0.ours.swap(false, Ordering::Relaxed) {
            self.moved(MIN_PROGRESS.0);
        }
    }

    /// Until the guard is dropped the answer waits for memory.
    pub(in crate::gateway) fn waits_for_memory(&self) -> MemoryWait {
        self.0.waits_for_memory.store(true, Ordering::Relaxed);
        MemoryWait(self.clone())
    }

    /// Whether the gateway itself has something to do.
    fn is_ours(&self) -> bool {
        self.0.ours.load(Ordering::Relaxed) && !self.0.waits_for_memory.load(Ordering::Relaxed)
    }

    pub(super) fn moved(&self, bytes: u64) {
        self.0.moved.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What has moved since it began, in bytes, and what counts as much.
    pub(super) fn moved_so_far(&self) -> u64 {
        self.0.moved.load(Ordering::Relaxed)
    }

    /// Whether it is the peer's turn, and too little has moved since that was `before`.
    pub(super) fn stalled(&self, before: u64) -> bool {
        !self.is_ours() && self.moved_so_far() - before < MIN_PROGRESS.0
    }

    /// Ends when it is the peer's turn.
    pub(super) async fn peers_turn(&self) {
        const LOOK_INTERVAL: Duration = Duration::from_millis(10);
        while self.0.ours.load(Ordering::Relaxed) {
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Ends when the peer has had its turn and did not move, or has moved for long enough.
    pub(super) async fn stalled_or_overtime(&self) {
        let began = Instant::now();
        loop {
            let before = self.moved_so_far();
            sleep(MIN_PROGRESS.1).await;
            let long = began.elapsed() >= MAX_CLOSING_TIME && !self.is_ours();
            if long || self.stalled(before) {
                return;
            }
        }
    }

    /// A handler's answer.
    pub(super) fn answered(&self, body: Body) -> AnswerBody {
        self.answer_ready();
        AnswerBody { body, activity: self.clone() }
    }

    /// A connection.
    pub(super) fn on<T>(&self, stream: T) -> CountedStream<T> {
        CountedStream { stream, activity: self.clone(), rate: MinRate::default(), blocked: None }
    }
}

/// A body that is ours to make while it is not ready, and the peer's to read when it is.
#[derive(Debug)]
pub(super) struct AnswerBody {
    body: Body,
    activity: ConnectionActivity,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_pending() {
            self.activity.working();
        } else {
            self.activity.answer_ready();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream whose bytes are counted, and that fails when too few of those that are there to read are taken.
#[derive(Debug)]
pub(super) struct CountedStream<T> {
    stream: T,
    activity: ConnectionActivity,
    rate: MinRate,
    /// Since when the peer takes nothing, and until when it may.
    blocked: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<T> CountedStream<T> {
    /// What came of an attempt to write.
    fn wrote(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = written {
            let waited = self.blocked.take().map_or(Duration::ZERO, |(since, _)| since.elapsed());
            let written = written?;
            self.rate.moved(waited, written);
            self.activity.moved(written as u64);
            return Poll::Ready(Ok(written));
        }
        let left = self.rate.left();
        let (_, end) = self.blocked.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(left))));
        ready!(end.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "its peer does not read")))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for CountedStream<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.activity.moved((buffer.filled().len() - before) as u64);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for CountedStream<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.wrote(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // All that was there to take is taken.
        self.rate = MinRate::default();
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_memory_is_waited_for_itself() {
        let activity = ConnectionActivity::default();
        activity.working();
        assert!(!activity.stalled(0));
        let waits = activity.waits_for_memory();
        assert!(activity.stalled(0), "others may have its place");
        drop(waits);
        assert!(!activity.stalled(0));
    }
}
