//! What happened, for people: written only when somebody will read it, because a search runs thousands of histories.

use tokio::time::Instant;

/// The lines of a history.
#[derive(Debug)]
pub struct Log {
    start: Instant,
    lines: Option<Vec<String>>,
}

impl Log {
    /// A log that keeps its lines if `kept`.
    pub fn new(kept: bool) -> Self {
        Self { start: Instant::now(), lines: kept.then(Vec::new) }
    }

    /// Adds a line.
    pub fn say(&mut self, who: &str, what: impl FnOnce() -> String) {
        let start = self.start;
        if let Some(lines) = &mut self.lines {
            let elapsed = start.elapsed();
            lines.push(format!("{:>9.3} {who:<10} {}", elapsed.as_secs_f64(), what()));
        }
    }

    /// All lines so far.
    pub fn take(&mut self) -> Vec<String> {
        self.lines.replace(Vec::new()).unwrap_or_default()
    }
}
