//! Sizes as Kubernetes writes them: `4Mi`, `100Gi`, `256000`, as a string or an integer.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A Kubernetes quantity, kept as written. [`Quantity::bytes`] gives the value of a size.
///
/// k8s-openapi's own `Quantity` has a schema that refuses an integer such as `cpu: 2`, hence this type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Quantity {
    /// A whole number.
    Integer(i64),
    /// A number with a suffix, such as `4Mi`.
    Text(String),
}

/// A text that is no size in bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no size in bytes: write a whole number with an optional suffix, like 4Mi or 100Gi")]
pub struct QuantityError(String);

const SUFFIXES: [(&str, u64); 10] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
];

impl Quantity {
    /// The size in bytes. Only whole numbers of bytes are sizes; `0.5Mi` is one, `500m` is not.
    pub fn bytes(&self) -> Result<u64, QuantityError> {
        let error = || QuantityError(self.to_string());
        let text = match self {
            Self::Integer(number) => return u64::try_from(*number).map_err(|_| error()),
            Self::Text(text) => text,
        };
        let (number, factor) = SUFFIXES
            .iter()
            .find_map(|(suffix, factor)| text.strip_suffix(suffix).map(|number| (number, *factor)))
            .unwrap_or((text, 1));
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || fraction.len() > 6 || !all_digits(whole) || !all_digits(fraction) {
            return Err(error());
        }
        let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(0));
        let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| error())?;
        let scaled = digits.checked_mul(u128::from(factor)).ok_or_else(error)?;
        if scaled % scale != 0 {
            return Err(error());
        }
        u64::try_from(scaled / scale).map_err(|_| error())
    }
}

impl From<&str> for Quantity {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl JsonSchema for Quantity {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "maxLength": 32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_kubernetes_writes_them() {
        for (text, bytes) in [("4Mi", 4 << 20), ("100Gi", 100 << 30), ("256000", 256_000), ("5k", 5000), ("0.5Ki", 512)] {
            assert_eq!(Quantity::from(text).bytes().unwrap(), bytes, "{text}");
        }
        assert_eq!(Quantity::Integer(7).bytes().unwrap(), 7);
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "Mi", "-1", "500m", "0.3", "1e3", "4 Mi", "4mi", "99999999Pi"] {
            assert!(Quantity::from(text).bytes().is_err(), "{text}");
        }
        assert!(Quantity::Integer(-1).bytes().is_err());
    }
}
