//! A session as the watch has shown it, and as we have written it since.
//!
//! Under load the API server shows a write seconds after it has answered it. Whoever takes what the watch shows for the newest state
//! meets conflicts until then, each a call for nothing.

use std::sync::Arc;

use blobferry_crds::UploadSession;
use kube::core::error_boundary::InvalidObject;

use super::kept::{KeptSession, Packed, version};

/// One session.
#[derive(Debug)]
pub(super) struct Entry {
    shown: Arc<KeptSession>,
    /// Our last write, as it was answered, as long as that is newer than what is shown.
    written: Option<Box<Written>>,
}

#[derive(Debug)]
struct Written {
    version: u64,
    session: Packed,
    /// Whether the listing that is under way has begun since: it will show this, or what somebody else made of it.
    precedes_listing: bool,
}

impl Entry {
    /// A session that is shown for the first time.
    pub(super) fn new(shown: KeptSession) -> Self {
        Self { shown: Arc::new(shown), written: None }
    }

    /// The session as it is shown.
    pub(super) fn shown(&self) -> &Arc<KeptSession> {
        &self.shown
    }

    /// The watch shows `session` in its place.
    pub(super) fn show(&mut self, session: KeptSession) {
        let is_ahead = |written: &Written| self.shown.uid() == session.uid() && written.is_later_than(&session);
        self.written = self.written.take().filter(|written| is_ahead(written));
        self.shown = Arc::new(session);
    }

    /// A write was answered with `session`.
    pub(super) fn wrote(&mut self, session: &UploadSession) {
        let Some(version) = version(session).filter(|_| session.metadata.uid.as_deref() == Some(self.shown.uid())) else { return };
        let written = Written { version, session: Packed::of(session.clone()), precedes_listing: false };
        if written.is_later_than(&self.shown) {
            self.written = Some(Box::new(written));
        }
    }

    /// The session as it was written since it was `shown`.
    pub(super) fn since(&self, shown: &KeptSession) -> Option<Result<UploadSession, Box<InvalidObject>>> {
        let written = self.written.as_ref().filter(|written| shown.uid() == self.shown.uid() && written.is_later_than(shown))?;
        Some(written.session.unpack(shown))
    }

    /// A write that built on this met a conflict.
    pub(super) fn conflicted(&mut self) {
        self.written = None;
    }

    /// A listing has begun.
    pub(super) fn listing_begins(&mut self) {
        if let Some(written) = &mut self.written {
            written.precedes_listing = true;
        }
    }

    /// The listing has ended, and knows better than what was written before it: a backup may have been restored.
    pub(super) fn listing_ends(&mut self) {
        self.written = self.written.take().filter(|written| !written.precedes_listing);
    }
}

impl Written {
    fn is_later_than(&self, shown: &KeptSession) -> bool {
        shown.version().is_some_and(|shown| shown < self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    fn at(version: &str) -> UploadSession {
        let mut session = fixtures::session("");
        session.metadata.resource_version = Some(version.into());
        session
    }

    fn shown(version: &str) -> KeptSession {
        fixtures::kept(&at(version))
    }

    /// Shown at one version, and written at another.
    fn entry(first: &str, written: &str) -> Entry {
        let mut entry = Entry::new(shown(first));
        entry.wrote(&at(written));
        entry
    }

    fn newest(entry: &Entry) -> Option<String> {
        entry.since(entry.shown()).and_then(|session| session.unwrap().metadata.resource_version)
    }

    #[test]
    fn a_write_counts_until_the_watch_shows_it() {
        let mut entry = entry("9", "11");
        assert_eq!(newest(&entry).as_deref(), Some("11"));
        entry.show(shown("10"));
        assert_eq!(newest(&entry).as_deref(), Some("11"), "somebody else's earlier write was shown");
        entry.show(shown("11"));
        assert!(entry.written.is_none());
    }

    #[test]
    fn a_write_that_the_watch_has_shown_already_takes_no_room() {
        assert!(entry("10", "10").written.is_none());
    }

    #[test]
    fn a_session_of_the_same_name_is_another_one() {
        let mut another = at("9");
        another.metadata.uid = Some("another".into());
        let another = || fixtures::kept(&another);
        let mut entry = Entry::new(another());
        entry.wrote(&at("10"));
        assert!(entry.written.is_none());
        entry.show(shown("9"));
        entry.wrote(&at("10"));
        assert!(entry.since(&another()).is_none());
        entry.show(another());
        assert!(entry.written.is_none());
    }

    #[test]
    fn after_a_conflict_what_is_shown_counts() {
        let mut entry = entry("9", "10");
        entry.conflicted();
        assert_eq!(newest(&entry), None);
    }

    #[test]
    fn a_listing_knows_better_than_what_was_written_before_it_and_not_than_what_was_written_meanwhile() {
        let mut before = entry("9", "10");
        let mut meanwhile = entry("9", "10");
        before.listing_begins();
        meanwhile.listing_begins();
        meanwhile.wrote(&at("11"));
        assert_eq!(newest(&before).as_deref(), Some("10"), "the listing is not complete");
        for entry in [&mut before, &mut meanwhile] {
            entry.show(shown("8"));
            entry.listing_ends();
        }
        assert_eq!((newest(&before), newest(&meanwhile).as_deref()), (None, Some("11")));
    }
}
