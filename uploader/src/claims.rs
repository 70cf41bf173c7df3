//! What a session has below the processing folder, of every date: `DATE/SESSION/[FOLDERS/]NAME`, with FOLDERS those in which the
//! producer had the file.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    formats::{ProcessingName, State},
    session::Folders,
    share::{Entry, Kind, Listing, Share, ShareResult, join},
};

/// Deepest folder below a session's that is looked into, here and in the incoming folder.
pub const DEPTH: usize = 32;

/// A name of ours below the processing folder.
#[derive(Clone, Debug)]
pub struct Found {
    /// The date, `YYYYMMDD`.
    pub date: String,
    /// The folder it is in.
    pub folder: PathBuf,
    /// The same folder as seen from the session's; empty for most.
    pub below: PathBuf,
    /// Its name there.
    pub name: ProcessingName,
}

impl Found {
    /// Where it is.
    pub fn path(&self) -> PathBuf {
        join(&self.folder, &self.name.to_bytes())
    }

    /// The producer's name with its folders: where it was in the incoming folder.
    pub fn producer(&self) -> Vec<u8> {
        join(&self.below, &self.name.producer).into_os_string().into_encoded_bytes()
    }
}

/// All of a session.
#[derive(Debug, Default)]
pub struct All {
    /// Names of ours.
    pub found: Vec<Found>,
    /// How many names are not ours.
    pub foreign: u64,
    /// Empty folders, with their date; true for those that belong to a date as a whole.
    pub empty: Vec<(String, PathBuf, bool)>,
}

/// Looks at all folders of the session.
pub async fn find<S: Share>(share: &S, folders: &Folders) -> ShareResult<All> {
    let mut all = All::default();
    for date in dates(share, folders).await? {
        let root = folders.claims(&date);
        let (mut pending, mut named_like_claims) = (vec![PathBuf::new()], Vec::new());
        while let Some(below) = pending.pop() {
            let folder = if below.as_os_str().is_empty() { root.clone() } else { root.join(&below) };
            let entries = match list_all(share, &folder).await {
                Err(error) if error.is_absent() || error.kind() == io::ErrorKind::NotADirectory => continue,
                entries => entries?,
            };
            if entries.is_empty() {
                all.empty.push((date.clone(), folder.clone(), below.as_os_str().is_empty()));
            }
            for entry in entries {
                match sort(share, &folder, &entry).await? {
                    Sorted::Ours(name) => {
                        all.found.push(Found { date: date.clone(), folder: folder.clone(), below: below.clone(), name });
                    }
                    Sorted::Folder if below.components().count() < DEPTH => {
                        if let Some(name) = ProcessingName::parse(&entry.name).filter(|name| name.state == State::Claimed) {
                            named_like_claims.push(Found {
                                date: date.clone(),
                                folder: folder.clone(),
                                below: below.clone(),
                                name,
                            });
                        }
                        pending.push(join(&below, &entry.name));
                    }
                    Sorted::Folder | Sorted::Foreign => all.foreign += 1,
                }
            }
        }
        all.add_claimed_folders(named_like_claims);
    }
    Ok(all)
}

impl All {
    /// A folder that took the name of a file before its claim was claimed itself. One that only has the name of a claim, because its producer
    /// gave it such a name, holds claims or nothing.
    fn add_claimed_folders(&mut self, named_like_claims: Vec<Found>) {
        for folder in named_like_claims {
            let path = folder.path();
            let holds_claims = self.found.iter().any(|file| file.folder.starts_with(&path));
            if !holds_claims && self.empty.iter().all(|(_, empty, _)| !empty.starts_with(&path)) {
                self.found.push(folder);
            }
        }
    }
}

enum Sorted {
    Ours(ProcessingName),
    Folder,
    Foreign,
}

async fn sort<S: Share>(share: &S, folder: &Path, entry: &Entry) -> ShareResult<Sorted> {
    let name = ProcessingName::parse(&entry.name);
    Ok(match (entry.kind, name) {
        (Kind::Folder, _) => Sorted::Folder,
        (Kind::File | Kind::Unknown, Some(name)) => Sorted::Ours(name),
        // Some file systems do not say in a listing what is a folder.
        (Kind::Unknown, None) => match share.attributes(&join(folder, &entry.name)).await {
            Ok(attributes) if attributes.kind == Kind::Folder => Sorted::Folder,
            Err(error) if !error.is_absent() => return Err(error),
            _ => Sorted::Foreign,
        },
        (Kind::File | Kind::Special, _) => Sorted::Foreign,
    })
}

/// The dates of which there are folders of any session.
async fn dates<S: Share>(share: &S, folders: &Folders) -> ShareResult<Vec<String>> {
    let entries = list_all(share, &folders.processing).await?;
    let is_date = |name: &str| name.len() == 8 && name.bytes().all(|byte| byte.is_ascii_digit());
    Ok(entries.into_iter().filter_map(|entry| String::from_utf8(entry.name.into()).ok()).filter(|name| is_date(name)).collect())
}

async fn list_all<S: Share>(share: &S, folder: &Path) -> ShareResult<Vec<Entry>> {
    let mut listing = share.list(folder).await?;
    let mut all = Vec::new();
    while let Some(entries) = listing.next().await? {
        all.extend(entries);
    }
    Ok(all)
}
