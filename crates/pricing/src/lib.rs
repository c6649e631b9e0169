//! What a call costs by a versioned table of list prices.
//!
//! The table is data: `data/prices.toml`, and before it a file of the operator's. Rates are kept as whole trillionths of a
//! dollar per token and summed as integers; the sum is rounded once, half up, to a billionth of a dollar, so a cost does
//! not depend on the order of addition. Nothing is guessed: a model, host, service tier or time for which the table has no
//! price gives no computed cost, and a word that says why. The cost the sender reported is never touched.

mod config;
mod file;
mod name;
mod terms;

use std::collections::HashMap;
use std::path::Path;

use fleetlog_schemas::event::{AgentEvent, Channel, TokenBasis, UsageRole};
use fleetlog_schemas::id::NanoUsd;
use thiserror::Error;

pub use config::PricesConfig;
use name::ModelName;
use terms::Terms;

/// The table that is compiled in.
const BUILT_IN: &str = include_str!("../data/prices.toml");
const NANOS_PER_HOUR: i64 = 3_600_000_000_000;

/// A price table cannot be used.
#[derive(Debug, Error)]
pub enum PriceError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// It is not the TOML that is expected.
    #[error("{0}")]
    Malformed(#[from] toml::de::Error),
    /// It has no version, which every cost must name.
    #[error("version: is empty")]
    NoVersion,
    /// An entry makes no sense.
    #[error("line {line}: the price of {model}: {field} {problem}")]
    Entry {
        /// The entry's first line.
        line: usize,
        /// The entry's model.
        model: String,
        /// The field.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Why a call has no computed cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unpriced {
    /// The call names no model.
    NoModel,
    /// No table knows the model.
    UnknownModel,
    /// The model's price is that of other hosts.
    OtherHost,
    /// The table has no price for the time of the call.
    NoPriceThen,
    /// The table has no price for the service tier, or for a call of this length in it.
    UnknownTier,
    /// Only a sum of tokens is stated, or none.
    NoTokens,
    /// The tokens stated would cost more than can be expressed.
    Absurd,
}

impl Unpriced {
    /// The word for it, as a metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoModel => "no_model",
            Self::UnknownModel => "unknown_model",
            Self::OtherHost => "other_host",
            Self::NoPriceThen => "no_price_then",
            Self::UnknownTier => "unknown_tier",
            Self::NoTokens => "no_tokens",
            Self::Absurd => "absurd",
        }
    }
}

/// Trillionths of a dollar per token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rates {
    input: i64,
    cache_read: i64,
    cache_write_5m: i64,
    cache_write_1h: i64,
    output: i64,
    reasoning: i64,
}

/// The rates of one service tier.
#[derive(Clone, Debug)]
struct Scheme {
    base: Rates,
    /// Rates of a call whose input is above a threshold, by ascending threshold.
    long: Vec<(u64, Rates)>,
    /// Above this input, what a call costs is not known.
    ends_above: Option<u64>,
}

/// Hours of a day, UTC, the last one excluded.
#[derive(Clone, Copy, Debug)]
struct Hours {
    from: u8,
    until: u8,
}

#[derive(Clone, Debug)]
struct Price {
    from_ns: i64,
    until_ns: i64,
    hours: Option<Hours>,
    /// Hosts whose price it is; anybody's when empty.
    hosts: Vec<String>,
    standard: Scheme,
    tiers: Vec<(String, Scheme)>,
    /// Factors in millionths, by place.
    geo: Vec<(String, i64)>,
}

/// The prices of one file.
#[derive(Clone, Debug, Default)]
struct Sheet {
    version: String,
    prices: Vec<Price>,
    /// Indexes of `prices` by model, the one that takes precedence first.
    models: HashMap<String, Vec<usize>>,
}

/// Prices by model, each with the time for which it holds.
#[derive(Clone, Debug)]
pub struct PriceTable {
    /// The operator's before the one that ships.
    sheets: Vec<Sheet>,
}

impl PriceTable {
    /// The table that ships with this version.
    ///
    /// # Errors
    /// [`PriceError`] when the shipped data is broken, which a test excludes.
    pub fn built_in() -> Result<Self, PriceError> {
        Ok(Self { sheets: vec![file::parse(BUILT_IN)?] })
    }

    /// The table that ships, and before it the one in an operator's file.
    ///
    /// # Errors
    /// [`PriceError`] naming the line and the field.
    pub fn with_file(path: &Path) -> Result<Self, PriceError> {
        Self::built_in()?.preferring(&std::fs::read_to_string(path)?)
    }

    /// This table, and before it the one in `text`.
    ///
    /// # Errors
    /// [`PriceError`] naming the line and the field.
    pub fn preferring(mut self, text: &str) -> Result<Self, PriceError> {
        self.sheets.insert(0, file::parse(text)?);
        Ok(self)
    }

    /// Versions of the tables in use, the preferred one first.
    pub fn versions(&self) -> impl Iterator<Item = &str> {
        self.sheets.iter().map(|sheet| sheet.version.as_str())
    }

    /// Sets the computed cost of an event that states one call to a model, or says why it has none.
    pub fn enrich(&self, event: &mut AgentEvent) -> Option<Unpriced> {
        if event.usage_role != UsageRole::Call {
            return None;
        }
        match self.cost(event) {
            Ok((cost, version)) => {
                event.cost_computed = Some(cost);
                version.clone_into(&mut event.price_version);
                None
            }
            Err(why) => Some(why),
        }
    }

    fn cost(&self, event: &AgentEvent) -> Result<(NanoUsd, &str), Unpriced> {
        // A universal event may state a bare total: the split, and so the price, is not known.
        let bare_total = event.token_basis == TokenBasis::Guessed && event.channel == Channel::Api;
        let silent = event.in_total() == 0 && event.out_total() == 0 && event.token_basis == TokenBasis::None;
        if bare_total || silent {
            return Err(Unpriced::NoTokens);
        }
        let model = if event.model.is_empty() { &event.model_requested } else { &event.model };
        if model.is_empty() {
            return Err(Unpriced::NoModel);
        }
        let name = ModelName::of(model);
        let mut why = Unpriced::UnknownModel;
        for sheet in &self.sheets {
            match sheet.price(&name, event) {
                Ok(_) if name.free => return Ok((NanoUsd(0), &sheet.version)),
                Ok(price) => return price.charge(event).map(|cost| (cost, sheet.version.as_str())),
                Err(closer) => why = why.max(closer),
            }
        }
        Err(why)
    }
}

impl Sheet {
    /// Puts the prices of every model into the order in which they take precedence: the later, then the narrower.
    fn sort(&mut self) {
        let Self { prices, models, .. } = self;
        for of_model in models.values_mut() {
            let rank = |index: &usize| prices.get(*index).map(|price| (price.from_ns, price.hours.is_some()));
            of_model.sort_by_key(|index| std::cmp::Reverse(rank(index)));
        }
    }

    fn price(&self, name: &ModelName, event: &AgentEvent) -> Result<&Price, Unpriced> {
        let listed = name.candidates.iter().find_map(|name| self.models.get(name));
        let prices = || listed.into_iter().flatten().filter_map(|index| self.prices.get(*index));
        if listed.is_none() {
            return Err(Unpriced::UnknownModel);
        }
        let provider = event.provider.to_ascii_lowercase();
        let hosted = |price: &&Price| price.is_of(&name.host) && price.is_of(&provider);
        if !prices().any(|price| hosted(&price)) {
            return Err(Unpriced::OtherHost);
        }
        let mut then = prices().filter(hosted).filter(|price| price.holds_at(event.timestamp));
        then.next().ok_or(Unpriced::NoPriceThen)
    }
}

impl Price {
    fn is_of(&self, host: &str) -> bool {
        host.is_empty() || self.hosts.is_empty() || self.hosts.iter().any(|listed| listed == host)
    }

    fn holds_at(&self, time_ns: i64) -> bool {
        let hour = time_ns.div_euclid(NANOS_PER_HOUR).rem_euclid(24);
        let within = |hours: Hours| (i64::from(hours.from)..i64::from(hours.until)).contains(&hour);
        (self.from_ns..self.until_ns).contains(&time_ns) && self.hours.is_none_or(within)
    }

    fn charge(&self, event: &AgentEvent) -> Result<NanoUsd, Unpriced> {
        let terms = Terms::of(&event.data);
        let tiered = || self.tiers.iter().find(|(name, _)| *name == terms.tier).map(|(_, scheme)| scheme);
        let scheme = match terms.tier.as_str() {
            "" => &self.standard,
            _ => tiered().ok_or(Unpriced::UnknownTier)?,
        };
        let input = event.in_total();
        if scheme.ends_above.is_some_and(|above| input > above) {
            return Err(Unpriced::UnknownTier);
        }
        let step = scheme.long.iter().rev().find(|(above, _)| input > *above);
        let mut rates = step.map_or(scheme.base, |(_, rates)| *rates);
        if !terms.geo.is_empty() && !self.geo.is_empty() {
            let place = self.geo.iter().find(|(name, _)| *name == terms.geo);
            rates = rates.times(place.ok_or(Unpriced::UnknownTier)?.1);
        }
        rates.charge(event).ok_or(Unpriced::Absurd)
    }
}

impl Rates {
    /// These rates times a factor in millionths, rounded half up.
    fn times(self, factor: i64) -> Self {
        let times = |rate: i64| {
            let product = i128::from(rate) * i128::from(factor) + 500_000;
            i64::try_from(product / 1_000_000).unwrap_or(i64::MAX)
        };
        Self {
            input: times(self.input),
            cache_read: times(self.cache_read),
            cache_write_5m: times(self.cache_write_5m),
            cache_write_1h: times(self.cache_write_1h),
            output: times(self.output),
            reasoning: times(self.reasoning),
        }
    }

    /// The cost of an event's tokens, rounded half up; `None` when no amount of money can say it.
    fn charge(self, event: &AgentEvent) -> Option<NanoUsd> {
        let charge = |tokens: u64, rate: i64| i128::from(tokens) * i128::from(rate);
        let pico = charge(event.in_uncached, self.input)
            + charge(event.cache_read, self.cache_read)
            + charge(event.cache_write_5m, self.cache_write_5m)
            + charge(event.cache_write_1h, self.cache_write_1h)
            + charge(event.out_visible, self.output)
            + charge(event.out_reasoning, self.reasoning);
        i64::try_from((pico + 500) / 1000).ok().map(NanoUsd)
    }
}

/// A scheme times a factor in millionths.
fn scaled(scheme: &Scheme, factor: i64) -> Scheme {
    Scheme {
        base: scheme.base.times(factor),
        long: scheme.long.iter().map(|(above, rates)| (*above, rates.times(factor))).collect(),
        ends_above: scheme.ends_above,
    }
}

#[cfg(test)]
mod tests;
