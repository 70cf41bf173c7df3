//! (I/O out) The volume and the claim of an inline NFS source.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::{Api, Resource, ResourceExt};

use super::Halt;
use crate::{
    api::{self, CallError, Object},
    context::Context,
    decisions::{
        build, reasons,
        validate::ValidSession,
        volumes::{Step, leaving, step},
    },
};

/// Deletes the claim that was made for the session with `uid`, if there is one. Nobody else does if it has no owner.
pub async fn remove_claim(namespace: &str, uid: &str, context: &Context) -> Result<(), CallError> {
    let claims: Api<PersistentVolumeClaim> = api::namespaced(&context.client, namespace);
    let name = build::volume_name(uid);
    match api::get(&claims, &name).await?.filter(|claim| build::is_claim_of(claim, uid)) {
        Some(claim) => api::delete(&claims, &name, &claim.uid().unwrap_or_default(), None).await,
        None => Ok(()),
    }
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

async fn create<K: Object>(objects: &Api<K>, object: &K) -> Result<(), Halt> {
    match api::create(objects, object).await {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(Halt::Settling),
        Err(error) => Err(Halt::refused(reasons::VOLUME_REFUSED, error)),
    }
}
