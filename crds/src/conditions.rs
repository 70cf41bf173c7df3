//! Condition types and reasons of an `UploadSession`, and how a new set replaces an old one.
//!
//! The rules are kstatus': `Reconciling` and `Stalled` are present only while true ("abnormal-true"), `Ready` is always there.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

/// Files are being ferried, or there is nothing to do.
pub const READY: &str = "Ready";
/// The operator is still changing something, or waits for something that heals itself.
pub const RECONCILING: &str = "Reconciling";
/// A person has to change something.
pub const STALLED: &str = "Stalled";
/// The uploader reads and writes the share.
pub const SOURCE_REACHABLE: &str = "SourceReachable";
/// The uploader reads and writes the container.
pub const DESTINATION_REACHABLE: &str = "DestinationReachable";
/// Everything that the last scan saw is uploaded.
pub const CAUGHT_UP: &str = "CaughtUp";
/// The session is over by itself; present only then.
pub const COMPLETE: &str = "Complete";

/// Reason: calls on the share do not end.
pub const HANGING: &str = "Hanging";

/// Longest message that the schema takes.
pub const MESSAGE_LIMIT: usize = 1024;

/// `status` of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The condition holds.
    True,
    /// The condition does not hold.
    False,
    /// Nobody knows.
    Unknown,
}

impl Verdict {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A condition before it has a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// One of the constants of this module.
    pub type_: &'static str,
    /// Whether it holds.
    pub verdict: Verdict,
    /// `CamelCase`, for machines.
    pub reason: String,
    /// A sentence that a person can act on.
    pub message: String,
}

/// The conditions that follow from `findings`: a transition time is kept unless the verdict changed, and what is not found any
/// more disappears. The order is that of `findings`.
pub fn merge(old: &[Condition], findings: Vec<Finding>, generation: i64, now: Timestamp) -> Vec<Condition> {
    findings
        .into_iter()
        .map(|finding| {
            let since = old
                .iter()
                .find(|condition| condition.type_ == finding.type_ && condition.status == finding.verdict.as_str())
                .map_or_else(|| Time(now), |condition| condition.last_transition_time.clone());
            Condition {
                type_: finding.type_.to_owned(),
                status: finding.verdict.as_str().to_owned(),
                reason: finding.reason,
                message: shorten(&finding.message, MESSAGE_LIMIT),
                observed_generation: Some(generation),
                last_transition_time: since,
            }
        })
        .collect()
}

/// `text` cut to at most `limit` bytes, at a character, with a sign that something is missing.
pub fn shorten(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let mut end = limit.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(verdict: Verdict, reason: &str) -> Finding {
        Finding { type_: READY, verdict, reason: reason.into(), message: String::new() }
    }

    #[test]
    fn transition_time_changes_with_the_verdict_only() {
        let (early, late) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(9).unwrap());
        let first = merge(&[], vec![finding(Verdict::False, "Starting")], 1, early);
        let same = merge(&first, vec![finding(Verdict::False, "Waiting")], 2, late);
        assert_eq!(same[0].last_transition_time, Time(early));
        assert_eq!((same[0].reason.as_str(), same[0].observed_generation), ("Waiting", Some(2)));
        let flipped = merge(&same, vec![finding(Verdict::True, "Running")], 2, late);
        assert_eq!(flipped[0].last_transition_time, Time(late));
    }

    #[test]
    fn conditions_that_are_not_found_any_more_disappear() {
        let old = merge(&[], vec![finding(Verdict::False, "Starting")], 1, Timestamp::UNIX_EPOCH);
        assert!(merge(&old, vec![], 1, Timestamp::UNIX_EPOCH).is_empty());
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        assert_eq!(shorten("äöü", 6), "äöü");
        assert_eq!(shorten("äöüß", 6), "ä…");
    }
}
