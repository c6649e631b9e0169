//! Which models are meant.

/// A model's name in which `*` stands for any text; upper and lower case are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPattern(Vec<String>);

impl ModelPattern {
    /// Takes a pattern apart.
    pub fn new(pattern: &str) -> Self {
        Self(pattern.to_ascii_lowercase().split('*').map(str::to_owned).collect())
    }

    /// Whether a model is meant.
    pub fn matches(&self, model: &str) -> bool {
        let model = model.to_ascii_lowercase();
        let [first, middle @ .., last] = self.0.as_slice() else {
            return self.0.first().is_some_and(|whole| *whole == model);
        };
        let Some(mut rest) = model.strip_prefix(first.as_str()) else { return false };
        for part in middle {
            // The first place is as good as any: what follows has the most room then.
            let Some((_, after)) = rest.split_once(part.as_str()) else { return false };
            rest = after;
        }
        rest.ends_with(last.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        let matches = |pattern: &str, model: &str| ModelPattern::new(pattern).matches(model);
        assert!(matches("*", "gpt-5") && matches("*", "") && matches("gpt-5", "GPT-5"));
        assert!(matches("gpt-5*", "gpt-5-mini") && matches("*/claude-*-5*", "anthropic/claude-sonnet-4-5@x"));
        assert!(!matches("gpt-5", "gpt-5-mini") && !matches("gpt-5*mini", "gpt-5"));
        // A beginning and an end do not share letters.
        assert!(!matches("ab*ba", "aba") && matches("ab*ba", "abba") && !matches("", "gpt-5"));
    }
}
