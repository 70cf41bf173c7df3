//! How often the storage emulator was made to commit a blob, by its log of requests.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

/// The commits of blobs in one container that succeeded, by the blob's name: whole blobs
/// ([Put Blob](https://learn.microsoft.com/rest/api/storageservices/put-blob)) and lists of blocks
/// ([Put Block List](https://learn.microsoft.com/rest/api/storageservices/put-block-list)).
pub(crate) fn commits(log: &str, container: &str) -> BTreeMap<String, usize> {
    let mut commits = BTreeMap::new();
    for name in log.lines().filter_map(|line| committed(line, container)) {
        *commits.entry(name).or_default() += 1;
    }
    commits
}

/// The blob that the request of this line has committed, like `... "PUT /account/container/a.dat?comp=blocklist HTTP/1.1" 201 -`.
fn committed(line: &str, container: &str) -> Option<String> {
    let mut parts = line.split('"').skip(1);
    let (request, answer) = (parts.next()?, parts.next()?);
    let mut words = request.split(' ');
    let (method, url) = (words.next()?, words.next()?);
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let mut parameters = query.split('&').map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")));
    let is_commit = parameters.all(|(name, value)| match name {
        "comp" => value == "blocklist",
        "restype" => false,
        _ => true,
    });
    let (_account, within) = path.trim_start_matches('/').split_once('/')?;
    let name = within.strip_prefix(container)?.strip_prefix('/')?;
    let succeeded = method == "PUT" && answer.trim_start().starts_with("201 ");
    (succeeded && is_commit).then(|| percent_decode_str(name).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_commits_of_blobs_of_the_container_that_succeeded_count() {
        let line =
            |request: &str, code: u16| format!("198.18.0.9 - - [27/Nov/2026:03:44:00 +0000] \"{request} HTTP/1.1\" {code} -\n");
        let log = [
            line("PUT /devstoreaccount1/c/20261127/s/a%20b.dat?comp=blocklist&timeout=30", 201),
            line("PUT /devstoreaccount1/c/20261127/s/small.dat", 201),
            line("PUT /devstoreaccount1/c/20261127/s/small.dat?sv=x&sig=y%3D", 201),
            line("PUT /devstoreaccount1/c/20261127/s/small.dat", 409),
            line("PUT /devstoreaccount1/c/20261127/s/a%20b.dat?comp=block&blockid=MDA%3D", 201),
            line("PUT /devstoreaccount1/c/20261127/s/a%20b.dat?comp=metadata", 200),
            line("PUT /devstoreaccount1/c?restype=container", 201),
            line("PUT /devstoreaccount1/cc/small.dat", 201),
            line("HEAD /devstoreaccount1/c/20261127/s/small.dat", 200),
        ]
        .concat();
        let found = commits(&log, "c");
        assert_eq!(found, [("20261127/s/a b.dat".to_owned(), 1), ("20261127/s/small.dat".to_owned(), 2)].into());
    }
}
