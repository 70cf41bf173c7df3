//! A request body that shares the caller's buffer.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::progress::Progress;

/// Most bytes that are handed to the connection at a time; how finely progress is seen.
const SLICE: usize = 256 * 1024;

/// Yields slices of one buffer, and tells the progress of each that the connection takes.
pub(super) struct SlicedBody {
    rest: Bytes,
    progress: Arc<Progress>,
}

impl SlicedBody {
    pub(super) fn new(content: Bytes, progress: Arc<Progress>) -> Self {
        Self { rest: content, progress }
    }
}

impl Body for SlicedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(SLICE);
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
    use std::task::Waker;

    use super::*;

    #[test]
    fn slices_share_the_callers_buffer_and_are_all_of_it() {
        let content = Bytes::from(vec![7_u8; 2 * SLICE + 5]);
        let mut body = SlicedBody::new(content.clone(), Arc::new(Progress::new(content.len() as u64)));
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
