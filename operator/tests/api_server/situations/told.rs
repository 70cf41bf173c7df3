//! What the status of a session says, as one line.

use blobferry_crds::{UploadSession, names};
use jiff::tz::TimeZone;
use kube::ResourceExt;

/// The session of a row.
pub(super) const NAME: &str = "truck-7";

/// What the status of `session` says: its phase, its folder and its conditions, and what is not as it should be in any case.
pub(super) fn told(session: &UploadSession) -> String {
    let status = session.status.clone().unwrap_or_default();
    let phase = status.phase.as_ref().map_or_else(|| "new".to_owned(), |phase| format!("{phase:?}"));
    let created = session.creation_timestamp().map(|time| time.0.to_zoned(TimeZone::UTC).strftime("%Y%m%d").to_string());
    let folder = match (&status.date_prefix, &status.session_name) {
        (Some(date), Some(name)) if Some(date) == created.as_ref() => format!("today/{name}"),
        (Some(date), Some(name)) => format!("{date}/{name}"),
        _ => "no folder".to_owned(),
    };
    let mut conditions: Vec<_> = status.conditions.iter().map(|it| format!("{}={}/{}", it.type_, it.status, it.reason)).collect();
    conditions.sort_by_key(|condition| ORDER.iter().position(|type_| condition.starts_with(type_)));
    let annotated = |name: &str, value: Option<&String>| value.is_none() || session.annotations().get(name) == value;
    let mut wrong = String::new();
    if status.observed_generation != session.metadata.generation {
        wrong.push_str("; the spec has changed since");
    }
    if !annotated(names::SESSION_NAME_ANNOTATION, status.session_name.as_ref())
        || !annotated(names::DATE_PREFIX_ANNOTATION, status.date_prefix.as_ref())
    {
        wrong.push_str("; annotated otherwise");
    }
    format!("{} is {phase} in {folder}: {}{wrong}", session.name_any(), conditions.join(" "))
}

const ORDER: [&str; 7] = ["Ready", "Reconciling", "Stalled", "SourceReachable", "DestinationReachable", "CaughtUp", "Complete"];

fn line(phase: &str, conditions: &str) -> String {
    format!("{NAME} is {phase} in today/truck: {conditions}")
}

/// The conditions of which an uploader would tell.
fn unheard(reason: &str) -> String {
    format!("SourceReachable=Unknown/{reason} DestinationReachable=Unknown/{reason} CaughtUp=Unknown/{reason}")
}

const WORKS: &str = "SourceReachable=True/Works DestinationReachable=True/Works CaughtUp=True/NothingWaits";

/// The operator is at it, or waits for what heals itself.
pub(super) fn pending(reason: &str) -> String {
    line("Pending", &format!("Ready=False/{reason} Reconciling=True/{reason} {}", unheard(reason)))
}

/// A person has to change something.
pub(super) fn stalled(reason: &str) -> String {
    line("Failed", &format!("Ready=False/{reason} Stalled=True/{reason} {}", unheard(reason)))
}

/// The uploader ferries files.
pub(super) fn running(reason: &str) -> String {
    line("Running", &format!("Ready=True/{reason} {WORKS}"))
}

/// The last uploader of a deleted session is at work.
pub(super) fn draining(reason: &str) -> String {
    line("Draining", &format!("Ready=False/{reason} Reconciling=True/{reason} {WORKS}"))
}

pub(super) fn suspended() -> String {
    line("Suspended", &format!("Ready=True/Suspended {}", unheard("Suspended")))
}

pub(super) fn completed() -> String {
    line("Completed", &format!("Ready=True/Completed {} Complete=True/Completed", unheard("Completed")))
}

/// The same of another session.
pub(super) fn of(session: &str, line: &str) -> String {
    line.replace(NAME, session)
}
