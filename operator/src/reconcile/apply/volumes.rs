//! (I/O out) The volume and the claim of an inline NFS source.

use blobferry_crds::names::SESSION_UID_LABEL;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::{Api, Resource, ResourceExt};

use super::Halt;
use crate::{
    api::{self, CallError, Object},
    backoff::Failure,
    context::Context,
    decisions::{build, reasons, validate::ValidSession},
};

/// What to do about the volume and the claim that were found; pure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Make what is missing.
    Complete,
    /// Remove both: they cannot be changed to what is wanted.
    Remove,
    /// Somebody else made the volume.
    VolumeTaken,
    /// Somebody else made the claim.
    ClaimTaken,
}

fn step(
    volume: Option<&PersistentVolume>,
    claim: Option<&PersistentVolumeClaim>,
    wanted: &PersistentVolume,
    session: &ValidSession,
) -> Step {
    let our_volume =
        |it: &PersistentVolume| build::is_managed(&it.metadata) && it.labels().get(SESSION_UID_LABEL) == Some(&session.uid);
    let owned = |it: &PersistentVolumeClaim| it.owner_references().iter().any(|owner| owner.controller == Some(true));
    let our_claim = |it: &PersistentVolumeClaim| build::is_claim_of(it, &session.uid);
    let spent = |it: &PersistentVolume| {
        it.metadata.deletion_timestamp.is_some() || build::volume_differs(it, wanted) || claim_differs(it, claim)
    };
    let lost = |it: &PersistentVolumeClaim| {
        let phase = it.status.as_ref().and_then(|status| status.phase.as_deref());
        it.metadata.deletion_timestamp.is_some() || phase == Some("Lost") || owned(it) != session.owns
    };
    match (volume, claim) {
        (Some(volume), _) if !our_volume(volume) => Step::VolumeTaken,
        (_, Some(claim)) if !our_claim(claim) => Step::ClaimTaken,
        (Some(volume), _) if spent(volume) => Step::Remove,
        (_, Some(claim)) if lost(claim) => Step::Remove,
        _ => Step::Complete,
    }
}

/// Deletes the claim that was made for the session with `uid`, if there is one. Nobody else does if it has no owner.
pub async fn remove_claim(namespace: &str, uid: &str, context: &Context) -> Result<(), CallError> {
    let claims: Api<PersistentVolumeClaim> = api::namespaced(&context.client, namespace);
    let name = build::volume_name(uid);
    match api::get(&claims, &name).await?.filter(|claim| build::is_claim_of(claim, uid)) {
        Some(claim) => api::delete(&claims, &name, &claim.uid().unwrap_or_default(), None).await,
        None => Ok(()),
    }
}

/// Whether the volume was bound to another claim than the one that is there now; such a volume is never bound again.
fn claim_differs(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> bool {
    let bound = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()?.uid.clone());
    bound.is_some_and(|bound| claim.and_then(ResourceExt::uid).as_ref() != Some(&bound))
}

/// Makes the volume and the claim of `session`, if its source is an export.
pub(super) async fn ensure_volumes(session: &ValidSession, context: &Context) -> Result<(), Halt> {
    let (Some(wanted), Some(wanted_claim)) = (build::volume(session), build::volume_claim(session)) else { return Ok(()) };
    let name = build::volume_name(&session.uid);
    let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
    let claims: Api<PersistentVolumeClaim> = api::namespaced(&context.client, &session.namespace);
    let (volume, claim) = (api::get(&volumes, &name).await?, api::get(&claims, &name).await?);
    match step(volume.as_ref(), claim.as_ref(), &wanted, session) {
        Step::VolumeTaken => Err(Halt::name_taken(&format!("The PersistentVolume {name}"))),
        Step::ClaimTaken => Err(Halt::name_taken(&format!("The PersistentVolumeClaim {name}"))),
        Step::Remove => {
            remove(&claims, claim.as_ref()).await?;
            remove(&volumes, volume.as_ref()).await?;
            Err(Halt::Leaving(leaving(claim.as_ref(), volume.as_ref())))
        }
        Step::Complete => {
            if volume.is_none() {
                create(&volumes, &wanted).await?;
            }
            if claim.is_none() {
                create(&claims, &wanted_claim).await?;
            }
            Ok(())
        }
    }
}

async fn remove<K: Object>(objects: &Api<K>, object: Option<&K>) -> Result<(), CallError> {
    let Some(meta) = object.map(Resource::meta).filter(|meta| meta.deletion_timestamp.is_none()) else { return Ok(()) };
    api::delete(objects, meta.name.as_deref().unwrap_or_default(), meta.uid.as_deref().unwrap_or_default(), None).await
}

/// What people are told if a claim or a volume that has to be made anew does not go.
fn leaving(claim: Option<&PersistentVolumeClaim>, volume: Option<&PersistentVolume>) -> Failure {
    let (reason, kind, meta) = match (claim, volume) {
        (None, Some(volume)) => (reasons::VOLUME_TERMINATING, "PersistentVolume", Some(&volume.metadata)),
        _ => (reasons::CLAIM_TERMINATING, "PersistentVolumeClaim", claim.map(|claim| &claim.metadata)),
    };
    let name = meta.and_then(|meta| meta.name.as_deref()).unwrap_or_default();
    let finalizers = meta.and_then(|meta| meta.finalizers.as_deref()).unwrap_or_default().join(", ");
    let message = format!(
        "The {kind} {name} has to be made anew and does not go: its finalizers {finalizers} hold it. End the pods that use it \
         (`kubectl describe` lists them), or see to whoever has set the other finalizers; the session starts by itself then."
    );
    Failure { reason, message }
}

async fn create<K: Object>(objects: &Api<K>, object: &K) -> Result<(), Halt> {
    match api::create(objects, object).await {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(Halt::Settling),
        Err(error) => Err(Halt::refused(reasons::VOLUME_REFUSED, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{decisions::validate::validate, fixtures};

    fn session() -> ValidSession {
        validate(&fixtures::nfs_session(), &fixtures::settings()).unwrap()
    }

    fn decide(change: impl FnOnce(&mut PersistentVolume, &mut PersistentVolumeClaim)) -> Step {
        let session = session();
        let wanted = build::volume(&session).unwrap();
        let (mut volume, mut claim) = (wanted.clone(), build::volume_claim(&session).unwrap());
        claim.metadata.uid = Some("claim-1".into());
        volume.spec.as_mut().unwrap().claim_ref.as_mut().unwrap().uid = Some("claim-1".into());
        change(&mut volume, &mut claim);
        step(Some(&volume), Some(&claim), &wanted, &session)
    }

    #[test]
    fn bound_volume_and_claim_are_left_alone_and_missing_ones_made() {
        assert_eq!(decide(|_, _| ()), Step::Complete);
        let session = session();
        assert_eq!(step(None, None, &build::volume(&session).unwrap(), &session), Step::Complete);
    }

    #[test]
    fn changed_mount_options_replace_both() {
        assert_eq!(decide(|volume, _| volume.spec.as_mut().unwrap().mount_options = Some(vec!["hard".into()])), Step::Remove);
    }

    #[test]
    fn volume_of_an_earlier_claim_and_lost_claims_are_replaced() {
        assert_eq!(decide(|_, claim| claim.metadata.uid = Some("claim-2".into())), Step::Remove);
        assert_eq!(decide(|_, claim| claim.status = Some(serde_json::from_str(r#"{"phase": "Lost"}"#).unwrap())), Step::Remove);
    }

    #[test]
    fn claim_whose_owner_does_not_fit_the_deletion_policy_is_replaced() {
        assert_eq!(decide(|_, claim| claim.metadata.owner_references = None), Step::Remove);
    }

    #[test]
    fn what_somebody_else_made_is_never_adopted() {
        assert_eq!(decide(|volume, _| volume.metadata.labels = None), Step::VolumeTaken);
        assert_eq!(decide(|_, claim| claim.metadata.labels = None), Step::ClaimTaken);
        assert_eq!(decide(|_, claim| claim.spec.as_mut().unwrap().volume_name = Some("other".into())), Step::ClaimTaken);
        assert_eq!(decide(|_, claim| claim.metadata.owner_references.as_mut().unwrap()[0].uid = "other".into()), Step::ClaimTaken);
    }
}
