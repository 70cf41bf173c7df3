//! Where a session or a pod is, in one text, because thousands of them must fit into little memory.

use std::{fmt, sync::Arc};

use kube::{Resource, ResourceExt};

/// Namespace and name of an object; neither has a slash.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place(Arc<str>);

impl Place {
    /// The object `name` in `namespace`.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}").into())
    }

    /// Where `object` is.
    pub fn of(object: &impl Resource) -> Self {
        Self::new(&object.namespace().unwrap_or_default(), &object.name_any())
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, name)| name)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
