//! The two requests: read the status, and apply our part of it.

use std::{fmt, time::Duration};

use blobferry_crds::{GROUP, Progress, UploadSession, VERSION, names::UPLOADER_MANAGER};
use kube::{
    Api, Client,
    api::{ApiResource, Patch, PatchParams},
    core::Object,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Answer, Report};
use crate::args::SessionObject;

/// How long one request may take.
const CALL: Duration = Duration::from_secs(15);

/// The session as far as the uploader must understand it: a newer version's spec or condition is no reason to fall silent.
type Session = Object<Value, StatusSeen>;

/// What is read of the status.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct StatusSeen {
    progress: Option<Progress>,
    report_interval: Option<u32>,
}

/// A session that has the UID it must have.
#[derive(Clone, Debug)]
pub(super) struct Seen(Session);

impl Seen {
    /// The version that it is at.
    pub(super) fn resource_version(&self) -> Option<String> {
        self.0.metadata.resource_version.clone()
    }

    /// The counters in the status.
    pub(super) fn progress(&self) -> Option<Progress> {
        self.0.status.as_ref()?.progress.clone()
    }

    /// Time between two reports, as the operator divides it among all sessions.
    pub(super) fn report_interval(&self) -> Option<Duration> {
        self.0.status.as_ref()?.report_interval.map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// What the core is told.
    pub(super) fn answer(&self) -> Answer {
        let counted_through = self.progress().and_then(|progress| progress.counted_through);
        Answer { counted_through, generation: self.0.metadata.generation, spec: self.0.spec.clone() }
    }
}

/// Why a request did not do what it should, by what follows from it.
#[derive(Debug)]
pub(super) enum Trouble {
    /// There is no such session any more.
    Gone,
    /// Somebody else has written: read, and try again.
    Conflict,
    /// Try again later.
    Failed(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "the session is gone",
            Self::Conflict => "others write faster",
            Self::Failed(problem) => problem,
        })
    }
}

/// The status of one session.
#[derive(Clone, Debug)]
pub(super) struct SessionStatus {
    api: Api<Session>,
    object: SessionObject,
}

impl SessionStatus {
    pub(super) fn new(client: Client, object: SessionObject) -> Self {
        let resource = ApiResource::erase::<UploadSession>(&());
        Self { api: Api::namespaced_with(client, &object.namespace, &resource), object }
    }

    /// The session as it is now.
    pub(super) async fn read(&self) -> Result<Seen, Trouble> {
        self.ours(timeout(CALL, self.api.get_status(&self.object.name)).await)
    }

    /// Applies the uploader's part of the status; fails if the object is not at `resource_version` any more.
    pub(super) async fn apply(&self, report: &Report, resource_version: Option<&str>) -> Result<Seen, Trouble> {
        let body = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "UploadSession",
            "metadata": {"name": self.object.name, "resourceVersion": resource_version},
            "status": {"progress": report.progress, "activity": report.activity},
        });
        let how = PatchParams::apply(UPLOADER_MANAGER).force();
        self.ours(timeout(CALL, self.api.patch_status(&self.object.name, &how, &Patch::Apply(body))).await)
    }

    fn ours(&self, reply: Result<kube::Result<Session>, tokio::time::error::Elapsed>) -> Result<Seen, Trouble> {
        let session = match reply {
            Err(_) => return Err(Trouble::Failed(format!("the API server does not answer within {} s", CALL.as_secs()))),
            Ok(Err(error)) => return Err(trouble(&error)),
            Ok(Ok(session)) => session,
        };
        if session.metadata.uid.as_deref() == Some(self.object.uid.as_str()) { Ok(Seen(session)) } else { Err(Trouble::Gone) }
    }
}

fn trouble(error: &kube::Error) -> Trouble {
    match error {
        kube::Error::Api(status) if status.code == 404 => Trouble::Gone,
        kube::Error::Api(status) if status.code == 409 => Trouble::Conflict,
        kube::Error::Api(status) => Trouble::Failed(format!("{} {}", status.code, status.message)),
        error => Trouble::Failed(error.to_string()),
    }
}
