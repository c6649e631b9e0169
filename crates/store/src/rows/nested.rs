//! A slice of structs as the arrays of a `Nested` column, without building the arrays; and the arrays as they are read
//! back, to be compared with a slice or turned into structs again.

use fleetlog_schemas::EventType;
use fleetlog_schemas::event::{Channel, Status};
use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};

/// One field of every item, serialised as an array.
pub(crate) struct Column<'a, T, V>(pub(crate) &'a [T], pub(crate) fn(&T) -> &V);

impl<T, V: Serialize> Serialize for Column<'_, T, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|item| (self.1)(item)))
    }
}

/// A value of a column, as it is written and as it is read back.
pub(crate) trait Kept {
    /// What it is read back as.
    type Stored: DeserializeOwned + std::fmt::Debug;

    /// Whether this is what was read back.
    fn is(&self, stored: &Self::Stored) -> bool;

    /// What was read back.
    fn of(stored: Self::Stored) -> Self;
}

macro_rules! kept {
    ($($type:ty),+ $(,)?) => {$(
        impl Kept for $type {
            type Stored = $type;

            fn is(&self, stored: &$type) -> bool {
                self == stored
            }

            fn of(stored: $type) -> Self {
                stored
            }
        }
    )+};
}
kept!(String, bool, i32, i64, u32, u64, Option<i32>, Option<i64>, Option<u32>, Option<u64>, Vec<String>);

impl Kept for &'static str {
    type Stored = String;

    fn is(&self, stored: &String) -> bool {
        self == stored
    }

    /// The word of a vocabulary; one that only a newer version knows is not said.
    fn of(stored: String) -> Self {
        None.or_else(|| Status::parse(&stored).map(Status::as_str))
            .or_else(|| Channel::parse(&stored).map(Channel::as_str))
            .or_else(|| EventType::parse(&stored).map(EventType::as_str))
            .unwrap_or_default()
    }
}

impl Kept for Option<f64> {
    type Stored = Self;

    fn is(&self, stored: &Self) -> bool {
        // What is no number is stored too, and equals itself.
        self.map(f64::to_bits) == stored.map(f64::to_bits)
    }

    fn of(stored: Self) -> Self {
        stored
    }
}

/// The names of those of the given fields that differ.
macro_rules! differing {
    ($one:expr, $other:expr; $($field:ident),+ $(,)?) => {{
        let mut names: Vec<&'static str> = Vec::new();
        $(if $one.$field != $other.$field {
            names.push(stringify!($field));
        })+
        names
    }};
}
pub(crate) use differing;

/// Declares a struct whose slices become the arrays of a `Nested` column, and the arrays as they are read back.
macro_rules! nested {
    ($(#[$doc:meta])* $name:ident, $stored:ident in $prefix:literal {
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

        /// The arrays as they are stored.
        #[derive(Debug, Default, serde::Deserialize)]
        pub(crate) struct $stored { $($field: Vec<<$field_type as $crate::rows::nested::Kept>::Stored>),+ }

        impl $stored {
            /// The columns that do not hold what these items say.
            pub(crate) fn differing(&self, items: &[$name]) -> Vec<&'static str> {
                use $crate::rows::nested::Kept as _;
                let mut names = Vec::new();
                $(if self.$field.len() != items.len()
                    || self.$field.iter().zip(items).any(|(stored, item)| !item.$field.is(stored))
                {
                    names.push(concat!($prefix, ".", $column));
                })+
                names
            }
        }

        impl From<$stored> for Vec<$name> {
            fn from(stored: $stored) -> Self {
                use $crate::rows::nested::Kept as _;
                let mut items = Self::new();
                $(let mut $field = stored.$field.into_iter();)+
                loop {
                    // The arrays of a `Nested` column are equally long.
                    items.push($name {
                        $($field: match $field.next() {
                            Some(stored) => <$field_type>::of(stored),
                            None => return items,
                        }),+
                    });
                }
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

/// Implements the client's `Row` for a type that is read back without names and types in front, so that it may be made
/// of several.
macro_rules! stored_row {
    ($name:ident) => {
        impl clickhouse::Row for $name {
            const NAME: &'static str = stringify!($name);
            const COLUMN_NAMES: &'static [&'static str] = &[];
            const COLUMN_COUNT: usize = 0;
            const KIND: clickhouse::_priv::RowKind = clickhouse::_priv::RowKind::Struct;
            type Value<'a> = $name;
        }
    };
}
pub(crate) use stored_row;

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
