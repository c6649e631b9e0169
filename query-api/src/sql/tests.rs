//! Every statement as it is sent, with its parameters beside it.

use super::*;

const RANGE: TimeRange = TimeRange { from_ns: 1_000_000_000_000, to_ns: 8_000_000_000_000 };
/// What somebody may try; it must show up among the parameters alone.
const HOSTILE: &str = "x' OR 1=1 --{limit:UInt64}";

fn shown(statement: &Statement) -> String {
    assert!(!statement.sql.contains(HOSTILE), "input within SQL:\n{}", statement.sql);
    let params = statement.params.iter().map(|(name, value)| {
        assert!(statement.sql.contains(&format!("{{{name}:")), "{name} is bound and not used");
        format!("-- {name} = {value:?}")
    });
    format!("{}\n{}", statement.sql, params.collect::<Vec<_>>().join("\n"))
}

fn hostile() -> Option<String> {
    Some(HOSTILE.to_owned())
}

#[test]
fn list_of_sessions() {
    let filter = SessionFilter {
        agent: hostile(),
        user: hostile(),
        model: hostile(),
        status: Some("open".to_owned()),
        source: hostile(),
    };
    let after = (5_000_000_000, HOSTILE.to_owned());
    insta::assert_snapshot!(shown(&sessions(HOSTILE, RANGE, &filter, Some(&after), 101)));
}

#[test]
fn one_session_and_its_bounds() {
    insta::assert_snapshot!("session", shown(&session("p", HOSTILE)));
    insta::assert_snapshot!("session_bounds", shown(&session_bounds("p", HOSTILE)));
}

#[test]
fn calls_of_a_session() {
    let after = (5_000_000_000, HOSTILE.to_owned());
    insta::assert_snapshot!("llm_calls", shown(&llm_calls("p", HOSTILE, Some(&after), 101)));
    insta::assert_snapshot!("tool_calls", shown(&tool_calls("p", HOSTILE, None, 101)));
    insta::assert_snapshot!("costs_of_trace", shown(&costs_of_trace("p", HOSTILE, HOSTILE, 101)));
    let without_session = costs_of_trace("p", "", HOSTILE, 101);
    assert_eq!(without_session.params[1], ("kind", Param::Text("trace".to_owned())));
    assert_eq!(without_session.params[2], ("group", Param::Text(HOSTILE.to_owned())));
}

#[test]
fn list_of_events() {
    let filter = EventFilter {
        types: vec!["llm.request".to_owned(), "error".to_owned()],
        statuses: vec!["error".to_owned()],
        session: hostile(),
        trace: hostile(),
        agent: hostile(),
        model: hostile(),
        name: hostile(),
        source: hostile(),
        tool: hostile(),
        user: hostile(),
        search: hostile(),
    };
    let after = Some(EventKey(5_000_000_000, 3, 70, 9));
    let newest = (Order::Newest, Payload::Left);
    insta::assert_snapshot!("events_filtered", shown(&events(HOSTILE, RANGE, &filter, newest, after, 101)));
    let oldest = (Order::Oldest, Payload::Included);
    let none = EventFilter::default();
    insta::assert_snapshot!("events_oldest_first", shown(&events("p", RANGE, &none, oldest, after, 101)));
    insta::assert_snapshot!("event_by_id", shown(&event_by_id("p", RANGE, HOSTILE)));
}

#[test]
fn list_of_dead_letters() {
    let filter = DeadLetterFilter { reasons: vec!["poison".to_owned()], request: hostile() };
    let after = Some(EventKey(5_000_000_000, 3, 70, 9));
    insta::assert_snapshot!(shown(&dead_letters("p", RANGE, &filter, after, 101)));
}

#[test]
fn fates_of_records() {
    let windows = completeness(HOSTILE, RANGE, &[5_000, 0], Some(7_000), 101);
    insta::assert_snapshot!("completeness", shown(&windows));
    insta::assert_snapshot!("completeness_totals", shown(&completeness_totals(HOSTILE, RANGE, &[])));
}

#[test]
fn sums_of_usage() {
    let filter = UsageFilter {
        source: hostile(),
        provider: hostile(),
        model: hostile(),
        agent: hostile(),
        user: hostile(),
    };
    let by = [Dimension::Model, Dimension::Agent];
    let after = (3_600, ["", "", HOSTILE, "", ""].map(str::to_owned));
    insta::assert_snapshot!("usage", shown(&usage("p", (RANGE, 900), &filter, &by, Some(&after), 101)));
    insta::assert_snapshot!(
        "usage_totals",
        shown(&usage_totals("p", (RANGE, 3_600), &UsageFilter::default()))
    );
}

#[test]
fn traces_and_what_they_consist_of() {
    let filter = TraceFilter { session: hostile(), user: hostile(), name: hostile(), failed: true };
    let after = (5_000_000_000, HOSTILE.to_owned());
    insta::assert_snapshot!("list_of_traces", shown(&traces(HOSTILE, RANGE, &filter, Some(&after), 101)));
    insta::assert_snapshot!("trace", shown(&trace("p", HOSTILE)));
    insta::assert_snapshot!("observations", shown(&observations("p", HOSTILE, 101)));
    let filter =
        ScoreFilter { trace: hostile(), observation: hostile(), session: hostile(), name: hostile() };
    insta::assert_snapshot!("scores_of_a_trace", shown(&scores("p", RANGE, &filter, Some(&after), 101)));
    let filter = ScoreFilter { trace: None, ..filter };
    insta::assert_snapshot!("list_of_scores", shown(&scores("p", RANGE, &filter, Some(&after), 101)));
}

#[test]
fn how_a_call_was_counted() {
    let place = CallPlace { groups: vec![HOSTILE.to_owned()], trace: hostile() };
    insta::assert_snapshot!("explained_call", shown(&explained_call("p", &place, Some(HOSTILE), None)));
    let groups = (HOSTILE, HOSTILE);
    let ids = [HOSTILE.to_owned()];
    insta::assert_snapshot!("sightings", shown(&sightings("p", groups, (HOSTILE, &ids), 5_000_000_000, 200)));
}

#[test]
fn what_formats_sent() {
    let filter = FormatFilter { format: hostile(), source: hostile() };
    let after = (3_600, HOSTILE.to_owned(), HOSTILE.to_owned(), HOSTILE.to_owned());
    insta::assert_snapshot!("list_of_formats", shown(&formats("p", RANGE, &filter, Some(&after), 101)));
}
