//! `spec.watch`: which files are taken, and when.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::TextDuration;

/// What is ignored unless the session says otherwise.
pub const DEFAULT_IGNORE: [&str; 5] = [".*", "*.tmp", "*.part", "*.partial", "*~"];

/// Which files are taken, and when.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Watch {
    /// Time between two looks at the folder, 100ms to 1h. The share is polled because NFS tells nobody about new files.
    #[serde(default = "poll_interval")]
    #[x_kube(validation = Rule::new(r"self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('100ms') && duration(self) <= duration('1h')").message("pollInterval is a duration from 100ms to 1h, like 2s"))]
    pub poll_interval: TextDuration,

    /// How long a file must have been seen unchanged before it is taken, 1s to 24h. Make it longer than the longest pause of a
    /// producer in the middle of a file.
    #[serde(default = "min_file_age")]
    #[x_kube(validation = Rule::new(r"self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1s') && duration(self) <= duration('24h')").message("minFileAge is a duration from 1s to 24h, like 5s"))]
    pub min_file_age: TextDuration,

    /// True takes files in folders below the session's too; the path becomes part of the blob's name. Links are not followed, folders whose
    /// name is ignored and folders of other sessions are not entered. At most 32 folders deep.
    #[serde(default)]
    pub recursive: bool,

    /// Extensions of the files that are taken, with or without the dot, upper or lower case, like .mp4, bin or .tar.gz. Empty
    /// means all files. The others are left alone and counted as ignored.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 64)))]
    #[x_kube(validation = Rule::new(r"self.all(extension, extension.matches('^[^/,*?\\s]*[^/,*?\\s.]$'))").message("fileExtensions are like .mp4, bin or .tar.gz: no slash, comma, wildcard or white space, no dot at the end"))]
    pub file_extensions: Vec<String>,

    /// Names that are left alone, with the wildcards * and ?. They are counted as ignored. NFS's own .nfs* files are always ignored.
    #[serde(default = "ignore")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 128)))]
    #[x_kube(validation = Rule::new(r"self.all(glob, glob.matches('^[^/,{}\\[\\]\\\\]+$'))").message("ignore takes names with the wildcards * and ?, like *.tmp: no slash, comma, brace, bracket or backslash"))]
    pub ignore: Vec<String>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            poll_interval: poll_interval(),
            min_file_age: min_file_age(),
            recursive: false,
            file_extensions: Vec::new(),
            ignore: ignore(),
        }
    }
}

fn poll_interval() -> TextDuration {
    "2s".into()
}

fn min_file_age() -> TextDuration {
    "5s".into()
}

fn ignore() -> Vec<String> {
    DEFAULT_IGNORE.map(str::to_owned).to_vec()
}
