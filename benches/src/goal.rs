//! What a figure is to reach, and whether it does.

use std::fmt;

use serde::Serialize;

/// A bound for a figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    /// Whether this figure is within it. What is not a number is not.
    pub(crate) fn is_reached(self, figure: f64) -> bool {
        match self {
            Self::AtMost(most) => figure <= most,
            Self::AtLeast(least) => figure >= least,
        }
    }

    /// The goal as the tables show it, marked where it was missed; `is_reached` is `None` where nothing was measured.
    pub(crate) fn judged(self, is_reached: Option<bool>) -> String {
        match is_reached {
            Some(true) => self.to_string(),
            Some(false) => format!("{self}, **missed**"),
            None => format!("{self}, not measured"),
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "<= {}", short(*most)),
            Self::AtLeast(least) => write!(f, ">= {}", short(*least)),
        }
    }
}

/// Three digits where they matter.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The least and the most of several values, where there are several.
pub(crate) fn range(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if values.len() > 1 { format!(" ({}-{})", short(least), short(most)) } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_what_reaches_it() {
        assert!(Goal::AtMost(2.5).is_reached(2.5) && !Goal::AtMost(2.5).is_reached(2.51));
        assert!(Goal::AtLeast(1.5).is_reached(1.5) && !Goal::AtLeast(1.5).is_reached(1.49));
        for goal in [Goal::AtMost(1.0), Goal::AtLeast(1.0)] {
            assert!(!goal.is_reached(f64::NAN), "{goal} is reached by nothing");
        }
    }

    #[test]
    fn what_was_missed_is_marked() {
        assert_eq!(Goal::AtLeast(1.5).judged(Some(true)), ">= 1.50");
        assert_eq!(Goal::AtLeast(1.5).judged(Some(false)), ">= 1.50, **missed**");
        assert_eq!(Goal::AtMost(3.0).judged(None), "<= 3.00, not measured");
        assert_eq!(range(&[2.0, 1.0, 300.0]), " (1.00-300)");
        assert_eq!(range(&[2.0]), "");
    }
}
