//! Each check finds nothing wrong with a history that is right, and what is wrong with one that is not.

use super::contents::ESHUTDOWN;
use super::{Promise, Violation, check};
use crate::faults::history::{
    Decision, Does, Handoff, Kept, NodeEvent, NodeRecord, Operation, Outcome, Record, Setting, Takeover, VERSION,
    VolumeSetting, What,
};
use crate::faults::mark::{Found, Mark};

/// A history of two nodes and one volume of two blocks, which the first node owns, made step by step; each step takes 10 ns
/// beginning at a time that is given.
struct Story {
    records: Vec<Record>,
}

impl Story {
    /// Node 0 has opened session 1 and serves the volume in epoch 1; its client is connected. Its lease lasts to 1,000.
    fn begun() -> Self {
        let volumes = vec![VolumeSetting { name: "disk".to_owned(), blocks: 2, owner: 0, copies: 1 }];
        let sites = ["ams", "chi"].map(str::to_owned).to_vec();
        let setting = Setting { version: VERSION, seed: 1, sites, session_ms: 1, volumes };
        let story = Self { records: vec![Record::Campaign(setting)] };
        story.opens(0, 1, 10).lasts(0, 1, 20, 1_000).serves(0, 1, 30).attaches(0, 40)
    }

    fn node(mut self, node: u8, at_ns: u64, event: NodeEvent) -> Self {
        self.records.push(Record::Node(NodeRecord { node, at_ns, event }));
        self
    }

    /// Something is proposed about a session, and answered.
    fn proposes(self, node: u8, what: What, (of, session): (u8, u64), at_ns: u64, outcome: Decision) -> Self {
        let asked = if what == What::Open { 0 } else { session };
        self.node(node, at_ns, NodeEvent::Asks { what, of, session: asked }).node(
            node,
            at_ns + 10,
            NodeEvent::Hears { what, of, session, outcome, asked_ns: at_ns },
        )
    }

    fn opens(self, node: u8, session: u64, at_ns: u64) -> Self {
        self.proposes(node, What::Open, (node, session), at_ns, Decision::Done)
    }

    fn lasts(self, node: u8, session: u64, at_ns: u64, until_ns: u64) -> Self {
        self.node(node, at_ns, NodeEvent::Lasts { session, until_ns })
    }

    fn serves(self, node: u8, epoch: u64, at_ns: u64) -> Self {
        self.node(node, at_ns, NodeEvent::Serves { volume: 0, epoch })
    }

    fn does(self, node: u8, does: Does, at_ns: u64, outcome: Outcome) -> Self {
        self.does_within(node, does, (at_ns, at_ns + 10), outcome)
    }

    fn does_within(mut self, node: u8, does: Does, (invoked_ns, answered_ns): (u64, u64), outcome: Outcome) -> Self {
        let (volume, connection) = (0, 1);
        let operation = Operation { volume, node, connection, does, invoked_ns, answered_ns, outcome };
        self.records.push(Record::Operation(operation));
        self
    }

    fn attaches(self, node: u8, at_ns: u64) -> Self {
        self.does(node, Does::Attach, at_ns, Outcome::Done)
    }

    fn violations(&self) -> Vec<Violation> {
        check(&self.records).expect("a history")
    }

    /// Nothing is wrong with it.
    fn holds(self) {
        assert_eq!(self.violations(), []);
    }

    /// Only this promise is violated, at the time at which this ends.
    fn violates(self, promise: Promise, at_ns: u64) {
        let found: Vec<_> = self.violations().iter().map(|violation| (violation.promise, violation.at_ns)).collect();
        assert_eq!(found, [(promise, at_ns)], "{:?}", self.violations());
    }
}

fn write(block: u64, sequence: u64) -> Does {
    Does::Write { block, sequence }
}

/// A read of both blocks, which hold the first node's writes of these numbers; zeroes for 0.
fn read(sequences: [u64; 2]) -> Does {
    let found = |sequence| match sequence {
        0 => Found::Zeroes,
        sequence => Found::Mark(Mark { node: 0, connection: 1, sequence }),
    };
    Does::Read { first: 0, found: sequences.map(found).to_vec() }
}

const DONE: Outcome = Outcome::Done;

/// The second node takes over as it may: after the first one's session has lapsed.
fn taken_over() -> Story {
    let lapsed = NodeEvent::Decided { index: 9, what: What::Lapse, of: 0, session: 1, outcome: Decision::Done };
    Story::begun()
        .does(0, write(0, 1), 100, DONE)
        .proposes(1, What::Lapse, (0, 1), 1_100, Decision::Done)
        .node(1, 1_105, lapsed)
        .opens(1, 1, 1_000)
        .lasts(1, 1, 1_010, 9_000)
        .serves(1, 2, 1_200)
        .attaches(1, 1_210)
}

#[test]
fn what_was_written_is_read() {
    Story::begun()
        .does(0, read([0, 0]), 100, DONE)
        .does(0, write(0, 1), 200, DONE)
        .does(0, Does::Flush, 300, DONE)
        .does(0, write(1, 2), 400, Outcome::Lost)
        .does(0, read([1, 2]), 500, DONE)
        .does(0, write(0, 3), 600, Outcome::Failed(108))
        .does(0, read([1, 2]), 700, DONE)
        .holds();
}

#[test]
fn a_write_that_was_acknowledged_and_is_gone_is_found() {
    let written = || Story::begun().does(0, write(0, 1), 100, DONE).does(0, write(0, 2), 200, DONE);
    written().does(0, Does::Flush, 300, DONE).does(0, read([1, 0]), 400, DONE).violates(Promise::Contents, 410);
    written().does(0, read([0, 0]), 400, DONE).violates(Promise::Contents, 410);
    written().does(0, read([2, 0]), 400, DONE).holds();
}

#[test]
fn a_block_that_comes_back_or_that_nobody_wrote_is_found() {
    let lost = || Story::begun().does(0, write(0, 1), 100, DONE).does(0, write(0, 2), 200, Outcome::Lost);
    lost().does(0, read([1, 0]), 300, DONE).does(0, read([2, 0]), 400, DONE).violates(Promise::Contents, 410);
    lost().does(0, read([2, 0]), 300, DONE).does(0, read([1, 0]), 400, DONE).violates(Promise::Contents, 410);
    Story::begun().does(0, read([0, 7]), 100, DONE).violates(Promise::Contents, 110);
    let garbage = Does::Read { first: 1, found: vec![Found::Wrong("garbage".to_owned())] };
    Story::begun().does(0, garbage, 100, DONE).violates(Promise::Contents, 110);
}

#[test]
fn a_question_that_is_answered_with_another_error_or_never_is_found() {
    Story::begun().does(0, Does::Flush, 100, Outcome::Failed(5)).violates(Promise::Answers, 110);
    Story::begun().does(0, Does::Flush, 100, Outcome::Unanswered).violates(Promise::Answers, 110);
    Story::begun().does(0, Does::Flush, 100, Outcome::Failed(108)).holds();
}

#[test]
fn an_owner_that_acknowledges_something_after_its_successor_is_found() {
    // The answer may be late where the question was not: the process stood still in between.
    let late = |invoked_ns| {
        let story =
            taken_over().does(1, Does::Flush, 1_300, DONE).does_within(0, Does::Flush, (invoked_ns, 1_500), DONE);
        let all = story.violations();
        let promises: Vec<_> = all.iter().map(|violation| violation.promise).collect();
        promises.contains(&Promise::OneWriter)
    };
    assert!(!late(900) && !late(1_305));
    assert!(late(1_311));
}

#[test]
fn somebody_who_acknowledges_without_ever_having_owned_is_found() {
    let found = Story::begun().opens(1, 1, 10).lasts(1, 1, 20, 1_000).does(1, Does::Flush, 100, DONE).violations();
    assert_eq!(found.iter().map(|violation| violation.promise).collect::<Vec<_>>(), [Promise::OneWriter]);
}

#[test]
fn an_acknowledgement_without_a_lease_is_found() {
    Story::begun().does_within(0, Does::Flush, (999, 5_000), DONE).holds();
    Story::begun().does_within(0, Does::Flush, (1_000, 1_010), DONE).violates(Promise::Leases, 1_010);
    let renewed = Story::begun().proposes(0, What::Renew, (0, 1), 900, Decision::Done).lasts(0, 1, 910, 2_000);
    renewed.does(0, Does::Flush, 1_500, DONE).holds();
}

#[test]
fn a_lease_that_outlasts_its_session_is_found() {
    let lapsed = |at_ns| {
        let event = NodeEvent::Decided { index: 9, what: What::Lapse, of: 0, session: 1, outcome: Decision::Done };
        Story::begun().proposes(1, What::Lapse, (0, 1), at_ns - 5, Decision::Done).node(1, at_ns, event)
    };
    lapsed(1_000).holds();
    lapsed(999).violates(Promise::Leases, 999);
    // It has given its lease up.
    lapsed(999).proposes(0, What::Close, (0, 1), 500, Decision::Done).holds();
    // Another one has taken its place: a shorter one counts from then on, and one that is too long as well.
    let replaced =
        |until_ns| lapsed(999).proposes(0, What::Renew, (0, 1), 600, Decision::Done).lasts(0, 1, 700, until_ns);
    replaced(998).holds();
    replaced(1_000).violates(Promise::Leases, 999);
}

#[test]
fn sessions_that_nobody_can_have_had_in_any_order_are_found() {
    let (done, refused, unknown) = (Decision::Done, Decision::Refused, Decision::Unknown);
    let lapse = |outcome| Story::begun().proposes(1, What::Lapse, (0, 1), 1_100, outcome);
    let renew = |story: Story, outcome| story.proposes(0, What::Renew, (0, 1), 1_200, outcome);
    renew(lapse(done), refused).holds();
    renew(lapse(done), done).violates(Promise::Leases, 1_210);
    renew(lapse(refused), done).holds();
    renew(lapse(refused), refused).violates(Promise::Leases, 1_210);
    // Nobody knows what came of it: both is possible, but not one after the other.
    renew(lapse(unknown), done).holds();
    renew(lapse(unknown), refused).holds();
    let both = renew(lapse(unknown), refused).proposes(0, What::Renew, (0, 1), 1_300, done);
    both.violates(Promise::Leases, 1_310);
    // A new session has the next number, and what is still under way about the one before does nothing to it.
    lapse(done).opens(0, 2, 1_300).holds();
    lapse(done).opens(0, 3, 1_300).violates(Promise::Leases, 1_310);
    let next = lapse(unknown).opens(0, 2, 1_300).proposes(0, What::Renew, (0, 2), 1_400, refused);
    next.violates(Promise::Leases, 1_410);
    // One that was opened by somebody who did not live to hear of it.
    let asks = NodeEvent::Asks { what: What::Open, of: 0, session: 0 };
    lapse(done).node(0, 1_200, asks).opens(0, 3, 1_300).holds();
}

#[test]
fn an_acknowledgement_after_the_session_was_seen_to_be_over_is_found() {
    // A lease that should not have been: the order of sessions has no place for what was done under it.
    let story = taken_over().lasts(0, 1, 1_250, 2_000).does(0, Does::Flush, 1_300, DONE);
    let found: Vec<_> = story.violations().iter().map(|violation| violation.promise).collect();
    assert_eq!(
        found,
        [Promise::Leases, Promise::Leases],
        "it outlasts its session, and was used: {:?}",
        story.violations()
    );
}

#[test]
fn nodes_that_have_applied_different_things_are_found() {
    let decided = |outcome| NodeEvent::Decided { index: 4, what: What::Renew, of: 0, session: 1, outcome };
    let story = || Story::begun().node(0, 100, decided(Decision::Done));
    story().node(1, 200, decided(Decision::Done)).holds();
    story().node(1, 200, decided(Decision::Refused)).violates(Promise::Leases, 200);
    let opened = |index| NodeEvent::Decided { index, what: What::Open, of: 0, session: 1, outcome: Decision::Done };
    Story::begun().node(0, 100, opened(2)).node(1, 200, opened(3)).violates(Promise::Leases, 200);
}

/// The second node has taken over what was there after the first so many writes; lost is what was published besides, which the
/// report says, if it arrived.
fn fallen_back(published: u64, complete: u64, lost: impl Into<Option<u64>>) -> Story {
    let mut story = taken_over().does(0, write(1, 2), 200, DONE).does(0, write(0, 3), 300, DONE);
    let [published_bytes, complete_bytes] = [published, complete].map(|blocks| blocks * 4096);
    let lost_bytes = lost.into().map(|blocks| blocks * 4096);
    story.records.push(Record::Takeover(Takeover {
        volume: 0,
        from: 0,
        to: 1,
        epoch: 2,
        published_bytes,
        complete_bytes,
        is_in_sync: Some(false),
        lost_bytes,
        invoked_ns: 1_150,
        answered_ns: 1_190,
    }));
    story
}

#[test]
fn a_failover_falls_back_to_the_state_that_it_reports() {
    fallen_back(3, 2, 1).does(1, read([1, 2]), 1_300, DONE).holds();
    fallen_back(3, 3, 0).does(1, read([3, 2]), 1_300, DONE).holds();
    fallen_back(3, 2, None).does(1, read([1, 2]), 1_300, DONE).holds();
    let own = Does::Write { block: 0, sequence: 1 };
    let found = Found::Mark(Mark { node: 1, connection: 1, sequence: 1 });
    let after = Does::Read { first: 0, found: vec![found] };
    fallen_back(3, 0, 3).does(1, own, 1_300, DONE).does(1, after, 1_400, DONE).holds();
}

#[test]
fn a_loss_report_that_is_not_exact_is_found() {
    fallen_back(3, 2, 1).does(1, read([3, 2]), 1_300, DONE).violates(Promise::LossReport, 1_190);
    fallen_back(3, 2, 1).does(1, read([1, 0]), 1_300, DONE).violates(Promise::LossReport, 1_190);
    fallen_back(3, 2, 0).does(1, read([1, 2]), 1_300, DONE).violates(Promise::LossReport, 1_190);
    fallen_back(4, 3, 1).does(1, read([3, 2]), 1_300, DONE).violates(Promise::LossReport, 1_190);
    fallen_back(2, 3, 0).does(1, read([3, 2]), 1_300, DONE).violates(Promise::LossReport, 1_190);
    fallen_back(2, 3, None).does(1, read([3, 2]), 1_300, DONE).violates(Promise::LossReport, 1_190);
    // What nobody has reported did not happen.
    taken_over().does(1, read([1, 0]), 1_300, DONE).violates(Promise::Contents, 1_300);
}

/// The second node was in sync: after the first write there was a flush, and after the second one a root was published.
fn gone_on_with(found: [u64; 2]) -> Story {
    let mut story = fallen_back(2, 2, 0).does(0, Does::Flush, 150, DONE).does(1, read(found), 1_300, DONE);
    for record in &mut story.records {
        if let Record::Takeover(takeover) = record {
            takeover.is_in_sync = Some(true);
        }
    }
    story
}

#[test]
fn who_is_in_sync_goes_on_with_all_that_was_flushed_or_published() {
    gone_on_with([1, 2]).holds();
    gone_on_with([3, 2]).holds();
    gone_on_with([1, 0]).violates(Promise::LossReport, 1_190);
    gone_on_with([0, 0]).violates(Promise::LossReport, 1_190);
    gone_on_with([3, 0]).violates(Promise::LossReport, 1_190);
}

/// The first node has written to both blocks, and then handed the volume over: while its session lasts.
fn handed_over() -> Story {
    let mut story = Story::begun()
        .does(0, write(0, 1), 100, DONE)
        .does(0, write(1, 2), 200, DONE)
        .does(0, write(0, 3), 300, Outcome::Failed(ESHUTDOWN))
        .opens(1, 1, 50)
        .lasts(1, 1, 60, 9_000)
        .serves(1, 2, 400)
        .attaches(1, 410);
    let (volume, epoch) = (0, Some(2));
    story.records.push(Record::Handoff(Handoff { volume, from: 0, to: 1, epoch, invoked_ns: 310, answered_ns: 405 }));
    story
}

#[test]
fn a_handoff_loses_nothing() {
    handed_over().does(1, read([1, 2]), 500, DONE).holds();
    // What was not acknowledged may have been done before.
    handed_over().does(1, read([3, 2]), 500, DONE).holds();
    handed_over().does(1, read([1, 0]), 500, DONE).violates(Promise::Contents, 410);
    handed_over().does(1, read([0, 2]), 500, DONE).violates(Promise::Contents, 410);
    let later = handed_over().does(1, read([1, 2]), 500, DONE).does(1, read([3, 2]), 600, DONE);
    later.violates(Promise::Contents, 610);
    // Whoever has handed it over acknowledges nothing more.
    handed_over().does(1, read([1, 2]), 500, DONE).does(0, read([1, 2]), 600, DONE).violates(Promise::OneWriter, 610);
}

#[test]
fn an_owner_that_returns_without_all_that_it_acknowledged_is_found() {
    let returned = |complete, sequences: Option<[u64; 2]>| {
        let mut story = fallen_back(3, complete, 3 - complete);
        let found = sequences.map(|sequences| match read(sequences) {
            Does::Read { found, .. } => found,
            other => unreachable!("{other:?}"),
        });
        story.records.push(Record::Kept(Kept { volume: 0, epoch: 1, found }));
        story
    };
    returned(2, Some([3, 2])).holds();
    // One nanosecond after the last that was asked of it.
    returned(2, Some([1, 2])).violates(Promise::Contents, 311);
    returned(2, Some([3, 0])).violates(Promise::Contents, 311);
    returned(3, None).holds();
    returned(2, None).violates(Promise::Contents, 311);
}

#[test]
fn a_failover_while_the_owner_has_a_session_is_found() {
    let mut story = Story::begun().opens(1, 1, 50).lasts(1, 1, 60, 9_000);
    story.records.push(Record::Takeover(Takeover {
        volume: 0,
        from: 0,
        to: 1,
        epoch: 2,
        published_bytes: 0,
        complete_bytes: 0,
        is_in_sync: Some(false),
        lost_bytes: Some(0),
        invoked_ns: 500,
        answered_ns: 600,
    }));
    story.violates(Promise::Leases, 600);
}

#[test]
fn a_history_of_another_version_is_refused() {
    let Story { mut records } = Story::begun();
    if let Record::Campaign(setting) = &mut records[0] {
        setting.version = VERSION + 1;
    }
    assert!(check(&records).is_err() && check(&records[1..]).is_err() && check(&[]).is_err());
}
