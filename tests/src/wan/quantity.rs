//! What is set of a link, as people write it: `50ms`, `100M`, `0.1%`, `2MiB`. Each is shown such that it is read back the same.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A text is not the quantity that it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a {what}: {mend}")]
pub struct BadQuantity {
    text: String,
    what: &'static str,
    mend: &'static str,
}

/// The time that a packet takes from one site to another once its last bit has left, one way. At most 10 s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Delay(u64);

/// Bits that leave in one second, or no limit to them. From 1 kbit/s to 400 Gbit/s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate(Option<NonZeroU64>);

/// The share of packets that are dropped at random, in millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Loss(u32);

/// A number of bytes that may wait. From 1 byte to 256 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(u64);

impl Delay {
    /// In nanoseconds.
    pub const fn ns(self) -> u64 {
        self.0
    }

    /// As the standard library has it.
    pub const fn duration(self) -> Duration {
        Duration::from_nanos(self.0)
    }
}

impl Rate {
    /// Whatever is offered leaves at once.
    pub const UNLIMITED: Self = Self(None);

    /// In bits per second; `None` where there is no limit.
    pub fn bits_per_second(self) -> Option<u64> {
        self.0.map(NonZeroU64::get)
    }

    /// How long so many bytes take to leave, in nanoseconds, rounded up: the rate is never exceeded.
    pub fn time_ns(self, bytes: u64) -> u64 {
        let Some(rate) = self.0 else { return 0 };
        let bit_ns = u128::from(bytes) * 8 * NS_PER_SECOND;
        u64::try_from(bit_ns.div_ceil(rate.get().into())).unwrap_or(u64::MAX)
    }

    /// The bytes that leave in so many nanoseconds, rounded up; `None` where there is no limit.
    pub fn bytes_in_ns(self, ns: u64) -> Option<u64> {
        let bytes = (u128::from(self.0?.get()) * u128::from(ns)).div_ceil(8 * NS_PER_SECOND);
        Some(u64::try_from(bytes).unwrap_or(u64::MAX))
    }
}

impl Loss {
    /// None at all.
    pub const NONE: Self = Self(0);

    /// In millionths of the packets.
    pub const fn ppm(self) -> u32 {
        self.0
    }
}

impl Size {
    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Delay {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ns = scaled(text, &TIMES).filter(|&ns| ns <= MOST_DELAY_NS);
        let mend = "write a number with ns, us, ms or s behind it, such as 50ms; at most 10s";
        ns.map(Self).ok_or_else(|| bad(text, "delay", mend))
    }
}

impl FromStr for Rate {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == UNLIMITED {
            return Ok(Self::UNLIMITED);
        }
        let rate =
            scaled(text, &RATES).filter(|rate| (LEAST_RATE..=MOST_RATE).contains(rate)).and_then(NonZeroU64::new);
        let mend =
            "write bits per second with K, M or G behind the number, such as 100M, from 1K to 400G; or 'unlimited'";
        rate.map(|rate| Self(Some(rate))).ok_or_else(|| bad(text, "rate", mend))
    }
}

impl FromStr for Loss {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ppm = scaled(text, &SHARES).and_then(|ppm| u32::try_from(ppm).ok()).filter(|&ppm| ppm <= WHOLE_PPM);
        let mend = "write a number from 0% to 100%, such as 0.1%";
        ppm.map(Self).ok_or_else(|| bad(text, "share of lost packets", mend))
    }
}

impl FromStr for Size {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = scaled(text, &SIZES).filter(|bytes| (1..=MOST_SIZE).contains(bytes));
        let mend = "write a number with B, KiB or MiB behind it, such as 2MiB; at most 256MiB";
        bytes.map(Self).ok_or_else(|| bad(text, "size", mend))
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scaled(f, self.0, &TIMES)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str(UNLIMITED),
            Some(rate) => write_scaled(f, rate.get(), &RATES),
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!("{:04}", self.0 % PERCENT_PPM);
        let fraction = fraction.trim_end_matches('0');
        write!(f, "{}{}{fraction}%", self.0 / PERCENT_PPM, if fraction.is_empty() { "" } else { "." })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scaled(f, self.0, &SIZES)
    }
}

macro_rules! through_text {
    ($($quantity:ty),*) => {$(
        impl TryFrom<String> for $quantity {
            type Error = BadQuantity;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$quantity> for String {
            fn from(quantity: $quantity) -> Self {
                quantity.to_string()
            }
        }
    )*};
}

through_text!(Delay, Rate, Loss, Size);

fn bad(text: &str, what: &'static str, mend: &'static str) -> BadQuantity {
    BadQuantity { text: text.to_owned(), what, mend }
}

/// A decimal number with one of these units behind it, in the least of them; `None` where it is something else, or too large.
/// What is less than the least unit is cut off.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let at = text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.len() > MOST_DIGITS {
        return None;
    }
    let tenths = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let whole = u128::from(whole.parse::<u64>().ok()?) * u128::from(*scale);
    let fraction = u128::from(fraction.parse::<u64>().ok()?) * u128::from(*scale) / tenths;
    u64::try_from(whole + fraction).ok()
}

/// In the largest unit of which it is a whole number.
fn write_scaled(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let fitting = units.iter().filter(|(_, scale)| value.is_multiple_of(*scale)).max_by_key(|(_, scale)| *scale);
    match fitting {
        Some((unit, scale)) if value > 0 => write!(f, "{}{unit}", value / scale),
        _ => write!(f, "{value}{}", units[0].0),
    }
}

const TIMES: [(&str, u64); 4] = [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];
const RATES: [(&str, u64); 4] = [("", 1), ("K", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)];
const SIZES: [(&str, u64); 3] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20)];
const SHARES: [(&str, u64); 1] = [("%", PERCENT_PPM as u64)];
const UNLIMITED: &str = "unlimited";

/// More digits behind the point than any of these quantities has.
const MOST_DIGITS: usize = 9;
const NS_PER_SECOND: u128 = 1_000_000_000;
const MOST_DELAY_NS: u64 = 10_000_000_000;
const LEAST_RATE: u64 = 1_000;
const MOST_RATE: u64 = 400_000_000_000;
const PERCENT_PPM: u32 = 10_000;
const WHOLE_PPM: u32 = 1_000_000;
const MOST_SIZE: u64 = 256 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantities_are_read_as_people_write_them() {
        assert_eq!("50ms".parse::<Delay>().unwrap().duration(), Duration::from_millis(50));
        assert_eq!("0.25s".parse::<Delay>().unwrap().duration(), Duration::from_millis(250));
        assert_eq!("100M".parse::<Rate>().unwrap().bits_per_second(), Some(100_000_000));
        assert_eq!("2.5G".parse::<Rate>().unwrap().bits_per_second(), Some(2_500_000_000));
        assert_eq!("unlimited".parse::<Rate>().unwrap(), Rate::UNLIMITED);
        assert_eq!("0.1%".parse::<Loss>().unwrap().ppm(), 1_000);
        assert_eq!("100%".parse::<Loss>().unwrap().ppm(), 1_000_000);
        assert_eq!("2MiB".parse::<Size>().unwrap().bytes(), 2 << 20);
    }

    #[test]
    fn what_is_no_quantity_is_refused_and_the_message_has_the_value_and_the_mend() {
        for text in
            ["", "50", "-1ms", "50 ms", "11s", ".5ms", "5.ms", "1e3ms", "99999999999999999999s", "1.0000000001s"]
        {
            assert!(text.parse::<Delay>().is_err(), "{text}");
        }
        for text in ["0", "0M", "999", "401G", "100m", "fast", "100Mbit"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        for text in ["0.1", "100.1%", "-1%", "%", "99999999%"] {
            assert!(text.parse::<Loss>().is_err(), "{text}");
        }
        for text in ["0B", "2", "2MB", "257MiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        let message = "100Mbit".parse::<Rate>().unwrap_err().to_string();
        assert!(message.starts_with("'100Mbit' is not a rate: write bits per second"), "{message}");
    }

    #[test]
    fn a_rate_is_never_exceeded_by_rounding() {
        let rate: Rate = "3G".parse().unwrap();
        assert_eq!(rate.time_ns(1500), 4_000);
        assert_eq!(rate.time_ns(1), 3, "2.67 ns");
        assert_eq!(Rate::UNLIMITED.time_ns(u64::MAX), 0);
        assert_eq!("8K".parse::<Rate>().unwrap().bytes_in_ns(1_000_000_000), Some(1_000));
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back_the_same(
            ns in 0..=MOST_DELAY_NS,
            rate in LEAST_RATE..=MOST_RATE,
            ppm in 0..=WHOLE_PPM,
            bytes in 1..=MOST_SIZE,
        ) {
            prop_assert_eq!(Delay(ns).to_string().parse(), Ok(Delay(ns)));
            let rate = Rate(NonZeroU64::new(rate));
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
            prop_assert_eq!(Loss(ppm).to_string().parse(), Ok(Loss(ppm)));
            prop_assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }

        #[test]
        fn no_text_makes_reading_panic(text in "[0-9.]{0,25}[a-zA-Z%]{0,3}") {
            let _ = (text.parse::<Delay>(), text.parse::<Rate>(), text.parse::<Loss>(), text.parse::<Size>());
        }
    }
}
