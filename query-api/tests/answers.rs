//! What the answers say, on a real engine.

mod support;

use fleetlog_query_api::QueryConfig;
use fleetlog_schemas::event::Status;
use fleetlog_schemas::record::DeadReason;
use fleetlog_schemas::{AgentEvent, DeadLetter, EventType};
use support::{NOON, S, call, event, service, session, tool};

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_every_event_once_and_in_order() {
    let Some(service) = service(QueryConfig::default()).await else { return };
    let mut events: Vec<_> = (0..40).map(|number| event("p", "s", number)).collect();
    for (number, event) in events.iter_mut().enumerate() {
        // Many share an instant, and they lie in three hours.
        event.timestamp = NOON - (number as i64 / 7) * 1_800 * S;
    }
    service.store_events(0, &events).await;
    for (path, descending) in [
        ("/v1/events?limit=3", true),
        ("/v1/events?limit=3&include=data", true),
        ("/v1/sessions/s/timeline?limit=3", false),
    ] {
        let rows = service.all("viewer-p", path).await;
        let times: Vec<_> = rows.iter().map(|row| row["timestamp"].as_str().unwrap()).collect();
        assert!(times.windows(2).all(|w| if descending { w[0] >= w[1] } else { w[0] <= w[1] }), "{path}");
        let mut ids: Vec<_> = rows.iter().map(|row| row["id"].as_str().unwrap()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((rows.len(), ids.len()), (40, 40), "{path}");
    }
    // One event with an absurd time makes a session decades long; it hides nothing, and is found where it claims to be.
    let old = AgentEvent { timestamp: -10 * 365 * 86_400 * S, ..event("p", "s", 99) };
    service.store_events(1, std::slice::from_ref(&old)).await;
    let mut long = session("p", "s", old.timestamp, &[], &[]);
    long.session.ended_at = NOON;
    service.derive(&[long], 1).await;
    let rows = service.all("viewer-p", "/v1/sessions/s/timeline?limit=30").await;
    assert_eq!((rows.len(), &rows[0]["id"]), (41, &old.event_id.into()));
    assert_eq!(
        service.all("viewer-p", "/v1/events?from=1960-01-01T00:00:00Z&to=1960-02-01T00:00:00Z").await.len(),
        1
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_select_and_the_payload_comes_only_when_asked_for() {
    let Some(service) = service(QueryConfig::default()).await else { return };
    let mut odd = event("p", "it's a \"session\"\\n/§\n\t", 7);
    odd.event_type = EventType::CommandRun;
    odd.status = Status::Error;
    odd.tool_name = "Bash".to_owned();
    odd.trace_id = "abc".to_owned();
    odd.agent_id = "agent-1".to_owned();
    odd.data = r#"{"text":"needle7 in the Haystack\nSecond line\t\"quoted\""}"#.to_owned();
    let old = AgentEvent { timestamp: NOON - 80 * 86_400 * S, ..event("p", "old", 1) };
    let mut escaped = event("p", "s", 1);
    escaped.data = r#"{"text":"needle1 in the Haystack, \u00dcber gr\u00fcne W\u00c4LDER","said":"{\"a\":\"na\\u00efve\"}"}"#.to_owned();
    let mut spelled = event("p", "s", 2);
    spelled.data =
        "{\"text\":\"needle2 in the Haystack\",\"said\":\"\u{fc}ber GR\u{dc}NE W\u{e4}lder\"}".to_owned();
    let events = [escaped, spelled, odd, old];
    service.store_events(0, &events).await;

    let count = async |filter: &str| service.all("viewer-p", &format!("/v1/events?{filter}")).await.len();
    assert_eq!(count("limit=10").await, 3, "the old one is outside the default range");
    assert_eq!(count("from=now-90d").await, 4);
    assert_eq!(count("to=now-1d&from=now-90d").await, 1);
    for (filter, found) in [
        ("type=command.run", 1),
        ("type=command.run,llm.response", 3),
        ("status=error", 1),
        ("status=error,unset", 3),
        ("session=s", 2),
        ("session=it%27s%20a%20%22session%22%5Cn%2F%C2%A7%0A%09", 1),
        ("session=it's", 0),
        ("trace=abc", 1),
        ("agent=agent-1", 1),
        ("agent=main", 3),
        ("model=opus", 3),
        ("tool=Bash", 1),
        ("name=api_request&source=claude-code&user=", 3),
        ("search=needle7", 1),
        ("search=HAYSTACK%20needle7", 1),
        ("search=second%20Quoted", 1),
        ("search=%C3%9Cber%20haystack", 2),
        ("search=GR%C3%9CNE+w%C3%A4lder", 2),
        ("search=gr%C3%BCn", 0),
        ("search=na%C3%AFve", 1),
        ("search=needle", 0),
        ("search=%27)%20OR%201%3D1", 0),
    ] {
        assert_eq!(count(filter).await, found, "{filter}");
    }

    let light = service.ask("viewer-p", "/v1/events?session=s&limit=1").await.good();
    let event = &light["data"][0];
    assert_eq!((event.get("data"), event.get("context")), (None, None));
    assert_eq!(event["metrics"]["tokenCount"], 21);
    let whole = service.ask("viewer-p", "/v1/events?session=s&limit=1&include=data").await.good();
    assert_eq!(whole["data"][0]["data"]["text"], "needle2 in the Haystack");
    assert_eq!(whole["data"][0]["context"]["host"]["name"], "box");

    assert_eq!(service.ask("viewer-p", "/v1/events/p-old-1").await.refused(404), "not_found");
    let at = "2025-12-11T12:00:01.000000000Z";
    let found = service.ask("viewer-p", &format!("/v1/events/p-old-1?at={at}")).await.good();
    assert_eq!(found["data"]["timestamp"], "2025-12-11T12:00:00.000000000Z");
    assert_eq!(found["data"]["data"]["text"], "needle1 in the Haystack");
    let path = "/v1/sessions/it%27s%20a%20%22session%22%5Cn%2F%C2%A7%0A%09/timeline";
    assert_eq!(service.ask("viewer-p", path).await.good()["data"][0]["id"], events[2].event_id.as_str());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_and_usage_add_up_exactly() {
    let Some(service) = service(QueryConfig::default()).await else { return };
    let started = NOON - 3 * 3_600 * S;
    service.store_events(0, &[event("p", "rich", 1)]).await;
    let calls: Vec<_> = (0..8_u8)
        .map(|n| {
            let model = if n < 6 { "opus" } else { "haiku" };
            call(&format!("req{n}"), started + i64::from(n) * 900 * S, model)
        })
        .collect();
    let tools: Vec<_> = (0..6_u8)
        .map(|n| tool(&format!("t{n}"), started + i64::from(n) * S, if n < 2 { "error" } else { "ok" }))
        .collect();
    let groups =
        [session("p", "rich", started, &calls, &tools), session("p", "later", started + S, &[], &[])];
    service.derive(&groups, 0).await;

    let answer = service.ask("viewer-p", "/v1/sessions/rich").await;
    assert!(answer.text.contains(r#""cost_reported":0.021144,"#), "{}", answer.text);
    let answer = answer.good();
    let rich = &answer["data"];
    assert_eq!(
        (&rich["llm_call_count"], &rich["in_uncached"], &rich["cache_read"]),
        (&8.into(), &168.into(), &32_000.into())
    );
    assert_eq!(
        (&rich["out_visible"], &rich["in_total"], &rich["out_total"]),
        (&136.into(), &32_168.into(), &136.into())
    );
    assert_eq!((&rich["tool_call_count"], &rich["tool_error_count"]), (&6.into(), &2.into()));
    assert_eq!(rich["started_at"], "2026-03-01T09:00:00.000000000Z");
    assert_eq!(rich["agents"][0], "main");
    assert!(answer["derived_through"].is_string() && answer["complete_through"].is_null(), "{answer}");

    let ids = async |filter: &str| -> Vec<String> {
        let rows = service.all("viewer-p", &format!("/v1/sessions?limit=1{filter}")).await;
        rows.iter().map(|row| row["session_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids("").await, ["later", "rich"], "newest first");
    assert_eq!(ids("&from=2026-03-01T09:10:00.5Z").await, ["later"]);
    assert_eq!(ids("&to=2026-03-01T09:00:00.5Z").await, ["rich"]);
    assert_eq!(
        ids("&agent=main&user=ada&model=opus&source=claude-code&status=open").await,
        ["later", "rich"]
    );
    assert_eq!(ids("&user=bob").await.len() + ids("&status=ended").await.len(), 0);

    let calls = service.all("viewer-p", "/v1/sessions/rich/calls?limit=3").await;
    let keys: Vec<_> = calls.iter().map(|call| call["call_key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["req0", "req1", "req2", "req3", "req4", "req5", "req6", "req7"]);
    assert_eq!(calls[0]["cost_reported"].to_string(), "0.002643");
    let tools = service.all("viewer-p", "/v1/sessions/rich/tools?limit=4").await;
    assert_eq!(tools.iter().filter(|tool| tool["status"] == "error").count(), 2);
    // A session without calls has empty lists, unlike one that does not exist.
    assert!(service.all("viewer-p", "/v1/sessions/later/calls?limit=3").await.is_empty());

    for (step, buckets) in [("1m", 8), ("15m", 8), ("1h", 2), ("6h", 1), ("1d", 1)] {
        let page = service.ask("viewer-p", &format!("/v1/usage?step={step}")).await.good();
        let rows = page["data"].as_array().unwrap();
        assert_eq!(rows.len(), buckets, "{step}");
        let calls: u64 = rows.iter().map(|row| row["calls"].as_u64().unwrap()).sum();
        assert_eq!((calls, page["totals"]["calls"].as_u64().unwrap()), (8, 8), "{step}");
        assert_eq!(page["totals"]["cost_reported"].to_string(), "0.021144", "{step}");
    }
    let rows = service.all("viewer-p", "/v1/usage?step=1d&group_by=model,agent&limit=1").await;
    let split: Vec<_> =
        rows.iter().map(|row| (row["model"].as_str().unwrap(), row["calls"].as_u64().unwrap())).collect();
    assert_eq!(split, [("haiku", 2), ("opus", 6)]);
    assert_eq!((rows[0]["agent"].as_str(), rows[0].get("user")), (Some("main"), None));
    let empty = service.ask("viewer-p", "/v1/usage?model=none").await.good();
    assert_eq!((empty["data"].as_array().unwrap().len(), &empty["totals"]["calls"]), (0, &0.into()));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_with_their_reasons() {
    let Some(service) = service(QueryConfig::default()).await else { return };
    let letters: Vec<_> = (0..5_u8)
        .map(|n| DeadLetter {
            project_id: if n < 4 { "p" } else { "q" }.to_owned(),
            reason: if n == 0 { DeadReason::Poison } else { DeadReason::Undecodable },
            message: format!("letter {n}"),
            stage: "processor".to_owned(),
            received_at: NOON - 3_600 * S,
            failed_at: NOON - i64::from(n) * 1_800 * S,
            request_id: format!("request-{n}"),
            raw_index: -1,
            ..DeadLetter::default()
        })
        .collect();
    service.store_dead_letters(&letters).await;

    let rows = service.all("admin-p", "/v1/dead-letters?limit=3").await;
    let messages: Vec<_> = rows.iter().map(|row| row["message"].as_str().unwrap()).collect();
    assert_eq!(messages, ["letter 0", "letter 1", "letter 2", "letter 3"]);
    assert_eq!((&rows[0]["reason"], &rows[0]["raw_index"]), (&"poison".into(), &(-1).into()));
    assert_eq!(service.all("admin-p", "/v1/dead-letters?reason=poison").await.len(), 1);
    assert_eq!(service.all("admin-p", "/v1/dead-letters?request=request-2").await.len(), 1);
    assert_eq!(service.all("admin-p", "/v1/dead-letters?from=now-1h&to=now").await.len(), 2);
    service.stop().await;
}
