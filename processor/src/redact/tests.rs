use proptest::prelude::*;
use serde_json::Value;

use super::*;

const FILLER: &str = "a1B2c3D4e5F6g7H8i9J0a1B2c3D4e5F6g7H8i9J0a1B2c3D4e5F6g7H8i9J0";

fn redactor() -> &'static Redactor {
    static BUILT_IN: std::sync::LazyLock<Redactor> =
        std::sync::LazyLock::new(|| Redactor::built_in().unwrap());
    &BUILT_IN
}

/// The text after the well-known shapes, and how many were found.
fn known(text: &str) -> (String, u64) {
    let (mut text, mut counts) = (text.to_owned(), Redactions::default());
    redactor().replace_known(&mut text, &mut counts);
    (text, counts.total())
}

// Pieced together, so that no scanner of this repository takes them for real ones. The rule, the text, and the part of
// it that must not be shown.
fn secrets() -> Vec<(&'static str, String, String)> {
    let whole = |name, text: String| (name, text.clone(), text);
    let part = |name, before: &str, secret: &str, after: &str| {
        (name, format!("{before}{secret}{after}"), secret.to_owned())
    };
    vec![
        whole("anthropic-key", format!("sk-{}{}", "ant-api03-", FILLER)),
        whole("langfuse-key", format!("sk-{}{}", "lf-", "0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f")),
        whole("langsmith-key", format!("lsv2_{}_{}", "pt", FILLER)),
        whole("openai-key", format!("sk-{}{}", "proj-", FILLER)),
        whole("stripe-key", format!("sk_{}_{}", "live", &FILLER[..24])),
        whole("github-token", format!("gh{}_{}", "p", &FILLER[..36])),
        whole("gitlab-token", format!("gl{}-{}", "pat", &FILLER[..20])),
        whole("aws-key-id", format!("AK{}{}", "IA", "ABCDEFGHIJKLMNOP")),
        part("aws-secret", "aws_secret_access_key = ", &FILLER[..40], ""),
        whole("google-key", format!("AI{}{}", "za", &FILLER[..35])),
        whole("google-token", format!("ya{}{}", "29.", FILLER)),
        part("azure-key", "AccountName=a;AccountKey=", &FILLER[..44], "==;EndpointSuffix=x"),
        whole("azure-secret", format!("abc{}~{}", "8Q", &FILLER[..32])),
        part("azure-sas", "https://a.blob.core.windows.net/c?sv=1&sig=", &FILLER[..43], "%3D"),
        whole("slack-token", format!("xox{}-{}", "b", "1234567890-abcdef")),
        part("slack-webhook", "https://hooks.slack.com/services/", "T0000/B0000/abcdefghijklmnop", ""),
        whole("huggingface-token", format!("hf{}{}", "_", &FILLER[..34])),
        whole("npm-token", format!("npm{}{}", "_", &FILLER[..36])),
        whole("pypi-token", format!("py{}{}", "pi-", FILLER)),
        whole("groq-key", format!("gs{}{}", "k_", &FILLER[..52])),
        whole("xai-key", format!("xa{}{}", "i-", FILLER)),
        whole("perplexity-key", format!("pp{}{}", "lx-", FILLER)),
        whole("sendgrid-key", format!("S{}{}.{}", "G.", &FILLER[..22], &FILLER[..43])),
        whole("jwt", format!("ey{}.{}.{}", "Jhbhello123", "Jhbhello123", "abcdefghijk")),
        whole("bearer", format!("Bearer {FILLER}")),
        whole("fleetlog-key", format!("fl_{}_{}", "0123456789abcdef", "0123456789abcdef".repeat(4))),
        part("header-line", "curl -H 'Authorization: Basic ", "dXNlcjpwYXNz", "' https://x"),
        part("header-line", "Cookie: session=", "0123456789abcdef", ""),
        part("url-password", "postgres://app:", "hunter2", "@db.internal:5432/app"),
        part("url-password", "redis://:", "hunter2", "@cache/0"),
        part("connection-password", "Server=db;User=sa;Password=", "hunter2!", ";Encrypt=true"),
        part("variable", "export ACME_API_KEY=", "abcdefgh12345678", " && run"),
        whole("private-key", format!("-----BEGIN {} KEY-----\nMIIabc\n-----END X-----", "RSA PRIVATE")),
    ]
}

#[test]
fn every_shape_is_replaced_and_named_and_the_text_stays_json() {
    for (name, text, secret) in secrets() {
        let mut json = serde_json::json!({"env": format!("it is {text} ,"), "n": 1}).to_string();
        // At every depth of JSON inside JSON's strings.
        for depth in 0..3 {
            let (redacted, found) = known(&json);
            assert!(found >= 1, "{name} at {depth}: {json}");
            assert!(redacted.contains(&format!("[redacted:{name}]")), "{name} at {depth}: {redacted}");
            assert!(!redacted.contains(&secret), "{name} at {depth}: {redacted}");
            assert!(serde_json::from_str::<Value>(&redacted).is_ok(), "{name} at {depth}: {redacted}");
            json = serde_json::json!({"inner": json}).to_string();
        }
    }
}

#[test]
fn what_surrounds_a_secret_is_left() {
    assert_eq!(
        known("postgres://app:hunter2@db.internal:5432/app").0,
        "postgres://app:[redacted:url-password]@db.internal:5432/app"
    );
    let (text, _) = known("export ACME_API_KEY=abcdefgh12345678 && run");
    assert_eq!(text, "export ACME_API_KEY=[redacted:variable] && run");
}

#[test]
fn headers_and_command_lines_are_replaced_whatever_they_hold() {
    let text = r#"{"http.request.header.authorization":"Basic abc","x-api-key":"k","http.request.header.cookie":["a=b; c=\"d]\""],"process.command_args":["gemini","-p","my \"secret\" [plan]"],"process.command_line":"gemini -p x","inner":"{\"api_key\":\"v\"}"}"#;
    let (text, found) = known(text);
    assert_eq!(found, 6);
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["process.command_args"], "[redacted:command-line]");
    assert_eq!(value["process.command_line"], "[redacted:command-line]");
    assert_eq!(value["http.request.header.cookie"], "[redacted:header-list]");
    assert_eq!(value["x-api-key"], "[redacted:header]");
    assert_eq!(value["inner"], r#"{"api_key":"[redacted:header]"}"#);
}

#[test]
fn members_that_name_a_secret_are_replaced() {
    let (text, found) = known(
        r#"{"password":"hunter2","db.password":"x","client_secret":"y","oauth.access_token":"z","inner":"{\"secret\":\"v\"}"}"#,
    );
    assert_eq!(found, 5, "{text}");
    assert!(!text.contains("hunter2"));
}

#[test]
fn ordinary_text_is_left_alone() {
    for ordinary in [
        r#"{"text":"the task-list of asia shows bearer bonds; sk-learn and hf_ are names","api_keys":3}"#,
        r#"{"max_tokens":4096,"input_tokens":12,"token":"a","next_page_token":"abc","secret_santa":"Bob"}"#,
        r#"{"cmd":"MAX_TOKENS=4096 PWD=/home/someone/project make KEY=$KEY"}"#,
        r#"{"url":"https://example.com:8080/a@b?q=1","mail":"someone@example.com","time":"12:30:11"}"#,
        r#"{"text":"the password is required; cookie: yes","file":"src/secret.rs"}"#,
    ] {
        assert_eq!(known(ordinary), (ordinary.to_owned(), 0));
    }
}

#[test]
fn a_second_pass_finds_nothing() {
    for (name, text, _) in secrets() {
        let once =
            known(&serde_json::json!({"a": text, "authorization": text, "password": text}).to_string()).0;
        assert_eq!(known(&once), (once.clone(), 0), "{name}");
    }
}

#[test]
fn shown_columns_are_redacted_and_identities_are_not() {
    let secret = secrets()[0].1.clone();
    let mut event = AgentEvent { data: "{}".into(), context: "{}".into(), ..AgentEvent::default() };
    event.texts_mut().for_each(|(_, text)| text.clone_from(&secret));
    let mut counts = Redactions::default();
    redactor().redact(&mut event, &mut counts);
    for (name, text) in event.texts() {
        assert_eq!(text != secret, SHOWN.contains(&name), "{name}");
    }
    assert_eq!((event.redactions as usize, counts.total() as usize), (SHOWN.len(), SHOWN.len()));
    assert_eq!(redactor().by_name(&counts).collect::<Vec<_>>(), [("anthropic-key", SHOWN.len() as u64)]);
}

fn own(name: &str, pattern: &str, replacement: &str) -> RedactRule {
    RedactRule { name: name.into(), pattern: pattern.into(), replacement: replacement.into() }
}

#[test]
fn operators_rules_see_each_text_and_never_break_the_json() {
    let rules = [
        own("ticket", "ACME-[0-9]+", ""),
        own("anything", "plan.*", "<${0}>"),
        own("quote", "say \".*\"", "\""),
    ];
    let redactor = Redactor::with_rules(&rules).unwrap();
    let mut event = AgentEvent {
        data: r#"{"ACME-1":"ACME-2 and ACME-3","b":["the plan\nis"],"c":"say \"x\""}"#.into(),
        context: "{}".into(),
        file_path: "/src/ACME-4".into(),
        session_id: "ACME-5".into(),
        ..AgentEvent::default()
    };
    let mut counts = Redactions::default();
    redactor.redact(&mut event, &mut counts);
    let data: Value = serde_json::from_str(&event.data).unwrap();
    assert_eq!(data["ACME-1"], "[redacted:ticket] and [redacted:ticket]");
    assert_eq!(data["b"][0], "the <plan>\nis");
    assert_eq!(data["c"], "\"");
    assert_eq!((event.file_path.as_str(), event.session_id.as_str()), ("/src/[redacted:ticket]", "ACME-5"));
    let by_name: Vec<_> = redactor.by_name(&counts).collect();
    assert_eq!(by_name, [("ticket", 3), ("anything", 1), ("quote", 1)]);
}

#[test]
fn a_rule_that_cannot_work_is_named() {
    let problem = |rules: &[RedactRule]| Redactor::with_rules(rules).err().unwrap().to_string();
    assert!(problem(&[own("a", "x", ""), own("b", "(", "")]).starts_with("rule 2 (b): "));
    assert!(problem(&[own("", "x", "")]).contains("its name must be"));
    assert!(problem(&[own("jwt", "x", "")]).contains("taken"));
    assert!(problem(&[own("a", "x*", "")]).contains("everywhere"));
    assert!(problem(&[own("a", &"x".repeat(LONGEST_PATTERN + 1), "")]).contains("at most"));
    assert!(problem(&[own("a", "(a{1000}){1000}", "")]).contains("size limit"));
    let many: Vec<_> = (0..=MOST_RULES).map(|n| own(&format!("r{n}"), "x", "")).collect();
    assert!(problem(&many).contains("more than"));
    assert!(Redactor::with_rules(&many[..MOST_RULES]).is_ok());
}

/// The output of a tool is many lines in one JSON string.
#[test]
fn a_secret_is_found_behind_whatever_escape_and_nothing_else_changes() {
    for (name, text, secret) in secrets() {
        for before in ["one\n", "col\t", "a\r\n", "\u{ff1a}", "x\n\n\t"] {
            let written = serde_json::json!({"output": format!("{before}{text}\nlast line")});
            // As Python writes it: everything beyond ASCII escaped.
            let ascii = |json: String| json.replace('\u{ff1a}', "\\uff1a");
            let nested = serde_json::json!({"inner": ascii(written.to_string())}).to_string();
            for json in [written.to_string(), ascii(written.to_string()), nested] {
                let (redacted, count) = known(&json);
                assert!(count > 0 && !redacted.contains(&secret), "{name}: {redacted}");
                // A key's block goes on to the end of its text.
                let goes_on = name == "private-key" || redacted.contains("last line");
                assert!(goes_on && !redacted.contains(PART), "{name}: {redacted}");
                serde_json::from_str::<Value>(&redacted).unwrap();
            }
        }
    }
    let lines =
        r#"{"output":"A_SECRET=hunter2hunter2\nDB_PASSWORD=hunter2hunter2\nX_TOKEN=abcdefabcdef1234"}"#;
    assert_eq!(known(lines).1, 3, "{}", known(lines).0);
    let path = r#"{"path":"C:\\new\\bearer token","key":"sk-"}"#;
    assert_eq!(known(path), (path.to_owned(), 0));
}

proptest! {
    // Each case compiles all rules anew.
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn json_stays_json(
        noise in ".{0,40}", which in any::<prop::sample::Index>(),
        key in "[a-z_.-]{0,12}(authorization|api_key|process.command_args|cookie|password|secret)?",
        pattern in "[a-c\"{}:,\\[\\]]{1,3}", replacement in ".{0,6}",
    ) {
        let secrets = secrets();
        let secret = &secrets[which.index(secrets.len())].1;
        let object = serde_json::json!({
            key.clone(): format!("{noise}{secret}{noise}"),
            "list": [noise, secret, 1234567890123_u64],
            "ends with": secret,
            "inner": serde_json::json!({key: secret, "n": [secret]}).to_string(),
        });
        let own = [own("own", &regex::escape(&pattern), &replacement)];
        let redactor = Redactor::with_rules(&own).unwrap();
        let mut event = AgentEvent { data: object.to_string(), context: "{}".into(), ..AgentEvent::default() };
        redactor.redact(&mut event, &mut Redactions::default());
        prop_assert!(serde_json::from_str::<Value>(&event.data).is_ok(), "{}", event.data);
    }

}

proptest! {
    /// No shape reaches beyond the string it begins in, whatever stands around it.
    #[test]
    fn marks_in_any_json_never_break_it(texts in prop::collection::vec("([A-Z_]{0,4}(KEY=|TOKEN=|://a:|;pwd=|cookie: a=|sig=)|[ -~]{0,6}){0,4}", 1..6), numbers in any::<[u64; 3]>()) {
        let json = serde_json::json!([texts, numbers, {"password": texts, "cookie": numbers, "a": [texts.last(), numbers]}]);
        let (redacted, _) = known(&json.to_string());
        prop_assert!(serde_json::from_str::<Value>(&redacted).is_ok(), "{}", redacted);
    }
}

#[test]
fn a_secret_in_bytes_that_are_no_text_is_replaced_and_other_bytes_are_kept() {
    let kept = |bytes: &[u8]| {
        let data = serde_json::json!({"base64": base64::engine::general_purpose::STANDARD.encode(bytes)});
        let mut event =
            AgentEvent { event_type: EventType::RawUnknown, data: data.to_string(), ..AgentEvent::default() };
        redactor().redact(&mut event, &mut Redactions::default());
        (event.data, event.redactions)
    };
    let secret = format!("sk-{}{FILLER}", "ant-api03-");
    let (data, redactions) = kept(&[b"bad\xff key ".as_slice(), secret.as_bytes(), b" end"].concat());
    assert_eq!(
        (data.as_str(), redactions),
        ("{\"text\":\"bad\u{fffd} key [redacted:anthropic-key] end\"}", 1)
    );
    assert_eq!(kept(b"\xff\x00"), ("{\"base64\":\"/wA=\"}".to_owned(), 0));
}

#[test]
fn a_preview_shows_no_part_of_a_secret_wherever_it_is_cut() {
    const MOST: usize = 200;
    for (rule, text, secret) in secrets() {
        for shown in [1, 8, 12, secret.len().min(30)] {
            // So that `shown` bytes of it would be within what is shown.
            let before = MOST - shown - (text.find(&secret).unwrap_or(0)).min(100);
            let bytes = format!("{}{text}{}", " ".repeat(before), " tail".repeat(10_000));
            let preview = redactor().preview(bytes.as_bytes(), MOST);
            assert!(preview.len() <= MOST);
            let part = &secret[..shown.min(secret.len())];
            assert!(shown < 8 || !preview.contains(part), "{rule}: {part:?} in {preview:?}");
        }
    }
}

#[test]
fn a_preview_of_what_is_no_text_is_empty_and_one_of_text_ends_at_a_character() {
    assert_eq!(redactor().preview(&[0x1f, 0x8b, 8, 0, 0xff], 100), "");
    assert_eq!(redactor().preview("aüb".as_bytes(), 2), "a");
    assert_eq!(redactor().preview("ü".repeat(40_000).as_bytes(), 101).chars().count(), 50);
    let rules = [RedactRule { name: "whole".into(), pattern: "^hush$".into(), replacement: String::new() }];
    let own = Redactor::with_rules(&rules).unwrap();
    assert_eq!(own.preview(br#"{"a":"hush"} and more"#, 100), r#"{"a":"[redacted:whole]"} and more"#);
}
