//! A slice of structs as the arrays of a `Nested` column, without building the arrays.

use serde::{Serialize, Serializer};

/// One field of every item, serialised as an array.
pub(crate) struct Column<'a, T, V>(pub(crate) &'a [T], pub(crate) fn(&T) -> &V);

impl<T, V: Serialize> Serialize for Column<'_, T, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|item| (self.1)(item)))
    }
}

/// Declares a struct whose slices become the arrays of a `Nested` column.
macro_rules! nested {
    ($(#[$doc:meta])* $name:ident in $prefix:literal {
        $($(#[$fdoc:meta])+ $column:literal $field:ident: $field_type:ty),+ $(,)?
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name { $($(#[$fdoc])+ pub $field: $field_type),+ }

        impl $name {
            /// The arrays' names.
            pub(crate) const COLUMNS: &'static [&'static str] = &[$(concat!($prefix, ".", $column)),+];

            /// Adds the arrays to a row.
            pub(crate) fn serialize_columns<S: serde::ser::SerializeStruct>(
                items: &[Self],
                row: &mut S,
            ) -> Result<(), S::Error> {
                $(row.serialize_field(
                    concat!($prefix, ".", $column),
                    &$crate::rows::nested::Column(items, |item| &item.$field),
                )?;)+
                Ok(())
            }
        }
    };
}
pub(crate) use nested;

/// Implements the client's `Row` for a type that serialises itself, with the given columns.
macro_rules! row_columns {
    ($name:ident, $count:expr, $columns:expr) => {
        impl<'r> clickhouse::Row for $name<'r> {
            const NAME: &'static str = stringify!($name);
            const COLUMN_NAMES: &'static [&'static str] = $columns;
            const COLUMN_COUNT: usize = $count;
            const KIND: clickhouse::_priv::RowKind = clickhouse::_priv::RowKind::Struct;
            type Value<'a> = $name<'a>;
        }
    };
}
pub(crate) use row_columns;

/// Joins lists of column names.
pub(crate) const fn joined<const N: usize>(lists: &[&[&'static str]]) -> [&'static str; N] {
    let mut all = [""; N];
    let (mut list, mut at) = (0, 0);
    while list < lists.len() {
        let mut item = 0;
        while item < lists[list].len() {
            all[at] = lists[list][item];
            at += 1;
            item += 1;
        }
        list += 1;
    }
    assert!(at == N, "the number of columns is not the declared one");
    all
}
