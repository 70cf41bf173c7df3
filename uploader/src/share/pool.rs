//! Threads of their own for calls that may hang: a hard NFS mount blocks a call for as long as the server is away, and no such call
//! may ever sit on the async runtime.

use std::{
    cell::Cell,
    fmt, io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

thread_local! {
    /// The number of a thread in its pool.
    static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
}

/// When the pool's threads last finished a call while others waited: the sign of life that `/healthz` reads.
#[derive(Debug)]
pub struct Pulse {
    started: Instant,
    last_beat: AtomicU64,
    outstanding: AtomicU64,
    /// When the call of each thread came further last; zero if it has none.
    calls: Box<[AtomicU64]>,
}

impl Pulse {
    /// A pulse of so many threads without any call.
    pub fn new(threads: usize) -> Arc<Self> {
        let calls = (0..threads).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { started: Instant::now(), last_beat: AtomicU64::new(0), outstanding: AtomicU64::new(0), calls })
    }

    /// Milliseconds, never zero.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    fn since(&self, moment: u64) -> Duration {
        Duration::from_millis(self.now().saturating_sub(moment))
    }

    fn note(&self, moment: u64) {
        if let Some(call) = NUMBER.get().and_then(|number| self.calls.get(number)) {
            call.store(moment, Ordering::Release);
        }
    }

    fn call_started(&self) {
        if self.outstanding.fetch_add(1, Ordering::AcqRel) == 0 {
            self.beat();
        }
    }

    /// A call that goes on has come further.
    pub fn beat(&self) {
        let now = self.now();
        self.last_beat.store(now, Ordering::Release);
        self.note(now);
    }

    fn call_ended(&self) {
        self.beat();
        self.note(0);
        self.outstanding.fetch_sub(1, Ordering::AcqRel);
    }

    /// For how long calls have been waiting without any of them ending; zero when none waits.
    pub fn silent_for(&self) -> Duration {
        if self.outstanding.load(Ordering::Acquire) == 0 {
            return Duration::ZERO;
        }
        self.since(self.last_beat.load(Ordering::Acquire))
    }

    /// For how long the slowest call has not come any further, whatever others do meanwhile.
    pub fn slowest_for(&self) -> Duration {
        let calls = self.calls.iter().map(|call| call.load(Ordering::Acquire)).filter(|since| *since > 0);
        calls.min().map_or(Duration::ZERO, |since| self.since(since))
    }
}

/// A bounded number of threads that run blocking calls in order of arrival.
#[derive(Clone)]
pub struct Pool {
    jobs: mpsc::Sender<Job>,
    pulse: Arc<Pulse>,
}

impl Pool {
    /// Starts `threads` threads called `name`.
    pub fn new(name: &str, threads: usize) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..threads {
            let queue = Arc::clone(&queue);
            let work = move || {
                NUMBER.set(Some(number));
                work(&queue);
            };
            thread::Builder::new().name(format!("{name}-{number}")).spawn(work)?;
        }
        Ok(Self { jobs, pulse: Pulse::new(threads) })
    }

    /// The sign of life of this pool.
    pub fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    /// Runs `call` on one of the threads. A caller that goes away does not stop the call.
    pub async fn run<T: Send + 'static>(&self, call: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
        let (reply, result) = oneshot::channel();
        self.submit(call, |outcome| {
            // The caller may have gone away; then nobody wants the result.
            let _ = reply.send(outcome);
        });
        result.await.unwrap_or_else(|_| Err(io::Error::other("the threads for file calls have ended")))
    }

    /// Starts `call` on one of the threads; nobody waits for it.
    pub fn start(&self, call: impl FnOnce() + Send + 'static) {
        self.submit(call, |()| {});
    }

    fn submit<T>(&self, call: impl FnOnce() -> T + Send + 'static, done: impl FnOnce(T) + Send + 'static) {
        let pulse = Arc::clone(&self.pulse);
        pulse.call_started();
        let job: Job = Box::new(move || {
            pulse.note(pulse.now());
            let outcome = call();
            pulse.call_ended();
            done(outcome);
        });
        // The threads live as long as the pool does.
        let _ = self.jobs.send(job);
    }
}

fn work(queue: &Mutex<mpsc::Receiver<Job>>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(),
            Err(mpsc::RecvError) => return,
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("pulse", &self.pulse).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn call_that_comes_further_is_not_silent() {
        let pool = Pool::new("test", 1).unwrap();
        let pulse = pool.pulse();
        let (step, steps) = mpsc::channel::<()>();
        let (told, hear) = mpsc::channel::<()>();
        pool.start({
            let pulse = pool.pulse();
            move || {
                while steps.recv().is_ok() {
                    pulse.beat();
                    let _ = told.send(());
                }
            }
        });
        while pulse.silent_for() < Duration::from_millis(50) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let before = Instant::now();
        step.send(()).unwrap();
        hear.recv().unwrap();
        // It counts whole milliseconds.
        let silent = pulse.silent_for();
        assert!(silent <= before.elapsed() + Duration::from_millis(2), "{silent:?}");
    }

    #[tokio::test]
    async fn call_that_does_not_end_is_known_although_others_do() {
        let pool = Pool::new("test", 2).unwrap();
        let pulse = pool.pulse();
        assert_eq!(pulse.slowest_for(), Duration::ZERO);
        let (release, hold) = mpsc::channel::<()>();
        let hung = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(move || hold.recv().map_err(io::Error::other)).await }
        });
        while pulse.slowest_for() < Duration::from_millis(50) {
            pool.run(|| Ok(())).await.unwrap();
        }
        pool.run(|| Ok(())).await.unwrap();
        let silent = pulse.silent_for();
        assert!(silent < pulse.slowest_for(), "{silent:?}");
        release.send(()).unwrap();
        hung.await.unwrap().unwrap();
        assert_eq!(pulse.slowest_for(), Duration::ZERO);
    }

    #[tokio::test]
    async fn pulse_is_silent_while_a_call_hangs_and_beats_again_afterwards() {
        let pool = Pool::new("test", 1).unwrap();
        assert_eq!(pool.pulse().silent_for(), Duration::ZERO);
        let (release, hold) = mpsc::channel::<()>();
        let hung = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(move || hold.recv().map_err(io::Error::other)).await }
        });
        while pool.pulse().silent_for() < Duration::from_millis(5) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        release.send(()).unwrap();
        hung.await.unwrap().unwrap();
        assert_eq!(pool.pulse().silent_for(), Duration::ZERO);
    }
}
