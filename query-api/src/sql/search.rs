//! Conditions on the words of a payload.
//!
//! The index knows the words of `data_words`: runs of letters, digits and whatever is not ASCII, ASCII in lower case. A
//! letter beyond ASCII keeps its case there, and senders write it in two ways: as itself, or as JSON's escape `\u00fc`,
//! whose backslash ends a word of the index and begins the next. So a word with such letters is looked for in each way
//! that it is commonly written.

use super::{Builder, Param};

/// Words with letters beyond ASCII that are looked for in all their spellings; further ones only as they were given.
const SPELLED: usize = 4;

/// A word in one of its cases, the letters beyond ASCII as JSON's escapes. The index has several words for it, and that
/// all of them are in a payload apart from each other is unlikely.
fn escaped(word: &str) -> String {
    let mut escaped = String::with_capacity(word.len() * 3);
    for c in word.chars() {
        if c.is_ascii() {
            escaped.push(c.to_ascii_lowercase());
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            escaped.push_str(&format!("\\u{unit:04x}"));
        }
    }
    escaped
}

/// The cases in which a word is commonly written: small, capitals, a capital first; and as it was given.
fn cases(word: &str) -> [String; 4] {
    let small = word.to_lowercase();
    let mut letters = small.chars();
    let first = letters.next().map(char::to_uppercase).into_iter().flatten();
    let title: String = first.chain(letters).collect();
    [small, word.to_uppercase(), title, word.to_owned()].map(|mut case| {
        case.make_ascii_lowercase();
        case
    })
}

/// The condition on the word of that number and the names of its parameters.
macro_rules! spelled {
    ($($plain:literal $small:literal $capitals:literal $title:literal),*) => {
        [$((
            concat!(
                "(hasAnyTokens(data_words, {", $plain, ":Array(String)})",
                " OR hasAllTokens(data_words, {", $small, ":String})",
                " OR hasAllTokens(data_words, {", $capitals, ":String})",
                " OR hasAllTokens(data_words, {", $title, ":String}))"
            ),
            [$plain, $small, $capitals, $title],
        )),*]
    };
}

const CONDITIONS: [(&str, [&str; 4]); SPELLED] = spelled!(
    "word_0" "small_0" "capitals_0" "title_0",
    "word_1" "small_1" "capitals_1" "title_1",
    "word_2" "small_2" "capitals_2" "title_2",
    "word_3" "small_3" "capitals_3" "title_3"
);

/// Rows whose payload has all words of a text.
pub(super) fn all_words(mut query: Builder, text: &str) -> Builder {
    let words =
        text.split(|c: char| c.is_ascii() && !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let (mut as_given, mut spelled) = (Vec::new(), CONDITIONS.iter());
    for word in words {
        let condition = if word.is_ascii() { None } else { spelled.next() };
        let Some((condition, [plain, small, capitals, title])) = condition else {
            as_given.push(word.to_ascii_lowercase());
            continue;
        };
        let cases = cases(word);
        let [in_small, in_capitals, with_title, _] = &cases;
        let escapes = [(small, in_small), (capitals, in_capitals), (title, with_title)]
            .map(|(name, case)| (*name, Param::Text(escaped(case))));
        query = query.and(condition).bind(plain, Param::Texts(cases.to_vec()));
        query = escapes.into_iter().fold(query, |query, (name, value)| query.bind(name, value));
    }
    if as_given.is_empty() {
        return query;
    }
    query.and_text("hasAllTokens(data_words, {search:String})", "search", &as_given.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_looked_for_in_the_cases_and_spellings_in_which_it_is_written() {
        let query = all_words(Builder::select("SELECT 1"), "Gr\u{fc}n, TEA!").build();
        let texts = |words: &[&str]| Param::Texts(words.iter().map(|word| (*word).to_owned()).collect());
        let text = |word: &str| Param::Text(word.to_owned());
        assert_eq!(
            query.params,
            [
                ("word_0", texts(&["gr\u{fc}n", "gr\u{dc}n", "gr\u{fc}n", "gr\u{fc}n"])),
                ("small_0", text(r"gr\u00fcn")),
                ("capitals_0", text(r"gr\u00dcn")),
                ("title_0", text(r"gr\u00fcn")),
                ("search", text("tea")),
            ]
        );
    }

    #[test]
    fn letters_beyond_the_first_plane_are_written_as_two_units() {
        assert_eq!(escaped("a\u{1f600}"), r"a\ud83d\ude00");
    }

    #[test]
    fn more_words_than_are_spelled_are_still_all_asked_for() {
        let query = all_words(Builder::select("SELECT 1"), "\u{e4} \u{f6} \u{fc} \u{df} \u{e9} x").build();
        assert_eq!(query.params.last(), Some(&("search", Param::Text("\u{e9} x".to_owned()))));
        assert_eq!(query.sql.matches("hasAnyTokens").count(), SPELLED);
    }
}
