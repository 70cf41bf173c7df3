//! Whose files.

use std::{fmt, time::Duration};

use jiff::civil::Date;

use super::{Fallbacks, value};

#[derive(Clone, Debug, clap::Args)]
pub(super) struct SessionArguments {
    /// Name of the session: its folder below the incoming folder, and part of every blob's name
    #[arg(long, env = "APP_SESSION_NAME", value_name = "NAME", value_parser = session_name)]
    session_name: String,

    /// Date in folders and blob names, YYYYMMDD [default: today in UTC]
    #[arg(long, env = "APP_DATE_PREFIX", value_name = "DATE", value_parser = date_prefix)]
    date_prefix: Option<String>,

    /// What to do: watch
    #[arg(long, env = "APP_MODE", value_name = "MODE", default_value = "watch", value_parser = mode)]
    mode: Mode,

    /// Seconds without anything new after which the program ends, once everything is uploaded [default: never]
    #[arg(long, env = "APP_IDLE_TIMEOUT_S", value_name = "SECONDS", value_parser = idle_timeout)]
    idle_timeout_s: Option<IdleTimeout>,

    /// UID of the session, by which another uploader of the same name is told apart [default: random]
    #[arg(long = "session-uid", env = "APP_SESSION_UID", value_name = "UID", value_parser = value::plain_name)]
    pub(super) uid: Option<String>,

    /// A value that was not there before has files that were set aside tried again
    #[arg(long, env = "APP_RUN_TOKEN", value_name = "TEXT", value_parser = run_token)]
    run_token: Option<String>,
}

/// Whose files are ferried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSettings {
    /// Name of the session and of its folder.
    pub name: String,
    /// `YYYYMMDD`, a date that exists.
    pub date_prefix: String,
    /// UID of the session's object, or a random one.
    pub uid: String,
    /// What to do.
    pub mode: Mode,
    /// The run is over when nothing new came for so long.
    pub idle_timeout: Option<Duration>,
    /// Another value takes back files that were set aside.
    pub run_token: Option<String>,
}

/// What an uploader does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Takes files as they appear, until it is stopped or idle for long enough.
    Watch,
    /// Uploads claimed files and takes no others.
    Drain,
    /// Gives claimed files back.
    Release,
}

impl Mode {
    /// As it is written in arguments and termination messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Watch => "watch",
            Self::Drain => "drain",
            Self::Release => "release",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl SessionArguments {
    pub(super) fn check(self, fallbacks: &Fallbacks) -> SessionSettings {
        SessionSettings {
            name: self.session_name,
            date_prefix: value::unless_empty(self.date_prefix).unwrap_or_else(|| fallbacks.date()),
            uid: value::unless_empty(self.uid).unwrap_or_else(|| fallbacks.session_uid.to_string()),
            mode: self.mode,
            idle_timeout: self.idle_timeout_s.and_then(|timeout| timeout.0),
            run_token: value::unless_empty(self.run_token),
        }
    }
}

fn session_name(text: &str) -> Result<String, String> {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let starts_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if starts_well && text.len() <= 200 && text.bytes().all(inside) && !text.ends_with('.') {
        Ok(text.to_owned())
    } else {
        Err("write at most 200 letters, digits, underscores, dots and hyphens, of which the last two do not come first and a dot does not \
             come last, like truck-7"
            .into())
    }
}

fn run_token(text: &str) -> Result<String, String> {
    if text.chars().count() <= 128 { Ok(text.to_owned()) } else { Err("write at most 128 characters".into()) }
}

fn date_prefix(text: &str) -> Result<String, String> {
    let eight_digits = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit());
    if text.is_empty() || (eight_digits && Date::strptime("%Y%m%d", text).is_ok()) {
        Ok(text.to_owned())
    } else {
        Err("write a date as YYYYMMDD, like 20260131".into())
    }
}

fn mode(text: &str) -> Result<Mode, String> {
    value::word(text, &[("watch", Mode::Watch), ("drain", Mode::Drain), ("release", Mode::Release)])
}

/// A time, or none for a variable that is set to nothing.
#[derive(Clone, Copy, Debug)]
struct IdleTimeout(Option<Duration>);

fn idle_timeout(text: &str) -> Result<IdleTimeout, String> {
    if text.trim().is_empty() {
        return Ok(IdleTimeout(None));
    }
    value::seconds(text, 1.0, 8760.0 * 3600.0).map(|timeout| IdleTimeout(Some(timeout)))
}
