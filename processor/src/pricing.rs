//! What a call costs by a versioned table of list prices.
//!
//! The table is data (`data/prices.toml`, or a file of the operator's). Rates are kept as whole trillionths of a dollar
//! per token and summed as integers, so a cost is exact to the billionth and does not depend on the order of addition.
//! The cost the sender reported is never touched: the two stand side by side.

use std::collections::HashMap;

use fleetlog_schemas::event::{AgentEvent, Channel, TokenBasis, UsageRole};
use fleetlog_schemas::id::NanoUsd;
use serde::Deserialize;
use thiserror::Error;
use time::format_description::well_known::Iso8601;
use time::{Date, Time};

/// The table that is compiled in.
const BUILT_IN: &str = include_str!("../data/prices.toml");
/// Trillionths of a dollar per token, for one dollar per million tokens.
const PICO_PER_DOLLAR_PER_MILLION: f64 = 1e6;

/// A price table cannot be used.
#[derive(Debug, Error)]
pub enum PriceError {
    /// It is not the TOML that is expected.
    #[error("the price table is malformed: {0}")]
    Malformed(#[from] toml::de::Error),
    /// An entry makes no sense.
    #[error("the price of {model}: {problem}")]
    Entry {
        /// The entry's model.
        model: String,
        /// What is wrong with it.
        problem: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: String,
    #[serde(rename = "source")]
    _source: String,
    #[serde(rename = "licence")]
    _licence: String,
    price: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    model: String,
    from: String,
    input: f64,
    cache_read: Option<f64>,
    cache_write_5m: Option<f64>,
    cache_write_1h: Option<f64>,
    output: f64,
    long: Option<Long>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Long {
    above: u64,
    input: f64,
    cache_read: Option<f64>,
    cache_write_5m: Option<f64>,
    cache_write_1h: Option<f64>,
    output: f64,
}

/// Trillionths of a dollar per token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rates {
    input: i64,
    cache_read: i64,
    cache_write_5m: i64,
    cache_write_1h: i64,
    output: i64,
}

#[derive(Clone, Debug)]
struct Price {
    from_ns: i64,
    rates: Rates,
    long: Option<(u64, Rates)>,
}

/// Prices by model, each with the time from which it holds.
#[derive(Clone, Debug)]
pub struct PriceTable {
    version: String,
    /// By model; a model's prices are sorted by the time from which they hold.
    models: HashMap<String, Vec<Price>>,
}

impl PriceTable {
    /// The table that ships with this version.
    ///
    /// # Errors
    /// [`PriceError`] when the shipped data is broken, which a test excludes.
    pub fn built_in() -> Result<Self, PriceError> {
        Self::parse(BUILT_IN)
    }

    /// A table from TOML text.
    ///
    /// # Errors
    /// [`PriceError`] naming the entry.
    pub fn parse(text: &str) -> Result<Self, PriceError> {
        let file: File = toml::from_str(text)?;
        let mut models: HashMap<String, Vec<Price>> = HashMap::new();
        for entry in file.price {
            let price = entry.price()?;
            models.entry(normalised(&entry.model)).or_default().push(price);
        }
        for prices in models.values_mut() {
            prices.sort_by_key(|price| price.from_ns);
        }
        Ok(Self { version: file.version, models })
    }

    /// The table's version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Sets the computed cost of an event that states one call of a model with a known price.
    pub fn enrich(&self, event: &mut AgentEvent) {
        // A universal event may state a bare total: the split, and so the price, is not known.
        let bare_total = event.token_basis == TokenBasis::Guessed && event.channel == Channel::Api;
        if event.usage_role != UsageRole::Call || bare_total {
            return;
        }
        let model = if event.model.is_empty() { &event.model_requested } else { &event.model };
        if let Some(cost) = self.cost(model, event) {
            event.cost_computed = Some(cost);
            event.price_version.clone_from(&self.version);
        }
    }

    fn cost(&self, model: &str, event: &AgentEvent) -> Option<NanoUsd> {
        let prices = self.models.get(&normalised(model))?;
        // A call before the first known price is charged by it: the table does not reach further back.
        let price = prices.iter().rev().find(|price| price.from_ns <= event.timestamp).or(prices.first())?;
        let rates = match &price.long {
            Some((above, long)) if event.in_total() > *above => long,
            _ => &price.rates,
        };
        let charge = |tokens: u64, rate: i64| i128::from(tokens) * i128::from(rate);
        let pico = charge(event.in_uncached, rates.input)
            + charge(event.cache_read, rates.cache_read)
            + charge(event.cache_write_5m, rates.cache_write_5m)
            + charge(event.cache_write_1h, rates.cache_write_1h)
            + charge(event.out_total(), rates.output);
        i64::try_from((pico + 500) / 1000).ok().map(NanoUsd)
    }
}

impl Entry {
    fn price(&self) -> Result<Price, PriceError> {
        let wrong = |problem: String| PriceError::Entry { model: self.model.clone(), problem };
        let date = Date::parse(&self.from, &Iso8601::DATE).map_err(|e| wrong(format!("from: {e}")))?;
        let from_ns = date.with_time(Time::MIDNIGHT).assume_utc().unix_timestamp_nanos();
        let given = [self.input, self.output].into_iter();
        let optional = [self.cache_read, self.cache_write_5m, self.cache_write_1h].into_iter().flatten();
        if given.chain(optional).any(|rate| !rate.is_finite() || !(0.0..=100_000.0).contains(&rate)) {
            return Err(wrong("a rate is negative or absurd".to_owned()));
        }
        Ok(Price {
            from_ns: i64::try_from(from_ns).map_err(|e| wrong(format!("from: {e}")))?,
            rates: Rates::new(
                self.input,
                self.cache_read,
                self.cache_write_5m,
                self.cache_write_1h,
                self.output,
            ),
            long: self.long.as_ref().map(|long| {
                let writes = (long.cache_write_5m, long.cache_write_1h);
                (long.above, Rates::new(long.input, long.cache_read, writes.0, writes.1, long.output))
            }),
        })
    }
}

impl Rates {
    fn new(input: f64, read: Option<f64>, write_5m: Option<f64>, write_1h: Option<f64>, output: f64) -> Self {
        let pico = |dollars: f64| (dollars * PICO_PER_DOLLAR_PER_MILLION).round() as i64;
        Self {
            input: pico(input),
            cache_read: pico(read.unwrap_or(input)),
            cache_write_5m: pico(write_5m.unwrap_or(input)),
            cache_write_1h: pico(write_1h.or(write_5m).unwrap_or(input)),
            output: pico(output),
        }
    }
}

/// The name by which a model is looked up: without provider, region, date, revision and context-size suffixes.
///
/// `us.anthropic.claude-sonnet-4-5-20250929-v1:0`, `anthropic/claude-sonnet-4-5` and `claude-sonnet-4-5[1m]` are one model.
fn normalised(model: &str) -> String {
    let lower = model.to_ascii_lowercase();
    let mut name = lower.rsplit('/').next().unwrap_or_default();
    for vendor in ["anthropic.", "openai.", "google."] {
        if let Some((_region, rest)) = name.split_once(vendor) {
            name = rest;
        }
    }
    name = name.split(['[', '@', ':']).next().unwrap_or_default();
    loop {
        let Some((rest, last)) = name.rsplit_once('-') else { return name.to_owned() };
        let digits = last.chars().all(|c| c.is_ascii_digit());
        let dated = digits && last.len() == 8;
        let revised = last == "latest" || last.strip_prefix('v').is_some_and(|n| n.parse::<u8>().is_ok());
        if dated || revised {
            name = rest;
        } else if let Some(undated) = without_iso_date(name) {
            name = undated;
        } else {
            return name.to_owned();
        }
    }
}

/// `gpt-5-2025-08-07` without its date.
fn without_iso_date(name: &str) -> Option<&str> {
    let (rest, date) = name.split_at_checked(name.len().checked_sub(11)?)?;
    let shape = |(i, c): (usize, char)| if matches!(i, 0 | 5 | 8) { c == '-' } else { c.is_ascii_digit() };
    (date.char_indices().all(shape) && !rest.is_empty()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(model: &str) -> AgentEvent {
        AgentEvent {
            usage_role: UsageRole::Call,
            model: model.into(),
            timestamp: 1_795_264_656_000_000_000,
            ..AgentEvent::default()
        }
    }

    #[test]
    fn a_recorded_claude_call_costs_what_the_client_said() {
        let prices = PriceTable::built_in().unwrap();
        let mut event = AgentEvent {
            in_uncached: 21,
            out_visible: 17,
            cache_write_5m: 300,
            cache_read: 4000,
            ..call("claude-sonnet-4-5")
        };
        prices.enrich(&mut event);
        assert_eq!(event.cost_computed, Some(NanoUsd(2_643_000)));
        assert_eq!(event.price_version, prices.version());
    }

    #[test]
    fn cached_and_reasoning_tokens_are_charged_by_their_own_rates() {
        let prices = PriceTable::built_in().unwrap();
        let mut event = AgentEvent {
            in_uncached: 400,
            cache_read: 2_000,
            out_visible: 60,
            out_reasoning: 40,
            ..call("gpt-5-2025-08-07")
        };
        prices.enrich(&mut event);
        assert_eq!(event.cost_computed, Some(NanoUsd(1_750_000)));
    }

    #[test]
    fn a_long_context_is_charged_by_its_own_tier() {
        let prices = PriceTable::built_in().unwrap();
        let mut short = AgentEvent { in_uncached: 200_000, ..call("gemini-2.5-pro") };
        let mut long = AgentEvent { in_uncached: 200_001, ..call("gemini-2.5-pro") };
        prices.enrich(&mut short);
        prices.enrich(&mut long);
        assert_eq!(short.cost_computed, NanoUsd::from_usd(0.25));
        assert_eq!(long.cost_computed, Some(NanoUsd(500_002_500)));
    }

    #[test]
    fn a_price_holds_from_its_date_on() {
        let table = |from: &str, input: f64| {
            format!("[[price]]\nmodel=\"m\"\nfrom=\"{from}\"\ninput={input:.1}\noutput=0.0\n")
        };
        let text = format!(
            "version=\"t\"\nsource=\"\"\nlicence=\"\"\n{}{}",
            table("2026-01-01", 2.0),
            table("2025-01-01", 1.0)
        );
        let prices = PriceTable::parse(&text).unwrap();
        let cost = |timestamp: i64| {
            let mut event = AgentEvent { in_uncached: 1_000_000, timestamp, ..call("m") };
            prices.enrich(&mut event);
            event.cost_computed
        };
        let new_year_2026 = 1_767_225_600_000_000_000;
        assert_eq!(cost(new_year_2026 - 1), NanoUsd::from_usd(1.0));
        assert_eq!(cost(new_year_2026), NanoUsd::from_usd(2.0));
        assert_eq!(cost(0), NanoUsd::from_usd(1.0));
    }

    #[test]
    fn an_unknown_model_and_a_rollup_have_no_computed_cost() {
        let prices = PriceTable::built_in().unwrap();
        let mut unknown = AgentEvent { in_uncached: 5, ..call("some-local-model") };
        let mut rollup = AgentEvent { in_uncached: 5, usage_role: UsageRole::Rollup, ..call("gpt-5") };
        prices.enrich(&mut unknown);
        prices.enrich(&mut rollup);
        assert_eq!((unknown.cost_computed, rollup.cost_computed), (None, None));
    }

    #[test]
    fn spellings_of_one_model_are_one_model() {
        for spelling in [
            "claude-sonnet-4-5",
            "claude-sonnet-4-5-20250929",
            "anthropic/claude-sonnet-4-5",
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "claude-sonnet-4-5@20250929",
            "claude-sonnet-4-5[1m]",
            "Claude-Sonnet-4-5",
        ] {
            assert_eq!(normalised(spelling), "claude-sonnet-4-5", "{spelling}");
        }
        assert_eq!(normalised("gpt-4o-2024-08-06"), "gpt-4o");
        assert_eq!(normalised("models/gemini-2.5-pro"), "gemini-2.5-pro");
        assert_eq!(normalised(""), "");
    }

    #[test]
    fn a_broken_table_names_the_entry() {
        let text = "version=\"t\"\nsource=\"\"\nlicence=\"\"\n[[price]]\nmodel=\"m\"\nfrom=\"2025-01-01\"\ninput=-1.0\noutput=0.0";
        assert!(PriceTable::parse(text).unwrap_err().to_string().contains("m: a rate is negative"));
    }
}
