//! What a check reports.

use std::fmt;

/// Whether a finding fails the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// Nothing is merged with it.
    Failure,
    /// Worth a look.
    Warning,
}

/// Something that is not as it should be, where, and what to do about it.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    /// Relative to the repository's root.
    pub(crate) path: String,
    /// From 1.
    pub(crate) line: usize,
    pub(crate) what: String,
    pub(crate) mend: &'static str,
}

impl Finding {
    /// A finding that fails the gate.
    pub(crate) fn failure(path: &str, line: usize, what: impl Into<String>, mend: &'static str) -> Self {
        Self { severity: Severity::Failure, path: path.to_owned(), line, what: what.into(), mend }
    }

    /// A finding that is only shown.
    pub(crate) fn warning(path: &str, line: usize, what: impl Into<String>, mend: &'static str) -> Self {
        Self { severity: Severity::Warning, ..Self::failure(path, line, what, mend) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity, path, line, what, mend } = self;
        let severity = match severity {
            Severity::Failure => "",
            Severity::Warning => "warning: ",
        };
        write!(f, "{path}:{line}: {severity}{what}; {mend}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_that_editors_can_jump_to() {
        let failure = Finding::failure("a/b.rs", 7, "too long", "split it");
        assert_eq!(failure.to_string(), "a/b.rs:7: too long; split it");
        let warning = Finding::warning("a/b.rs", 7, "long", "split it");
        assert_eq!(warning.to_string(), "a/b.rs:7: warning: long; split it");
    }
}
