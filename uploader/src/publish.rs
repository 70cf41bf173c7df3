//! Turns the books into a report, twice a second at most, and hands it to whoever shows it.

use tokio::{sync::watch, time::Instant};

use crate::{books::Books, report::Report};

/// Publishes reports.
#[derive(Debug)]
pub struct Publisher {
    reports: watch::Sender<Report>,
}

impl Publisher {
    /// A publisher into `reports`.
    pub fn new(reports: watch::Sender<Report>) -> Self {
        Self { reports }
    }

    /// Publishes what the books say, if it is news.
    pub fn publish(&mut self, books: &mut Books, now: Instant) {
        let report = Report { progress: books.progress(), ..Report::default() };
        self.reports.send_if_modified(|old| {
            let is_news = *old != report;
            *old = report;
            is_news
        });
    }
}
