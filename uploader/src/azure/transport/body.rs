//! A request body that shares the caller's buffer.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::{Body, Frame, SizeHint};

use super::progress::Progress;
use crate::pacer::Pacer;

/// Most bytes that are handed to the connection at a time; how finely progress is seen.
const SLICE: usize = 256 * 1024;

/// Yields slices of one buffer, and tells the progress of each that the connection takes.
pub(super) struct SlicedBody {
    rest: Bytes,
    progress: Arc<Progress>,
    pacer: Pacer,
    /// The wait for the next slice, of so many bytes; in a mutex because a body has to be `Sync`.
    waiting: Option<(usize, Mutex<BoxFuture<'static, ()>>)>,
}

impl SlicedBody {
    pub(super) fn new(content: Bytes, progress: Arc<Progress>, pacer: Pacer) -> Self {
        Self { rest: content, progress, pacer, waiting: None }
    }

    /// Bytes that may go now.
    fn poll_slice(&mut self, context: &mut Context<'_>) -> Poll<usize> {
        if self.waiting.is_none() {
            let Some(slice) = self.pacer.slice() else { return Poll::Ready(self.rest.len().min(SLICE)) };
            let length = slice.min(self.rest.len());
            let pacer = self.pacer.clone();
            self.waiting = Some((length, Mutex::new(Box::pin(async move { pacer.pass(length).await }))));
            self.progress.pause();
        }
        let Some((length, wait)) = &mut self.waiting else { return Poll::Pending };
        let length = *length;
        ready!(wait.get_mut().unwrap_or_else(PoisonError::into_inner).as_mut().poll(context));
        self.waiting = None;
        Poll::Ready(length)
    }
}

impl Body for SlicedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = ready!(self.poll_slice(context));
        let slice = self.rest.split_to(length);
        self.progress.advance(length as u64);
        Poll::Ready(Some(Ok(Frame::data(slice))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Waker, time::Duration};

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn limited_body_is_paced_within_a_block_within_three_percent_over_ten_seconds() {
        const RATE: usize = 100_000;
        let content = Bytes::from(vec![7_u8; 12 * RATE]);
        let mut body = SlicedBody::new(content, Arc::new(Progress::new(12 * RATE as u64)), Pacer::new(Some(RATE as u64)));
        let (start, mut last, mut sent) = (Instant::now(), Instant::now(), 0);
        while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            assert!(last.elapsed() < Duration::from_millis(200), "a gap after {sent} bytes");
            (last, sent) = (Instant::now(), sent + frame.into_data().unwrap().len());
            if start.elapsed() >= Duration::from_secs(10) {
                break;
            }
        }
        assert!(sent.abs_diff(10 * RATE) * 100 <= 3 * 10 * RATE, "{sent} bytes");
    }

    #[test]
    fn slices_share_the_callers_buffer_and_are_all_of_it() {
        let content = Bytes::from(vec![7_u8; 2 * SLICE + 5]);
        let mut body = SlicedBody::new(content.clone(), Arc::new(Progress::new(content.len() as u64)), Pacer::default());
        let mut offset = 0;
        while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            let slice = frame.into_data().unwrap();
            assert!(slice.len() <= SLICE);
            assert_eq!(slice.as_ptr(), content[offset..].as_ptr());
            offset += slice.len();
        }
        assert_eq!(offset, content.len());
        assert!(body.is_end_stream());
    }
}
