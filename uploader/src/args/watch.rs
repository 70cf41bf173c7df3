//! Which files are taken, and when.

use std::time::Duration;

use super::value;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct WatchArguments {
    /// Seconds between two looks at the folder
    #[arg(long, env = "APP_POLL_INTERVAL_S", value_name = "SECONDS", default_value = "2.0", value_parser = |text: &str| value::seconds(text, 0.1, 3600.0))]
    poll_interval_s: Duration,

    /// Seconds for which a file must have been seen unchanged before it is taken
    #[arg(long, env = "APP_MIN_FILE_AGE_S", value_name = "SECONDS", default_value = "5.0", value_parser = |text: &str| value::seconds(text, 1.0, 86_400.0))]
    min_file_age_s: Duration,

    /// Take files in folders below the session's too, true or false; their paths become part of the blobs' names
    #[arg(long, env = "APP_RECURSIVE", value_name = "BOOLEAN", default_value = "false", num_args = 0..=1, default_missing_value = "true", value_parser = recursive)]
    recursive: bool,

    /// Extensions of the files that are taken, like .mp4,bin,.tar.gz [default: all files]
    #[arg(long, env = "APP_FILE_EXTENSIONS", value_name = "LIST", value_delimiter = ',', value_parser = extension)]
    file_extensions: Vec<String>,

    /// Names that are left alone, with the wildcards * and ?; write an empty list to take all
    #[arg(long, env = "APP_IGNORE", value_name = "LIST", value_delimiter = ',', default_value = ".*,*.tmp,*.part,*.partial,*~", value_parser = glob)]
    ignore: Vec<String>,
}

/// Which files are taken, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchSettings {
    /// Time between two scans.
    pub poll_interval: Duration,
    /// Observed quiet before a claim.
    pub min_file_age: Duration,
    /// Whether files in folders below the session's are taken too.
    pub recursive: bool,
    /// Lower case, each with its leading dot; empty means all files.
    pub extensions: Vec<String>,
    /// Globs of names that are left alone.
    pub ignore: Vec<String>,
}

impl WatchArguments {
    pub(super) fn check(self) -> WatchSettings {
        WatchSettings {
            poll_interval: self.poll_interval_s,
            min_file_age: self.min_file_age_s,
            recursive: self.recursive,
            extensions: self.file_extensions.into_iter().filter(|extension| !extension.is_empty()).collect(),
            ignore: self.ignore.into_iter().filter(|glob| !glob.is_empty()).collect(),
        }
    }
}

fn recursive(text: &str) -> Result<bool, String> {
    value::word(text, &[("true", true), ("false", false)])
}

fn extension(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.contains(|c: char| c.is_whitespace() || "/*?".contains(c)) || text.ends_with('.') {
        return Err("write extensions like .mp4, bin or .tar.gz, with commas between them: no slash, wildcard or white space, no dot at the end".into());
    }
    let dotless = text.strip_prefix('.').unwrap_or(text);
    Ok(if dotless.is_empty() { String::new() } else { format!(".{}", dotless.to_lowercase()) })
}

fn glob(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.contains(['/', '{', '}', '[', ']', '\\']) {
        return Err(
            "write names with the wildcards * and ?, like *.tmp, with commas between them: no slash, brace, bracket or backslash"
                .into(),
        );
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_made_alike() {
        for text in [".BIN", "bin", " bin "] {
            assert_eq!(extension(text).unwrap(), ".bin");
        }
        assert_eq!(extension("tar.gz").unwrap(), ".tar.gz");
        for text in ["*.bin", "a/b", "bin.", ".", "a b"] {
            assert!(extension(text).is_err(), "{text}");
        }
    }

    #[test]
    fn globs_have_no_other_wildcards_than_those_of_the_resource() {
        assert_eq!(glob("*.tmp").unwrap(), "*.tmp");
        for text in ["a/*", "{a}", "[ab]", "a\\*"] {
            assert!(glob(text).is_err(), "{text}");
        }
    }
}
