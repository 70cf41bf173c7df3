//! The XML of List Blobs, with `prefix` and `delimiter`, in one page. (pure)

use std::collections::{BTreeMap, BTreeSet};

use quick_xml::escape::escape;

use crate::{
    account::{Slot, Version},
    call::Call,
};

/// Writes the list of the blobs that the call asks for.
pub(crate) fn write(call: &Call, blobs: &BTreeMap<String, Slot>) -> String {
    let (prefix, delimiter) = (call.parameter("prefix").unwrap_or_default(), call.parameter("delimiter").unwrap_or_default());
    let (mut items, mut folders) = (String::new(), BTreeSet::new());
    for (name, slot) in blobs.iter().filter(|(name, _)| name.starts_with(prefix)) {
        let Some(version) = slot.current() else { continue };
        let folder = name[prefix.len()..].split_once(delimiter).filter(|_| !delimiter.is_empty()).map(|(folder, _)| folder);
        if let Some(folder) = folder {
            folders.insert(format!("{prefix}{folder}{delimiter}"));
            continue;
        }
        items += &blob_element(name, version);
    }
    let folder = |folder: String| format!("<BlobPrefix><Name>{}</Name></BlobPrefix>", escape(folder.as_str()));
    let items = folders.into_iter().map(folder).fold(items, |all, folder| all + &folder);
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults><Blobs>{items}</Blobs><NextMarker/></EnumerationResults>"
    )
}

fn blob_element(name: &str, version: &Version) -> String {
    format!(
        "<Blob><Name>{}</Name><Properties><Last-Modified>{}</Last-Modified><Etag>{}</Etag><Content-Length>{}</Content-Length>\
         <Content-Type>{}</Content-Type><BlobType>BlockBlob</BlobType><AccessTier>Hot</AccessTier></Properties></Blob>",
        escape(name),
        httpdate::fmt_http_date(version.written),
        version.etag.trim_matches('"'),
        version.size,
        escape(version.content_type.as_str()),
    )
}
