//! (I/O out) The account and the binding that the uploaders of a namespace share.

use std::{collections::BTreeSet, time::Duration};

use blobferry_crds::names::UPLOADER_ACCOUNT;
use jiff::Timestamp;
use k8s_openapi::api::{core::v1::ServiceAccount, rbac::v1::RoleBinding};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::Halt;
use crate::{
    api::{self, CallError},
    backoff::Failure,
    context::Context,
    decisions::{build, reasons, validate::ValidSession},
    state::rights::Found,
};

/// How long rights that were found in order are not looked at again, unless a pod is refused or an uploader is silent.
const BELIEVED_FOR: Duration = Duration::from_mins(5);

/// What people are told if those who wait for the rights of a namespace wait for long.
fn unanswered() -> Failure {
    let message = "The API server takes long to answer for the ServiceAccount and the RoleBinding of the namespace's uploaders: look at it \
                   and its webhooks.";
    Failure { reason: reasons::CALL_FAILED, message: message.into() }
}

/// Makes what is missing for the namespace of `session`, and names its account in the binding.
pub(super) async fn ensure_rights(session: &ValidSession, context: &Context, now: Timestamp) -> Result<(), Halt> {
    let rights = context.rights.of(&session.namespace);
    let mut found = rights.take_soon().await.ok_or_else(|| Halt::Leaving(unanswered()))?;
    let mut accounts = context.sessions.accounts(&session.namespace);
    accounts.extend(session.template.service_account_name.clone());
    let is_doubted = rights.take_doubt();
    if found.as_ref().is_some_and(|found| !is_doubted && found.accounts == accounts && now < found.doubted) {
        return Ok(());
    }
    // What is found now counts only if all of it is found.
    *found = None;
    ensure_account(&session.namespace, context).await?;
    ensure_binding(&session.namespace, &accounts, context).await?;
    *found = Some(Found { accounts, doubted: now + BELIEVED_FOR });
    Ok(())
}

/// Whether the account of `session` was made anew after its pod, at `pod_made`: the pod's tokens are of the earlier account, and the
/// API server takes them no more (they are renewed with the new one only after most of an hour).
pub(super) async fn is_account_younger(
    session: &ValidSession,
    pod_made: Option<Timestamp>,
    context: &Context,
) -> Result<bool, CallError> {
    let accounts: Api<ServiceAccount> = api::namespaced(&context.client, &session.namespace);
    let name = session.template.service_account_name.as_deref().unwrap_or(UPLOADER_ACCOUNT);
    let made = api::get(&accounts, name).await?.and_then(|account| account.metadata.creation_timestamp);
    Ok(made.zip(pod_made).is_some_and(|(made, pod_made)| made.0 > pod_made))
}

/// What was found in `namespace` may have changed.
pub(super) fn doubt_rights(namespace: &str, context: &Context) {
    context.rights.of(namespace).doubt();
}

async fn ensure_account(namespace: &str, context: &Context) -> Result<(), Halt> {
    let accounts: Api<ServiceAccount> = api::namespaced(&context.client, namespace);
    match api::get(&accounts, UPLOADER_ACCOUNT).await? {
        Some(found) if build::is_managed(&found.metadata) => Ok(()),
        Some(_) => Err(Halt::name_taken(&format!("The ServiceAccount {UPLOADER_ACCOUNT}"))),
        None => match api::create(&accounts, &build::uploader_account(namespace)).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(Halt::Settling),
            Err(error) => Err(Halt::refused(reasons::ACCOUNT_REFUSED, error)),
        },
    }
}

async fn ensure_binding(namespace: &str, accounts: &BTreeSet<String>, context: &Context) -> Result<(), Halt> {
    let bindings: Api<RoleBinding> = api::namespaced(&context.client, namespace);
    let wanted = build::uploader_binding(namespace, &context.settings.cluster_role, accounts);
    match api::get(&bindings, UPLOADER_ACCOUNT).await? {
        Some(found) if !build::binding_is_ours(&found, &wanted) => {
            Err(Halt::name_taken(&format!("The RoleBinding {UPLOADER_ACCOUNT}")))
        }
        Some(found) => name_subjects(&bindings, &found, wanted, context.sessions.has_unreadable(namespace)).await,
        None => match api::create(&bindings, &wanted).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(Halt::Settling),
            Err(error) => Err(Halt::refused(reasons::BINDING_REFUSED, error)),
        },
    }
}

/// Makes the subjects of our binding those that are wanted, unless it has changed since it was read. It `keeps` those that it has as long
/// as a session of the namespace cannot be read, whose uploader goes on.
async fn name_subjects(bindings: &Api<RoleBinding>, found: &RoleBinding, wanted: RoleBinding, keeps: bool) -> Result<(), Halt> {
    let mut subjects = wanted.subjects.unwrap_or_default();
    if keeps {
        let missing: Vec<_> = found.subjects.iter().flatten().filter(|subject| !subjects.contains(subject)).cloned().collect();
        subjects.extend(missing);
        subjects.sort_by(|one, two| one.name.cmp(&two.name));
    }
    if found.subjects.as_ref() == Some(&subjects) {
        return Ok(());
    }
    let change = json!({"metadata": {"resourceVersion": found.metadata.resource_version}, "subjects": subjects});
    let (params, change) = (PatchParams::default(), Patch::Merge(change));
    let patched = bindings.patch(UPLOADER_ACCOUNT, &params, &change);
    match api::call("name the accounts of the RoleBinding", patched).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_conflict() || error.is_not_found() => Err(Halt::Settling),
        Err(error) => Err(Halt::Call(error)),
    }
}

/// Takes accounts that no session of `namespace` names any more out of its binding.
///
/// False if somebody else is at them: then nothing was done.
pub async fn update_rights(namespace: &str, context: &Context) -> Result<bool, CallError> {
    let rights = context.rights.of(namespace);
    let Some(mut found) = rights.take_soon().await else { return Ok(false) };
    *found = None;
    let bindings: Api<RoleBinding> = api::namespaced(&context.client, namespace);
    let wanted = build::uploader_binding(namespace, &context.settings.cluster_role, &context.sessions.accounts(namespace));
    match api::get(&bindings, UPLOADER_ACCOUNT).await? {
        Some(found) if build::binding_is_ours(&found, &wanted) => {
            match name_subjects(&bindings, &found, wanted, context.sessions.has_unreadable(namespace)).await {
                Err(Halt::Call(error)) => Err(error),
                changed => Ok(changed.is_ok()),
            }
        }
        _ => Ok(true),
    }
}

/// Removes the account and the binding of `namespace`, whose last session is gone; what is not ours stays.
///
/// False if somebody else is at them for long: then nothing was done.
pub async fn remove_rights(namespace: &str, context: &Context) -> Result<bool, CallError> {
    let removed = remove(namespace, context).await;
    context.rights.forget(namespace);
    removed
}

async fn remove(namespace: &str, context: &Context) -> Result<bool, CallError> {
    let rights = context.rights.of(namespace);
    let Some(mut found) = rights.take_soon().await else { return Ok(false) };
    *found = None;
    if context.sessions.exist_in(namespace) {
        return Ok(true);
    }
    let bindings: Api<RoleBinding> = api::namespaced(&context.client, namespace);
    let wanted = build::uploader_binding(namespace, &context.settings.cluster_role, &BTreeSet::new());
    let accounts: Api<ServiceAccount> = api::namespaced(&context.client, namespace);
    let binding = api::get(&bindings, UPLOADER_ACCOUNT).await?.filter(|found| build::binding_is_ours(found, &wanted));
    // Both are read before either is deleted: a leader that is paused in between must not find what its successor has made since.
    let account = api::get(&accounts, UPLOADER_ACCOUNT).await?.filter(|found| build::is_managed(&found.metadata));
    if let Some(uid) = binding.and_then(|binding| binding.metadata.uid) {
        api::delete(&bindings, UPLOADER_ACCOUNT, &uid, None).await?;
    }
    if let Some(uid) = account.and_then(|account| account.metadata.uid) {
        api::delete(&accounts, UPLOADER_ACCOUNT, &uid, None).await?;
    }
    Ok(true)
}
