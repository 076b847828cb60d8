//! The client against a QEMU that follows a script.
//!
//! Most of it is over a pipe in memory, with tokio's paused clock: that goes on only when nobody has anything left to do, so "nothing
//! more comes" is a fact and not a matter of patience.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream, duplex};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::limits::{EVENTS_KEPT, MAX_COMMAND_BYTES, MAX_COMMANDS, MAX_LINE_BYTES};
use super::*;

/// QEMU, as far as a test has it speak.
struct Script<S>(BufReader<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Script<S> {
    fn new(stream: S) -> Self {
        Self(BufReader::new(stream))
    }

    async fn say(&mut self, message: Value) {
        self.say_text(&format!("{message}\r\n")).await;
    }

    async fn say_text(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.expect("the client listens");
    }

    async fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).await.expect("the client speaks");
        serde_json::from_str(&line).expect("it speaks JSON")
    }

    /// The next command, and its id.
    async fn hear_command(&mut self, command: &str) -> u64 {
        let heard = self.hear().await;
        assert_eq!(heard["execute"], command, "{heard}");
        heard["id"].as_u64().expect("an id")
    }

    async fn answer(&mut self, id: u64, returned: Value) {
        self.say(json!({ "return": returned, "id": id })).await;
    }

    /// Has a command come, and answers it.
    async fn obey(&mut self, command: &str, returned: Value) {
        let id = self.hear_command(command).await;
        self.answer(id, returned).await;
    }

    /// Waits until nobody has anything left to do. To be called with a paused clock only.
    async fn hears_nothing(&mut self) {
        let heard = timeout(A_WHILE, self.0.fill_buf()).await;
        assert!(heard.is_err(), "the client says {heard:?}");
    }

    async fn hears_the_end(&mut self) {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).await.expect("it ends in order");
        assert!(rest.is_empty(), "the client says {:?} at the end", String::from_utf8_lossy(&rest));
    }

    async fn greet(&mut self) {
        self.say(greeting(&["oob"])).await;
        self.obey("qmp_capabilities", json!({})).await;
    }
}

fn greeting(capabilities: &[&str]) -> Value {
    let version = json!({ "qemu": { "major": 10, "minor": 0, "micro": 2 }, "package": "" });
    json!({ "QMP": { "version": version, "capabilities": capabilities } })
}

/// A client, and the QEMU that it is connected to.
async fn connected() -> (QmpClient, Script<DuplexStream>) {
    connected_over(64 << 10).await
}

/// The same, over a pipe that holds so many bytes in either direction.
async fn connected_over(pipe_bytes: usize) -> (QmpClient, Script<DuplexStream>) {
    let (ours, theirs) = duplex(pipe_bytes);
    let mut script = Script::new(theirs);
    let (client, ()) = tokio::join!(QmpClient::over(ours, PATIENCE), script.greet());
    (client.expect("it greets as QEMU does"), script)
}

/// A command in a task of its own.
fn executing(client: &QmpClient, command: &'static str, patience: Duration) -> JoinHandle<Result<Value, QmpError>> {
    let client = client.clone();
    tokio::spawn(async move { client.execute(command, Value::Null, patience).await })
}

async fn done<T>(task: JoinHandle<T>) -> T {
    task.await.expect("it does not panic")
}

/// What a client makes of this at the beginning; the other end stays open.
async fn greeted_with(text: &str) -> ConnectError {
    let (ours, mut theirs) = duplex(64 << 10);
    theirs.write_all(text.as_bytes()).await.expect("it fits");
    QmpClient::over(ours, PATIENCE).await.expect_err("that is no greeting")
}

/// The error of a command, and with it how the connection has ended.
fn ended<T: Debug>(outcome: Result<T, QmpError>) -> End {
    match outcome {
        Err(QmpError::Ended { end, .. }) => end,
        other => panic!("the connection has not ended: {other:?}"),
    }
}

const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than anybody's patience, on a clock that costs nothing.
const A_WHILE: Duration = Duration::from_secs(24 * 3600);

// The beginning.

#[tokio::test]
async fn a_client_connects_to_a_socket_by_its_path() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("qmp.sock");
    let listener = UnixListener::bind(&path).expect("it listens");
    let script = async {
        let mut script = Script::new(listener.accept().await.expect("somebody comes").0);
        script.say(greeting(&["oob"])).await;
        let first = script.hear().await;
        assert_eq!(first["arguments"], json!({ "enable": ["oob"] }));
        script.answer(first["id"].as_u64().expect("an id"), json!({})).await;
        script.obey("query-status", json!({ "running": true, "status": "running" })).await;
        script.hears_the_end().await;
    };
    let client = async {
        let client = QmpClient::connect(&path, PATIENCE).await.expect("it connects");
        let status = Commands::new(client, PATIENCE).query_status().await.expect("it answers");
        assert_eq!(status, VmStatus { running: true, status: RunState::Running });
    };
    tokio::join!(script, client);
}

#[tokio::test]
async fn a_path_where_nobody_listens_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let error = QmpClient::connect(&directory.path().join("no.sock"), PATIENCE).await.expect_err("nobody is there");
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("no.sock"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn without_out_of_band_nothing_is_asked_for_and_nothing_sent() {
    for words in [&[][..], &["new"]] {
        let (ours, theirs) = duplex(64 << 10);
        let mut script = Script::new(theirs);
        let script_begins = async {
            script.say(greeting(words)).await;
            let first = script.hear().await;
            assert_eq!(first.get("arguments"), None);
            script.answer(first["id"].as_u64().expect("an id"), json!({})).await;
        };
        let (client, ()) = tokio::join!(QmpClient::over(ours, PATIENCE), script_begins);
        let client = client.expect("it greets as an old QEMU does");
        let error = client.execute_oob("yank", Value::Null, PATIENCE).await.expect_err("it cannot");
        assert!(matches!(&error, QmpError::NoOutOfBand { command } if command == "yank"), "{error:?}");
        script.hears_nothing().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_greet_as_qmp_is_told_from_qemu() {
    let others = [
        "QEMU 10.0.2 monitor - type 'help' for more information\r\n(qemu) ",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "{\"return\": {}}\n",
        "{\"QMP\": 5}\n",
        "\n",
    ];
    for other in others {
        let error = greeted_with(other).await;
        let ConnectError::NotQmp { greeting } = &error else { panic!("{other} is {error:?}") };
        assert_eq!(greeting, &error::excerpt(other.lines().next().expect("a line").as_bytes()));
    }
}

#[tokio::test(start_paused = true)]
async fn silence_and_half_a_greeting_end_with_our_patience() {
    for beginning in ["", "{\"QMP\": {"] {
        let error = greeted_with(beginning).await;
        assert!(matches!(error, ConnectError::Silent { patience: PATIENCE }), "{error:?}");
    }
    // Nor is it enough to greet.
    let error = greeted_with(&format!("{}\n", greeting(&["oob"]))).await;
    assert!(matches!(error, ConnectError::Silent { patience: PATIENCE }), "{error:?}");
}

#[tokio::test]
async fn a_connection_that_ends_before_it_begins_says_so() {
    let (ours, theirs) = duplex(64);
    drop(theirs);
    let error = QmpClient::over(ours, PATIENCE).await.expect_err("nobody is there");
    assert!(matches!(error, ConnectError::Ended(End::Closed)), "{error:?}");

    let (ours, mut theirs) = duplex(4096);
    theirs.write_all(format!("{}\n", greeting(&[])).as_bytes()).await.expect("it fits");
    drop(theirs);
    let error = QmpClient::over(ours, PATIENCE).await.expect_err("nobody is there");
    let ConnectError::NoCommands(error) = error else { panic!("{error:?}") };
    assert!(matches!(ended::<()>(Err(error)), End::Closed));
}

#[tokio::test]
async fn a_refusal_of_the_first_command_is_told() {
    let (ours, theirs) = duplex(4096);
    let mut script = Script::new(theirs);
    let refuses = async {
        script.say(greeting(&["oob"])).await;
        let id = script.hear_command("qmp_capabilities").await;
        script.say(json!({ "id": id, "error": { "class": "GenericError", "desc": "not today" } })).await;
    };
    let (client, ()) = tokio::join!(QmpClient::over(ours, PATIENCE), refuses);
    let Err(ConnectError::NoCommands(QmpError::Refused { desc, .. })) = client else { panic!("{client:?}") };
    assert_eq!(desc, "not today");
}

// Commands and answers.

#[tokio::test(start_paused = true)]
async fn answers_find_their_callers_in_any_order() {
    let (client, mut script) = connected().await;
    let callers = ["a", "b", "c"].map(|command| executing(&client, command, PATIENCE));
    let mut heard = Vec::new();
    for _ in 0..callers.len() {
        heard.push(script.hear().await);
    }
    for command in heard.iter().rev() {
        script.answer(command["id"].as_u64().expect("an id"), command["execute"].clone()).await;
    }
    for (caller, command) in callers.into_iter().zip(["a", "b", "c"]) {
        assert_eq!(done(caller).await.expect("it is answered"), command);
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_answer_is_told_with_command_class_and_description() {
    let (client, mut script) = connected().await;
    let caller = executing(&client, "nonsense", PATIENCE);
    let id = script.hear_command("nonsense").await;
    script.say(json!({ "id": id, "error": { "class": "CommandNotFound", "desc": "never heard of it" } })).await;
    let Err(QmpError::Refused { command, class, desc }) = done(caller).await else { panic!("it is an error") };
    assert_eq!([command, class, desc], ["nonsense", "CommandNotFound", "never heard of it"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_too_late_harms_nobody() {
    let (client, mut script) = connected().await;
    let error = client.execute("slow", Value::Null, PATIENCE).await.expect_err("there is no answer");
    assert!(matches!(&error, QmpError::NoAnswer { command, patience: PATIENCE } if command == "slow"), "{error:?}");
    let late = script.hear_command("slow").await;
    let caller = executing(&client, "next", PATIENCE);
    let next = script.hear_command("next").await;
    script.answer(late, json!("late")).await;
    script.answer(late, json!("twice")).await;
    script.answer(next, json!("in time")).await;
    assert_eq!(done(caller).await.expect("it is answered"), "in time");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_harms_nobody() {
    let (client, mut script) = connected().await;
    let caller = executing(&client, "first", PATIENCE);
    let first = script.hear_command("first").await;
    caller.abort();
    assert!(caller.await.expect_err("it is gone").is_cancelled());
    script.answer(first, json!(1)).await;
    let caller = executing(&client, "second", PATIENCE);
    script.obey("second", json!(2)).await;
    assert_eq!(done(caller).await.expect("it is answered"), 2);
}

#[tokio::test(start_paused = true)]
async fn more_callers_than_places_wait_for_their_turn() {
    let (client, mut script) = connected().await;
    let callers: Vec<_> = (0..MAX_COMMANDS + 3).map(|_| executing(&client, "wait", A_WHILE * 9)).collect();
    let mut heard = Vec::new();
    for _ in 0..MAX_COMMANDS {
        heard.push(script.hear_command("wait").await);
    }
    script.hears_nothing().await;
    for _ in 0..3 {
        let id = heard.remove(0);
        script.answer(id, json!(id)).await;
        heard.push(script.hear_command("wait").await);
        script.hears_nothing().await;
    }
    for id in heard {
        script.answer(id, json!(id)).await;
    }
    for caller in callers {
        done(caller).await.expect("it is answered");
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_that_finds_no_place_is_not_sent_later_either() {
    let (client, mut script) = connected().await;
    let callers: Vec<_> = (0..MAX_COMMANDS).map(|_| executing(&client, "hang", PATIENCE)).collect();
    let mut heard = Vec::new();
    for _ in 0..MAX_COMMANDS {
        heard.push(script.hear_command("hang").await);
    }
    for caller in callers {
        assert!(matches!(done(caller).await, Err(QmpError::NoAnswer { .. })));
    }
    // Their callers have given up, and QEMU has them still: so there is no place.
    let error = client.execute("cont", Value::Null, PATIENCE).await.expect_err("it cannot be sent");
    assert!(matches!(&error, QmpError::NotSent { command, .. } if command == "cont"), "{error:?}");
    // Out of band there is.
    let urgent = tokio::spawn({
        let client = client.clone();
        async move { client.execute_oob("yank", json!({ "instances": [] }), PATIENCE).await }
    });
    let command = script.hear().await;
    assert_eq!((&command["exec-oob"], &command["arguments"]), (&json!("yank"), &json!({ "instances": [] })));
    script.answer(command["id"].as_u64().expect("an id"), json!({})).await;
    done(urgent).await.expect("it is answered");
    for id in heard {
        script.answer(id, json!({})).await;
    }
    script.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_command_given_up_while_qemu_does_not_read_is_never_sent() {
    let (client, mut script) = connected_over(1).await;
    // The first is stuck behind its first byte, which counts as sent; the second behind the first.
    let first = executing(&client, "first", PATIENCE);
    let second = executing(&client, "second", PATIENCE);
    assert!(matches!(done(first).await, Err(QmpError::NoAnswer { .. })));
    assert!(matches!(done(second).await, Err(QmpError::NotSent { .. })));
    let first = script.hear_command("first").await;
    script.hears_nothing().await;
    script.answer(first, json!({})).await;
    let third = executing(&client, "third", PATIENCE);
    script.obey("third", json!(3)).await;
    assert_eq!(done(third).await.expect("it is answered"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_too_long_is_not_sent() {
    let (client, mut script) = connected().await;
    let arguments = json!({ "uri": "x".repeat(MAX_COMMAND_BYTES) });
    let error = client.execute("migrate", arguments, PATIENCE).await.expect_err("it is too long");
    assert!(matches!(error, QmpError::TooLong { bytes, .. } if bytes > MAX_COMMAND_BYTES), "{error:?}");
    script.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn unknown_messages_fields_and_answers_are_passed_over() {
    let (client, mut script) = connected().await;
    let caller = executing(&client, "query", PATIENCE);
    let id = script.hear_command("query").await;
    script.say(json!({ "gossip": { "about": "you" } })).await;
    script.say(json!({ "return": "to nobody" })).await;
    script.say(json!({ "return": "to a stranger", "id": 4711 })).await;
    script.say(json!({ "error": { "class": "GenericError", "desc": "to nobody" } })).await;
    script.say(json!({ "id": id })).await;
    script.say(json!({ "return": "to you", "id": id, "more": [1, 2] })).await;
    assert_eq!(done(caller).await.expect("it is answered"), "to you");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_as_documented_is_told_with_its_command() {
    let (client, mut script) = connected().await;
    let commands = Commands::new(client, PATIENCE);
    let (answered, ()) = tokio::join!(commands.query_migrate(), script.obey("query-migrate", json!([])));
    let Err(QmpError::Unexpected(Unexpected { what, text, .. })) = answered else { panic!("it is no object") };
    assert_eq!((what.as_str(), text.as_str()), ("query-migrate", "[]"));
}

#[tokio::test(start_paused = true)]
async fn each_command_is_sent_as_qemu_documents_it() {
    let (client, mut script) = connected().await;
    let qemu = Commands::new(client, PATIENCE);
    async fn sent<S: AsyncRead + AsyncWrite + Unpin>(
        script: &mut Script<S>,
        call: impl Future<Output = Result<(), QmpError>>,
    ) -> Value {
        let hears = async {
            let mut heard = script.hear().await;
            script.answer(heard["id"].as_u64().expect("an id"), json!({})).await;
            heard.as_object_mut().expect("an object").remove("id");
            heard
        };
        let (called, heard) = tokio::join!(call, hears);
        called.expect("it is answered");
        heard
    }
    let bare = |command: &str| json!({ "execute": command });
    let with = |command: &str, arguments: Value| json!({ "execute": command, "arguments": arguments });
    let script = &mut script;

    let capabilities = json!({ "capabilities": [
        { "capability": "events", "state": true }, { "capability": "xbzrle", "state": false },
    ] });
    let call = qemu.set_capabilities(&[("events", true), ("xbzrle", false)]);
    assert_eq!(sent(script, call).await, with("migrate-set-capabilities", capabilities));
    let parameters = json!({ "downtime-limit": 30 });
    let call = qemu.set_parameters(parameters.clone());
    assert_eq!(sent(script, call).await, with("migrate-set-parameters", parameters));
    let uri = json!({ "uri": "unix:/m" });
    assert_eq!(sent(script, qemu.migrate("unix:/m")).await, with("migrate", uri));
    let incoming = json!({ "uri": "unix:/m", "exit-on-error": false });
    assert_eq!(sent(script, qemu.migrate_incoming("unix:/m")).await, with("migrate-incoming", incoming));
    let state = json!({ "state": "pre-switchover" });
    assert_eq!(sent(script, qemu.migrate_continue()).await, with("migrate-continue", state));
    let rounds = json!({ "initial": 50, "max": 550, "rounds": 5, "step": 100 });
    assert_eq!(sent(script, qemu.announce_self()).await, with("announce-self", rounds));
    assert_eq!(sent(script, qemu.migrate_cancel()).await, bare("migrate_cancel"));
    assert_eq!(sent(script, qemu.cont()).await, bare("cont"));
    assert_eq!(sent(script, qemu.stop()).await, bare("stop"));
    assert_eq!(sent(script, qemu.quit()).await, bare("quit"));
}

// Events.

#[tokio::test(start_paused = true)]
async fn events_come_in_order_to_everyone_who_has_asked() {
    let (client, mut script) = connected().await;
    script.say(json!({ "event": "EARLY" })).await;
    script.hears_nothing().await;
    let (mut one, mut two) = (client.subscribe(), client.subscribe());
    script.say(json!({ "event": "STOP", "timestamp": { "seconds": 1, "microseconds": 2 } })).await;
    script.say(json!({ "event": "NEVER_HEARD_OF", "data": { "x": [1] }, "more": true })).await;
    for events in [&mut one, &mut two] {
        let stop = events.next().await.expect("an event");
        assert_eq!(
            (stop.kind().expect("understood"), stop.at),
            (EventKind::Stop, Some(Duration::from_micros(1_000_002)))
        );
        let new = events.next().await.expect("an event");
        assert_eq!((new.name.as_str(), &new.data), ("NEVER_HEARD_OF", &json!({ "x": [1] })));
        assert_eq!(new.kind().expect("no error"), EventKind::Other);
    }
    let mut late = client.subscribe();
    assert!(timeout(A_WHILE, late.next()).await.is_err(), "there was no event since");
}

#[tokio::test(start_paused = true)]
async fn events_and_answers_in_pieces_of_one_byte_are_whole() {
    let (client, mut script) = connected_over(1).await;
    let mut events = client.subscribe();
    let caller = executing(&client, "query-status", PATIENCE);
    let id = script.hear_command("query-status").await;
    script.say(json!({ "event": "MIGRATION", "data": { "status": "pre-switchover" } })).await;
    script.answer(id, json!({ "running": false })).await;
    let event = events.next().await.expect("an event");
    assert_eq!(event.kind().expect("understood"), EventKind::Migration(MigrationStatus::PreSwitchover));
    assert_eq!(done(caller).await.expect("it is answered"), json!({ "running": false }));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_too_far_behind_is_told_how_many_it_has_missed() {
    const TOO_MANY: usize = 10;
    let (client, mut script) = connected().await;
    let mut events = client.subscribe();
    for number in 0..EVENTS_KEPT + TOO_MANY {
        script.say(json!({ "event": "MIGRATION_PASS", "data": { "pass": number } })).await;
    }
    // Whoever does not receive holds up nobody.
    let caller = executing(&client, "query", PATIENCE);
    script.obey("query", json!({})).await;
    done(caller).await.expect("it is answered");

    let missed = events.next().await.expect_err("some are lost");
    assert!(matches!(missed, EventsError::Lagged { missed: 10 }), "{missed:?}");
    for number in TOO_MANY..EVENTS_KEPT + TOO_MANY {
        let event = events.next().await.expect("it was kept");
        assert_eq!(event.data["pass"], number);
    }
    drop(script);
    let end = events.next().await.expect_err("that was all");
    assert!(matches!(end, EventsError::Ended(End::Closed)), "{end:?}");
}

// The end.

#[tokio::test(start_paused = true)]
async fn an_end_is_told_to_all_who_wait_and_all_who_come() {
    let (client, mut script) = connected().await;
    let mut events = client.subscribe();
    let callers: Vec<_> = (0..MAX_COMMANDS + 2).map(|_| executing(&client, "wait", A_WHILE * 2)).collect();
    for _ in 0..MAX_COMMANDS {
        script.hear_command("wait").await;
    }
    script.say(json!({ "event": "SHUTDOWN" })).await;
    drop(script);
    for caller in callers {
        assert!(matches!(ended(done(caller).await), End::Closed));
    }
    assert!(matches!(client.closed().await, End::Closed));
    assert!(matches!(ended(client.execute("late", Value::Null, PATIENCE).await), End::Closed));
    // What was said before the end is still heard.
    assert_eq!(events.next().await.expect("an event").name, "SHUTDOWN");
    assert!(matches!(events.next().await, Err(EventsError::Ended(End::Closed))));
    assert!(matches!(client.subscribe().next().await, Err(EventsError::Ended(End::Closed))));
}

#[tokio::test(start_paused = true)]
async fn an_answer_right_before_the_end_is_an_answer() {
    let (client, mut script) = connected().await;
    let caller = executing(&client, "quit", PATIENCE);
    script.obey("quit", json!({})).await;
    drop(script);
    assert_eq!(done(caller).await.expect("it is answered"), json!({}));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_json_ends_the_connection_for_all_who_wait() {
    let (client, mut script) = connected().await;
    let callers = ["a", "b"].map(|command| executing(&client, command, PATIENCE));
    for _ in 0..callers.len() {
        script.hear().await;
    }
    script.say_text("{\"return\": {}, \"id\": oops}\r\n").await;
    for caller in callers {
        let end = ended(done(caller).await);
        let End::Malformed { text, .. } = &end else { panic!("{end:?}") };
        assert!(text.contains("oops"), "{end}");
    }
    script.hears_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_line_without_an_end_ends_the_connection() {
    let (client, mut script) = connected().await;
    let caller = executing(&client, "query-everything", A_WHILE);
    script.hear_command("query-everything").await;
    let flood = async {
        let piece = "x".repeat(64 << 10);
        while script.0.write_all(piece.as_bytes()).await.is_ok() {}
    };
    let (outcome, ()) = tokio::join!(done(caller), flood);
    let end = ended(outcome);
    assert!(matches!(end, End::TooLong { limit_bytes: MAX_LINE_BYTES, .. }), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_takes_the_connection_with_it() {
    let (client, mut script) = connected().await;
    let (other, mut events) = (client.clone(), client.subscribe());
    drop(client);
    script.hears_nothing().await;
    drop(other);
    script.hears_the_end().await;
    assert!(matches!(events.next().await, Err(EventsError::Ended(End::LetGo))));
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_takes_the_connection_with_it_even_if_qemu_does_not_read() {
    let (client, mut script) = connected_over(1).await;
    assert!(matches!(client.execute("stuck", Value::Null, PATIENCE).await, Err(QmpError::NoAnswer { .. })));
    drop(client);
    let mut rest = Vec::new();
    script.0.read_to_end(&mut rest).await.expect("it ends in order");
    assert_eq!(rest, b"{", "only what the pipe holds");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_not_made_leaves_none_behind() {
    let (ours, theirs) = duplex(64 << 10);
    let mut script = Script::new(theirs);
    script.say(greeting(&["oob"])).await;
    QmpClient::over(ours, PATIENCE).await.expect_err("the first command is not answered");
    script.hear_command("qmp_capabilities").await;
    script.hears_the_end().await;
}
