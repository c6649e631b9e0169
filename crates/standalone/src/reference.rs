//! The reference of configuration keys, metrics and error codes, generated from the declarations in the code.

use std::fmt::Write as _;

use fleetlog_log::KafkaConfig;
use fleetlog_pricing::PricesConfig;
use fleetlog_runtime::{AdminConfig, KeyDoc, Kind, Metric, TelemetryConfig};
use fleetlog_store::StoreConfig;

/// Every configuration key of every service, by section.
pub fn config_keys() -> Vec<KeyDoc> {
    let mut keys = [
        fleetlog_ingest_gateway::GatewayConfig::keys(),
        fleetlog_processor::ProcessorConfig::keys(),
        fleetlog_aggregator::AggregatorConfig::keys(),
        fleetlog_query_api::QueryConfig::keys(),
        KafkaConfig::keys(),
        PricesConfig::keys(),
        StoreConfig::keys(),
        AdminConfig::keys(),
        TelemetryConfig::keys(),
    ]
    .concat();
    keys.sort_by(|a, b| section(a).cmp(section(b)));
    keys
}

fn section(key: &KeyDoc) -> &str {
    key.key.split_once('.').map_or("", |(section, _)| section)
}

fn metrics() -> Vec<Metric> {
    [
        fleetlog_ingest_gateway::metrics::ALL,
        fleetlog_processor::metrics::ALL,
        fleetlog_aggregator::metrics::ALL,
        fleetlog_query_api::metrics::ALL,
        fleetlog_log::metrics::ALL,
    ]
    .concat()
}

/// The reference as Markdown.
pub fn reference() -> String {
    let mut text = String::from(
        "# Reference\n\nGenerated from the code; `FLEETLOG_UPDATE_DOCS=1 cargo test -p fleetlog-standalone` rewrites it.\n\n\
         ## Configuration\n\nDefaults < file (TOML) < environment (`FLEETLOG__SECTION__KEY`) < flags (`--set section.key=value`). \
         A key that does not exist is an error at start.\n",
    );
    let mut current = String::new();
    for key in config_keys() {
        if section(&key) != current {
            current = section(&key).to_owned();
            line(
                &mut text,
                &format!("\n### `[{current}]`\n\n| key | default | what it does |\n|---|---|---|"),
            );
        }
        let name = key.key.split_once('.').map_or(key.key.as_str(), |(_, name)| name);
        line(&mut text, &format!("| `{name}` | `{}` | {} |", key.default, cell(&key.doc)));
    }
    line(
        &mut text,
        "\n## Metrics\n\nServed at `/metrics` in the Prometheus text format.\n\n| metric | kind | meaning |\n|---|---|---|",
    );
    for metric in metrics() {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        line(&mut text, &format!("| `{}` | {kind} | {} |", metric.name, cell(metric.help)));
    }
    answers(&mut text);
    text
}

/// What a refused sender is told.
fn answers(text: &mut String) {
    line(
        text,
        "\n## Answers of the gateway\n\nA refused request is told one of these codes, in the words of the API it used; nothing \
         of it is accepted. Where seconds are given, `Retry-After` (gRPC: `RetryInfo`) says these or more, and the request may be \
         sent again then. Opik's clients are told 429 then, because they keep only what was refused so.\n\n\
         | code | HTTP | gRPC | again after | meaning |\n|---|---|---|---|---|",
    );
    for code in fleetlog_ingest_gateway::error_codes() {
        let again = code.retry_after_seconds.map_or_else(|| "–".to_owned(), |seconds| format!("{seconds} s"));
        line(
            text,
            &format!(
                "| `{}` | {} | {} | {again} | {} |",
                code.code,
                code.http,
                code.grpc,
                cell(code.meaning)
            ),
        );
    }
    line(
        text,
        "\nSingle records are rejected by their index with one of these, while the others are accepted.\n\n\
         | code | meaning |\n|---|---|",
    );
    for (code, meaning) in fleetlog_ingest_gateway::RECORD_CODES {
        line(text, &format!("| `{code}` | {} |", cell(meaning)));
    }
}

fn line(text: &mut String, line: &str) {
    // Writing to a String cannot fail.
    let _infallible = writeln!(text, "{line}");
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_reference_in_the_repository_is_what_the_code_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference.md");
        let generated = reference();
        if std::env::var_os("FLEETLOG_UPDATE_DOCS").is_some() {
            std::fs::write(&path, &generated).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        similar_asserts::assert_eq!(committed, generated);
    }

    #[test]
    fn no_key_and_no_metric_is_declared_twice() {
        let keys = config_keys();
        assert_eq!(keys.iter().map(|key| &key.key).collect::<BTreeSet<_>>().len(), keys.len());
        let metrics = metrics();
        assert_eq!(metrics.iter().map(|metric| metric.name).collect::<BTreeSet<_>>().len(), metrics.len());
    }
}
