//! The string values of a JSON text, changed one by one; whatever is put in their place, the text stays JSON.

use crate::json_text::{is_name, next_string};

/// Rewrites every string value (member names are left alone) for which `change` gives a new text.
///
/// `change` sees the value without its escapes. A value whose escapes are not a text (half of a surrogate pair) is shown
/// as it stands, and what is put in its place is escaped like any other.
pub(super) fn rewrite(json: &mut String, mut change: impl FnMut(&str) -> Option<String>) {
    let mut out = String::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some((start, end)) = next_string(json, at) {
        at = end;
        if is_name(json, end) {
            continue;
        }
        let Some(token) = json.get(start..end) else { break };
        let inner = token.get(1..token.len().saturating_sub(1)).unwrap_or_default();
        let new = if inner.contains('\\') {
            match serde_json::from_str::<String>(token) {
                Ok(text) => change(&text),
                Err(_) => change(inner),
            }
        } else {
            change(inner)
        };
        let Some(new) = new.and_then(|new| serde_json::to_string(&new).ok()) else { continue };
        out.push_str(json.get(copied..start).unwrap_or_default());
        out.push_str(&new);
        copied = end;
    }
    if copied > 0 {
        out.push_str(json.get(copied..).unwrap_or_default());
        *json = out;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn shouted(text: &str) -> Option<String> {
        text.contains('x').then(|| text.to_uppercase())
    }

    #[test]
    fn values_change_and_names_do_not() {
        let mut json = r#"{"x":"ax\n","b":["x", 1, "y"] , "x":{"x" : "\ud83dx"}}"#.to_owned();
        rewrite(&mut json, shouted);
        let expected = r#"{"x":"AX\n","b":["X", 1, "y"] , "x":{"x" : "\\UD83DX"}}"#;
        assert_eq!(json, expected);
    }

    #[test]
    fn what_is_no_json_is_survived() {
        for text in ["", "\"", "\"x\\", "{\"x\":\"x", "x", "\"ü\\ü"] {
            let mut json = text.to_owned();
            rewrite(&mut json, shouted);
        }
    }

    proptest! {
        #[test]
        fn json_stays_json(texts in prop::collection::vec(".{0,20}", 0..5), replacement in ".{0,10}") {
            let value = serde_json::json!({"a": texts, "b": {"c": texts.first()}});
            let mut json = value.to_string();
            rewrite(&mut json, |_| Some(replacement.clone()));
            let changed: Value = serde_json::from_str(&json).unwrap();
            prop_assert!(changed["a"].as_array().unwrap().iter().all(|text| *text == replacement.as_str()));
        }
    }
}
