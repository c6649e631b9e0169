//! What a model is called, by whoever calls it.
//!
//! `us.anthropic.claude-sonnet-4-5-20250929-v1:0`, `anthropic/claude-sonnet-4-5` and `claude-sonnet-4-5[1m]` are one model.
//! A name is never shortened before its longer form was looked for: `gpt-4o-2024-05-13` has a price of its own. Only parts
//! that are known to say nothing about the price are taken off; whatever else is left makes the model unknown.

/// Vendors whose name Amazon Bedrock puts before its models' names.
const BEDROCK_VENDORS: &[&str] = &["anthropic.", "openai."];
/// Variants of OpenRouter that change how a model is asked and not what it costs.
const SAME_PRICE: &[&str] = &["thinking", "beta"];

/// A model's name, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ModelName {
    /// Names to look for, the longest first; lower case.
    pub(super) candidates: Vec<String>,
    /// Who serves it, as far as the name says; or empty.
    pub(super) host: String,
    /// Whether the name says that it costs nothing.
    pub(super) free: bool,
}

impl ModelName {
    /// Takes a name apart.
    pub(super) fn of(model: &str) -> Self {
        let lower = model.trim().to_ascii_lowercase();
        let (path, mut name) = lower.rsplit_once('/').unwrap_or(("", &lower));
        let mut host = path.split('/').next().unwrap_or_default();
        if host == "models" {
            // `models/gemini-2.5-pro` is how Google's own API writes it.
            host = "";
        }
        let bedrock = BEDROCK_VENDORS.iter().find_map(|vendor| after_vendor(name, vendor));
        if let Some(rest) = bedrock {
            (name, host) = (rest, "bedrock");
        }
        let mut free = false;
        let mut candidates = vec![name.to_owned()];
        while let Some(shorter) = shortened(name, bedrock.is_some(), &mut free) {
            name = shorter;
            candidates.push(name.to_owned());
        }
        Self { candidates, host: host.to_owned(), free }
    }
}

/// What follows the vendor in `us.anthropic.claude-…`, before which only a region may stand.
fn after_vendor<'n>(name: &'n str, vendor: &str) -> Option<&'n str> {
    let (region, rest) = name.split_once(vendor)?;
    let region = if region.is_empty() { region } else { region.strip_suffix('.')? };
    region.chars().all(|c| c.is_ascii_alphanumeric() || c == '-').then_some(rest)
}

/// The name without its last part that says nothing about the price.
fn shortened<'n>(name: &'n str, bedrock: bool, free: &mut bool) -> Option<&'n str> {
    if let Some((rest, _context_size)) = name.strip_suffix(']').and_then(|name| name.rsplit_once('[')) {
        return filled(rest);
    }
    if let Some((rest, version)) = name.rsplit_once('@') {
        let harmless = matches!(version, "default" | "latest") || is_date(version);
        return if harmless { filled(rest) } else { None };
    }
    if let Some((rest, variant)) = name.rsplit_once(':') {
        *free |= variant == "free";
        let revision = bedrock && variant.bytes().all(|byte| byte.is_ascii_digit());
        let harmless = *free || revision || SAME_PRICE.contains(&variant);
        return if harmless { filled(rest) } else { None };
    }
    let (rest, last) = name.rsplit_once('-')?;
    let revision = bedrock && last.strip_prefix('v').is_some_and(|number| number.parse::<u8>().is_ok());
    if last == "latest" || revision || last.len() == 8 && is_date(last) {
        return filled(rest);
    }
    let (rest, date) = name.split_at_checked(name.len().checked_sub(11)?)?;
    if date.starts_with('-') && is_date(date.get(1..)?) { filled(rest) } else { None }
}

fn filled(name: &str) -> Option<&str> {
    (!name.is_empty()).then_some(name)
}

/// `20250929` or `2025-09-29`.
fn is_date(text: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    match text.len() {
        8 => digits(text),
        10 => {
            text.char_indices().all(|(i, c)| if matches!(i, 4 | 7) { c == '-' } else { c.is_ascii_digit() })
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_model_are_one_model() {
        for spelling in [
            "claude-sonnet-4-5",
            "claude-sonnet-4-5-20250929",
            "anthropic/claude-sonnet-4-5",
            "openrouter/anthropic/claude-sonnet-4-5:thinking",
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "anthropic.claude-sonnet-4-5-20250929-v1:0",
            "arn:aws:bedrock:eu-west-1:1:inference-profile/eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "claude-sonnet-4-5@20250929",
            "claude-sonnet-4-5@default",
            "claude-sonnet-4-5[1m]",
            "claude-sonnet-4-5-latest",
            " Claude-Sonnet-4-5",
        ] {
            let name = ModelName::of(spelling);
            assert_eq!(name.candidates.last().unwrap(), "claude-sonnet-4-5", "{spelling}");
            assert!(!name.free);
        }
        assert_eq!(ModelName::of("models/gemini-2.5-pro").candidates, ["gemini-2.5-pro"]);
        assert_eq!(ModelName::of("models/gemini-2.5-pro").host, "");
        assert_eq!(ModelName::of("").candidates, [""]);
    }

    #[test]
    fn longer_name_is_looked_for_first() {
        assert_eq!(ModelName::of("gpt-4o-2024-05-13").candidates, ["gpt-4o-2024-05-13", "gpt-4o"]);
    }

    #[test]
    fn what_may_change_the_price_is_not_taken_off() {
        for odd in [
            "ft:gpt-4o-mini-2024-07-18:acme::id",
            "gpt-oss:20b",
            "deepseek-v3",
            "gpt-4o:extended",
            "claude-sonnet-4-5@canary",
            "gemini-2.5-flash-preview-05-20",
            "my-anthropic.claude-sonnet-4-5",
        ] {
            assert_eq!(ModelName::of(odd).candidates, [odd], "{odd}");
        }
    }

    #[test]
    fn host_and_freedom_are_what_the_name_says() {
        let name = ModelName::of("groq/openai/gpt-oss-120b");
        assert_eq!((name.host.as_str(), name.candidates[0].as_str()), ("groq", "gpt-oss-120b"));
        let free = ModelName::of("openrouter/deepseek/deepseek-r1:free");
        assert!(free.free && free.candidates.contains(&"deepseek-r1".to_owned()));
    }
}
