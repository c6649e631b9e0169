//! The agent-mix workload: universal events from a seed.

use std::fmt::Write as _;
use std::ops::AddAssign;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// What the tables must say once everything generated is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Events.
    pub events: u64,
    /// Distinct sessions.
    pub sessions: u64,
    /// Calls to a model.
    pub llm_calls: u64,
    /// Tool calls.
    pub tool_calls: u64,
    /// Tool calls that failed.
    pub tool_errors: u64,
    /// Input tokens outside any cache.
    pub in_uncached: u64,
    /// Input tokens read from a cache.
    pub cache_read: u64,
    /// Output tokens.
    pub out_visible: u64,
    /// Reported cost, billionths of a US dollar.
    pub cost_reported_nanos: u64,
}

impl AddAssign for Expected {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.sessions += other.sessions;
        self.llm_calls += other.llm_calls;
        self.tool_calls += other.tool_calls;
        self.tool_errors += other.tool_errors;
        self.in_uncached += other.in_uncached;
        self.cache_read += other.cache_read;
        self.out_visible += other.out_visible;
        self.cost_reported_nanos += other.cost_reported_nanos;
    }
}

/// How the workload is shaped.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Makes runs repeatable and distinct: part of every id.
    pub seed: u64,
    /// Events of one session.
    pub session_events: u64,
    /// Mean size of the free text of an event, bytes.
    pub text_bytes: usize,
    /// Time of the first event, milliseconds since the epoch.
    pub start_ms: i64,
    /// Time between two events, microseconds.
    pub step_us: i64,
}

const MODELS: &[&str] = &["claude-sonnet-4-5", "gpt-5", "gemini-2.5-pro"];
const TOOLS: &[(&str, &str)] = &[
    ("command.run", "Bash"),
    ("file.read", "Read"),
    ("file.edit", "Edit"),
    ("search", "Grep"),
    ("tool.call", "TodoWrite"),
];
const WORDS: &[&str] = &[
    "agent", "build", "compile", "deploy", "error", "fetch", "graph", "handle", "index", "join", "kernel",
    "latency", "merge", "node", "offset", "parse", "query", "retry", "schema", "token", "update", "vector",
    "write", "yield",
];

/// Appends events `first..first + count` as NDJSON and says what they add up to.
///
/// An event depends on the shape and its number alone: any split into requests gives the same events.
pub fn write_events(shape: &Shape, first: u64, count: u64, out: &mut String) -> Expected {
    let mut sums = Expected::default();
    for number in first..first + count {
        sums += write_event(shape, number, out);
    }
    sums
}

fn write_event(shape: &Shape, number: u64, out: &mut String) -> Expected {
    let mut random = StdRng::seed_from_u64(shape.seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let session = number / shape.session_events;
    let at_ms = shape.start_ms + (number as i64 * shape.step_us) / 1000;
    let mut sums = Expected { events: 1, ..Expected::default() };
    if number.is_multiple_of(shape.session_events) {
        sums.sessions = 1;
    }
    let seed = shape.seed;
    // Writing to a String cannot fail; the results are dropped knowingly.
    let _infallible = write!(
        out,
        r#"{{"id":"{seed:x}-{number}","timestamp":{at_ms},"sessionId":"s-{seed:x}-{session}","agentId":"agent-{}","#,
        session % 64
    );
    match number % 4 {
        0 => llm_call(&mut random, number, &mut sums, out),
        1 | 3 => tool_call(&mut random, number, &mut sums, out),
        _ => out.push_str(r#""type":"log","level":"info","#),
    }
    out.push_str(r#""context":{"cwd":"/srv/app","branch":"main"},"data":{"text":""#);
    text(&mut random, shape.text_bytes, out);
    out.push_str("\"}}\n");
    sums
}

fn llm_call(random: &mut StdRng, number: u64, sums: &mut Expected, out: &mut String) {
    let model = MODELS[random.random_range(0..MODELS.len())];
    let (input, cached, output) = (
        random.random_range(1..4_000u64),
        random.random_range(0..20_000u64),
        random.random_range(1..1_500u64),
    );
    // Whole micro-dollars, so that the JSON number is exact.
    let cost_micros = random.random_range(1..90_000u64);
    sums.llm_calls = 1;
    sums.in_uncached = input;
    sums.cache_read = cached;
    sums.out_visible = output;
    sums.cost_reported_nanos = cost_micros * 1_000;
    let _infallible = write!(
        out,
        r#""type":"llm.request","status":"ok","model":"{model}","requestId":"req-{number}-{}","inUncached":{input},"cacheRead":{cached},"outVisible":{output},"costReported":{}.{:06},"metrics":{{"duration":{}}},"#,
        sums.in_uncached,
        cost_micros / 1_000_000,
        cost_micros % 1_000_000,
        random.random_range(200..30_000u32)
    );
}

fn tool_call(random: &mut StdRng, number: u64, sums: &mut Expected, out: &mut String) {
    let (kind, tool) = TOOLS[random.random_range(0..TOOLS.len())];
    let failed = random.random_range(0..20) == 0;
    sums.tool_calls = 1;
    sums.tool_errors = u64::from(failed);
    let _infallible = write!(
        out,
        r#""type":"{kind}","toolName":"{tool}","toolCallId":"call-{number}","status":"{}","metrics":{{"duration":{}}},"#,
        if failed { "error" } else { "ok" },
        random.random_range(1..5_000u32)
    );
}

fn text(random: &mut StdRng, mean: usize, out: &mut String) {
    let until = out.len() + random.random_range(mean / 2..=mean + mean / 2);
    while out.len() < until {
        out.push_str(WORDS[random.random_range(0..WORDS.len())]);
        out.push(' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        Shape { seed: 7, session_events: 10, text_bytes: 200, start_ms: 1_700_000_000_000, step_us: 500 }
    }

    #[test]
    fn any_split_into_requests_gives_the_same_events_and_sums() {
        let (mut whole, mut parts) = (String::new(), String::new());
        let expected = write_events(&shape(), 0, 40, &mut whole);
        let mut sums = write_events(&shape(), 0, 13, &mut parts);
        sums += write_events(&shape(), 13, 27, &mut parts);
        assert_eq!((whole, expected), (parts, sums));
        assert_eq!(
            (expected.events, expected.sessions, expected.llm_calls, expected.tool_calls),
            (40, 4, 10, 20)
        );
    }

    #[test]
    fn every_line_is_a_json_event() {
        let mut lines = String::new();
        write_events(&shape(), 0, 25, &mut lines);
        for line in lines.lines() {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(event["type"].is_string() && event["id"].is_string(), "{line}");
        }
    }
}
