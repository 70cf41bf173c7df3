//! The tools of the tests themselves: a comparison that cannot fail would prove nothing.

use anyhow::Result;
use blobferry_testbed::{Bed, files::Fingerprint};

const NAME: &str = "20260102/odd/100% #1 'ü' & <b>?.dat";

#[tokio::test]
#[ignore = "needs a bed: make e2e"]
async fn a_blob_with_an_odd_name_is_found_with_its_bytes_and_told_from_others() -> Result<()> {
    let blobs = Bed::from_environment().await?.account.container("testbed-tools");
    blobs.delete_container().await?;
    assert_eq!(blobs.list("").await?, []);

    blobs.create_container().await?;
    blobs.create_container().await?;
    blobs.write(NAME, "right").await?;
    assert_eq!(blobs.fingerprint(NAME).await?, Some(Fingerprint::of(b"right")));
    assert_eq!(blobs.read(NAME).await?.as_deref(), Some(b"right".as_slice()));
    assert_eq!(blobs.metadata(NAME).await?, Some([].into()));

    let delivery =
        |name: &str, bytes: &[u8]| blobferry_testbed::Delivery { name: name.into(), fingerprint: Fingerprint::of(bytes) };
    let name = NAME.strip_prefix("20260102/odd/").unwrap_or_default();
    assert_eq!(blobs.differences("20260102/odd/", &[delivery(name, b"right")]).await?, [""; 0]);
    let differences = blobs.differences("20260102/odd/", &[delivery(name, b"wrong"), delivery("missing", b"")]).await?;
    assert_eq!(differences.len(), 2, "{differences:?}");
    assert_eq!(blobs.differences("20260102/odd/", &[]).await?.len(), 1);

    blobs.delete(NAME).await?;
    assert_eq!(blobs.fingerprint(NAME).await?, None);
    blobs.delete_container().await
}
