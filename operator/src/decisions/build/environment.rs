//! The variables by which an uploader is configured.

use std::time::Duration;

use blobferry_crds::{
    AccessTier, Overwrite,
    names::{self, variables as var},
};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector};

use super::{federation, network, resources};
use crate::{decisions::validate::ValidSession, settings::Settings};

/// Every field of the session that reaches the pod: durations in seconds, sizes in bytes, lists with commas.
pub(super) fn environment(session: &ValidSession, settings: &Settings) -> Vec<EnvVar> {
    let mut all = who(session);
    all.extend(folders(session));
    all.extend(destination(session));
    all.extend(tuning(session));
    all.extend(network::variables(&settings.network));
    all.extend(settings.telemetry.iter().map(|(name, value)| plain(name, value)));
    all
}

fn who(session: &ValidSession) -> Vec<EnvVar> {
    vec![
        plain(var::MODE, session.mode.as_str()),
        plain(var::SESSION_NAME, &session.identity.session_name),
        plain(var::DATE_PREFIX, &session.identity.date_prefix),
        plain(var::SESSION_NAMESPACE, &session.namespace),
        plain(var::SESSION_OBJECT, &session.name),
        plain(var::SESSION_UID, &session.uid),
        of_pod(var::POD_NAME, "metadata.name"),
        of_pod(var::POD_UID, "metadata.uid"),
    ]
}

fn folders(session: &ValidSession) -> Vec<EnvVar> {
    let mut all = vec![
        plain(var::NFS_INCOMING_DIR, &format!("{}/{}", names::SHARE_MOUNT, session.incoming_dir)),
        plain(var::NFS_PROCESSING_ROOT, &format!("{}/{}", names::SHARE_MOUNT, session.processing_dir)),
        plain(var::STAGING_MODE, if session.stage.is_some() { "Disk" } else { "None" }),
    ];
    if let Some(limit) = session.stage {
        all.push(plain(var::LOCAL_STAGING_ROOT, names::STAGING_MOUNT));
        all.push(plain(var::STAGING_SIZE_LIMIT, &resources::stage(session, limit).to_string()));
    }
    all
}

fn destination(session: &ValidSession) -> Vec<EnvVar> {
    let container = &session.container;
    let overwrite = match container.overwrite {
        Overwrite::OwnSource => "OwnSource",
        Overwrite::Never => "Never",
        Overwrite::Any => "Any",
    };
    let mut all = vec![
        plain(var::AZURE_ACCOUNT_URL, &container.account_url),
        plain(var::AZURE_CONTAINER, &container.name),
        plain(var::AZURE_PREFIX, &container.prefix),
        plain(var::AZURE_OVERWRITE, overwrite),
    ];
    if let Some(tier) = container.access_tier {
        all.push(plain(var::AZURE_ACCESS_TIER, tier_name(tier)));
    }
    for (name, pairs) in [(var::AZURE_METADATA, &container.metadata), (var::AZURE_TAGS, &container.tags)] {
        if !pairs.is_empty() {
            // Texts always are JSON.
            all.push(plain(name, &serde_json::to_string(pairs).unwrap_or_default()));
        }
    }
    all.extend(container.content_type.iter().map(|kind| plain(var::AZURE_CONTENT_TYPE, kind)));
    if container.secret.is_some() {
        all.push(plain(var::CREDENTIALS_DIR, names::CREDENTIALS_MOUNT));
    }
    all.extend(container.federation.iter().flat_map(federation::variables));
    all
}

fn tier_name(tier: AccessTier) -> &'static str {
    match tier {
        AccessTier::Hot => "Hot",
        AccessTier::Cool => "Cool",
        AccessTier::Cold => "Cold",
        AccessTier::Archive => "Archive",
    }
}

fn tuning(session: &ValidSession) -> Vec<EnvVar> {
    let tuning = &session.tuning;
    let mut all = vec![
        plain(var::POLL_INTERVAL, &seconds(tuning.poll_interval)),
        plain(var::MIN_FILE_AGE, &seconds(tuning.min_file_age)),
        plain(var::RECURSIVE, if tuning.recursive { "true" } else { "false" }),
        plain(var::FILE_EXTENSIONS, &tuning.file_extensions.join(",")),
        plain(var::IGNORE, &tuning.ignore.join(",")),
        plain(var::MAX_QUEUE_SIZE, &tuning.queue_size.to_string()),
        plain(var::WORKER_CONCURRENCY, &tuning.workers.to_string()),
        plain(var::AZURE_MAX_BLOCK_SIZE, &tuning.block_size.to_string()),
        plain(var::AZURE_MAX_SINGLE_PUT_SIZE, &tuning.single_put_size.to_string()),
        plain(var::AZURE_MAX_CONCURRENCY, &tuning.concurrency.to_string()),
        plain(var::MEMORY_LIMIT, &tuning.memory_limit.to_string()),
        plain(var::MAX_ATTEMPTS, &tuning.max_attempts.to_string()),
        plain(var::GC_INTERVAL, &seconds(tuning.gc_interval)),
        plain(var::KEEP_COMPLETED_FOR, &seconds(tuning.keep_completed_for)),
    ];
    all.extend(tuning.bandwidth_limit.iter().map(|limit| plain(var::BANDWIDTH_LIMIT, &limit.to_string())));
    all.extend(tuning.idle_timeout.iter().map(|timeout| plain(var::IDLE_TIMEOUT, &seconds(*timeout))));
    all.extend(tuning.run_token.iter().map(|token| plain(var::RUN_TOKEN, token)));
    all
}

/// Whole seconds without a point, others with three digits after it.
fn seconds(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => duration.as_secs().to_string(),
        milliseconds => format!("{}.{milliseconds:03}", duration.as_secs()),
    }
}

/// A literal value. The kubelet expands `$(NAME)` in values; doubling the dollar sign stops it.
pub(super) fn plain(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value.replace("$(", "$$(")), value_from: None }
}

fn of_pod(name: &str, field: &str) -> EnvVar {
    let field = ObjectFieldSelector { api_version: Some("v1".into()), field_path: field.into() };
    EnvVar { name: name.into(), value: None, value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_in_seconds() {
        assert_eq!(seconds(Duration::from_mins(5)), "300");
        assert_eq!(seconds(Duration::from_millis(100)), "0.100");
        assert_eq!(seconds(Duration::from_millis(1500)), "1.500");
    }

    #[test]
    fn references_in_values_are_not_expanded() {
        assert_eq!(plain("A", "x-$(HOME)").value.unwrap(), "x-$$(HOME)");
    }
}
