//! When a run is over by itself: nothing new came for the idle timeout, or all claimed files are uploaded or given back.

use std::{fmt::Write, time::Duration};

use blobferry_crds::{Progress, names::TerminationResult};
use tokio::time::Instant;

use crate::{
    args::Mode,
    session::{Edges, Session},
};

/// Time between two looks at the books.
const LOOK: Duration = Duration::from_millis(500);
/// A process that stood still for so long saw nothing of what came meanwhile, and waits anew.
const STALL: Duration = Duration::from_secs(5);
/// Passes of the collector that must find nothing more: a listing may miss a name while its folder changes.
const PASSES: u64 = 2;
/// Names in the message.
const NAMED: usize = 5;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conclusion {
    /// For the termination message and the exit code.
    pub result: TerminationResult,
    /// The `runToken` of then.
    pub run_token: Option<String>,
    /// `CamelCase` reason.
    pub reason: String,
    /// What was done and what is left.
    pub message: String,
}

/// What the end depends on, as of now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Files in the incoming folder that wait and can be taken.
    pub incoming: u64,
    /// Files in the incoming folder that cannot be taken.
    pub held: u64,
    /// Claimed files that are not settled, and those set aside that are to be tried again.
    pub claimed: u64,
    /// True once all claimed files are known, and (when watching) the share works and the incoming folder was seen.
    pub known: bool,
    /// Passes of the collector so far.
    pub passes: u64,
    /// When the last complete scan began, on our own clock.
    pub scan_began: Option<Instant>,
}

/// Since when there has been nothing to do.
#[derive(Clone, Copy, Debug, Default)]
struct Rest(Option<Since>);

/// A moment from which on nothing came.
#[derive(Clone, Copy, Debug)]
struct Since {
    at: Instant,
    passes: u64,
    held: u64,
}

impl Rest {
    /// True if there has been nothing to do for long enough. While the share does not answer nobody knows what comes: only a scan that
    /// began when the idle timeout was over can end the run.
    fn observe(&mut self, mode: Mode, standing: &Standing, idle: Option<Duration>, now: Instant) -> bool {
        let incoming = if mode == Mode::Watch { standing.incoming } else { 0 };
        if !standing.known || standing.claimed + incoming > 0 {
            self.0 = None;
            return false;
        }
        // What cannot be taken is news, too: it may be for a moment only, as while an export is away.
        let known = self.0.filter(|since| mode != Mode::Watch || since.held == standing.held);
        let since = known.unwrap_or(Since { at: now, passes: standing.passes, held: standing.held });
        self.0 = Some(since);
        match mode {
            Mode::Watch => idle.is_some_and(|idle| standing.scan_began.is_some_and(|began| began >= since.at + idle)),
            Mode::Drain | Mode::Release => standing.passes >= since.passes + PASSES,
        }
    }
}

/// Resolves when the run is over; never when watching without an idle timeout.
pub async fn conclusion<E: Edges>(session: &Session<E>) -> Conclusion {
    let (mode, mut rest) = (session.rules.mode, Rest::default());
    loop {
        let before = Instant::now();
        tokio::time::sleep(LOOK).await;
        if before.elapsed() > STALL {
            rest = Rest::default();
        }
        let live = session.live();
        let standing = session.books().standing(mode == Mode::Watch, live.run_token.as_deref());
        if rest.observe(mode, &standing, live.idle_timeout, Instant::now()) {
            let progress = session.books().progress();
            return Conclusion { run_token: live.run_token, ..conclude(mode, &progress) };
        }
    }
}

fn conclude(mode: Mode, progress: &Progress) -> Conclusion {
    let (result, done) = match mode {
        Mode::Watch => (TerminationResult::Completed, "everything is uploaded and nothing new came"),
        Mode::Drain => (TerminationResult::Drained, "all claimed files are uploaded"),
        Mode::Release => (TerminationResult::Released, "claimed files are given back"),
    };
    let left = leftovers(progress);
    let reason = match (result, left.is_empty()) {
        (TerminationResult::Completed, false) => "CompletedWithLeftovers",
        (TerminationResult::Completed, true) => "Completed",
        (TerminationResult::Drained, _) => "Drained",
        _ => "Released",
    };
    let left = if left.is_empty() { left } else { format!("; on the share are left: {left}") };
    let message = format!("{done}: {} files so far{left}", progress.files_uploaded);
    Conclusion { result, run_token: None, reason: reason.into(), message }
}

/// What stays on the share, in words.
fn leftovers(progress: &Progress) -> String {
    let counts = [
        (progress.files_failed, "set aside"),
        (progress.files_superseded, "superseded"),
        (progress.files_ignored, "ignored"),
        (progress.files_waiting, "that cannot be taken or given back"),
    ];
    let counts: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    let mut text = counts.join(", ");
    let names = progress.held_back.iter().take(NAMED);
    let names: Vec<String> = names.map(|file| format!("{} ({})", file.name, file.reason)).collect();
    if !text.is_empty() && !names.is_empty() {
        // Writing into a text does not fail.
        let _ = write!(text, ", among them {}", names.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use blobferry_crds::FileProblem;

    use super::*;

    const IDLE: Duration = Duration::from_mins(1);

    fn nothing() -> Standing {
        Standing { known: true, ..Standing::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn watching_ends_when_nothing_came_for_the_idle_timeout_and_never_without_one() {
        let (mut rest, start) = (Rest::default(), Instant::now());
        let mut observe = |standing: &Standing, idle, seconds| {
            let now = start + Duration::from_secs(seconds);
            rest.observe(Mode::Watch, &Standing { scan_began: Some(now), ..*standing }, idle, now)
        };
        assert!(!observe(&Standing::default(), Some(IDLE), 0), "nothing is known yet");
        assert!(!observe(&nothing(), Some(IDLE), 1));
        assert!(!observe(&nothing(), Some(IDLE), 60));
        assert!(!observe(&Standing { incoming: 1, ..nothing() }, Some(IDLE), 61), "something came");
        assert!(!observe(&nothing(), Some(IDLE), 62));
        assert!(!observe(&nothing(), None, 500));
        assert!(observe(&nothing(), Some(IDLE), 122));
        assert!(!observe(&Standing { held: 1, ..nothing() }, Some(IDLE), 123), "what cannot be taken came, too");
        assert!(observe(&Standing { held: 1, ..nothing() }, Some(IDLE), 183));
    }

    #[tokio::test(start_paused = true)]
    async fn watching_does_not_end_while_the_share_does_not_answer() {
        let (mut rest, start) = (Rest::default(), Instant::now());
        let mut observe = |began, seconds| {
            let standing = Standing { scan_began: Some(start + Duration::from_secs(began)), ..nothing() };
            rest.observe(Mode::Watch, &standing, Some(IDLE), start + Duration::from_secs(seconds))
        };
        assert_eq!([(0, 1), (2, 500), (60, 501), (61, 502)].map(|(began, now)| observe(began, now)), [false, false, false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn draining_ends_when_two_passes_found_no_claimed_file_whatever_is_incoming() {
        for mode in [Mode::Drain, Mode::Release] {
            let (mut rest, now) = (Rest::default(), Instant::now());
            let mut observe = |claimed, passes| {
                rest.observe(
                    mode,
                    &Standing { incoming: 7, claimed, known: true, passes, ..Standing::default() },
                    Some(Duration::ZERO),
                    now,
                )
            };
            assert_eq!(
                [(1, 1), (0, 1), (0, 2), (0, 3)].map(|(claimed, passes)| observe(claimed, passes)),
                [false, false, false, true]
            );
        }
    }

    #[test]
    fn conclusion_names_what_is_left() {
        let held = FileProblem { name: "a\\b".into(), reason: "BadName".into(), message: String::new() };
        let left = Progress { files_uploaded: 7, files_failed: 1, files_waiting: 1, held_back: vec![held], ..Progress::default() };
        let conclusion = conclude(Mode::Watch, &left);
        assert_eq!((conclusion.result, conclusion.reason.as_str()), (TerminationResult::Completed, "CompletedWithLeftovers"));
        assert_eq!(
            conclusion.message,
            "everything is uploaded and nothing new came: 7 files so far; on the share are left: 1 set aside, 1 that cannot be taken or \
             given back, among them a\\b (BadName)"
        );
        let nothing = conclude(Mode::Watch, &Progress::default());
        assert_eq!((nothing.reason.as_str(), nothing.message.contains("left")), ("Completed", false));
        assert_eq!(conclude(Mode::Drain, &Progress::default()).reason, "Drained");
        assert_eq!(conclude(Mode::Release, &Progress::default()).reason, "Released");
    }
}
