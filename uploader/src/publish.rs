//! Turns the books into a report and hands it to whoever shows it.

use blobferry_crds::{Activity, Progress};
use tokio::{sync::watch, time::Instant};

use crate::{
    books::Books,
    ledger::time,
    live::Live,
    report::{Rate, Report, text},
};

/// Publishes reports.
#[derive(Debug)]
pub struct Publisher {
    reports: watch::Sender<Report>,
    live: watch::Receiver<Live>,
    rate: Option<Rate>,
}

impl Publisher {
    /// A publisher into `reports` that says which settings apply.
    pub fn new(reports: watch::Sender<Report>, live: watch::Receiver<Live>) -> Self {
        Self { reports, live, rate: None }
    }

    /// Publishes what the books say, if it is news. Nothing is published before the counts of earlier processes are in them, so that
    /// no report takes those back.
    pub fn publish(&mut self, books: &mut Books, now: Instant) {
        if !books.ledger.is_resumed() {
            return;
        }
        let mut progress = books.progress();
        let under_way = books.ledger.bytes_under_way();
        let shown = Progress { bytes_uploaded: progress.bytes_uploaded + under_way, ..progress.clone() };
        progress.percent = text::percent(&shown);
        let sent = books.ledger.bytes_sent();
        let rate = self.rate.get_or_insert_with(|| Rate::new(sent, now.into_std())).observe(sent, now.into_std());
        let left = shown.bytes_total.saturating_sub(shown.bytes_uploaded);
        let activity = Activity {
            rate: text::rate(rate),
            eta: text::eta(left, rate),
            active_files: books.ledger.active_files(),
            report_time: None,
            last_scan_time: books.ledger.last_scan.and_then(time),
            applied_generation: self.live.borrow().generation,
        };
        let report = Report { progress, activity };
        self.reports.send_if_modified(|old| {
            let is_news = *old != report;
            *old = report;
            is_news
        });
    }
}
