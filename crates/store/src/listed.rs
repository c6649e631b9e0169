//! Lists as parameters of a statement, however long they are.
//!
//! A server takes no parameter above `http_max_field_value_size`, 128 KiB unless it is configured, and refuses the whole
//! statement. So a list is cut into parts, each a parameter of its own, and the statement puts them together again: a
//! constant to the engine, which finds its way through a primary key by it as by a single parameter.
//!
//! Every list whose bytes nothing else bounds is bound through [`Listed`].

use std::fmt;

use clickhouse::query::Query;
use serde::Serialize;

/// Most bytes of a part, as it is sent; a single item that is larger is a part of its own.
const PART_BYTES: usize = 96 * 1024;

/// A list that a statement names: displayed, it is the expression that stands for it there.
#[derive(Clone, Debug)]
pub struct Listed<T> {
    name: &'static str,
    of: &'static str,
    items: Vec<T>,
    /// Where each part ends; an empty list is one part.
    ends: Vec<usize>,
}

/// What can be listed.
pub trait Listable: Serialize {
    /// Bytes that it takes in a list, with quotes and escapes, at most.
    fn written(&self) -> usize;
}

impl<T: Listable> Listed<T> {
    /// A list of a type of ClickHouse's, in the order given. Its parts are named after it, so of two lists in one
    /// statement none may be called like a part of the other (`name_0`).
    pub fn new(name: &'static str, of: &'static str, items: impl IntoIterator<Item = T>) -> Self {
        let items: Vec<T> = items.into_iter().collect();
        let mut ends = Vec::new();
        let mut held = 0;
        for (at, item) in items.iter().enumerate() {
            let written = item.written() + 1;
            if held > 0 && held + written > PART_BYTES {
                ends.push(at);
                held = 0;
            }
            held += written;
        }
        ends.push(items.len());
        Self { name, of, items, ends }
    }

    /// The statement with this list where it says `{name:Array(type)}`: for a text that was written before the list was
    /// known.
    pub fn placed(&self, sql: String) -> String {
        if let [_] = self.ends.as_slice() { sql } else { sql.replace(&self.whole(), &self.to_string()) }
    }

    /// The expression for the list as one parameter.
    fn whole(&self) -> String {
        format!("{{{}:Array({})}}", self.name, self.of)
    }

    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Binds the values.
    pub(crate) fn bind(&self, query: Query) -> Query {
        if let [_] = self.ends.as_slice() {
            return query.param(self.name, &self.items);
        }
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let parts = starts.zip(&self.ends).enumerate();
        parts.fold(query, |query, (number, (start, end))| {
            let part = self.items.get(start..*end).unwrap_or_default();
            query.param(&format!("{}_{number}", self.name), part)
        })
    }
}

impl<T: Listable> fmt::Display for Listed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [_] = self.ends.as_slice() {
            return f.write_str(&self.whole());
        }
        f.write_str("arrayConcat(")?;
        for number in 0..self.ends.len() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{{{}_{number}:Array({})}}", self.name, self.of)?;
        }
        f.write_str(")")
    }
}

impl Listable for &str {
    fn written(&self) -> usize {
        // What the client puts a backslash before.
        let escaped = self.bytes().filter(|byte| matches!(byte, b'\\' | b'\'' | b'`' | b'\t' | b'\n'));
        self.len() + escaped.count() + 2
    }
}

impl Listable for String {
    fn written(&self) -> usize {
        self.as_str().written()
    }
}

macro_rules! numbers {
    ($($number:ty),+) => {
        $(impl Listable for $number {
            fn written(&self) -> usize {
                20
            }
        })+
    };
}
numbers!(i32, i64, u32);

impl<A: Listable, B: Listable> Listable for (A, B) {
    fn written(&self) -> usize {
        self.0.written() + self.1.written() + 3
    }
}

impl<A: Listable, B: Listable, C: Listable> Listable for (A, B, C) {
    fn written(&self) -> usize {
        self.0.written() + self.1.written() + self.2.written() + 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts<T: Listable>(list: &Listed<T>) -> Vec<usize> {
        let starts = std::iter::once(0).chain(list.ends.iter().copied());
        starts.zip(&list.ends).map(|(start, end)| end - start).collect()
    }

    #[test]
    fn a_short_list_is_one_parameter() {
        let list = Listed::new("hours", "Int64", [1_i64, 2]);
        assert_eq!(list.to_string(), "{hours:Array(Int64)}");
        let none = Listed::new("keys", "Tuple(String, String)", Vec::<(&str, &str)>::new());
        assert_eq!(none.to_string(), "{keys:Array(Tuple(String, String))}");
    }

    #[test]
    fn a_long_list_is_cut_before_it_is_too_long_and_nothing_of_it_is_lost() {
        // 4,000 quotes are 8,000 bytes as they are sent.
        let quotes = "'".repeat(4000);
        let list = Listed::new("ids", "String", vec![quotes.as_str(); 30]);
        assert_eq!(parts(&list), [12, 12, 6]);
        let sql = "arrayConcat({ids_0:Array(String)}, {ids_1:Array(String)}, {ids_2:Array(String)})";
        assert_eq!(list.to_string(), sql);
        let placed = list.placed("id IN {ids:Array(String)} AND x = {id:String}".to_owned());
        assert_eq!(placed, format!("id IN {sql} AND x = {{id:String}}"));
        let plain = Listed::new("ids", "String", vec!["x".repeat(4000); 30]);
        assert_eq!(parts(&plain), [24, 6]);
    }

    #[test]
    fn an_item_that_is_too_large_is_a_part_of_its_own() {
        let large = "x".repeat(PART_BYTES);
        let list = Listed::new("ids", "String", ["a", large.as_str(), "b"]);
        assert_eq!(parts(&list), [1, 1, 1]);
    }

    #[test]
    fn every_byte_that_is_sent_is_counted() {
        assert_eq!("a\\'`\t\n".written(), "'a\\\\\\'\\`\\\t\\\n'".len());
        assert_eq!(("p", "s", 7_u32).written(), "('p','s',)".len() + 20);
    }
}
