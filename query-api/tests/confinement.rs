//! A key reads its own project, whatever it asks for (INV-10), on a real engine.

mod support;

use fleetlog_query_api::QueryConfig;
use serde_json::json;
use support::{NOON, S, Service, call, event, service, session, tool};

/// The same session id in both projects, and one session of each that the other does not have.
async fn fill(service: &Service) {
    let mut events = Vec::new();
    for project in ["mine", "theirs"] {
        for name in ["shared", project] {
            events.extend((0..3).map(|number| event(project, name, number)));
        }
    }
    service.store_events(0, &events).await;
    let started = NOON - 3_600 * S;
    let groups: Vec<_> = ["mine", "theirs"]
        .into_iter()
        .flat_map(|project| {
            let calls = [call("a", started, project)];
            let tools = [tool("t", started, "ok")];
            ["shared", project].map(|name| session(project, name, started, &calls, &tools))
        })
        .collect();
    service.derive(&groups, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_projects_ids_and_cursors_find_nothing() {
    let Some(service) = service(QueryConfig::default()).await else { return };
    fill(&service).await;
    let mine = "viewer-mine";

    for path in ["", "/timeline", "/calls", "/tools"] {
        let code = service.ask(mine, &format!("/v1/sessions/theirs{path}")).await.refused(404);
        assert_eq!(code, "not_found", "{path}");
        let nowhere = service.ask(mine, &format!("/v1/sessions/nonexistent{path}")).await;
        let theirs = service.ask(mine, &format!("/v1/sessions/theirs{path}")).await;
        assert_eq!(theirs.text, nowhere.text, "{path}: one cannot tell what exists elsewhere");
    }
    assert_eq!(service.ask(mine, "/v1/events/theirs-theirs-0").await.refused(404), "not_found");
    service.ask("viewer-theirs", "/v1/events/theirs-theirs-0").await.good();

    for (path, rows) in [
        ("/v1/sessions?limit=1", 2),
        ("/v1/events?limit=1", 6),
        ("/v1/events?limit=10&search=needle1", 2),
        ("/v1/events?limit=10&session=theirs", 0),
        ("/v1/sessions/shared/timeline?limit=10", 3),
        ("/v1/sessions/shared/calls?limit=10", 1),
        ("/v1/sessions/shared/tools?limit=10", 1),
        ("/v1/usage?limit=10&group_by=model", 1),
        ("/v1/usage?limit=10&model=theirs", 0),
        ("/v1/dead-letters?limit=10", 0),
        ("/v1/traces?limit=10", 0),
        ("/v1/scores?limit=10", 0),
        ("/v1/formats?limit=10", 1),
    ] {
        let all = service.all(mine, path).await;
        assert_eq!(all.len(), rows, "{path}");
        assert!(!json!(all).to_string().contains("theirs"), "{path}: {all:?}");
    }

    for path in ["/v1/sessions?limit=1", "/v1/events?limit=1"] {
        let page = service.ask("viewer-theirs", path).await.good();
        let cursor = page["next_cursor"].as_str().unwrap();
        let answer = service.ask(mine, &format!("{path}&cursor={cursor}")).await;
        assert_eq!(answer.refused(400), "bad_cursor");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_keys_that_may_read_are_answered() {
    let Some(service) = service(QueryConfig::default()).await else { return };
    for role in ["viewer", "analyst", "admin"] {
        service.ask(&format!("{role}-p"), "/v1/sessions").await.good();
    }
    assert_eq!(service.ask("ingest-p", "/v1/sessions").await.refused(403), "may_not_read");
    assert_eq!(service.ask("nobody-p", "/v1/sessions").await.refused(401), "unknown_key");
    assert_eq!(service.ask("garbage", "/v1/sessions").await.refused(401), "malformed_key");
    assert_eq!(service.ask("viewer-", "/v1/sessions").await.refused(401), "unknown_key");
    assert_eq!(service.ask_openly("/v1/sessions").await.refused(401), "no_key");
    // Whoever has no key learns nothing of parameters or ids either.
    assert_eq!(service.ask_openly("/v1/events/x?nonsense=1").await.refused(401), "no_key");
    service.stop().await;
}
