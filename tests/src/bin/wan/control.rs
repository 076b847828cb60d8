//! What is said over the control socket: one request and one answer on each connection, each a line of JSON.

use serde::{Deserialize, Serialize};
use sterna_tests::wan::{Change, Report, Ways};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Request {
    Cut {
        one: String,
        other: String,
        one_way: bool,
    },
    Heal {
        one: String,
        other: String,
        one_way: bool,
    },
    Set {
        one: String,
        other: String,
        one_way: bool,
        change: Change,
    },
    /// With braces, since serde denies no unknown fields to a variant that has none.
    Show {},
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Answer {
    /// It is done; how things are now.
    Done(Report),
    /// Why it is not.
    Failed(String),
}

/// What `--one-way` says.
pub(crate) fn ways(one_way: bool) -> Ways {
    if one_way { Ways::OneWay } else { Ways::Both }
}

/// No request is longer, in bytes.
pub(crate) const REQUEST_LIMIT: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_a_line_that_can_be_written_by_hand() {
        let line = r#"{"do":"set","one":"ams","other":"nyc","one_way":true,"change":{"delay":"50ms"}}"#;
        let request: Request = serde_json::from_str(line).unwrap();
        let Request::Set { change, .. } = &request else { panic!("{request:?}") };
        assert_eq!(change.delay, "50ms".parse().ok());
        assert_eq!(serde_json::to_string(&request).unwrap(), line);
        assert!(serde_json::from_str::<Request>(r#"{"do":"show","more":1}"#).is_err());
    }
}
