//! Which names are taken and which are left alone, by name only. (pure)

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

use globset::{Glob, GlobSet, GlobSetBuilder};

/// Names that are never a producer's: what NFS clients make of files that are deleted while open ("silly rename"), and our own.
const NEVER: [&[u8]; 2] = [b".nfs", b".blobferry-"];

/// The rules of a session.
#[derive(Clone, Debug)]
pub struct Filter {
    extensions: Vec<Vec<u8>>,
    ignore: GlobSet,
}

impl Filter {
    /// The rules made of extensions (with or without the dot, any case; none means all files) and globs of ignored names.
    pub fn new(extensions: &[String], ignore: &[String]) -> Result<Self, globset::Error> {
        let mut globs = GlobSetBuilder::new();
        for pattern in ignore {
            globs.add(Glob::new(pattern)?);
        }
        let extensions = extensions.iter().map(|text| format!(".{}", text.trim_start_matches('.')).to_lowercase().into_bytes());
        Ok(Self { extensions: extensions.collect(), ignore: globs.build()? })
    }

    /// True if a folder of this name is entered.
    pub fn enters(&self, name: &[u8]) -> bool {
        !NEVER.iter().any(|start| name.starts_with(start)) && !self.ignore.is_match(Path::new(OsStr::from_bytes(name)))
    }

    /// True if a file of this name is taken.
    pub fn takes(&self, name: &[u8]) -> bool {
        let wanted = || {
            let name = lower_case(name);
            self.extensions.is_empty() || self.extensions.iter().any(|extension| name.ends_with(extension))
        };
        self.enters(name) && wanted()
    }
}

/// A name that is no UTF-8 has no other case but that of its ASCII letters.
fn lower_case(name: &[u8]) -> Vec<u8> {
    std::str::from_utf8(name).map_or_else(|_| name.to_ascii_lowercase(), |name| name.to_lowercase().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(extensions: &[&str], ignore: &[&str]) -> Filter {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        Filter::new(&owned(extensions), &owned(ignore)).unwrap()
    }

    #[test]
    fn extensions_match_with_or_without_dot_in_any_case() {
        let filter = filter(&["bin", ".TAR.gz", "MÜL"], &[]);
        for name in ["a.bin", "a.BIN", "x.tar.GZ", "a.MÜL", "a.mül"] {
            assert!(filter.takes(name.as_bytes()), "{name}");
        }
        assert!(filter.takes(b"\xff.BIN"));
        for name in ["abin", "a.gz", "a.bin.part"] {
            assert!(!filter.takes(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn default_rules_ignore_hidden_and_temporary_names_only() {
        let filter = filter(&[], &[".*", "*.tmp", "*.part", "*.partial", "*~"]);
        for name in [".a.dat.Xy12", "a.tmp", "a.partial", "a~"] {
            assert!(!filter.takes(name.as_bytes()), "{name}");
        }
        for name in ["a.dat", "x.completed", "-a", "a b", "tmp"] {
            assert!(filter.takes(name.as_bytes()), "{name}");
        }
        assert!(filter.takes(b"\xff\xfe"));
    }

    #[test]
    fn names_of_nfs_and_our_own_are_left_alone_whatever_the_rules_say() {
        assert!(!filter(&[], &[]).takes(b".blobferry-probe.0"));
        assert!(!filter(&[], &[]).takes(b".nfs000000000000001a00000001"));
    }
}
