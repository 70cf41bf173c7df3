//! (pure) Whether the volume and the claim of an inline NFS source are as they are wanted.

use blobferry_crds::names::SESSION_UID_LABEL;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;

use super::{build, reasons, validate::ValidSession};
use crate::backoff::Failure;

/// What to do about the volume and the claim that were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make what is missing.
    Complete,
    /// Remove both: they cannot be changed to what is wanted.
    Remove,
    /// Somebody else made the volume.
    VolumeTaken,
    /// Somebody else made the claim.
    ClaimTaken,
}

/// What to do about `volume` and `claim`, which were found where `session` wants a volume like `wanted`.
pub fn step(
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

/// Whether the volume was bound to another claim than the one that is there now; such a volume is never bound again.
fn claim_differs(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> bool {
    let bound = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()?.uid.clone());
    bound.is_some_and(|bound| claim.and_then(ResourceExt::uid).as_ref() != Some(&bound))
}

/// What people are told if a claim or a volume that has to be made anew does not go.
pub fn leaving(claim: Option<&PersistentVolumeClaim>, volume: Option<&PersistentVolume>) -> Failure {
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
