//! JSON as text: where its strings are, without building a tree of it.
//!
//! For texts that were written by the decoders and so are known to be JSON; anything else is survived.

/// Where the next string begins and ends, quotes included.
pub(crate) fn next_string(json: &str, from: usize) -> Option<(usize, usize)> {
    let start = from + json.get(from..)?.find('"')?;
    let mut at = start + 1;
    loop {
        let found = at + json.get(at..)?.find(['"', '\\'])?;
        if json.as_bytes().get(found) == Some(&b'"') {
            return Some((start, found + 1));
        }
        // Whatever is escaped begins with one byte of ASCII.
        at = found + 2;
    }
}

/// Whether the string that ends at `end` names a member.
pub(crate) fn is_name(json: &str, end: usize) -> bool {
    json.get(end..).is_some_and(|rest| rest.trim_start().starts_with(':'))
}

/// The names of an object's own members, as they are written.
pub(crate) fn member_names(object: &str) -> impl Iterator<Item = &str> {
    let (mut at, mut depth) = (0, 0_i64);
    std::iter::from_fn(move || {
        loop {
            let (start, end) = next_string(object, at)?;
            for byte in object.get(at..start)?.bytes() {
                match byte {
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
            }
            at = end;
            if depth == 1 && is_name(object, end) {
                return object.get(start + 1..end - 1);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_an_objects_own_members_are_named() {
        let object = r#"{"a":{"b":1},"c" : ["d",{"e":"f"}],"g\"h":"i","j":"{\"k\":1}"}"#;
        assert_eq!(member_names(object).collect::<Vec<_>>(), ["a", "c", r#"g\"h"#, "j"]);
        assert_eq!(member_names("{}").count(), 0);
        assert_eq!(member_names("\"").count(), 0);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,60}", marks in "[\\[\\]{}:,\"\\\\ü]{0,30}") {
            member_names(&text).chain(member_names(&marks)).for_each(drop);
        }
    }
}
