//! One name in the incoming folder: what is done with it, and when a look at it is due. (pure)

use std::time::Duration;

use tokio::time::Instant;

use super::Gone;
use crate::share::{Identity, Kind};

/// Most time between two looks at a file that is held back.
pub(super) const HELD_LOOK: Duration = Duration::from_mins(1);
/// An empty file may be a placeholder of a producer that has not flushed yet.
pub(super) const EMPTY_QUIET: Duration = Duration::from_mins(1);
const BAD_NAME: &str = "BadName";

/// Why a file is still on the share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// `CamelCase` reason.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
    /// True if it can be taken when a person has done something about it; false if the share may answer at any time.
    pub lasting: bool,
}

impl Held {
    /// For a reason that somebody has to do something about.
    pub fn lasting(reason: &'static str, message: String) -> Self {
        Self { reason, message, lasting: true }
    }

    /// Because the share failed.
    pub fn unanswered(reason: &'static str, message: String) -> Self {
        Self { reason, message, lasting: false }
    }

    /// The name is the trouble. Only another name helps, so the file is not looked at again.
    pub fn bad_name(message: String) -> Self {
        Self::lasting(BAD_NAME, message)
    }
}

/// How long things are left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Periods {
    /// The quiet period of a file that is to be claimed.
    pub quiet: Duration,
    /// Between two looks at a file that is held back: it may have been mended, or another have taken its name.
    pub held: Duration,
}

impl Periods {
    /// With this quiet period, for a session that ends when it has been idle for so long: by then everything has been looked at.
    pub fn new(quiet: Duration, idle: Option<Duration>) -> Self {
        Self { quiet, held: idle.map_or(HELD_LOOK, |idle| HELD_LOOK.min(idle / 2)) }
    }
}

/// What is done with a name.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// Looked at until it is stable.
    Watching,
    /// Stable and handed to the schedule, in the scan of this number.
    Queued(u64),
    /// A worker is about to claim it, since a task of that scan.
    Claiming(u64),
    /// Listed, but absent when it was looked at: gone since, or the client is wrong, which it may be for a while. The next listing tells.
    Absent,
    /// Not taken for a reason of its own; looked at again at each scan that is due.
    Held(Held),
    /// Left alone because of its name.
    Ignored,
    /// Left alone because it is this and no regular file, at this time; another file may take its name.
    NoFile(Kind, Instant),
}

/// What looks at a name found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) identity: Identity,
    /// The least ctime that this content had: a chmod moves the ctime, and the file has waited since before.
    pub(super) came: i128,
    pub(super) since: Instant,
    pub(super) looked: Instant,
    pub(super) looks: u32,
}

/// A name in the incoming folder.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) phase: Phase,
    pub(super) sample: Option<Sample>,
    /// Without a sample: what has the name came to it at this time (server clock) or later.
    pub(super) since: i128,
    /// Number of the last scan that saw the name.
    pub(super) seen: u64,
}

impl Sample {
    /// A first look after `before`, if there was one.
    pub(super) fn first(identity: Identity, before: Option<Self>, now: Instant) -> Self {
        let earlier = before.filter(|before| before.identity.same_content(&identity));
        let came = earlier.map_or(identity.ctime, |earlier| earlier.came.min(identity.ctime));
        Self { identity, came, since: now, looked: now, looks: 1 }
    }
}

impl Candidate {
    /// True if a look must tell, now and then: some servers never say of what kind a name is (`DT_UNKNOWN` of readdir(3)).
    pub(super) fn may_be_a_file_now(&self, kind: Kind, held: Duration, now: Instant) -> bool {
        matches!(self.phase, Phase::NoFile(_, looked) if kind == Kind::Unknown && now.duration_since(looked) >= held)
    }

    fn quiet_period(&self, quiet: Duration) -> Duration {
        match self.sample {
            Some(Sample { identity: Identity { size: 0, .. }, .. }) => quiet.max(EMPTY_QUIET),
            _ => quiet,
        }
    }

    /// True if the last look came after the quiet period and found what the first one had.
    pub(super) fn is_stable(&self, quiet: Duration) -> bool {
        self.sample
            .is_some_and(|sample| sample.looks >= 2 && sample.looked.duration_since(sample.since) >= self.quiet_period(quiet))
    }

    /// True if a look is due: nothing or one look is known, or the quiet period may just have passed. Looks in between would tell
    /// nothing, because any change moves the ctime; nor would looks at a stable file that waits for room in the queue, because the
    /// claim looks again.
    pub(super) fn due(&self, periods: Periods, now: Instant) -> bool {
        let quiet = periods.quiet;
        match (&self.phase, self.sample) {
            (Phase::Ignored | Phase::NoFile(..) | Phase::Queued(_) | Phase::Claiming(_), _) => false,
            (Phase::Held(held), Some(_)) if held.reason == BAD_NAME => false,
            (Phase::Held(held), Some(sample)) if held.lasting => now.duration_since(sample.looked) >= periods.held,
            (Phase::Absent | Phase::Held(_), _) | (_, None) => true,
            (Phase::Watching, Some(sample)) => {
                sample.looks < 2 || (!self.is_stable(quiet) && now.duration_since(sample.since) >= self.quiet_period(quiet))
            }
        }
    }

    /// What has the name came to it at this time (server clock) or later.
    pub(super) fn since(&self) -> i128 {
        self.sample.map_or(self.since, |sample| sample.came)
    }

    /// What is gone with the name, unless it was none of ours.
    pub(super) fn when_gone(&self) -> Option<Gone> {
        let is_ours = !matches!(self.phase, Phase::Ignored | Phase::NoFile(..));
        is_ours.then(|| Gone { since: self.since(), was_seen: self.sample.is_some_and(|sample| sample.looks > 0) })
    }

    /// False for what only waits for its turn.
    pub(super) fn is_held(&self, quiet: Duration) -> bool {
        match self.phase {
            Phase::Queued(_) | Phase::Claiming(_) | Phase::Absent => false,
            Phase::Watching => self.sample.is_some_and(|sample| sample.looks > 0) && !self.is_stable(quiet),
            Phase::Held(_) | Phase::Ignored | Phase::NoFile(..) => true,
        }
    }

    pub(super) fn held(&self) -> Option<Held> {
        let held = |reason, message: &str| Some(Held::lasting(reason, message.to_owned()));
        match (&self.phase, self.sample) {
            (Phase::Held(known), _) => Some(known.clone()),
            (Phase::Ignored, _) => held("Ignored", "left alone by watch.ignore or watch.fileExtensions"),
            (Phase::NoFile(Kind::Folder, _), _) => held("Ignored", "a folder; its files are taken only with watch.recursive: true"),
            (Phase::NoFile(..), _) => held("Ignored", "left alone because it is no regular file"),
            (Phase::Watching, Some(sample)) if sample.looks < 2 => {
                held("StillGrowing", "it is new or has changed since the look before")
            }
            (Phase::Watching, Some(_)) => held("TooYoung", "unchanged for less than watch.minFileAge (60 s for an empty file)"),
            (Phase::Watching, None) | (Phase::Queued(_) | Phase::Claiming(_) | Phase::Absent, _) => None,
        }
    }
}
