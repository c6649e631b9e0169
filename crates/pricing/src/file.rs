//! The form of a price table in TOML, and what is wrong with one, by line and field.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use time::format_description::well_known::Iso8601;
use time::{Date, Time};
use toml::Spanned;

use super::{Hours, Price, PriceError, Rates, Scheme, Sheet, scaled};

/// Trillionths of a dollar per token, for one dollar per million tokens.
const PICO_PER_DOLLAR_PER_MILLION: f64 = 1e6;
/// Dearest rate that is taken for one, dollars per million tokens.
const DEAREST: f64 = 100_000.0;
/// Largest factor of a service tier that is taken for one.
const LARGEST_FACTOR: f64 = 100.0;
/// Most entries of a table.
const MOST_ENTRIES: usize = 20_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: String,
    #[serde(rename = "source")]
    _source: String,
    #[serde(rename = "licence")]
    _licence: String,
    price: Vec<Spanned<Entry>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    model: String,
    #[serde(default)]
    aliases: Vec<String>,
    #[serde(default)]
    hosts: Vec<String>,
    from: Option<String>,
    until: Option<String>,
    hours: Option<(u8, u8)>,
    input: f64,
    cache_read: Option<f64>,
    cache_write_5m: Option<f64>,
    cache_write_1h: Option<f64>,
    output: f64,
    reasoning: Option<f64>,
    #[serde(default)]
    long: Vec<Long>,
    #[serde(default)]
    tiers: BTreeMap<String, Tier>,
    #[serde(default)]
    geo: BTreeMap<String, f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Long {
    above: u64,
    input: Option<f64>,
    cache_read: Option<f64>,
    cache_write_5m: Option<f64>,
    cache_write_1h: Option<f64>,
    output: Option<f64>,
    reasoning: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TierRates {
    input: Option<f64>,
    cache_read: Option<f64>,
    cache_write_5m: Option<f64>,
    cache_write_1h: Option<f64>,
    output: Option<f64>,
    reasoning: Option<f64>,
    #[serde(default)]
    long: Vec<Long>,
}

/// A service tier: a factor of all rates, or rates of its own.
#[derive(Debug)]
enum Tier {
    Factor(f64),
    Own(Box<TierRates>),
}

impl<'de> Deserialize<'de> for Tier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Tier;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a factor or a table of rates")
            }
            fn visit_f64<E>(self, factor: f64) -> Result<Tier, E> {
                Ok(Tier::Factor(factor))
            }
            fn visit_i64<E>(self, factor: i64) -> Result<Tier, E> {
                Ok(Tier::Factor(factor as f64))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Tier, A::Error> {
                let rates = TierRates::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Tier::Own(Box::new(rates)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A problem of one field.
struct Wrong {
    field: String,
    problem: String,
}

fn wrong(field: &str, problem: impl Into<String>) -> Wrong {
    Wrong { field: field.to_owned(), problem: problem.into() }
}

/// Reads a table.
///
/// # Errors
/// [`PriceError`] naming the line and the field.
pub(super) fn parse(text: &str) -> Result<Sheet, PriceError> {
    let file: File = toml::from_str(text)?;
    if file.version.trim().is_empty() {
        return Err(PriceError::NoVersion);
    }
    let mut sheet = Sheet { version: file.version, ..Sheet::default() };
    for entry in file.price.iter().take(MOST_ENTRIES + 1) {
        let line = 1 + text.get(..entry.span().start).unwrap_or(text).matches('\n').count();
        let entry = entry.get_ref();
        let complain =
            |Wrong { field, problem }| PriceError::Entry { line, model: entry.model.clone(), field, problem };
        if sheet.prices.len() == MOST_ENTRIES {
            return Err(complain(wrong("model", format!("more than {MOST_ENTRIES} prices"))));
        }
        let price = entry.price().map_err(complain)?;
        for name in std::iter::once(&entry.model).chain(&entry.aliases) {
            let name = name.trim().to_ascii_lowercase();
            if name.is_empty() {
                return Err(complain(wrong("model", "is empty")));
            }
            sheet.models.entry(name).or_default().push(sheet.prices.len());
        }
        sheet.prices.push(price);
    }
    sheet.sort();
    Ok(sheet)
}

impl Entry {
    fn price(&self) -> Result<Price, Wrong> {
        let from_ns = self.from.as_deref().map_or(Ok(i64::MIN), |text| moment("from", text))?;
        let until_ns = self.until.as_deref().map_or(Ok(i64::MAX), |text| moment("until", text))?;
        if until_ns <= from_ns {
            return Err(wrong("until", "is not after from"));
        }
        let hours = match self.hours {
            Some((from, until)) if from < until && until <= 24 => Some(Hours { from, until }),
            Some(_) => return Err(wrong("hours", "must be two hours of one day, the earlier first")),
            None => None,
        };
        let base = self.rates()?;
        let mut standard = Scheme { base, long: Vec::new(), ends_above: None };
        standard.long = steps("long", &self.long, &standard)?;
        let mut tiers = Vec::new();
        for (name, tier) in &self.tiers {
            tiers.push((name.to_ascii_lowercase(), tier.scheme(&format!("tiers.{name}"), &standard)?));
        }
        let mut geo = Vec::new();
        for (name, value) in &self.geo {
            geo.push((name.to_ascii_lowercase(), factor(&format!("geo.{name}"), *value)?));
        }
        let hosts = self.hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        Ok(Price { from_ns, until_ns, hours, hosts, standard, tiers, geo })
    }

    fn rates(&self) -> Result<Rates, Wrong> {
        let input = rate("input", self.input)?;
        let output = rate("output", self.output)?;
        let write_5m = or("cache_write_5m", self.cache_write_5m, input)?;
        Ok(Rates {
            input,
            cache_read: or("cache_read", self.cache_read, input)?,
            cache_write_5m: write_5m,
            cache_write_1h: or("cache_write_1h", self.cache_write_1h, write_5m)?,
            output,
            reasoning: or("reasoning", self.reasoning, output)?,
        })
    }
}

impl Tier {
    fn scheme(&self, field: &str, standard: &Scheme) -> Result<Scheme, Wrong> {
        match self {
            Self::Factor(value) => Ok(scaled(standard, factor(field, *value)?)),
            Self::Own(own) => {
                let rates = [
                    own.input,
                    own.cache_read,
                    own.cache_write_5m,
                    own.cache_write_1h,
                    own.output,
                    own.reasoning,
                ];
                let base = standard.base.with(field, rates)?;
                let mut scheme = Scheme { base, long: standard.long.clone(), ends_above: None };
                scheme.long = steps(&format!("{field}.long"), &own.long, &scheme)?;
                if scheme.long.is_empty() {
                    // What a long call costs in this tier is not said.
                    scheme.ends_above = standard.long.first().map(|(above, _)| *above);
                }
                Ok(scheme)
            }
        }
    }
}

impl Rates {
    /// These rates with those replaced that are given; reasoning follows the output it is a part of.
    fn with(self, field: &str, given: [Option<f64>; 6]) -> Result<Self, Wrong> {
        let [input, cache_read, write_5m, write_1h, output, reasoning] = given;
        let named = |name: &str, value, otherwise| or(&format!("{field}.{name}"), value, otherwise);
        let new_output = named("output", output, self.output)?;
        let as_output = if self.reasoning == self.output { new_output } else { self.reasoning };
        Ok(Self {
            input: named("input", input, self.input)?,
            cache_read: named("cache_read", cache_read, self.cache_read)?,
            cache_write_5m: named("cache_write_5m", write_5m, self.cache_write_5m)?,
            cache_write_1h: named("cache_write_1h", write_1h, self.cache_write_1h)?,
            output: new_output,
            reasoning: named("reasoning", reasoning, as_output)?,
        })
    }
}

/// The rates of long calls, by ascending threshold; what one leaves out is as in `like` at the same length.
fn steps(field: &str, long: &[Long], like: &Scheme) -> Result<Vec<(u64, Rates)>, Wrong> {
    let mut steps = Vec::new();
    for step in long {
        let same = like.long.iter().find(|(above, _)| *above == step.above);
        let base = same.map_or(like.base, |(_, rates)| *rates);
        let given = [
            step.input,
            step.cache_read,
            step.cache_write_5m,
            step.cache_write_1h,
            step.output,
            step.reasoning,
        ];
        steps.push((step.above, base.with(field, given)?));
    }
    steps.sort_by_key(|(above, _)| *above);
    if steps.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a == b)) {
        return Err(wrong(field, "has two rates for one threshold"));
    }
    Ok(steps)
}

fn moment(field: &str, text: &str) -> Result<i64, Wrong> {
    let date = Date::parse(text, &Iso8601::DATE).map_err(|e| wrong(field, format!("is no date: {e}")))?;
    let nanos = date.with_time(Time::MIDNIGHT).assume_utc().unix_timestamp_nanos();
    i64::try_from(nanos).map_err(|_| wrong(field, "is out of range"))
}

fn rate(field: &str, dollars: f64) -> Result<i64, Wrong> {
    if dollars.is_finite() && (0.0..=DEAREST).contains(&dollars) {
        Ok((dollars * PICO_PER_DOLLAR_PER_MILLION).round() as i64)
    } else {
        Err(wrong(field, "is negative or absurd"))
    }
}

fn or(field: &str, dollars: Option<f64>, otherwise: i64) -> Result<i64, Wrong> {
    dollars.map_or(Ok(otherwise), |dollars| rate(field, dollars))
}

/// A factor in millionths.
fn factor(field: &str, value: f64) -> Result<i64, Wrong> {
    if value.is_finite() && (0.0..=LARGEST_FACTOR).contains(&value) {
        Ok((value * 1e6).round() as i64)
    } else {
        Err(wrong(field, "is negative or absurd"))
    }
}
