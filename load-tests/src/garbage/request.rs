//! One request, as bytes on the wire of HTTP/1.1: framed well, whatever else is wrong with it.

use rand::Rng;
use rand::rngs::StdRng;

use super::Listener;
use super::mutate::{body, change_bytes, noise};
use super::seeds::{Content, Seed, Seeds};

const INGEST: &[&str] = &[
    "/v1/events",
    "/v1/raw",
    "/v1/raw/claude.transcript",
    "/v1/raw/codex.rollout?stream=s&line=4",
    "/v1/logs",
    "/v1/traces",
    "/v1/metrics",
    "/api/public/ingestion",
    "/api/public/otel/v1/traces",
    "/api/public/scores",
    "/runs",
    "/runs/batch",
    "/runs/multipart",
    "/feedback",
    "/v1/traces/ingest",
    "/api/v1/private/spans/batch",
    "/api/v1/private/traces",
    "/hooks/claude",
    "/hooks/cursor",
    "/hooks/gemini",
    "/healthz",
    "/readyz",
    "/metrics",
    "/",
];
const QUERY: &[&str] = &[
    "/v1/sessions",
    "/v1/sessions/garbage",
    "/v1/sessions/garbage/timeline",
    "/v1/sessions/garbage/calls",
    "/v1/sessions/garbage/tools",
    "/v1/events",
    "/v1/events/g1",
    "/v1/traces",
    "/v1/traces/0af7651916cd43dd8448eb211c80319c",
    "/v1/scores",
    "/v1/usage",
    "/v1/usage/explain",
    "/v1/formats",
    "/v1/dead-letters",
    "/v1/completeness",
    "/docs",
    "/openapi.json",
    "/healthz",
    "/metrics",
];
const ADMIN: &[&str] = &["/healthz", "/readyz", "/metrics", "/", "/nothing"];
const PARAMETERS: &[&str] = &[
    "from",
    "to",
    "limit",
    "cursor",
    "type",
    "session",
    "model",
    "step",
    "group_by",
    "q",
    "order",
    "call",
    "wait_for",
    "wait_timeout_ms",
    "reason",
    "agent",
    "status",
    "tool",
    "fields",
];
const VALUES: &[&str] = &[
    "",
    "0",
    "-1",
    "1",
    "now",
    "1790000000000",
    "99999999999999999999",
    "2026-01-01T00:00:00Z",
    "2026-13-41",
    "%00",
    "%ff%fe",
    "1h",
    "1m",
    "model",
    "model,provider",
    "'%20OR%201=1",
    "%7B%7D",
    "eyJhIjoxfQ",
    "../../etc/passwd",
    "NaN",
    "a%26b=c",
];
const STATEMENTS: &[&str] = &[
    "SELECT 1",
    "SELECT count() FROM fleetlog.events",
    "SELECT",
    "",
    "SELECT * FROM system.tables LIMIT 1 FORMAT JSON",
    "SELECT toString(number) FROM numbers(100) FORMAT RowBinary",
    "SELECT throwIf(1)",
    "SELECT sleepEachRow(0)",
    "SELECT '\u{0}' FORMAT TSV",
    "SELECT {p:UInt8}",
    "SELECT 1; SELECT 2",
    "SELECT * FROM file('/etc/passwd')",
];
const CONTENT_TYPES: &[&str] = &[
    "application/json",
    "application/x-ndjson",
    "application/x-protobuf",
    "text/plain",
    "multipart/form-data; boundary=b",
    "",
];
const ENCODINGS: &[&str] = &["gzip", "deflate", "zstd", "br", "identity", "snappy", "gzip, gzip"];
const METHODS: &[&str] = &["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "POST", "TRACE", "BREW"];

/// Whom a request is for, and what it is made of.
pub(crate) struct Target<'a> {
    pub(crate) listener: Listener,
    pub(crate) key: &'a str,
    pub(crate) seeds: &'a Seeds,
}

fn one<'a>(random: &mut StdRng, list: &[&'a str]) -> &'a str {
    list.get(random.random_range(0..list.len())).copied().unwrap_or_default()
}

impl Target<'_> {
    /// Some request.
    pub(crate) fn request(&self, random: &mut StdRng) -> Vec<u8> {
        match self.listener {
            Listener::Ingest | Listener::Grpc => self.intake(random),
            Listener::Query => self.question(random),
            Listener::Admin => self.head("GET", one(random, ADMIN), "", &[], random),
            Listener::Store => self.statement(random),
        }
    }

    /// A seed's body, changed, with the seed's path.
    pub(crate) fn mutated(&self, random: &mut StdRng) -> (&Seed, Vec<u8>) {
        let all = self.seeds.all();
        let seed = &all[random.random_range(0..all.len())];
        (seed, body(seed, random))
    }

    /// A message for gRPC, changed, and the service that takes it.
    pub(crate) fn message(&self, random: &mut StdRng) -> (&'static str, Vec<u8>) {
        let messages: Vec<&Seed> =
            self.seeds.all().iter().filter(|seed| matches!(seed.content, Content::Message(_))).collect();
        let service = |path: &str| match path {
            "/v1/logs" => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            "/v1/metrics" => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            _ => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        };
        match messages.get(random.random_range(0..messages.len().max(1))) {
            Some(seed) if !random.random_ratio(1, 6) => (service(seed.path), body(seed, random)),
            _ => (service(""), noise(random, 400)),
        }
    }

    fn intake(&self, random: &mut StdRng) -> Vec<u8> {
        let kind = random.random_range(0..100);
        let (seed, mut bytes) = self.mutated(random);
        let right = match &seed.content {
            Content::Document(_) => "application/json",
            Content::Lines(_) => "application/x-ndjson",
            Content::Message(_) => "application/x-protobuf",
            Content::Form(form) => {
                let line = form.split(|byte| *byte == b'\r').next().unwrap_or_default();
                let boundary = String::from_utf8_lossy(line.get(2..).unwrap_or_default()).into_owned();
                return self.head(
                    "POST",
                    seed.path,
                    &format!("multipart/form-data; boundary={boundary}"),
                    &bytes,
                    random,
                );
            }
        };
        match kind {
            0..=59 => self.head("POST", seed.path, right, &bytes, random),
            // The right body at the wrong door, or under the wrong name.
            60..=74 => self.head("POST", one(random, INGEST), one(random, CONTENT_TYPES), &bytes, random),
            75..=84 => {
                bytes = noise(random, 600);
                self.head("POST", one(random, INGEST), one(random, CONTENT_TYPES), &bytes, random)
            }
            85..=92 => {
                let encoding = one(random, ENCODINGS);
                if random.random() {
                    // Looks like the start of a stream of that encoding.
                    bytes.splice(0..0, [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
                }
                let extra = format!("content-encoding: {encoding}\r\n");
                self.with("POST", seed.path, right, &extra, &bytes, random)
            }
            _ => self.head(one(random, METHODS), one(random, INGEST), right, &bytes, random),
        }
    }

    fn question(&self, random: &mut StdRng) -> Vec<u8> {
        let mut path = one(random, QUERY).to_owned();
        for number in 0..random.random_range(0..5) {
            path.push(if number == 0 { '?' } else { '&' });
            path.push_str(one(random, PARAMETERS));
            path.push('=');
            path.push_str(one(random, VALUES));
        }
        if random.random_ratio(1, 4) {
            let mut bytes = path.into_bytes();
            change_bytes(&mut bytes, random);
            // What a request line cannot hold would break the framing, which is tried elsewhere.
            path = String::from_utf8_lossy(&bytes)
                .chars()
                .map(|c| if c.is_ascii_graphic() { c } else { '~' })
                .collect();
            if !path.starts_with('/') {
                path.insert(0, '/');
            }
        }
        let method = if random.random_ratio(1, 20) { one(random, METHODS) } else { "GET" };
        self.head(method, &path, "", &[], random)
    }

    fn statement(&self, random: &mut StdRng) -> Vec<u8> {
        let mut bytes = one(random, STATEMENTS).as_bytes().to_vec();
        if random.random_ratio(1, 2) {
            change_bytes(&mut bytes, random);
        }
        let settings = one(
            random,
            &[
                "",
                "&max_result_rows=x",
                "&default_format=Nonsense",
                "&param_p=7",
                "&readonly=1",
                "&session_id=s",
            ],
        );
        self.head("POST", &format!("/?max_execution_time=2{settings}"), "text/plain", &bytes, random)
    }

    fn head(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: &[u8],
        random: &mut StdRng,
    ) -> Vec<u8> {
        self.with(method, path, content_type, "", body, random)
    }

    fn with(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        extra: &str,
        body: &[u8],
        random: &mut StdRng,
    ) -> Vec<u8> {
        let authorization = match random.random_range(0..20) {
            _ if self.listener == Listener::Store => String::new(),
            0 => String::new(),
            1 => "authorization: Bearer fl_nobody_nothing\r\n".to_owned(),
            2 => "authorization: Basic ====\r\n".to_owned(),
            3 => format!("x-api-key: {}\r\n", self.key),
            _ => format!("authorization: Bearer {}\r\n", self.key),
        };
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: garbage\r\n{authorization}{extra}{}content-length: {}\r\n\r\n",
            if content_type.is_empty() { String::new() } else { format!("content-type: {content_type}\r\n") },
            body.len(),
        )
        .into_bytes();
        request.extend_from_slice(body);
        request
    }
}
