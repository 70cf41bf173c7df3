//! The seeds whose histories broke the invariant once.

const FILE: &str = include_str!("../seeds.txt");

/// All of them.
pub fn failed_once() -> impl Iterator<Item = u64> {
    let lines = FILE.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_whitespace().next()?.parse().ok())
}
