//! Which spans are noise: some programs trace themselves with hundreds of internal spans a turn.
//!
//! The operator's list of rules decides, the first that matches; what none matches is kept. Only a span that says nothing
//! but that it was there can be dropped: one that carries usage, an error, a tool call or an agent's step, or that names
//! the session its trace belongs to, is kept whatever the rules say. A record all of whose events are dropped is filtered
//! (INV-6), and counted by rule.

use std::borrow::Cow;

use fleetlog_schemas::event::{AgentEvent, EventType, Status, TokenBasis, UsageRole};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Most rules of a policy; each is a label of a metric.
pub const MOST_RULES: usize = 64;
/// Longest name of a rule, bytes.
pub const LONGEST_NAME: usize = 40;

/// What becomes of a span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is stored.
    Keep,
    /// It is filtered.
    #[default]
    Drop,
}

/// A rule: all conditions that are given must hold. A condition is a text, or the beginning of one with `*` at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpanRule {
    /// Its name: small letters, digits, `-` and `_`; the metric's label.
    pub name: String,
    /// What becomes of the spans it matches: `drop` (when left out) or `keep`.
    pub action: Action,
    /// Name of the instrumentation scope.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scope: String,
    /// `service.name`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// Name of the span.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub span: String,
    /// Level: `trace`, `debug`, …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub level: String,
    /// Kind: `internal`, `server`, `client`, `producer` or `consumer`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Module of the code, from `code.module.name` or `code.namespace`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub module: String,
}

/// A rule makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("rule {number} ({name}): {problem}")]
pub struct SpanRuleError {
    /// Its place in the list, from 1.
    pub number: usize,
    /// Its name.
    pub name: String,
    /// What is wrong with it.
    pub problem: String,
}

/// The policy that applies when the operator gives none (MAPPING §4, §6).
pub fn default_rules() -> Vec<SpanRule> {
    let rule = |name: &str| SpanRule { name: name.to_owned(), ..SpanRule::default() };
    vec![
        SpanRule { level: "trace".to_owned(), module: "codex_*".to_owned(), ..rule("codex-internals") },
        SpanRule {
            service: "opencode".to_owned(),
            kind: "internal".to_owned(),
            ..rule("opencode-internals")
        },
    ]
}

/// The rules, checked.
#[derive(Clone, Debug, Default)]
pub struct SpanPolicy {
    rules: Vec<SpanRule>,
}

/// What is looked up in a span's `data`, once.
#[derive(Default, Deserialize)]
struct Facts<'d> {
    #[serde(rename = "code.module.name", borrow)]
    module: Option<Cow<'d, str>>,
    #[serde(rename = "code.namespace", borrow)]
    namespace: Option<Cow<'d, str>>,
    #[serde(borrow)]
    span_kind: Option<Cow<'d, str>>,
}

#[derive(Default, Deserialize)]
struct Context<'c> {
    #[serde(borrow)]
    scope: Option<Scope<'c>>,
}

#[derive(Deserialize)]
struct Scope<'c> {
    #[serde(borrow)]
    name: Option<Cow<'c, str>>,
}

impl SpanPolicy {
    /// Checks the rules.
    ///
    /// # Errors
    /// [`SpanRuleError`] naming the rule.
    pub fn new(rules: Vec<SpanRule>) -> Result<Self, SpanRuleError> {
        for (index, rule) in rules.iter().enumerate() {
            let wrong =
                |problem: String| SpanRuleError { number: index + 1, name: rule.name.clone(), problem };
            let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
            if rule.name.is_empty() || rule.name.len() > LONGEST_NAME || !rule.name.chars().all(word) {
                return Err(wrong(format!(
                    "its name must be 1 to {LONGEST_NAME} small letters, digits, - or _"
                )));
            }
            if rules.iter().take(index).any(|earlier| earlier.name == rule.name) {
                return Err(wrong("its name is taken".to_owned()));
            }
            if rule.conditions().iter().all(|(_, wanted)| wanted.is_empty()) {
                return Err(wrong("it has no condition and would match every span".to_owned()));
            }
            if let Some((field, _)) = rule.conditions().iter().find(|(_, wanted)| misplaced_star(wanted)) {
                return Err(wrong(format!("{field}: * stands at the end only")));
            }
            if index == MOST_RULES {
                return Err(wrong(format!("more than {MOST_RULES} rules")));
            }
        }
        Ok(Self { rules })
    }

    /// The name of the rule that drops all events of one record, if the policy does.
    pub fn drops(&self, record: &[AgentEvent]) -> Option<&str> {
        let mut rule = None;
        for event in record {
            rule = Some(self.rule_against(event)?);
        }
        rule
    }

    /// The name of the rule that drops an event.
    fn rule_against(&self, event: &AgentEvent) -> Option<&str> {
        if !is_bare(event) {
            return None;
        }
        let mut seen = Seen { event, facts: None, scope: None };
        let rule = self.rules.iter().find(|rule| rule.matches(&mut seen))?;
        (rule.action == Action::Drop).then_some(rule.name.as_str())
    }
}

/// Whether a span says nothing but that it was there.
fn is_bare(event: &AgentEvent) -> bool {
    let failed =
        event.status == Status::Error || !event.error_type.is_empty() || !event.error_message.is_empty();
    let counted = event.usage_role != UsageRole::None
        || event.token_basis != TokenBasis::None
        || event.cost_reported.is_some();
    let called = !event.tool_call_id.is_empty() || !event.tool_name.is_empty();
    event.event_type == EventType::Span && !failed && !counted && !called && event.session_id.is_empty()
}

impl SpanRule {
    fn conditions(&self) -> [(&'static str, &str); 6] {
        [
            ("service", &self.service),
            ("span", &self.span),
            ("level", &self.level),
            ("scope", &self.scope),
            ("kind", &self.kind),
            ("module", &self.module),
        ]
    }

    fn matches(&self, seen: &mut Seen<'_>) -> bool {
        // Columns come first: what is in the JSON costs more to look up.
        self.conditions().into_iter().all(|(field, wanted)| wanted.is_empty() || seen.has(field, wanted))
    }
}

/// An event, and what was looked up in its JSON so far.
struct Seen<'e> {
    event: &'e AgentEvent,
    facts: Option<Facts<'e>>,
    scope: Option<Cow<'e, str>>,
}

impl<'e> Seen<'e> {
    fn has(&mut self, field: &str, wanted: &str) -> bool {
        let event = self.event;
        let said = match field {
            "service" => event.source.as_str(),
            "span" => event.name.as_str(),
            "level" => event.level.as_str(),
            "scope" => self.scope(),
            "kind" => self.facts().span_kind.as_deref().unwrap_or_default(),
            _ => {
                let facts = self.facts();
                facts.module.as_deref().or(facts.namespace.as_deref()).unwrap_or_default()
            }
        };
        match wanted.strip_suffix('*') {
            Some(beginning) => said.starts_with(beginning),
            None => said == wanted,
        }
    }

    fn facts(&mut self) -> &Facts<'e> {
        let data = &self.event.data;
        self.facts.get_or_insert_with(|| serde_json::from_str(data).unwrap_or_default())
    }

    fn scope(&mut self) -> &str {
        let context = &self.event.context;
        self.scope.get_or_insert_with(|| {
            let context: Context<'_> = serde_json::from_str(context).unwrap_or_default();
            context.scope.and_then(|scope| scope.name).unwrap_or_default()
        })
    }
}

fn misplaced_star(wanted: &str) -> bool {
    wanted.strip_suffix('*').unwrap_or(wanted).contains('*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span() -> AgentEvent {
        AgentEvent {
            event_type: EventType::Span,
            source: "codex_exec".into(),
            name: "fs.read_file".into(),
            level: "trace".into(),
            context: r#"{"resource":{"scope":{"name":"no"}},"scope":{"name":"codex_exec","version":""}}"#
                .into(),
            data: r#"{"code.module.name":"codex_exec_server::fs","a":"\u00e4","span_kind":"internal"}"#
                .into(),
            ..AgentEvent::default()
        }
    }

    fn policy(rules: Vec<SpanRule>) -> SpanPolicy {
        SpanPolicy::new(rules).unwrap()
    }

    fn rule(name: &str) -> SpanRule {
        SpanRule { name: name.into(), ..SpanRule::default() }
    }

    #[test]
    fn noise_is_dropped_by_default_and_plain_spans_of_others_are_kept() {
        let policy = policy(default_rules());
        assert_eq!(policy.drops(&[span()]), Some("codex-internals"));
        let opencode = AgentEvent { source: "opencode".into(), level: String::new(), ..span() };
        assert_eq!(policy.drops(&[opencode]), Some("opencode-internals"));
        let other = AgentEvent { data: r#"{"span_kind":"internal"}"#.into(), ..span() };
        assert_eq!(policy.drops(&[other]), None);
        assert_eq!(policy.drops(&[]), None);
    }

    #[test]
    fn a_span_that_says_something_is_never_dropped() {
        let policy = policy(vec![SpanRule { span: "*".into(), ..rule("all") }]);
        let meaningful = [
            AgentEvent { usage_role: UsageRole::Call, ..span() },
            AgentEvent { token_basis: TokenBasis::Inclusive, ..span() },
            AgentEvent { status: Status::Error, ..span() },
            AgentEvent { error_message: "no".into(), ..span() },
            AgentEvent { tool_call_id: "t".into(), ..span() },
            AgentEvent { session_id: "s".into(), ..span() },
            AgentEvent { event_type: EventType::ToolCall, ..span() },
            AgentEvent { event_type: EventType::LlmRequest, ..span() },
            AgentEvent { event_type: EventType::AgentStep, ..span() },
            AgentEvent { event_type: EventType::Log, ..span() },
        ];
        assert_eq!(policy.drops(&[span()]), Some("all"));
        for event in meaningful {
            assert_eq!(policy.drops(std::slice::from_ref(&event)), None, "{event:?}");
            assert_eq!(policy.drops(&[span(), event]), None, "one event keeps its record");
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides_and_all_its_conditions_must_hold() {
        let keep = SpanRule { action: Action::Keep, span: "fs.read_file".into(), ..rule("keep") };
        let by_scope = SpanRule { scope: "codex_*".into(), ..rule("by-scope") };
        assert_eq!(policy(vec![by_scope.clone()]).drops(&[span()]), Some("by-scope"));
        assert_eq!(policy(vec![keep.clone(), by_scope.clone()]).drops(&[span()]), None);
        assert_eq!(policy(vec![by_scope.clone(), keep]).drops(&[span()]), Some("by-scope"));
        let both = SpanRule { kind: "client".into(), ..by_scope };
        assert_eq!(policy(vec![both]).drops(&[span()]), None);
        let broken = AgentEvent { data: "{".into(), context: "[]".into(), ..span() };
        let module = SpanRule { module: "codex*".into(), scope: "c*".into(), ..rule("module") };
        assert_eq!(policy(vec![module]).drops(&[broken]), None);
    }

    #[test]
    fn a_rule_that_makes_no_sense_is_named() {
        let problem = |rules: Vec<SpanRule>| SpanPolicy::new(rules).unwrap_err().to_string();
        assert!(problem(vec![rule("a")]).contains("rule 1 (a): it has no condition"));
        let named = |name: &str| SpanRule { span: "x".into(), ..rule(name) };
        assert!(problem(vec![named("a"), named("a")]).contains("rule 2 (a): its name is taken"));
        assert!(problem(vec![named("A")]).contains("small letters"));
        assert!(problem(vec![SpanRule { span: "a*b".into(), ..rule("a") }]).contains("span: * stands"));
        let many: Vec<_> = (0..=MOST_RULES).map(|n| named(&format!("r{n}"))).collect();
        assert!(problem(many).contains("more than"));
    }
}
