//! What simulations and fuzzers draw: the same for the same seed, on every machine and in every version.
//!
//! For tests and load tests only; no service depends on it. It knows nothing of what is simulated.

pub mod mutate;

/// A generator of random numbers (splitmix64, Steele et al. 2014).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The generator of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n`, or 0 when there is none.
    pub const fn below(&mut self, n: u64) -> u64 {
        let bits = self.bits();
        if n == 0 { 0 } else { bits % n }
    }

    /// A place in a list of that length; 0 when it is empty.
    pub const fn place(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// True once in `n` times.
    pub const fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of what there is.
    ///
    /// # Panics
    /// When there is nothing.
    pub fn one_of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.place(list.len())]
    }
}

/// The seeds of a simulation's runs, one a run: `runs` of them or `FLEETLOG_SIM_RUNS`, beginning with 1 or with
/// `FLEETLOG_SIM_SEED`. Printed, so that a run can be repeated.
///
/// # Panics
/// When the environment says something else than a number.
pub fn seeds(runs: u64) -> impl Iterator<Item = u64> {
    let asked = |name: &str| std::env::var(name).ok().map(|text| number(name, &text));
    let runs = asked("FLEETLOG_SIM_RUNS").unwrap_or(runs);
    let first = asked("FLEETLOG_SIM_SEED").unwrap_or(1);
    #[expect(clippy::print_stdout, reason = "the output of a test")]
    {
        println!("{runs} runs from seed {first}");
    }
    (0..runs).map(move |run| first.wrapping_add(run))
}

#[expect(clippy::panic, reason = "a run other than the one that was asked for would look like it")]
fn number(name: &str, text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference values of Vigna's C code; a seed that was written down somewhere must not change its meaning.
    #[test]
    fn a_seed_means_the_same_numbers_for_ever() {
        let mut chance = Chance::new(1_234_567);
        let drawn: Vec<u64> = (0..3).map(|_| chance.bits()).collect();
        assert_eq!(drawn, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn what_is_drawn_is_below_its_bound_and_reaches_all_of_it() {
        let mut chance = Chance::new(1);
        let mut seen = [0; 5];
        (0..1_000).for_each(|_| seen[chance.place(5)] += 1);
        assert!(seen.iter().all(|times| *times > 100), "{seen:?}");
        assert_eq!((chance.below(1), chance.below(0), chance.place(0)), (0, 0, 0));
        let hits = (0..10_000).filter(|_| chance.one_in(10)).count();
        assert!((800..1_200).contains(&hits), "{hits}");
        assert_eq!(chance.one_of(&["only"]), &"only");
    }

    #[test]
    #[should_panic(expected = "FLEETLOG_SIM_RUNS=20k is not a number")]
    fn a_number_of_runs_that_is_none_is_no_default() {
        number("FLEETLOG_SIM_RUNS", "20k");
    }
}
