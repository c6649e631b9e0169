//! What a call costs by a versioned table of list prices.
//!
//! The table is data: `data/prices.toml`, and before it a file of the operator's. Rates are kept as whole trillionths of a
//! dollar per token and summed as integers; the sum is rounded once, half up, to a billionth of a dollar, so a cost does
//! not depend on the order of addition. Nothing is guessed: a model, host, service tier or time for which the table has no
//! price gives no computed cost, and a word that says why. The cost the sender reported is never touched.
//!
//! [`Usage`] is all that a cost depends on. The processor asks for what one record states ([`PriceTable::enrich`]), the
//! derivations for what several records make together ([`PriceTable::cost`]).

mod config;
mod file;
mod name;
mod pattern;
mod terms;

use std::collections::HashMap;

use fleetlog_schemas::event::{AgentEvent, Channel, EventType, TokenBasis, UsageRole};
use fleetlog_schemas::id::NanoUsd;
use thiserror::Error;

pub use config::PricesConfig;
use name::ModelName;
pub use pattern::ModelPattern;
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
    /// The sum of several calls, of which some may have been long enough for other rates.
    UnknownLength,
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
            Self::UnknownLength => "unknown_length",
            Self::Absurd => "absurd",
        }
    }
}

/// The six disjoint buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Input neither read from nor written to a cache.
    pub in_uncached: u64,
    /// Input read from a cache.
    pub cache_read: u64,
    /// Input written to a 5-minute cache.
    pub cache_write_5m: u64,
    /// Input written to a 1-hour cache.
    pub cache_write_1h: u64,
    /// Output that is not reasoning.
    pub out_visible: u64,
    /// Output spent on reasoning.
    pub out_reasoning: u64,
}

impl Tokens {
    /// Input of every kind; whatever a sender claims, the sum does not overflow.
    fn input(&self) -> u64 {
        [self.cache_read, self.cache_write_5m, self.cache_write_1h]
            .into_iter()
            .fold(self.in_uncached, u64::saturating_add)
    }

    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// All that the cost of a call depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage<'a> {
    /// Model that answered, else the one asked for.
    pub model: &'a str,
    /// Provider; empty where it is not known.
    pub provider: &'a str,
    /// Time of the call, nanoseconds UTC.
    pub time_ns: i64,
    /// Service tier; empty for the standard one.
    pub tier: &'a str,
    /// Place where it was served, if that was chosen.
    pub geo: &'a str,
    /// What it used.
    pub tokens: Tokens,
    /// By which convention these were obtained.
    pub basis: TokenBasis,
    /// Channel that states them.
    pub channel: Channel,
    /// Whether they may be the sum of several calls.
    pub is_sum: bool,
}

impl<'a> Usage<'a> {
    /// What one event states by itself.
    pub fn of(event: &'a AgentEvent) -> Self {
        Self {
            model: if event.model.is_empty() { &event.model_requested } else { &event.model },
            provider: &event.provider,
            time_ns: event.timestamp,
            tier: &event.service_tier,
            geo: &event.inference_geo,
            tokens: Tokens {
                in_uncached: event.in_uncached,
                cache_read: event.cache_read,
                cache_write_5m: event.cache_write_5m,
                cache_write_1h: event.cache_write_1h,
                out_visible: event.out_visible,
                out_reasoning: event.out_reasoning,
            },
            basis: event.token_basis,
            channel: event.channel,
            is_sum: false,
        }
    }

    /// Whether the cost of the one is the cost of the other by every table: prices change by the hour.
    pub fn costs_as(&self, other: &Usage<'_>) -> bool {
        let hour = |usage: &Usage<'_>| usage.time_ns.div_euclid(NANOS_PER_HOUR);
        hour(self) == hour(other)
            && self.model == other.model
            && self.provider == other.provider
            && (self.tier, self.geo) == (other.tier, other.geo)
            && self.tokens == other.tokens
            && self.is_sum == other.is_sum
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

    /// The table of these texts, the preferred one first.
    ///
    /// # Errors
    /// [`PriceError`] naming the line and the field.
    pub fn of_sheets<'s>(texts: impl IntoIterator<Item = &'s str>) -> Result<Self, PriceError> {
        Ok(Self { sheets: texts.into_iter().map(file::parse).collect::<Result<_, _>>()? })
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

    /// Sets the terms of an event that is or may be part of a call to a model, and its computed cost when it states one
    /// call by itself; else says why it has none.
    pub fn enrich(&self, event: &mut AgentEvent) -> Option<Unpriced> {
        // A piece that does not say of what it is may belong to a call.
        let piece = event.event_type == EventType::Span && event.revision > 0;
        if event.usage_role == UsageRole::Call || event.event_type.is_llm() || piece {
            let terms = Terms::of(&event.data);
            (event.service_tier, event.inference_geo) = (terms.tier, terms.geo);
        }
        if event.usage_role != UsageRole::Call {
            return None;
        }
        match self.cost(&Usage::of(event)) {
            Ok((cost, version)) => {
                version.clone_into(&mut event.price_version);
                event.cost_computed = Some(cost);
                None
            }
            Err(why) => Some(why),
        }
    }

    /// What a call costs, and the version of the table that says so.
    ///
    /// # Errors
    /// Why it has no price.
    pub fn cost(&self, usage: &Usage<'_>) -> Result<(NanoUsd, &str), Unpriced> {
        // A universal event may state a bare total: the split, and so the price, is not known.
        let bare_total = usage.basis == TokenBasis::Guessed && usage.channel == Channel::Api;
        let silent = usage.tokens.is_none() && usage.basis == TokenBasis::None;
        if bare_total || silent {
            return Err(Unpriced::NoTokens);
        }
        if usage.model.is_empty() {
            return Err(Unpriced::NoModel);
        }
        let name = ModelName::of(usage.model);
        let mut why = Unpriced::UnknownModel;
        for sheet in &self.sheets {
            match sheet.price(&name, usage) {
                Ok(_) if name.free => return Ok((NanoUsd(0), &sheet.version)),
                Ok(price) => return price.charge(usage).map(|cost| (cost, sheet.version.as_str())),
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

    fn price(&self, name: &ModelName, usage: &Usage<'_>) -> Result<&Price, Unpriced> {
        let listed = name.candidates.iter().find_map(|name| self.models.get(name));
        let prices = || listed.into_iter().flatten().filter_map(|index| self.prices.get(*index));
        if listed.is_none() {
            return Err(Unpriced::UnknownModel);
        }
        let provider = usage.provider.to_ascii_lowercase();
        let hosted = |price: &&Price| price.is_of(&name.host) && price.is_of(&provider);
        if !prices().any(|price| hosted(&price)) {
            return Err(Unpriced::OtherHost);
        }
        let mut then = prices().filter(hosted).filter(|price| price.holds_at(usage.time_ns));
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

    fn charge(&self, usage: &Usage<'_>) -> Result<NanoUsd, Unpriced> {
        let tiered = || self.tiers.iter().find(|(name, _)| name == usage.tier).map(|(_, scheme)| scheme);
        let scheme = match usage.tier {
            "" => &self.standard,
            _ => tiered().ok_or(Unpriced::UnknownTier)?,
        };
        let input = usage.tokens.input();
        if scheme.ends_above.is_some_and(|above| input > above) {
            return Err(Unpriced::UnknownTier);
        }
        let step = scheme.long.iter().rev().find(|(above, _)| input > *above);
        if step.is_some() && usage.is_sum {
            return Err(Unpriced::UnknownLength);
        }
        let mut rates = step.map_or(scheme.base, |(_, rates)| *rates);
        if !usage.geo.is_empty() && !self.geo.is_empty() {
            let place = self.geo.iter().find(|(name, _)| name == usage.geo);
            rates = rates.times(place.ok_or(Unpriced::UnknownTier)?.1);
        }
        rates.charge(&usage.tokens).ok_or(Unpriced::Absurd)
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

    /// The cost of tokens, rounded half up; `None` when no amount of money can say it.
    fn charge(self, counts: &Tokens) -> Option<NanoUsd> {
        let charge = |tokens: u64, rate: i64| i128::from(tokens) * i128::from(rate);
        let pico = charge(counts.in_uncached, self.input)
            + charge(counts.cache_read, self.cache_read)
            + charge(counts.cache_write_5m, self.cache_write_5m)
            + charge(counts.cache_write_1h, self.cache_write_1h)
            + charge(counts.out_visible, self.output)
            + charge(counts.out_reasoning, self.reasoning);
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
