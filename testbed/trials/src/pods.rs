//! Uploaders that live for a while and are killed.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use rand::{RngExt as _, rngs::StdRng};
use rustix::process::Signal;

use crate::{
    lane::Shared,
    uploader::{Process, tail, variables},
};

/// After so many lives one is long enough for files to be collected.
const LONG_LIFE_EVERY: usize = 150;
/// Longer than the minute for which a completed file is kept.
const LONG_LIFE: Duration = Duration::from_secs(80);
/// Longer than it takes others to believe that an uploader is dead.
const LONG_SLEEP: Duration = Duration::from_secs(36);
/// Time between two looks at what happens.
const TICK: Duration = Duration::from_micros(200);

/// How a pod treats its uploaders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    /// It is killed again and again; its successor has the same UID.
    Dies,
    /// Now and then a node is lost: the UID never comes back.
    Vanishes,
    /// It is never killed, but stopped for longer than the others wait for it.
    Sleeps,
}

/// When a life ends.
#[derive(Clone, Copy, Debug)]
enum End {
    After(Duration),
    /// When so many versions were written from now on, at the latest after the time.
    Writes(u64, Duration),
    /// When so many requests arrived from now on, at the latest after the time.
    Requests(u64, Duration),
}

/// A place where uploaders run, one at a time.
#[derive(Debug)]
pub(crate) struct Pod<'a> {
    shared: &'a Shared,
    program: PathBuf,
    account_url: String,
    name: String,
    habit: Habit,
    random: StdRng,
    lives: usize,
    /// Lives under the present UID.
    incarnation: usize,
}

impl<'a> Pod<'a> {
    pub(crate) fn new(
        shared: &'a Shared,
        program: PathBuf,
        account_url: String,
        place: usize,
        habit: Habit,
        random: StdRng,
    ) -> Self {
        let name = format!("{}-{place}", shared.session);
        Self { shared, program, account_url, name, habit, random, lives: 0, incarnation: 0 }
    }

    /// Lives and dies until it is calm, then lives on until everything is over. `take_round` allows one more kill.
    pub(crate) fn work(mut self, take_round: impl Fn() -> bool, is_over: impl Fn() -> bool) -> Result<()> {
        if self.habit == Habit::Sleeps {
            self.sleep_now_and_then(&is_over)?;
        } else {
            while !self.is_calm() && !is_over() && take_round() {
                self.live_and_die(&is_over)?;
            }
        }
        while !is_over() {
            let process = self.start()?;
            self.watch(process, &is_over)?;
        }
        Ok(())
    }

    fn is_calm(&self) -> bool {
        self.shared.calm.load(Ordering::Relaxed)
    }

    fn log(&self) -> PathBuf {
        self.shared.root.join(format!("{}.log", self.name))
    }

    fn start(&mut self) -> Result<Process> {
        self.lives += 1;
        let uid = format!("{}-{}", self.name, self.incarnation);
        let staging = self.shared.root.join("staging").join(&self.name);
        fs::create_dir_all(&staging)?;
        let staging = staging.display().to_string();
        let more = [
            ("APP_POD_UID", uid.as_str()),
            ("APP_LOCAL_STAGING_ROOT", staging.as_str()),
            ("APP_AZURE_MAX_BLOCK_SIZE", "64Ki"),
            ("APP_AZURE_MAX_SINGLE_PUT_SIZE", "128Ki"),
            ("APP_AZURE_MAX_CONCURRENCY", "4"),
            ("APP_MEMORY_LIMIT", "16Mi"),
        ];
        let variables = variables(&self.shared.root, &self.shared.session, &self.account_url, &more);
        Process::start(&self.program, &[], &variables, &self.log())
    }

    fn live_and_die(&mut self, is_over: &impl Fn() -> bool) -> Result<()> {
        if self.random.random_range(0..5) == 0 {
            self.wipe_stage()?;
        }
        if self.habit == Habit::Vanishes && self.random.random_range(0..10) == 0 {
            self.incarnation += 1;
        }
        let mut process = self.start()?;
        let end = self.end();
        self.live(&mut process, end, is_over)?;
        if self.random.random_range(0..8) == 0 {
            process.signal(Signal::STOP);
            std::thread::sleep(Duration::from_millis(self.random.random_range(10..1500)));
            if self.random.random_range(0..2) == 0 {
                process.signal(Signal::CONT);
                std::thread::sleep(Duration::from_millis(self.random.random_range(0..300)));
            }
        }
        let ended = process.kill()?;
        self.shared.killed();
        if let Some(status) = ended {
            self.check_end(status)?;
        }
        Ok(())
    }

    /// Some die at once, most around the commit of their first files, some at the instant of a request.
    fn end(&mut self) -> End {
        let milliseconds = |random: &mut StdRng, from, to| Duration::from_millis(random.random_range(from..to));
        if self.lives.is_multiple_of(LONG_LIFE_EVERY) {
            return End::After(LONG_LIFE);
        }
        let random = &mut self.random;
        match random.random_range(0..10) {
            0 | 1 => End::After(milliseconds(random, 0, 600)),
            2..6 => End::After(milliseconds(random, 900, 2500)),
            6 | 7 => End::Writes(random.random_range(1..8), milliseconds(random, 1200, 3000)),
            _ => End::Requests(random.random_range(1..60), milliseconds(random, 1200, 3000)),
        }
    }

    fn live(&self, process: &mut Process, end: End, is_over: &impl Fn() -> bool) -> Result<()> {
        let start = Instant::now();
        let (writes, requests) = (self.shared.writes.load(Ordering::Relaxed), self.shared.requests.load(Ordering::Relaxed));
        loop {
            let (most, happened) = match end {
                End::After(time) => (time, false),
                End::Writes(count, time) => (time, self.shared.writes.load(Ordering::Relaxed) >= writes + count),
                End::Requests(count, time) => (time, self.shared.requests.load(Ordering::Relaxed) >= requests + count),
            };
            if happened || start.elapsed() >= most || is_over() || process.ended()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(TICK);
        }
    }

    /// Stopped for longer than the others wait, again and again, while another pod of the lane takes its files over.
    fn sleep_now_and_then(&mut self, is_over: &impl Fn() -> bool) -> Result<()> {
        let mut process = self.start()?;
        while !self.is_calm() && !is_over() {
            let awake = Duration::from_millis(self.random.random_range(3000..9000));
            self.live(&mut process, End::After(awake), is_over)?;
            // From a shell a start that meets a fault is an end.
            if let Some(status) = process.ended()? {
                self.check_end(status)?;
                process = self.start()?;
                continue;
            }
            // In the middle of something.
            let something = End::Requests(self.random.random_range(1..20), Duration::from_secs(3));
            self.live(&mut process, something, is_over)?;
            process.signal(Signal::STOP);
            let asleep = Instant::now();
            while asleep.elapsed() < LONG_SLEEP && !is_over() {
                std::thread::sleep(Duration::from_millis(20));
            }
            process.signal(Signal::CONT);
        }
        self.watch(process, is_over)
    }

    /// Lives until everything is over, or it ends by itself.
    fn watch(&self, mut process: Process, is_over: &impl Fn() -> bool) -> Result<()> {
        while !is_over() && process.ended()?.is_none() {
            std::thread::sleep(Duration::from_millis(20));
        }
        match process.kill()? {
            Some(status) => self.check_end(status),
            None => Ok(()),
        }
    }

    /// From a shell an uploader ends at once when the container cannot be used; everything else is a defect.
    fn check_end(&self, status: std::process::ExitStatus) -> Result<()> {
        let words = tail(&self.log(), 20);
        if status.code() == Some(1) && words.contains("the uploader ends") && !words.contains("a part of the uploader") {
            // The next one is not started in a hurry.
            std::thread::sleep(Duration::from_millis(100));
            return Ok(());
        }
        bail!("the uploader {} ended by itself with {status}:\n{words}", self.name)
    }

    fn wipe_stage(&self) -> Result<()> {
        match fs::remove_dir_all(self.shared.root.join("staging").join(&self.name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}
