//! `fleetlog rederive`: everything derived, recomputed from its facts.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use fleetlog_aggregator::{Config, Rederivation, Report, Step, rederive};
use fleetlog_runtime::SettingsError;
use fleetlog_store::derived::{Range, hour_of};
use indicatif::{ProgressBar, ProgressStyle};
use time::format_description::well_known::{Iso8601, Rfc3339};
use time::{Date, OffsetDateTime, Time};

use crate::ConfigArgs;
use crate::output::{complain, say};

/// What is stored differs from what the facts say.
const DIFFERS: u8 = 1;
/// It could not be found out.
pub(crate) const FAILED: u8 = 2;

/// Recomputes sessions, traces, calls and usage from the events, and writes anew what differs.
///
/// A difference is a defect, or the work of a newer version or price table; after it, the numbers are right. Safe
/// beside a running system, and at any time to be ended and begun again. Reads ClickHouse alone: the configuration
/// must name the same `clickhouse` and `prices` as the aggregator's.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 nothing differs, or all that differed is written anew; 1 --check found differences; \
    2 failed; 64 the configuration cannot work."
)]
pub(crate) struct Rederive {
    #[command(flatten)]
    config: ConfigArgs,
    /// Only this project
    #[arg(long)]
    project: Option<String>,
    /// Only groups with events at or after this time (RFC 3339, or a date), to the hour; each is recomputed whole
    #[arg(long, value_parser = instant, value_name = "TIME")]
    from: Option<i64>,
    /// Only groups with events before this time, to the hour
    #[arg(long, value_parser = instant, value_name = "TIME")]
    to: Option<i64>,
    /// Compare only, and say what differs
    #[arg(long)]
    check: bool,
    /// The result as one JSON object
    #[arg(long)]
    json: bool,
}

impl Rederive {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        match self.rederive().await {
            Ok(report) => {
                say(&if self.json { json(&report, self.check) } else { text(&report, self.check) });
                let differs = self.check && !report.agrees();
                Ok(if differs { ExitCode::from(DIFFERS) } else { ExitCode::SUCCESS })
            }
            Err(e) if e.is::<SettingsError>() => Err(e),
            Err(e) => Ok(failed(&e, FAILED)),
        }
    }

    async fn rederive(&self) -> anyhow::Result<Report> {
        let config = Config::from_settings(&self.config.load()?)?;
        let hours = match (self.from, self.to) {
            (None, None) => None,
            (from, to) => {
                let last = to.map_or(i32::MAX, |to| hour_of(to.saturating_sub(1)));
                Some((from.map_or(i32::MIN, hour_of), last))
            }
        };
        let range = Range { project_id: self.project.clone().unwrap_or_default(), hours };
        let what = Rederivation { range, check: self.check };
        let bar = bar();
        let url = &config.clickhouse.url;
        let report = rederive(&config, &what, |step| advance(&bar, step)).await;
        bar.finish_and_clear();
        report.with_context(|| format!("ClickHouse at {url}"))
    }
}

pub(crate) fn failed(error: &anyhow::Error, code: u8) -> ExitCode {
    complain(&format!("{error:#}"));
    ExitCode::from(code)
}

/// On stderr, and only where somebody looks.
pub(crate) fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} hours with events, {msg}") {
        bar.set_style(style);
    }
    bar
}

pub(crate) fn advance(bar: &ProgressBar, step: Step) {
    bar.set_length(step.of as u64);
    bar.set_position(step.hours as u64);
    bar.set_message(format!("{} groups, {} differ", step.groups, step.differing));
}

/// A time as RFC 3339, or the start of a date in UTC; nanoseconds since the epoch.
pub(crate) fn instant(text: &str) -> Result<i64, String> {
    let at = match OffsetDateTime::parse(text, &Rfc3339) {
        Ok(at) => at,
        Err(_) => Date::parse(text, &Iso8601::DATE)
            .map_err(|_| "expected a time such as 2026-11-29T12:00:00Z, or a date".to_owned())?
            .with_time(Time::MIDNIGHT)
            .assume_utc(),
    };
    i64::try_from(at.unix_timestamp_nanos()).map_err(|_| "is out of range".to_owned())
}

pub(crate) fn text(report: &Report, check: bool) -> String {
    let mut text = format!("{} groups compared, {} differ", report.groups, report.differing);
    let mut line = |line: String| {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "\n{line}");
    };
    for (table, count) in &report.by_table {
        line(format!("{table}: {count}{}", if check { "" } else { " written anew" }));
    }
    if report.expired > 0 {
        line(format!("{} keep what is stored of events that have expired", report.expired));
    }
    if report.more_usage {
        line("usage: at least; more differs than was counted".to_owned());
    }
    if report.waiting > 0 {
        line(format!("{} not told: an aggregator is at work on them", report.waiting));
    }
    report.examples.iter().for_each(|example| line(format!("  {example}")));
    text
}

pub(crate) fn json(report: &Report, check: bool) -> String {
    serde_json::json!({
        "check": check,
        "groups": report.groups,
        "differing": report.differing,
        "by_table": report.by_table,
        "expired": report.expired,
        "waiting": report.waiting,
        "more_usage": report.more_usage,
        "examples": report.examples,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_rfc_3339_or_a_date() {
        assert_eq!(instant("1970-01-01T00:00:01+00:00"), Ok(1_000_000_000));
        assert_eq!(instant("1970-01-02"), Ok(86_400_000_000_000));
        assert!(instant("yesterday").is_err() && instant("9999-01-01").is_err());
    }

    #[test]
    fn a_report_says_what_differs_and_what_was_left() {
        let mut report = Report { groups: 7, ..Report::default() };
        assert_eq!(text(&report, true), "7 groups compared, 0 differ");
        report.differing = 1;
        report.by_table.insert("session_groups", 1);
        report.examples.push("session_groups: project p, session s: calls.model".to_owned());
        report.expired = 2;
        (report.waiting, report.more_usage) = (3, true);
        let said = text(&report, true);
        assert!(said.contains("\n3 not told") && said.contains("\nusage: at least"), "{said}");
        assert!(said.contains("\nsession_groups: 1\n2 keep what is stored") && said.ends_with("calls.model"));
        assert!(text(&report, false).contains("session_groups: 1 written anew"));
        let json: serde_json::Value = serde_json::from_str(&json(&report, true)).unwrap();
        assert_eq!((&json["differing"], &json["by_table"]["session_groups"]), (&1.into(), &1.into()));
    }
}
