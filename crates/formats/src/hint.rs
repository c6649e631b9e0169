//! What the paths of the drop-in APIs say about a body, in words that gateway and decoders share.
//!
//! The gateway publishes a body under its path's hint, and the decoders find by it what the body is. A [`Hint`] cannot be
//! made elsewhere, so nothing is published under a word that no decoder knows. Raw records keep these words: a released
//! one never changes.

/// What a path says about the bodies that it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint(&'static str);

macro_rules! hints {
    ($($(#[$doc:meta])+ $name:ident = $word:literal),+ $(,)?) => {
        impl Hint {
            $($(#[$doc])+ pub const $name: Self = Self($word);)+

            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$name),+];
        }
    };
}

hints! {
    /// Hook payloads of Claude Code.
    CLAUDE_HOOKS = "claude.hooks",
    /// Hook payloads of Cursor.
    CURSOR_HOOKS = "cursor.hooks",
    /// Hook payloads of Gemini CLI.
    GEMINI_HOOKS = "gemini.hooks",
    /// Hook payloads of Goose.
    GOOSE_HOOKS = "goose.hooks",
    /// Batches of Langfuse's envelopes.
    LANGFUSE_INGESTION = "langfuse.ingestion",
    /// Langfuse's scores without an envelope.
    LANGFUSE_SCORES = "langfuse.scores",
    /// LangSmith's runs, alone or in a batch.
    LANGSMITH_RUNS = "langsmith.runs",
    /// A change of the run that the path names.
    LANGSMITH_RUN_PATCH = "langsmith.run.patch",
    /// LangSmith's runs and feedback in the parts of a form.
    LANGSMITH_FORM = "langsmith.multipart",
    /// LangSmith's feedback.
    LANGSMITH_FEEDBACK = "langsmith.feedback",
    /// A change of the feedback that the path names.
    LANGSMITH_FEEDBACK_PATCH = "langsmith.feedback.patch",
    /// Traces and spans of the OpenAI Agents SDK.
    OPENAI_TRACES = "openai.traces",
    /// Opik's traces.
    OPIK_TRACES = "opik.traces",
    /// Changes of Opik's traces.
    OPIK_TRACE_PATCH = "opik.trace.patch",
    /// Opik's spans.
    OPIK_SPANS = "opik.spans",
    /// Changes of Opik's spans.
    OPIK_SPAN_PATCH = "opik.span.patch",
    /// Opik's scores of traces.
    OPIK_FEEDBACK = "opik.feedback",
    /// Opik's scores of spans.
    OPIK_SPAN_FEEDBACK = "opik.span.feedback",
    /// Opik's scores of threads.
    OPIK_THREAD_FEEDBACK = "opik.thread.feedback",
}

impl Hint {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        self.0
    }

    /// The hint of this word, if a path gives it.
    pub(crate) fn of(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|hint| hint.0 == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_that_a_path_gives_names_a_format_of_its_api() {
        for hint in Hint::ALL {
            let format = crate::records::named(hint.as_str()).map(|format| format.name);
            let api = |name: &'static str| name.split('.').next();
            assert_eq!(format.and_then(api), api(hint.as_str()), "{hint:?}");
            assert_eq!(Hint::of(hint.as_str()), Some(*hint), "a word of its own");
        }
    }
}
