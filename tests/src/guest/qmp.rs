//! QEMU's control socket (QMP): commands with their answers, and the events that came meanwhile.
//!
//! Deliberately not the client that the product uses: what the tests see of QEMU does not depend on what they test.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::tool::until;

/// QEMU answers at once, unless its main loop waits for a disk.
const ANSWER_LIMIT: Duration = Duration::from_secs(90);

/// A connection to one QEMU.
pub struct Qmp {
    socket: UnixStream,
    answers: Receiver<Value>,
    events: Arc<Mutex<Vec<Value>>>,
    last: u64,
}

impl Qmp {
    /// Takes over a fresh connection, and enables commands.
    ///
    /// # Errors
    /// There is no QEMU behind it.
    pub fn greet(socket: UnixStream) -> Result<Self> {
        let (answered, answers) = mpsc::channel();
        let events = Arc::new(Mutex::new(Vec::new()));
        let (reading, seen) = (socket.try_clone()?, Arc::clone(&events));
        std::thread::spawn(move || {
            for line in BufReader::new(reading).lines().map_while(Result::ok) {
                let Ok(message) = serde_json::from_str::<Value>(&line) else { return };
                if message.get("event").is_some() {
                    seen.lock().expect("nobody panics with the events").push(message);
                } else if answered.send(message).is_err() {
                    return;
                }
            }
        });
        let mut qmp = Self { socket, answers, events, last: 0 };
        let greeting = qmp.answers.recv_timeout(ANSWER_LIMIT).context("QEMU does not greet")?;
        greeting.get("QMP").with_context(|| format!("QEMU greets with {greeting}"))?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Executes a command, and returns what it returns.
    ///
    /// # Errors
    /// QEMU refuses it, or is gone.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.last += 1;
        let request = json!({ "execute": command, "arguments": arguments, "id": self.last });
        self.socket.write_all(format!("{request}\n").as_bytes()).context("QEMU does not listen")?;
        let mut answer = self.answers.recv_timeout(ANSWER_LIMIT).with_context(|| format!("no answer to {command}"))?;
        match answer.get_mut("return").map(Value::take) {
            Some(returned) if answer["id"] == self.last => Ok(returned),
            _ => bail!("QEMU answers {command} with {answer}"),
        }
    }

    /// All events so far, the oldest first.
    ///
    /// # Panics
    /// The thread that receives them has.
    pub fn all_events(&self) -> Vec<Value> {
        self.events.lock().expect("nobody panics with the events").clone()
    }

    /// The events of this name so far, the oldest first.
    ///
    /// # Panics
    /// The thread that receives them has.
    pub fn events(&self, name: &str) -> Vec<Value> {
        let events = self.events.lock().expect("nobody panics with the events");
        events.iter().filter(|event| event["event"] == name).cloned().collect()
    }

    /// Waits for the first event of this name, past or to come.
    ///
    /// # Errors
    /// There is none within this time.
    pub fn event(&self, name: &str, limit: Duration) -> Result<Value> {
        until(limit, || Ok(!self.events(name).is_empty()))?;
        self.events(name).into_iter().next().with_context(|| format!("no event {name}"))
    }
}
