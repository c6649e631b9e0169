//! The token bases: how each source's counts become six disjoint buckets (MAPPING §1).

use fleetlog_schemas::event::{AgentEvent, TokenBasis};

/// Token counts as a source states them, whatever its convention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stated {
    pub(crate) input: Option<u64>,
    pub(crate) output: Option<u64>,
    pub(crate) cache_read: Option<u64>,
    /// Written to a cache whose lifetime is not said.
    pub(crate) cache_write: Option<u64>,
    pub(crate) reasoning: Option<u64>,
}

impl Stated {
    /// Whether anything is stated at all.
    pub(crate) fn any(&self) -> bool {
        [self.input, self.output, self.cache_read, self.cache_write, self.reasoning]
            .iter()
            .any(Option::is_some)
    }

    /// Which convention applies where the source's instrumentation does not tell.
    ///
    /// Old Anthropic instrumentations pass on Anthropic's raw counts, newer ones include the cached tokens. More cached
    /// than input tokens is only possible in the raw convention; without cached tokens the two are the same. Likewise
    /// more reasoning than output tokens is only possible where the output excludes them, as Gemini's does.
    pub(crate) fn basis_for(&self, provider: &str, model: &str) -> TokenBasis {
        if !self.any() {
            return TokenBasis::None;
        }
        let anthropic = provider.contains("anthropic") || model.contains("claude");
        let excludes_reasoning = self.reasoning.unwrap_or(0) > self.output.unwrap_or(u64::MAX);
        if self.cached() > 0 && anthropic || excludes_reasoning {
            TokenBasis::Guessed
        } else {
            TokenBasis::Inclusive
        }
    }

    fn cached(&self) -> u64 {
        self.cache_read.unwrap_or(0).saturating_add(self.cache_write.unwrap_or(0))
    }

    /// Writes the disjoint buckets into an event. Sums never go below zero, whatever the source claims.
    pub(crate) fn apply(&self, basis: TokenBasis, event: &mut AgentEvent) {
        let count = |stated: Option<u64>| stated.unwrap_or(0);
        let (input, output) = (count(self.input), count(self.output));
        let (read, written) = (count(self.cache_read), count(self.cache_write));
        let (cached, reasoning) = (self.cached(), count(self.reasoning));
        let input_includes_cache = match basis {
            TokenBasis::None => return,
            TokenBasis::Inclusive => true,
            TokenBasis::Gemini => true,
            TokenBasis::AnthropicRaw | TokenBasis::Disjoint => false,
            TokenBasis::Guessed => cached <= input,
        };
        let output_includes_reasoning = match basis {
            TokenBasis::Inclusive => true,
            TokenBasis::Guessed => reasoning <= output,
            _ => false,
        };
        event.token_basis = basis;
        event.in_uncached = if input_includes_cache { input.saturating_sub(cached) } else { input };
        event.cache_read = read;
        event.cache_write_5m = written;
        event.out_reasoning = reasoning;
        event.out_visible =
            if output_includes_reasoning { output.saturating_sub(event.out_reasoning) } else { output };
    }
}

/// What was written to caches by how long it is kept, where a source says so beside or within one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Writes {
    /// For five minutes.
    pub(crate) short: u64,
    /// For an hour.
    pub(crate) long: u64,
}

impl Writes {
    /// All of it, where the source states one number too: that may leave some of it out, or all.
    pub(crate) fn all(self, stated: Option<u64>) -> Option<u64> {
        let named = self.short.saturating_add(self.long);
        if named > 0 { Some(stated.unwrap_or(0).max(named)) } else { stated }
    }

    /// Moves what is kept for an hour into its bucket; what the split leaves out went to the usual cache of five minutes.
    pub(crate) fn apply(self, event: &mut AgentEvent) {
        event.cache_write_1h = self.long;
        event.cache_write_5m = event.cache_write_5m.saturating_sub(self.long).max(self.short);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(stated: Stated, basis: TokenBasis) -> [u64; 5] {
        let mut event = AgentEvent::default();
        stated.apply(basis, &mut event);
        [event.in_uncached, event.cache_read, event.cache_write_5m, event.out_visible, event.out_reasoning]
    }

    const STATED: Stated = Stated {
        input: Some(1212),
        output: Some(100),
        cache_read: Some(1000),
        cache_write: Some(4),
        reasoning: Some(40),
    };

    #[test]
    fn each_basis_has_its_rule() {
        assert_eq!(buckets(STATED, TokenBasis::Inclusive), [208, 1000, 4, 60, 40]);
        assert_eq!(buckets(STATED, TokenBasis::AnthropicRaw), [1212, 1000, 4, 100, 40]);
        assert_eq!(buckets(STATED, TokenBasis::Gemini), [208, 1000, 4, 100, 40]);
        assert_eq!(buckets(STATED, TokenBasis::Disjoint), [1212, 1000, 4, 100, 40]);
        assert_eq!(buckets(STATED, TokenBasis::None), [0; 5]);
    }

    #[test]
    fn anthropic_of_unknown_convention_is_guessed_by_what_is_possible() {
        let raw = Stated { input: Some(21), cache_read: Some(4000), ..STATED };
        assert_eq!(raw.basis_for("anthropic", ""), TokenBasis::Guessed);
        assert_eq!(buckets(raw, TokenBasis::Guessed)[0], 21);
        assert_eq!(buckets(STATED, TokenBasis::Guessed)[0], 208);
        let uncached = Stated { input: Some(21), ..Stated::default() };
        assert_eq!(uncached.basis_for("anthropic", ""), TokenBasis::Inclusive);
        assert_eq!(Stated::default().basis_for("anthropic", ""), TokenBasis::None);
        assert_eq!(raw.basis_for("aws.bedrock", "anthropic.claude-sonnet-4"), TokenBasis::Guessed);
    }

    #[test]
    fn more_reasoning_than_output_means_that_it_is_not_part_of_it() {
        let thoughts = Stated { output: Some(10), reasoning: Some(60), ..Stated::default() };
        assert_eq!(thoughts.basis_for("gcp.gemini", "gemini-2.5-pro"), TokenBasis::Guessed);
        assert_eq!(buckets(thoughts, TokenBasis::Guessed), [0, 0, 0, 10, 60]);
    }

    #[test]
    fn impossible_counts_never_underflow() {
        let odd = Stated {
            input: Some(1),
            cache_read: Some(u64::MAX),
            cache_write: Some(9),
            reasoning: Some(7),
            output: Some(3),
        };
        assert_eq!(buckets(odd, TokenBasis::Inclusive), [0, u64::MAX, 9, 0, 7]);
    }
}
