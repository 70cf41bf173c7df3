#![allow(clippy::unwrap_in_result, reason = "the refusal is what a test looks at")]

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, Method};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::*;

struct Client {
    account: Account,
}

fn client(keep: Keep) -> Client {
    let mut client = Client { account: Account::new(keep, 1000) };
    client.send("PUT", "data?restype=container", &[], "").unwrap();
    client
}

impl Client {
    fn send(&mut self, method: &str, path: &str, headers: &[(&'static str, &str)], body: &str) -> Result<Reply, Refusal> {
        self.send_content(method, path, headers, &Content::of(body))
    }

    fn send_content(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&'static str, &str)],
        content: &Content,
    ) -> Result<Reply, Refusal> {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut map: HeaderMap = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        map.entry("x-ms-version").or_insert("2021-12-02".parse().unwrap());
        let call = Call::parse(&method, &format!("/devstoreaccount1/{path}").parse().unwrap(), map)?;
        self.account.apply(&call, content, SystemTime::UNIX_EPOCH)
    }

    fn put_blob(&mut self, headers: &[(&'static str, &str)], body: &str) -> Result<Reply, Refusal> {
        let mut all = vec![("x-ms-blob-type", "BlockBlob")];
        all.extend(headers);
        self.send("PUT", "data/a", &all, body)
    }

    fn put_block(&mut self, id: &[u8], body: &str) -> Result<Reply, Refusal> {
        self.send("PUT", &format!("data/a?comp=block&blockid={}", encoded(id)), &[], body)
    }

    fn commit(&mut self, list: &str) -> Result<Reply, Refusal> {
        self.send("PUT", "data/a?comp=blocklist", &[], &format!("<BlockList>{list}</BlockList>"))
    }

    fn blocks(&mut self, kind: &str) -> String {
        let reply = self.send("GET", &format!("data/a?comp=blocklist&blocklisttype={kind}"), &[], "").unwrap();
        String::from_utf8(reply.body.to_vec()).unwrap()
    }

    fn content(&mut self) -> Bytes {
        self.send("GET", "data/a", &[], "").unwrap().body
    }
}

fn encoded(id: &[u8]) -> String {
    utf8_percent_encode(&BASE64_STANDARD.encode(id), NON_ALPHANUMERIC).to_string()
}

fn header<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    reply.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
}

#[test]
fn blob_has_what_its_commit_gave_it() {
    let mut client = client(Keep::Contents);
    let headers = [
        ("x-ms-meta-source", "s"),
        ("x-ms-blob-content-type", "video/mp4"),
        ("x-ms-access-tier", "Cool"),
        ("x-ms-tags", "Truck=7&site=north%20east"),
    ];
    client.put_blob(&headers, "whole").unwrap();
    let found = client.send("HEAD", "data/a", &[], "").unwrap();
    for (name, value) in
        [("x-ms-meta-source", "s"), ("content-type", "video/mp4"), ("x-ms-access-tier", "Cool"), ("x-ms-tag-count", "2")]
    {
        assert_eq!(header(&found, name), Some(value), "{name}");
    }
    assert_eq!((found.length, client.content()), (Some(5), "whole".into()));
    let tags = client.send("GET", "data/a?comp=tags", &[], "").unwrap().body;
    assert!(String::from_utf8_lossy(&tags).contains("<Tag><Key>Truck</Key><Value>7</Value></Tag>"), "{tags:?}");
    client.send("PUT", "data/a?comp=tags", &[], "<Tags><TagSet><Tag><Key>k</Key><Value>v</Value></Tag></TagSet></Tags>").unwrap();
    assert_eq!(client.account.slot("data", "a").unwrap().current().unwrap().tags["k"], "v");
}

#[test]
fn list_may_name_committed_uncommitted_and_latest_blocks() {
    let mut client = client(Keep::Contents);
    client.put_block(b"1", "old ").unwrap();
    client.put_block(b"2", "two").unwrap();
    client.commit("<Latest>MQ==</Latest><Uncommitted>Mg==</Uncommitted>").unwrap();
    client.put_block(b"1", "new ").unwrap();
    client.commit("<Committed>MQ==</Committed><Latest>MQ==</Latest><Latest>Mg==</Latest>").unwrap();
    assert_eq!(client.content(), "old new two");
    let written: Vec<_> = client.account.slot("data", "a").unwrap().versions().iter().map(|version| version.size).collect();
    assert_eq!(written, [7, 11]);
    assert_eq!(client.commit("<Uncommitted>MQ==</Uncommitted>").unwrap_err(), refusal::INVALID_BLOCK_LIST);
}

#[test]
fn whatever_is_kept_the_checksum_of_a_commit_is_that_of_its_bytes() {
    for keep in [Keep::Contents, Keep::Hashes, Keep::Checksums] {
        let mut client = client(keep);
        let without_bytes =
            |text| Content { bytes: Content::of(text).bytes.filter(|_| keep != Keep::Checksums), ..Content::of(text) };
        for (id, text) in [("MQ%3D%3D", "one "), ("Mg%3D%3D", "two")] {
            client.send_content("PUT", &format!("data/a?comp=block&blockid={id}"), &[], &without_bytes(text)).unwrap();
        }
        client.commit("<Latest>MQ==</Latest><Latest>Mg==</Latest>").unwrap();
        let version = client.account.slot("data", "a").unwrap().current().unwrap();
        assert_eq!((version.size, version.crc64), (7, Content::of("one two").crc64));
        assert_eq!(version.sha256.is_some(), keep != Keep::Checksums);
        assert_eq!(version.bytes.is_some(), keep == Keep::Contents);
    }
}

#[test]
fn bytes_that_are_not_those_of_the_checksum_leave_nothing() {
    let mut client = client(Keep::Contents);
    let wrong = [("x-ms-content-crc64", "AAAAAAAAAAA=")];
    assert_eq!(client.put_blob(&wrong, "whole").unwrap_err(), refusal::CRC64_MISMATCH);
    let right = BASE64_STANDARD.encode(Content::of("whole").crc64.to_le_bytes());
    client.put_blob(&[("x-ms-content-crc64", &right)], "whole").unwrap();
    assert_eq!(client.put_blob(&[("x-ms-content-crc64", "no")], "whole").unwrap_err(), refusal::INVALID_HEADER_VALUE);
}

#[test]
fn sizes_are_those_of_the_version_of_the_protocol() {
    let mut client = client(Keep::Checksums);
    let content = |size| Content { size, crc64: 0, bytes: None };
    let mib = 1 << 20;
    for (version, block, blob) in [("2009-09-19", 4, 64), ("2016-05-31", 100, 256), ("2019-12-12", 4000, 5000)] {
        let headers = [("x-ms-version", version), ("x-ms-blob-type", "BlockBlob")];
        for (path, most) in [("data/a?comp=block&blockid=MQ%3D%3D", block), ("data/a", blob)] {
            client.send_content("PUT", path, &headers, &content(most * mib)).unwrap();
            let refused = client.send_content("PUT", path, &headers, &content(most * mib + 1));
            assert_eq!(refused.unwrap_err(), refusal::REQUEST_BODY_TOO_LARGE, "{version} {path}");
        }
    }
}

#[test]
fn block_ids_are_base64_of_one_length_and_blocks_are_not_empty() {
    let mut client = client(Keep::Contents);
    client.put_block(&[1; 64], "x").unwrap();
    assert_eq!(client.put_block(&[1; 63], "x").unwrap_err(), refusal::INVALID_BLOB_OR_BLOCK);
    assert_eq!(client.put_block(&[1; 65], "x").unwrap_err(), refusal::INVALID_BLOCK_ID);
    assert_eq!(client.put_block(&[1; 64], "").unwrap_err(), refusal::INVALID_HEADER_VALUE);
    assert_eq!(client.send("PUT", "data/a?comp=block&blockid=%3F", &[], "x").unwrap_err(), refusal::INVALID_BLOCK_ID);
    client.put_blob(&[], "whole").unwrap();
    client.put_block(b"short", "x").unwrap();
}

#[test]
fn uncommitted_and_committed_blocks_have_their_limits() {
    let mut client = client(Keep::Contents);
    let id = |number: u32| number.to_be_bytes().to_vec();
    for number in 0..100_000 {
        client.account.plant_block("data", "a", id(number), &Content::of("x"));
    }
    assert_eq!(client.put_block(&id(100_000), "x").unwrap_err(), refusal::BLOCK_COUNT_EXCEEDS_LIMIT);
    client.put_block(&id(7), "y").unwrap();
    let list = |count| {
        let item = |number| format!("<Latest>{}</Latest>", BASE64_STANDARD.encode(id(number)));
        (0..count).map(item).collect::<Vec<_>>().concat()
    };
    assert_eq!(client.commit(&list(50_001)).unwrap_err(), refusal::BLOCK_LIST_TOO_LONG);
    client.commit(&list(50_000)).unwrap();
    assert_eq!(client.content().len(), 50_000);
}

#[test]
fn metadata_and_tags_have_their_limits() {
    let mut client = client(Keep::Contents);
    let (fits, too_large) = ("v".repeat(8191), "v".repeat(8192));
    client.put_blob(&[("x-ms-meta-k", &fits)], "").unwrap();
    assert_eq!(client.put_blob(&[("x-ms-meta-k", &too_large)], "").unwrap_err(), refusal::METADATA_TOO_LARGE);
    for name in ["x-ms-meta-", "x-ms-meta-1a", "x-ms-meta-a-b"] {
        assert_eq!(client.put_blob(&[(name, "v")], "").unwrap_err(), refusal::INVALID_METADATA, "{name}");
    }
    let tags = |count| (0..count).map(|number| format!("k{number}=v")).collect::<Vec<_>>().join("&");
    client.put_blob(&[("x-ms-tags", &tags(10))], "").unwrap();
    assert_eq!(client.put_blob(&[("x-ms-tags", &tags(11))], "").unwrap_err(), refusal::TAGS_TOO_LARGE);
    assert_eq!(client.put_blob(&[("x-ms-tags", "k=%3F")], "").unwrap_err(), refusal::INVALID_HEADER_VALUE);
    assert_eq!(client.put_blob(&[("x-ms-access-tier", "Lukewarm")], "").unwrap_err(), refusal::INVALID_HEADER_VALUE);
}

#[test]
fn conditions_decide_about_writes_and_deletions() {
    let mut client = client(Keep::Contents);
    assert_eq!(client.put_blob(&[("if-match", "*")], "x").unwrap_err(), refusal::CONDITION_NOT_MET);
    let first = client.put_blob(&[("if-none-match", "*")], "first").unwrap();
    let etag = header(&first, "etag").unwrap().to_owned();
    assert_eq!(client.put_blob(&[("if-none-match", "*")], "x").unwrap_err(), refusal::BLOB_ALREADY_EXISTS);
    client.put_blob(&[("if-match", &etag)], "second").unwrap();
    assert_eq!(client.put_blob(&[("if-match", &etag)], "third").unwrap_err(), refusal::CONDITION_NOT_MET);
    assert_eq!(client.send("DELETE", "data/a", &[("if-match", &etag)], "").unwrap_err(), refusal::CONDITION_NOT_MET);
    assert_eq!(client.content(), "second");
    client.send("DELETE", "data/a", &[], "").unwrap();
    assert_eq!(client.send("HEAD", "data/a", &[], "").unwrap_err(), refusal::BLOB_NOT_FOUND);
    assert_eq!(client.account.slot("data", "a").unwrap().versions().len(), 2, "deleted versions stay known");
}

#[test]
fn uncommitted_blocks_are_listed_and_are_no_blob() {
    let mut client = client(Keep::Contents);
    assert_eq!(client.send("GET", "data/a?comp=blocklist", &[], "").unwrap_err(), refusal::BLOB_NOT_FOUND);
    client.put_block(b"1", "one").unwrap();
    assert_eq!(client.send("HEAD", "data/a", &[], "").unwrap_err(), refusal::BLOB_NOT_FOUND);
    assert!(client.blocks("uncommitted").contains("<UncommittedBlocks><Block><Name>MQ==</Name><Size>3</Size></Block>"));
    client.put_blob(&[], "whole").unwrap();
    let all = client.blocks("all");
    assert!(all.contains("<CommittedBlocks></CommittedBlocks><UncommittedBlocks></UncommittedBlocks>"), "{all}");
}

#[test]
fn what_is_held_in_memory_is_bounded_and_given_back() {
    let mut client = client(Keep::Hashes);
    let half = "x".repeat(600);
    for _ in 0..3 {
        client.put_block(b"1", &half).unwrap_or_else(|refusal| panic!("{refusal:?}"));
        assert_eq!(client.put_block(b"2", &half).unwrap_err(), refusal::TOO_MANY_BYTES_KEPT);
        client.commit("<Latest>MQ==</Latest>").unwrap();
    }
}

#[test]
fn list_has_blobs_and_folders_below_the_prefix() {
    let mut client = client(Keep::Contents);
    for name in ["b/1", "b/c/2", "b/c/3", "d"] {
        client.send("PUT", &format!("data/{name}"), &[("x-ms-blob-type", "BlockBlob")], "x").unwrap();
    }
    let mut list = |query: &str| {
        let reply = client.send("GET", &format!("data?restype=container&comp=list{query}"), &[], "").unwrap();
        let text = String::from_utf8(reply.body.to_vec()).unwrap();
        text.split("<Name>").skip(1).map(|rest| rest.split('<').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(list(""), ["b/1", "b/c/2", "b/c/3", "d"]);
    assert_eq!(list("&prefix=b%2F&delimiter=%2F"), ["b/1", "b/c/"]);
}
