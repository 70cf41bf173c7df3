//! (test) What is on its way is looked at again soon, and not later and later.

use std::time::Duration;

use super::*;
use crate::{controller, place::Place};

#[tokio::test]
async fn volume_that_is_being_removed_is_looked_at_again_soon_every_time() {
    let session = fixtures::nfs_session();
    let cluster = cluster(&session);
    let valid = validate(&session, &fixtures::settings()).unwrap();
    let mut volume = serde_json::to_value(build::volume(&valid)).unwrap();
    volume["metadata"]["deletionTimestamp"] = json!("2026-11-21T08:29:00Z");
    let line = format!("GET /api/v1/persistentvolumes/{}", build::volume_name(&valid.uid));
    cluster.answers(&line, 200, volume);
    for _ in 0..8 {
        assert_eq!(cluster.pass(&session).await, Some(Duration::from_secs(1)));
    }
    cluster.answers(&line, 404, status(404, "NotFound", "it is gone"));
    cluster.calls();
    cluster.pass(&session).await;
    assert!(cluster.lines().contains(&format!("POST {PODS}")), "no attempt had failed");
}

#[tokio::test]
async fn claim_that_does_not_go_is_named_with_what_holds_it_after_half_a_minute() {
    let session = fixtures::nfs_session();
    let cluster = cluster(&session);
    let valid = validate(&session, &fixtures::settings()).unwrap();
    let mut claim = serde_json::to_value(build::volume_claim(&valid)).unwrap();
    claim["metadata"]["deletionTimestamp"] = json!("2026-11-21T08:29:00Z");
    claim["metadata"]["finalizers"] = json!(["kubernetes.io/pvc-protection"]);
    let name = build::volume_name(&valid.uid);
    cluster.answers(&format!("GET /api/v1/namespaces/cameras/persistentvolumeclaims/{name}"), 200, claim);
    for attempt in 1..=31 {
        let wait = cluster.pass(&session).await;
        let calls = cluster.calls();
        let status = calls.iter().find(|call| call.line == format!("PATCH {STATUS}")).map(|call| &call.body["status"]);
        let named = status.is_some_and(|status| ready(status) == ("False", "PersistentVolumeClaimTerminating"));
        assert_eq!((named, wait == Some(Duration::from_secs(15))), (attempt == 31, attempt == 31), "{attempt}: {status:?}");
        assert!(
            status.is_none_or(|status| !named || (message(status).contains(&name) && message(status).contains("pvc-protection")))
        );
    }
}

#[tokio::test]
async fn pod_of_the_name_that_is_still_ending_is_looked_at_again_soon_every_time() {
    let session = fixtures::session("");
    let cluster = cluster(&session);
    cluster.answers(&format!("POST {PODS}"), 409, status(409, "AlreadyExists", "object is being deleted"));
    cluster.answers(&format!("GET {POD}"), 200, serde_json::to_value(fixtures::pod(&session, "{}")).unwrap());
    for _ in 0..8 {
        assert_eq!(cluster.pass(&session).await, Some(Duration::from_secs(1)));
    }
}

#[tokio::test(start_paused = true)]
async fn namespace_whose_rights_are_not_answered_for_keeps_no_other_from_starting() {
    let named = |namespace: &str, name: &str| {
        let mut session = fixtures::session("");
        let meta = &mut session.metadata;
        (meta.namespace, meta.name, meta.uid) = (Some(namespace.into()), Some(name.into()), Some(name.into()));
        session
    };
    let (slow, waits, other) = (named("cameras", "truck-1"), named("cameras", "truck-2"), named("robots", "truck-7"));
    let mut cluster = cluster(&slow);
    cluster.shows(&waits);
    cluster.shows(&other);
    cluster.holds(&format!("GET {BINDING}"));
    let others = async {
        while !cluster.lines().contains(&format!("GET {BINDING}")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        cluster.pass(&other).await;
        assert!(cluster.lines().contains(&format!("POST {}", PODS.replace("cameras", "robots"))));
        // Those of the namespace itself do not wait for long either, nor every one of them.
        let begun = tokio::time::Instant::now();
        for _ in 0..5 {
            assert_eq!(cluster.pass(&waits).await, Some(Duration::from_secs(1)));
        }
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    };
    tokio::select! {
        _ = cluster.pass(&slow) => panic!("it was not answered"),
        () = others => {}
    }
    cluster.lets_go();
}

#[tokio::test]
async fn call_that_fails_again_and_again_is_told_and_what_was_told_goes_when_it_works() {
    let session = fixtures::session("deletionPolicy: Drain");
    let object = format!("PATCH {SESSION}");
    let rights = "POST /apis/rbac.authorization.k8s.io/v1/namespaces/cameras/rolebindings";
    for (line, message) in [(object.as_str(), "cannot change the finalizers"), (rights, "cannot create RoleBinding")] {
        let mut cluster = cluster(&session);
        let passes = async |cluster: &Cluster| controller::pass(Place::of(&session), &cluster.context).await.1.unwrap();
        cluster.answers(line, 500, status(500, "InternalError", "the database sleeps"));
        for attempt in 1..5 {
            assert!(passes(&cluster).await <= Duration::from_secs(1 << (attempt - 1)));
            assert_eq!(cluster.calls().iter().filter(|call| call.line == format!("PATCH {STATUS}")).count(), 0, "{attempt}");
        }
        cluster.context.clock = || fixtures::now() + Duration::from_secs(15);
        assert!(passes(&cluster).await > Duration::from_secs(10), "it is tried less and less");
        let told = cluster.calls();
        assert_eq!(ready(&written(&told)), ("False", "CallFailed"));
        let words = written(&told)["conditions"][0]["message"].as_str().unwrap().to_owned();
        assert!(words.contains(message) && words.contains("the database sleeps"), "{words}");
        cluster.works_again(line);
        passes(&cluster).await;
        assert_eq!(ready(&written(&cluster.calls())), ("False", "Starting"));
    }
}

#[tokio::test]
async fn status_is_written_although_the_annotations_are_refused() {
    let session = fixtures::session("");
    for (code, works) in [(403, true), (500, false)] {
        let cluster = cluster(&session);
        cluster.answers(&format!("PATCH {SESSION}"), code, status(code, "Forbidden", "nobody annotates here"));
        assert_eq!(cluster.pass_at(&session, fixtures::now()).await.is_ok(), works, "what may pass is tried again");
        let told = written(&cluster.calls());
        assert_eq!(ready(&told), ("False", "Starting"));
        assert_eq!(told["podUID"], "created-uid", "else no report of its uploader is taken");
    }
}

#[tokio::test]
async fn rights_that_could_not_be_made_are_looked_at_again() {
    let session = fixtures::session("");
    let cluster = cluster(&session);
    cluster.pass(&session).await;
    cluster.calls();
    let refused = format!("POST {PODS}");
    let binding = "POST /apis/rbac.authorization.k8s.io/v1/namespaces/cameras/rolebindings";
    cluster.answers(&refused, 403, status(403, "Forbidden", "no account"));
    let another = {
        let mut another = session.clone();
        (another.metadata.name, another.metadata.uid) = (Some("truck-8".into()), Some("another".into()));
        another
    };
    // Its account and its binding are gone, and the first attempt to make them again fails half-way.
    cluster.pass(&another).await;
    cluster.answers(binding, 500, status(500, "InternalError", "the database sleeps"));
    let later = |seconds| fixtures::now() + Duration::from_secs(seconds);
    assert!(cluster.pass_at(&another, later(10)).await.is_err());
    cluster.works_again(binding);
    cluster.works_again(&refused);
    cluster.calls();
    cluster.pass_at(&another, later(20)).await.unwrap();
    assert!(cluster.lines().iter().any(|line| line == binding));
}

#[tokio::test]
async fn rights_in_a_namespace_that_is_being_deleted_are_left_alone() {
    let session = fixtures::session("");
    let cluster = cluster(&session);
    cluster.pass(&session).await;
    let another = {
        let mut another = session.clone();
        (another.metadata.name, another.metadata.uid) = (Some("truck-8".into()), Some("another".into()));
        another
    };
    let refusals = [("no account", json!([]), 1, 2), ("it is terminated", json!([{"reason": "NamespaceTerminating"}]), 4, 0)];
    for (words, causes, minute, asked) in refusals {
        let mut refusal = status(403, "Forbidden", words);
        refusal["details"] = json!({"causes": causes});
        cluster.answers(&format!("POST {PODS}"), 403, refusal);
        let later = |minutes| fixtures::now() + Duration::from_mins(minutes);
        // What the refusal before has left to doubt is looked at.
        cluster.pass_at(&another, later(minute)).await.unwrap();
        cluster.calls();
        cluster.pass_at(&another, later(minute + 2)).await.unwrap();
        let lines = cluster.lines();
        assert!(lines.contains(&format!("POST {PODS}")), "{lines:?}");
        let looks = lines.iter().filter(|line| [ACCOUNT, BINDING].iter().any(|of| **line == format!("GET {of}"))).count();
        assert_eq!(looks, asked, "{words}");
    }
}

#[tokio::test]
async fn pod_that_comes_out_of_the_api_server_as_another_one_is_made_anew_less_and_less_often() {
    let session = fixtures::session("");
    let mut cluster = cluster(&session);
    let mut now = fixtures::now();
    let mut made = Vec::new();
    for _ in 0..200 {
        let wait = cluster.pass_at(&session, now).await.unwrap();
        if cluster.lines().contains(&format!("POST {PODS}")) {
            made.push(now);
            let mut pod = fixtures::pod(&session, "{}");
            pod.metadata.uid = Some("created-uid".into());
            pod.metadata.annotations.as_mut().unwrap().insert(names::SPEC_HASH_ANNOTATION.into(), "v1-0".into());
            cluster.shows_pod(&pod);
        } else {
            cluster.loses_pods();
        }
        now += wait.unwrap_or_default().max(Duration::from_millis(100)).min(Duration::from_secs(1));
    }
    assert!((3..10).contains(&made.len()), "{made:?}");
}

#[tokio::test]
async fn webhook_that_denies_in_the_words_of_a_conflict_refuses() {
    let session = fixtures::session("");
    let cluster = cluster(&session);
    let denied = "admission webhook \"pods.example.com\" denied the request: there are too many";
    cluster.answers(&format!("POST {PODS}"), 409, status(409, "Conflict", denied));
    cluster.pass(&session).await;
    let told = written(&cluster.calls());
    assert_eq!(ready(&told), ("False", "PodRefused"));
    assert!(message(&told).contains(denied));
}
