//! Figures of one system by itself: how long something takes, how much it needs, and what is to be reached.

use std::fmt;

use serde::Serialize;

use crate::goal::{Goal, range, short};
use crate::median::median;

/// One thing that was measured, perhaps several times.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Fact {
    what: String,
    unit: &'static str,
    values: Vec<f64>,
    median: f64,
    goal: Option<Goal>,
    /// `None` where there is no goal.
    is_reached: Option<bool>,
}

/// Everything that one program has measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Facts {
    what: String,
    facts: Vec<Fact>,
}

impl Facts {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), facts: Vec::new() }
    }

    /// Adds a value to what is called so; says so at once, since some measurements take long.
    pub(crate) fn add(&mut self, what: &str, unit: &'static str, value: f64) {
        eprintln!("{what}: {} {unit}", short(value));
        let index = self.facts.iter().position(|fact| fact.what == what).unwrap_or_else(|| {
            let (what, goal) = (what.to_owned(), None);
            self.facts.push(Fact { what, unit, values: Vec::new(), median: f64::NAN, goal, is_reached: None });
            self.facts.len() - 1
        });
        let fact = &mut self.facts[index];
        fact.values.push(value);
        fact.median = median(&fact.values);
        fact.judge();
    }

    /// Says what the median of what is called so, which has been measured, is to reach.
    pub(crate) fn aim(&mut self, what: &str, goal: Goal) {
        for fact in self.facts.iter_mut().filter(|fact| fact.what == what) {
            fact.goal = Some(goal);
            fact.judge();
        }
    }
}

impl Fact {
    fn judge(&mut self) {
        self.is_reached = self.goal.map(|goal| goal.is_reached(self.median));
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n\n| what | median (range) | goal |\n|---|---|---|", self.what)?;
        for Fact { what, unit, values, median, goal, is_reached } in &self.facts {
            let goal = goal.map_or("-".to_owned(), |goal| goal.judged(*is_reached));
            writeln!(f, "| {what} | {} {unit}{} | {goal} |", short(*median), range(values))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_judged_by_the_median() {
        let mut facts = Facts::new("something");
        for value in [1.0, 9.0, 2.0] {
            facts.add("time", "s", value);
        }
        facts.aim("time", Goal::AtMost(2.0));
        assert_eq!(facts.facts[0].is_reached, Some(true));
        facts.aim("time", Goal::AtLeast(2.5));
        assert_eq!(facts.facts[0].is_reached, Some(false));
        assert!(facts.to_string().contains("| time | 2.00 s (1.00-9.00) | >= 2.50, **missed** |"), "{facts}");
    }
}
