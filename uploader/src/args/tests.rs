use std::{collections::BTreeSet, time::Duration};

use super::*;

const LEAST: [&str; 4] =
    ["uploader", "--session-name=truck-7", "--azure-account-url=https://a.blob.core.windows.net", "--azure-container=archive"];

fn fallbacks() -> Fallbacks {
    let now = "2026-01-31T23:59:59Z".parse().unwrap();
    Fallbacks { now, session_uid: Uuid::from_u128(1), pod_uid: Uuid::from_u128(2) }
}

fn read(more: &[&str]) -> Result<Settings, String> {
    Settings::read(LEAST.iter().chain(more), &fallbacks()).map_err(|error| error.to_string())
}

#[test]
fn the_least_that_can_be_written_gives_the_documented_defaults() {
    let settings = read(&[]).unwrap();
    assert_eq!(settings.session.date_prefix, "20260131");
    assert_eq!(settings.session.uid, Uuid::from_u128(1).to_string());
    assert_eq!(settings.folders.incoming_root.to_str(), Some("/mnt/nfs/incoming"));
    assert_eq!(settings.folders.processing_root.to_str(), Some("/mnt/nfs/.processing"));
    assert_eq!(settings.folders.staging_root.to_str(), Some("/mnt/staging"));
    assert_eq!((settings.watch.poll_interval, settings.watch.min_file_age), (Duration::from_secs(2), Duration::from_secs(5)));
    assert!(settings.watch.extensions.is_empty());
    assert_eq!(settings.watch.ignore, [".*", "*.tmp", "*.part", "*.partial", "*~"]);
    let transfer = settings.transfer;
    assert_eq!((transfer.workers.get(), transfer.queue_size.get(), transfer.concurrency.get()), (4, 2000, 8));
    assert_eq!((transfer.block_size, transfer.single_put_size, transfer.memory_limit), (4 << 20, 16 << 20, 256 << 20));
    assert_eq!(settings.staging.size_limit, 100 << 30);
    assert_eq!(
        (settings.retention.interval, settings.retention.keep_completed_for),
        (Duration::from_secs(30), Duration::from_mins(1))
    );
    assert!(!settings.report.in_pod());
    assert_eq!((settings.report.object, settings.report.listen, settings.report.termination_log), (None, None, None));
}

#[test]
fn the_defaults_are_those_of_the_resource() {
    let ours = read(&[]).unwrap();
    assert_eq!(ours.watch.ignore, blobferry_crds::Watch::default().ignore);
    assert_eq!(ours.watch.poll_interval, blobferry_crds::Watch::default().poll_interval.parse().unwrap());
    assert_eq!(ours.watch.min_file_age, blobferry_crds::Watch::default().min_file_age.parse().unwrap());
    let theirs = blobferry_crds::Transfer::default();
    assert_eq!(u32::try_from(ours.transfer.workers.get()).unwrap(), theirs.workers);
    assert_eq!(u32::try_from(ours.transfer.queue_size.get()).unwrap(), theirs.queue_size);
    assert_eq!(u32::try_from(ours.transfer.concurrency.get()).unwrap(), theirs.concurrency);
    assert_eq!(ours.transfer.block_size, theirs.block_size.bytes().unwrap());
    assert_eq!(ours.transfer.single_put_size, theirs.single_put_size.bytes().unwrap());
    assert_eq!(ours.transfer.memory_limit, theirs.memory_limit.bytes().unwrap());
    assert_eq!(ours.staging.mode, blobferry_crds::StagingMode::default());
    assert_eq!(ours.staging.size_limit, blobferry_crds::Staging::default().size_limit.bytes().unwrap());
    assert_eq!(ours.retention.interval, blobferry_crds::Retention::default().interval.parse().unwrap());
    assert_eq!(ours.retention.keep_completed_for, blobferry_crds::Retention::default().keep_completed_for.parse().unwrap());
}

/// Both what the operator sets and what people read in DESIGN section 8.
#[test]
fn every_variable_that_both_programs_know_is_a_flag_of_the_same_name() {
    let known: BTreeSet<&str> =
        include_str!("../../../crds/src/names.rs").split('"').filter(|text| text.starts_with("APP_")).collect();
    let command = Arguments::command();
    let flags: BTreeSet<(String, String)> = command
        .get_arguments()
        .filter_map(|argument| Some((argument.get_env()?.to_str()?.to_owned(), argument.get_long()?.to_owned())))
        .collect();
    let variables: BTreeSet<&str> = flags.iter().map(|(variable, _)| variable.as_str()).collect();
    assert!(known.len() > 30);
    assert_eq!(variables, known);
    for (variable, flag) in &flags {
        assert_eq!(*flag, variable.trim_start_matches("APP_").to_lowercase().replace('_', "-"));
    }
}

#[test]
fn in_a_pod_the_health_server_and_the_termination_message_are_on() {
    let settings = read(&["--pod-name=truck-7-uploader", "--pod-uid=77"]).unwrap();
    assert!(settings.report.in_pod());
    assert_eq!(settings.report.pod_uid, "77");
    assert_eq!(settings.report.listen, Some(Listen::Port(8080)));
    assert_eq!(settings.report.termination_log.unwrap().to_str(), Some("/dev/termination-log"));
}

#[test]
fn an_object_is_reported_to_only_with_namespace_name_and_uid() {
    let object = read(&["--session-namespace=lab", "--session-object=truck-7", "--session-uid=u-1"]).unwrap().report.object;
    assert_eq!(object, Some(SessionObject { namespace: "lab".into(), name: "truck-7".into(), uid: "u-1".into() }));
    for incomplete in [
        &["--session-object=a"][..],
        &["--session-namespace=a", "--session-uid=b"],
        &["--session-namespace=a", "--session-object=b"],
    ] {
        let problem = read(incomplete).unwrap_err();
        assert!(problem.contains("write --session-namespace, --session-object and --session-uid"), "{problem}");
    }
    assert_eq!(read(&["--session-namespace=", "--session-object="]).unwrap().report.object, None);
}

#[test]
fn values_that_are_set_to_nothing_count_as_not_written() {
    let settings =
        read(&["--date-prefix=", "--session-uid=", "--azure-prefix=", "--azure-sas-token=", "--file-extensions=", "--ignore="])
            .unwrap();
    assert_eq!(settings.session.date_prefix, "20260131");
    assert!(settings.destination.prefix.is_empty() && settings.destination.credentials.sas_token.is_none());
    assert!(settings.watch.extensions.is_empty() && settings.watch.ignore.is_empty());
}

#[test]
fn optional_paths_and_addresses_that_are_set_to_nothing_count_as_not_written() {
    let settings = read(&["--credentials-dir=", "--termination-log=", "--listen=", "--pod-name=", "--pod-uid="]).unwrap();
    assert_eq!(settings.destination.credentials.folder, None);
    assert_eq!((settings.report.termination_log, settings.report.listen, settings.report.pod_name), (None, None, None));
    assert_eq!(settings.report.pod_uid, Uuid::from_u128(2).to_string());
}

#[test]
fn bad_input_is_refused_with_what_to_write_instead() {
    for (flag, hint) in [
        ("--session-name=-a", "like truck-7"),
        ("--session-name=a.", "like truck-7"),
        ("--session-name=a/b", "like truck-7"),
        ("--session-name=", "like truck-7"),
        ("--date-prefix=20260231", "YYYYMMDD"),
        ("--date-prefix=2026-01-31", "YYYYMMDD"),
        ("--mode=run", "write watch or drain or release"),
        ("--idle-timeout-s=0", "from 1 to 31536000"),
        ("--recursive=maybe", "write true or false"),
        ("--max-attempts=1001", "1001 is not in 0..=1000"),
        ("--bandwidth-limit=1Ki", "from 8Ki to 100G"),
        ("--azure-access-tier=Warm", "write Hot or Cool or Cold or Archive"),
        ("--azure-metadata={", "write a JSON object of texts"),
        ("--azure-tags={\"a\": \"%\"}", "write at most 10 tags"),
        ("--azure-content-type=video", "like video/mp4"),
        ("--azure-container=A", "like camera-archive"),
        ("--azure-prefix=/a", "like site-3/raw"),
        ("--azure-overwrite=Always", "write OwnSource or Never or Any"),
        ("--poll-interval-s=0", "from 0.1 to 3600"),
        ("--min-file-age-s=5s", "from 1 to 86400"),
        ("--worker-concurrency=0", "from 1 to 64"),
        ("--max-queue-size=100001", "from 1 to 100000"),
        ("--azure-max-block-size=1", "from 64Ki to 4000Mi"),
        ("--memory-limit=1Mi", "from 16Mi to 64Gi"),
        ("--azure-max-block-size=32Mi", "at most half of --memory-limit"),
        ("--azure-max-single-put-size=65Mi", "at most a quarter of --memory-limit"),
        ("--staging-size-limit=200Ti", "from 0 to 100Ti"),
        ("--staging-mode=Memory", "write Disk or None"),
        ("--gc-interval-s=0", "from 1 to 3600"),
        ("--pod-uid=../x", "letters, digits and hyphens"),
        ("--listen=localhost", "like 127.0.0.1:8080"),
        ("--azure-account-key=a2V5", "--azure-account-name"),
        ("--file-extensions=*.bin", "like .mp4"),
        ("--ignore=a/b", "like *.tmp"),
    ] {
        // The last of two equal flags counts, so that the required ones can be spoiled too.
        let name = flag.split('=').next().unwrap();
        let rest = LEAST.into_iter().filter(|given| !given.starts_with(&format!("{name}=")));
        let error = Settings::read(rest.chain([flag]), &fallbacks()).unwrap_err();
        assert!(error.to_string().contains(hint), "{flag}: {error}");
        assert_eq!(error.exit_code(), 2);
    }
}

#[test]
fn what_is_missing_is_named() {
    let error = Settings::read(["uploader"], &fallbacks()).unwrap_err().to_string();
    for flag in ["--session-name", "--azure-account-url", "--azure-container"] {
        assert!(error.contains(flag), "{error}");
    }
}

#[test]
fn secrets_appear_neither_in_debug_nor_in_errors() {
    let secrets =
        ["--azure-account-name=a", "--azure-account-key=hush", "--azure-sas-token=hush", "--azure-connection-string=hush"];
    let settings = read(&secrets).unwrap();
    assert_eq!(settings.destination.credentials.sas_token.as_ref().unwrap().expose(), "hush");
    assert!(!format!("{settings:?}").contains("hush"));
    let mut with_error = secrets.to_vec();
    with_error.push("--memory-limit=1");
    assert!(!read(&with_error).unwrap_err().contains("hush"));
}

#[test]
fn help_hides_the_values_of_secret_variables() {
    for flag in ["azure-connection-string", "azure-account-key", "azure-sas-token", "azure-account-url"] {
        let command = Arguments::command();
        let argument = command.get_arguments().find(|argument| argument.get_long() == Some(flag)).unwrap();
        assert!(argument.is_hide_env_values_set(), "{flag}");
    }
}

#[test]
fn variables_that_are_set_to_nothing_are_as_if_absent() {
    let settings =
        read(&["--bandwidth-limit=", "--idle-timeout-s=", "--run-token=", "--azure-metadata=", "--azure-content-type="]).unwrap();
    assert_eq!((settings.transfer.bandwidth_limit, settings.session.idle_timeout, settings.session.run_token), (None, None, None));
    assert_eq!(settings.destination.properties, crate::blob::Properties::default());
}

#[test]
fn new_settings_reach_their_place() {
    let settings = read(&[
        "--bandwidth-limit=100k",
        "--idle-timeout-s=60",
        "--run-token=again",
        "--recursive",
        "--max-attempts=3",
        "--mode=drain",
        "--azure-access-tier=cool",
    ])
    .unwrap();
    assert_eq!((settings.transfer.bandwidth_limit, settings.transfer.max_attempts), (Some(100_000), 3));
    let session = settings.session;
    assert_eq!(
        (session.idle_timeout, session.run_token.as_deref(), session.mode),
        (Some(Duration::from_mins(1)), Some("again"), Mode::Drain)
    );
    assert!(settings.watch.recursive);
    assert_eq!(settings.destination.properties.access_tier, Some(blobferry_crds::AccessTier::Cool));
}
