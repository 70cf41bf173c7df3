//! One suite for every blob store: what the uploader relies on, shown on the service in memory, on the project's own blob server and
//! on Azurite.
//!
//! Azurite is used when `BLOBFERRY_AZURITE` names its `azurite-blob` program; `make test` installs it and runs the ignored tests too.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod azurite;
mod backend;
#[path = "../support/certificates.rs"]
mod certificates;
mod child;
mod credentials;
mod entra;
mod failures;
mod front;
mod limits;
mod network;
mod server;
mod suite;
mod table;

/// A test on the service in memory, one on the project's blob server and one on Azurite for each function of the suite.
macro_rules! suite {
    ($($name:ident),* $(,)?) => {
        mod in_memory {
            use super::*;

            $(
                #[tokio::test]
                async fn $name() {
                    suite::$name::<backend::Memory>().await;
                }
            )*
        }

        mod on_our_server {
            use super::*;

            $(
                #[tokio::test]
                async fn $name() {
                    suite::$name::<server::Server>().await;
                }
            )*
        }

        mod on_azurite {
            use super::*;

            $(
                #[tokio::test]
                #[ignore = "needs Azurite: set BLOBFERRY_AZURITE to its azurite-blob program"]
                async fn $name() {
                    suite::$name::<azurite::Azurite>().await;
                }
            )*
        }
    };
}

suite! {
    a_name_that_nobody_wrote_has_neither_blob_nor_blocks,
    a_blob_put_whole_has_its_bytes_and_metadata_and_no_blocks,
    an_empty_blob_can_be_put_whole,
    a_wrong_checksum_is_refused_and_leaves_nothing,
    blocks_are_uncommitted_and_invisible_until_the_commit,
    blocks_are_committed_in_the_order_of_the_commit,
    a_block_sent_again_replaces_itself,
    a_commit_drops_the_blocks_that_it_does_not_name,
    a_blob_put_whole_drops_uncommitted_blocks,
    a_commit_of_an_unknown_block_changes_nothing,
    committed_blocks_cannot_be_committed_again_as_uncommitted,
    staging_does_not_touch_the_blob,
    a_write_that_needs_absence_is_refused_where_a_blob_is,
    uncommitted_blocks_alone_count_as_absence,
    a_write_that_needs_a_version_is_refused_where_another_or_none_is,
    tier_type_and_tags_are_those_of_the_write,
    a_new_version_has_a_new_tag_and_only_its_own_metadata,
    of_two_writes_that_need_absence_one_wins,
    of_two_commits_that_need_one_version_one_wins,
    blocks_with_ids_of_another_length_stand_in_the_way,
    every_odd_name_is_stored_as_it_is,
    a_container_is_made_once_and_missed_before,
}
