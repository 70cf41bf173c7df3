//! Requests and limits of the uploader's container.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::ResourceRequirements, apimachinery::pkg::api::resource::Quantity};

use crate::decisions::validate::ValidSession;

const MEMORY_BESIDE_BUFFERS: u64 = 768 << 20;
const DISK_BESIDE_STAGE: u64 = 10 << 30;

/// What the session asks for, and defaults for the rest. A default never contradicts what the session asks for: a default request
/// comes down to the wished limit, a default limit goes up to the wished request.
pub(super) fn resources(session: &ValidSession) -> ResourceRequirements {
    let wished = &session.template.resources;
    let memory = (session.tuning.memory_limit + MEMORY_BESIDE_BUFFERS).to_string();
    let disk = (session.stage.unwrap_or(0) + DISK_BESIDE_STAGE).to_string();
    let requests =
        defaulted(&wished.requests, &wished.limits, [("cpu", "250m"), ("memory", "256Mi"), ("ephemeral-storage", "2Gi")], f64::min);
    let limits =
        defaulted(&wished.limits, &wished.requests, [("cpu", "2"), ("memory", &memory), ("ephemeral-storage", &disk)], f64::max);
    ResourceRequirements { requests: Some(requests), limits: Some(limits), claims: None }
}

/// Bytes that the uploader may stage: `wished`, or what a lower limit of local disk in the session bears beside logs, because the node
/// removes a pod that is beyond its limit.
pub(super) fn stage(session: &ValidSession, wished: u64) -> u64 {
    let limit = session.template.resources.limits.get("ephemeral-storage").and_then(|limit| limit.bytes().ok());
    limit.map_or(wished, |limit| wished.min(limit - limit / 10))
}

type Wishes = BTreeMap<String, blobferry_crds::Quantity>;

fn defaulted(
    wished: &Wishes,
    counterpart: &Wishes,
    defaults: [(&str, &str); 3],
    choose: fn(f64, f64) -> f64,
) -> BTreeMap<String, Quantity> {
    let mut all: BTreeMap<String, Quantity> =
        wished.iter().map(|(name, value)| (name.clone(), Quantity(value.to_string()))).collect();
    for (name, default) in defaults {
        let value = match counterpart.get(name).map(ToString::to_string) {
            Some(other) if is_chosen(&other, default, choose) => other,
            _ => default.to_owned(),
        };
        all.entry(name.to_owned()).or_insert(Quantity(value));
    }
    all
}

/// Whether `choose` takes the value of `one` and not that of `two`.
fn is_chosen(one: &str, two: &str, choose: fn(f64, f64) -> f64) -> bool {
    match (amount(one), amount(two)) {
        (Some(one), Some(two)) => choose(one, two).to_bits() == one.to_bits(),
        _ => false,
    }
}

/// The value of a quantity, for comparison only.
fn amount(text: &str) -> Option<f64> {
    const SUFFIXES: [(&str, f64); 12] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("", 1.0),
    ];
    SUFFIXES.iter().find_map(|(suffix, factor)| Some(text.strip_suffix(suffix)?.parse::<f64>().ok()? * factor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{decisions::validate::validate, fixtures};

    fn built(spec: &str) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
        let session = validate(&fixtures::session(spec), &fixtures::settings()).unwrap();
        let resources = resources(&session);
        let plain =
            |map: Option<BTreeMap<String, Quantity>>| map.unwrap().into_iter().map(|(name, value)| (name, value.0)).collect();
        (plain(resources.requests), plain(resources.limits))
    }

    #[test]
    fn defaults_follow_the_memory_and_staging_limits() {
        let (requests, limits) = built("{transfer: {memoryLimit: 512Mi}, staging: {sizeLimit: 20Gi}}");
        assert_eq!(
            (requests["cpu"].as_str(), requests["memory"].as_str(), requests["ephemeral-storage"].as_str()),
            ("250m", "256Mi", "2Gi")
        );
        assert_eq!(limits["cpu"], "2");
        assert_eq!(limits["memory"], ((512 + 768) << 20_u64).to_string());
        assert_eq!(limits["ephemeral-storage"], (30_u64 << 30).to_string());
    }

    #[test]
    fn what_the_session_names_replaces_the_default_of_that_resource_only() {
        let (requests, limits) = built("pod: {resources: {requests: {cpu: 1}, limits: {memory: 4Gi}}}");
        assert_eq!((requests["cpu"].as_str(), requests["memory"].as_str()), ("1", "256Mi"));
        assert_eq!((limits["cpu"].as_str(), limits["memory"].as_str()), ("2", "4Gi"));
    }

    #[test]
    fn no_more_is_staged_than_the_limit_of_local_disk_bears() {
        let staged = |limits: &str| {
            let spec = format!("{{staging: {{sizeLimit: 20Gi}}, pod: {{resources: {{limits: {limits}}}}}}}");
            let session = validate(&fixtures::session(&spec), &fixtures::settings()).unwrap();
            stage(&session, session.stage.unwrap())
        };
        assert_eq!(staged("{memory: 4Gi}"), 20 << 30);
        assert_eq!(staged("{ephemeral-storage: 30Gi}"), 20 << 30);
        assert_eq!(staged("{ephemeral-storage: 10Gi}"), 9 << 30);
        assert_eq!(staged("{ephemeral-storage: 100}"), 90);
    }

    #[test]
    fn defaults_never_contradict_what_the_session_names() {
        let (requests, limits) = built("pod: {resources: {requests: {cpu: 3}, limits: {cpu: 4, memory: 128Mi}}}");
        assert_eq!((requests["memory"].as_str(), limits["cpu"].as_str()), ("128Mi", "4"));
        let (_, limits) = built("pod: {resources: {requests: {cpu: 3500m}}}");
        assert_eq!(limits["cpu"], "3500m");
    }
}
