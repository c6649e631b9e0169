//! Finding the rows that ClickHouse refuses among many (INV-8), as a pure decision: which rows to ask for next.
//!
//! A set is asked for as a whole; one that is refused is asked for by halves, down to single rows. With `k` refused rows
//! of `n` that takes at most `1 + 2 k ⌈log2 n⌉` questions, and never more than `2 n`. What is refused only together with
//! others (too many or too large as a whole) has both halves accepted: then no row is named, because none is at fault.

use std::ops::Range;

/// A search among rows that are named by their place in a list.
#[derive(Debug)]
pub(crate) struct Bisection {
    /// Sets that were not asked for, the next one last.
    open: Vec<Range<usize>>,
    refused: Vec<usize>,
}

impl Bisection {
    /// A search among as many rows.
    pub(crate) fn among(rows: usize) -> Self {
        let all = 0..rows;
        Self { open: if all.is_empty() { Vec::new() } else { vec![all] }, refused: Vec::new() }
    }

    /// The rows to ask for; `None` once all is known.
    pub(crate) fn next(&self) -> Option<Range<usize>> {
        self.open.last().cloned()
    }

    /// Takes the answer for the rows that are next.
    pub(crate) fn answer(&mut self, is_refused: bool) {
        let Some(asked) = self.open.pop() else { return };
        match (is_refused, asked.len()) {
            (false, _) => {}
            (true, 1) => self.refused.push(asked.start),
            (true, rows) => {
                let middle = asked.start + rows / 2;
                self.open.extend([middle..asked.end, asked.start..middle]);
            }
        }
    }

    /// The rows that are refused on their own, in order.
    pub(crate) fn refused(self) -> Vec<usize> {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Asks until all is known; returns what was found and how often it was asked.
    fn search(rows: usize, is_refused: impl Fn(Range<usize>) -> bool) -> (Vec<usize>, usize) {
        let mut bisection = Bisection::among(rows);
        let mut asked = 0;
        while let Some(next) = bisection.next() {
            assert!(!next.is_empty() && next.end <= rows);
            asked += 1;
            bisection.answer(is_refused(next));
        }
        (bisection.refused(), asked)
    }

    proptest! {
        #[test]
        fn exactly_the_refused_rows_are_found_with_few_questions(
            rows in 0usize..3000,
            picks in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let refused: BTreeSet<usize> =
                if rows == 0 { BTreeSet::new() } else { picks.iter().map(|pick| pick.index(rows)).collect() };
            let (found, asked) = search(rows, |set| refused.range(set).next().is_some());
            prop_assert_eq!(found, refused.iter().copied().collect::<Vec<_>>());
            let depth = rows.max(1).next_power_of_two().trailing_zeros() as usize;
            prop_assert!(asked <= 1 + 2 * refused.len() * depth && asked <= 2 * rows, "{asked} questions");
        }

        /// A set that is refused for its size, or for two rows that do not go together, has no row at fault.
        #[test]
        fn rows_that_are_refused_only_together_are_not_named(
            rows in 2usize..2000,
            most in 1usize..50,
            a in any::<prop::sample::Index>(),
            b in any::<prop::sample::Index>(),
            alone in any::<prop::sample::Index>(),
        ) {
            let (found, asked) = search(rows, |set| set.len() > most);
            prop_assert!(found.is_empty() && asked <= 2 * rows);
            let (a, b, alone) = (a.index(rows), b.index(rows), alone.index(rows));
            let clash = |set: &Range<usize>| a != b && set.contains(&a) && set.contains(&b);
            let (found, _) = search(rows, |set| clash(&set));
            prop_assert!(found.is_empty());
            let (found, _) = search(rows, |set| clash(&set) || set.contains(&alone));
            prop_assert_eq!(found, [alone]);
        }
    }
}
