//! Shapes of well-known secrets.
//!
//! Every pattern works on JSON text as it stands, also where that JSON is itself inside a JSON string: it never matches
//! across a quote that ends a string, and what it puts in place holds no quote of its own, so the text stays JSON.

/// A shape of secret: literals of which one must occur (in lower case), the pattern, and what it is replaced by.
pub(super) struct Shape {
    /// Names the rule in the metric.
    pub(super) name: &'static str,
    pub(super) literals: &'static [&'static str],
    pub(super) pattern: &'static str,
    pub(super) replacement: &'static str,
}

macro_rules! shape {
    ($name:literal, [$($literal:literal),+], $pattern:literal) => {
        shape!($name, [$($literal),+], $pattern, "")
    };
    ($name:literal, [$($literal:literal),+], $pattern:literal, $kept:literal) => {
        Shape {
            name: $name,
            literals: &[$($literal),+],
            pattern: $pattern,
            replacement: concat!($kept, "[redacted:", $name, "]"),
        }
    };
}

/// All of them. More specific ones stand first: the first that matches names the secret.
pub(super) const SHAPES: &[Shape] = &[
    // A line's end is `\n`, with more backslashes the deeper the JSON is inside other JSON's strings.
    shape!(
        "private-key",
        ["-----begin"],
        r#"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?:[^"\\]|\\+[nrt/])*"#
    ),
    shape!("anthropic-key", ["sk-ant-"], r"(?-u:\b)sk-ant-[A-Za-z0-9_-]{16,}"),
    shape!("langfuse-key", ["sk-lf-"], r"(?-u:\b)sk-lf-[A-Za-z0-9-]{16,}"),
    shape!("langsmith-key", ["lsv2_"], r"(?-u:\b)lsv2_(?:pt|sk)_[A-Za-z0-9_]{16,}"),
    shape!("openai-key", ["sk-"], r"(?-u:\b)sk-[A-Za-z0-9_-]{20,}"),
    shape!(
        "stripe-key",
        ["k_live_", "k_test_", "whsec_"],
        r"(?-u:\b)(?:[srp]k_(?:live|test)_|whsec_)[A-Za-z0-9]{16,}"
    ),
    shape!(
        "github-token",
        ["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"],
        r"(?-u:\b)(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,})"
    ),
    shape!(
        "gitlab-token",
        ["glpat-", "gldt-", "glrt-", "glptt-", "glcbt-"],
        r"(?-u:\b)gl(?:pat|dt|rt|ptt|cbt)-[A-Za-z0-9_-]{20,}"
    ),
    shape!("aws-key-id", ["akia", "asia"], r"(?-u:\b)(?:AKIA|ASIA)[A-Z0-9]{16}(?-u:\b)"),
    shape!(
        "aws-secret",
        ["secret_access_key", "secretaccesskey", "session_token", "sessiontoken"],
        r#"(?i)((?:aws_?)?(?:secret_?access_?key|session_?token)(?:\\*["'])?\s*[:=]\s*(?:\\+["']|["'])?)[A-Za-z0-9/+=]{40,}"#,
        "${1}"
    ),
    shape!("google-key", ["aiza"], r"(?-u:\b)AIza[A-Za-z0-9_-]{35}"),
    shape!("google-token", ["ya29.", "gocspx-"], r"(?-u:\b)(?:ya29\.|GOCSPX-)[A-Za-z0-9_-]{20,}"),
    shape!(
        "azure-key",
        ["accountkey=", "sharedaccesskey="],
        r"(?i)(\b(?:account|sharedaccess)key=)[A-Za-z0-9+/]{40,}={0,2}",
        "${1}"
    ),
    shape!("azure-secret", ["8q~"], r"(?-u:\b)[A-Za-z0-9_~.-]{3}8Q~[A-Za-z0-9_~.-]{31,34}"),
    shape!("azure-sas", ["sig="], r"([?&]sig=)[A-Za-z0-9%+/]{30,}(?:%3[dD]|=)?", "${1}"),
    shape!(
        "slack-token",
        ["xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xoxe", "xapp-"],
        r"(?-u:\b)(?:xox[abeprs](?:\.xox[bp])?|xapp)-[A-Za-z0-9-]{10,}"
    ),
    shape!(
        "slack-webhook",
        ["hooks.slack.com"],
        r"(hooks\.slack\.com\\*/(?:services|workflows)\\*/)[A-Za-z0-9_-]{4,}(?:\\*/[A-Za-z0-9_-]{4,}){1,3}",
        "${1}"
    ),
    shape!("huggingface-token", ["hf_"], r"(?-u:\b)hf_[A-Za-z0-9]{30,}"),
    shape!("npm-token", ["npm_"], r"(?-u:\b)npm_[A-Za-z0-9]{36}"),
    shape!("pypi-token", ["pypi-"], r"(?-u:\b)pypi-[A-Za-z0-9_-]{50,}"),
    shape!("groq-key", ["gsk_"], r"(?-u:\b)gsk_[A-Za-z0-9]{40,}"),
    shape!("xai-key", ["xai-"], r"(?-u:\b)xai-[A-Za-z0-9]{40,}"),
    shape!("perplexity-key", ["pplx-"], r"(?-u:\b)pplx-[A-Za-z0-9]{40,}"),
    shape!("sendgrid-key", ["sg."], r"(?-u:\b)SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"),
    shape!("fleetlog-key", ["fl_"], r"(?-u:\b)fl_[0-9a-f]{8,}_[0-9a-f]{32,}"),
    shape!("jwt", ["eyj"], r"(?-u:\b)eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"),
    shape!("bearer", ["bearer "], r"(?i)(?-u:\b)bearer +[A-Za-z0-9._~+/=-]{16,}"),
    // A header as a JSON member, also where that JSON is itself inside a JSON string.
    shape!(
        "header",
        ["authorization", "api-key", "api_key", "apikey", "cookie"],
        r#"(?i)(\\*"[a-z0-9_.-]*(?:authorization|api[-_]?key|cookie)\\*"\s*:\s*\\*")[^"\\\[][^"\\]*"#,
        "${1}"
    ),
    // OTLP's header attributes are lists.
    Shape {
        name: "header-list",
        literals: &["authorization", "api-key", "api_key", "apikey", "cookie"],
        pattern: r#"(?i)("[a-z0-9_.-]*(?:authorization|api[-_]?key|cookie)"\s*:\s*)\[(?:[^\]"]|"(?:[^"\\]|\\.)*")+\]"#,
        replacement: "${1}\"[redacted:header-list]\"",
    },
    // A header as it stands in a command line or a dump of a request.
    shape!(
        "header-line",
        ["authorization:", "cookie:"],
        r#"(?i)((?-u:\b)(?:authorization: *(?:basic|bearer|token|digest) +|(?:set-)?cookie: *[^\s"'\\=;]{1,80}=))[^\s"'\\\[][^\s"'\\]{3,}"#,
        "${1}"
    ),
    // A password between a name and a host.
    Shape {
        name: "url-password",
        literals: &["://"],
        pattern: r#"(?i)((?-u:\b)[a-z][a-z0-9+.-]{1,30}:\\*/\\*/[^\s/:@"'\\]{0,100}:)[^\s/@"'\\\[][^\s/@"'\\]{0,200}@"#,
        replacement: "${1}[redacted:url-password]@",
    },
    shape!(
        "connection-password",
        ["password", "pwd"],
        r#"(?i)(;\s*(?:password|pwd)\s*=\s*)[^;\s"'\\\[][^;\s"'\\]{2,}"#,
        "${1}"
    ),
    // A variable of the environment, as in `export ACME_API_KEY=…`.
    shape!(
        "variable",
        ["key=", "secret=", "token=", "password=", "passwd="],
        r#"((?-u:\b)[A-Z][A-Z0-9_]*(?:KEY|SECRET|TOKEN|PASSWORD|PASSWD)=(?:\\+"|')?)[^\s"'\\$<\[(&;|][^\s"'\\&;|]{7,}"#,
        "${1}"
    ),
    // A member of a configuration or a form.
    shape!(
        "member",
        ["password", "passwd", "secret", "access_token", "refresh_token", "auth_token", "accesstoken"],
        r#"(?i)(\\*"(?:[a-z0-9_.-]*(?:password|passwd|client_?secret|secret_?key)|secret|(?:[a-z0-9_.-]*[_.-])?(?:access|refresh|auth)_?token)\\*"\s*:\s*\\*")[^"\\\[][^"\\]*"#,
        "${1}"
    ),
    // Command lines hold prompts and keys (Gemini CLI puts its own into a resource attribute).
    Shape {
        name: "command-line",
        literals: &["process.command_args", "process.command_line"],
        pattern: r#"("process\.command_(?:args|line)"\s*:\s*)(?:"(?:[^"\\\[]|\\.)(?:[^"\\]|\\.)*"|\[(?:[^\]"]|"(?:[^"\\]|\\.)*")+\])"#,
        replacement: "${1}\"[redacted:command-line]\"",
    },
];
