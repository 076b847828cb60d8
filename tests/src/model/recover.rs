//! That the volume ends up owned and served, from any state, once messages arrive: with all nodes, and with any one of them gone
//! for good, after which an operator asks for a failover.
//!
//! Liveness as something that is checked in each state: what the nodes do by themselves is done in turns, always in the same
//! order, until somebody serves. So this also says that it takes no luck.

use sterna_consensus::handoff::Choice;

use super::step::{self, Action};
use super::volume::{At, Message, State};

/// Whether it does.
pub fn ends_up_served(state: &State) -> bool {
    [None].into_iter().chain(At::all().map(Some)).all(|gone| recover(state.clone(), gone).is_some())
}

/// How it comes to be served without the node that is `gone`; `None` where it does not.
fn recover(mut state: State, gone: Option<At>) -> Option<State> {
    if let Some(gone) = gone {
        state = after(state, Action::Crash(gone));
        state = after(state, Action::Lapse(gone));
    }
    for _ in 0..ROUNDS {
        for at in At::all().filter(|at| Some(*at) != gone) {
            state = turn(state, at);
        }
        // A failover is asked for by people, and only where a node is gone.
        if gone.is_none_or(|gone| is_served(&state, gone)) {
            if is_served_at_all(&state) {
                return Some(state);
            }
            continue;
        }
        for heir in At::all().filter(|at| Some(*at) != gone) {
            state = after(state, Action::TakeOver(heir));
        }
    }
    None
}

/// What a node does by itself that is up, and is heard.
fn turn(mut state: State, at: At) -> State {
    for action in [Action::Start(at), Action::Renew(at), Action::AskForSession(at)] {
        state = after(state, action);
    }
    state = after(state.clone(), Action::Deliver(Message::Open(at, state.spent.opens[at.index()])));
    for action in [Action::Renew(at), Action::Hear(at), Action::Learn(at)] {
        state = after(state, action);
    }
    let view = state.node(at).view.ownership;
    let Some((handoff, to)) = view.under_way() else { return state };
    let choice = state.node(at).pledge.filter(|pledge| pledge.handoff == handoff).map(|pledge| pledge.choice);
    let does = match choice {
        Some(Choice::Released) => Action::Deliver(release(&state, at)),
        Some(Choice::Aborting) => Action::Deliver(Message::Abort(at, handoff)),
        Some(Choice::Activated) => Action::Deliver(Message::Commit(at, handoff)),
        Some(Choice::Declined) => Action::Deliver(Message::Decline(at, handoff)),
        // An owner that hears nothing of the other node aborts, and the other one that hears nothing of the owner declines.
        None if view.owner == at.id() => Action::Abort(at),
        None if to == at.id() && is_over(&state, At::of(view.owner)) => Action::Decline(at),
        None => return state,
    };
    after(after(state, does), Action::Learn(at))
}

/// The release that an owner has sent, and sends again.
fn release(state: &State, at: At) -> Message {
    let view = state.node(at).view.ownership;
    Message::Release(view.moving_to.map_or(at, At::of), view.last_handoff, state.node(at).contents.writes)
}

fn is_over(state: &State, at: At) -> bool {
    state.metadata.sessions[at.index()].is_some_and(|session| !session.is_live())
}

/// Whether the volume is served, or will be without anybody's help: its owner is not `gone`, and no handoff waits for that node.
fn is_served(state: &State, gone: At) -> bool {
    let ownership = state.metadata.ownership;
    let waits = |at: At| ownership.owner == at.id() || ownership.moving_to == Some(at.id());
    !waits(gone) || is_served_at_all(state)
}

fn is_served_at_all(state: &State) -> bool {
    At::all().any(|at| state.serves(at).is_some())
}

/// The state once this has happened, or as it was where it cannot.
fn after(state: State, action: Action) -> State {
    step::next(&state, action).unwrap_or(state)
}

/// More than any state needs: a session, a step of a handoff, its end, a failover, and a look at each.
const ROUNDS: u32 = 8;
