//! (pure) The folders that a session works in, and which of several sessions may work in the same ones.

pub mod index;
pub mod map;

use blobferry_crds::UploadSession;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::export::Export;
use crate::settings::components;
use index::InArea;

/// The folders of one session on its share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Area {
    /// What is mounted; folders of different shares never meet as far as the API can tell.
    pub share: ShareKey,
    /// The folder that producers write to, the session's name included.
    pub incoming: Folder,
    /// The folder that holds claimed files of all sessions.
    pub processing: Folder,
    /// Name of the session, which is its folder's below each date in `processing`.
    pub session: String,
}

/// A folder of a share. It is written as the list of its components, and kept as one text, because thousands are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder(Box<str>);

impl Folder {
    /// The folder with these components.
    pub fn of<'a>(parts: impl Iterator<Item = &'a str>) -> Self {
        Self(parts.collect::<Vec<_>>().join("/").into())
    }

    /// Its components.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        components(&self.0)
    }

    /// The components before those of `end`, if it ends with them.
    fn without(&self, end: &Self) -> Option<Vec<&str>> {
        let (mut parts, end): (Vec<_>, Vec<_>) = (self.parts().collect(), end.parts().collect());
        parts.ends_with(&end).then(|| {
            parts.truncate(parts.len() - end.len());
            parts
        })
    }
}

impl Serialize for Folder {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.parts())
    }
}

impl<'de> Deserialize<'de> for Folder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parts = Vec::<String>::deserialize(deserializer)?;
        Ok(Self::of(parts.iter().map(String::as_str)))
    }
}

/// What the API knows of the identity of a share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ShareKey {
    /// A claim, by namespace and name.
    Claim(String, String),
    /// An NFS server in lower case; the exported path is part of the folders, so that nested exports meet.
    Server(String),
}

impl Area {
    /// The folders of session `session` on `share`, whose root is the folder `root` of what the key names.
    pub fn new(share: ShareKey, root: &str, incoming: &str, processing: &str, session: &str) -> Self {
        let below = |path| components(root).chain(components(path));
        Self {
            share,
            incoming: Folder::of(below(incoming).chain([session])),
            processing: Folder::of(below(processing)),
            session: session.to_owned(),
        }
    }

    /// The same folders of a claim that leads to `export`.
    #[must_use]
    pub fn on(self, export: &Export) -> Self {
        Self {
            share: ShareKey::Server(export.server.clone()),
            incoming: Folder::of(below(&export.path, &self.incoming)),
            processing: Folder::of(below(&export.path, &self.processing)),
            session: self.session,
        }
    }

    /// The export that the claim of `claimed` leads to, if these are the same folders on a server.
    pub fn export_of(&self, claimed: &Self) -> Option<Export> {
        let ShareKey::Server(server) = &self.share else { return None };
        let root = self.incoming.without(&claimed.incoming)?;
        let same = self.session == claimed.session && self.processing.without(&claimed.processing)? == root;
        same.then(|| Export { server: server.clone(), path: format!("/{}", root.join("/")) })
    }

    /// Whether two sessions would meet each other's files.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.share == other.share && self.meets_from("", other)
    }

    /// Whether something below the folder `root` of this share may meet these folders.
    pub fn is_near(&self, root: &str) -> bool {
        [&self.incoming, &self.processing].into_iter().any(|folder| nested(components(root), folder.parts()))
    }

    /// Whether these folders, below the folder `root` of the share of the other ones, meet those.
    pub fn meets_from(&self, root: &str, other: &Self) -> bool {
        let (incoming, processing) = (|| below(root, &self.incoming), || below(root, &self.processing));
        nested(incoming(), below("", &other.incoming))
            || nested(incoming(), below("", &other.processing))
            || nested(processing(), below("", &other.incoming))
            || if processing().eq(below("", &other.processing)) {
                self.session == other.session
            } else {
                nested(processing(), below("", &other.processing))
            }
    }
}

fn below<'a>(root: &'a str, folder: &'a Folder) -> impl Iterator<Item = &'a str> {
    components(root).chain(folder.parts())
}

/// Whether one of two folders is inside the other, or both are the same.
fn nested<'a>(one: impl Iterator<Item = &'a str>, two: impl Iterator<Item = &'a str>) -> bool {
    one.zip(two).all(|(one, two)| one == two)
}

/// How much a session has to do with its folders by now. Who came into them keeps them when its pod is lost, or two sessions of one
/// second would take turns with every pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It has a pod, or had one until a moment ago.
    Holds,
    /// Its uploader has run before.
    Returns,
    /// It is new.
    Comes,
}

impl Standing {
    /// Where `session` stands, as its status says.
    pub fn of(session: &UploadSession) -> Self {
        match &session.status {
            Some(status) if status.pod_uid.is_some() => Self::Holds,
            Some(status) if status.start_time.is_some() => Self::Returns,
            _ => Self::Comes,
        }
    }
}

/// A session that wants folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// How much it has to do with them by now.
    pub standing: Standing,
    /// When its object was made.
    pub created: Timestamp,
    /// UID of its object.
    pub uid: String,
    /// Namespace of its object.
    pub namespace: String,
    /// Name of its object.
    pub name: String,
    /// The folders.
    pub area: Area,
}

impl Claimant {
    /// Of several that want the same folders, the least goes first.
    fn order(&self) -> (Standing, Timestamp, &str) {
        (self.standing, self.created, &self.uid)
    }
}

impl InArea for Claimant {
    fn area(&self) -> Option<&Area> {
        Some(&self.area)
    }
}

/// Who works in a session's folders instead of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// Its name, unless it lives in another namespace, of which a person here may know nothing.
    pub name: Option<String>,
    /// When its pod should have been gone, if it is being deleted.
    pub gone_by: Option<Timestamp>,
}

impl Rival {
    fn seen_by(me: &Claimant, namespace: &str, name: &str) -> Self {
        Self { name: (me.namespace == namespace).then(|| name.to_owned()), gone_by: None }
    }
}

/// A pod that works in folders, or is about to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupant<'a> {
    /// UID of the session for which it was made; that session may be gone.
    pub session_uid: &'a str,
    /// Namespace of the pod.
    pub namespace: &'a str,
    /// Name of the session for which it was made.
    pub session: &'a str,
    /// The folders.
    pub area: &'a Area,
    /// When the pod should be gone, if it is being deleted.
    pub gone_by: Option<Timestamp>,
}

/// The one that `me`, which has no pod, has to wait for: whoever has a pod, else whoever had it, else the oldest that wants to run.
pub fn rival<'a>(
    me: &Claimant,
    occupants: impl IntoIterator<Item = Occupant<'a>>,
    claimants: impl IntoIterator<Item = Claimant>,
) -> Option<Rival> {
    if let Some(pod) = occupants.into_iter().find(|pod| pod.session_uid != me.uid && pod.area.overlaps(&me.area)) {
        return Some(Rival { gone_by: pod.gone_by, ..Rival::seen_by(me, pod.namespace, pod.session) });
    }
    claimants
        .into_iter()
        .filter(|other| other.uid != me.uid && other.area.overlaps(&me.area))
        .find(|other| other.order() < me.order())
        .map(|other| Rival::seen_by(me, &other.namespace, &other.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> ShareKey {
        ShareKey::Claim("cameras".into(), "share".into())
    }

    fn area(incoming: &str, processing: &str, session: &str) -> Area {
        Area::new(claim(), "", incoming, processing, session)
    }

    fn claimant(second: i64, uid: &str, namespace: &str) -> Claimant {
        Claimant {
            standing: Standing::Comes,
            created: Timestamp::from_second(second).unwrap(),
            uid: uid.into(),
            namespace: namespace.into(),
            name: format!("name-{uid}"),
            area: area("incoming", ".processing", "truck"),
        }
    }

    #[test]
    fn folders_are_written_as_lists_of_their_components() {
        let area = Area::new(ShareKey::Server("nas".into()), "/srv", "incoming/", ".processing", "truck");
        let text = serde_json::to_string(&area).unwrap();
        assert_eq!(
            text,
            r#"{"share":{"server":"nas"},"incoming":["srv","incoming","truck"],"processing":["srv",".processing"],"session":"truck"}"#
        );
        assert_eq!(serde_json::from_str::<Area>(&text).unwrap(), area);
    }

    #[test]
    fn sessions_of_one_share_meet_in_equal_and_nested_folders() {
        let one = area("incoming", ".processing", "truck");
        for (incoming, processing, session) in [
            ("incoming", ".processing", "truck"),
            ("incoming", ".other", "truck"),
            ("elsewhere", ".processing", "truck"),
            ("incoming/truck", ".other", "inner"),
            ("elsewhere", ".processing/nested", "car"),
        ] {
            let other = area(incoming, processing, session);
            assert!(one.overlaps(&other) && other.overlaps(&one), "{incoming} {processing} {session}");
        }
    }

    #[test]
    fn sessions_with_folders_side_by_side_do_not_meet() {
        let one = area("incoming", ".processing", "truck");
        for (incoming, processing, session) in
            [("incoming", ".processing", "car"), ("incoming", ".processing", "truck-7"), ("in", ".p", "truck")]
        {
            assert!(!one.overlaps(&area(incoming, processing, session)), "{incoming} {processing} {session}");
        }
        let elsewhere = ShareKey::Claim("cameras".into(), "share2".into());
        assert!(!one.overlaps(&Area::new(elsewhere, "", "incoming", ".processing", "truck")));
    }

    #[test]
    fn exports_of_one_server_meet_where_one_is_inside_the_other() {
        let nas = || ShareKey::Server("nas".into());
        let outer = Area::new(nas(), "/srv", "data/incoming", ".processing", "truck");
        assert!(outer.overlaps(&Area::new(nas(), "/srv/data/", "incoming", ".p", "truck")));
        assert!(!outer.overlaps(&Area::new(nas(), "/srv/other", "incoming", ".p", "truck")));
    }

    #[test]
    fn export_of_a_claim_is_what_the_folders_of_a_pod_are_below() {
        let claimed = area("data/incoming", ".", "truck");
        for path in ["/srv/drop", "/"] {
            let export = Export { server: "nas".into(), path: path.into() };
            assert_eq!(claimed.clone().on(&export).export_of(&claimed), Some(export));
        }
        let on_server =
            |incoming, processing, session| Area::new(ShareKey::Server("nas".into()), "/srv", incoming, processing, session);
        for other in [
            on_server("elsewhere", ".", "truck"),
            on_server("data/incoming", "below", "truck"),
            on_server("data/incoming", ".", "car"),
            claimed.clone(),
        ] {
            assert_eq!(other.export_of(&claimed), None, "{other:?}");
        }
    }

    #[test]
    fn the_older_session_goes_first_and_uids_decide_within_a_second() {
        let (old, new, twin) = (claimant(1, "b", "cameras"), claimant(2, "a", "cameras"), claimant(1, "c", "cameras"));
        let all = || [old.clone(), new.clone(), twin.clone()];
        assert_eq!(rival(&old, [], all()), None);
        assert_eq!(rival(&twin, [], all()), Some(Rival { name: Some("name-b".into()), gone_by: None }));
        assert!(rival(&new, [], all()).is_some());
    }

    #[test]
    fn whoever_had_the_folders_keeps_them_when_its_pod_is_lost() {
        let old = claimant(1, "old", "cameras");
        let standing = |standing| Claimant { standing, ..claimant(2, "new", "cameras") };
        let (holds, returns) = (standing(Standing::Holds), standing(Standing::Returns));
        for new in [&holds, &returns] {
            assert!(rival(&old, [], [new.clone()]).is_some() && rival(new, [], [old.clone()]).is_none(), "{new:?}");
        }
        let returning = Claimant { standing: Standing::Returns, ..old };
        assert!(rival(&returning, [], [holds]).is_some() && rival(&returning, [], [returns]).is_none());
    }

    #[test]
    fn whoever_has_a_pod_goes_before_an_older_session() {
        let old = claimant(1, "old", "cameras");
        let pod = |session_uid| Occupant {
            session_uid,
            namespace: "cameras",
            session: "holder",
            area: &old.area,
            gone_by: Some(old.created),
        };
        assert_eq!(rival(&old, [pod("gone")], []), Some(Rival { name: Some("holder".into()), gone_by: Some(old.created) }));
        assert_eq!(rival(&old, [pod("old")], []), None);
    }

    #[test]
    fn nothing_of_a_foreign_namespace_is_named() {
        let (old, new) = (claimant(1, "old", "secret"), claimant(2, "new", "cameras"));
        assert_eq!(rival(&new, [], [old]), Some(Rival { name: None, gone_by: None }));
    }
}
