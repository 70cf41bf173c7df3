//! Durations as people write them: `2s`, `5m`, `1h30m`, `100ms`.

use std::{fmt, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A duration in the resource: one or more numbers with a unit of `ms`, `s`, `m` or `h`.
///
/// The text is kept as written, so that what a person reads back is what was applied; [`TextDuration::parse`] gives its value.
/// The syntax is the part of Go's `time.ParseDuration` that CEL's `duration()` shares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TextDuration(String);

/// A text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no duration: write a number and a unit of ms, s, m or h, like 2s or 1h30m")]
pub struct DurationError(String);

impl TextDuration {
    /// The value of the text.
    pub fn parse(&self) -> Result<Duration, DurationError> {
        let error = || DurationError(self.0.clone());
        let mut rest = self.0.as_str();
        let mut total = Duration::ZERO;
        if rest.is_empty() {
            return Err(error());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| c != '.' && !c.is_ascii_digit()).ok_or_else(error)?;
            let unit_end = rest[digits..].find(|c: char| !c.is_ascii_alphabetic()).map_or(rest.len(), |end| digits + end);
            let seconds = match &rest[digits..unit_end] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(error()),
            };
            let number: f64 = rest[..digits].parse().map_err(|_| error())?;
            let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| error())?;
            total = total.checked_add(part).ok_or_else(error)?;
            rest = &rest[unit_end..];
        }
        Ok(total)
    }
}

impl From<&str> for TextDuration {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for TextDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for TextDuration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TextDuration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": 32})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, milliseconds) in [("2s", 2000), ("100ms", 100), ("1h30m", 5_400_000), ("1.5s", 1500), ("0s", 0)] {
            assert_eq!(TextDuration::from(text).parse().unwrap(), Duration::from_millis(milliseconds), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "2", "s", "2 days", "-1s", "1d", "1.2.3s", "99999999999999999999h", "2s "] {
            assert!(TextDuration::from(text).parse().is_err(), "{text}");
        }
    }
}
