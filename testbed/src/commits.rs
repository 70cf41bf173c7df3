//! How often the storage emulator was made to commit a blob, by its log of requests.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

/// Requests that commit one blob.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Commits {
    /// Those that succeeded.
    pub(crate) succeeded: usize,
    /// Those whose sender was gone before the answer: each may have succeeded or not.
    pub(crate) unanswered: usize,
}

/// The commits of blobs in one container, by the blob's name: whole blobs
/// ([Put Blob](https://learn.microsoft.com/rest/api/storageservices/put-blob)) and lists of blocks
/// ([Put Block List](https://learn.microsoft.com/rest/api/storageservices/put-block-list)).
pub(crate) fn commits(log: &str, container: &str) -> BTreeMap<String, Commits> {
    let mut all = BTreeMap::<String, Commits>::new();
    for (name, status) in log.lines().filter_map(|line| commit(line, container)) {
        let commits = all.entry(name).or_default();
        commits.succeeded += usize::from(status == "201");
        commits.unanswered += usize::from(status == "-");
    }
    all
}

/// The blob that the request of this line is to commit, and the status of the answer, like
/// `... "PUT /account/container/a.dat?comp=blocklist HTTP/1.1" 201 -`.
fn commit<'a>(line: &'a str, container: &str) -> Option<(String, &'a str)> {
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
    let status = answer.split_whitespace().next()?;
    (method == "PUT" && is_commit).then(|| (percent_decode_str(name).decode_utf8_lossy().into_owned(), status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_commits_of_blobs_of_the_container_count() {
        let line =
            |request: &str, code: u16| format!("198.18.0.9 - - [27/Nov/2026:03:44:00 +0000] \"{request} HTTP/1.1\" {code} -\n");
        let unanswered = |request: &str| line(request, 0).replace("\" 0 -", "\" - -");
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
            unanswered("PUT /devstoreaccount1/c/20261127/s/a%20b.dat?comp=blocklist"),
        ]
        .concat();
        let found = commits(&log, "c");
        let counts = |succeeded, unanswered| Commits { succeeded, unanswered };
        assert_eq!(found, [("20261127/s/a b.dat".into(), counts(1, 1)), ("20261127/s/small.dat".into(), counts(2, 0))].into());
    }
}
