//! Settings that change while the session runs: the spec comes with the reply to every status write. (pure)

use std::time::Duration;

use blobferry_crds::UploadSessionSpec;

use crate::args::Settings;

/// What can change without a restart, also in the middle of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// Generation of the spec that this is of; `None` for what the process was started with.
    pub generation: Option<i64>,
    /// Time between two scans.
    pub poll_interval: Duration,
    /// Quiet period before a claim and before the commit of an adopted file.
    pub min_file_age: Duration,
    /// Files at a time.
    pub workers: usize,
    /// Bytes per second of all files together.
    pub bandwidth_limit: Option<u64>,
    /// Time between two passes of the collector.
    pub collect_interval: Duration,
    /// How long a completed file is kept.
    pub keep_completed_for: Duration,
    /// The session is over when nothing new came for so long; never if `None`.
    pub idle_timeout: Option<Duration>,
    /// A change takes back files that were set aside.
    pub run_token: Option<String>,
}

impl Live {
    /// What the process was started with.
    pub fn of(settings: &Settings) -> Self {
        Self {
            generation: None,
            poll_interval: settings.watch.poll_interval,
            min_file_age: settings.watch.min_file_age,
            workers: settings.transfer.workers.get(),
            bandwidth_limit: settings.transfer.bandwidth_limit,
            collect_interval: settings.retention.interval,
            keep_completed_for: settings.retention.keep_completed_for,
            idle_timeout: settings.session.idle_timeout,
            run_token: settings.session.run_token.clone(),
        }
    }

    /// What the spec of the session's object says; `None` if a part of it cannot be read.
    pub fn follow(spec: &serde_json::Value, generation: Option<i64>) -> Option<Self> {
        let spec: UploadSessionSpec = serde_json::from_value(spec.clone()).ok()?;
        let idle_timeout = spec.completion.and_then(|completion| completion.idle_timeout);
        let bandwidth_limit = spec.transfer.bandwidth_limit.map(|limit| limit.bytes()).transpose().ok()?;
        Some(Self {
            generation,
            poll_interval: spec.watch.poll_interval.parse().ok()?,
            min_file_age: spec.watch.min_file_age.parse().ok()?,
            workers: usize::try_from(spec.transfer.workers).ok()?.max(1),
            bandwidth_limit,
            collect_interval: spec.retention.interval.parse().ok()?,
            keep_completed_for: spec.retention.keep_completed_for.parse().ok()?,
            idle_timeout: idle_timeout.map(|timeout| timeout.parse()).transpose().ok()?,
            run_token: spec.run_token,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use blobferry_crds::changes::{EFFECTS, Effect};
    use serde_json::json;

    use super::*;

    fn spec(changes: &serde_json::Value) -> serde_json::Value {
        let mut spec = json!({
            "source": {"persistentVolumeClaim": {"claimName": "share"}},
            "destination": {"azureBlob": {"accountUrl": "https://a.blob.core.windows.net", "container": "data"}},
        });
        for (name, value) in changes.as_object().unwrap() {
            spec[name] = value.clone();
        }
        spec
    }

    #[test]
    fn spec_says_every_setting_that_changes_live() {
        let live = Live::follow(
            &spec(&json!({
                "watch": {"pollInterval": "100ms", "minFileAge": "1m"},
                "transfer": {"workers": 9, "bandwidthLimit": "100k"},
                "retention": {"interval": "1s", "keepCompletedFor": "1h"},
                "completion": {"idleTimeout": "10m"},
                "runToken": "again",
            })),
            Some(7),
        );
        let expected = Live {
            generation: Some(7),
            poll_interval: Duration::from_millis(100),
            min_file_age: Duration::from_mins(1),
            workers: 9,
            bandwidth_limit: Some(100_000),
            collect_interval: Duration::from_secs(1),
            keep_completed_for: Duration::from_hours(1),
            idle_timeout: Some(Duration::from_mins(10)),
            run_token: Some("again".into()),
        };
        assert_eq!(live, Some(expected));
    }

    #[test]
    fn every_field_that_is_to_change_live_is_followed() {
        let followed = [
            ("runToken", json!("again")),
            ("completion.idleTimeout", json!("11m")),
            ("watch.pollInterval", json!("11s")),
            ("watch.minFileAge", json!("11s")),
            ("transfer.workers", json!(3)),
            ("transfer.bandwidthLimit", json!("1M")),
            ("retention.interval", json!("11s")),
            ("retention.keepCompletedFor", json!("11m")),
        ];
        let defaults = Live::follow(&spec(&json!({})), None);
        for (path, value) in &followed {
            let changes = path.rsplit('.').fold(value.clone(), |inner, name| json!({name: inner}));
            let live = Live::follow(&spec(&changes), None);
            assert!(live.is_some() && live != defaults, "{path}");
        }
        let live = EFFECTS.iter().filter(|(_, effect)| *effect == Effect::Live);
        assert_eq!(followed.iter().map(|(path, _)| *path).collect::<BTreeSet<_>>(), live.map(|(path, _)| *path).collect());
    }

    #[test]
    fn what_is_absent_is_the_default_and_what_cannot_be_read_changes_nothing() {
        let live = Live::follow(&spec(&json!({})), None).unwrap();
        assert_eq!((live.workers, live.bandwidth_limit, live.run_token), (4, None, None));
        assert_eq!(Live::follow(&serde_json::Value::Null, Some(1)), None);
        assert_eq!(Live::follow(&spec(&json!({"watch": {"pollInterval": "soon"}})), Some(1)), None);
    }
}
