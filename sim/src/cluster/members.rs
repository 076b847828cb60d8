//! Has each of those that are in sync with a volume go on in its turn: first it falls behind what clients ask for, then the owner is struck,
//! at the moment at which an owner that acknowledged anything without it would have done so.

use std::time::Duration;

use sterna_tests::faults::plan::{Behind, Strike};
use sterna_tests::random::Random;
use tokio::time::{Instant, sleep, sleep_until};

use super::faults::{AGAIN, Faults, LEAST_HEIR};
use super::world::Act;
use crate::site::Stop;
use crate::surroundings::{Clocks, clocks, set_clocks};

/// Which of the members goes on, and how it comes to that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Succession {
    pub(super) volume: u8,
    pub(super) turn: u8,
    pub(super) behind: Behind,
    pub(super) behind_for: Duration,
    pub(super) by: Strike,
    /// Of the owner, from when it is struck on.
    pub(super) lasts: Duration,
}

impl Faults {
    /// Does it. Where nobody is in sync for long, nothing.
    pub(super) async fn go_on(&self, succession: Succession, stop: Stop, draw: u64) {
        let Succession { volume, turn, behind, behind_for, by, lasts } = succession;
        let _turn = self.failovers.turn(volume).await;
        if self.world.is_closed(volume) {
            return;
        }
        let copies = usize::from(self.world.setting.volumes[usize::from(volume)].copies);
        let Some((owner, members)) = self.failovers.owner_and_members(volume, copies - 1).await else { return };
        let Some(&heir) = members.get(usize::from(turn) % members.len().max(1)) else {
            self.world.tell(&format!("nobody is in sync with volume {volume}"));
            return;
        };
        self.world.tell(&format!("in sync with volume {volume} of {owner} are {members:?}, and {heir} is to go on"));
        let ways = self.ways_of(owner);
        let _nodes = (self.node(owner.min(heir)).await, self.node(owner.max(heir)).await);
        let mut held = Vec::new();
        if behind == Behind::Cut || by != Strike::Kill {
            for (low, high) in &ways {
                held.push(self.pair(*low, *high).await);
            }
        }
        self.fall_behind(behind, owner, heir, (stop, draw)).await;
        sleep(behind_for).await;
        match by {
            Strike::Kill => self.down(owner, stop),
            Strike::Pause | Strike::Isolate => {
                ways.iter().for_each(|&(one, other)| self.world.act(Act::Cut(one, other)));
            }
        }
        match behind {
            Behind::Cut if by == Strike::Kill => self.world.act(Act::Heal(owner, heir)),
            // The owner is cut off from it with all others.
            Behind::Cut => {}
            Behind::Kill => self.world.act(Act::Start(heir)),
            Behind::Pause => set_clocks(heir, Clocks { disk_takes: Duration::ZERO, ..clocks(heir) }),
            Behind::Anew => {
                self.down(heir, again(stop, draw));
                set_clocks(heir, Clocks { disk_takes: Duration::ZERO, ..clocks(heir) });
                sleep(AGAIN).await;
                self.world.act(Act::Start(heir));
            }
        }
        let until = Instant::now() + lasts;
        if self.insist(volume, heir, until).await {
            sleep_until(until.max(Instant::now() + LEAST_HEIR)).await;
        }
        match by {
            Strike::Kill => self.world.act(Act::Start(owner)),
            Strike::Pause | Strike::Isolate => {
                ways.iter().for_each(|&(one, other)| self.world.act(Act::Heal(one, other)));
            }
        }
        self.failovers.take_down(volume).await;
    }

    async fn fall_behind(&self, behind: Behind, owner: usize, heir: usize, (stop, draw): (Stop, u64)) {
        match behind {
            Behind::Cut => self.world.act(Act::Cut(owner, heir)),
            Behind::Kill => self.down(heir, stop),
            Behind::Pause => set_clocks(heir, Clocks { disk_takes: STANDS_STILL, ..clocks(heir) }),
            Behind::Anew => {
                self.down(heir, stop);
                sleep(AGAIN).await;
                self.world.act(Act::Start(heir));
                // It starts as fast as ever, and then takes a while to begin anew.
                sleep(Duration::from_millis(LEAST_START_MS + Random::new(draw).below(MORE_START_MS))).await;
                set_clocks(heir, Clocks { disk_takes: SLOW_DISK, ..clocks(heir) });
            }
        }
    }
}

/// The same kind of stop, with other chances.
fn again(stop: Stop, draw: u64) -> Stop {
    match stop {
        Stop::Kill => Stop::Kill,
        Stop::PowerLoss(_, mode) => Stop::PowerLoss(Random::new(draw).bits(), mode),
    }
}

/// The longest that the disk of a member takes for something while it falls behind.
const STANDS_STILL: Duration = Duration::from_secs(4);
/// The same while it begins anew.
const SLOW_DISK: Duration = Duration::from_secs(1);
/// After its start, before that: a few round trips.
const LEAST_START_MS: u64 = 100;
const MORE_START_MS: u64 = 300;
