//! The XML of block lists and tags.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use quick_xml::{Reader, escape::escape, events::Event};
use serde::Deserialize;

use crate::refusal::{self, Refusal};

/// Where a block of a Put Block List is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Committed,
    Uncommitted,
    Latest,
}

/// Reads the body of a Put Block List: raw ids in order.
pub(crate) fn parse(xml: &[u8]) -> Result<Vec<(From, Vec<u8>)>, Refusal> {
    let mut reader = Reader::from_reader(xml);
    reader.config_mut().trim_text(true);
    let (mut blocks, mut from, mut is_complete) = (Vec::new(), None, false);
    loop {
        match reader.read_event().map_err(|_| refusal::INVALID_XML)? {
            Event::Start(element) => match element.name().as_ref() {
                b"BlockList" => {}
                b"Committed" => from = Some(From::Committed),
                b"Uncommitted" => from = Some(From::Uncommitted),
                b"Latest" => from = Some(From::Latest),
                _ => return Err(refusal::INVALID_XML),
            },
            Event::Text(text) => {
                let from = from.ok_or(refusal::INVALID_XML)?;
                let id = BASE64_STANDARD.decode(text.as_ref()).map_err(|_| refusal::INVALID_BLOCK_ID)?;
                blocks.push((from, id));
            }
            Event::End(element) if element.name().as_ref() == b"BlockList" => is_complete = true,
            Event::End(_) => from = None,
            Event::Empty(element) if element.name().as_ref() == b"BlockList" => is_complete = true,
            Event::Eof if is_complete => return Ok(blocks),
            Event::Decl(_) | Event::Comment(_) => {}
            _ => return Err(refusal::INVALID_XML),
        }
    }
}

/// Writes the reply to a Get Block List; a list that was not asked for is `None`.
pub(crate) fn write<'a>(
    committed: Option<impl Iterator<Item = (&'a [u8], u64)>>,
    uncommitted: Option<impl Iterator<Item = (&'a [u8], u64)>>,
) -> String {
    let committed = committed.map(|blocks| blocks_element("CommittedBlocks", blocks)).unwrap_or_default();
    let uncommitted = uncommitted.map(|blocks| blocks_element("UncommittedBlocks", blocks)).unwrap_or_default();
    format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{committed}{uncommitted}</BlockList>")
}

fn blocks_element<'a>(element: &str, blocks: impl Iterator<Item = (&'a [u8], u64)>) -> String {
    let block = |(id, size)| format!("<Block><Name>{}</Name><Size>{size}</Size></Block>", BASE64_STANDARD.encode::<&[u8]>(id));
    let blocks = blocks.map(block).fold(String::new(), |all, block| all + &block);
    format!("<{element}>{blocks}</{element}>")
}

#[derive(Deserialize)]
struct Tags {
    #[serde(rename = "TagSet")]
    set: TagSet,
}

#[derive(Deserialize)]
struct TagSet {
    #[serde(rename = "Tag", default)]
    tags: Vec<Tag>,
}

#[derive(Deserialize)]
struct Tag {
    #[serde(rename = "Key")]
    key: String,
    #[serde(rename = "Value")]
    value: String,
}

/// Reads the body of a Set Blob Tags.
pub(crate) fn parse_tags(xml: &[u8]) -> Result<Vec<(String, String)>, Refusal> {
    let tags: Tags = quick_xml::de::from_reader(xml).map_err(|_| refusal::INVALID_XML)?;
    Ok(tags.set.tags.into_iter().map(|tag| (tag.key, tag.value)).collect())
}

/// Writes the reply to a Get Blob Tags.
pub(crate) fn write_tags<'a>(tags: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let tag = |(key, value): (&String, &String)| {
        format!("<Tag><Key>{}</Key><Value>{}</Value></Tag>", escape(key.as_str()), escape(value.as_str()))
    };
    let tags = tags.map(tag).fold(String::new(), |all, tag| all + &tag);
    format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><Tags><TagSet>{tags}</TagSet></Tags>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_of_blocks_is_read_in_its_order() {
        let xml = b"\xef\xbb\xbf<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<BlockList>\n <Latest>AQ==</Latest><Uncommitted>Ag==</Uncommitted>\
                    <Committed>AQ==</Committed></BlockList>";
        assert_eq!(parse(xml).unwrap(), [(From::Latest, vec![1]), (From::Uncommitted, vec![2]), (From::Committed, vec![1])]);
        assert_eq!(parse(b"<BlockList/>").unwrap(), []);
    }

    #[test]
    fn what_is_no_list_of_blocks_is_refused() {
        for xml in ["", "<BlockList>", "<Other/>", "<BlockList><Newest>AQ==</Newest></BlockList>", "<BlockList>AQ==</BlockList>"] {
            assert_eq!(parse(xml.as_bytes()), Err(refusal::INVALID_XML), "{xml}");
        }
        assert_eq!(parse(b"<BlockList><Latest>?</Latest></BlockList>"), Err(refusal::INVALID_BLOCK_ID));
    }

    #[test]
    fn tags_are_written_as_they_are_read() {
        let xml = write_tags([("a&b".to_owned(), "<c>".to_owned())].iter().map(|(key, value)| (key, value)));
        assert_eq!(parse_tags(xml.as_bytes()).unwrap(), [("a&b".to_owned(), "<c>".to_owned())]);
        assert_eq!(parse_tags(b"<Tags"), Err(refusal::INVALID_XML));
    }
}
