//! Crashes at every place of a session's life: before and after each effect, then at every pair of places.
//!
//! The sessions are short and nothing else goes wrong in them, so that a crash can be put everywhere. After each the process starts
//! again, once in the same pod and once in another, sometimes beside a second uploader. And at each place the process stands still, for a
//! while and for so long that others take it for dead.

use blobferry_uploader::args::Mode;

use crate::{
    crash::{Point, Side},
    faults::{ApiRates, StageRates},
    history::{Verdict, run_with},
    random::Random,
    settings::{Afterwards, Restart, Settings},
};

/// Milliseconds after which the file is claimed.
const CLAIMED: u64 = 7_000;
/// Milliseconds for which a process stands still: not long enough to be taken for dead, and longer than anything takes.
const STALLS: [u64; 2] = [20_000, 300_000];

/// A session whose life is explored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// One file of one request.
    Small,
    /// One file of several blocks.
    Large,
    /// A name that comes again, with another content, while the first file is being worked on.
    SameNameTwice,
    /// A file that is written to after its claim and after its commit.
    LateWriter,
    /// A file that is written to while no uploader runs, with its mtime set back.
    Rewritten,
    /// Two uploaders on the folder.
    TwoUploaders,
    /// Two uploaders, and a name that comes again, with files of one request.
    SameNameForTwo,
    /// A file in a folder.
    Recursive,
    /// A file that the service does not take: it is set aside, and taken back later.
    SetAside,
    /// A session that is deleted with a claimed file, which is uploaded first.
    Drained,
    /// A session that is deleted with a claimed file, which is given back and taken by the next session of the name.
    Released,
}

/// All of them.
pub const SESSIONS: [Session; 11] = [
    Session::Small,
    Session::Large,
    Session::SameNameTwice,
    Session::LateWriter,
    Session::Rewritten,
    Session::TwoUploaders,
    Session::SameNameForTwo,
    Session::Recursive,
    Session::SetAside,
    Session::Drained,
    Session::Released,
];

const RESTARTS: [Restart; 2] = [Restart::SamePod, Restart::AnotherPod];

/// How many crashes a history has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// One.
    Singles,
    /// One, and then two.
    Pairs,
}

/// How many places were tried, and what came out.
#[derive(Clone, Debug, Default)]
pub struct Explored {
    /// Histories with one crash.
    pub singles: u64,
    /// Histories with two crashes.
    pub pairs: u64,
    /// Histories in which a process stands still.
    pub stalls: u64,
    /// The first violation, with the session and the places.
    pub violation: Option<String>,
}

impl Session {
    fn seed(self) -> u64 {
        match self {
            Self::Small | Self::Large | Self::Rewritten | Self::Recursive | Self::SetAside | Self::Drained | Self::Released => 1,
            Self::SameNameTwice | Self::SameNameForTwo => 2,
            Self::LateWriter => 3,
            Self::TwoUploaders => 4,
        }
    }

    fn settings(self) -> Settings {
        let mut settings = Settings::calm();
        settings.faults.api = ApiRates { is_there: true, interval: 2_000, ..ApiRates::default() };
        settings.faults.stage = StageRates { is_there: true, ..StageRates::default() };
        let producers = &mut settings.producers;
        (producers.actions, producers.gap) = (1, 0);
        match self {
            Self::Small => producers.largest = 20,
            Self::Large => producers.least = 50,
            Self::Rewritten => (producers.least, producers.afterwards) = (50, Afterwards::Rewritten),
            Self::SameNameTwice => (producers.actions, producers.gap, producers.least) = (2, 8_000, 30),
            Self::SameNameForTwo => {
                (producers.actions, producers.gap, producers.largest) = (2, 8_000, 20);
                settings.uploaders = 2;
            }
            Self::LateWriter => producers.afterwards = Afterwards::Late,
            Self::TwoUploaders => {
                producers.actions = 2;
                settings.uploaders = 2;
            }
            Self::Recursive => {
                producers.names = vec![b"d/a".to_vec()];
                settings.rules.recursive = true;
            }
            Self::SetAside => {
                (settings.rules.max_attempts, settings.faults.blob.rejected) = (1, 1_000);
                settings.turns.tokens = 1;
            }
            Self::Drained => {
                settings.faults.blob.rejected = 1_000;
                settings.turns.ending = Some((Mode::Drain, CLAIMED));
            }
            Self::Released => {
                settings.faults.blob.rejected = 1_000;
                settings.turns.ending = Some((Mode::Release, CLAIMED));
            }
        }
        settings
    }

    /// The session's life with crashes at these places.
    pub fn live(self, crashes: &[Point], restart: Restart, logged: bool) -> Verdict {
        let settings = Settings { crashes: crashes.to_vec(), restarts: Some(restart), ..self.settings() };
        run_with(settings, Random::new(self.seed()), logged)
    }

    /// The session's life with one process that stands still before that effect.
    pub fn stall(self, effect: u64, milliseconds: u64, logged: bool) -> Verdict {
        let settings = Settings { stalls: vec![(effect, milliseconds)], ..self.settings() };
        run_with(settings, Random::new(self.seed()), logged)
    }

    /// A crash at every place, each with both kinds of restart; for pairs, another one at every place after it.
    pub fn explore(self, depth: Depth) -> Explored {
        let mut explored = Explored::default();
        let whole = self.live(&[], Restart::SamePod, false);
        if let Some(violation) = whole.violation {
            explored.violation = Some(format!("{self:?} without a crash: {violation}"));
            return explored;
        }
        for (effect, milliseconds) in (1..=whole.effects).flat_map(|effect| STALLS.map(|stall| (effect, stall))) {
            explored.stalls += 1;
            if let Some(violation) = self.stall(effect, milliseconds, false).violation {
                let told = format!("{self:?} standing still for {milliseconds} ms before effect {effect}: {violation}");
                explored.violation = Some(told);
                return explored;
            }
        }
        for (first, restart) in places(1, whole.effects).flat_map(|place| RESTARTS.map(|restart| (place, restart))) {
            let verdict = self.live(&[first], restart, false);
            explored.singles += 1;
            if explored.note(self, &[first], restart, &verdict) {
                return explored;
            }
            // One kind of restart each: both would take twice the time.
            let has_pairs = depth == Depth::Pairs && restart == RESTARTS[usize::from(first.0 % 2 == 1)];
            for second in places(first.0 + 1, if has_pairs { verdict.effects } else { 0 }) {
                let verdict = self.live(&[first, second], restart, false);
                explored.pairs += 1;
                if explored.note(self, &[first, second], restart, &verdict) {
                    return explored;
                }
            }
        }
        explored
    }
}

impl Explored {
    fn note(&mut self, session: Session, crashes: &[Point], restart: Restart, verdict: &Verdict) -> bool {
        let told = |violation| format!("{session:?} with crashes {crashes:?} and restarts in {restart:?}: {violation}");
        self.violation = verdict.violation.as_ref().map(told);
        self.violation.is_some()
    }
}

fn places(from: u64, to: u64) -> impl Iterator<Item = Point> {
    (from..=to).flat_map(|effect| [(effect, Side::Before), (effect, Side::After)])
}
