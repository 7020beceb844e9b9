//! Plays the corpora of `fuzz/`, each file as it is and mutated, through the bodies of the fuzz targets.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mesh_testkit::fuzz::TARGETS;

/// Mutations of each file.
const MUTATIONS: u64 = 300;
/// What one input may take in an unoptimised build; a parser that runs away takes longer.
const SLOW: Duration = Duration::from_secs(5);

fn corpora() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus")
}

#[test]
fn bodies_survive_their_corpora_and_mutations_of_them() {
    for (name, body) in TARGETS {
        let files: Vec<_> = fs::read_dir(corpora().join(name))
            .expect("every target has a corpus")
            .flatten()
            .collect();
        assert!(!files.is_empty(), "the corpus of {name} is empty");
        for file in files {
            let seed = fs::read(file.path()).expect("corpus files are readable");
            for round in 0..=MUTATIONS {
                let input = if round == 0 {
                    seed.clone()
                } else {
                    mutate(&seed, round)
                };
                let start = Instant::now();
                body(&input);
                assert!(
                    start.elapsed() < SLOW,
                    "{name} took {:?} for {input:?}",
                    start.elapsed()
                );
            }
        }
    }
}

#[test]
fn targets_and_corpora_and_programs_are_the_same_set() {
    let listed = |dir: PathBuf| {
        let mut names: Vec<String> = fs::read_dir(dir)
            .expect("folder exists")
            .flatten()
            .map(|entry| {
                entry
                    .path()
                    .file_stem()
                    .expect("entries have names")
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    };
    let mut targets: Vec<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    targets.sort();
    assert_eq!(listed(corpora()), targets);
    assert_eq!(listed(corpora().join("../fuzz_targets")), targets);
}

/// A few edits, the same for the same round: bytes flipped, removed, doubled, or replaced by bytes that grammars care about.
fn mutate(seed: &[u8], round: u64) -> Vec<u8> {
    const LOADED: &[u8] = b"\0\t\n\r :{}[]()*&|\\\"'/%-.#\x7f\xff";
    let mut random = Random(round.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut out = seed.to_vec();
    for _ in 0..=random.below(4) {
        if out.is_empty() {
            return LOADED.to_vec();
        }
        let at = random.below(out.len());
        match random.below(5) {
            0 => out[at] ^= 1 << random.below(8),
            1 => drop(out.remove(at)),
            2 => out.insert(at, LOADED[random.below(LOADED.len())]),
            3 => out.truncate(at),
            _ => {
                let piece = out[at..].to_vec();
                out.splice(at..at, piece);
            }
        }
    }
    out
}

/// Xorshift, so that each run plays the same inputs.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).expect("smaller than a usize")
    }
}
