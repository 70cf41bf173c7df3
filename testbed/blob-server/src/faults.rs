//! What goes wrong: by script, by seed, or for everybody for a while.

use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::Operation;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 503, 429 or 500, not applied; with the time after which the client may come again.
    Busy(u16, Option<Duration>),
    /// 403, not applied.
    Forbidden,
    /// Refused with this status and code, not applied.
    Refuse(u16, &'static str),
    /// Applied; the connection is cut before the reply.
    LoseReply,
    /// Applied, then answered with 500 all the same.
    FailAfter,
    /// Applied; the connection is cut inside the reply.
    CutReply,
    /// The connection is cut after so many bytes of the body; not applied.
    CutBody(u64),
    /// The connection is cut when the request has arrived; it is applied so much later.
    Late(Duration),
    /// Applied and answered, and applied once more so much later.
    Again(Duration),
    /// Waits before it is applied.
    Slow(Duration),
    /// Waits after it was applied.
    SlowReply(Duration),
    /// One bit of the body is another one when it arrives.
    FlipBit(u64),
}

/// The faults that are still to come.
#[derive(Debug, Default)]
pub struct Faults {
    scripted: Vec<(Operation, usize, Fault)>,
    random: Option<Random>,
    forbidden_until: Option<Instant>,
}

#[derive(Debug)]
struct Random {
    draw: StdRng,
    rate: f64,
}

impl Faults {
    /// Gives the `nth` request of `operation` from now (1 is the next one) a fault.
    pub fn script(&mut self, operation: Operation, nth: usize, fault: Fault) {
        self.scripted.push((operation, nth, fault));
    }

    /// Gives a part of all requests (`rate`, 0 to 1) a fault drawn from `seed`.
    pub fn draw(&mut self, seed: u64, rate: f64) {
        self.random = Some(Random { draw: StdRng::seed_from_u64(seed), rate });
    }

    /// Refuses everything with 403 for a while.
    pub fn forbid_for(&mut self, time: Duration) {
        self.forbidden_until = Some(Instant::now() + time);
    }

    /// No faults from now on.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// What becomes of a request whose body has `length` bytes.
    pub(crate) fn fate_of(&mut self, operation: Operation, length: u64) -> Option<Fault> {
        let scripted = self.scripted_for(operation);
        if scripted.is_some() {
            return scripted;
        }
        if self.forbidden_until.is_some_and(|until| Instant::now() < until) {
            return Some(Fault::Forbidden);
        }
        let random = self.random.as_mut()?;
        let meets = random.draw.random_bool(random.rate);
        meets.then(|| draw(&mut random.draw, operation, length))
    }

    fn scripted_for(&mut self, operation: Operation) -> Option<Fault> {
        for (_, nth, _) in self.scripted.iter_mut().filter(|(other, ..)| *other == operation) {
            *nth = nth.saturating_sub(1);
        }
        let due = self.scripted.iter().position(|(other, nth, _)| *other == operation && *nth == 0)?;
        Some(self.scripted.remove(due).2)
    }
}

fn draw(random: &mut StdRng, operation: Operation, length: u64) -> Fault {
    let mut wait = |most: u64| Duration::from_millis(random.random_range(0..most));
    let (short, long, late) = (wait(100), wait(400), wait(8000));
    let faults = if operation.has_body() && length > 0 { 0..12 } else { 0..8 };
    match random.random_range(faults) {
        0 => Fault::Busy(503, Some(Duration::from_secs(1))),
        1 => Fault::Busy([429, 500, 503][random.random_range(0..3)], None),
        2 => Fault::LoseReply,
        3 => Fault::FailAfter,
        4 => Fault::CutReply,
        5 => Fault::Slow(long),
        6 | 7 => Fault::SlowReply(short),
        8 => Fault::CutBody(random.random_range(0..length)),
        9 => Fault::Late(late),
        10 => Fault::Again(late),
        _ => Fault::FlipBit(random.random_range(0..length * 8)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripted_fault_meets_the_request_that_it_names() {
        let mut faults = Faults::default();
        faults.script(Operation::PutBlock, 2, Fault::LoseReply);
        faults.script(Operation::PutBlock, 3, Fault::FailAfter);
        let fates = [Operation::PutBlock, Operation::PutBlob, Operation::PutBlock, Operation::PutBlock, Operation::PutBlock]
            .map(|operation| faults.fate_of(operation, 1));
        assert_eq!(fates, [None, None, Some(Fault::LoseReply), Some(Fault::FailAfter), None]);
    }

    #[test]
    fn seed_gives_the_same_faults_again_and_the_rate_is_kept() {
        let fates = || {
            let mut faults = Faults::default();
            faults.draw(7, 0.2);
            (0..1000).map(|_| faults.fate_of(Operation::PutBlock, 100)).collect::<Vec<_>>()
        };
        assert_eq!(fates(), fates());
        let met = fates().iter().flatten().count();
        assert!((100..300).contains(&met), "{met}");
    }

    #[test]
    fn everything_is_forbidden_for_a_while_and_nothing_after_a_clear() {
        let mut faults = Faults::default();
        faults.forbid_for(Duration::from_mins(1));
        assert_eq!(faults.fate_of(Operation::GetBlob, 0), Some(Fault::Forbidden));
        faults.clear();
        assert_eq!(faults.fate_of(Operation::GetBlob, 0), None);
    }
}
