//! Fuzzing of every decoder, on stable and for a bounded time: structure-aware mutations of every fixture, and bytes of
//! no structure at all.
//!
//! For each format of the catalogue, `FLEETLOG_FUZZ_RUNS` inputs (a few hundred when it is not set, so that the ordinary
//! tests take seconds) are made from one seed, `FLEETLOG_FUZZ_SEED`; a failure prints the seed, the format and the number
//! of the run, and the input. `FLEETLOG_FUZZ_ONLY` narrows the formats by the beginning of their names. For each input:
//! nothing panics; gateway and processor find the same records; every record has exactly one fate; what an event says
//! is valid JSON; and the memory used is bounded by the input's size.
#![cfg(test)]

mod check;
mod corpus;
mod mutate;
mod random;
mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use base64::Engine as _;
use check::Case;
use corpus::Corpus;
use fleetlog_formats::catalogue::CATALOGUE;
use peak_alloc::PeakAlloc;
use random::Random;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Inputs per format in the ordinary tests.
const RUNS: u64 = 300;
/// The seed when none is given; any number would do.
const SEED: u64 = 0x5EED_F1EE_7106;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn run(corpus: &Corpus, format: &str, seed: u64, number: u64) -> check::Seen {
    let mut random =
        Random::new(seed ^ random::hash(format.as_bytes()) ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let case: Case = mutate::case(corpus, format, &mut random);
    match catch_unwind(AssertUnwindSafe(|| check::check(&case, &MEMORY))) {
        Ok(seen) => seen,
        Err(panic) => {
            let why = panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".to_owned());
            let body = base64::engine::general_purpose::STANDARD.encode(&case.body);
            panic!("{format}, run {number} of seed {seed}: {why}\n{case:?}\nbody in base64: {body}");
        }
    }
}

#[test]
fn every_decoder_survives_everything() {
    let runs = setting("FLEETLOG_FUZZ_RUNS").unwrap_or(RUNS);
    let seed = setting("FLEETLOG_FUZZ_SEED").unwrap_or(SEED);
    let only = std::env::var("FLEETLOG_FUZZ_ONLY").unwrap_or_default();
    println!("{runs} inputs for each decoder, seed {seed}");
    let corpus = Corpus::load(&mut Random::new(seed));
    for format in CATALOGUE.iter().filter(|format| format.name.starts_with(&only)) {
        let (started, mut total) = (Instant::now(), check::Seen::default());
        for number in 0..runs {
            total.add(&run(&corpus, format.name, seed, number));
        }
        println!(
            "{:32} {} fixtures; {} records, {} events ({} of the format), {} bodies refused; most memory {} B for a body of {} B; {:.1} s",
            format.name,
            corpus.fixtures_of(format.name),
            total.records,
            total.events,
            total.of_format.get(format.name).copied().unwrap_or(0),
            total.refused,
            total.most_memory.0,
            total.most_memory.1,
            started.elapsed().as_secs_f64(),
        );
    }
}

/// The bound must be able to fail: what one shared text costs must not be paid once a record.
#[test]
fn what_records_share_is_not_paid_for_by_each_of_them() {
    for case in check::amplifying() {
        check::check(&case, &MEMORY);
    }
}
