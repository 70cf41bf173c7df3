//! Sessions whose objects' names somebody else has taken: nothing of theirs is used or removed.

use anyhow::Result;
use blobferry_crds::names::UPLOADER_ACCOUNT;
use k8s_openapi::api::{
    core::v1::{Pod, ServiceAccount},
    rbac::v1::RoleBinding,
};
use serde_json::json;

use super::{
    ACCOUNT, BINDING, POD, Row, SESSION,
    scene::Step::{Freed, Made, Taken, Until},
    told::{NAME, pending, stalled},
};
use crate::stage::{Stage, somebodys_pod};

/// An object that somebody else has made under the name of one of ours.
#[derive(Clone, Copy, Debug)]
pub(super) enum Theirs {
    Pod,
    Account,
    Binding,
}

impl Theirs {
    pub(super) async fn make(self, stage: &Stage) -> Result<()> {
        let metadata = json!({"name": UPLOADER_ACCOUNT});
        match self {
            Self::Pod => drop(stage.create::<Pod>(somebodys_pod(&pod())).await?),
            Self::Account => drop(stage.create::<ServiceAccount>(json!({"metadata": metadata})).await?),
            Self::Binding => {
                let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"});
                drop(stage.create::<RoleBinding>(json!({"metadata": metadata, "roleRef": role, "subjects": []})).await?);
            }
        }
        Ok(())
    }

    pub(super) async fn remove(self, stage: &Stage) -> Result<()> {
        match self {
            Self::Pod => stage.delete::<Pod>(&pod()).await,
            Self::Account => stage.delete::<ServiceAccount>(UPLOADER_ACCOUNT).await,
            Self::Binding => stage.delete::<RoleBinding>(UPLOADER_ACCOUNT).await,
        }
    }
}

fn pod() -> String {
    format!("{NAME}-uploader")
}

const LOCATES: &[&str] = &["patch uploadsessions", "get persistentvolumeclaims", "get persistentvolumes"];
const SAYS_SO: &[&str] = &["apply uploadsessions/status", "tell NameTaken"];
const HAS_ACCOUNT: &[&str] = &["get serviceaccounts", "create serviceaccounts"];
const HAS_BINDING: &[&str] = &["get rolebindings", "create rolebindings"];
const HAS_POD: &[&str] = &["create pods", "tell UploaderCreated", "2 apply uploadsessions/status"];
/// It is tried again, less and less often, until it is mended; what is known of the rights is believed for five minutes.
const NO_POD: &[&str] = &[
    "0-2 get serviceaccounts (by the time it takes)",
    "0-2 get rolebindings (likewise)",
    "1-20 create pods (by the time it takes)",
    "1-20 get pods (likewise)",
];
const NO_ACCOUNT: &[&str] = &["1-20 get serviceaccounts (by the time it takes)"];
const NO_BINDING: &[&str] = &["1-20 get serviceaccounts (by the time it takes)", "1-20 get rolebindings (likewise)"];

pub(super) fn rows() -> Vec<Row> {
    let taken = |name, whose, objects, calls| Row {
        name,
        spec: json!({}),
        play: vec![Taken(whose), Made],
        objects,
        conditions: vec![stalled("NameTaken")],
        calls,
    };
    let freed = |name, whose, calls| Row {
        play: vec![Taken(whose), Made, Until("False", "NameTaken"), Freed(whose)],
        conditions: vec![pending("Scheduling")],
        ..taken(name, whose, vec![SESSION, POD, ACCOUNT, BINDING], calls)
    };
    let nobodys = "pod truck-7-uploader of nobody, which no status names";
    vec![
        taken(
            "pod-taken",
            Theirs::Pod,
            vec![SESSION, nobodys, ACCOUNT, BINDING],
            vec![LOCATES, HAS_ACCOUNT, HAS_BINDING, NO_POD, SAYS_SO],
        ),
        freed("pod-freed", Theirs::Pod, vec![LOCATES, HAS_ACCOUNT, HAS_BINDING, NO_POD, SAYS_SO, HAS_POD]),
        taken(
            "account-taken",
            Theirs::Account,
            vec![SESSION, "somebody's account blobferry-uploader"],
            vec![LOCATES, NO_ACCOUNT, SAYS_SO],
        ),
        freed("account-freed", Theirs::Account, vec![LOCATES, NO_ACCOUNT, SAYS_SO, HAS_ACCOUNT, HAS_BINDING, HAS_POD]),
        taken(
            "binding-taken",
            Theirs::Binding,
            vec![SESSION, ACCOUNT, "somebody's binding blobferry-uploader for "],
            vec![LOCATES, &["create serviceaccounts"], NO_BINDING, SAYS_SO],
        ),
        freed(
            "binding-freed",
            Theirs::Binding,
            vec![LOCATES, &["create serviceaccounts"], NO_BINDING, SAYS_SO, HAS_ACCOUNT_AGAIN, HAS_BINDING, HAS_POD],
        ),
    ]
}

/// It is looked at once more, and is there.
const HAS_ACCOUNT_AGAIN: &[&str] = &["get serviceaccounts"];
