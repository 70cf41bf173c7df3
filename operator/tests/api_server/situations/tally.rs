//! Calls, counted: a line says which call a row allows, once, or as often as the number before it; a range of numbers has its reason in
//! parentheses.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

use crate::calls::Call;

/// Whether `made` are exactly the calls that `allowed` names.
pub(super) fn compare(allowed: &[&[&str]], made: &[Call]) -> Result<()> {
    let mut wanted: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for line in allowed.iter().copied().flatten() {
        let (what, least, most) = read(line).with_context(|| format!("cannot read {line:?}"))?;
        let sum = wanted.entry(what).or_default();
        *sum = (sum.0 + least, sum.1 + most);
    }
    let mut found: BTreeMap<&str, usize> = wanted.keys().map(|what| (*what, 0)).collect();
    for call in made {
        *found.entry(&call.what).or_default() += 1;
    }
    let differs = |(what, times): (&str, usize)| {
        let (least, most) = wanted.get(what).copied().unwrap_or_default();
        (times < least || times > most).then(|| format!("{times} times {what:?} instead of {least} to {most}"))
    };
    let differences: Vec<_> = found.into_iter().filter_map(differs).collect();
    let lines: Vec<_> = made.iter().map(ToString::to_string).collect();
    ensure!(differences.is_empty(), "{differences:#?}; the calls are {lines:#?}");
    Ok(())
}

/// The call that a line allows, how often at least, and at most.
pub(super) fn read(line: &str) -> Result<(&str, usize, usize)> {
    let call = line.split_once(" (").map_or(line, |(call, _)| call);
    let Some((times, what)) = call.split_once(' ').filter(|_| call.starts_with(|first: char| first.is_ascii_digit())) else {
        return Ok((call, 1, 1));
    };
    let (least, most) = times.split_once('-').unwrap_or((times, times));
    ensure!(least == most || line.ends_with(')'), "a range needs a reason");
    Ok((what, least.parse()?, most.parse()?))
}
