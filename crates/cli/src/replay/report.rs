//! What a replay of raw records differs in from what is stored: pairs of numbers, and how they are told. Pure.

use std::collections::BTreeMap;
use std::fmt::Display;

use fleetlog_schemas::api::Usd;
use fleetlog_schemas::id::NanoUsd;
use fleetlog_store::{CallTotals, EventCount, Fates, ReasonCount, RowChanges, SessionPair, ToolCount};
use serde::Serialize;

/// A number as it is stored, and as it would be today.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Pair<T> {
    pub(crate) before: T,
    pub(crate) after: T,
}

impl<T: PartialEq> Pair<T> {
    fn differs(&self) -> bool {
        self.before != self.after
    }
}

impl<T> Pair<T> {
    fn map<U>(&self, of: impl Fn(&T) -> U) -> Pair<U> {
        Pair { before: of(&self.before), after: of(&self.after) }
    }
}

/// One side of the comparison.
#[derive(Clone, Debug, Default)]
pub(crate) struct Side {
    pub(crate) fates: Fates,
    pub(crate) events: Vec<EventCount>,
    pub(crate) calls: Vec<CallTotals>,
    pub(crate) tools: Vec<ToolCount>,
    pub(crate) dead: Vec<ReasonCount>,
}

/// Numbers that are counted under one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Line<T> {
    name: String,
    #[serde(flatten)]
    pair: Pair<T>,
}

/// Calls, tokens and cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Usage {
    calls: u64,
    in_uncached: u64,
    cache_read: u64,
    cache_write_5m: u64,
    cache_write_1h: u64,
    out_visible: u64,
    out_reasoning: u64,
    #[serde(serialize_with = "dollars")]
    cost_reported: i64,
    #[serde(serialize_with = "dollars")]
    cost_computed: i64,
    calls_without_computed_cost: u64,
}

/// A session that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Session {
    project_id: String,
    session_id: String,
    llm_calls: Pair<u64>,
    tool_calls: Pair<u64>,
    tokens: Pair<u64>,
    cost_reported: Pair<Dollars>,
    cost_computed: Pair<Dollars>,
}

/// An amount in billionths of a dollar, told in dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Dollars(#[serde(serialize_with = "dollars")] i64);

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn dollars<S: serde::Serializer>(nano: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    Usd(NanoUsd(*nano)).serialize(serializer)
}

/// The comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Report {
    /// Whether today's processor makes of the window what is stored of it.
    pub(crate) equal: bool,
    /// What the records of the window became.
    records: Pair<Fates>,
    /// Rows of `events`, each compared with its own.
    rows: RowChanges,
    /// Rows of `events` by type and format.
    events: Vec<Line<u64>>,
    /// All calls to models.
    usage: Pair<Usage>,
    /// Calls by model.
    models: Vec<Line<Usage>>,
    /// Tool calls by tool.
    tools: Vec<Line<u64>>,
    /// Dead letters by reason.
    dead_letters: Vec<Line<u64>>,
    /// Sessions that differ.
    sessions_differing: u64,
    /// Those that differ most.
    sessions: Vec<Session>,
}

impl Report {
    pub(crate) fn of(before: Side, after: Side, rows: RowChanges, sessions: Vec<SessionPair>) -> Self {
        let events = |side: &Side| -> Vec<(String, u64)> {
            let name = |count: &EventCount| format!("{} {}", count.event_type, count.source_format);
            side.events.iter().map(|count| (name(count), count.rows)).collect()
        };
        let models = |side: &Side| -> Vec<(String, Usage)> {
            side.calls.iter().map(|calls| (calls.model.clone(), Usage::of(calls))).collect()
        };
        let tools = |side: &Side| -> Vec<(String, u64)> {
            side.tools.iter().map(|tool| (tool.tool_name.clone(), tool.calls)).collect()
        };
        let dead = |side: &Side| -> Vec<(String, u64)> {
            side.dead.iter().map(|count| (count.reason.clone(), count.letters)).collect()
        };
        let total = |side: &Side| side.calls.iter().map(Usage::of).fold(Usage::default(), Usage::plus);
        let report = Self {
            equal: true,
            records: Pair { before: before.fates, after: after.fates },
            rows,
            events: paired(events(&before), events(&after)),
            usage: Pair { before: total(&before), after: total(&after) },
            models: paired(models(&before), models(&after)),
            tools: paired(tools(&before), tools(&after)),
            dead_letters: paired(dead(&before), dead(&after)),
            sessions_differing: sessions.first().map_or(0, |session| session.differing),
            sessions: sessions.into_iter().map(Session::of).collect(),
        };
        Self { equal: report.is_equal(), ..report }
    }

    fn is_equal(&self) -> bool {
        let same = |lines: &[Line<u64>]| lines.iter().all(|line| !line.pair.differs());
        self.rows == RowChanges::default()
            && !self.records.differs()
            && same(&self.events)
            && same(&self.tools)
            && same(&self.dead_letters)
            && self.models.iter().all(|line| !line.pair.differs())
            && self.sessions_differing == 0
    }

    /// The report as lines of a table: totals, and below them what differs.
    pub(crate) fn table(&self) -> Vec<String> {
        let mut table =
            Table(vec![format!("{:<44} {:>16} {:>16} {:>16}", "", "before", "after", "difference")]);
        let records = |of: fn(&Fates) -> u64| self.records.map(of);
        table.count("records", records(|fates| fates.records));
        table.count("  with events", records(|fates| fates.with_events));
        table.count("  filtered by policy", records(|fates| fates.filtered));
        table.count("  context of others", records(|fates| fates.context));
        table.count("  dead", records(|fates| fates.dead));
        table.lines("dead letters", &self.dead_letters);
        table.lines("events", &self.events);
        let RowChanges { only_before, only_after, changed } = self.rows;
        table.0.push(format!("rows only before {only_before}, only after {only_after}, changed {changed}"));
        table.usage("", &self.usage);
        for line in self.models.iter().filter(|line| line.pair.differs()) {
            table.0.push(format!("of model {}", line.name));
            table.usage("  ", &line.pair);
        }
        table.lines("tool calls", &self.tools);
        table.0.push(format!("sessions that differ: {}", self.sessions_differing));
        for session in &self.sessions {
            table.0.push(format!("session {} of {}", session.session_id, session.project_id));
            table.differing("  LLM calls", session.llm_calls);
            table.differing("  tool calls", session.tool_calls);
            table.differing("  tokens", session.tokens);
            table.cost_differing("  cost reported, USD", session.cost_reported.map(|cost| cost.0));
            table.cost_differing("  cost computed, USD", session.cost_computed.map(|cost| cost.0));
        }
        let verdict =
            if self.equal { "no difference" } else { "today's processor makes something else of it" };
        table.0.push(verdict.to_owned());
        table.0
    }
}

impl Usage {
    fn of(calls: &CallTotals) -> Self {
        Self {
            calls: calls.calls,
            in_uncached: calls.in_uncached,
            cache_read: calls.cache_read,
            cache_write_5m: calls.cache_write_5m,
            cache_write_1h: calls.cache_write_1h,
            out_visible: calls.out_visible,
            out_reasoning: calls.out_reasoning,
            cost_reported: calls.cost_reported,
            cost_computed: calls.cost_computed,
            calls_without_computed_cost: calls.unpriced,
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            calls: self.calls + other.calls,
            in_uncached: self.in_uncached + other.in_uncached,
            cache_read: self.cache_read + other.cache_read,
            cache_write_5m: self.cache_write_5m + other.cache_write_5m,
            cache_write_1h: self.cache_write_1h + other.cache_write_1h,
            out_visible: self.out_visible + other.out_visible,
            out_reasoning: self.out_reasoning + other.out_reasoning,
            cost_reported: self.cost_reported + other.cost_reported,
            cost_computed: self.cost_computed + other.cost_computed,
            calls_without_computed_cost: self.calls_without_computed_cost + other.calls_without_computed_cost,
        }
    }
}

impl Session {
    fn of(pair: SessionPair) -> Self {
        let of = |(before, after)| Pair { before, after };
        let money = |(before, after)| Pair { before: Dollars(before), after: Dollars(after) };
        Self {
            project_id: pair.project_id,
            session_id: pair.session_id,
            llm_calls: of(pair.calls),
            tool_calls: of(pair.tool_calls),
            tokens: of(pair.tokens),
            cost_reported: money(pair.cost_reported),
            cost_computed: money(pair.cost_computed),
        }
    }
}

/// Both sides by name, in the names' order; what one side does not have is zero there.
fn paired<T: Default>(before: Vec<(String, T)>, after: Vec<(String, T)>) -> Vec<Line<T>> {
    let mut lines: BTreeMap<String, Pair<T>> = BTreeMap::new();
    for (name, value) in before {
        lines.entry(name).or_default().before = value;
    }
    for (name, value) in after {
        lines.entry(name).or_default().after = value;
    }
    lines.into_iter().map(|(name, pair)| Line { name, pair }).collect()
}

struct Table(Vec<String>);

impl Table {
    fn row(&mut self, name: &str, before: impl Display, after: impl Display, difference: &str) {
        self.0.push(format!("{name:<44} {before:>16} {after:>16} {difference:>16}"));
    }

    fn count(&mut self, name: &str, Pair { before, after }: Pair<u64>) {
        let difference = i128::from(after) - i128::from(before);
        let told = if difference == 0 { "-".to_owned() } else { format!("{difference:+}") };
        self.row(name, before, after, &told);
    }

    fn cost(&mut self, name: &str, Pair { before, after }: Pair<i64>) {
        let difference = after.saturating_sub(before);
        let told = match difference {
            0 => "-".to_owned(),
            1.. => format!("+{}", usd(difference)),
            _ => usd(difference),
        };
        self.row(name, usd(before), usd(after), &told);
    }

    fn differing(&mut self, name: &str, pair: Pair<u64>) {
        if pair.differs() {
            self.count(name, pair);
        }
    }

    fn cost_differing(&mut self, name: &str, pair: Pair<i64>) {
        if pair.differs() {
            self.cost(name, pair);
        }
    }

    /// The sum, and those that differ.
    fn lines(&mut self, name: &str, lines: &[Line<u64>]) {
        let sum = |of: fn(&Pair<u64>) -> u64| lines.iter().map(|line| of(&line.pair)).sum();
        self.count(name, Pair { before: sum(|pair| pair.before), after: sum(|pair| pair.after) });
        for line in lines {
            self.differing(&format!("  {}", line.name), line.pair);
        }
    }

    fn usage(&mut self, indent: &str, usage: &Pair<Usage>) {
        type Of = fn(&Usage) -> u64;
        let counts: [(&str, Of); 8] = [
            ("LLM calls", |usage| usage.calls),
            ("tokens in_uncached", |usage| usage.in_uncached),
            ("tokens cache_read", |usage| usage.cache_read),
            ("tokens cache_write_5m", |usage| usage.cache_write_5m),
            ("tokens cache_write_1h", |usage| usage.cache_write_1h),
            ("tokens out_visible", |usage| usage.out_visible),
            ("tokens out_reasoning", |usage| usage.out_reasoning),
            ("calls without a computed cost", |usage| usage.calls_without_computed_cost),
        ];
        for (name, of) in counts {
            self.count(&format!("{indent}{name}"), usage.map(of));
        }
        self.cost(&format!("{indent}cost reported, USD"), usage.map(|usage| usage.cost_reported));
        self.cost(&format!("{indent}cost computed, USD"), usage.map(|usage| usage.cost_computed));
    }
}

/// Dollars, exact to the ninth digit.
fn usd(nano: i64) -> String {
    let (sign, amount) = (if nano < 0 { "-" } else { "" }, nano.unsigned_abs());
    format!("{sign}{}.{:09}", amount / 1_000_000_000, amount % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(cost_computed: i64, rows: u64) -> Side {
        let event = EventCount { event_type: "llm.response".into(), source_format: "universal".into(), rows };
        let calls = CallTotals {
            model: "m".into(),
            calls: 2,
            in_uncached: 10,
            cost_computed,
            ..CallTotals::default()
        };
        Side { events: vec![event], calls: vec![calls], ..Side::default() }
    }

    fn told<'t>(table: &'t [String], name: &str) -> Vec<&'t str> {
        let line = table.iter().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().collect()
    }

    #[test]
    fn two_equal_sides_are_no_difference() {
        let report = Report::of(side(5, 3), side(5, 3), RowChanges::default(), Vec::new());
        assert!(report.equal);
        let table = report.table();
        assert_eq!(told(&table, "events"), ["3", "3", "-"]);
        assert_eq!(table.last().unwrap(), "no difference");
    }

    #[test]
    fn a_difference_of_cost_is_told_to_the_ninth_digit() {
        let pair = SessionPair {
            project_id: "p".into(),
            session_id: "s".into(),
            calls: (2, 2),
            tool_calls: (0, 0),
            tokens: (10, 10),
            cost_computed: (1_000_000_005, 4),
            cost_reported: (0, 0),
            differing: 7,
        };
        let changed = RowChanges { changed: 1, ..RowChanges::default() };
        let report = Report::of(side(1_000_000_005, 3), side(4, 3), changed, vec![pair]);
        assert!(!report.equal);
        let table = report.table();
        assert_eq!(told(&table, "cost computed, USD"), ["1.000000005", "0.000000004", "-1.000000001"]);
        assert_eq!(told(&table, "  cost computed, USD"), ["1.000000005", "0.000000004", "-1.000000001"]);
        assert_eq!(told(&table, "sessions that differ:"), ["7"]);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["usage"]["after"]["cost_computed"].to_string(), "4e-9");
        assert_eq!(json["models"][0]["name"], "m");
    }

    #[test]
    fn what_one_side_lacks_is_zero_there_and_a_difference() {
        let dead = vec![ReasonCount { reason: "too_large".into(), letters: 2 }];
        let before = Side { dead, ..side(5, 3) };
        let report = Report::of(before, side(5, 4), RowChanges::default(), Vec::new());
        assert!(!report.equal);
        let table = report.table();
        assert_eq!(told(&table, "  too_large"), ["2", "0", "-2"]);
        assert_eq!(told(&table, "  llm.response universal"), ["3", "4", "+1"]);
    }

    #[test]
    fn every_number_counts_for_the_verdict() {
        let differing = |change: fn(&mut Side)| {
            let mut after = side(5, 3);
            change(&mut after);
            !Report::of(side(5, 3), after, RowChanges::default(), Vec::new()).equal
        };
        assert!(differing(|side| side.fates.filtered = 1));
        assert!(differing(|side| side.calls[0].cache_read = 1));
        assert!(differing(|side| side.tools = vec![ToolCount { tool_name: "t".into(), calls: 1 }]));
        let rows = RowChanges { only_after: 1, ..RowChanges::default() };
        assert!(!Report::of(side(5, 3), side(5, 3), rows, Vec::new()).equal);
    }
}
