//! (pure) The finalised name and date of a session, and where they come from.

use blobferry_crds::{UploadSession, names};
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use kube::ResourceExt;
use sha2::{Digest, Sha256};

use super::{Refusal, reasons};

/// What folders and blobs of a session are named after; never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The finalised session name.
    pub session_name: String,
    /// `YYYYMMDD`.
    pub date_prefix: String,
}

impl Identity {
    /// The identity of `session`: from its status, else from its annotations (a restore from backup drops the status), else a pure
    /// function of its name, UID and time of creation.
    pub fn of(session: &UploadSession) -> Result<Self, Refusal> {
        let (created, uid) = (super::created(session)?, super::uid(session)?);
        let status = session.status.as_ref();
        let finalised = |part: Option<&String>, annotation: &str, valid: fn(&str) -> bool| match part {
            Some(value) => Ok(Some(value.clone())),
            None => adopted(session, annotation, valid),
        };
        let name = finalised(status.and_then(|it| it.session_name.as_ref()), names::SESSION_NAME_ANNOTATION, is_session_name)?;
        let date = finalised(status.and_then(|it| it.date_prefix.as_ref()), names::DATE_PREFIX_ANNOTATION, is_date_prefix)?;
        if let (Some(name), Some(wished)) = (&name, &session.spec.session_name)
            && name != wished
        {
            return Err(bad_annotation(
                names::SESSION_NAME_ANNOTATION,
                &format!("is \"{name}\" but spec.sessionName is \"{wished}\""),
            ));
        }
        Ok(Self {
            session_name: name.or_else(|| session.spec.session_name.clone()).unwrap_or_else(|| generated_name(created, uid)),
            date_prefix: date.unwrap_or_else(|| created.to_zoned(TimeZone::UTC).strftime("%Y%m%d").to_string()),
        })
    }

    /// Whether the session's annotations keep this identity through a restore from backup.
    pub fn is_annotated(&self, session: &UploadSession) -> bool {
        let annotations = session.annotations();
        annotations.get(names::SESSION_NAME_ANNOTATION) == Some(&self.session_name)
            && annotations.get(names::DATE_PREFIX_ANNOTATION) == Some(&self.date_prefix)
    }
}

fn adopted(session: &UploadSession, annotation: &str, valid: fn(&str) -> bool) -> Result<Option<String>, Refusal> {
    match session.annotations().get(annotation) {
        Some(value) if valid(value) => Ok(Some(value.clone())),
        Some(value) => Err(bad_annotation(annotation, &format!("cannot be \"{value}\""))),
        None => Ok(None),
    }
}

fn bad_annotation(annotation: &str, what: &str) -> Refusal {
    Refusal::new(
        reasons::BAD_ANNOTATION,
        format!("The annotation {annotation} {what}: restore the value it had, or remove it to start with a new one."),
    )
}

/// `00-session-` and a version 7 UUID whose time is that of creation and whose random part is derived from the UID, so that every
/// computation gives the same name (RFC 9562, section 5.7).
fn generated_name(created: Timestamp, uid: &str) -> String {
    let digest = Sha256::digest(uid.as_bytes());
    let mut random = [0; 10];
    random.copy_from_slice(&digest[..10]);
    let milliseconds = u64::try_from(created.as_millisecond()).unwrap_or(0);
    format!("00-session-{}", uuid::Builder::from_unix_timestamp_millis(milliseconds, &random).into_uuid())
}

/// The pattern of `spec.sessionName`.
fn is_session_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    text.len() <= 200
        && text.bytes().all(inner)
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric() || first == b'_')
        && !text.ends_with('.')
}

fn is_date_prefix(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit()) && Date::strptime("%Y%m%d", text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn generated_name_is_a_pure_function_of_creation_and_uid() {
        let session = fixtures::session("");
        let identity = Identity::of(&session).unwrap();
        assert_eq!(identity, Identity::of(&session).unwrap());
        assert_eq!(identity.date_prefix, "20261121");
        let uuid: uuid::Uuid = identity.session_name.strip_prefix("00-session-").unwrap().parse().unwrap();
        assert_eq!(uuid.get_version_num(), 7);
        assert_eq!(uuid.get_timestamp().unwrap().to_unix().0, 1_795_248_000);
        let mut other = fixtures::session("");
        other.metadata.uid = Some("6f7e0b0c-0000-4000-8000-000000000002".into());
        assert_ne!(Identity::of(&other).unwrap(), identity);
    }

    #[test]
    fn session_name_of_the_spec_is_taken() {
        let session = fixtures::session("sessionName: truck-7");
        assert_eq!(Identity::of(&session).unwrap().session_name, "truck-7");
    }

    #[test]
    fn status_wins_over_annotations_that_were_changed_later() {
        let mut session = fixtures::session("");
        session.annotations_mut().insert(names::SESSION_NAME_ANNOTATION.into(), "../x".into());
        session.status = Some(blobferry_crds::UploadSessionStatus {
            session_name: Some("kept".into()),
            date_prefix: Some("20200229".into()),
            ..Default::default()
        });
        let identity = Identity::of(&session).unwrap();
        assert_eq!((identity.session_name.as_str(), identity.date_prefix.as_str()), ("kept", "20200229"));
        assert!(!identity.is_annotated(&session));
    }

    #[test]
    fn annotations_are_adopted_when_the_status_is_empty() {
        let mut session = fixtures::session("");
        session.annotations_mut().insert(names::SESSION_NAME_ANNOTATION.into(), "00-session-x".into());
        session.annotations_mut().insert(names::DATE_PREFIX_ANNOTATION.into(), "20250101".into());
        let identity = Identity::of(&session).unwrap();
        assert_eq!((identity.session_name.as_str(), identity.date_prefix.as_str()), ("00-session-x", "20250101"));
        assert!(identity.is_annotated(&session));
    }

    #[test]
    fn annotations_that_do_not_fit_the_pattern_are_refused() {
        for (annotation, value) in [
            (names::SESSION_NAME_ANNOTATION, "../other"),
            (names::SESSION_NAME_ANNOTATION, "-a"),
            (names::SESSION_NAME_ANNOTATION, "a."),
            (names::SESSION_NAME_ANNOTATION, ""),
            (names::DATE_PREFIX_ANNOTATION, "2025-01-01"),
            (names::DATE_PREFIX_ANNOTATION, "20251301"),
        ] {
            let mut session = fixtures::session("");
            session.annotations_mut().insert(annotation.into(), value.into());
            let refusal = Identity::of(&session).unwrap_err();
            assert_eq!(refusal.reason, "BadAnnotation");
            assert!(refusal.message.contains(annotation), "{refusal:?}");
        }
    }

    #[test]
    fn annotation_that_contradicts_the_spec_is_refused() {
        let mut session = fixtures::session("sessionName: truck-7");
        session.annotations_mut().insert(names::SESSION_NAME_ANNOTATION.into(), "truck-8".into());
        assert_eq!(Identity::of(&session).unwrap_err().reason, "BadAnnotation");
    }
}
