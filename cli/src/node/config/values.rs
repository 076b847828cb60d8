//! The values of `sterna.toml`: sizes and times as people write them, and the bounds of each setting.

use std::str::FromStr;
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use sterna_types::ByteSize;

/// A value that cannot be.
pub(super) struct Wrong {
    pub(super) key: &'static str,
    pub(super) value: String,
    pub(super) remedy: &'static str,
}

/// A size as people write it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size(ByteSize);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(D::Error::custom)
    }
}

/// A time as people write it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Age {
    milliseconds: u64,
}

impl From<Duration> for Age {
    fn from(time: Duration) -> Self {
        Self { milliseconds: u64::try_from(time.as_millis()).unwrap_or(u64::MAX) }
    }
}

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let factor = UNITS.iter().find_map(|(name, milliseconds)| (*name == unit).then_some(*milliseconds));
        let milliseconds =
            factor.zip(number.parse::<u64>().ok()).and_then(|(factor, number)| number.checked_mul(factor));
        let invalid = || format!("'{text}' is not a time: give a number with ms, s, min, h or d behind it");
        milliseconds.map(|milliseconds| Self { milliseconds }).ok_or_else(invalid)
    }
}

impl<'de> Deserialize<'de> for Age {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// A value that has bounds.
pub(super) trait Bounded: Copy {
    /// In bytes, in milliseconds, or as it is; `None` where it is below all of them.
    fn number(self) -> Option<u64>;
    /// As it is written.
    fn shown(self) -> String;
}

impl Bounded for Size {
    fn number(self) -> Option<u64> {
        Some(self.0.0)
    }

    fn shown(self) -> String {
        format!("\"{}\"", self.0)
    }
}

impl Bounded for Age {
    fn number(self) -> Option<u64> {
        Some(self.milliseconds)
    }

    fn shown(self) -> String {
        let largest = UNITS.iter().find(|(_, milliseconds)| self.milliseconds.is_multiple_of(*milliseconds));
        let (unit, milliseconds) = largest.unwrap_or(&UNITS[UNITS.len() - 1]);
        format!("\"{}{unit}\"", self.milliseconds / milliseconds)
    }
}

impl Bounded for i64 {
    fn number(self) -> Option<u64> {
        u64::try_from(self).ok()
    }

    fn shown(self) -> String {
        self.to_string()
    }
}

/// Between which values a setting has to be.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) key: &'static str,
    pub(super) least: u64,
    pub(super) most: u64,
    pub(super) remedy: &'static str,
}

/// Takes a setting that was given, if it is within its bounds.
pub(super) fn set<T: TryFrom<u64>>(setting: &mut T, given: Option<impl Bounded>, bounds: Bounds) -> Result<(), Wrong> {
    let Some(given) = given else { return Ok(()) };
    let is_allowed = |number: &u64| (bounds.least..=bounds.most).contains(number);
    let allowed = given.number().filter(is_allowed).and_then(|number| T::try_from(number).ok());
    *setting = allowed.ok_or_else(|| Wrong { key: bounds.key, value: given.shown(), remedy: bounds.remedy })?;
    Ok(())
}

/// The same for one that is a time.
pub(super) fn set_time(setting: &mut Duration, given: Option<Age>, bounds: Bounds) -> Result<(), Wrong> {
    let mut ms = Age::from(*setting).milliseconds;
    set(&mut ms, given, bounds)?;
    *setting = Duration::from_millis(ms);
    Ok(())
}

/// The units of times, in milliseconds, the largest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000), ("ms", 1)];
