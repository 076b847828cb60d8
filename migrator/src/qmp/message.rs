//! What stands on the socket: one JSON object to a line, in both directions.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::error::{End, excerpt};
use super::events::Event;
use super::limits::MAX_EVENT_BYTES;

/// The number that a command carries and its answer repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CommandId(pub(super) u64);

/// How a command is to be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Band {
    /// After those before it, by QEMU's main loop.
    In,
    /// At once, by the thread that reads the socket, even if the main loop hangs. Few commands can.
    Out,
}

/// What QEMU sends.
#[derive(Debug)]
pub(super) enum Message {
    /// The answer to a command.
    Answer { id: CommandId, outcome: Result<Value, Refusal> },
    /// Something that has happened.
    Event(Event),
    /// Something that we do not know.
    Other,
}

/// QEMU's error.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) class: String,
    pub(super) desc: String,
}

impl Message {
    /// Reads a line.
    ///
    /// # Errors
    /// It is no JSON object, or too long for an event.
    pub(super) fn parse(line: &[u8]) -> Result<Self, End> {
        let mut fields = object(line)?;
        if let Some(Value::String(name)) = fields.get_mut("event").map(Value::take) {
            if line.len() > MAX_EVENT_BYTES {
                return Err(End::TooLong { what: "an event", limit_bytes: MAX_EVENT_BYTES });
            }
            let at = fields.get("timestamp").and_then(since_epoch);
            return Ok(Self::Event(Event { name, data: fields.remove("data").unwrap_or_default(), at }));
        }
        let Some(id) = fields.get("id").and_then(Value::as_u64).map(CommandId) else { return Ok(Self::Other) };
        if let Some(error) = fields.remove("error") {
            return Ok(Self::Answer { id, outcome: Err(Refusal::from(&error)) });
        }
        Ok(match fields.remove("return") {
            Some(returned) => Self::Answer { id, outcome: Ok(returned) },
            None => Self::Other,
        })
    }
}

impl From<&Value> for Refusal {
    fn from(error: &Value) -> Self {
        let text = |field: &str| error.get(field).and_then(Value::as_str).map(str::to_owned);
        Self {
            class: text("class").unwrap_or_else(|| "no class".to_owned()),
            desc: text("desc").unwrap_or_else(|| excerpt(error.to_string().as_bytes())),
        }
    }
}

/// What the first line says, if it is QMP's: whether commands can be carried out out of band.
pub(super) fn offers_out_of_band(greeting: &[u8]) -> Option<bool> {
    let fields = object(greeting).ok()?;
    let capabilities = fields.get("QMP")?.as_object()?.get("capabilities").and_then(Value::as_array);
    Some(capabilities.is_some_and(|capabilities| capabilities.iter().any(|capability| capability == "oob")))
}

/// The line of a command.
pub(super) fn command_line(band: Band, command: &str, arguments: Value, id: CommandId) -> Bytes {
    let verb = match band {
        Band::In => "execute",
        Band::Out => "exec-oob",
    };
    let mut fields = json!({ (verb): command, "id": id.0 });
    if !arguments.is_null() {
        fields["arguments"] = arguments;
    }
    format!("{fields}\n").into()
}

fn object(line: &[u8]) -> Result<Map<String, Value>, End> {
    serde_json::from_slice(line).map_err(|error| End::Malformed { why: error.to_string(), text: excerpt(line) })
}

/// QEMU's timestamps have -1 where its clock has failed.
fn since_epoch(timestamp: &Value) -> Option<Duration> {
    let seconds = timestamp.get("seconds")?.as_u64()?;
    let micros = timestamp.get("microseconds")?.as_u64()?;
    Duration::from_secs(seconds).checked_add(Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(line: &str) -> (u64, Result<Value, Refusal>) {
        match Message::parse(line.as_bytes()).expect("it is JSON") {
            Message::Answer { id, outcome } => (id.0, outcome),
            other => panic!("{line} is {other:?}"),
        }
    }

    fn event(line: &str) -> Event {
        match Message::parse(line.as_bytes()).expect("it is JSON") {
            Message::Event(event) => event,
            other => panic!("{line} is {other:?}"),
        }
    }

    #[test]
    fn answers_are_read_whatever_else_is_in_them() {
        assert_eq!(answer(r#"{"id": 7, "return": {"a": [1]}, "more": 1}"#), (7, Ok(json!({ "a": [1] }))));
        assert_eq!(answer(r#"{"return": null, "id": 8}"#), (8, Ok(Value::Null)));
        let refusal = Refusal { class: "GenericError".to_owned(), desc: "no".to_owned() };
        let line = r#"{"id": 9, "error": {"class": "GenericError", "desc": "no", "more": 1}}"#;
        assert_eq!(answer(line), (9, Err(refusal)));
        let (_, bare) = answer(r#"{"id": 9, "error": "broken"}"#);
        assert_eq!(bare.expect_err("an error").desc, r#"\"broken\""#);
    }

    #[test]
    fn events_are_read_with_or_without_data_and_time() {
        let stop = event(r#"{"event": "STOP", "timestamp": {"seconds": 17, "microseconds": 5}}"#);
        assert_eq!((stop.name.as_str(), stop.data), ("STOP", Value::Null));
        assert_eq!(stop.at, Some(Duration::from_micros(17_000_005)));
        let line = r#"{"event": "NEW", "data": {"x": 1}, "timestamp": {"seconds": -1, "microseconds": -1}}"#;
        let new = event(line);
        assert_eq!((new.data, new.at), (json!({ "x": 1 }), None));
        assert_eq!(event(r#"{"event": "NEW"}"#).at, None);
    }

    #[test]
    fn what_we_do_not_know_is_no_error() {
        for line in ["{}", r#"{"return": 1}"#, r#"{"id": "x", "return": 1}"#, r#"{"id": 1}"#, r#"{"event": 5}"#] {
            let message = Message::parse(line.as_bytes()).expect("it is JSON");
            assert!(matches!(message, Message::Other), "{line} is {message:?}");
        }
    }

    #[test]
    fn what_is_no_json_object_is_malformed() {
        for line in ["", "5", "[]", "null", "{", "{\"a\":1} {}", "\"x\"", "\u{1}"] {
            let parsed = Message::parse(line.as_bytes());
            assert!(matches!(parsed, Err(End::Malformed { .. })), "{line:?} is {parsed:?}");
        }
        let deep = "[".repeat(100_000);
        assert!(matches!(Message::parse(deep.as_bytes()), Err(End::Malformed { .. })));
        assert!(matches!(Message::parse(b"{\"event\":\"\xff\"}"), Err(End::Malformed { .. })));
    }

    #[test]
    fn an_event_has_a_bound_of_its_own_and_an_answer_has_not() {
        let long = "x".repeat(MAX_EVENT_BYTES);
        let event = format!(r#"{{"event": "STOP", "data": "{long}"}}"#);
        assert!(matches!(Message::parse(event.as_bytes()), Err(End::TooLong { .. })));
        assert_eq!(answer(&format!(r#"{{"id": 1, "return": "{long}"}}"#)), (1, Ok(Value::String(long))));
    }

    #[test]
    fn a_command_is_one_line_whatever_its_arguments() {
        let line = command_line(Band::In, "migrate", json!({ "uri": "a\nb" }), CommandId(3));
        assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
        let read: Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(read, json!({ "execute": "migrate", "arguments": { "uri": "a\nb" }, "id": 3 }));
        let line = command_line(Band::Out, "yank", Value::Null, CommandId(4));
        let read: Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(read, json!({ "exec-oob": "yank", "id": 4 }));
    }
}
