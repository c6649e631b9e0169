//! Fuzzing of every decoder, on stable and for a bounded time: structure-aware mutations of every fixture, and bytes of
//! no structure at all.
//!
//! For each format of the catalogue, `FLEETLOG_FUZZ_RUNS` inputs (a few hundred when it is not set, so that the ordinary
//! tests take seconds) are made from one seed, `FLEETLOG_FUZZ_SEED`. For each input: nothing panics; gateway and
//! processor find the same records; every record has exactly one fate; what an event says is valid JSON; and the memory
//! used is bounded by the input's size.
//!
//! A failure prints the seed, the format and the number of the run, and the input. `FLEETLOG_FUZZ_ONLY` narrows the
//! formats by the beginning of their names, `FLEETLOG_FUZZ_FROM` goes on at the format of that name, and
//! `FLEETLOG_FUZZ_FIRST` begins at that run.
#![cfg(test)]

mod check;
mod corpus;
mod mutate;
mod template;
mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Instant;

use base64::Engine as _;
use check::{Case, Seen};
use corpus::Corpus;
use fleetlog_chance::Chance;
use fleetlog_formats::catalogue::{CATALOGUE, Format};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Inputs per format in the ordinary tests.
const RUNS: u64 = 300;
/// Inputs after which is said how far it is.
const PROGRESS: u64 = 100_000;
/// The seed when none is given; any number would do.
const SEED: u64 = 0x5EED_F1EE_7106;

/// Memory is counted for the whole process, so its two tests take turns.
static ALONE: Mutex<()> = Mutex::new(());

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn word(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn run(corpus: &Corpus, format: &str, seed: u64, number: u64, seen: &mut Seen) {
    let mut random = Chance::new(seed ^ hash(format.as_bytes()) ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let case: Case = mutate::case(corpus, format, &mut random);
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check::check(&case, format, &MEMORY, seen))) {
        let said = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let why = said.or_else(|| panic.downcast_ref().cloned()).unwrap_or_else(|| "a panic".to_owned());
        let body = base64::engine::general_purpose::STANDARD.encode(&case.body);
        panic!("{format}, run {number} of seed {seed}: {why}\n{case:?}\nbody in base64: {body}");
    }
}

#[test]
fn every_decoder_survives_everything() {
    let _alone = ALONE.lock();
    let runs = setting("FLEETLOG_FUZZ_RUNS").unwrap_or(RUNS);
    let first = setting("FLEETLOG_FUZZ_FIRST").unwrap_or(0);
    let seed = setting("FLEETLOG_FUZZ_SEED").unwrap_or(SEED);
    let (only, from) = (word("FLEETLOG_FUZZ_ONLY"), word("FLEETLOG_FUZZ_FROM"));
    println!("{runs} inputs for each decoder, seed {seed}");
    let corpus = Corpus::load(&mut Chance::new(seed));
    let formats = CATALOGUE.iter().skip_while(|format| !from.is_empty() && format.name != from);
    for format in formats.filter(|format| format.name.starts_with(&only)) {
        let (started, mut seen) = (Instant::now(), Seen::default());
        for number in first..first + runs {
            run(&corpus, format.name, seed, number, &mut seen);
            if (number + 1 - first).is_multiple_of(PROGRESS) {
                say(&corpus, format, number + 1 - first, &seen, started);
            }
        }
        if !runs.is_multiple_of(PROGRESS) {
            say(&corpus, format, runs, &seen, started);
        }
    }
}

fn say(corpus: &Corpus, format: &Format, runs: u64, seen: &Seen, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{:28} {runs} inputs, 0 failures; {} fixtures; {} B, {} records, {} events ({} of the format), {} bodies refused; most memory {} B for a body of {} B, at most {} % of its bound; {seconds:.1} s, {:.1} µs each",
        format.name,
        corpus.fixtures_of(format.name),
        seen.bytes,
        seen.records,
        seen.events,
        seen.own,
        seen.refused,
        seen.most_memory.0,
        seen.most_memory.1,
        seen.most_of_bound,
        seconds * 1e6 / runs.max(1) as f64,
    );
}

/// The bound must be able to fail: what one shared text costs must not be paid once a record.
#[test]
fn what_records_share_is_not_paid_for_by_each_of_them() {
    let _alone = ALONE.lock();
    for case in check::amplifying() {
        check::check(&case, "", &MEMORY, &mut Seen::default());
    }
}
