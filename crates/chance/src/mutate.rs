//! Something real, made wrong: in its bytes, or in one node of its structure.

use serde_json::Value;

use crate::Chance;

/// Bytes that parsers stumble over.
const STUMBLES: &[&[u8]] = &[
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\n",
    b"\r\n",
    b"\0",
    b"\\u0000",
    b"\\ud800",
    b"\xff",
    b"\xef\xbb\xbf",
    b"null",
    b"NaN",
    b"1e999",
    b"-0",
    b"{}{}",
    b"[[[[[[[[[[[[",
    b"{\"a\":{\"a\":",
    b"/*",
    b"\xc3",
    b"\x0a\xff\xff\xff\xff\x0f",
];

/// Changes one place: cuts what follows or comes before, takes bytes away, repeats some, puts in what parsers stumble over,
/// or turns a bit around.
pub fn change_bytes(body: &mut Vec<u8>, chance: &mut Chance) {
    let at = chance.place(body.len() + 1);
    match chance.below(6) {
        0 => body.truncate(at),
        1 => drop(body.splice(at..at, chance.one_of(STUMBLES).iter().copied())),
        2 => drop(body.drain(..at)),
        3 => {
            let end = (at + chance.place(40)).min(body.len());
            drop(body.drain(at..end));
        }
        4 => {
            let end = (at + chance.place(200)).min(body.len());
            let copy = body[at..end].to_vec();
            drop(body.splice(at..at, copy));
        }
        _ => {
            if let Some(byte) = body.get_mut(at) {
                *byte ^= 1 << chance.below(8);
            }
        }
    }
}

/// Changes one node: the value itself, or anything in it.
pub fn change_node(value: &mut Value, chance: &mut Chance, mut change: impl FnMut(&mut Value, &mut Chance)) {
    let mut target = chance.place(count(value));
    visit(value, &mut target, &mut |node| change(node, chance));
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(members) => members.values().map(count).sum(),
        _ => 0,
    }
}

/// Calls `change` on the node of number `target`, in the order of writing.
fn visit(value: &mut Value, target: &mut usize, change: &mut impl FnMut(&mut Value)) -> bool {
    if *target == 0 {
        change(value);
        return true;
    }
    *target -= 1;
    match value {
        Value::Array(items) => items.iter_mut().any(|item| visit(item, target, change)),
        Value::Object(members) => members.values_mut().any(|member| visit(member, target, change)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    #[test]
    fn bytes_are_changed_in_every_way_and_the_same_for_the_same_seed() {
        let changed = |seed: u64| {
            let mut body = b"{\"some\":\"bytes\"}".to_vec();
            change_bytes(&mut body, &mut Chance::new(seed));
            body
        };
        let all: Vec<Vec<u8>> = (0..1_000).map(changed).collect();
        assert_eq!(all, (0..1_000).map(changed).collect::<Vec<_>>());
        for how in [
            |body: &[u8]| body.starts_with(b"{\"so") && body.len() == 4,
            |body: &[u8]| body == b"bytes\"}",
            |body: &[u8]| body.starts_with(b"{\"so") && body.ends_with(b"s\"}") && body.len() == 10,
            |body: &[u8]| body.ends_with(b"bytes\"}bytes\"}"),
            |body: &[u8]| body.starts_with(b"{\"some\xff"),
            |body: &[u8]| body == b"{\"some\":\"bytez\"}" || body == b"{\"some\":\"bytes\"|",
        ] {
            assert!(all.iter().any(|body| how(body)));
        }
    }

    #[test]
    fn nothing_is_too_short_to_be_changed() {
        for seed in 0..200 {
            change_bytes(&mut Vec::new(), &mut Chance::new(seed));
        }
    }

    #[test]
    fn every_node_has_its_turn_and_only_one_is_changed() {
        let value = json!({"a": [1, {"b": null}], "c": "d"});
        let mut seen = BTreeSet::new();
        for seed in 0..100 {
            let mut times = 0;
            change_node(&mut value.clone(), &mut Chance::new(seed), |node, _| {
                seen.insert(node.to_string());
                times += 1;
            });
            assert_eq!(times, 1);
        }
        let nodes = [value.to_string().as_str(), "[1,{\"b\":null}]", "1", "{\"b\":null}", "null", "\"d\""]
            .map(str::to_owned);
        assert_eq!(seen, nodes.into());
    }
}
