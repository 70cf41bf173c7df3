//! What goes wrong, and how often. Rates are of a thousand calls.

use tokio::time::Instant;

use crate::{random::Random, server::Errno};

/// Rates of faults and the troubles of the moment.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The share.
    pub share: ShareRates,
    /// The blob service.
    pub blob: BlobRates,
    /// The local disk.
    pub stage: StageRates,
    /// The API server.
    pub api: ApiRates,
    /// Until when the share answers no call.
    pub share_hangs: Option<Instant>,
    /// Until when the share refuses all calls with this error.
    pub share_refuses: Option<(Instant, Errno)>,
    /// Until when the blob service is in trouble, and in which.
    pub blob_refuses: Option<(Instant, Refusal)>,
    /// Until when the API server is away.
    pub api_away: Option<Instant>,
}

/// What the blob service says for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 403.
    Denied,
    /// 503 or 429, with Retry-After.
    Busy,
    /// No connection.
    Unreachable,
}

/// Faults of single calls on the share.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShareRates {
    /// Fails with `EIO` without being applied.
    pub error: u64,
    /// Fails with `ESTALE` without being applied.
    pub stale: u64,
    /// Is applied and fails with `EIO`.
    pub lost: u64,
    /// Is applied, its reply is lost, and the client sends it again: the second answer is what the caller sees.
    pub repeated: u64,
    /// Takes seconds to minutes.
    pub slow: u64,
    /// Most milliseconds of an ordinary call.
    pub latency: u64,
    /// Whether clients remember for a while that a name is absent.
    pub negative_cache: bool,
    /// Whether an open file that lost its last name gives `ESTALE`, as over `NFSv3`.
    pub stale_when_unlinked: bool,
}

/// Faults of single requests to the blob service.
#[derive(Clone, Copy, Debug, Default)]
pub struct BlobRates {
    /// Fails without being applied.
    pub error: u64,
    /// 503 with Retry-After.
    pub busy: u64,
    /// Is applied and its reply is lost.
    pub lost: u64,
    /// Seems lost, and is applied seconds to minutes later.
    pub late: u64,
    /// Is applied, and once more later.
    pub twice: u64,
    /// A bit flips on the way.
    pub flipped: u64,
    /// Takes seconds to minutes.
    pub slow: u64,
    /// Most milliseconds of an ordinary request.
    pub latency: u64,
    /// Uncommitted blocks vanish before the request.
    pub expired: u64,
    /// Is refused for the file's own sake.
    pub rejected: u64,
}

/// Faults of the local disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct StageRates {
    /// Whether there is one.
    pub is_there: bool,
    /// There is no room for a file.
    pub full: u64,
    /// A block is not kept.
    pub unkept: u64,
    /// A block comes back with other bytes.
    pub spoilt: u64,
}

/// Faults of the API server.
#[derive(Clone, Copy, Debug, Default)]
pub struct ApiRates {
    /// Whether reports are taken at all; else the uploader runs as from a shell.
    pub is_there: bool,
    /// A report does not arrive.
    pub error: u64,
    /// A report arrives and its reply is lost.
    pub lost: u64,
    /// Milliseconds between two reports.
    pub interval: u64,
}

/// What becomes of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// Milliseconds before it is applied.
    pub before: u64,
    /// Milliseconds between its application and its reply.
    pub after: u64,
    /// What the caller sees.
    pub outcome: Outcome,
}

/// What the caller of an operation on the share sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// What came out.
    #[default]
    Answered,
    /// An error; nothing was applied.
    Refused(Errno),
    /// An error; it was applied.
    Lost,
    /// The answer to the second try.
    Repeated,
}

fn latency(random: &mut Random, most: u64, slow: u64) -> u64 {
    if random.chance(slow) {
        return random.between(1_000, 90_000);
    }
    if most == 0 || random.chance(500) { 0 } else { random.below(most + 1) }
}

impl Faults {
    /// Everything works from now on.
    pub fn end(&mut self) {
        let (stage, api, cache) = (self.stage.is_there, self.api, self.share.negative_cache);
        *self = Self::default();
        self.stage.is_there = stage;
        self.api = ApiRates { error: 0, lost: 0, ..api };
        self.share.negative_cache = cache;
    }

    /// The fate of a call on the share.
    pub fn of_share(&self, random: &mut Random, is_changing: bool) -> Fate {
        let now = Instant::now();
        let rates = self.share;
        let mut fate = Fate {
            before: latency(random, rates.latency, rates.slow),
            after: latency(random, rates.latency, 0),
            outcome: Outcome::Answered,
        };
        if let Some(until) = self.share_hangs.filter(|until| *until > now) {
            fate.before += u64::try_from(until.duration_since(now).as_millis()).unwrap_or(0);
        }
        fate.outcome = match self.share_refuses {
            Some((until, errno)) if until > now => Outcome::Refused(errno),
            _ if random.chance(rates.error) => Outcome::Refused(Errno::Io),
            _ if random.chance(rates.stale) => Outcome::Refused(Errno::Stale),
            _ if is_changing && random.chance(rates.lost) => Outcome::Lost,
            _ if is_changing && random.chance(rates.repeated) => Outcome::Repeated,
            _ => Outcome::Answered,
        };
        fate
    }

    /// Milliseconds before and after the application of a request to the blob service.
    pub fn delays_of_blob(&self, random: &mut Random) -> (u64, u64) {
        (latency(random, self.blob.latency, self.blob.slow), latency(random, self.blob.latency, 0))
    }
}
