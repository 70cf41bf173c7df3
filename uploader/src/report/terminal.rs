//! Progress for a person at a terminal.
//!
//! What is shown follows from a report alone; drawing it is left to a library that knows terminals. Logs share the terminal with
//! the bar, so they go through [`Terminal::console`].

use std::{
    io::{self, IsTerminal, Write},
    iter,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use blobferry_crds::{ActiveFile, Progress, telemetry::Console};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;

use super::{Report, text};
use crate::args::ReportSettings;

/// Least time between two pictures.
const PICTURE: Duration = Duration::from_millis(100);

/// A bar for all files and lines below it. Clones draw the same.
#[derive(Clone, Debug)]
pub struct Terminal {
    bars: MultiProgress,
    overall: ProgressBar,
    lines: Arc<Mutex<Vec<ProgressBar>>>,
}

impl Terminal {
    /// Whether somebody looks: standard error is a terminal, and no object in Kubernetes takes the reports.
    pub fn is_wanted(settings: &ReportSettings) -> bool {
        settings.object.is_none() && io::stderr().is_terminal()
    }

    /// A bar on standard error.
    pub fn new(session: &str) -> Self {
        Self::on(ProgressDrawTarget::stderr(), session)
    }

    fn on(target: ProgressDrawTarget, session: &str) -> Self {
        let bars = MultiProgress::with_draw_target(target);
        let overall = bars.add(ProgressBar::new(1).with_style(style("{prefix} [{bar:24}] {wide_msg}")));
        overall.set_prefix(session.to_owned());
        Self { bars, overall, lines: Arc::default() }
    }

    /// Logs that appear above the bar.
    pub fn console(&self) -> Console {
        let bars = self.bars.clone();
        Console::through(move || AboveBar(bars.clone()))
    }

    /// Draws reports as they come, until `shutdown` is cancelled or their sender is dropped.
    pub async fn run(self, mut reports: watch::Receiver<Report>, shutdown: CancellationToken) {
        loop {
            self.draw(&reports.borrow_and_update());
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = reports.changed() => if changed.is_err() { break },
            }
            time::sleep(PICTURE).await;
        }
        self.draw(&reports.borrow_and_update());
        self.leave();
    }

    /// Leaves the last picture on the terminal, above whatever comes next.
    pub fn leave(&self) {
        for bar in iter::once(&self.overall).chain(self.lines().iter()) {
            bar.abandon();
        }
    }

    fn draw(&self, report: &Report) {
        self.overall.set_length(report.progress.bytes_total.max(1));
        let under_way: u64 = report.activity.active_files.iter().map(|file| file.bytes_sent).sum();
        self.overall.set_position(report.progress.bytes_uploaded + under_way);
        self.overall.set_message(headline(report));
        let texts = lines(report);
        let mut bars = self.lines();
        while bars.len() < texts.len() {
            bars.push(self.bars.add(ProgressBar::new(0).with_style(style("  {wide_msg}"))));
        }
        for surplus in bars.drain(texts.len()..) {
            self.bars.remove(&surplus);
        }
        for (bar, text) in bars.iter().zip(texts) {
            bar.set_message(text);
        }
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, Vec<ProgressBar>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// # Panics
///
/// When one of the two templates above is wrong; a test would have seen it.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is right").progress_chars("=> ")
}

/// One event of the log.
struct AboveBar(MultiProgress);

impl Write for AboveBar {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.println(String::from_utf8_lossy(bytes).trim_end())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How far all files are.
fn headline(report: &Report) -> String {
    let Report { progress, activity } = report;
    if progress.percent == "-" || progress.percent.is_empty() {
        return "no file seen yet".into();
    }
    #[allow(clippy::cast_precision_loss)]
    let (uploaded, total) = (text::bytes(progress.bytes_uploaded as f64), text::bytes(progress.bytes_total as f64));
    let moving = if progress.files_active > 0 { format!("  {}, {} left", activity.rate, activity.eta) } else { String::new() };
    format!("{}  {uploaded} of {total}{moving}", progress.percent)
}

/// What is worth knowing besides: counters, the files in progress, and what is wrong.
fn lines(report: &Report) -> Vec<String> {
    let Report { progress, activity } = report;
    let broken = progress.checks.iter().filter(|check| !check.ok).map(|check| format!("{}: {}", check.type_, check.message));
    let error = progress.last_error.iter().map(|error| format!("last error: {error}"));
    iter::once(counters(progress))
        .chain(activity.active_files.iter().map(active))
        .chain(broken)
        .chain(error)
        .map(|line| plain(&line))
        .collect()
}

fn counters(progress: &Progress) -> String {
    let others = [
        (progress.files_waiting, "waiting"),
        (progress.files_active, "active"),
        (progress.files_retrying, "retrying"),
        (progress.files_failed, "set aside"),
        (progress.files_ignored, "ignored"),
    ];
    let uploaded = iter::once(format!("{} uploaded", progress.files_uploaded));
    let others = others.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    format!("files: {}", uploaded.chain(others).collect::<Vec<_>>().join(", "))
}

fn active(file: &ActiveFile) -> String {
    let percent = (u128::from(file.bytes_sent) * 100).checked_div(file.size.into()).unwrap_or(0);
    #[allow(clippy::cast_precision_loss)]
    let size = text::bytes(file.size as f64);
    format!("{percent:>3}% of {size:>7}  {}", file.name)
}

/// A file's name may hold anything, also what a terminal takes for a command.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use blobferry_crds::{Activity, Check};
    use indicatif::InMemoryTerm;

    use super::*;

    fn busy() -> Report {
        let file = |name: &str, bytes_sent| ActiveFile { name: name.into(), bytes_sent, size: 300_000_000 };
        Report {
            progress: Progress {
                files_uploaded: 12,
                files_waiting: 3,
                files_active: 2,
                bytes_uploaded: 1_200_000_000,
                bytes_total: 2_800_000_000,
                percent: "42%".into(),
                last_error: Some("cannot open c.dat: permission denied".into()),
                checks: vec![Check {
                    type_: "source".into(),
                    ok: false,
                    reason: "Slow".into(),
                    message: "the share is slow".into(),
                }],
                ..Progress::default()
            },
            activity: Activity {
                rate: "12.3 MB/s".into(),
                eta: "2m".into(),
                active_files: vec![file("a.dat", 150_000_000), file("b\u{1b}[2J.dat", 0)],
                ..Activity::default()
            },
        }
    }

    fn terminal() -> (InMemoryTerm, Terminal) {
        let screen = InMemoryTerm::new(20, 100);
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(screen.clone()), 255);
        (screen, Terminal::on(target, "truck-7"))
    }

    #[test]
    fn the_picture_says_how_far_how_fast_and_what_is_wrong() {
        let (screen, terminal) = terminal();
        terminal.draw(&busy());
        terminal.leave();
        let expected = "\
truck-7 [===========>            ] 42%  1.2 GB of 2.8 GB  12.3 MB/s, 2m left
  files: 12 uploaded, 3 waiting, 2 active
   50% of  300 MB  a.dat
    0% of  300 MB  b?[2J.dat
  source: the share is slow
  last error: cannot open c.dat: permission denied";
        assert_eq!(screen.contents(), expected);
    }

    #[test]
    fn lines_that_are_not_needed_any_more_disappear() {
        let (screen, terminal) = terminal();
        terminal.draw(&busy());
        let done =
            Progress { files_uploaded: 17, bytes_uploaded: 5, bytes_total: 5, percent: "100%".into(), ..Progress::default() };
        terminal.draw(&Report { progress: done, ..Report::default() });
        terminal.leave();
        assert_eq!(screen.contents(), "truck-7 [========================] 100%  5 B of 5 B\n  files: 17 uploaded");
    }

    #[test]
    fn a_session_without_files_says_so() {
        let (screen, terminal) = terminal();
        terminal.draw(&Report::default());
        terminal.leave();
        assert!(screen.contents().contains("no file seen yet\n  files: 0 uploaded"), "{}", screen.contents());
    }

    #[test]
    fn logs_appear_above_the_bar() {
        let (screen, terminal) = terminal();
        terminal.draw(&busy());
        AboveBar(terminal.bars.clone()).write_all(b"WARN something\n").unwrap();
        terminal.leave();
        assert!(screen.contents().starts_with("WARN something\ntruck-7 ["), "{}", screen.contents());
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_report_is_on_the_screen_at_the_end() {
        let (screen, terminal) = terminal();
        let (publish, reports) = watch::channel(Report::default());
        let task = tokio::spawn(terminal.run(reports, CancellationToken::new()));
        time::sleep(Duration::from_secs(1)).await;
        publish.send_replace(busy());
        drop(publish);
        task.await.unwrap();
        assert!(screen.contents().contains("42%"), "{}", screen.contents());
    }
}
