//! What a history is made of. Everything is drawn from the seed, some of it left out at random, because a history with every trouble at
//! once seldom gets far enough to meet a rare one.

use std::{path::PathBuf, time::Duration};

use blobferry_crds::Overwrite;
use blobferry_uploader::{
    args::Mode,
    blob::Properties,
    session::{Folders, Rules},
};

use crate::{
    crash::Point,
    faults::{ApiRates, BlobRates, Faults, ShareRates, StageRates},
    random::Random,
    server::ROOT,
};

/// The session of every history.
pub const SESSION: &str = "truck-7";
/// The date of its claims.
pub const DATE: &str = "20261121";

const MILLISECOND: i128 = 1_000_000;

/// The settings of one history.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The tick of the server's clock, in nanoseconds.
    pub clock_granularity: i128,
    /// How far it is ahead, in nanoseconds.
    pub clock_offset: i128,
    /// Whether somebody sets it meanwhile.
    pub clock_steps: bool,
    /// Whether the server gives a new file the inode number of a deleted one.
    pub inode_numbers_are_reused: bool,
    /// Uploaders on the folder at a time.
    pub uploaders: usize,
    /// Files at a time.
    pub workers: usize,
    /// Milliseconds between scans.
    pub poll: u64,
    /// Milliseconds between passes of the collector.
    pub collect: u64,
    /// Quiet period before a claim.
    pub quiet: Duration,
    /// How long a completed file is kept.
    pub keep: Duration,
    /// Unclaimed files that wait for workers.
    pub queue: usize,
    /// How things are done.
    pub rules: Rules,
    /// What goes wrong.
    pub faults: Faults,
    /// Crashes, of twenty thousand effects and sides.
    pub crash_rate: u64,
    /// Pauses, of ten thousand effects.
    pub pause_rate: u64,
    /// Crashes that are planned.
    pub crashes: Vec<Point>,
    /// Effects before which a process stands still, and for how many milliseconds.
    pub stalls: Vec<(u64, u64)>,
    /// Whether a process starts again in its pod or in another; drawn each time if that is not said.
    pub restarts: Option<Restart>,
    /// Outages, of so many kinds at random instants.
    pub outages: u64,
    /// Milliseconds in which producers do things and faults happen.
    pub busy: u64,
    /// What producers do.
    pub producers: Producers,
    /// What people do to the session.
    pub turns: Turns,
}

/// Where a process starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// In its pod: claims of the one before it are taken up at once.
    SamePod,
    /// In another one, on another node: claims are taken up when the heartbeat of their process has ended.
    AnotherPod,
}

/// What people do to the session.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    /// It is drained or released after so many milliseconds; then one of the same name comes.
    pub ending: Option<(Mode, u64)>,
    /// How often it gets another `runToken`.
    pub tokens: u64,
    /// It is completed when nothing new came for so long, and started again.
    pub idle: Option<Duration>,
}

/// What producers do to files that they have delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// Nothing, or what chance has them do.
    Rest,
    /// Each of them writes to its files twice more, once soon and once late.
    Late,
    /// Claimed files are written to while no uploader runs, and their mtimes are set back.
    Rewritten,
}

/// What producers do.
#[derive(Clone, Debug)]
pub struct Producers {
    /// How many there are.
    pub count: u64,
    /// What each of them does at most.
    pub actions: u64,
    /// Names that they share.
    pub names: Vec<Vec<u8>>,
    /// Fewest bytes of a file, but for empty ones.
    pub least: u64,
    /// Most bytes of a file.
    pub largest: u64,
    /// Most milliseconds between two things.
    pub gap: u64,
    /// Whether they do more than drop files.
    pub misbehave: bool,
    /// What becomes of their files afterwards.
    pub afterwards: Afterwards,
    /// Whether there are folders, links, pipes and impossible names.
    pub odd_names: bool,
    /// Of a thousand actions, those of consumers and other sources in the container.
    pub disturb: u64,
}

impl Settings {
    /// The folders of every history.
    pub fn folders(&self) -> Folders {
        Folders {
            incoming: PathBuf::from(ROOT).join("incoming").join(SESSION),
            processing: PathBuf::from(ROOT).join(".processing"),
            session: SESSION.into(),
            date: DATE.into(),
            prefix: String::new(),
        }
    }

    /// A history without any trouble: one small and one large file, and nobody who disturbs them.
    pub fn calm() -> Self {
        Self {
            clock_granularity: 1,
            clock_offset: 0,
            clock_steps: false,
            inode_numbers_are_reused: false,
            uploaders: 1,
            workers: 2,
            poll: 1_000,
            collect: 10_000,
            quiet: Duration::from_secs(2),
            keep: Duration::from_secs(1),
            queue: 100,
            rules: Rules {
                mode: Mode::Watch,
                recursive: false,
                overwrite: Overwrite::OwnSource,
                properties: Properties::default(),
                block_size: 16,
                single_put_size: 24,
                concurrency: 3,
                memory_limit: 1 << 20,
                max_attempts: 0,
            },
            faults: Faults::default(),
            crash_rate: 0,
            pause_rate: 0,
            crashes: Vec::new(),
            stalls: Vec::new(),
            restarts: None,
            outages: 0,
            busy: 10_000,
            producers: Producers {
                count: 1,
                actions: 2,
                names: vec![b"a".to_vec()],
                least: 1,
                largest: 60,
                gap: 3_000,
                misbehave: false,
                afterwards: Afterwards::Rest,
                odd_names: false,
                disturb: 0,
            },
            turns: Turns::default(),
        }
    }

    /// The settings that `random` draws.
    pub fn draw(random: &mut Random) -> Self {
        let calm = Self::calm();
        let quiet = random.between(1_000, 5_000);
        let mut rules = calm.rules;
        rules.block_size = random.between(4, 20);
        rules.single_put_size = *random.pick(&[0, 16, 24, 24, 200]);
        rules.concurrency = usize::try_from(random.between(1, 4)).unwrap_or(1);
        let keep = Duration::from_millis(*random.pick(&[0, 1_000, 70_000]));
        if random.chance(60) {
            rules.overwrite = Overwrite::Any;
        }
        let ahead = i128::from(random.below(200_000)) - 100_000;
        let busy = *random.pick(&[20_000, 40_000, 90_000]);
        Self {
            clock_granularity: *random.pick(&[1, MILLISECOND, 4 * MILLISECOND, 10 * MILLISECOND]),
            clock_offset: if random.chance(500) { ahead * MILLISECOND } else { 0 },
            clock_steps: random.chance(60),
            inode_numbers_are_reused: random.chance(500),
            uploaders: *random.pick(&[1, 1, 1, 2, 2, 3]),
            workers: usize::try_from(random.between(1, 3)).unwrap_or(1),
            poll: random.between(300, 2_500),
            collect: random.between(2_000, 20_000),
            quiet: Duration::from_millis(quiet),
            keep,
            queue: usize::try_from(*random.pick(&[1, 3, 100])).unwrap_or(1),
            rules,
            faults: draw_faults(random),
            crash_rate: if random.chance(600) { *random.pick(&[30, 200, 800]) } else { 0 },
            pause_rate: if random.chance(300) { *random.pick(&[20, 100]) } else { 0 },
            crashes: Vec::new(),
            stalls: Vec::new(),
            restarts: None,
            outages: if random.chance(300) { random.between(1, 3) } else { 0 },
            busy,
            producers: draw_producers(random, busy),
            turns: Turns::default(),
        }
        .with_turns(random)
    }

    /// Adds what people do to the session, and what is rare.
    fn with_turns(mut self, random: &mut Random) -> Self {
        if random.chance(250) {
            self.rules.recursive = true;
            let all: [&[u8]; 5] = [b"d/a", b"d/e/a", b"g/a", b"d/x.completed", b"d"];
            self.producers.names.extend((0..2).map(|_| random.pick(&all).to_vec()));
        }
        if random.chance(300) {
            self.rules.max_attempts = *random.pick(&[1, 2, 4]);
            self.faults.blob.rejected = *random.pick(&[0, 30, 200]);
        }
        if random.chance(300) {
            self.turns.tokens = random.between(1, 3);
        }
        if random.chance(250) {
            let mode = *random.pick(&[Mode::Drain, Mode::Release, Mode::Release]);
            self.turns.ending = Some((mode, random.below(self.busy)));
        } else if self.uploaders == 1 && random.chance(150) {
            self.turns.idle = Some(Duration::from_millis(random.between(1_000, 40_000)));
        }
        self
    }
}

fn draw_faults(random: &mut Random) -> Faults {
    let rate = |random: &mut Random| if random.chance(250) { *random.pick(&[3, 20, 100]) } else { 0 };
    let share = ShareRates {
        error: rate(random),
        stale: rate(random),
        lost: rate(random),
        repeated: rate(random),
        slow: if random.chance(150) { 3 } else { 0 },
        latency: *random.pick(&[0, 0, 3, 20, 400]),
        negative_cache: random.chance(400),
        stale_when_unlinked: random.chance(500),
    };
    let blob = BlobRates {
        error: rate(random),
        busy: rate(random),
        lost: rate(random),
        late: rate(random),
        twice: rate(random),
        flipped: rate(random),
        slow: if random.chance(150) { 10 } else { 0 },
        latency: *random.pick(&[0, 5, 50, 2_000]),
        expired: rate(random) / 3,
        rejected: 0,
    };
    let stage = StageRates { is_there: random.chance(700), full: rate(random), unkept: rate(random), spoilt: rate(random) };
    let api =
        ApiRates { is_there: random.chance(500), error: rate(random), lost: rate(random), interval: random.between(500, 8_000) };
    Faults { share, blob, stage, api, ..Faults::default() }
}

fn draw_producers(random: &mut Random, busy: u64) -> Producers {
    let all: [&[u8]; 7] = [b"a", b"b", b"x.completed", "ä %#".as_bytes(), b"a.superseded", b"-", b"c.failed.reason"];
    let names = (0..random.between(1, 3)).map(|_| random.pick(&all).to_vec()).collect();
    let actions = random.between(1, 8);
    Producers {
        count: random.between(1, 3),
        actions,
        names,
        least: 1,
        largest: *random.pick(&[20, 60, 60, 150]),
        gap: 2 * busy / (actions + 1),
        misbehave: random.chance(700),
        afterwards: if random.chance(100) { Afterwards::Late } else { Afterwards::Rest },
        odd_names: random.chance(150),
        disturb: if random.chance(200) { 100 } else { 0 },
    }
}
